"""Teaching: finetune, its folder, going on, and computing with what was learned."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

from common import SANITIZED, SLLM, Case, environment, main, read_safetensors, shared_golden, sllm, tiny_model

COLOURS = ["red", "green", "blue", "black"]


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Teach(Case):
    def model(self):
        return tiny_model("llama32-h256", "llama32-h256-f16.gguf")

    def data(self, n=12):
        lines = [{"instruction": "Name the colour.", "input": f"thing {i % 4}", "output": COLOURS[i % 4]} for i in range(n)]
        return self.write("train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def lines(self, *records):
        return self.write("lines.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def finetune(self, out, *more, model=None, data=None):
        return self.works("finetune", model or self.model(), "--data", data or self.data(), "-o", out, "--rank", "4", "--batch", "2",
                          "--accumulation", "2", "--learning-rate", "5e-3", *more)

    def metrics(self, out):
        with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]


class Run(Teach):
    def test_too_little_memory_is_said_before_the_start(self):
        out = self.path("a")
        data = self.lines({"text": "one two three " * 2000})
        self.fails(1, "finetune", self.model(), "--data", data, "-o", out, "--over-long", "truncate", "--max-length", "512", "--batch", "4096",
                   "--eval-split", "0", says=["GB of memory beside the model, and", "GB are free; a batch of", "would fit"])
        self.assertFalse(os.path.exists(out))

    def test_preset_peft(self):
        out = self.path("a")
        data = self.lines({"instruction": "Name the colour.", "input": "sky", "output": "blue"},
                          {"text": "one two three " * 2000})
        plan = json.loads(self.finetune(out, "--preset", "peft", "--eval-split", "0", "--epochs", "1", "--json", data=data).out)
        self.assertEqual(plan["truncated"], 1)
        self.assertEqual(plan["longest"], 512)
        self.assertEqual("".join(part["text"] for part in plan["example"]).replace("<|begin_of_text|>", ""),
                         "Instruction: Name the colour.\nInput: sky\nResponse: blue")
        self.assertEqual([part["learned"] for part in plan["example"]], [False] + [True] * (len(plan["example"]) - 1))
        config = json.loads(contents(os.path.join(out, "adapter_config.json")))
        self.assertEqual(config["target_modules"], ["q_proj", "v_proj"])
        settings = json.loads(contents(os.path.join(out, "run.json")))["settings"]
        self.assertEqual((settings["schedule"], settings["warmup"], settings["no_end"]), ("linear", 0, True))
        self.fails(2, "finetune", self.model(), "--data", data, "-o", out, "--preset", "trl", says="there is no preset 'trl'")

    def test_learns(self):
        out = self.path("a")
        shown = self.finetune(out, "--epochs", "8", "--eval-split", "0.2").out
        self.assertIn("trainable params: ", shown)
        rows = self.metrics(out)
        self.assertEqual([row["step"] for row in rows], list(range(1, 25)))
        for row in rows:
            self.assertEqual(sorted(row), sorted(["step", "epoch", "loss", "grad_norm", "learning_rate", "tokens_per_second",
                                                  "memory_bytes", "eval_loss"]))
        self.assertLess(rows[-1]["loss"], 0.5 * rows[0]["loss"])
        self.assertIsNotNone(rows[2]["eval_loss"])
        self.assertIsNone(rows[1]["eval_loss"])
        config = json.loads(contents(os.path.join(out, "adapter_config.json")))
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]), ("LORA", 4, 8, 0.05))
        tensors = read_safetensors(os.path.join(out, "adapter_model.safetensors"))
        self.assertEqual(len(tensors), 2 * 2 * 7)
        self.assertEqual(tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"][:2], ("F32", [4, 512]))
        kept = [name for name in os.listdir(out) if name.startswith("checkpoint-")]
        self.assertIn("checkpoint-24", kept)
        self.assertLessEqual(len(kept), 3)

    def test_answers_with_it(self):
        """What was learned is what is answered, and only with the adapter."""
        out = self.path("a")
        self.finetune(out, "--epochs", "30", "--eval-split", "0", "--dropout", "0")
        prompt = "Name the colour.\n\nthing 2"
        self.assertEqual(self.works("run", self.model(), "--adapter", out, "-g", "-m", "8", prompt).out.strip(), "blue")
        self.assertNotEqual(self.works("run", self.model(), "-g", "-m", "8", prompt).out.strip(), "blue")
        text = self.write("text.txt", "The quick brown fox. " * 60)
        found = self.works("compare", self.model(), self.model(), "--adapter", out, "--text", text, "--ctx", "64", "--chunks", "2", "--json").json()
        self.assertGreater(found["mean_kld"], 0.01)

    def test_kinds(self):
        """DoRA, rsLoRA, a choice of products, plain formats, a quantised base."""
        data = self.data(4)
        for more in (["--dora"], ["--rslora"], ["--target", "q_proj,v_proj"], ["--format", "alpaca"], ["--format", "plain", "--prompt-loss"],
                     ["--schedule", "linear", "--weight-decay", "0.01"], ["--exact"]):
            out = self.path("kind" + "".join(more).replace(",", ""))
            self.finetune(out, "--epochs", "2", "--eval-split", "0", *more, data=data)
            self.works("run", self.model(), "--adapter", out, "-g", "-m", "2", "hello")
        tensors = read_safetensors(os.path.join(self.path("kind--dora"), "adapter_model.safetensors"))
        self.assertIn("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", tensors)
        tensors = read_safetensors(os.path.join(self.path("kind--targetq_projv_proj"), "adapter_model.safetensors"))
        self.assertEqual(len(tensors), 2 * 2 * 2)
        self.finetune(self.path("q8"), "--epochs", "1", "--eval-split", "0", model=tiny_model(), data=data)

    def test_folder_and_file_are_one_model(self):
        """An adapter learned on a GGUF file, whose rows of q and k stand otherwise, is the same adapter on the folder it came from."""
        out, folder = self.path("a"), self.path("folder")
        self.finetune(out, "--epochs", "4", "--eval-split", "0")
        self.works("convert", self.model(), "-o", folder)
        text = self.write("text.txt", "The quick brown fox. " * 60)
        self.fails(1, "perplexity", folder, "--adapter", out, "--text", text, "--ctx", "64", says="another model")
        values = [self.works("perplexity", model, "--adapter", out, "--any-base", "--text", text, "--ctx", "64", "--chunks", "3", "--exact",
                             "--json").json()["mean_nll"] for model in (self.model(), folder)]
        plain = self.works("perplexity", folder, "--text", text, "--ctx", "64", "--chunks", "3", "--exact", "--json").json()["mean_nll"]
        self.assertAlmostEqual(values[0], values[1], places=4)
        self.assertGreater(abs(values[0] - plain), 0.001)


class GoingOn(Teach):
    def test_killed(self):
        """Killed at any moment: the same adapter in the end as without."""
        data = self.data(8)
        whole, out = self.path("whole"), self.path("killed")
        settings = ["--epochs", "6", "--eval-split", "0.25", "--keep", "1"]
        self.finetune(whole, *settings, data=data)
        command = [SLLM, "finetune", self.model(), "--data", data, "-o", out, "--rank", "4", "--batch", "2", "--accumulation", "2",
                   "--learning-rate", "5e-3", *settings]
        rng, killed = random.Random(7), 0
        for _ in range(3 if SANITIZED else 12):
            child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.01, 0.25) * (10 if SANITIZED else 1))
            child.send_signal(signal.SIGKILL)
            killed += child.wait() < 0
            if os.path.exists(os.path.join(out, "run.json")):
                command = [SLLM, "finetune", "--resume", out]
            elif os.path.exists(out):
                shutil.rmtree(out)
        self.assertGreater(killed, 0)
        self.works(*command[1:])
        for name in ("adapter_model.safetensors", "adapter_config.json", "sllm.json"):
            self.assertEqual(contents(os.path.join(out, name)), contents(os.path.join(whole, name)), name)
        for a, b in zip(self.metrics(out), self.metrics(whole)):
            self.assertEqual((a["step"], a["loss"], a["grad_norm"], a["eval_loss"]), (b["step"], b["loss"], b["grad_norm"], b["eval_loss"]))

    def test_other_settings(self):
        out, data = self.path("a"), self.data(4)
        self.finetune(out, "--epochs", "1", "--eval-split", "0", data=data)
        self.fails(2, "finetune", self.model(), "--data", data, "-o", out, says="not empty")
        self.fails(2, "finetune", "--resume", out, "--data", data, says="--resume")
        with open(data, "a", encoding="utf-8") as file:
            file.write('{"instruction": "x", "output": "y"}\n')
        self.fails(2, "finetune", "--resume", out, says="other data")
        self.fails(1, "finetune", "--resume", self.path("none"), says="run.json")


class Data(Teach):
    def learned(self, record, *more):
        """Texts of the runs of learned tokens of one example."""
        plan = sllm("finetune", self.model(), "--data", self.lines(record), "-o", self.path("a"), "--epochs", "0.001", "--json", *more)
        shutil.rmtree(self.path("a"), ignore_errors=True)
        self.assertEqual(plan.status, 0, plan.err)
        runs, inside = [], False
        for token in json.loads(plan.out.splitlines()[0])["example"]:
            if token["learned"]:
                runs = runs + [""] if not inside else runs
                runs[-1] += token["text"]
            inside = token["learned"]
        return runs

    def test_what_is_learned(self):
        end = "<|im_end|>"
        self.assertEqual(self.learned({"instruction": "Say it.", "output": "all right"}), ["all right" + end])
        self.assertEqual(self.learned({"prompt": "Say it.", "completion": "all right"}), ["all right" + end])
        turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"},
                 {"role": "assistant", "content": "four"}]
        self.assertEqual(self.learned({"messages": turns}), ["two" + end, "four" + end])
        plain = self.learned({"instruction": "Say it.", "input": "now", "output": "all right"}, "--format", "plain")
        self.assertEqual(len(plain), 1)
        self.assertTrue(plain[0].startswith(" all right"), plain)
        whole = self.learned({"instruction": "Say it.", "output": "all right"}, "--format", "plain", "--prompt-loss")
        self.assertIn("Instruction: Say it.\nResponse: all right", whole[0])
        self.assertTrue(self.learned({"text": "just a text"})[0].startswith("just a text"))

    def test_bad_lines(self):
        good = {"instruction": "a", "output": "b"}
        for record, says in (({"instruction": "a", "output": " "}, "empty"), ({"instruction": "a"}, "output"), ({"output": "a"}, "instruction"),
                             ({"instruction": "a", "output": "b", "extra": 1}, "extra"), ([1], "object"), ({"messages": []}, "assistant"),
                             ({"text": ""}, "empty")):
            self.fails(1, "finetune", self.model(), "--data", self.lines(good, record), "-o", self.path("a"), says=["lines.jsonl: line 2", says])
        self.fails(1, "finetune", self.model(), "--data", self.write("bad.jsonl", '{"instruction": \n'), "-o", self.path("a"), says="line 1")
        self.fails(1, "finetune", self.model(), "--data", self.write("none.jsonl", "\n\n"), "-o", self.path("a"), says="no example")
        self.assertFalse(os.path.exists(self.path("a")))

    def test_over_long(self):
        long = {"instruction": "a", "output": "many words of an answer " * 30}
        data = self.lines({"instruction": "a", "output": "b"}, long)
        self.fails(2, "finetune", self.model(), "--data", data, "-o", self.path("a"), "--max-length", "64",
                   says=["1 examples are longer than 64", "line 2", "--over-long"])
        for what in ("truncate", "split"):
            shown = self.works("finetune", self.model(), "--data", data, "-o", self.path(what), "--max-length", "64", "--over-long", what,
                               "--epochs", "1", "--eval-split", "0", "--json").out
            plan = json.loads(shown.splitlines()[0])
            self.assertEqual(plan["truncated" if what == "truncate" else "split"], 1)
            self.assertEqual(plan["longest"], 64)

    def test_usage(self):
        data = self.data(2)
        for more, says in ((["--target", "nothing"], "names no product"), (["--format", "best"], "template, alpaca and plain"),
                           (["--schedule", "up"], "linear, cosine and constant"), (["--max-length", "4096"], "context")):
            self.fails(2, "finetune", self.model(), "--data", data, "-o", self.path("a"), *more, says=says)
        self.fails(2, "finetune", self.model(), "--data", data, says="-o FOLDER")
        self.fails(1, "finetune", self.model(), "--data", self.path("no.jsonl"), "-o", self.path("a"), says="no.jsonl")
        self.assertFalse(os.path.exists(self.path("a")))


class Adapters(Teach):
    def test_several(self):
        """Weights; an adapter of another model; one without a record."""
        base, lora = shared_golden("models", "llama32"), shared_golden("adapters", "llama-qv-r4")
        found = sllm("compare", base, base, "--adapter", lora, "--ids", "1,2,3", "--json")
        self.assertEqual(found.status, 0, found.err)
        folder = tiny_model("llama32", "llama32-f32.gguf")
        text = self.write("text.txt", "The quick brown fox. " * 60)

        def nll(*more):
            done = sllm("perplexity", folder, "--text", text, "--ctx", "64", "--chunks", "2", "--exact", "--json", *more)
            self.assertEqual(done.status, 0, done.err)
            return done.json()["mean_nll"], done.err
        plain, _ = nll()
        whole, note = nll("--adapter", lora)
        self.assertIn("unverified", note)
        self.assertEqual(nll("--adapter", lora + "=0")[0], plain)
        self.assertNotEqual(whole, plain)
        halves, _ = nll("--adapter", lora + "=0.5", "--adapter", lora + "=0.5")
        self.assertAlmostEqual(halves, whole, places=5)
        self.fails(1, "perplexity", folder, "--text", text, "--adapter", shared_golden("adapters", "qwen2-all-linear-r16"), says="tensor")
        self.fails(1, "perplexity", folder, "--text", text, "--adapter", self.path("none"), says="adapter_config.json")
        self.fails(2, "perplexity", folder, "--text", text, "--adapter", lora + "=much", says="no number")


class Merge(Teach):
    def test_merged_answers_as_live(self):
        adapter = self.path("a")
        self.finetune(adapter, "--epochs", "30", "--eval-split", "0", "--dropout", "0")
        prompt = "Name the colour.\n\nthing 2"
        for more in ([], ["--type", "f32"]):
            out = self.path("merged" + "".join(more) + ".gguf")
            report = self.works("merge", self.model(), adapter, "-o", out, "--json", *more).json()
            self.assertEqual((report["merged"], report["refused"], report["limit"]), (14, False, 0.05))
            self.assertLess(report["mean_kld"], 1e-3)
            self.assertLessEqual(report["mean_kld"], report["max_kld"])
            self.assertEqual(report["bytes_out"], os.path.getsize(out))
            self.assertEqual(self.works("run", out, "-g", "-m", "8", prompt).out.strip(), "blue")
        self.assertLess(os.path.getsize(self.path("merged.gguf")), os.path.getsize(self.path("merged--typef32.gguf")))
        self.assertIn("matrices merged", self.works("merge", self.model(), adapter, "-o", self.path("b.gguf")).out)

    def test_refused(self):
        """Above the limit nothing is left; the source, folders and other models' adapters are no targets or bases."""
        adapter = self.path("a")
        self.finetune(adapter, "--epochs", "30", "--eval-split", "0", model=tiny_model())
        out, before = self.path("out/merged.gguf"), contents(tiny_model())
        os.mkdir(os.path.dirname(out))
        report = self.fails(1, "merge", tiny_model(), adapter, "-o", out, "--limit", "1e-9", "--json", says=["above the limit", "--type f16"]).json()
        self.assertTrue(report["refused"])
        self.assertGreater(report["mean_kld"], 1e-9)
        self.fails(2, "merge", self.model(), adapter, "-o", out, says="another model")
        self.fails(2, "merge", tiny_model(), adapter, "-o", out, "--type", "q4_k", says="f32, f16 or bf16")
        self.fails(2, "merge", tiny_model(), adapter, says="-o OUT.gguf")
        self.fails(1, "merge", tiny_model(), self.path("none"), "-o", out, says="adapter_config.json")
        self.assertEqual(os.listdir(os.path.dirname(out)), [])
        source = self.path("source.gguf")
        shutil.copyfile(tiny_model(), source)
        self.fails(2, "merge", source, adapter, "-o", source, says="source itself")
        self.assertEqual(contents(source), before)
        self.works("merge", tiny_model(), adapter, "-o", out, "--limit", "0")
        self.assertEqual(os.listdir(os.path.dirname(out)), ["merged.gguf"])


class Classify(Teach):
    def test_report(self):
        adapter, data = self.path("a"), self.data()
        self.finetune(adapter, "--epochs", "30", "--eval-split", "0", "--dropout", "0", data=data)
        found = self.works("eval", "classify", self.model(), "--adapter", adapter, "--data", data, "--baseline", "--json").json()
        self.assertEqual((found["n"], found["accuracy"], found["matthews"], found["wrong"]), (12, 1, 1, []))
        self.assertEqual(found["report"]["blue"], {"precision": 1, "recall": 1, "f1-score": 1, "support": 3})
        self.assertLess(found["baseline"]["accuracy"], 1)
        self.assertEqual(len(found["baseline"]["wrong"]), 12 - round(12 * found["baseline"]["accuracy"]))
        free = self.works("eval", "classify", self.model(), "--adapter", adapter, "--data", data, "--free", "--min-accuracy", "0.9", "--json").json()
        self.assertEqual(free["accuracy"], 1)
        shown = self.fails(1, "eval", "classify", self.model(), "--data", data, "--min-accuracy", "0.95", says="below --min-accuracy 0.95")
        self.assertIn("macro avg", shown.out)
        lines = self.lines({"text": "thing 1", "label": "green"})
        found = self.works("eval", "classify", self.model(), "--data", lines, "--labels", "red,green,blue,black", "--json").json()
        self.assertEqual(found["n"], 1)

    def test_bad_input(self):
        for record, says in (({"instruction": "a"}, "output"), ({"text": "a", "label": ""}, "label"), ([1], "instruction")):
            self.fails(1, "eval", "classify", self.model(), "--data", self.lines({"text": "a", "label": "b"}, record), says=["line 2", says])
        self.fails(1, "eval", "classify", self.model(), "--data", self.write("none.jsonl", "\n"), says="no question")
        one = self.lines({"text": "a", "label": "b"})
        self.fails(1, "eval", "classify", self.model(), "--data", one, "--labels", "c,d", says="'b' is not among the labels")
        self.fails(2, "eval", "classify", self.model(), "--data", one, "--baseline", says="--adapter")
        self.fails(2, "eval", "classify", self.model(), "--data", one, "--format", "best", says="template, alpaca")
        self.fails(2, "eval", "guess", self.model(), "--data", one, says="eval classify")


if __name__ == "__main__":
    main()
