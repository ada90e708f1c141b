"""The commands one looks into a model with: show, plan, tokenize, detokenize, template, logits, inspect, compare."""
import array
import gzip
import json
import os

from common import Case, environment, golden, main, read_safetensors, shared_golden, sllm, tiny_model, write_safetensors


def floats(tensor):
    return array.array("f", tensor[2])


def largest_difference(a, b):
    return max(abs(x - y) for x, y in zip(floats(a), floats(b)))


class ShowAndPlan(Case):
    def test_show(self):
        shown = self.works("show", tiny_model(), "--json").json()
        self.assertIn("llama", json.dumps(shown))
        self.assertIn("llama", self.works("show", tiny_model()).out)
        self.assertIn("im_start", self.works("show", tiny_model(), "--template").out)
        names = [tensor["name"] for tensor in self.works("show", tiny_model(), "--tensors", "--json").json()["tensors"]]
        self.assertIn("token_embd.weight", names)
        self.fails(1, "show", golden("models", "gpt2-bare"), "--template", says="no chat template")

    def test_plan(self):
        plan = self.works("plan", tiny_model(), "--ctx", "256", "--batch", "2", "--json").json()
        for field in ("weights_bytes", "kv_bytes", "work_bytes", "total_bytes", "memory_free", "fits", "quantisations"):
            self.assertIn(field, plan)
        parts = ("weights_bytes", "kv_bytes", "work_bytes", "vocabulary_bytes", "program_bytes")
        self.assertEqual(plan["total_bytes"], sum(plan[part] for part in parts))
        for field in ("tokens_per_second", "prompt_tokens_per_second", "time_to_first_token_s", "token_bytes"):
            self.assertGreater(plan[field], 0)
        self.assertAlmostEqual(plan["time_to_first_token_s"] * plan["prompt_tokens_per_second"], plan["prompt_tokens"])
        self.assertEqual((plan["ctx"], plan["batch"], plan["fits"]), (256, 2, True))
        half, quarter = (self.works("plan", tiny_model(), "--ctx", ctx, "--batch", "2", "--json").json()["kv_bytes"]
                         for ctx in ("128", "64"))
        self.assertEqual(plan["kv_bytes"] - half, 2 * (half - quarter))  # so many bytes a position, and a fixed part
        self.assertLess(2 * quarter - half, 4096)
        self.assertTrue(plan["quantisations"])
        one = self.works("plan", tiny_model(), "--type", plan["quantisations"][0]["type"], "--json").json()
        self.assertNotIn("quantisations", one)
        self.assertIn("fits", self.works("plan", tiny_model()).out)
        self.fails(2, "plan", tiny_model(), "--type", "q99", says="q99")
        self.fails(2, "plan", tiny_model(), "--ctx", "1000000", says="1000000")


class Processor(Case):
    def test_cpu(self):
        shown = self.works("show", "--cpu", "--json").json()
        machine, kernels = shown["machine"], {k["name"]: k["can_run"] for k in shown["kernels"]}
        self.assertIn(machine["kernels"], kernels)
        self.assertTrue(kernels[machine["kernels"]] and kernels["scalar"])
        self.assertGreaterEqual(machine["read_gb_per_second"], machine["read_gb_per_second_1"])
        self.assertGreater(machine["int8_g_per_second_1"], 0.05)
        self.assertIn(machine["cpu"], self.works("show", "--cpu").out)
        forced = self.works("show", "--cpu", "--json", "--kernels", "scalar").json()["machine"]
        self.assertEqual(forced["kernels"], "scalar")
        by_environment = self.works("show", "--cpu", "--json", env=environment(SLLM_CPU="scalar")).json()["machine"]
        self.assertEqual(by_environment, dict(forced, memory_free=by_environment["memory_free"]))
        for name in [name for name, can in kernels.items() if not can] + ["mmx"]:
            self.fails(2, "show", "--cpu", "--kernels", name, says=name)

    def test_figures_are_kept(self):
        env = environment(XDG_CACHE_HOME=self.path("cache"))
        first = self.works("show", "--cpu", "--json", "--threads", "1", env=env).json()["machine"]
        self.assertEqual(first["threads"], 1)
        again = self.works("show", "--cpu", "--json", "--threads", "1", env=env).json()["machine"]
        self.assertEqual(again, dict(first, memory_free=again["memory_free"]))
        kept = os.path.join(self.folder, "cache", "sllm", "machine.json")
        with open(kept, encoding="utf-8") as file:
            whole = file.read()
        entry = json.loads(whole)["machines"][0]
        for damaged in ("", "{", "[]", '{"machines":{}}', '{"machines":[1,null]}', "\0" * 40, whole[:-30],
                        json.dumps({"machines": [dict(entry, read_1=-1)]}),
                        json.dumps({"machines": [dict(entry, int8_n="fast")]})):
            with open(kept, "w", encoding="utf-8") as file:
                file.write(damaged)
            self.works("show", "--cpu", "--json", "--threads", "1", env=env)
            with open(kept, encoding="utf-8") as file:
                self.assertGreater(json.load(file)["machines"][0]["read_1"], 0)
        with open(kept, "w", encoding="utf-8") as file:
            json.dump({"machines": [dict(entry, read_1=1e9, read_n=2e9)]}, file)
        self.assertEqual(self.works("show", "--cpu", "--json", "-j", "1", env=env).json()["machine"]["read_gb_per_second"], 2)
        again = self.works("show", "--cpu", "--json", "-j", "1", "--measure", env=env).json()["machine"]
        self.assertNotEqual(again["read_gb_per_second"], 2)

    def test_threads(self):
        for wrong in ("0", "10000", "-1", "x"):
            self.fails(2, "show", "--cpu", "--threads", wrong, says=["--threads", "512"])
            self.fails(2, "run", tiny_model(), "hello", "--threads", wrong, says=["--threads", "512"])
        self.fails(2, "show", tiny_model(), "--cpu", says="--cpu")
        self.fails(2, "show", says="MODEL")


class Tokens(Case):
    def test_text_and_back(self):
        shown = self.works("tokenize", tiny_model(), "hello wörld", "--json").json()
        self.assertEqual("".join(shown["pieces"]).replace("\ufffd", ""), "hello wörld".replace("ö", "") if
                         "\ufffd" in "".join(shown["pieces"]) else "hello wörld")
        ids = [str(i) for i in shown["ids"]]
        self.assertEqual(self.works("detokenize", tiny_model(), *ids).out, "hello wörld\n")
        self.assertEqual(self.works("detokenize", tiny_model(), stdin=",".join(ids)).out, "hello wörld\n")
        self.assertEqual(self.works("tokenize", tiny_model(), stdin="hello wörld", ).out.split()[::2][0], ids[0])

    def test_specials(self):
        text = "<|im_start|>a"
        special = self.works("tokenize", tiny_model(), text, "--json", "--special").json()["ids"]
        plain = self.works("tokenize", tiny_model(), text, "--json").json()["ids"]
        self.assertLess(len(special), len(plain))
        back = [str(i) for i in special]
        self.assertEqual(self.works("detokenize", tiny_model(), *back).out, text + "\n")
        self.assertEqual(self.works("detokenize", tiny_model(), "--skip-special", *back).out, "a\n")

    def test_jsonl(self):
        strings = ["hello", "", "a\u0000b", "é\ud83d\ude00", "line\nbreak", "\U0001f600"]
        lines = "".join(json.dumps(string) + "\n" for string in strings)
        ids = self.works("tokenize", tiny_model(), "--jsonl", stdin=lines).out
        self.assertEqual(len(ids.splitlines()), len(strings))
        self.assertEqual(json.loads(ids.splitlines()[1]), [])
        back = self.works("detokenize", tiny_model(), "--jsonl", stdin=ids).raw.splitlines()
        expected = [string.encode("utf-16", "surrogatepass").decode("utf-16") for string in strings]
        self.assertEqual([json.loads(line) for line in back], expected)

    def test_bad_lines(self):
        done = self.fails(1, "tokenize", tiny_model(), "--jsonl", stdin='"a"\n5\n\n"a\n"a"\n', says="3 of 5 lines")
        out = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual(out[0], out[4])
        self.assertEqual([line["error"]["line"] for line in out[1:4]], [2, 3, 4])
        self.assertIn("must be a JSON string", out[1]["error"]["message"])
        done = self.fails(1, "detokenize", tiny_model(), "--jsonl", says="3 of 4 lines",
                          stdin="[1, 2.5]\n[18446744073709551617]\n[9999999]\n[50]\n")
        out = [json.loads(line) for line in done.out.splitlines()]
        self.assertIn("line 1: /1", out[0]["error"]["message"])
        self.assertIn("18446744073709551617", out[1]["error"]["message"])
        self.assertIn("9999999", out[2]["error"]["message"])
        self.assertIsInstance(out[3], str)
        self.fails(2, "detokenize", tiny_model(), "99999", says="99999")
        self.fails(1, "detokenize", tiny_model(), "--", "-1", says="'-1'")

    def test_vocabularies_of_the_golden_data(self):
        with open(shared_golden("tokenizers", "corpus.jsonl"), encoding="utf-8") as file:
            corpus = [json.loads(line) for line in file][:200]
        lines = "".join(json.dumps(case["text"]) + "\n" for case in corpus)
        for model in (shared_golden("tokenizers", "vocab", "ggml-vocab-llama-bpe.gguf"),
                      shared_golden("tokenizers", "tokenizer_json", "gpt-2.json")):
            name = os.path.basename(model).replace("ggml-vocab-", "").rsplit(".", 1)[0]
            with open(shared_golden("tokenizers", "ids", name + ".jsonl"), encoding="utf-8") as file:
                truth = [json.loads(line) for line in file][:200]
            got = self.works("tokenize", model, "--jsonl", stdin=lines).out.splitlines()
            self.assertEqual([json.loads(line) for line in got], [case["ids"] for case in truth], model)
            got = self.works("tokenize", model, "--jsonl", "--special", stdin=lines).out.splitlines()
            self.assertEqual([json.loads(line) for line in got], [case.get("sp", case["ids"]) for case in truth], model)

    def test_gzipped_tokenizer(self):
        with open(golden("quant", "gguf", "llama32", "tokenizer.json"), "rb") as file:
            plain = self.write("tokenizer.json", file.read())
        with open(plain, "rb") as file:
            packed = self.write("packed.json.gz", gzip.compress(file.read()))
        self.assertEqual(self.works("tokenize", plain, "hello").out, self.works("tokenize", packed, "hello").out)
        self.fails(1, "run", plain, "hello", says="run:")


class Template(Case):
    def test_messages(self):
        messages = self.write("m.json", '[{"role": "user", "content": "hé"}]')
        self.assertEqual(self.works("template", tiny_model(), "--messages", messages).out,
                         "<|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n")
        self.assertEqual(self.works("template", tiny_model(), "--messages", messages, "--no-generation-prompt").out,
                         "<|im_start|>user\nhé<|im_end|>\n")
        self.fails(1, "template", tiny_model(), "--messages", self.write("b.json", "[1"), says="b.json")
        self.fails(1, "template", tiny_model(), "--messages", self.write("b.json", "{}"), says="messages")
        self.fails(1, "template", golden("models", "gpt2-bare"), "--messages", messages, says="template")

    def test_cases_of_our_own(self):
        self.write("ok.jinja", "{{ messages[0].content }}{{ x }}|{{ big }}")
        self.write("refuse.jinja", "{{ raise_exception('no: ' ~ messages|length) }}")
        self.write("broken.jinja", "{% if %}")
        cases = [{"template": "ok", "messages": [{"role": "user", "content": "a\u0000b"}],
                  "kwargs": {"x": "é", "big": 123456789012345678901234567890}},
                 {"template": "refuse", "messages": []}, {"template": "broken", "messages": []}]
        out = self.works("template", "--dir", self.folder, "--jsonl",
                         stdin="".join(json.dumps(case) + "\n" for case in cases)).out.splitlines()
        self.assertEqual(json.loads(out[0]), {"text": "a\u0000bé|123456789012345678901234567890"})
        self.assertEqual(json.loads(out[1])["error"]["type"], "TemplateError")
        self.assertEqual(json.loads(out[1])["error"]["message"], "no: 0")
        self.assertIn("error", json.loads(out[2]))
        done = sllm("template", "--dir", self.folder, "--jsonl",
                    stdin='{"template": "../ok", "messages": []}\n{"template": "absent", "messages": []}\n5\n{\n'
                          '{"template": "ok", "messages": [{"role": "user", "content": "x"}]}\n')
        self.assertEqual((done.status, done.err.count("\n")), (1, 1))
        lines = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual([line.get("error", {}).get("type") for line in lines], ["InputError"] * 4 + [None])
        self.assertIn("line 2: ", lines[1]["error"]["message"])
        self.fails(2, "template", "--dir", self.folder, "--now", "bogus", "--jsonl", says="bogus")

    def test_golden_cases(self):
        with open(golden("templates", "cases.jsonl"), "rb") as file:
            lines = file.readlines()[::16]
        out = self.works("template", "--dir", golden("templates", "src"), "--now", "2026-01-15T09:30:00", "--jsonl",
                         stdin=b"".join(lines)).raw.splitlines()
        self.assertEqual(len(out), len(lines))
        wrong = []
        for line, got in zip(map(json.loads, lines), map(json.loads, out)):
            if "expected" in line:
                right = got.get("text") == line["expected"]
            elif line["error"]["type"] == "TemplateError":
                right = got.get("error", {}).get("type") == "TemplateError" and \
                    got["error"]["message"] == line["error"]["message"]
            else:
                right = "error" in got
            if not right:
                wrong.append((line["template"], line["case"], got))
        self.assertEqual(len(wrong), 0, wrong[:3])


class Logits(Case):
    def test_against_the_reference(self):
        expected = read_safetensors(golden("quant", "gguf", "llama32", "expected.safetensors"))
        ids, out = self.path("ids.safetensors"), self.path("out.safetensors")
        write_safetensors(ids, {"input_ids": expected["input_ids"]})
        self.works("logits", tiny_model(), "--ids", ids, "--out", out)
        got = read_safetensors(out)["logits"]
        reference = expected["Q8_0.logits_dequant_f32"]
        self.assertEqual(got[:2], ("F32", reference[1]))
        self.assertLessEqual(largest_difference(got, reference), 5e-4)
        self.works("logits", tiny_model(), "--ids", ids, "--out", out, "--fast")
        self.assertGreater(largest_difference(read_safetensors(out)["logits"], reference), 5e-4)

    def test_bad_ids(self):
        def ids(values, shape):
            write_safetensors(self.path("i.safetensors"), {"input_ids": ("I64", shape, array.array("q", values).tobytes())})
            return self.path("i.safetensors")
        out = self.path("out.safetensors")
        self.fails(1, "logits", tiny_model(), "--ids", ids([1, 99999], [1, 2]), "--out", out, says=["input_ids[0, 1]", "99999"])
        self.fails(1, "logits", tiny_model(), "--ids", ids([1, 2], [2]), "--out", out, says="two dimensions")
        self.fails(1, "logits", tiny_model(), "--ids", tiny_model(), "--out", out, says="input_ids")
        self.assertEqual(os.listdir(self.folder), ["i.safetensors"], "nothing half-written stays")
        self.fails(1, "logits", tiny_model(), "--ids", ids([1, 2], [1, 2]), "--out", "/nonexistent/x", says="/nonexistent/x")


    def test_out_targets(self):
        ids, out, link = self.path("i.safetensors"), self.path("out.safetensors"), self.path("link")
        write_safetensors(ids, {"input_ids": ("I64", [1, 2], array.array("q", [1, 2]).tobytes())})
        self.fails(2, "logits", tiny_model(), "--ids", ids, "--out", ids, says="same file")
        device = self.path("device")
        os.symlink("/dev/full", device)
        self.fails(1, "logits", tiny_model(), "--ids", ids, "--out", device, says="No space left")
        self.assertTrue(os.path.islink(device))
        self.write("out.safetensors", "old")
        os.chmod(out, 0o600)
        os.symlink(out, link)
        self.works("logits", tiny_model(), "--ids", ids, "--out", link)
        self.assertTrue(os.path.islink(link))
        self.assertIn("logits", read_safetensors(out))
        self.assertEqual(os.stat(out).st_mode & 0o777, 0o600)
        self.assertEqual(sorted(os.listdir(self.folder)), ["device", "i.safetensors", "link", "out.safetensors"])
        if os.geteuid():
            os.chmod(out, 0o444)
            self.fails(1, "logits", tiny_model(), "--ids", ids, "--out", out, says="out.safetensors")


class Files(Case):
    def test_inspect(self):
        values = array.array("f", [1, -2, 3, float("nan"), 5, -6]).tobytes()
        file = self.path("t.safetensors")
        write_safetensors(file, {"a": ("F32", [2, 3], values), "n": ("I64", [2], array.array("q", [7, 9]).tobytes())})
        tensors = {tensor["name"]: tensor for tensor in self.works("inspect", file, "--json").json()["tensors"]}
        a = tensors["a"]
        self.assertEqual((a["type"], a["shape"], a["min"], a["max"], a["not_finite"]), ("F32", [2, 3], -6, 5, 1))
        self.assertAlmostEqual(a["mean"], 0.2)
        self.assertAlmostEqual(a["std"], 3.8678, places=3)
        self.assertEqual((tensors["n"]["mean"], tensors["n"]["first"]), (8, [7, 9]))
        self.assertIn("1 not finite", self.works("inspect", file).out)
        self.assertNotIn("min", self.works("inspect", file, "--headers", "--json").json()["tensors"][0])
        self.fails(1, "inspect", file, "--tensor", "b", says="no tensor 'b'")
        self.assertIn("llama", json.dumps(self.works("inspect", tiny_model(), "--metadata", "--json").json()["metadata"]))

    def test_compare(self):
        def tensors(name, **values):
            write_safetensors(self.path(name), {key: ("F32", [len(value)], array.array("f", value).tobytes())
                                                for key, value in values.items()})
            return self.path(name)
        a, b = tensors("a", x=[1, 2], y=[1], only=[0]), tensors("b", x=[1, 5], y=[1], other=[0])
        self.assertEqual(self.works("compare", a, a, "--json").json()["equal"], True)
        found = self.works("compare", a, b, "--json").json()
        self.assertEqual(found["equal"], False)
        by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
        self.assertEqual(sorted(by_name), ["only", "other", "x"])
        self.assertEqual(by_name["x"]["max_difference"], 3)
        self.assertAlmostEqual(by_name["x"]["rms_difference"], 4.5 ** 0.5, places=5)
        self.assertIn("0 metadata keys and 3 tensors differ", self.works("compare", a, b).out)

    def test_compare_predictions(self):
        q8, q4 = tiny_model(), tiny_model(file="llama32-Q4_K_M.gguf")
        same = self.works("compare", q8, q8, "--ids", "1,2,3,4", "--json").json()["predictions"]
        self.assertEqual((same["positions"], same["max_difference"], same["top1_agreement"]), (4, 0, 1))
        other = self.works("compare", q8, q4, "--ids", "1,2,3,4", "--exact", "--json").json()["predictions"]
        self.assertGreater(other["kl"], 0)
        self.assertGreater(other["max_difference"], 0)
        self.fails(2, "compare", q8, q4, "--ids", "1,,2", says="--ids")
        self.assertEqual(sllm("compare", q8, golden("models", "gpt2")).status, 0)


if __name__ == "__main__":
    main()
