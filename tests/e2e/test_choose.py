"""sllm choose: conditions, order, reasons."""
import json
import os

from common import SOURCE, Case, main


class Choose(Case):
    def choose(self, *arguments):
        return self.works("choose", *arguments, "--threads", "2", "--json").json()

    def names(self, *arguments):
        return [model["name"] for model in self.choose(*arguments)["chosen"]]

    def test_classification(self):
        report = self.choose("--task", "classification", "--ram", "4G")
        chosen = report["chosen"]
        self.assertEqual((report["task"], report["ram_bytes"]), ("classification", 4000000000))
        self.assertEqual([model["rank"] for model in chosen], list(range(1, len(chosen) + 1)))
        self.assertGreater(len(chosen), 5)
        standings = [model["standing"] for model in chosen]
        known = [s for s in standings if s is not None]
        self.assertEqual(standings, sorted(known, reverse=True) + [None] * (len(standings) - len(known)))
        for model in chosen:
            self.assertLessEqual(model["memory_bytes"], 4e9)
            self.assertGreater(model["tokens_per_second"], 0)
            self.assertAlmostEqual(model["answer_s"], model["time_to_first_token_s"] + 128 / model["tokens_per_second"], places=6)
            self.assertTrue(model["reasons"])
            self.assertTrue(all(figure["source"].startswith("https://") for figure in model["benchmarks"]))
        tasks = {model["name"]: model["task"] for model in chosen}
        self.assertEqual(tasks["gemma3:270m"], "stated")
        self.assertEqual(tasks["llama3.2:1b"], "general")
        left = {model["name"]: " ".join(model["reasons"]) for model in report["left_out"]}
        self.assertIn("encoder", left["distilbert"])
        self.assertIn("not made for classification", left["starcoder2:3b"])
        self.assertIn("4.0 GB", left["qwen3:8b"])
        self.assertFalse(set(left) & set(tasks))

    def test_memory(self):
        small, large = self.names("--ram", "1GiB"), self.names("--ram", "64G")
        self.assertTrue(set(small) < set(large))
        self.assertEqual(self.names("--ram", "1 MB"), [])
        report = self.choose("--ram", "20M")
        self.assertEqual(report["chosen"], [])
        self.assertIn("no model", self.works("choose", "--ram", "20M", "--threads", "2").out)
        wide = self.choose("--ram", "64G", "--ctx", "32768")["chosen"]
        narrow = {model["name"]: model["memory_bytes"] for model in self.choose("--ram", "64G")["chosen"]}
        self.assertTrue(all(model["memory_bytes"] > narrow[model["name"]] for model in wide if model["name"] in narrow))
        quantised = {model["name"]: " ".join(model["reasons"]) for model in self.choose("--ram", "4G")["left_out"]}
        self.assertIn("as q4_k_m it would take", quantised["phi4:mini"])

    def test_order_of_equals(self):
        with open(os.path.join(SOURCE, "share", "catalogue.json"), encoding="utf-8") as file:
            names = [model["name"] for model in json.load(file)["models"]]
        self.assertEqual([model["name"] for model in self.choose("--ram", "20M")["left_out"]], names)

    def test_time(self):
        seconds = sorted(model["answer_s"] for model in self.choose("--ram", "64G")["chosen"])
        middle = seconds[len(seconds) // 2]
        quick = self.choose("--ram", "64G", "--latency", f"{middle:.3f}")["chosen"]
        self.assertTrue(0 < len(quick) < len(seconds))
        self.assertTrue(all(model["answer_s"] <= middle + 0.01 for model in quick))

    def test_words(self):
        self.assertEqual(self.names("--task", "classify"), self.names("--task", "classification"))
        code = self.names("--task", "coding", "--ram", "16G")
        self.assertIn("qwen2.5-coder:3b", code)
        self.assertNotIn("smollm2:135m", code)
        self.assertLess(code.index("qwen2.5-coder:3b"), code.index("starcoder2:3b"))
        self.assertNotIn("smollm2:135m", self.names("--language", "de"))
        self.assertIn("llama3.2:1b", self.names("--language", "de"))
        allowed = self.choose("--commercial", "--ram", "16G")["chosen"]
        self.assertNotIn("qwen2.5:3b", [model["name"] for model in allowed])
        for model in allowed:
            self.assertIn(model["commercial_use"], (True, "conditions"))
            self.assertTrue(any("commercial use" in reason for reason in model["reasons"]))

    def test_table(self):
        table = self.works("choose", "--task", "chat", "--ram", "2G", "--most", "3", "--threads", "2").out
        self.assertIn("left out", table)
        self.assertIn("Ordered by", table)
        self.assertIn("--most", table)

    def test_bad_input(self):
        self.fails(2, "choose", "--task", "cooking", says=["cooking", "classification", "tool calling"])
        for wrong in ("4X", "", "G", "-4G", "0", "nan", "1e30"):
            self.fails(2, "choose", "--ram", wrong, says="--ram")
        self.fails(2, "choose", "--language", "d3", says="d3")
        self.fails(2, "choose", "--latency", "-1", says="--latency")
        self.fails(2, "choose", "--prompt", "600", "--answer", "100", "--ctx", "512", says=["512", "600"])
        self.fails(2, "choose", "--threads", "0", says="--threads")
        self.fails(2, "choose", "extra", says="extra")


if __name__ == "__main__":
    main()
