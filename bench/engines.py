"""One measurement of each engine: tokens/s of a prompt, of generation, of many sequences at once."""
import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SLLM = os.environ.get("SLLM", os.path.join(ROOT, "build", "sllm"))


def output(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


class Sllm:
    def __init__(self, threads):
        self.name, self.threads = "sllm", threads

    def bench(self, path, *arguments):
        command = [SLLM, "bench", path, "--threads", str(self.threads), "--repeat", "1", "--json", *map(str, arguments)]
        return json.loads(output(command))["results"][0]["tokens_per_second"]

    def prompt(self, path, n, depth):
        return self.bench(path, "--prompt", n, "--generate", 0, "--depth", depth, "--batch", 1)

    def generate(self, path, n, depth):
        return self.bench(path, "--prompt", 0, "--generate", n, "--depth", depth, "--batch", 1)

    def batch(self, path, n, sequences):
        return self.bench(path, "--prompt", 0, "--generate", n, "--depth", 16, "--batch", sequences)


class LlamaBench:
    """llama-bench of llama.cpp, or of ik_llama.cpp with weights repacked at load, its fastest form."""

    def __init__(self, name, folder, threads):
        self.name, self.folder, self.threads = name, folder, threads
        self.extra = ["-rtr", "1"] if name == "ik_llama.cpp" else []
        self.can_batch = name == "llama.cpp"

    def bench(self, path, n_prompt, n_generate, depth):
        at_depth = ["-d", str(depth)] if depth else []  # ik_llama.cpp has no such option
        tool = os.path.join(self.folder, "llama-bench")
        rows = json.loads(output([tool, "-m", path, "-t", str(self.threads), "-p", str(n_prompt), "-n", str(n_generate),
                                  "-r", "1", "-o", "json", *self.extra, *at_depth]))
        return rows[0]["avg_ts"]

    def prompt(self, path, n, depth):
        return self.bench(path, n, 0, depth)

    def generate(self, path, n, depth):
        return self.bench(path, 0, n, depth)

    def batch(self, path, n, sequences):
        tool = os.path.join(self.folder, "llama-batched-bench")
        lines = output([tool, "-m", path, "-t", str(self.threads), "-tb", str(self.threads), "-npp", "16", "-ntg", str(n), "-npl",
                        str(sequences), "-c", str(sequences * (n + 32)), "--output-format", "jsonl"])
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")][-1]["speed_tg"]


def peers(folder, threads):
    """Each peer that is there, with one thread and with all; and the names of those that are not."""
    found, absent = [], []
    for name in ("llama.cpp", "ik_llama.cpp"):
        tools = os.path.join(folder, name, "bin")
        if os.path.exists(os.path.join(tools, "llama-bench")):
            found += [LlamaBench(name, tools, n) for n in sorted({1, threads})]
        else:
            absent.append(name)
    return found, absent
