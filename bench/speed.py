#!/usr/bin/env python3
"""sllm beside llama.cpp and ik_llama.cpp on the same files: ratios to the better of the two, each at its best number of
threads. Runs are interleaved (ours, peer, ours, peer ...) because machines are shared; medians are compared, and the spread
is that of the rounds. Every figure is appended to bench/results/<machine>.csv.

parts:
  generate  64 tokens after an empty context, one sequence
  prompt    a prompt of 512 tokens
  batch     8 sequences that generate together (llama-batched-bench), also as a share of our prompt speed
  busy      generate, with one busy process beside, as a share of the quiet speed
  start     process start to first token, a prompt of 20 tokens
  memory    peak memory of `sllm run` with a full context, against `sllm plan`
"""
import argparse
import contextlib
import csv
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

import engines
import models

ROOT = engines.ROOT
COLUMNS = "date machine kernels file test depth batch threads engine unit median min max".split()
SEQUENCES = 8


def machine_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = re.search(r"model name\s*:\s*(.*)", file.read())
    return re.sub(r"\W+", "-", (cpu.group(1) if cpu else platform.machine()).strip()).strip("-").lower()


class Journal:
    """The file of this machine's results."""

    def __init__(self):
        self.machine = machine_name()
        shown = json.loads(engines.output([engines.SLLM, "show", "--cpu", "--json"]))
        self.kernels = shown["machine"]["kernels"]
        self.path = os.path.join(ROOT, "bench", "results", self.machine + ".csv")

    def add(self, file, test, engine, threads, values, unit="tokens/s", depth=0, batch=1):
        with open(self.path, "a", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            if out.tell() == 0:
                writer.writerow(COLUMNS)
            figures = [f"{x:.6g}" for x in (statistics.median(values), min(values), max(values))]
            writer.writerow([datetime.date.today(), self.machine, self.kernels, file, test, depth, batch, threads, engine,
                             unit, *figures])


def spread(values, form="{:.1f}"):
    return f"{form.format(statistics.median(values)):>8}  ({form.format(min(values))} .. {form.format(max(values))})"


def rounds(engines_to_run, repeat, measure):
    """{engine: [a value of each round]}; an engine that cannot do this is told and left out."""
    found = {engine: [] for engine in engines_to_run}
    for _ in range(repeat):
        for engine in list(found):
            try:
                found[engine].append(measure(engine))
            except (RuntimeError, FileNotFoundError, KeyError, IndexError) as error:
                models.say(f"  {engine.name}, {engine.threads} threads: left out: {error}")
                del found[engine]
    return found


def report(journal, file, test, found, **where):
    """Prints every engine and our ratio to the best peer; gives our values."""
    ours = next(iter(found))
    print(f"{file}: {test}, tokens/s")
    for engine, values in found.items():
        print(f"  {engine.name:<13} {engine.threads} threads  {spread(values)}")
        journal.add(file, test, engine.name, engine.threads, values, **where)
    peers = [engine for engine in found if engine is not ours]
    if peers:
        best = max(peers, key=lambda engine: statistics.median(found[engine]))
        ratio = statistics.median(found[ours]) / statistics.median(found[best])
        each = [a / b for a, b in zip(found[ours], found[best])]
        print(f"  ratio to {best.name} with {best.threads} threads: {ratio:.2f}  ({min(each):.2f} .. {max(each):.2f})")
    sys.stdout.flush()
    return found[ours]


@contextlib.contextmanager
def busy_process():
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def part_generate(run, path, file):
    n = run.arguments.generate
    report(run.journal, file, "generate", rounds(run.all, run.arguments.repeat, lambda e: e.generate(path, n, 0)))


def part_prompt(run, path, file):
    n = run.arguments.prompt
    report(run.journal, file, "prompt", rounds(run.all, run.arguments.repeat, lambda e: e.prompt(path, n, 0)))


def part_batch(run, path, file):
    found = rounds(run.all, run.arguments.repeat, lambda e: e.batch(path, 32, SEQUENCES))
    together = report(run.journal, file, f"batch of {SEQUENCES}", found, batch=SEQUENCES)
    prompts = [run.ours.prompt(path, run.arguments.prompt, 0) for _ in range(run.arguments.repeat)]
    print(f"  share of our prompt speed ({statistics.median(prompts):.1f}): "
          f"{100 * statistics.median(together) / statistics.median(prompts):.0f} %")


def part_busy(run, path, file):
    n, repeat = run.arguments.generate, run.arguments.repeat
    quiet = rounds(run.all, repeat, lambda e: e.generate(path, n, 0))
    with busy_process():
        busy = rounds(run.all, repeat, lambda e: e.generate(path, n, 0))
    report(run.journal, file, "generate, one process busy", busy)
    for engine, values in busy.items():
        share = statistics.median(values) / statistics.median(quiet[engine])
        print(f"  {engine.name:<13} {engine.threads} threads  {100 * share:.0f} % of the quiet {statistics.median(quiet[engine]):.1f}")


def first_token(path, threads):
    """Seconds from process start to the first byte of the answer to a prompt of 20 tokens."""
    start = time.monotonic()
    process = subprocess.Popen([engines.SLLM, "run", path, "--threads", str(threads), "--raw", "--greedy",
                                "--max-new-tokens", "1", " the" * 20], stdout=subprocess.PIPE)
    process.stdout.read(1)
    seconds = time.monotonic() - start
    process.stdout.read()
    process.wait()
    return seconds


def part_start(run, path, file):
    first_token(path, run.ours.threads)  # the page cache is warm afterwards
    values = [1000 * first_token(path, run.ours.threads) for _ in range(run.arguments.repeat)]
    print(f"{file}: start to first token, 20-token prompt: {spread(values, '{:.0f}')} ms")
    run.journal.add(file, "start to first token", "sllm", run.ours.threads, values, unit="ms")


def peak_memory(path, ctx):
    """Bytes at the peak of a run whose prompt fills the context."""
    process = subprocess.Popen([engines.SLLM, "run", path, "--raw", "--greedy", "--max-new-tokens", "2", "--ctx",
                                str(ctx), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(b" the" * (ctx - 8))
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"sllm run --ctx {ctx}: exit status {process.returncode}")
    return usage.ru_maxrss * 1024


def part_memory(run, path, file):
    for ctx in (512, 2048, 4096):
        plan = json.loads(engines.output([engines.SLLM, "plan", path, "--ctx", str(ctx), "--json"]))
        peak = peak_memory(path, ctx)
        print(f"{file}: context {ctx}: peak {peak / 1e6:.1f} MB, planned {plan['total_bytes'] / 1e6:.1f} MB "
              f"({100 * (plan['total_bytes'] / peak - 1):+.1f} %)")
        run.journal.add(file, "peak memory", "sllm", run.ours.threads, [peak], unit="bytes", depth=ctx)
        run.journal.add(file, "planned memory", "sllm", run.ours.threads, [plan["total_bytes"]], unit="bytes", depth=ctx)


PARTS = {"generate": part_generate, "prompt": part_prompt, "batch": part_batch, "busy": part_busy, "start": part_start,
         "memory": part_memory}


class Run:
    def __init__(self, arguments):
        self.arguments = arguments
        self.journal = Journal()
        self.ours = engines.Sllm(arguments.threads)
        self.all = [self.ours] + ([] if arguments.no_peers else engines.peers(arguments.peers, arguments.threads))


def names(text):
    return [name for name in text.split(",") if name]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="build/peers", help="folder of the peers ($SLLM_PEERS)")
    parser.add_argument("--no-peers", action="store_true", help="measure sllm alone")
    parser.add_argument("--only", type=names, default=list(PARTS), metavar="PART,...", help="some of: " + ", ".join(PARTS))
    parser.add_argument("--model", type=names, default=models.DEFAULT, metavar="NAME,...",
                        help="smollm2, gemma3, tiny|1b|3b|7b[-TYPE] (random weights; 1b and 3b need 8 GB of disk while they are "
                        "made), types (tiny in every type), or a GGUF file; default: " + ",".join(models.DEFAULT))
    parser.add_argument("--folder", default=os.path.join(ROOT, "build", "models"), help="where model files lie")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
    return arguments


def main():
    arguments = parse()
    run = Run(arguments)
    load = os.getloadavg()[0]
    print(f"{run.journal.machine}, {run.journal.kernels}, load {load:.1f}, median of {arguments.repeat} (lowest .. highest)")
    for name in models.expand(arguments.model):
        path = models.fetch(arguments.folder, name, arguments.peers)
        for part in arguments.only:
            PARTS[part](run, path, os.path.basename(path))


if __name__ == "__main__":
    sys.exit(main())
