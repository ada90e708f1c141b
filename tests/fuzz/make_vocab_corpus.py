#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_vocab and fuzz_tokenizer_files: tiny vocabularies of every kind.

    tests/fuzz/make_vocab_corpus.py tests/fuzz/corpus"""
import base64
import json
import pathlib
import struct
import sys

from make_format_corpus import ARRAY, BOOL, F32, I8, I32, STRING, U32, array, entry, gguf, text

BLANK = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def letters():
    """GPT-2's letter for each byte."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def raw(token):
    return token if isinstance(token, bytes) else token.encode()


def strings(key, items):
    return entry(b"tokenizer.ggml." + key, ARRAY, array(STRING, len(items), b"".join(text(raw(s)) for s in items)))


def string(key, value):
    return entry(b"tokenizer.ggml." + key, STRING, text(value.encode()))


def number(key, value):
    return entry(b"tokenizer.ggml." + key, U32, struct.pack("<I", value))


def flag(key, value):
    return entry(b"tokenizer.ggml." + key, BOOL, bytes([value]))


def vocabulary(tokens, scores=False):
    """tokens: (text, type, score)"""
    n = len(tokens)
    parts = [strings(b"tokens", [t[0] for t in tokens]),
             entry(b"tokenizer.ggml.token_type", ARRAY, array(I32, n, struct.pack(f"<{n}i", *[t[1] for t in tokens])))]
    if scores:
        parts.append(entry(b"tokenizer.ggml.scores", ARRAY, array(F32, n, struct.pack(f"<{n}f", *[t[2] for t in tokens]))))
    return parts


BYTES = [letters()[b] for b in list(range(32, 127)) + [10, 195, 169]]
WORDS = [("<s>", CONTROL, 0), ("</s>", CONTROL, 0), ("<unk>", UNKNOWN, 0)]
BYTE_LEVEL = [(t, NORMAL, 0) for t in BYTES + ["he", "ll", "hell", "hello", "\u0120hello"]] + [("<|im_end|>", CONTROL, 0),
             ("<fim_prefix>", CONTROL, 0), ("<fim_suffix>", CONTROL, 0), ("<fim_middle>", CONTROL, 0), ("\u00fc", USER, 0)]
MERGES = ["h e", "l l", "he ll", "hell o", "\u0120 hello"]
SENTENCE = WORDS + [(f"<0x{b:02X}>", BYTE, 0) for b in range(256)] + [
    (BLANK, NORMAL, -9), ("a", NORMAL, -8), ("b", NORMAL, -7), ("ab", NORMAL, -1), (BLANK + "ab", NORMAL, -2),
    (BLANK + BLANK, USER, 0), ("<turn>", USER, 0), ("abab", UNUSED, -0.5), ("\u00e9", NORMAL, -6)]
HALF = SENTENCE + [(b"\x9f\x98\x80", USER, 0), (b"\xf0", USER, 0), (b"\xe4\xb8", CONTROL, 0),
                   (b"\xad\xf0\x9f", NORMAL, -3)]
UNIGRAM = [("<pad>", CONTROL, 0), ("</s>", CONTROL, 0), ("<unk>", UNKNOWN, 0), (BLANK, NORMAL, -2.0), ("a", NORMAL, -3.0),
           ("b", NORMAL, -3.5), ("ab", NORMAL, -4.0), (BLANK + "a", NORMAL, -2.5)]
WORDPIECE = [("[PAD]", CONTROL, 0), ("[UNK]", CONTROL, 0), ("[CLS]", CONTROL, 0), ("[SEP]", CONTROL, 0),
             (BLANK + "un", NORMAL, 0), ("able", NORMAL, 0), (BLANK + "a", NORMAL, 0), ("b", NORMAL, 0)]


def charsmap():
    """SentencePiece's compiled map: a double-array trie of one unit, no replacements."""
    return struct.pack("<II", 4, 0)


def charsmap_of(key, replacement, value=0):
    """The same with one key, which becomes replacement[value:]; all of it may be any bytes."""
    units = [0] * 256 * (len(key) + 2)
    units[0] = 256 << 10  # the children of the key's first k bytes begin at 256 (k + 1)
    for k, byte in enumerate(key):
        node = 256 * (k + 1) + byte
        units[node] = (node ^ 256 * (k + 2)) << 10 | (k + 1 == len(key)) << 8 | byte
    units[256 * (len(key) + 1)] = 1 << 31 | value
    return struct.pack(f"<{len(units) + 1}I", 4 * len(units), *units) + replacement + b"\0"


def t5(charsmap_bytes):
    n = len(charsmap_bytes)
    return [string(b"model", "t5"), *vocabulary(UNIGRAM, True), number(b"unknown_token_id", 2),
            number(b"eos_token_id", 1), flag(b"remove_extra_whitespaces", 1),
            entry(b"tokenizer.ggml.precompiled_charsmap", ARRAY, array(I8, n, charsmap_bytes))]


def gguf_vocabularies():
    yield "gpt2", "hello \u00e9<|im_end|>", [string(b"model", "gpt2"), string(b"pre", "gpt-2"), strings(b"merges", MERGES),
                                             *vocabulary(BYTE_LEVEL), number(b"eos_token_id", len(BYTES) + 5)]
    for pre in ["llama-bpe", "qwen2", "gpt-4o", "deepseek-coder", "tekken", "falcon"]:
        yield pre, "hello 12 hello", [string(b"model", "gpt2"), string(b"pre", pre), strings(b"merges", MERGES),
                                      *vocabulary(BYTE_LEVEL), number(b"bos_token_id", 0), flag(b"add_bos_token", 1)]
    yield "llama", "ab  abab\u00e9<s>\u4e2d", [string(b"model", "llama"), *vocabulary(SENTENCE, True),
                                               number(b"bos_token_id", 0), number(b"eos_token_id", 1),
                                               number(b"unknown_token_id", 2)]
    yield "llama_no_prefix", "ab <turn> ab", [string(b"model", "llama"), *vocabulary(SENTENCE, True),
                                              number(b"bos_token_id", 0), flag(b"add_space_prefix", 0)]
    yield "llama_half_characters", "ab\U0001f600\u4e2d \U0001f600", [
        string(b"model", "llama"), *vocabulary(HALF, True), number(b"unknown_token_id", 2)]
    yield "llama_half_characters_no_prefix", "ab\U0001f600\u4e2d \U0001f600", [
        string(b"model", "llama"), *vocabulary(HALF, True), number(b"unknown_token_id", 2), flag(b"add_space_prefix", 0)]
    yield "gemma4", "ab  ab", [string(b"model", "gemma4"), *vocabulary(SENTENCE), strings(b"merges", ["a b", BLANK + " ab"]),
                               number(b"unknown_token_id", 2), number(b"bos_token_id", 0)]
    yield "bert", "Un\u00e9able a!", [string(b"model", "bert"), *vocabulary(WORDPIECE), number(b"cls_token_id", 2),
                                      number(b"seperator_token_id", 3), number(b"unknown_token_id", 1)]
    yield "t5", " ab  a", t5(charsmap())
    yield "t5_charsmap", "bbA", t5(charsmap_of(b"A", b"a"))
    yield "t5_charsmap_not_utf8", 14 * "b" + "A", t5(charsmap_of(b"A", b"\xf4"))
    yield "t5_charsmap_cuts_key", 10 * "b" + "\u00e9", t5(charsmap_of(b"\xc3", b"a"))
    yield "t5_charsmap_cuts_text", 14 * "b" + "A", t5(charsmap_of(b"A", b"\xf0\x9f\x98\x80", 1))
    yield "bad_merge", "hello", [string(b"model", "gpt2"), string(b"pre", "gpt-2"), strings(b"merges", ["h zz"]),
                                 *vocabulary(BYTE_LEVEL)]


def varint(n):
    out = b""
    while n >= 128:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def part(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def model(kind, pieces, byte_fallback, prefix=1, collapse=0):
    out = b""
    for piece, typ, score in pieces:
        out += part(1, part(1, raw(piece)) + b"\x15" + struct.pack("<f", score) + varint(24) + varint(typ))
    out += part(2, varint(24) + varint(kind) + varint(35 << 3) + varint(byte_fallback) + varint(40 << 3) + varint(2) +
                varint(41 << 3) + varint(0) + varint(42 << 3) + varint(1))
    return out + part(3, part(2, charsmap()) + bytes([24, prefix, 32, collapse, 40, 1]))


def older_files():
    vocab = {t[0]: i for i, t in enumerate(BYTE_LEVEL)}
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": {
        str(vocab["<|im_end|>"]): {"content": "<|im_end|>", "special": True}}}
    yield "bpe_model", "tokenizer.model", "ab  abab\u00e9", [model(2, SENTENCE, 1)]
    yield "bpe_model_plain", "tokenizer.model", "ab \u4e2d\u4e2d", [model(2, WORDS + SENTENCE[259:], 0, 1, 1)]
    yield "bpe_model_half_characters", "tokenizer.model", "ab\U0001f600\u4e2d", [model(2, HALF, 1)]
    yield "unigram_model", "tokenizer.model", " ab  a", [model(1, UNIGRAM, 0, 1, 1)]
    yield "merges", "vocab.json", "hello\u00e9", [json.dumps(vocab), "#version: 0.2\n" + "\n".join(MERGES) + "\n"]
    yield "merges_config", "vocab.json", "hello", [json.dumps(vocab), "\n".join(MERGES), json.dumps(config)]
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "a", "##b"]
    yield "vocab_txt", "vocab.txt", "Unable ab", ["\n".join(lines) + "\n"]
    ranks = [bytes([b]) for b in range(256)] + [b"he", b"ll", b"hell"]
    tiktoken = "".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(ranks))
    for name in ["qwen.tiktoken", "r50k_base.tiktoken", "tokenizer.model"]:
        yield "tiktoken_" + name.split(".")[0], name, "hello 12", [tiktoken]


def write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    corpus = pathlib.Path(sys.argv[1])
    for name, line, entries in gguf_vocabularies():
        write(corpus / "fuzz_vocab", name, line.encode() + b"\n" + gguf(entries, []))
    for name, file, line, parts in older_files():
        parts = [p if isinstance(p, bytes) else p.encode() for p in parts]
        write(corpus / "fuzz_tokenizer_files", name, f"{file}\n{line}\n".encode() + b"\n--\n".join(parts))


if __name__ == "__main__":
    main()
