#!/usr/bin/env python3
"""What speculation gains and costs: `sllm run` with and without, interleaved, on text that repeats itself and text that does
not. Prints the median speeds, the median of the ratios with their quartiles, the rows computed beyond the tokens, and
those of the draft.

    bench/speculate.py [MODEL] [--draft MODEL] [--runs 15] [--tokens 200] [--threads N]
"""
import argparse
import json
import os
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SLLM = os.environ.get("SLLM", os.path.join(ROOT, "build", "sllm"))

LIST = "\n".join(f"- item number {i}: the quick brown fox jumps over the lazy dog" for i in range(8))
CODE = "".join(f"def area_{name}(width, height):\n    return width * height\n\n" for name in ("table", "door", "wall"))
TEXTS = [
    ("a list to copy, greedy", f"Repeat this list exactly, three times:\n{LIST}", ["--greedy"]),
    ("code to go on with, greedy, raw", CODE, ["--greedy", "--raw"]),
    ("a story, greedy", "Write a short story about a sailor who learns to play the violin in a distant town.", ["--greedy"]),
    ("a story, temperature 0.8", "Write a short story about a sailor who learns the violin.", ["--temperature", "0.8"]),
    ("noise, temperature 3", "Write a short story about a sailor.", ["--temperature", "3", "--top-p", "1"]),
]


def run(options, prompt, *more):
    command = [SLLM, "run", options.model, prompt, "--json", "--ignore-end", "--seed", "1", "-m", str(options.tokens), *more]
    if options.threads:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return json.loads(done.stdout)


def measure(options, name, prompt, sampling):
    way = ["--draft", options.draft] if options.draft else ["--speculate", "lookup"]
    plain, guessed, extra, drafted = [], [], [], []
    for i in range(options.runs):
        pair = [(plain, sampling), (guessed, [*sampling, *way])]
        answers = {}
        for speeds, more in pair if i % 2 == 0 else pair[::-1]:
            answer = run(options, prompt, *more)
            speeds.append(answer["tokens_per_second"])
            answers[speeds is guessed] = answer
        if answers[True]["ids"] != answers[False]["ids"]:
            raise SystemExit(f"{name}: the answer differs with speculation")
        counts = answers[True]["speculation"]
        needed = answers[True]["prompt_tokens"] - answers[True]["reused_tokens"] + options.tokens - 1
        extra.append(100 * (counts["rows"] - needed) / options.tokens)
        drafted.append(counts["draft_rows"])
    ratios = sorted(b / a for a, b in zip(plain, guessed))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(f"| {name} | {statistics.median(plain):.1f} | {statistics.median(guessed):.1f} | {statistics.median(ratios):.2f} "
          f"({low:.2f} to {high:.2f}) | {statistics.median(extra):.1f} % | "
          f"{statistics.median(drafted):.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m")
    parser.add_argument("--draft")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    print("| text | tokens/s without | with | ratio, median (quartiles) | rows beyond tokens | rows of the draft |\n"
          "|---|---|---|---|---|---|")
    for text in TEXTS:
        measure(options, *text)


if __name__ == "__main__":
    main()
