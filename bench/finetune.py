"""Learning beside transformers + PEFT in f32: tokens a second and peak memory of a step, SmolLM2-135M, LoRA r=16 on all linear
layers, 4 x 256 tokens, every position labelled; the two take turns in one run, and each round gives a ratio.

    bench/run finetune [--rounds 3] [--steps 3]

Ours learns on the Q4_1 file that serves; the peer on f32 weights of the same shape (random: values do not change the time).
Each is a process of its own a round; its first step warms up and is not counted.
"""
import argparse
import json
import os
import re
import statistics
import subprocess

import models

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
THREADS = str(len(os.sched_getaffinity(0)))
PEER = r"""
import json, resource, sys, time
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
threads, steps = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
torch.manual_seed(0)
config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                     num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192)
model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
model.train()
times = []
for step in range(steps + 1):
    ids = torch.randint(0, 49152, (4, 256))
    begin = time.monotonic()
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    times.append(time.monotonic() - begin)
print(json.dumps({"seconds": sorted(times[1:])[steps // 2], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def ours(path, steps):
    """The median step and the peak memory of bench/learn.c."""
    rows = re.findall(r"step ([0-9.]+) s .* peak ([0-9]+) MB", output([os.path.join(ROOT, "build", "bench", "learn"), path, "4", "256", "16", THREADS,
                                                                        str(steps + 1)]))
    return sorted(float(row[0]) for row in rows[1:])[steps // 2], int(rows[-1][1]) * 2**20


def theirs(python, steps):
    row = json.loads(output([python, "-c", PEER, THREADS, str(steps)]).splitlines()[-1])
    return row["seconds"], row["peak"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.path.join(ROOT, "build", "peers"))
    parser.add_argument("--model", help="a SmolLM2-135M file; default: Q4_1, fetched")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    path = options.model or models.fetch(os.path.join(ROOT, "build", "models"), "smollm2", options.peers)
    python = os.path.join(options.peers, "py", "bin", "python")
    ratios, memory = [], []
    for index in range(options.rounds):
        a, b = ours(path, options.steps), theirs(python, options.steps)
        ratios.append(b[0] / a[0])
        memory.append(a[1] / b[1])
        print(f"round {index + 1}: sllm {1024 / a[0]:.0f} tokens/s, {a[1] / 1e6:.0f} MB; PEFT f32 {1024 / b[0]:.0f} tokens/s, {b[1] / 1e6:.0f} MB; "
              f"ratio {ratios[-1]:.2f}, memory {memory[-1]:.3f}", flush=True)
    print(f"tokens/s: {statistics.median(ratios):.2f} times the peer's ({min(ratios):.2f} to {max(ratios):.2f}); "
          f"peak memory: {statistics.median(memory):.3f} of the peer's")


if __name__ == "__main__":
    main()
