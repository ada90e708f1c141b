"""sllm run on a tiny model, and on the default model when the cache has it."""
import json
import os
import subprocess
import time

from common import (SLLM, Case, environment, golden, interrupt_when, main, real_environment, real_model, sllm, tiny_model)


class Run(Case):
    def setUp(self):
        super().setUp()
        self.model = tiny_model()

    def run_json(self, *arguments, **options):
        return self.works("run", self.model, *arguments, "--json", **options).json()

    def test_greedy_is_the_same_every_time(self):
        first = self.works("run", self.model, "--greedy", "--max-new-tokens", "20", "hello")
        for more in ((), ("--temperature", "0"), ("--threads", "1"), ("--threads", "2"), ("--seed", "7")):
            again = self.works("run", self.model, "--greedy", "--max-new-tokens", "20", "hello", *more)
            self.assertEqual(again.raw, first.raw, more)
        self.assertTrue(first.out.endswith("\n"))

    def test_seed_reproduces(self):
        sample = ("--temperature", "2", "--top-p", "1", "--max-new-tokens", "20", "hello")
        one = self.run_json("--seed", "1", *sample)
        self.assertEqual(one["ids"], self.run_json("--seed", "1", *sample)["ids"])
        self.assertNotEqual(one["ids"], self.run_json("--seed", "2", *sample)["ids"])
        drawn = self.run_json(*sample)
        self.assertEqual(drawn["ids"], self.run_json("--seed", str(drawn["seed"]), *sample)["ids"])

    def test_json_fields(self):
        answer = self.run_json("--greedy", "--max-new-tokens", "5", "hello")
        for field in ("text", "ids", "finish_reason", "prompt_tokens", "completion_tokens", "time_to_first_token_s",
                      "tokens_per_second", "seed", "model"):
            self.assertIn(field, answer)
        self.assertEqual(len(answer["ids"]), answer["completion_tokens"])
        self.assertEqual((answer["finish_reason"], answer["completion_tokens"]), ("length", 5))
        self.assertEqual(answer["text"] + "\n" if not answer["text"].endswith("\n") else answer["text"],
                         self.works("run", self.model, "--greedy", "--max-new-tokens", "5", "hello").out)

    def test_several_answers(self):
        sample = ("--temperature", "2", "--top-p", "1", "--max-new-tokens", "10", "hello")
        answers = self.run_json("--n", "3", "--seed", "5", *sample)["answers"]
        self.assertEqual([answer["seed"] for answer in answers], [5, 6, 7])
        self.assertEqual(answers[1]["ids"], self.run_json("--seed", "6", *sample)["ids"])
        self.assertGreater(answers[1]["reused_tokens"], 0)

    def test_logprobs(self):
        answer = self.run_json("--greedy", "--logprobs", "3", "--max-new-tokens", "4", "hello")
        self.assertEqual([entry["id"] for entry in answer["logprobs"]], answer["ids"])
        for entry in answer["logprobs"]:
            self.assertEqual(len(entry["top"]), 3)
            self.assertEqual(entry["top"][0]["id"], entry["id"])
            self.assertLessEqual(entry["logprob"], 0)

    def test_logit_bias_forbids_and_forces(self):
        first = self.run_json("--greedy", "--max-new-tokens", "1", "hello")["ids"][0]
        self.assertNotEqual(self.run_json("--greedy", "--max-new-tokens", "1", "--logit-bias", f"{first}=-inf", "hello")["ids"],
                            [first])
        self.assertEqual(self.run_json("--greedy", "--max-new-tokens", "2", "--logit-bias", "40=1000", "hello")["ids"], [40, 40])
        self.fails(2, "run", self.model, "x", "--logit-bias", "99999=1", says="outside the vocabulary")
        self.fails(2, "run", self.model, "x", "--logit-bias", "5=nan", says="'nan'")
        self.fails(2, "run", self.model, "x", "--logit-bias", "5", says="ID=BIAS")

    def test_choices(self):
        done = self.works("run", self.model, "--choices", "red,green,blue", "--greedy", "colour?")
        self.assertIn(done.out, ("red\n", "green\n", "blue\n"))
        self.assertEqual(len(done.err.splitlines()), 3)
        answer = self.run_json("--choices", "red,green,blue", "--greedy", "colour?")
        self.assertEqual(answer["choice"] + "\n", done.out)
        self.assertEqual(answer["text"], answer["choice"])
        self.assertAlmostEqual(sum(choice["probability"] for choice in answer["choices"]), 1, places=6)

    def test_stop(self):
        text = self.run_json("--raw", "--greedy", "--max-new-tokens", "20", "hello")["text"]
        middle = text[len(text) // 2:len(text) // 2 + 3]
        answer = self.run_json("--raw", "--greedy", "--max-new-tokens", "20", "--stop", middle, "hello")
        self.assertEqual((answer["text"], answer["finish_reason"], answer["stop"]),
                         (text[:text.index(middle)], "stop", middle))
        self.fails(2, "run", self.model, "x", "--stop", "", says="--stop")

    def test_prompt_from_pipe_and_file(self):
        greedy = ("--greedy", "--max-new-tokens", "8")
        whole = self.works("run", self.model, *greedy, "one\n\ntwo").raw
        self.assertEqual(self.works("run", self.model, *greedy, "one", stdin="two\n").raw, whole)
        self.assertEqual(self.works("run", self.model, *greedy, stdin="one\n\ntwo").raw, whole)
        file = self.write("prompt.txt", "one\n\n{{ word }}\n")
        self.assertEqual(self.works("run", self.model, *greedy, "--prompt-file", file, "--set", "word=two").raw, whole)
        escaped = self.write("escaped.txt", "\\{{x}} {{word}}")
        self.assertEqual(self.works("run", self.model, *greedy, "--prompt-file", escaped, "--set", "word={{x}}").raw,
                         self.works("run", self.model, *greedy, "{{x}} {{x}}").raw)

    def test_examples_are_turns(self):
        examples = self.write("e.jsonl", '{"set": {"q": "1"}, "output": "one"}\n{"input": "Say 2", "output": "two"}\n')
        file = self.write("p.txt", "Say {{q}}\n")
        tokens = self.run_json("--max-new-tokens", "1", "--prompt-file", file, "--set", "q=3", "--examples", examples)
        messages = [{"role": "user", "content": "Say 1"}, {"role": "assistant", "content": "one"},
                    {"role": "user", "content": "Say 2"}, {"role": "assistant", "content": "two"},
                    {"role": "user", "content": "Say 3"}]
        text = self.works("template", self.model, "--messages", self.write("m.json", json.dumps(messages))).raw
        ids = self.works("tokenize", self.model, "--special", "--json", stdin=text).json()["ids"]
        self.assertEqual(tokens["prompt_tokens"], len(ids))

    def test_context(self):
        self.fails(1, "run", self.model, "word " * 200, "--ctx", "64", says="64")
        answer = self.run_json("word " * 200, "--ctx", "64", "--overflow", "truncate", "--greedy", "--max-new-tokens", "4")
        self.assertGreater(answer["dropped_tokens"], 0)
        full = self.run_json("--raw", "a", "--ctx", "32", "--greedy", "--max-new-tokens", "500")
        self.assertEqual((full["finish_reason"], full["prompt_tokens"] + full["completion_tokens"] <= 33), ("length", True))
        self.assertTrue(full["context_full"])
        self.assertIn("context of 32", sllm("run", self.model, "--raw", "a", "--ctx", "32", "--greedy", "-m", "500").err)
        longer = self.run_json("--raw", "a", "--ctx", "32", "--greedy", "--max-new-tokens", "60", "--overflow", "shift")
        self.assertFalse(longer["context_full"])
        self.assertIn(longer["finish_reason"], ("length", "stop"))
        self.fails(2, "run", self.model, "x", "--ctx", "16000000", says="16000000")

    def test_template_arguments_and_failures(self):
        base = self.run_json("--max-new-tokens", "1", "hello")["prompt_tokens"]
        self.assertEqual(self.run_json("--max-new-tokens", "1", "--template-arg", "x=[1]", "hello")["prompt_tokens"], base)
        self.assertGreater(self.run_json("--max-new-tokens", "1", "--system", "short", "hello")["prompt_tokens"], base)
        self.fails(2, "run", self.model, "x", "--template-arg", "novalue", says="KEY=VALUE")

    def test_infill_needs_the_tokens(self):
        self.fails(1, "run", self.model, "def f(", "--suffix", "return x", says="run:")

    def test_full_disk_and_closed_pipe(self):
        with open("/dev/full", "wb") as full:
            done = sllm("run", self.model, "--greedy", "--max-new-tokens", "5", "hello", stdout=full)
        self.assertEqual(done.status, 1)
        self.assertEqual(done.err, "sllm: run: standard output: No space left on device\n")
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            done = sllm("run", self.model, "--max-new-tokens", "100000", "--overflow", "shift", "hello", stdout=closed)
        self.assertEqual((done.status, done.err), (1, ""))

    def test_interrupt(self):
        arguments = ["run", self.model, "--raw", "--logit-bias", "40=1000", "--max-new-tokens", "1000000", "--ctx", "64",
                     "--overflow", "shift", "hello"]
        with subprocess.Popen([SLLM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment()) as process:
            out = interrupt_when(process, lambda text: len(text) > 10)
            rest, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertTrue((out + rest).endswith(b"\n"))

    def test_interrupted_json_is_whole(self):
        arguments = ["run", self.model, "--raw", "--logit-bias", "40=1000", "--max-new-tokens", "1000000", "--ctx", "64",
                     "--overflow", "shift", "--json", "hello"]
        with subprocess.Popen([SLLM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment()) as process:
            time.sleep(1)
            interrupt_when(process, lambda text: True)
            out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(json.loads(out)["finish_reason"], "cancelled")


class Damaged(Case):
    def test_damaged_files(self):
        with open(tiny_model(), "rb") as file:
            whole = file.read()
        for name, content in (("empty.gguf", b""), ("text.gguf", b"not a model"), ("short.gguf", whole[:len(whole) // 2]),
                              ("header.gguf", whole[:40]), ("version.gguf", whole[:4] + b"\xff\0\0\0" + whole[8:]),
                              ("count.gguf", whole[:8] + b"\xff" * 8 + whole[16:])):
            with self.subTest(name=name):
                self.fails(1, "run", self.write(name, content), "p", says=name)
                self.fails(1, "show", self.path(name), says=name)

    def test_wrong_kind(self):
        self.fails(1, "run", golden("quant", "ggml", "vectors.safetensors"), "p", says="vectors.safetensors")
        self.fails(1, "run", self.folder, "p", says=self.folder)
        self.write("pytorch_model.bin", b"\x80\x02")
        self.write("config.json", '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
        self.fails(1, "run", self.folder, "p", says=self.folder)


class BaseModel(Case):
    def test_no_template_is_an_error_that_names_raw(self):
        model = golden("models", "gpt2-bare")
        self.fails(1, "run", model, "hello", says="--raw")


class Real(Case):
    def test_capital_of_france(self):
        real_model()
        done = self.works("run", "smollm2:135m", "--raw", "--greedy", "--max-new-tokens", "4", "The capital of France is",
                          env=real_environment())
        self.assertTrue(done.out.startswith(" Paris."), done.out)

    def test_choices_know_something(self):
        real_model()
        answer = self.works("run", "smollm2:135m", "--greedy", "--json", "--choices", "Paris,Berlin",
                            "What is the capital of France?", env=real_environment()).json()
        self.assertEqual(answer["choice"], "Paris")


if __name__ == "__main__":
    main()
