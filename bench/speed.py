#!/usr/bin/env python3
"""sllm beside llama.cpp and ik_llama.cpp on the same files: ratios to the better of the two, each at its best number of
threads. Runs are interleaved (ours, peer, ours, peer ...) because machines are shared; medians are compared, and the spread
is that of the rounds. Every figure is appended to bench/results/<machine>.csv. A peer that fails twice in a round is told
as missing, in its row and beside the ratio, and the exit status is then 1; when sllm fails it ends there.

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
FAILURES = (RuntimeError, OSError, KeyError, IndexError, ValueError)  # of a program, or of what it printed


def machine_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = re.search(r"model name\s*:\s*(.*)", file.read())
    return re.sub(r"\W+", "-", (cpu.group(1) if cpu else platform.machine()).strip()).strip("-").lower()


class Journal:
    """The file of this machine's results."""

    def __init__(self, folder):
        self.machine = machine_name()
        shown = json.loads(engines.output([engines.SLLM, "show", "--cpu", "--json"]))
        self.kernels = shown["machine"]["kernels"]
        self.path = os.path.join(folder, self.machine + ".csv")

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


def title(engine):
    return f"{engine.name} with {engine.threads} thread{'s' if engine.threads > 1 else ''}"


class Rounds:
    """One measurement of every engine, in turn: found {engine: [a value of each round]}, ours first; missing {title: why}."""

    def __init__(self, run, measure, peers):
        self.ours = run.ours
        self.found = {engine: [] for engine in [run.ours, *peers]}
        self.missing = {name: "not built" for name in run.absent}
        for _ in range(run.arguments.repeat):
            for engine in list(self.found):
                self.round(engine, measure)
        run.incomplete = run.incomplete or bool(self.missing)

    def round(self, engine, measure):
        """Machines are shared, so a peer may fail once."""
        try:
            self.found[engine].append(measure(engine))
        except FAILURES as error:
            if engine is self.ours:
                raise
            models.say(f"  {title(engine)} failed, once more: {error}")
            self.again(engine, measure)

    def again(self, engine, measure):
        try:
            self.found[engine].append(measure(engine))
        except FAILURES as error:
            self.missing[title(engine)] = str(error)
            del self.found[engine]

    def median(self, engine):
        return statistics.median(self.found[engine])

    def ratio(self):
        """Of our median to the best peer's; names the peers that this leaves out."""
        peers = [engine for engine in self.found if engine is not self.ours]
        told = f"missing: {', '.join(self.missing)}" if self.missing else ""
        if not peers:
            return told and f"no ratio; {told}"
        best = max(peers, key=self.median)
        each = [a / b for a, b in zip(self.found[self.ours], self.found[best])]
        return (f"ratio to {title(best)}: {self.median(self.ours) / self.median(best):.2f}  "
                f"({min(each):.2f} .. {max(each):.2f})" + (told and f"; {told}"))


def report(journal, file, test, measured, **where):
    """Prints every engine and our ratio to the best peer."""
    print(f"{file}: {test}, tokens/s")
    for engine, values in measured.found.items():
        print(f"  {engine.name:<13} {engine.threads} threads  {spread(values)}")
        journal.add(file, test, engine.name, engine.threads, values, **where)
    for name, why in measured.missing.items():
        print(f"  missing: {name}: {why}")
    if measured.ratio():
        print(f"  {measured.ratio()}")
    sys.stdout.flush()


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
    report(run.journal, file, "generate", Rounds(run, lambda e: e.generate(path, n, 0), run.peers))


def part_prompt(run, path, file):
    n = run.arguments.prompt
    report(run.journal, file, "prompt", Rounds(run, lambda e: e.prompt(path, n, 0), run.peers))


def part_batch(run, path, file):
    able = [engine for engine in run.peers if engine.can_batch]
    together = Rounds(run, lambda e: e.batch(path, 32, SEQUENCES), able)
    report(run.journal, file, f"batch of {SEQUENCES}", together, batch=SEQUENCES)
    prompts = [run.ours.prompt(path, run.arguments.prompt, 0) for _ in range(run.arguments.repeat)]
    print(f"  share of our prompt speed ({statistics.median(prompts):.1f}): "
          f"{100 * together.median(run.ours) / statistics.median(prompts):.0f} %")


def part_busy(run, path, file):
    n = run.arguments.generate
    quiet = Rounds(run, lambda e: e.generate(path, n, 0), run.peers)
    with busy_process():
        busy = Rounds(run, lambda e: e.generate(path, n, 0), run.peers)
    report(run.journal, file, "generate, one process busy", busy)
    for engine in busy.found:
        if engine not in quiet.found:
            print(f"  {engine.name:<13} {engine.threads} threads  missing when quiet: {quiet.missing[title(engine)]}")
            continue
        print(f"  {engine.name:<13} {engine.threads} threads  {100 * busy.median(engine) / quiet.median(engine):.0f} % of the "
              f"quiet {quiet.median(engine):.1f}")


def first_token(path, threads):
    """Seconds from process start to the first byte of the answer to a prompt of 20 tokens."""
    start = time.monotonic()
    process = subprocess.Popen([engines.SLLM, "run", path, "--threads", str(threads), "--raw", "--greedy", "--ignore-end",
                                "--max-new-tokens", "1", " the" * 20], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    first = process.stdout.read(1)
    seconds = time.monotonic() - start
    process.communicate()
    if process.returncode or not first:
        raise RuntimeError(f"sllm run: exit status {process.returncode}, {len(first)} bytes before the end")
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
    """What is measured; incomplete: a peer's figure is missing somewhere."""

    def __init__(self, arguments):
        self.arguments, self.incomplete = arguments, False
        self.journal = Journal(arguments.results)
        self.ours = engines.Sllm(arguments.threads)
        self.peers, self.absent = [], []
        if not arguments.no_peers:
            self.peers, self.absent = engines.peers(arguments.peers, arguments.threads)


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
    parser.add_argument("--results", default=os.path.join(ROOT, "bench", "results"), help="folder of the file of figures")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
    return arguments


def measure_all(run):
    load = os.getloadavg()[0]
    print(f"{run.journal.machine}, {run.journal.kernels}, load {load:.1f}, median of {run.arguments.repeat} "
          "(lowest .. highest)")
    for name in models.expand(run.arguments.model):
        path = models.fetch(run.arguments.folder, name, run.arguments.peers)
        for part in run.arguments.only:
            PARTS[part](run, path, os.path.basename(path))


def main():
    arguments = parse()
    try:
        run = Run(arguments)
        measure_all(run)
    except (RuntimeError, OSError) as error:
        return f"bench: {error}"
    return "bench: figures of a peer are missing, see above" if run.incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
