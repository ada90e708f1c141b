#!/usr/bin/env python3
"""sllm beside llama.cpp's llama-bench: prompt and generation speed, start to first token, memory.

Runs are interleaved (ours, peer, ours, peer ...) because machines are shared; medians are compared. A row is appended to
bench/results/<machine>.csv.
"""
import argparse, csv, datetime, json, os, platform, re, statistics, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SLLM = os.path.join(ROOT, "build", "sllm")


def sllm_json(model, arguments, prompt):
    command = [SLLM, "run", model, "--raw", "--greedy", "--json", *arguments, prompt]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ours(model, threads, prompt_tokens, generate):
    """Tokens/s for a prompt of `prompt_tokens` (one word is one token here) and for `generate` tokens after a short one."""
    long = sllm_json(model, ["--threads", str(threads), "--max-new-tokens", "1"], " the" * prompt_tokens)
    short = sllm_json(model, ["--threads", str(threads), "--max-new-tokens", str(generate), "--ignore-end"], "Once upon a time")
    return long["prompt_tokens"], long["prompt_tokens_per_second"], short["tokens_per_second"]


def peer(directory, path, threads, prompt_tokens, generate):
    command = [os.path.join(directory, "llama-bench"), "-m", path, "-t", str(threads), "-p", str(prompt_tokens),
               "-n", str(generate), "-r", "1", "-o", "json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    speed = {("prompt" if row["n_prompt"] else "generate"): row["avg_ts"] for row in rows}
    return speed["prompt"], speed["generate"]


def first_token(model, repeat):
    """Seconds from process start to the first token of a 20-token prompt, and the peak resident bytes."""
    seconds, peak = [], 0
    for _ in range(repeat):
        start = time.monotonic()
        process = subprocess.Popen([SLLM, "run", model, "--raw", "--greedy", "--max-new-tokens", "1", " the" * 20],
                                   stdout=subprocess.PIPE)
        process.stdout.read(1)
        seconds.append(time.monotonic() - start)
        process.stdout.read()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        peak = max(peak, usage.ru_maxrss * 1024)
    return statistics.median(seconds), peak


def spread(values):
    return f"{statistics.median(values):8.1f}  ({min(values):.1f} .. {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="folder with llama-bench")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    shown = json.loads(subprocess.run([SLLM, "show", arguments.model, "--json"], check=True, capture_output=True, text=True).stdout)
    path = shown["path"]
    our_prompt, our_generate, peers = [], [], {1: ([], []), arguments.threads: ([], [])}
    for _ in range(arguments.repeat):
        n, prompt, generate = ours(arguments.model, arguments.threads, arguments.prompt, arguments.generate)
        if n != arguments.prompt:
            print(f"note: our prompt has {n} tokens, the peer's {arguments.prompt}")
        our_prompt.append(prompt)
        our_generate.append(generate)
        for threads, (prompts, generates) in peers.items():
            prompt, generate = peer(arguments.peer, path, threads, arguments.prompt, arguments.generate)
            prompts.append(prompt)
            generates.append(generate)
    print(f"{os.path.basename(path)}: tokens/s, median of {arguments.repeat} (lowest .. highest)")
    print(f"  sllm       {arguments.threads} threads  prompt {spread(our_prompt)}   generate {spread(our_generate)}")
    for threads, (prompts, generates) in peers.items():
        print(f"  llama.cpp  {threads} threads  prompt {spread(prompts)}   generate {spread(generates)}")
        print(f"    ratio              prompt {statistics.median(our_prompt) / statistics.median(prompts):8.2f}"
              f"   generate {statistics.median(our_generate) / statistics.median(generates):8.2f}")
    seconds, peak = first_token(arguments.model, arguments.repeat)
    plan = json.loads(subprocess.run([SLLM, "plan", arguments.model, "--json"], check=True, capture_output=True, text=True).stdout)
    beyond = peak - os.path.getsize(path) - plan["kv_bytes"]
    print(f"  start to first token, 20-token prompt: {seconds * 1000:.0f} ms")
    print(f"  peak resident {peak / 1e6:.1f} MB = file + KV ({plan['kv_bytes'] / 1e6:.1f} MB) + {beyond / 1e6:.1f} MB")

    cpu = re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
    name = re.sub(r"\W+", "-", (cpu.group(1) if cpu else platform.machine()).strip()).strip("-").lower()
    with open(os.path.join(ROOT, "bench", "results", name + ".csv"), "a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow("date file threads prompt generate peer1_prompt peer1_generate peerN_prompt peerN_generate "
                            "first_token_s peak_bytes".split())
        middle = statistics.median
        writer.writerow([datetime.date.today(), os.path.basename(path), arguments.threads] +
                        [f"{x:.1f}" for x in (middle(our_prompt), middle(our_generate), middle(peers[1][0]), middle(peers[1][1]),
                                              middle(peers[arguments.threads][0]), middle(peers[arguments.threads][1]))] +
                        [f"{seconds:.3f}", peak])


if __name__ == "__main__":
    sys.exit(main())
