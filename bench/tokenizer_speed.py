#!/usr/bin/env python3
"""Tokenising speed beside Hugging Face tokenizers, interleaved: ours, theirs, ours, theirs, ... and the medians.

usage: tokenizer_speed.py [--pairs] PROGRAM VOCABULARY.gguf TOKENIZER.json[.gz] TEXTS...     (pip install tokenizers)

Passes alternate: ours first, theirs first, ours again, theirs again; so each meets processor caches that the other has
filled. With --pairs each does both its passes before the other has its turn.

TEXTS: .jsonl files (a JSON string, or an object with "text", a line) and .txt files (one text each). One thread each; processor time.
First pass: a vocabulary just loaded, nothing cached. Repeated: the same texts again."""
import gzip, json, os, statistics, subprocess, sys, tempfile, time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

ROUNDS = 7


def read(paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            if path.endswith(".txt"):
                yield file.read()
                continue
            for line in file:
                value = json.loads(line)
                yield value["text"] if isinstance(value, dict) else value


def main():
    pairs = sys.argv[1] == "--pairs"
    program, vocabulary, json_path, *paths = sys.argv[1 + pairs:]
    texts = list(read(paths))
    n_bytes = sum(len(t.encode()) for t in texts)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
        file.flush()
        ours = subprocess.Popen([program, vocabulary, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        source = (gzip.open if json_path.endswith(".gz") else open)(json_path, "rt", encoding="utf-8").read()

        def run_ours(what):
            ours.stdin.write(what + "\n")
            ours.stdin.flush()
            seconds, _, ids = ours.stdout.readline().split()
            return float(seconds), int(ids)

        def run_theirs(tokenizer):
            start = time.thread_time()
            ids = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
            return time.thread_time() - start, ids

        times = {"ours first": [], "theirs first": [], "ours again": [], "theirs again": []}
        for _ in range(ROUNDS):
            tokenizer = Tokenizer.from_str(source)
            tokenizer.encode_special_tokens = True
            passes = [(who, what) for what in ("first", "again") for who in ("ours", "theirs")]
            if pairs:
                passes = [(who, what) for who in ("ours", "theirs") for what in ("first", "again")]
            counts = set()
            for who, what in passes:
                seconds, n_ids = run_ours(what) if who == "ours" else run_theirs(tokenizer)
                times[f"{who} {what}"].append(seconds)
                counts.add(n_ids)
            assert len(counts) == 1, f"different numbers of ids: {counts}"
        ours.stdin.close()
        ours.wait()
    print(f"{len(texts)} texts, {n_bytes} bytes, {ROUNDS} rounds")
    for what in ("first", "again"):
        mine, their = statistics.median(times["ours " + what]), statistics.median(times["theirs " + what])
        print(f"{what}: {n_bytes / mine / 1e6:.1f} MB/s, theirs {n_bytes / their / 1e6:.2f} MB/s: {their / mine:.1f} x")


if __name__ == "__main__":
    main()
