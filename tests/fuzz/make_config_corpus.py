#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_config: metadata of GGUF files without tensors, and the config.json of every model
among the golden data.

    tests/fuzz/make_config_corpus.py tests/fuzz/corpus"""
import pathlib
import struct
import sys

from make_format_corpus import ARRAY, BOOL, F32, I32, STRING, U32, array, entry, gguf, text

SIZES = {"block_count": 3, "embedding_length": 64, "attention.head_count": 4, "attention.head_count_kv": 2,
         "feed_forward_length": 160, "context_length": 512, "vocab_size": 320, "rope.freq_base": 10000.0,
         "attention.layer_norm_rms_epsilon": 1e-5}


def value(v):
    if isinstance(v, bool):
        return BOOL, bytes([v])
    if isinstance(v, int):
        return (U32 if v >= 0 else I32), struct.pack("<I" if v >= 0 else "<i", v)
    if isinstance(v, float):
        return F32, struct.pack("<f", v)
    if isinstance(v, str):
        return STRING, text(v.encode())
    return ARRAY, array(value(v[0])[0], len(v), b"".join(value(item)[1] for item in v))


def metadata(architecture, **more):
    keys = {**SIZES, **{key.replace("__", "."): v for key, v in more.items()}}
    entries = [entry(b"general.architecture", *value(architecture))]
    return gguf(entries + [entry(f"{architecture}.{key}".encode(), *value(v)) for key, v in keys.items()], [])


def gguf_metadata():
    yield "llama", metadata("llama", rope__dimension_count=16)
    yield "mixtral", metadata("llama", expert_count=4, expert_used_count=2)
    yield "yarn", metadata("mistral3", rope__scaling__type="yarn", rope__scaling__factor=4.0,
                           rope__scaling__original_context_length=128)
    yield "linear", metadata("llama", rope__scaling__type="linear", rope__scaling__factor=2.0)
    yield "windows", metadata("gemma3", attention__sliding_window=64, attention__key_length=32,
                              attention__value_length=32, attention__sliding_window_pattern=[True, True, False])
    yield "phi3", metadata("phi3", rope__scaling__attn_factor=1.25, attention__sliding_window=128)
    yield "qwen2moe", metadata("qwen2moe", expert_count=4, expert_used_count=2, expert_feed_forward_length=32,
                               expert_shared_feed_forward_length=64)
    yield "starcoder2", metadata("starcoder2", attention__layer_norm_epsilon=1e-5)
    yield "gpt2_gguf", metadata("gpt2", attention__layer_norm_epsilon=1e-5)
    yield "largest", metadata("llama", block_count=1024, embedding_length=1 << 20, feed_forward_length=1 << 20,
                              attention__head_count=1 << 10, attention__head_count_kv=1 << 10, vocab_size=1 << 24,
                              expert_count=4096, expert_used_count=4096)


def main():
    folder = pathlib.Path(sys.argv[1]) / "fuzz_config"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in gguf_metadata():
        (folder / name).write_bytes(data)
    for config in sorted((pathlib.Path(__file__).parent.parent / "golden/data/models").glob("*/config.json")):
        (folder / f"{config.parent.name}.json").write_bytes(config.read_bytes())


if __name__ == "__main__":
    main()
