#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_gguf, fuzz_safetensors, fuzz_importance and fuzz_packed: tiny valid files, one feature each.

    tests/fuzz/make_format_corpus.py tests/fuzz/corpus

Element types and block sizes are facts of the formats; the bytes in the blocks are arbitrary."""
import json
import pathlib
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
# ggml type number: (elements a block, bytes a block)
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
          19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 26: (1, 4),
          27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36)}


def text(s):
    return struct.pack("<Q", len(s)) + s


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def array(kind, count, items):
    return struct.pack("<IQ", kind, count) + items


def gguf(entries, tensors, version=3, alignment=32):
    infos, data = b"", b""
    for name, kind, dims in tensors:
        block, size = BLOCKS[kind]
        n = 1
        for d in dims:
            n *= d
        data += bytes(-len(data) % alignment)
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += bytes((i * 37 + kind) & 0xFF for i in range(n // block * size))
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries) + infos
    return head + (bytes(-len(head) % alignment) + data if tensors else b"")


def gguf_corpus():
    arch = entry(b"general.architecture", STRING, text(b"llama"))
    scalars = [entry(b"s.%d" % k, k, struct.pack("<" + f, v)) for k, f, v in [
        (U8, "B", 1), (I8, "b", -1), (U16, "H", 1), (I16, "h", -1), (U32, "I", 1), (I32, "i", -1), (F32, "f", 0.5),
        (BOOL, "B", 1), (U64, "Q", 1), (I64, "q", -1), (F64, "d", 0.5)]]
    tokens = b"".join(text(t) for t in [b"<s>", b"a", b""])
    nested = array(ARRAY, 2, array(U8, 1, b"\1") + array(STRING, 1, text(b"x")))
    yield "empty", gguf([], [])
    yield "scalars", gguf([arch] + scalars, [])
    yield "vocabulary", gguf([arch, entry(b"tokenizer.ggml.tokens", ARRAY, array(STRING, 3, tokens)),
                              entry(b"tokenizer.ggml.scores", ARRAY, array(F32, 3, bytes(12)))], [])
    yield "nested", gguf([entry(b"n", ARRAY, nested)], [])
    yield "v2", gguf([arch], [(b"w", 0, (2, 3))], version=2)
    eight = entry(b"general.alignment", U32, struct.pack("<I", 8))
    yield "alignment", gguf([eight], [(b"a", 24, (3,)), (b"b", 0, (1,))], alignment=8)
    yield "split", gguf([entry(b"split.no", U16, b"\0\0"), entry(b"split.count", U16, b"\1\0")], [(b"w", 0, (2,))])
    for kind, (block, _) in BLOCKS.items():
        yield f"type{kind}", gguf([arch], [(b"blk.0.w", kind, (block, 2))])


def safetensors(header, size, pad=0):
    raw = json.dumps(header, separators=(",", ":")).encode() + b" " * pad
    return struct.pack("<Q", len(raw)) + raw + bytes(i & 0xFF for i in range(size))


def safetensors_corpus():
    yield "empty", safetensors({}, 0)
    yield "metadata", safetensors({"__metadata__": {"format": "pt", "x": "\0\u00e9"}}, 0, 5)
    yield "scalar", safetensors({"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, 4)
    yield "zero", safetensors({"z": {"dtype": "F16", "shape": [0, 4], "data_offsets": [0, 0]}}, 0)
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    header, at = {}, 0
    for name, size in sizes.items():
        header[name.lower()] = {"dtype": name, "shape": [1, 3], "data_offsets": [at, at + 3 * size]}
        at += 3 * size
    yield "types", safetensors(header, at)


def importance_corpus():
    chunks = [entry(b"imatrix.chunk_count", U32, struct.pack("<I", 2)), entry(b"imatrix.chunk_size", U32, struct.pack("<I", 512))]
    for name, matrices in (("matrix", 1), ("experts", 2)):
        columns = 4
        infos, data = b"", b""
        for suffix, dims, values in ((b".in_sum2", (columns, matrices), [0.5] * columns * matrices), (b".counts", (1, matrices), [8.0] * matrices)):
            data += bytes(-len(data) % 32)
            infos += text(b"blk.0.w" + suffix) + struct.pack("<IQQIQ", 2, *dims, 0, len(data))
            data += struct.pack(f"<{len(values)}f", *values)
        head = b"GGUF" + struct.pack("<IQQ", 3, 2, len(chunks)) + b"".join(chunks) + infos
        yield name, head + bytes(-len(head) % 32) + data
    yield "old", struct.pack("<ii", 1, 7) + b"blk.0.w" + struct.pack("<ii4f", 3, 4, 1, 2, 3, 4)


def packed_corpus():
    def file(method, tensors):
        header, body = {}, b""
        for name, dtype, shape, data in tensors:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        return bytes([method]) + struct.pack("<Q", len(head)) + head + body

    half = b"\x00\x3c"
    for name, method, bits in (("gptq", 0, 4), ("gptq8", 1, 8)):
        yield name, file(method, [("a.qweight", "I32", [32 * bits // 32, 8], bytes(32 * bits // 32 * 8 * 4)),
                                  ("a.qzeros", "I32", [1, 8 * bits // 32], bytes(8 * bits // 8)), ("a.scales", "F16", [1, 8], half * 8),
                                  ("a.g_idx", "I32", [32], bytes(128))])
    yield "awq", file(2, [("a.qweight", "I32", [32, 1], bytes(128)), ("a.qzeros", "I32", [1, 1], bytes(4)), ("a.scales", "F16", [1, 8], half * 8)])
    book = struct.pack("<16f", *[i / 15 for i in range(16)])
    for name, nested in (("bnb", False), ("bnb_double", True)):
        note = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 64]}
        if nested:
            note.update(nested_blocksize=256, nested_dtype="float32", nested_offset=0.5)
        note = json.dumps(note).encode()
        parts = [("a.weight", "U8", [64, 1], bytes(range(64))), ("a.weight.quant_map", "F32", [16], book),
                 ("a.weight.quant_state.bitsandbytes__nf4", "U8", [len(note)], note)]
        parts += ([("a.weight.absmax", "U8", [2], b"\x01\x02"), ("a.weight.nested_absmax", "F32", [1], struct.pack("<f", 1)),
                   ("a.weight.nested_quant_map", "F32", [256], bytes(1024))] if nested else
                  [("a.weight.absmax", "F32", [2], struct.pack("<2f", 1, 2))])
        yield name, file(3, parts)
    yield "int8", file(3, [("a.weight", "I8", [2, 4], bytes(8)), ("a.SCB", "F32", [2], struct.pack("<2f", 1, 2))])


def main():
    root = pathlib.Path(sys.argv[1])
    for target, corpus in [("fuzz_gguf", gguf_corpus()), ("fuzz_safetensors", safetensors_corpus()), ("fuzz_importance", importance_corpus()),
                           ("fuzz_packed", packed_corpus())]:
        (root / target).mkdir(parents=True, exist_ok=True)
        for name, data in corpus:
            (root / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
