"""sllm bench and sllm plan: the form of their reports, that results depend on nothing but the tokens, and that what the plan
says comes true: memory within 5 %, speed within a factor."""
import csv
import io
import os
import signal
import subprocess
import unittest

from common import (BUILD, SANITIZED, SLLM, Case, environment, first_existing, golden, interrupt_when, main, real_environment,
                    real_model, sllm, tiny_model)

CHEAP = ("--repeat", "1")


def gemma_model():
    """Gemma 3 270M, whose vocabulary is most of it: from the user's cache, or where bench/run puts it."""
    if not sllm("show", "gemma3:270m", "--json", env=dict(os.environ)).status:
        return "gemma3:270m"
    folders = [os.environ.get("SLLM_MODELS"), os.path.join(BUILD, "models")]
    path = first_existing(*(os.path.join(folder, "gemma3-270m-q4_k_m.gguf") for folder in folders if folder))
    if not path:
        raise unittest.SkipTest("Gemma 3 270M is neither in the model cache nor in $SLLM_MODELS or build/models")
    return path


class Bench(Case):
    def bench(self, *arguments, model=None, **options):
        return self.works("bench", model or tiny_model(), *CHEAP, *arguments, "--json", **options).json()

    def test_report(self):
        report = self.bench("--threads", "2", "--prompt", "64", "--generate", "8", "--depth", "0,32", "--batch", "1,3")
        cases = [(row["test"], row["depth"], row["batch"]) for row in report["results"]]
        self.assertEqual(cases, [(test, depth, batch) for depth in (0, 32) for batch in (1, 3) for test in ("prompt", "generate")])
        for row in report["results"]:
            for field in ("tokens_per_second", "gb_per_second", "read_share", "bytes", "peak_bytes"):
                self.assertGreater(row[field], 0, field)
            self.assertEqual(row["tokens"], 64 if row["test"] == "prompt" else 8)
            self.assertAlmostEqual(row["tokens_per_second"], row["batch"] * row["tokens_per_second_each"], places=3)
            self.assertLessEqual(row["tokens_per_second_least"], row["tokens_per_second_most"])
            self.assertAlmostEqual(row["read_share"], row["gb_per_second"] / report["machine"]["read_gb_per_second"])
        self.assertEqual(report["machine"]["threads"], 2)

    def hashes(self, *arguments, **options):
        report = self.bench("--depth", "0,70", *arguments, **options)
        return {(row["test"], row["depth"]): row["logits_hash"] for row in report["results"]}

    def test_same_logits(self):
        whole = self.hashes("--prompt", "100", "--generate", "100", "--batch", "1")
        self.assertEqual(whole["prompt", 0], whole["generate", 0])   # token by token or all at once
        self.assertEqual(whole["prompt", 70], whole["generate", 70])
        self.assertEqual(len(set(whole.values())), 2)
        for arguments in (("--threads", "1"), ("--threads", "3"), ("--batch", "5"), ("--repeat", "2")):
            self.assertEqual(self.hashes("--prompt", "100", "--generate", "100", "--batch", "1", *arguments), whole, arguments)
        self.assertNotEqual(self.hashes("--prompt", "100", "--generate", "0", "--batch", "1", "--seed", "7")["prompt", 0],
                            whole["prompt", 0])
        self.assertNotEqual(self.hashes("--prompt", "100", "--generate", "0", "--batch", "1", "--kv-type", "q8_0")["prompt", 70],
                            whole["prompt", 70])
        scalar = self.bench("--prompt", "8", "--generate", "0", "--depth", "0", "--kernels", "scalar")
        self.assertEqual(scalar["machine"]["kernels"], "scalar")

    def test_table_and_csv(self):
        table = self.works("bench", tiny_model(), *CHEAP, "--prompt", "8", "--generate", "4", "--depth", "0", "--batch", "2").out
        self.assertIn("memory read", table)
        self.assertEqual(sum(line.startswith(("prompt ", "generate ")) for line in table.splitlines()), 2)
        lines = self.works("bench", tiny_model(), *CHEAP, "--prompt", "8", "--generate", "4", "--depth", "0", "--csv").out
        rows = list(csv.DictReader(io.StringIO(lines)))
        self.assertEqual([row["batch"] for row in rows], ["1", "1", "8", "8"])
        self.assertGreater(float(rows[0]["tokens_per_second"]), 0)

    def test_default_depths_fit_the_model(self):
        rows = self.bench("--prompt", "16", "--generate", "0", "--batch", "1")["results"]
        trained = self.works("show", tiny_model(), "--json").json()["context"]
        self.assertEqual([row["depth"] for row in rows], [d for d in (0, 512, 4096) if d == 0 or d + 16 <= trained])

    def test_bad_input(self):
        model = tiny_model()
        for wrong in ("x", "", "1,", ",1", "1;2", "-1", "1 2"):
            self.fails(2, "bench", model, "--depth", wrong, says="--depth")
        self.fails(2, "bench", model, "--batch", "0", says="--batch")
        self.fails(2, "bench", model, "--depth", "10000000", says=["10000000", "context"])
        self.fails(2, "bench", model, "--prompt", "0", "--generate", "0", says="nothing")
        self.fails(2, "bench", model, "--threads", "0", says="--threads")
        self.fails(2, "bench", model, "--threads", "10000", says="--threads")
        self.fails(2, "bench", model, "--kernels", "mmx", says="mmx")
        self.fails(2, "bench", model, "--json", "--csv", says="--csv")
        self.fails(2, "bench", model, "--kv-type", "q3", says="--kv-type")
        self.fails(1, "bench", self.path("none.gguf"), says="none.gguf")

    def test_interrupt(self):
        process = subprocess.Popen([SLLM, "bench", tiny_model(), "--repeat", "1000", "--csv", "--depth", "0", "--batch", "1",
                                    "--prompt", "16", "--generate", "200"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        out = interrupt_when(process, lambda text: text.count(b"\n") >= 2)
        rest, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(err.count(b"\n"), 1)
        self.assertIn(b"prompt,0,1,16", out + rest)


class Memory(Case):
    """Peak memory of `sllm run` whose prompt fills the context, against the plan."""

    def peak(self, model, ctx):
        prompt = " the" * (ctx - 8)
        process = subprocess.Popen([SLLM, "run", model, "--raw", "--greedy", "--max-new-tokens", "2", "--ctx", str(ctx), "-"],
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=real_environment())
        process.stdin.write(prompt.encode())
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        return usage.ru_maxrss * 1024

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_plan_comes_true(self):
        self.comes_true(real_model())

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_plan_comes_true_for_gemma(self):
        self.comes_true(gemma_model())

    def comes_true(self, model):
        for ctx in (512, 1536, 3072):
            plan = self.works("plan", model, "--ctx", str(ctx), "--json", env=real_environment()).json()
            peak = self.peak(model, ctx)
            self.assertLess(abs(plan["total_bytes"] - peak), 0.05 * peak, (ctx, plan["total_bytes"], peak))

    def test_too_big_is_refused(self):
        model = real_model()
        huge = ("--batch", "65536", "--ctx", "8192")  # 12 TB of keys and values
        plan = self.works("plan", model, *huge, "--json", env=real_environment()).json()
        self.assertGreater(plan["kv_bytes"], 12e12)
        self.assertIs(plan["fits"], False)
        self.assertIs(self.works("plan", model, "--ctx", "512", "--json", env=real_environment()).json()["fits"], True)
        table = self.works("plan", model, *huge, env=real_environment()).out
        self.assertIn("too big", table)
        self.assertNotIn("fits", table)
        if plan["memory_free"] < 3e11:  # 1,024 contexts of 7,512 positions of 46 kB
            self.fails(1, "bench", model, "--depth", "7000", "--batch", "1024", "--exact", env=real_environment(),
                       says=["memory", "GB", "1024"])


class Speed(Case):
    def factors(self, model):
        """Predicted by measured: generation, prompt; the larger of each and its inverse."""
        plan = self.works("plan", model, "--measure", "--json", env=real_environment()).json()
        rows = self.works("bench", model, "--depth", "512", "--batch", "1", "--json", env=real_environment()).json()["results"]
        measured = {row["test"]: row["tokens_per_second"] for row in rows}
        generate = plan["tokens_per_second"] / measured["generate"]
        prompt = plan["prompt_tokens_per_second"] / measured["prompt"]
        return max(generate, 1 / generate), max(prompt, 1 / prompt)

    @unittest.skipIf(SANITIZED, "sanitizers are slow")
    def test_prediction(self):
        model, tries = real_model(), []
        if os.getloadavg()[0] > os.cpu_count():
            raise unittest.SkipTest("the machine is busy: speeds say nothing now")
        while len(tries) < 3 and not (tries and max(tries[-1]) < 2):  # a neighbour may come while it runs
            tries.append(self.factors(model))
        self.assertLess(min(max(pair) for pair in tries), 2, tries)


if __name__ == "__main__":
    main()
