"""Checkpoint folders made by convert and quantize, and the methods that measure the model: GPTQ, AWQ."""
import json
import os
import signal
import subprocess
import time

from common import SANITIZED, SLLM, Case, environment, main, read_safetensors, shared_golden, sllm, tiny_model

WORDS = "The quick brown fox jumps over the lazy dog, and 12 other animals look on in 1999. "
TOKENS = ",".join(str(5 + 7 * i) for i in range(20))


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Folders(Case):
    def source(self):
        """A folder with a tokenizer: the tiny file, converted back."""
        folder = self.path("source")
        if not os.path.exists(folder):
            self.works("convert", tiny_model("llama32-h256", "llama32-h256-f16.gguf"), "-o", folder)
        return folder

    def nll(self, model, *more):
        text = self.write("text.txt", WORDS * 100)
        return self.works("perplexity", model, "--text", text, "--ctx", "64", "--chunks", "8", "--exact", "--json", *more).json()["mean_nll"]


class Back(Folders):
    def test_and_forth(self):
        """A folder, as a GGUF file, as a folder: the same logits, bit for bit, and the same tokens."""
        families = ["llama32-h256", "gpt2", "mixtral", "phi3-longrope"]
        if not SANITIZED:
            families += ["gemma3-text", "qwen2-moe", "starcoder2", "smollm3", "ministral"]
        for family in families:
            source = shared_golden("models", family)
            file, folder = self.path(family + ".gguf"), self.path(family)
            self.works("convert", source, "-o", file)
            self.works("convert", file, "-o", folder)
            found = self.works("compare", source, folder, "--ids", TOKENS, "--exact", "--json").json()["predictions"]
            self.assertEqual(found["max_difference"], 0, family)

    def test_tokenizer(self):
        file, folder = tiny_model("llama32-h256", "llama32-h256-f16.gguf"), self.source()
        self.assertEqual(sorted(set(os.listdir(folder)) - {"README.md"}),
                         ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
        text = WORDS + "\n\n  Ünïcödé\t12345 <|x|> 😀"
        for more in ([], ["--add-special", "--special"]):
            self.assertEqual(self.works("tokenize", file, text, "--json", *more).out, self.works("tokenize", folder, text, "--json", *more).out)
        found = self.works("compare", file, folder, "--ids", TOKENS, "--exact", "--json").json()["predictions"]
        self.assertLess(found["max_difference"], 2e-5)  # the file holds divisors of frequencies, the folder what they came from

    def test_quantised(self):
        q8, out = tiny_model(), self.path("out")
        self.fails(2, "convert", q8, "-o", out, says=["quantised already", "--requantize"])
        self.assertFalse(os.path.exists(out))
        report = self.works("convert", q8, "-o", out, "--requantize", "--type", "f32", "--json").json()
        self.assertGreater(report["requantized"], 0)
        found = self.works("compare", q8, out, "--ids", TOKENS, "--exact", "--json").json()["predictions"]
        self.assertLess(found["max_difference"], 2e-5)

    def test_taken(self):
        self.source()
        file = tiny_model("llama32-h256", "llama32-h256-f16.gguf")
        before = contents(self.path("source/config.json"))
        self.fails(2, "convert", file, "-o", self.path("source"), says="is there already")
        self.assertEqual(before, contents(self.path("source/config.json")))
        os.mkdir(self.path("empty"))
        self.works("convert", file, "-o", self.path("empty") + "/")
        self.fails(1, "convert", file, "-o", self.path("no/where"), says="no/where")
        self.fails(2, "convert", file, "-o", self.path("x"), "--split", "1MB", says="--split")
        self.assertEqual([name for name in os.listdir(self.folder) if ".part" in name], [])

    def test_killed(self):
        """SIGINT leaves nothing; SIGKILL nothing under the final name."""
        file = tiny_model("llama32-h256", "llama32-h256-f16.gguf")
        for kind in (signal.SIGINT, signal.SIGKILL):
            for delay in (0.002, 0.006, 0.01, 0.02):
                out = self.path(f"killed{kind}{delay}")
                child = subprocess.Popen([SLLM, "convert", file, "-o", out], env=environment(), stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
                time.sleep(delay * (10 if SANITIZED else 1))
                child.send_signal(kind)
                child.wait(60)
                if os.path.exists(out):
                    self.assertTrue(os.path.exists(os.path.join(out, "model.safetensors")))
                    self.works("compare", file, out, "--ids", "1,2", "--exact")


class Sources(Folders):
    def test_folder_to_file(self):
        """A folder straight to a quantised file is what two steps give, and leaves nothing else."""
        source, file, one, two = (self.path(name) for name in ("source", "m.gguf", "one.gguf", "two.gguf"))
        self.source()
        self.works("convert", source, "-o", file)
        self.works("quantize", file, two, "--type", "q4_k_m")
        self.works("quantize", source, one, "--type", "q4_k_m")
        self.assertIn("0 tensors differ", self.works("compare", one, two).out)
        self.assertEqual(sorted(os.listdir(self.folder)), ["m.gguf", "one.gguf", "source", "two.gguf"])
        self.fails(2, "quantize", source, one, "--type", "q4_0", "--tensor", "none=f16", says="no tensor")
        self.assertEqual(sorted(os.listdir(self.folder)), ["m.gguf", "one.gguf", "source", "two.gguf"])


class BitsAndBytes(Folders):
    def test_folders(self):
        """Our folder computes what loading the same weights in four bits computes."""
        source = self.source()
        for kind in ("nf4", "fp4"):
            for more in ([], ["--double-quant"]):
                out = self.path(kind + "".join(more))
                self.works("quantize", source, out, "--type", kind, *more)
                self.assertEqual(self.nll(out), self.nll(source, "--load-in-4bit", kind, *more))
                config = json.loads(contents(os.path.join(out, "config.json")))["quantization_config"]
                self.assertEqual((config["quant_method"], config["bnb_4bit_quant_type"]), ("bitsandbytes", kind))
                self.assertEqual(config["bnb_4bit_use_double_quant"], bool(more))
                tensors = read_safetensors(os.path.join(out, "model.safetensors"))
                kind_of, _, note = tensors[f"model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__{kind}"]
                self.assertEqual(kind_of, "U8")
                self.assertEqual(json.loads(note)["shape"], [512, 256])
                self.assertEqual(contents(os.path.join(out, "tokenizer.json")), contents(os.path.join(source, "tokenizer.json")))

    def test_usage(self):
        source, out = self.source(), self.path("x")
        for more, says in ((["--group-size", "64"], "blocks of 64"), (["--pure"], "--pure"), (["--split", "1MB"], "--split"),
                           (["--method", "awq"], "--calibrate"), (["--tensor", "*=q4_0"], "--tensor")):
            self.fails(2, "quantize", source, out, "--type", "nf4", *more, says=says)
        self.fails(2, "quantize", tiny_model(), out, "--type", "nf4", says="folder")
        self.works("quantize", source, out, "--type", "nf4")
        self.fails(2, "quantize", source, out, "--type", "nf4", says="is there already")
        self.fails(2, "quantize", out, self.path("y"), "--type", "nf4", says="quantised already")
        self.fails(1, "quantize", shared_golden("models", "gpt2"), self.path("y"), "--type", "nf4", says="[in, out]")
        self.assertFalse(os.path.exists(self.path("y")))


class Methods(Folders):
    def text(self):
        return self.write("calibrate.txt", "".join(f"{i} {WORDS}" for i in range(10 if SANITIZED else 30)))

    def kld(self, a, b):
        text = self.write("text.txt", WORDS * 100)
        return self.works("compare", a, b, "--text", text, "--ctx", "64", "--chunks", "8", "--exact", "--json").json()["mean_kld"]

    def test_errors_of_joined_matrices(self):
        """They are in memory once, packed after the first use: the report must not read what was given up."""
        out, text = self.path("out"), self.write("text.txt", WORDS * 100)
        self.works("quantize", self.source(), out, "--type", "int4", "--group-size", "64")
        found = self.works("compare", self.source(), out, "--text", text, "--ctx", "64", "--chunks", "1", "--json").json()
        errors = [row["relative_error"] for row in found["tensors"] if "proj" in row["name"]]
        self.assertEqual(len(errors), 14)
        self.assertTrue(all(0.03 < e < 0.2 for e in errors), errors)

    def test_integers(self):
        source, text = self.source(), self.text()
        rounded = self.path("rounded")
        self.works("quantize", source, rounded, "--type", "int4", "--group-size", "64")
        base = self.kld(source, rounded)
        self.works("quantize", source, self.path("eight"), "--type", "int8")
        self.assertLess(self.kld(source, self.path("eight")), 0.1 * base)
        for method, more in (("gptq", []), ("gptq", ["--act-order"]), ("awq", [])):
            out = self.path(method + "".join(more))
            self.works("quantize", source, out, "--type", "int4", "--group-size", "64", "--method", method, "--calibrate", text, *more)
            self.assertLess(self.kld(source, out), base, out)
            config = json.loads(contents(os.path.join(out, "config.json")))["quantization_config"]
            self.assertEqual((config["quant_method"], config["bits"], config["group_size"]), (method, 4, 64))
            tensors = read_safetensors(os.path.join(out, "model.safetensors"))
            base_name = "model.layers.0.self_attn.k_proj"
            self.assertEqual(tensors[base_name + ".scales"][:2], ("F16", [4, 128]))
            self.assertEqual(tensors[base_name + ".qweight"][:2], ("I32", [256, 16] if method == "awq" else [32, 128]))
        groups = read_safetensors(os.path.join(self.path("gptq--act-order"), "model.safetensors"))["model.layers.0.self_attn.k_proj.g_idx"]
        self.assertNotEqual(groups[2], b"".join(int(i // 64).to_bytes(4, "little") for i in range(256)))

    def test_types(self):
        """Blocks of our own types: nearer than rounding, and the same bytes with any number of threads."""
        source, text, out = tiny_model("llama32-h256", "llama32-h256-f16.gguf"), self.text(), self.path("out.gguf")
        for kind in ("q4_0",) if SANITIZED else ("q4_0", "q3_k_m"):
            self.works("quantize", source, out, "--type", kind)
            base = self.kld(source, out)
            for method in ("gptq", "awq"):
                self.works("quantize", source, out, "--type", kind, "--method", method, "--calibrate", text, "-j", "1")
                one = contents(out)
                # Random weights have no columns that matter more, and a scale to 16 columns leaves AWQ's nothing to do: a tie.
                limit = 1.01 * base if (kind, method) == ("q3_k_m", "awq") else base
                self.assertLess(self.kld(source, out), limit, (kind, method))
                self.works("quantize", source, out, "--type", kind, "--method", method, "--calibrate", text, "-j", "3")
                self.assertEqual(one, contents(out), (kind, method))

    def test_matrices_that_stay(self):
        """A matrix left as it is meets inputs that nothing was divided by."""
        source, out = tiny_model("llama32-h256", "llama32-h256-f16.gguf"), self.path("out.gguf")
        rules = [word for name in ("attn_k", "ffn_gate", "attn_v") for word in ("--tensor", f"*{name}=f16")]
        self.works("quantize", source, out, "--type", "q4_0", *rules)
        base = self.kld(source, out)
        for method in ("gptq", "awq"):
            self.works("quantize", source, out, "--type", "q4_0", "--method", method, "--calibrate", self.text(), *rules)
            self.assertLess(self.kld(source, out), 1.1 * base, method)

    def test_experts(self):
        """Experts in a stack, and as matrices of their own; what is unreached is rounded."""
        text, out = self.text(), self.path("moe.gguf")
        for method in ("gptq", "awq"):
            report = self.works("quantize", tiny_model("mixtral", "mixtral-f16.gguf"), out, "--type", "q4_0", "--method", method, "--calibrate",
                                text, "--json").json()
            self.assertGreater(report["types"]["Q4_0"], 3)
            self.works("compare", out, out, "--ids", TOKENS)

    def test_usage(self):
        source, text, out = self.source(), self.text(), self.path("x")
        gguf = tiny_model("llama32-h256", "llama32-h256-f16.gguf")
        for model, kind in ((source, "int4"), (gguf, "q4_0")):
            self.fails(2, "quantize", model, out, "--type", kind, "--method", "gptq", says="--calibrate")
            self.fails(2, "quantize", model, out, "--type", kind, "--method", "best", says="round, gptq and awq")
            self.fails(2, "quantize", model, out, "--type", kind, "--act-order", says="--act-order")
        self.fails(2, "quantize", source, out, "--type", "int4", "--group-size", "96", says="--group-size 128")
        self.fails(2, "quantize", source, out, "--type", "int8", "--method", "awq", "--calibrate", text, says="int4")
        self.fails(2, "quantize", source, out, "--type", "int4", "--calibrate", text, says="--method")
        self.fails(2, "quantize", gguf, out, "--type", "q4_0", "--double-quant", says="nf4")
        self.fails(2, "quantize", source, out, "--type", "int4", "--method", "gptq", "--calibrate", self.write("few", "a b"), says="at least 512")
        self.assertFalse(os.path.exists(out))

    def test_interrupted(self):
        out = self.path("out.gguf")
        child = subprocess.Popen([SLLM, "quantize", tiny_model("llama32-h256", "llama32-h256-f16.gguf"), out, "--type", "q4_0", "--method",
                                  "gptq", "--calibrate", self.text()], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(0.3 * (10 if SANITIZED else 1))
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        if child.returncode:
            self.assertEqual(child.returncode, 130, err)
            self.assertFalse(os.path.exists(out))


if __name__ == "__main__":
    main()
