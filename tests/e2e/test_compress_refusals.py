"""What quantising and converting refuse, say, and leave alone: other people's files, damaged values, sources that are
quantised already, choices that contradict each other."""
import fcntl
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import time

from common import (SANITIZED, SLLM, Case, environment, main, read_safetensors, shared_golden, sllm, tiny_model, write_safetensors)

WORDS = "The quick brown fox jumps over the lazy dog, and 12 other animals look on in 1999. "
NAN = struct.pack("<f", float("nan"))


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Refusals(Case):
    def file(self):
        return tiny_model("llama32-h256", "llama32-h256-f16.gguf")

    def source(self):
        folder = self.path("source")
        if not os.path.exists(folder):
            self.works("convert", self.file(), "-o", folder)
        return folder

    def text(self):
        return self.write("text.txt", WORDS * 300)

    def left(self):
        """Unfinished files of ours."""
        return [name for name in os.listdir(self.folder) if ".part" in name]

    def folder_with_nan(self, tensor):
        folder = self.path("nan")
        shutil.copytree(self.source(), folder)
        tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
        kind, shape, data = tensors[tensor]
        nan = NAN if kind == "F32" else struct.pack("<e", float("nan"))
        tensors[tensor] = (kind, shape, data[:8] + nan + data[8 + len(nan):])
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        return folder

    def file_with_nan(self, tensor):
        """A copy of the GGUF file with a NaN as the tensor's third value (of F32)."""
        rows = self.works("inspect", self.file(), "--headers", "--json").json()["tensors"]
        data, sizes = bytearray(contents(self.file())), [(row["bytes"] + 31) // 32 * 32 for row in rows]
        at = len(data) - sum(sizes) + sum(size for size, row in zip(sizes, rows[:[row["name"] for row in rows].index(tensor)]))
        data[at + 8:at + 12] = NAN
        return self.write("nan.gguf", bytes(data))


class Values(Refusals):
    def test_answers_that_are_not_finite(self):
        bad, page = self.folder_with_nan("model.norm.weight"), self.path("page.html")
        self.fails(1, "perplexity", bad, "--text", self.text(), "--json", says=["nan", "not finite"])
        for pair in ((self.source(), bad), (bad, self.source())):
            self.fails(1, "compare", *pair, "--text", self.text(), "--html", page, says=[bad, "not finite"])
        self.assertFalse(os.path.exists(page))

    def test_tensors_that_are_only_copied(self):
        out = self.path("out")
        bad = self.folder_with_nan("model.norm.weight")
        for kind in ("nf4", "int4"):
            self.fails(1, "quantize", bad, out, "--type", kind, "--group-size" if kind == "int4" else "--double-quant",
                       *(["64"] if kind == "int4" else []), says=["model.norm.weight", "not a finite number"])
        self.fails(1, "convert", bad, "-o", self.path("m.gguf"), says=["output_norm.weight", "not a finite number"])
        file = self.file_with_nan("output_norm.weight")
        self.fails(1, "quantize", file, out, "--type", "q8_0", says=["output_norm.weight", "--allow-nonfinite"])
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.left(), [])
        report = self.works("quantize", file, out, "--type", "q8_0", "--allow-nonfinite", "--json").json()
        self.assertEqual(report["nonfinite"], 1)
        self.fails(1, "quantize", file, self.path("x"), "--type", "q4_0", "--method", "gptq", "--calibrate", self.text(),
                   says=["output_norm.weight", "not a finite number"])

    def test_vectors_stay_f32(self):
        out = self.path("out.gguf")
        for name in ("rope_freqs.weight", "output_norm.weight"):
            for kind in ("f16", "q8_0"):
                self.fails(2, "quantize", self.file(), out, "--type", "q4_0", "--tensor", f"{name}={kind}", says=[name, "vector"])
        self.works("quantize", self.file(), out, "--type", "q4_0", "--tensor", "output_norm.weight=f32")


class OthersFiles(Refusals):
    def test_source_is_the_result(self):
        source, link = self.path("m.gguf"), self.path("link.gguf")
        shutil.copy(self.file(), source)
        os.symlink("m.gguf", link)
        before = contents(source)
        for out in (source, link):
            self.fails(2, "quantize", source, out, "--type", "q4_0", says="source itself")
        text = self.text()
        for out in (source, self.path("out.gguf"), text):
            self.fails(2, "quantize", source, self.path("out.gguf"), "--type", "q4_0", "--calibrate", text, "--importance-out", out,
                       says="importance")
        parts = self.path("split.gguf")
        self.works("quantize", source, parts, "--type", "f16", "--split", "600kB")
        first = next(name for name in sorted(os.listdir(self.folder)) if name.startswith("split-00001"))
        self.fails(2, "quantize", self.path(first), parts, "--type", "f16", "--split", "600kB", says="source itself")
        self.assertEqual(contents(source), before)
        self.assertEqual(contents(text), (WORDS * 300).encode())
        self.assertEqual(self.left(), [])

    def test_neighbours_stay(self):
        """Converting a folder on the way leaves files beside the result alone."""
        mine = self.write("out.gguf.source.gguf", "mine")
        self.works("quantize", self.source(), self.path("out.gguf"), "--type", "q4_0")
        self.assertEqual(contents(mine), b"mine")
        self.assertEqual(self.left(), [])

    def test_links(self):
        """A link stays a link: what it leads to is replaced; one to nothing is refused."""
        target, link = self.path("target.gguf"), self.path("link.gguf")
        os.symlink("target.gguf", link)
        self.fails(1, "quantize", self.file(), link, "--type", "q4_0", says="link to nothing")
        shutil.copy(self.file(), target)
        self.works("quantize", self.file(), link, "--type", "q4_0")
        self.assertTrue(os.path.islink(link))
        self.assertLess(os.path.getsize(target), os.path.getsize(self.file()))
        os.mkdir(self.path("empty"))
        os.symlink("empty", self.path("folder"))
        self.works("convert", self.file(), "-o", self.path("folder"))
        self.assertTrue(os.path.islink(self.path("folder")))
        self.assertIn("config.json", os.listdir(self.path("empty")))
        self.assertEqual(self.left(), [])

    def test_modes(self):
        """Folders and files have the modes that the user's mask asks for."""
        for mask, folder, file in ((0o022, 0o755, 0o644), (0o077, 0o700, 0o600)):
            out = self.path(f"mask{mask}")
            subprocess.run([SLLM, "convert", self.file(), "-o", out], env=environment(), check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, preexec_fn=lambda: os.umask(mask))
            self.assertEqual(os.stat(out).st_mode & 0o777, folder)
            self.assertEqual(os.stat(os.path.join(out, "config.json")).st_mode & 0o777, file)

    def test_names_of_folders(self):
        os.mkdir(self.path("empty"))
        self.works("convert", self.file(), "-o", self.path("empty/."))
        self.assertIn("config.json", os.listdir(self.path("empty")))
        self.fails(2, "convert", self.file(), "-o", self.path("x.gguf"), says="file's name")

    def test_places_are_looked_at_first(self):
        importance = self.path("importance.gguf")
        found = self.fails(1, "quantize", self.file(), self.path("no/out.gguf"), "--type", "q4_0", "--calibrate", self.text(),
                           "--importance-out", importance, says="no/out.gguf")
        self.assertNotIn("journal", found.err)
        self.fails(1, "quantize", self.file(), self.path("out.gguf"), "--type", "q4_0", "--calibrate", self.text(), "--importance-out",
                   self.path("no/importance.gguf"), says="no/importance.gguf")
        self.fails(1, "quantize", self.file(), self.folder, "--type", "q4_0", says="no regular file")
        self.assertFalse(os.path.exists(importance))
        with open(self.path("out.gguf.part.journal"), "w", encoding="utf-8") as journal:
            fcntl.flock(journal, fcntl.LOCK_EX)
            self.fails(1, "quantize", self.file(), self.path("out.gguf"), "--type", "q4_0", "--calibrate", self.text(),
                       "--importance-out", importance, says="another run")
        self.assertFalse(os.path.exists(importance))

    def test_terminated(self):
        """SIGTERM and SIGHUP leave nothing of a folder, and say by their status which it was."""
        ended = set()
        for kind in (signal.SIGTERM, signal.SIGHUP):
            for delay in (0.01, 0.02, 0.03, 0.05):
                out = self.path(f"out{kind}{delay}")
                child = subprocess.Popen([SLLM, "quantize", self.source(), out, "--type", "int4", "--group-size", "64", "--method", "gptq",
                                          "--calibrate", self.text()], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                time.sleep(delay * (10 if SANITIZED else 1))
                child.send_signal(kind)
                child.communicate(timeout=60)
                if child.returncode == 128 + kind:
                    ended.add(kind)
                    self.assertFalse(os.path.exists(out))
        self.assertEqual(self.left(), [])
        self.assertEqual(ended, {signal.SIGTERM, signal.SIGHUP})

    def test_split(self):
        limit = 600000
        self.works("quantize", self.file(), self.path("split.gguf"), "--type", "f16", "--split", str(limit))
        sizes = [os.path.getsize(self.path(name)) for name in os.listdir(self.folder)]
        self.assertGreater(len(sizes), 1)
        self.assertLessEqual(max(sizes), limit)


class Resume(Refusals):
    def test_other_importance(self):
        """What another importance file gave is not gone on with."""
        text, file, out = self.text(), self.path("importance.gguf"), self.path("out.gguf")
        other = self.write("other.txt", "".join(f"{i * i} is the square of {i}.\n" for i in range(600)))

        def measure(what):
            self.works("quantize", self.file(), self.path("throw.gguf"), "--type", "q4_0", "--calibrate", what, "--importance-out", file)

        def run(limit=None):
            def set_limit():
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            done = subprocess.run([SLLM, "quantize", self.file(), out, "--type", "q4_0", "--importance", file, "--json"], env=environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, preexec_fn=set_limit if limit else None)
            return done.returncode, done.stdout

        measure(text)
        status, whole = run()
        self.assertEqual(status, 0)
        self.assertEqual(json.loads(whole)["bytes_out"], os.path.getsize(out))
        self.assertEqual(json.loads(whole)["bytes_in"], os.path.getsize(self.file()))
        os.remove(out)
        limit = json.loads(whole)["bytes_out"] - 100000
        self.assertEqual(run(limit)[0], 1)
        self.assertGreater(json.loads(run()[1])["resumed"], 0)
        os.remove(out)
        self.assertEqual(run(limit)[0], 1)
        measure(other)
        self.assertEqual(json.loads(run()[1])["resumed"], 0)


class Choices(Refusals):
    def test_budget(self):
        text, out = self.text(), self.path("out.gguf")
        self.fails(2, "quantize", self.file(), out, "--budget", "0", "--calibrate", text, says="--budget 0")
        rules = ["--tensor", "blk.0.ffn_down=f16", "--tensor", "blk.1.attn_q=q8_0"]
        report = self.works("quantize", self.file(), out, "--bits", "7", "--calibrate", text, *rules, "--json").json()
        types = {row["name"]: row["to"] for row in report["tensors"]}
        self.assertEqual((types["blk.0.ffn_down.weight"], types["blk.1.attn_q.weight"]), ("F16", "Q8_0"))
        self.assertLessEqual(report["bits_per_weight"], 7)
        self.fails(2, "quantize", self.file(), out, "--bits", "4", "--calibrate", text, "--tensor", "*=f16", says="cannot be met")

    def test_importance_of_another_model(self):
        file, text = self.path("importance.gguf"), self.text()
        self.works("quantize", self.file(), self.path("out.gguf"), "--type", "q4_0", "--calibrate", text, "--importance-out", file)
        self.fails(2, "quantize", tiny_model("llama32", "llama32-f32.gguf"), self.path("x.gguf"), "--type", "q4_0", "--importance", file,
                   says=["another model", "columns"])
        self.fails(2, "quantize", tiny_model("gpt2", "gpt2-f16.gguf"), self.path("x.gguf"), "--type", "q4_0", "--importance", file,
                   says="another model")
        self.assertFalse(os.path.exists(self.path("x.gguf")))

    def test_names_in_metadata(self):
        """The name of the text is one line of UTF-8 in the file, whatever it is on the disk."""
        name = os.path.join(os.fsencode(self.folder), b"a\nb\xff.txt")
        with open(name, "wb") as text:
            text.write((WORDS * 300).encode())
        out, file = self.path("out.gguf"), self.path("importance.gguf")
        self.works("quantize", self.file(), out, "--type", "q4_0", "--calibrate", name, "--importance-out", file)
        recipe = self.works("inspect", out, "--metadata", "--json").json()["metadata"]["sllm.recipe"]
        self.assertIn("a b\ufffd.txt", recipe)
        names = self.works("inspect", file, "--metadata", "--json").json()["metadata"]["imatrix.datasets"]
        self.assertIn("a b\ufffd.txt", names[0])


class QuantisedAlready(Refusals):
    def test_widened_matrices(self):
        """What lies in memory as f32 was quantised all the same."""
        for name in ("gptq_awq/gptq-4bit-g32-actorder", "bnb_models/llama32-int8", "bnb_models/llama32-nf4-dq"):
            folder, file, out = shared_golden("quant", *name.split("/")), self.path("m.gguf"), self.path("q.gguf")
            self.fails(2, "convert", folder, "-o", file, says=["quantised already", "--requantize"])
            self.fails(2, "quantize", folder, out, "--type", "q8_0", says=["quantised already", "--requantize"])
            self.assertEqual(self.left(), [])
            report = self.works("convert", folder, "-o", file, "--requantize", "--json").json()
            self.assertEqual(report["requantized"], 21)
            found = self.works("compare", folder, file, "--ids", "1,2,3,4", "--exact", "--json").json()["predictions"]
            self.assertLess(found["max_difference"], 2e-5, name)
            self.fails(2, "quantize", file, out, "--type", "q8_0", says=["quantised already", "--requantize"])
            report = self.works("quantize", folder, out, "--type", "q8_0", "--requantize", "--json").json()
            self.assertEqual(report["requantized"], 21)
            self.assertIn("--requantize", report["recipe"])

    def test_exact_ones_are_kept(self):
        folder, file = shared_golden("quant", "gptq_awq", "gptq-4bit-g32"), self.path("m.gguf")
        report = self.works("convert", folder, "-o", file, "--json").json()
        self.assertTrue(any("exactly" in note for note in report["warnings"]), report["warnings"])
        self.assertEqual(report["requantized"], 0)
        self.fails(2, "convert", folder, "-o", file, "--type", "f16", says="--requantize")
        report = self.works("quantize", folder, self.path("q.gguf"), "--type", "q4_0", "--requantize", "--json").json()
        self.assertTrue(any("exactly" in note for note in report["warnings"]), report)

    def test_back(self):
        report = self.works("convert", tiny_model(), "-o", self.path("out"), "--requantize", "--type", "f32", "--json").json()
        self.assertEqual(report["bytes_in"], os.path.getsize(tiny_model()))
        self.assertLessEqual(report["requantized"], report["tensors"])
        self.assertGreater(report["bytes_out"], report["bytes_in"])

    def test_null_means_none(self):
        source, out = self.source(), self.path("out")
        with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config["quantization_config"] = None
        self.write("source/config.json", json.dumps(config))
        self.works("quantize", source, out, "--type", "nf4")
        with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["quantization_config"]["quant_method"], "bitsandbytes")
        self.works("compare", source, out, "--ids", "1,2")


class Reports(Refusals):
    def test_awq_is_compared_by_answers(self):
        out, text = self.path("awq"), self.text()
        self.works("quantize", self.source(), out, "--type", "int4", "--group-size", "64", "--method", "awq", "--calibrate", text)
        for kind, b in (("folder", out), ("file", self.path("awq.gguf"))):
            a = self.source() if kind == "folder" else self.file()
            if kind == "file":
                self.works("quantize", a, b, "--type", "q4_0", "--method", "awq", "--calibrate", text)
            found = self.works("compare", a, b, "--text", text, "--chunks", "1", "--json").json()
            self.assertIn("AWQ", found["tensors_note"])
            self.assertFalse(any("rmse" in row for row in found["tensors"]))
            self.assertIn("AWQ", self.works("compare", a, b, "--text", text, "--chunks", "1").out)

    def test_what_was_only_rounded(self):
        out, text = self.path("out.gguf"), self.text()
        report = self.works("quantize", self.file(), out, "--type", "q4_0", "--method", "gptq", "--calibrate", text, "--tensor",
                            "blk.0.attn_q=f32", "--json").json()
        self.assertEqual((report["solved"], report["rounded_plain"], report["rounded_unreached"]), (13, 1, 0))
        report = self.works("quantize", self.file(), out, "--type", "q4_0", "--method", "awq", "--calibrate", text, "--json").json()
        self.assertEqual((report["solved"], report["rounded_plain"]), (14, 0))
        report = self.works("quantize", tiny_model("mixtral", "mixtral-f16.gguf"), out, "--type", "q4_0", "--method", "awq", "--calibrate",
                            text, "--json").json()
        self.assertGreater(report["rounded_plain"], 0)  # nothing before experts takes scales up
        shown = self.works("quantize", tiny_model("mixtral", "mixtral-f16.gguf"), out, "--type", "q4_0", "--method", "awq", "--calibrate",
                           text).out
        self.assertIn("only rounded", shown)

    def test_routers_are_named(self):
        """What reads the folder must not take a router for a quantised product."""
        for family, names in (("mixtral", ["lm_head", "block_sparse_moe.gate"]), ("qwen2-moe", ["lm_head", "mlp.gate", "mlp.shared_expert_gate"])):
            source = shared_golden("models", family)
            for kind, key in (("nf4", "llm_int8_skip_modules"), ("int4", "dynamic")):
                out = self.path(family + kind)
                report = self.works("quantize", source, out, "--type", kind, *(["--group-size", "32"] if kind == "int4" else []), "--json").json()
                self.assertEqual("experts_kept" in report, kind == "nf4")  # transformers stacks experts, and reads no packed ones
                with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
                    found = json.load(file)["quantization_config"][key]
                if kind == "nf4":
                    self.assertEqual(found, names)
                else:
                    self.assertEqual(list(found), ["-:.*\\." + name.replace(".", "\\.") + "$" for name in names[1:]])
                self.works("compare", source, out, "--ids", "1,2,3")

    def test_group_that_fits_all(self):
        found = sllm("quantize", shared_golden("models", "llama32"), self.path("x"), "--type", "int4")
        self.assertEqual(found.status, 2)
        size = found.err.split("--group-size ")[1].split()[0]
        self.works("quantize", shared_golden("models", "llama32"), self.path("x"), "--type", "int4", "--group-size", size)


if __name__ == "__main__":
    main()
