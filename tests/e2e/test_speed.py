"""bench/speed.py with programs that only pretend: what it reports when one of them fails."""
import os
import subprocess
import sys

from common import SOURCE, Case, environment, main

SPEED = os.path.join(SOURCE, "bench", "speed.py")
OURS = """#!/bin/sh
case $1 in
show) echo '{"machine": {"kernels": "none"}}' ;;
bench) @BENCH@ echo '{"results": [{"tokens_per_second": 100}]}' ;;
run) @RUN@ ;;
esac
"""
PEER = """#!/bin/sh
@FAIL@ echo '[{"avg_ts": @SPEED@}]'
"""


class Speed(Case):
    def program(self, name, text, **parts):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        for part, value in parts.items():
            text = text.replace(f"@{part}@", value)
        os.chmod(self.write(name, text), 0o755)
        return self.path(name)

    def ours(self, bench="", run="printf x"):
        return self.program("sllm", OURS, BENCH=bench, RUN=run)

    def peer(self, name, speed, fail=""):
        self.program(f"peers/{name}/bin/llama-bench", PEER, SPEED=str(speed), FAIL=fail)

    def speed(self, *arguments):
        model = self.write("model.gguf", "")
        done = subprocess.run([sys.executable, SPEED, "--model", model, "--peers", self.path("peers"), "--results", self.folder,
                               "--threads", "1", "--repeat", "2", *arguments], capture_output=True, text=True, check=False,
                              env=environment(SLLM=self.path("sllm")), timeout=60)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def fails_in_round(self, n, times):
        """Shell words that fail from the n-th call on, so often."""
        count = self.path("count")
        return (f"echo >>{count}; n=$(wc -l <{count}); "
                f"[ $n -lt {n} ] || [ $n -ge {n + times} ] || {{ echo broken >&2; exit 3; }};")

    def test_all_well(self):
        self.ours()
        self.peer("llama.cpp", 80)
        self.peer("ik_llama.cpp", 50)
        done = self.speed("--only", "generate")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ratio to llama.cpp with 1 thread: 1.25", done.stdout)
        self.assertNotIn("missing", done.stdout)

    def test_ours_fails(self):
        self.ours(bench="echo out of luck >&2; exit 4;")
        self.peer("llama.cpp", 80)
        self.peer("ik_llama.cpp", 50)
        done = self.speed("--only", "generate")
        self.assertEqual(done.returncode, 1)
        self.assertIn("out of luck", done.stderr)
        self.assertNotIn("ratio", done.stdout)

    def test_peer_fails_once(self):
        self.ours()
        self.peer("llama.cpp", 80, self.fails_in_round(2, 1))
        self.peer("ik_llama.cpp", 50)
        done = self.speed("--only", "generate")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("once more", done.stderr)
        self.assertIn("ratio to llama.cpp with 1 thread: 1.25", done.stdout)

    def test_better_peer_fails(self):
        self.ours()
        self.peer("llama.cpp", 80, self.fails_in_round(2, 2))
        self.peer("ik_llama.cpp", 50)
        done = self.speed("--only", "generate,prompt")
        self.assertEqual(done.returncode, 1)
        generate, prompt = done.stdout.split("model.gguf: prompt")
        self.assertIn("missing: llama.cpp with 1 thread: ", generate)
        self.assertIn("broken", generate)
        self.assertRegex(generate, r"ratio to ik_llama.cpp with 1 thread: 2.00 .*; missing: llama.cpp with 1 thread\n")
        self.assertIn("ratio to llama.cpp with 1 thread: 1.25", prompt)  # asked again for the next

    def test_no_peer_left(self):
        self.ours()
        self.peer("llama.cpp", 80, "exit 3;")
        done = self.speed("--only", "generate")  # and ik_llama.cpp is not there
        self.assertEqual(done.returncode, 1)
        self.assertIn("no ratio; missing: ik_llama.cpp, llama.cpp with 1 thread", done.stdout)

    def test_peer_fails_when_quiet(self):
        self.ours()
        self.peer("llama.cpp", 80, self.fails_in_round(1, 2))
        self.peer("ik_llama.cpp", 50)
        done = self.speed("--only", "busy")
        self.assertEqual(done.returncode, 1)
        self.assertIn("missing when quiet", done.stdout)
        self.assertIn("sllm          1 threads  100 % of the quiet", done.stdout)

    def test_first_token(self):
        self.ours()
        done = self.speed("--only", "start", "--no-peers")
        self.assertEqual(done.returncode, 0, done.stderr)
        for run, says in (("exit 5", "exit status 5"), ("true", "0 bytes"), ("printf x; exit 6", "exit status 6")):
            self.ours(run=run)
            done = self.speed("--only", "start", "--no-peers")
            self.assertEqual(done.returncode, 1)
            self.assertIn(says, done.stderr)
            self.assertNotIn(" ms", done.stdout)


if __name__ == "__main__":
    main()
