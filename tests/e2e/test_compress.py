"""Converting, quantising, and measuring what it cost: convert, quantize, perplexity, compare --text."""
import hashlib
import os
import signal
import struct
import subprocess
import time

from common import SANITIZED, SLLM, Case, environment, main, read_safetensors, shared_golden, sllm, tiny_model, write_safetensors

WORDS = "The quick brown fox jumps over the lazy dog, and 12 other animals look on in 1999. "
F32 = "llama32-f32.gguf"


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Quantise(Case):
    def source(self):
        return tiny_model("llama32-h256", "llama32-h256-f16.gguf")

    def quantise(self, *arguments):
        out = self.path("out.gguf")
        return out, self.works("quantize", self.source(), out, *arguments, "--json").json()

    def test_every_type(self):
        text = self.write("text.txt", WORDS * 200)
        names = [name for name in self.works("quantize", "--list").out.split() if name.isupper()]
        self.assertIn("Q4_K_M", names)
        kld = {}
        for name in names:
            out, report = self.quantise("--type", name)
            self.assertEqual(sum(report["types"].values()), len(report["tensors"]), name)
            found = self.works("compare", self.source(), out, "--text", text, "--ctx", "64", "--chunks", "2", "--exact",
                               "--json").json()
            kld[name] = found["mean_kld"]
        self.assertLess(abs(kld["F16"]), 1e-6)
        for better, worse in (("Q8_0", "Q6_K"), ("Q6_K", "Q5_K_M"), ("Q5_K_M", "Q4_K_M"), ("Q4_K_M", "Q3_K_M"),
                              ("Q3_K_M", "Q2_K"), ("Q5_0", "Q4_0"), ("Q5_1", "Q4_1"), ("Q8_0", "IQ4_NL"), ("Q8_0", "MXFP4")):
            self.assertLess(kld[better], kld[worse])

    def test_mix_and_fallback(self):
        out = self.path("out.gguf")
        report = self.works("quantize", tiny_model("llama32", F32), out, "--type", "q4_k_m", "--json").json()
        self.assertEqual({row["wanted"]: row["type"] for row in report["fallbacks"]}, {"Q4_K": "Q5_0", "Q6_K": "Q8_0"})
        types = {row["name"]: row["to"] for row in report["tensors"]}
        self.assertEqual(types["output_norm.weight"], "F32")
        shown = self.works("quantize", tiny_model("llama32", F32), out, "--type", "q4_k_m").out
        self.assertIn("hold no blocks of Q4_K, so Q5_0", shown)

    def test_same_mix_as_the_peer(self):
        """llama-quantize's file of the same model: every tensor has the type that ours gives it."""
        peer = self.works("inspect", shared_golden("quant", "gguf", "llama32-h256", "llama32-h256-Q4_K_M.gguf"), "--headers",
                          "--json").json()["tensors"]
        _, report = self.quantise("--type", "q4_k_m")
        self.assertEqual({row["name"]: row["to"] for row in report["tensors"]}, {row["name"]: row["type"] for row in peer})

    def test_tensor_rules(self):
        _, report = self.quantise("--type", "q4_0", "--tensor", "blk.*.ffn_down=q6_k", "--tensor", "blk.1.attn_q.weight=f16")
        types = {row["name"]: row["to"] for row in report["tensors"]}
        self.assertEqual((types["blk.0.ffn_down.weight"], types["blk.1.attn_q.weight"]), ("Q6_K", "F16"))
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--tensor", "nothing*=q8_0", says="no tensor")
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--tensor", "blk=", says="PATTERN=TYPE")
        self.fails(2, "quantize", tiny_model("llama32", F32), self.path("x"), "--type", "q4_0", "--tensor", "*ffn_up=q4_k",
                   says="Q5_0 would fit")

    def test_keep_output(self):
        _, report = self.quantise("--type", "q4_0", "--keep-output")
        self.assertEqual({row["name"]: row["to"] for row in report["tensors"]}["token_embd.weight"], "F16")

    def test_importance(self):
        text, file = self.write("text.txt", WORDS * 200), self.path("importance.gguf")
        out, _ = self.quantise("--type", "q4_0", "--calibrate", text, "--importance-out", file)
        first = contents(out)
        out, _ = self.quantise("--type", "q4_0", "--calibrate", text, "--threads", "1")
        second = contents(out)
        self.assertEqual(first, second)
        out, _ = self.quantise("--type", "q4_0", "--importance", file)
        again = contents(out)
        self.assertEqual(first[-4096:], again[-4096:])
        out, _ = self.quantise("--type", "q4_0")
        self.assertNotEqual(first[-4096:], contents(out)[-4096:])
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--calibrate", self.write("few", "a b"),
                   says="at least 512")
        self.fails(1, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--importance", self.write("junk", "x" * 99),
                   says="importance file")

    def test_messages(self):
        line = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}\n' % (WORDS, WORDS)
        _, report = self.quantise("--type", "q4_0", "--calibrate", self.write("chat.jsonl", line * 60))
        self.assertIn("--calibrate", report["recipe"])
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--calibrate",
                   self.write("bad.jsonl", line + '{"neither": 1}\n'), says="line 2")

    def test_budget(self):
        text = self.write("text.txt", WORDS * 200)
        out = self.path("small.gguf")
        plain, _ = self.quantise("--type", "q5_0")
        size = os.path.getsize(plain)
        report = self.works("quantize", self.source(), out, "--budget", str(size), "--calibrate", text, "--json").json()
        self.assertLessEqual(os.path.getsize(out), size)
        self.assertGreater(os.path.getsize(out), 0.8 * size)
        self.assertGreater(report["expected_kld"], 0)
        report = self.works("quantize", self.source(), out, "--bits", "5", "--calibrate", text, "--json").json()
        self.assertLessEqual(report["bits_per_weight"], 5)
        self.fails(2, "quantize", self.source(), out, "--budget", "10kB", "--calibrate", text, says="cannot be met")
        self.fails(2, "quantize", self.source(), out, "--budget", "1MB", says="--calibrate")

    def test_quantised_already(self):
        q8 = tiny_model()
        self.fails(2, "quantize", q8, self.path("x.gguf"), "--type", "q4_0", says="--requantize")
        report = self.works("quantize", q8, self.path("x.gguf"), "--type", "q4_0", "--requantize", "--json").json()
        self.assertGreater(report["requantized"], 0)

    def test_not_finite(self):
        """A NaN put into a matrix of the file is named, refused, and made 0 where that is asked for."""
        name, data = self.path("nan.gguf"), bytearray(contents(self.source()))
        at = len(data) - 4096 - len(data) % 4
        data[at:at + 2] = struct.pack("<e", float("nan"))
        with open(name, "wb") as file:
            file.write(data)
        found = sllm("quantize", name, self.path("x.gguf"), "--type", "q8_0")
        self.assertEqual(found.status, 1, found.err)
        self.assertIn("not a finite number", found.err)
        self.assertFalse(os.path.exists(self.path("x.gguf")))
        report = self.works("quantize", name, self.path("x.gguf"), "--type", "q8_0", "--allow-nonfinite", "--json").json()
        self.assertEqual(report["nonfinite"], 1)

    def test_split(self):
        out = self.path("out.gguf")
        self.works("quantize", self.source(), out, "--type", "q8_0", "--split", "100kB")
        first = next(name for name in os.listdir(self.folder) if "-00001-of-" in name)
        self.assertFalse(os.path.exists(out))
        whole, _ = self.quantise("--type", "q8_0")
        self.assertIn("0 tensors differ", self.works("compare", self.path(first), whole).out)

    def test_usage(self):
        self.fails(2, "quantize", self.source(), says="IN OUT")
        self.fails(2, "quantize", self.source(), "x", says="--type")
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q9_z", says="--list")
        self.fails(2, "quantize", self.source(), self.path("x"), "--type", "q4_0", "--budget", "1MB", says="budget")
        self.fails(1, "quantize", self.source(), self.path("no/where.gguf"), "--type", "q4_0", says="no/where.gguf")


class Killed(Case):
    def test_resume(self):
        """Killed with SIGKILL at some moment: no file under the final name; the next run goes on and gives the same bytes."""
        source, out, whole = tiny_model("llama32-h256", "llama32-h256-f16.gguf"), self.path("out.gguf"), self.path("whole.gguf")
        self.works("quantize", source, whole, "--type", "q4_k_m")
        killed = 0
        for delay in (0.004, 0.008, 0.012, 0.016, 0.03, 0.06):
            child = subprocess.Popen([SLLM, "quantize", source, out, "--type", "q4_k_m"], env=environment(),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay * (10 if SANITIZED else 1))
            child.send_signal(signal.SIGKILL)
            killed += child.wait() < 0
            if os.path.exists(out):
                break
        self.works("quantize", source, out, "--type", "q4_k_m")
        self.assertEqual(contents(out), contents(whole))
        self.assertEqual([name for name in os.listdir(self.folder) if ".part" in name], [])


class Convert(Case):
    def folder_of(self, name):
        return shared_golden("models", name)

    def test_same_logits(self):
        out = self.path("m.gguf")
        for name in ("llama32", "mistral-swa", "qwen2", "qwen2-swa", "qwen2-moe", "mixtral", "gemma2", "gemma3-text",
                     "phi3-mini", "phi3-longrope", "starcoder2", "gpt2", "smollm3", "ministral3", "qwen3"):
            self.works("convert", self.folder_of(name), "-o", out)
            found = self.works("compare", self.folder_of(name), out, "--exact", "--ids",
                               ",".join(str(5 + 7 * i) for i in range(40)), "--json").json()["predictions"]
            self.assertLess(found["max_difference"], 5e-5, name)

    def test_same_tensors_as_the_peer(self):
        """llama.cpp's converter made the golden files: the same names, shapes and values."""
        for name, file in (("llama32", "llama32-f32.gguf"), ("qwen2-moe", "qwen2-moe-f16.gguf"), ("gpt2", "gpt2-f16.gguf"),
                           ("mixtral", "mixtral-f16.gguf"), ("phi3-longrope", "phi3-longrope-f16.gguf")):
            out, peer = self.path("m.gguf"), shared_golden("quant", "gguf", name, file)
            self.works("convert", self.folder_of(name), "-o", out, "--type", "f32" if "f32" in file else "f16")
            found = self.works("compare", peer, out, "--json").json()
            self.assertEqual([t for t in found["tensors"] if t.get("max_difference", 1) > 1e-6], [], name)

    def test_tokenizer(self):
        """A folder with a tokenizer: the file gives the same ids."""
        source = self.path("folder")
        os.mkdir(source)
        for name, link in (("config.json", "config.json"), ("model.safetensors", "weights.safetensors")):
            os.symlink(os.path.abspath(os.path.join(self.folder_of("llama32"), name)), os.path.join(source, link))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            os.symlink(os.path.abspath(shared_golden("quant", "gguf", "llama32", name)), os.path.join(source, name))
        out, text = self.path("m.gguf"), "It's 12345 o'clock:\n\n  don't WAIT, na\u00efve \u4f60\u597d \U0001f600!!"
        self.write("folder/README.md", "---\nlicense: mit\n---\n")
        self.works("convert", source, "-o", out)
        ids = self.works("tokenize", source, text, "--json").out
        self.assertEqual(ids, self.works("tokenize", out, text, "--json").out)
        metadata = self.works("inspect", out, "--metadata", "--json").json()["metadata"]
        self.assertEqual(metadata["general.license"], "mit")
        self.assertEqual(metadata["sllm.source.sha256"],
                         hashlib.sha256(contents(os.path.join(source, "weights.safetensors"))).hexdigest())
        self.fails(1, "convert", source, "-o", out, "--pre", "gpt-2", says="pre-tokeniser")

    def test_bad_input(self):
        folder, out = self.folder_of("llama32"), self.path("m.gguf")
        self.fails(2, "convert", folder, says="-o")
        self.fails(2, "convert", folder, "-o", out, "--type", "q4_0", says="quantize")
        self.fails(2, "convert", tiny_model(), "-o", self.path("out"), says="--requantize")
        self.fails(1, "convert", self.folder_of("phi3-small"), "-o", out, says="no architecture")
        self.fails(1, "convert", folder, "-o", self.path("no/m.gguf"), says="no/m.gguf")
        self.assertFalse(os.path.exists(out))

    def test_not_finite(self):
        source, out = self.path("folder"), self.path("m.gguf")
        os.mkdir(source)
        os.symlink(os.path.abspath(os.path.join(self.folder_of("llama32"), "config.json")), os.path.join(source, "config.json"))
        tensors = read_safetensors(os.path.join(self.folder_of("llama32"), "model.safetensors"))
        name = "model.layers.1.mlp.up_proj.weight"
        kind, shape, data = tensors[name]
        self.assertEqual(kind, "F32")
        tensors[name] = (kind, shape, data[:400] + struct.pack("<f", float("inf")) + data[404:])
        write_safetensors(os.path.join(source, "model.safetensors"), tensors)
        self.fails(1, "convert", source, "-o", out, says="blk.1.ffn_up.weight")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.works("convert", source, "-o", out, "--allow-nonfinite", "--json").json()["nonfinite"], 1)


class Measure(Case):
    def test_perplexity(self):
        text = self.write("text.txt", WORDS * 100)
        found = self.works("perplexity", tiny_model(), "--text", text, "--ctx", "64", "--json").json()
        self.assertEqual(found["arithmetic"], "fast")
        self.assertGreater(found["perplexity"], 1)
        self.assertGreater(found["standard_error"], 0)
        self.assertEqual(found["scored"], found["chunks"] * 31)
        one = self.works("perplexity", tiny_model(), "--text", text, "--ctx", "64", "-j", "1", "--json").json()
        self.assertEqual(found["perplexity"], one["perplexity"])
        self.assertIn("perplexity", self.works("perplexity", tiny_model(), "--text", text, "--ctx", "64").out)
        self.fails(2, "perplexity", tiny_model(), "--text", self.write("few", "a b"), says="at least 512")
        self.fails(2, "perplexity", tiny_model(), says="--text")
        self.fails(1, "perplexity", tiny_model(), "--text", self.path("none"), says="none")

    def test_compare(self):
        text, page = self.write("text.txt", WORDS * 100), self.path("page.html")
        q8, q4 = tiny_model(), tiny_model(file="llama32-Q4_K_M.gguf")
        same = self.works("compare", q8, q8, "--text", text, "--ctx", "64", "--json").json()
        self.assertLess(abs(same["mean_kld"]), 1e-9)
        self.assertEqual(same["top1_agreement"], 1)
        found = self.works("compare", q8, q4, "--text", text, "--ctx", "64", "--html", page, "--both-arithmetics",
                           "--json").json()
        self.assertGreater(found["mean_kld"], 0)
        self.assertLessEqual(found["median_kld"], found["p99_kld"])
        self.assertLessEqual(found["p99_kld"], found["max_kld"])
        self.assertEqual(found["exact"]["arithmetic"], "exact")
        self.assertEqual((found["bytes_a"], found["bytes_b"]), (os.path.getsize(q8), os.path.getsize(q4)))
        self.assertGreater(max(row["relative_error"] for row in found["tensors"]), 0.01)
        html = contents(page).decode()
        self.assertTrue(html.startswith("<!doctype html>") and html.rstrip().endswith("</html>"))
        self.assertNotIn("<script", html)
        self.assertIn("same likeliest token", self.works("compare", q8, q4, "--text", text, "--ctx", "64").out)
        self.fails(2, "compare", q8, q4, "--html", page, says="--text")
        self.fails(2, "compare", q8, q4, "--text", self.write("few", "a b"), says="at least 512")


class Packed(Case):
    def test_folders_of_others(self):
        for folder in (("gptq_awq", "gptq-4bit-g32-actorder"), ("gptq_awq", "awq-4bit-g32-gemm"), ("bnb_models", "qwen2-nf4-dq")):
            path = shared_golden("quant", *folder)
            tokens = ",".join(str(5 + 7 * i) for i in range(20))
            found = self.works("compare", path, path, "--ids", tokens, "--json").json()["predictions"]
            self.assertEqual(found["max_difference"], 0)
            self.works("plan", path)

    def test_damaged(self):
        """Parts that do not fit together are named."""
        source = shared_golden("quant", "gptq_awq", "gptq-4bit-g32")
        base = "model.layers.0.mlp.down_proj"
        tensors = read_safetensors(os.path.join(source, "model.safetensors"))
        kind, shape, data = tensors[base + ".g_idx"]
        for name, change in ((".g_idx", (kind, shape, struct.pack("<i", 99) + data[4:])), (".scales", None), (".qzeros", (kind, [5], data[:20]))):
            damaged = dict(tensors)
            if change:
                damaged[base + name] = change
            else:
                del damaged[base + name]
            folder = self.path("m" + name)
            os.mkdir(folder)
            os.symlink(os.path.abspath(os.path.join(source, "config.json")), os.path.join(folder, "config.json"))
            write_safetensors(os.path.join(folder, "model.safetensors"), damaged)
            self.fails(1, "compare", folder, folder, "--ids", "1,2", "--exact", says=base + name)

    def test_load_in_4bit(self):
        text, source = self.write("text.txt", WORDS * 100), tiny_model("llama32-h256", "llama32-h256-f16.gguf")
        values = [self.works("perplexity", source, "--text", text, "--ctx", "64", "--exact", "--json", *more).json()["mean_nll"]
                  for more in ([], ["--load-in-4bit", "nf4"], ["--load-in-4bit", "nf4", "--double-quant"], ["--load-in-4bit", "fp4"])]
        self.assertEqual(len(set(values)), 4)
        for value in values:
            self.assertLess(abs(value - values[0]), 0.3)
        self.fails(2, "perplexity", source, "--text", text, "--load-in-4bit", "q4", says="nf4")


if __name__ == "__main__":
    main()
