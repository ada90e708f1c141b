"""Quantising beside llama-quantize: time, size and mean KL divergence from the bf16 file, for every type, with the same
text for importance, in one run; and what --budget makes of the size of its Q4_K_M.

    bench/run quantize [--model smollm2,gemma3] [--types Q4_0,...] [--chunks 40] [--repeat 3] [--plain] [--no-budget]

The bf16 files are made by ../shared/peers/make-checkpoint.py (needs the Python reference) and `sllm convert`, into
build/models. Texts: importance from one, divergence on another.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "..", "shared", "golden", "data")
SOURCES = {"smollm2": "smollm2-135m-instruct-q4_1.gguf", "gemma3": "gemma3-270m-q4_k_m.gguf"}
TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q4_0", "Q4_1",
         "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "MXFP4"]
THREADS = str(len(os.sched_getaffinity(0)))


def run(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options).stdout


def timed(command):
    begin = time.monotonic()
    run(command)
    return time.monotonic() - begin


class Bench:
    def __init__(self, options):
        self.options = options
        self.sllm = os.environ.get("SLLM", os.path.join(ROOT, "build", "sllm"))
        self.kld = os.environ.get("SLLM_KLD", os.path.join(ROOT, "build", "bench", "kld"))
        self.peer = os.path.join(options.peers, "llama.cpp", "bin")
        self.models = options.models_dir
        self.importance_text = os.path.join(DATA, "ppl_pride_and_prejudice.txt")
        self.text = os.path.join(DATA, "ppl_wikitext2_test_a.txt")

    def base(self, name):
        """The bf16 GGUF file of a checkpoint that make-checkpoint.py made."""
        path = os.path.join(self.models, name + "-bf16.gguf")
        if not os.path.exists(path):
            folder = os.path.join(self.models, name + "-bf16")
            python = os.path.join(self.options.peers, "py", "bin", "python")
            if not os.path.exists(os.path.join(folder, "config.json")):
                run([python, os.path.join(ROOT, "..", "shared", "peers", "make-checkpoint.py"),
                     os.path.join(self.models, SOURCES[name]), folder])
            run([self.sllm, "convert", folder, "-o", path])
        return path

    def importance(self, name, base):
        ours, theirs = (os.path.join(self.models, f"{name}-importance-{who}.gguf") for who in ("sllm", "llama"))
        if not os.path.exists(theirs):
            run([os.path.join(self.peer, "llama-imatrix"), "-m", base, "-f", self.importance_text, "-o", theirs, "-c", "512",
                 "--chunks", "100", "-t", THREADS])
        if not os.path.exists(ours):
            run([self.sllm, "quantize", base, os.path.join(self.models, "throw-away.gguf"), "--type", "q8_0", "--calibrate",
                 self.importance_text, "--importance-out", ours])
            os.remove(os.path.join(self.models, "throw-away.gguf"))
        return ours, theirs

    def quantise(self, base, kind, importance, repeat):
        """Both write the type by turns: (path, best seconds) of ours and of the peer."""
        stem = base[: -len(".gguf")]
        paths = [f"{stem}-{kind}-{who}.gguf" for who in ("sllm", "llama")]
        peer_kind = "mxfp4_moe" if kind == "MXFP4" else kind.lower()
        ours = [self.sllm, "quantize", base, paths[0], "--type", kind, "-j", THREADS]
        theirs = [os.path.join(self.peer, "llama-quantize")]
        if kind == "MXFP4":  # the peer's mix of this name leaves dense models at Q8_0
            theirs += ["--tensor-type", r"attn=mxfp4", "--tensor-type", r"ffn=mxfp4"]
        if importance:
            ours += ["--importance", importance[0]]
            theirs += ["--imatrix", importance[1]]
        theirs += [base, paths[1], peer_kind, THREADS]
        seconds = [[], []]
        for _ in range(repeat):
            seconds[0].append(timed(ours))
            seconds[1].append(timed(theirs))
        return paths, [statistics.median(s) for s in seconds]

    def divergences(self, base, paths):
        out = run([self.kld, self.text, str(self.options.chunks), "512", base] + paths).decode()
        return {row["file"]: row for row in map(json.loads, out.splitlines())}

    def budget(self, base, name):
        """A file of the size of the peer's Q4_K_M at most, types chosen by sensitivity."""
        size = os.path.getsize(base[: -len(".gguf")] + "-Q4_K_M-llama.gguf")
        path = base[: -len(".gguf")] + "-budget-sllm.gguf"
        seconds = timed([self.sllm, "quantize", base, path, "--budget", str(size), "--calibrate", self.importance_text])
        return path, seconds

    def model(self, name):
        base = self.base(name)
        importance = None if self.options.plain else self.importance(name, base)
        rows, paths = [], []
        for kind in self.options.types:
            files, seconds = self.quantise(base, kind, importance, self.options.repeat)
            rows.append((kind, files, seconds))
            paths += files
        if self.options.budget and "Q4_K_M" in self.options.types:
            path, took = self.budget(base, name)
            rows.append(("budget", [path, base[: -len(".gguf")] + "-Q4_K_M-llama.gguf"], [took, float("nan")]))
            paths.append(path)
        found = self.divergences(base, paths)
        print(f"\n{name}: {self.options.chunks} chunks of 512, {'no importance' if self.options.plain else 'same importance text'}, "
              f"{THREADS} threads")
        print(f"{'type':8} {'MB':>7} {'peer':>7} {'KLD':>10} {'+/-':>9} {'peer KLD':>10} {'ratio':>6} {'seconds':>8} {'peer':>7} "
              f"{'ratio':>6}")
        for kind, files, seconds in rows:
            a, b = found[files[0]], found[files[1]]
            sizes = [os.path.getsize(f) / 1e6 for f in files]
            print(f"{kind:8} {sizes[0]:7.1f} {sizes[1]:7.1f} {a['mean_kld']:10.6f} {a['standard_error']:9.6f} "
                  f"{b['mean_kld']:10.6f} {a['mean_kld'] / b['mean_kld']:6.3f} {seconds[0]:8.2f} {seconds[1]:7.2f} "
                  f"{seconds[0] / seconds[1]:6.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.environ.get("SLLM_PEERS", os.path.join(ROOT, "build", "peers")))
    parser.add_argument("--models-dir", default=os.path.join(ROOT, "build", "models"))
    parser.add_argument("--model", default="smollm2,gemma3", type=lambda text: text.split(","))
    parser.add_argument("--types", default=TYPES, type=lambda text: text.split(","))
    parser.add_argument("--chunks", default=40, type=int)
    parser.add_argument("--repeat", default=3, type=int)
    parser.add_argument("--plain", action="store_true", help="without importance")
    parser.add_argument("--no-budget", dest="budget", action="store_false")
    options = parser.parse_args()
    bench = Bench(options)
    for name in options.model:
        bench.model(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
