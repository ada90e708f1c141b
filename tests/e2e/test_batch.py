"""sllm batch: every line answered in order and as `sllm run` answers it, errors of single lines, going on after a kill."""
import json
import os
import signal
import stat
import struct
import subprocess
import time
import unittest

from common import SANITIZED, SLLM, Case, environment, interrupt_when, main, sllm, tiny_model

FAST = ("-m", "8", "--seed", "5", "--quiet")


def lines_of(path):
    with open(path, "rb") as file:
        return [json.loads(line) for line in file.read().decode().splitlines()]


class Batch(Case):
    def setUp(self):
        super().setUp()
        self.model = tiny_model()

    def input(self, items, name="in.jsonl"):
        return self.write(name, "".join((json.dumps(item) if not isinstance(item, str) else item) + "\n" for item in items))

    def batch(self, items, *options, status=0, **more):
        """Runs it; gives the lines of the output and the result."""
        path, out = self.input(items), self.path("out.jsonl")
        done = sllm("batch", self.model, "--in", path, "--out", out, *FAST, *options, **more)
        self.assertEqual(done.status, status, done.err)
        return lines_of(out), done

    def run_alone(self, *arguments):
        return self.works("run", self.model, "--json", "-m", "8", *arguments).json()


class Answers(Batch):
    def test_lines_are_those_of_run(self):
        items = [{"prompt": f"Say {i}", "id": f"x{i}"} for i in range(6)]
        items[2]["temperature"] = 0
        items[3]["max_new_tokens"] = 3
        items[4]["seed"] = 99
        items[5] = {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Say 5"}], "id": 7}
        out, _ = self.batch(items)
        self.assertEqual([line["line"] for line in out], [1, 2, 3, 4, 5, 6])
        self.assertEqual([line["id"] for line in out], ["x0", "x1", "x2", "x3", "x4", 7])
        expected = [self.run_alone("Say 0", "--seed", "5"), self.run_alone("Say 1", "--seed", "6"),
                    self.run_alone("Say 2", "--greedy"), self.run_alone("Say 3", "--seed", "8", "-m", "3"),
                    self.run_alone("Say 4", "--seed", "99"), self.run_alone("Say 5", "--seed", "10", "-S", "Short.")]
        for got, want in zip(out, expected):
            for key in ("text", "finish_reason", "prompt_tokens", "completion_tokens", "context_full"):
                self.assertEqual(got[key], want[key], (got["line"], key))

    def test_the_output_is_the_same_bytes_however_many_at_once(self):
        items = [{"prompt": "Tell me " + "more and more " * (i % 5) + str(i), "temperature": i % 3 / 2} for i in range(24)]
        path, outs = self.input(items), []
        for i, options in enumerate([("-p", "1"), ("-p", "8"), ("-p", "24", "--no-prefix-cache"), ("-p", "3", "-j", "1")]):
            out = self.path(f"out{i}.jsonl")
            self.works("batch", self.model, "--in", path, "--out", out, *FAST, *options)
            with open(out, "rb") as file:
                outs.append(file.read())
        self.assertEqual(len(outs[0].splitlines()), 24)
        for other in outs[1:]:
            self.assertEqual(other, outs[0])

    def test_raw_system_stop_choices(self):
        out, _ = self.batch([{"prompt": "Once upon"}, {"prompt": "There was", "stop": "e"},
                             {"prompt": "Yes or no?", "choices": ["yes", "no"]}], "--raw")
        self.assertEqual(out[0]["text"], self.run_alone("Once upon", "--raw", "--seed", "5")["text"])
        self.assertNotIn("e", out[1]["text"])
        self.assertIn(out[2]["text"], ("yes", "no"))
        self.assertAlmostEqual(sum(choice["probability"] for choice in out[2]["choices"]), 1)
        same = self.run_alone("Yes or no?", "--raw", "--seed", "7", "--choices", "yes,no")
        self.assertEqual(out[2]["choices"], same["choices"])
        system, _ = self.batch([{"prompt": "Hi"}, {"prompt": "Hi", "system": "B", "seed": 5}], "-S", "A", "--restart")
        self.assertEqual(system[0]["text"], self.run_alone("Hi", "-S", "A", "--seed", "5")["text"])
        self.assertEqual(system[1]["text"], self.run_alone("Hi", "-S", "B", "--seed", "5")["text"])

    def test_prompt_file_slots_and_examples(self):
        form = self.write("form.txt", "Translate {{word}} into {{ language }}: \\{{x}}\n")
        shots = self.write("shots.jsonl", '{"input": "a", "output": "b"}\n')
        out, done = self.batch([{"word": "dog", "language": "French", "temperature": 0}, {"word": 3, "language": True},
                                {"word": "dog"}, {"word": "dog", "language": "x", "extra": 1}, {"word": [], "language": "x"},
                                {"prompt": "dog"}], "-f", form, "--examples", shots, status=1)
        alone = self.run_alone("Translate dog into French: {{x}}", "--greedy", "--examples", shots)
        self.assertEqual(out[0]["text"], alone["text"])
        self.assertEqual(out[0]["prompt_tokens"], alone["prompt_tokens"])
        self.assertIn("text", out[1])
        self.assertIn("/language: is missing", out[2]["error"]["message"])
        self.assertIn("/extra: unknown field", out[3]["error"]["message"])
        self.assertIn("/word: must be a string", out[4]["error"]["message"])
        self.assertIn("/prompt: the prompt comes from", out[5]["error"]["message"])
        self.assertIn("4 of 6 lines have errors", done.err)
        bad = self.write("bad.txt", "Draw {{seed}}")
        self.fails(1, "batch", self.model, "--in", self.path("in.jsonl"), "--out", self.path("o"), "-f", bad,
                   says=["line 1", "{{seed}} has the name of a parameter"])

    def test_pipes_and_summary(self):
        done = sllm("batch", self.model, "--in", "-", "--out", "-", *FAST, stdin='{"prompt": "a"}\n{"prompt": "b"}')
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual([json.loads(line)["line"] for line in done.out.splitlines()], [1, 2])
        _, done = self.batch([{"prompt": "a"}, {"prompt": "b"}], "--json")
        summary = done.json()
        self.assertEqual((summary["lines"], summary["written"], summary["errors"], summary["seed"]), (2, 2, 0, 5))
        self.assertGreater(summary["tokens_per_second"], 0)
        out, _ = self.batch([], "--restart")
        self.assertEqual(out, [])


    def test_guesses_change_nothing(self):
        items = [{"prompt": "again and " * 20, "temperature": 0, "max_new_tokens": 60, "ignore_end": True}, {"prompt": "b"}]
        plain, _ = self.batch(items, "-p", "1")
        guessed, _ = self.batch(items, "-p", "1", "--speculate", "lookup", "--restart")
        self.assertEqual(guessed, plain)


class BadLines(Batch):
    def test_each_says_what_is_wrong(self):
        cases = [("", "the line is empty"), ("{", "not JSON"), ("[1]", "must be a JSON object"), ("{}", "exactly one of"),
                 ('{"prompt": "a", "messages": []}', "exactly one of"), ('{"prompt": 3}', "/prompt: must be a string"),
                 ('{"prompt": ""}', "the prompt is empty"), ('{"messages": []}', "/messages: must be an array"),
                 ('{"messages": 1}', "/messages: must be an array"), ('{"prompt": "a", "temprature": 1}', "/temprature"),
                 ('{"prompt": "a", "temperature": -1}', "temperature is -1"),
                 ('{"prompt": "a", "temperature": "x"}', "/temperature: must be a number"),
                 ('{"prompt": "a", "top_k": 1.5}', "/top_k: must be a whole number"),
                 ('{"prompt": "a", "seed": -1}', "/seed: must be a whole number"),
                 ('{"prompt": "a", "max_new_tokens": -1}', "/max_new_tokens"),
                 ('{"prompt": "a", "stop": [""]}', "/stop: must be a string or an array"),
                 ('{"prompt": "a", "choices": ["x", "x"]}', "the same"),
                 ('{"prompt": "a", "choices": ["x"], "stop": "y"}', "stop and choices"),
                 ('{"prompt": "a", "choices": []}', "/choices: must be an array of strings, at least one"),
                 ('{"prompt": "a", "seed": 1, "seed": 2}', "/seed: stands there twice"),
                 ('{"id": 1, "prompt": "a", "id": 2}', "/id: stands there twice"),
                 ('{"prompt": "a", "prompt": "a"}', "/prompt: stands there twice"),
                 ('{"prompt": "a", "id": {}}', "/id: must be"), ('{"prompt": "a", "system": 1}', "/system: must be"),
                 ('{"prompt": "' + "word " * 3000 + '"}', "context"),
                 ('{"messages": [{"role": "user"}], "id": 4}', ""), ('{"prompt": "a"}', None)]
        out, done = self.batch([text for text, _ in cases], status=1)
        self.assertEqual(len(out), len(cases))
        for i, ((_, says), line) in enumerate(zip(cases, out)):
            self.assertEqual(line["line"], i + 1)
            if says is None:
                self.assertIn("text", line)
            elif says:
                self.assertEqual(line["error"]["line"], i + 1)
                self.assertIn(says, line["error"]["message"])
        self.assertEqual(out[25]["id"], 4)
        self.assertIn("lines have errors", done.err)

    def test_not_utf8(self):
        path = self.write("in.jsonl", b'{"prompt": "\xff"}\n{"prompt": "ok"}\n')
        done = sllm("batch", self.model, "--in", path, "--out", self.path("out.jsonl"), *FAST)
        self.assertEqual(done.status, 1)
        out = lines_of(self.path("out.jsonl"))
        self.assertIn("error", out[0])
        self.assertIn("text", out[1])

    def test_strict_stops(self):
        out, done = self.batch([{"prompt": "a"}, {"prompt": "b"}, {"prompt": 3}, {"prompt": "d"}], "--strict", status=1)
        self.assertEqual(len(out), 2)
        self.assertIn("line 3: /prompt: must be a string", done.err)

    def test_files(self):
        path = self.input([{"prompt": "a"}])
        out = self.path("out.jsonl")
        self.fails(1, "batch", self.model, "--in", self.path("none"), "--out", out, says=["none", "No such file"])
        self.fails(1, "batch", self.model, "--in", self.folder, "--out", out, says="is a folder")
        self.fails(1, "batch", self.model, "--in", path, "--out", self.folder, says="directory")
        self.fails(1, "batch", self.model, "--in", path, "--out", os.path.join(self.folder, "no", "out"), says="No such file")
        self.fails(2, "batch", self.model, "--in", path, "--out", path, says="same file")
        self.fails(2, "batch", self.model, "--in", path, says="--out")
        self.fails(2, "batch", self.model, "--out", out, says="--in")
        self.fails(2, "batch", self.model, "--in", path, "--out", "-", "--json", says="--json")
        self.fails(1, "batch", self.model, "--in", path, "--out", "/dev/full", *FAST, says="No space left")
        with open(path, "rb") as file:
            self.assertEqual(json.loads(file.read()), {"prompt": "a"})
        if os.geteuid():
            self.write("locked", "")
            os.chmod(self.path("locked"), stat.S_IRUSR)
            self.fails(1, "batch", self.model, "--in", path, "--out", self.path("locked"), says="denied")


class Streams(Batch):
    def start(self, path, out, *options):
        return subprocess.Popen([SLLM, "batch", self.model, "--in", path, "--out", out, *FAST, *options],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())

    def test_a_named_pipe_gets_every_line(self):
        path, pipe = self.input([{"prompt": str(i)} for i in range(20)]), self.path("pipe")
        os.mkfifo(pipe)
        with self.start(path, pipe) as process:
            with open(pipe, "rb") as file:
                lines = [json.loads(line) for line in file]
            _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual([line["line"] for line in lines], list(range(1, 21)))
        self.assertFalse(os.path.exists(pipe + ".state"))

    def test_a_reader_that_leaves_is_an_error(self):
        path, pipe = self.input([{"prompt": str(i)} for i in range(200)]), self.path("pipe")
        os.mkfifo(pipe)
        with self.start(path, pipe, "-p", "1") as process:
            with open(pipe, "rb", buffering=0) as file:
                file.read(1)
            _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn(b"nobody reads it any more", err)

    def test_interrupt_while_no_reader_comes(self):
        path, pipe = self.input([{"prompt": "a"}]), self.path("pipe")
        os.mkfifo(pipe)
        with self.start(path, pipe) as process:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)


class GoingOn(Batch):
    def start(self, n=40, *options):
        items = [{"prompt": f"Number {i}: " + "go on " * (i % 7)} for i in range(n)]
        path = self.input(items)
        command = ["batch", self.model, "--in", path, "-m", "30", "--seed", "5", "--ignore-end", "-p", "4", *options]
        whole = self.path("whole.jsonl")
        self.works(*command, "--out", whole)
        return command, whole

    def finish(self, command, whole):
        out = self.path("out.jsonl")
        done = self.works(*command, "--out", out)
        with open(out, "rb") as got, open(whole, "rb") as want:
            self.assertEqual(got.read(), want.read())
        return done

    def test_after_any_cut(self):
        command, whole = self.start(12)
        with open(whole, "rb") as file:
            data = file.read()
        for cut in (0, 1, len(data) // 3, len(data) // 2, data.rindex(b"\n", 0, -1) + 1, len(data) - 1, len(data)):
            self.write("out.jsonl", data[:cut])
            with open(whole + ".state", "rb") as file:
                self.write("out.jsonl.state", file.read())
            self.finish(command, whole)

    def test_after_kill(self):
        command, whole = self.start()
        out = self.path("out.jsonl")
        for _ in range(3):
            process = subprocess.Popen([SLLM, *command, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       env=environment())
            size = os.path.getsize(out) if os.path.exists(out) else 0
            end = time.time() + 30
            while process.poll() is None and time.time() < end:
                if os.path.exists(out) and os.path.getsize(out) > size:
                    break
                time.sleep(0.002)
            process.kill()
            process.communicate()
            self.assertGreater(os.path.getsize(out), 0)
        self.finish(command, whole)

    def test_after_interrupt(self):
        command, whole = self.start(60)
        out = self.path("out.jsonl")
        process = subprocess.Popen([SLLM, *command, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        interrupt_when(process, lambda _: os.path.exists(out) and os.path.getsize(out) > 0)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(b"interrupted after", err)
        with open(out, "rb") as file:
            self.assertTrue(file.read().endswith(b"}\n"))
        self.finish(command, whole)

    def test_what_changed_is_refused(self):
        command, whole = self.start(3)
        self.fails(1, *command, "--out", whole, "-t", "0.1", "--quiet", says=["temperature", "--restart"])
        self.fails(1, *command, "--out", whole, "--exact", "--quiet", says="exact")
        self.fails(1, *command, "--out", whole, "--seed", "6", "--quiet", says="seed")
        other = tiny_model(file="llama32-Q4_0.gguf")
        self.fails(1, command[0], other, *command[2:], "--out", whole, "--quiet", says="model")
        self.works(*command, "--out", whole, "-j", "1", "-p", "2", "--no-prefix-cache")
        with open(self.path("in.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"prompt": "new"}\n')
        self.fails(1, *command, "--out", whole, "--quiet", says=["input", "--restart"])
        self.works(*command, "--out", whole, "--restart")
        self.assertEqual(len(lines_of(whole)), 4)
        foreign = self.write("foreign", "precious\n")
        self.fails(1, *command, "--out", foreign, "--quiet", says=["exists", "--restart"])
        with open(foreign, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious\n")

    def changed_model(self, old, new):
        with open(self.model, "rb") as file:
            data = file.read()
        self.assertEqual(data.count(old), 1)
        os.makedirs(self.path("other"), exist_ok=True)
        return self.write(os.path.join("other", os.path.basename(self.model)), data.replace(old, new))

    def norm(self):
        """The first bytes of the last norm's weights, which stand nowhere else."""
        shown = self.works("inspect", self.model, "--json", "--tensor", "output_norm.weight").json()
        return b"".join(struct.pack("<f", value) for value in shown["tensors"][0]["first"])

    def test_another_model_of_the_same_name_and_size_is_refused(self):
        command, whole = self.start(3)
        norm = self.norm()
        other = self.changed_model(norm, norm[4:8] + norm[:4] + norm[8:])
        self.fails(1, command[0], other, *command[2:], "--out", whole, "--quiet", says=["another model", "--restart"])
        os.makedirs(self.path("same"))
        with open(self.model, "rb") as file:
            same = self.write(os.path.join("same", "renamed.gguf"), file.read())
        self.works(command[0], same, *command[2:], "--out", whole)

    def test_what_is_no_fault_of_a_line_ends_the_run(self):
        norm = self.norm()
        damaged = self.changed_model(norm, struct.pack("<f", float("nan")) + norm[4:])
        path, out = self.input([{"prompt": 3}, {"prompt": "a"}, {"prompt": "b"}]), self.path("out.jsonl")
        done = sllm("batch", damaged, "--in", path, "--out", out, *FAST)
        self.assertEqual(done.status, 1)
        self.assertIn("line 2 could not be answered", done.err)
        self.assertIn("goes on from there", done.err)
        self.assertEqual([line["line"] for line in lines_of(out)], [1])

    def test_a_state_that_is_not_ours_stays(self):
        path, out, state = self.input([{"prompt": "a"}]), self.path("out.jsonl"), self.path("out.jsonl.state")
        for content in ("precious\n", "{}", '{"input": "a", "model": 1, "seed": "5"}'):
            self.write("out.jsonl.state", content)
            for options in ((), ("--restart",)):
                self.fails(1, "batch", self.model, "--in", path, "--out", out, *FAST, *options, says="not written by this")
            with open(state, encoding="utf-8") as file:
                self.assertEqual(file.read(), content)
        os.remove(state)
        os.remove(out)
        self.works("batch", self.model, "--in", path, "--out", out, *FAST)
        os.rename(state, self.path("target"))
        os.symlink(self.path("target"), state)
        self.fails(1, "batch", self.model, "--in", path, "--out", out, *FAST, "--restart", says="not written by this")
        self.fails(2, "batch", self.model, "--in", self.write("x.state", '{"prompt": "a"}'), "--out", self.path("x"), *FAST,
                   says="keeps its state")

    def test_an_input_that_grows_is_an_error(self):
        command, whole = self.start(60)
        out, path = self.path("out.jsonl"), self.path("in.jsonl")
        process = subprocess.Popen([SLLM, *command, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        end = time.time() + 30
        while not (os.path.exists(out) and os.path.getsize(out)) and time.time() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        with open(path, "a", encoding="utf-8") as file:
            file.write('{"prompt": "late"}\n')
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn(b"was changed while it was read", err)
        with open(out, "rb") as got, open(whole, "rb") as want:
            self.assertEqual(got.read(), want.read())

    def test_a_random_seed_is_kept(self):
        items = [{"prompt": "a"}, {"prompt": "b"}]
        path, out = self.input(items), self.path("out.jsonl")
        self.works("batch", self.model, "--in", path, "--out", out, "-m", "8", "--quiet")
        with open(out, "rb") as file:
            data = file.read()
        self.write("out.jsonl", data[:data.index(b"\n") + 1])
        self.works("batch", self.model, "--in", path, "--out", out, "-m", "8", "--quiet")
        with open(out, "rb") as file:
            self.assertEqual(file.read(), data)

    @unittest.skipIf(SANITIZED, "timing")
    def test_one_writer_at_a_time(self):
        command, _ = self.start(60)
        out = self.path("out.jsonl")
        with subprocess.Popen([SLLM, *command, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              env=environment()) as process:
            end = time.time() + 30
            while not (os.path.exists(out) and os.path.getsize(out)) and time.time() < end:
                time.sleep(0.002)
            process.send_signal(signal.SIGSTOP)
            try:
                self.fails(1, *command, "--out", out, "--quiet", says="another process")
            finally:
                process.kill()


if __name__ == "__main__":
    main()
