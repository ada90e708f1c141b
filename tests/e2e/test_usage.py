"""Options, help, and errors that need no model."""
import os
import re

from common import SOURCE, Case, environment, main, sllm


class Usage(Case):
    def test_no_command(self):
        done = sllm()
        self.assertEqual(done.status, 2)
        self.assertIn("usage: sllm COMMAND", done.err)

    def test_help_and_version(self):
        self.assertIn("chat", self.works("--help").out)
        self.assertRegex(self.works("--version").out, r"^sllm \d+\.\d+\.\d+\n$")
        self.assertEqual(self.works("help", "run").out, self.works("run", "--help").out)
        self.fails(2, "help", "nonsense", says="no command 'nonsense'")

    def test_help_lists_every_option_within_the_width(self):
        text = self.works("help", "run").out
        for option in ("--temperature", "--top-k", "--logit-bias", "--dry-allowed-length", "--template-arg", "--reasoning"):
            self.assertIn(option, text)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 80)
        wide = self.works("help", "run", env=environment(COLUMNS="120")).out
        self.assertLess(len(wide.splitlines()), len(text.splitlines()))

    def test_every_command_has_help(self):
        names = re.findall(r"^  ([a-z]+) ", self.works("--help").out, re.M)
        for name in ("run", "chat", "models", "pull", "list", "rm", "verify", "doctor", "show", "plan", "tokenize",
                     "detokenize", "template", "logits", "inspect", "compare", "help"):
            self.assertIn(name, names)
        for name in names:
            text = self.works("help", name).out
            self.assertTrue(text.startswith(f"usage: sllm {name} [options]"), text)
            self.assertNotRegex(text, r"(?m) $")

    def test_reference_page_is_current(self):
        with open(os.path.join(SOURCE, "docs", "cli.md"), encoding="utf-8") as file:
            self.assertEqual(file.read(), self.works("help", "--markdown").out, "run: sllm help --markdown > docs/cli.md")

    def test_manual_page(self):
        self.assertTrue(self.works("help", "--man").out.startswith(".TH SLLM 1"))

    def test_unknown_command_and_option(self):
        self.fails(2, "runn", says="did you mean `sllm run`?")
        self.fails(2, "xyzzy", says="sllm --help")
        self.fails(2, "run", "m", "p", "--temprature", "1", says="did you mean --temperature?")
        self.fails(2, "run", "m", "p", "--temp", "1", says="did you mean --temperature?")
        self.fails(2, "run", "m", "p", "--qqqqqq", says="`sllm help run`")
        self.fails(2, "run", "m", "-Q", says="unknown option -Q")

    def test_values_out_of_range(self):
        for option, value, says in (
                ("--top-k", "-3", "a whole number from 0"), ("--top-k", "1.5", "a whole number"),
                ("--top-k", "", "--top-k ''"), ("--temperature", "nan", "a number from 0"),
                ("--temperature", "inf", "a number"), ("--temperature", "-0.1", "a number from 0"),
                ("--top-p", "0", "above 0 and at most 1"), ("--top-p", "1.01", "above 0 and at most 1"),
                ("--min-p", "1", "at least 0 and below 1"), ("--typical-p", "0", "above 0"),
                ("--repetition-penalty", "0", "above 0"), ("--presence-penalty", "2.5", "from -2 to 2"),
                ("--penalty-last-n", "-2", "from -1"), ("--dry-base", "0.5", "from 1"),
                ("--max-new-tokens", "99999999999999999999", "from 0 to 2147483647"), ("--seed", "-1", "from 0 to 184467"),
                ("--seed", "18446744073709551616", "from 0"), ("--threads", "10000", "from 1 to 512"),
                ("--n", "0", "from 1"), ("--logprobs", "101", "to 100"), ("--reasoning", "perhaps", "show, hide, off"),
                ("--overflow", "drop", "error, truncate, shift"), ("--ctx", "-1", "from 0")):
            with self.subTest(option=option, value=value):
                self.fails(2, "run", "m", "p", option, value, says=[f"--{option[2:]}", says])
                if value:
                    self.fails(2, "run", "m", "p", f"{option}={value}", says=says)

    def test_missing_and_superfluous(self):
        self.fails(2, "run", says="too few arguments")
        self.fails(2, "run", "m", "a", "b", says="unexpected argument 'b'")
        self.fails(2, "run", "m", "p", "--top-k", says="--top-k needs a value")
        self.fails(2, "run", "m", "p", "--greedy=yes", says="takes no value")
        self.fails(2, "chat", "m", "x", says="unexpected argument")

    def test_combinations(self):
        self.fails(2, "run", "m", "p", "--raw", "--system", "s", says="--system has no place with --raw")
        self.fails(2, "run", "m", "p", "--set", "a=b", says="--prompt-file")
        self.fails(2, "run", "m", "p", "--choices", "a,,b", says="a choice is empty")
        self.fails(2, "run", "m", "p", "--choices", "a,a", says="there twice")
        self.fails(2, "run", "m", says="no prompt")
        self.fails(2, "template", "--dir", "d", says="--jsonl")
        self.fails(2, "tokenize", "m", "text", "--jsonl", says="standard input")
        self.fails(2, "logits", "m", says="--ids")

    def test_models_that_are_not_there(self):
        self.fails(1, "run", "/nonexistent/model.gguf", "p", says="/nonexistent/model.gguf")
        self.fails(1, "chat", "/nonexistent/model.gguf", says="/nonexistent/model.gguf")
        self.fails(1, "inspect", "/nonexistent/model.gguf", says="/nonexistent/model.gguf")

    def test_a_name_is_not_downloaded_silently(self):
        self.fails(1, "run", "smollm2:135m", "p", says="sllm pull smollm2:135m")
        self.assertFalse(os.path.exists(os.path.join(environment()["XDG_CACHE_HOME"], "sllm", "models", "smollm2:135m")))

    def test_prompts_that_are_not_utf8(self):
        done = self.fails(1, "run", "m", b"ab\xff", says=["0xff", "offset 2", "UTF-8"])
        self.assertNotIn("\ufffd", done.err)
        self.fails(1, "run", "m", stdin=b"\xc3(", says=["0xc3", "offset 0"])

    def test_no_home(self):
        env = environment()
        del env["HOME"], env["XDG_CACHE_HOME"]
        self.fails(1, "run", "smollm2:135m", "p", env=env, says="XDG_CACHE_HOME")

    def test_kernels_that_do_not_exist(self):
        self.fails(2, "run", "m", "p", env=environment(SLLM_CPU="mmx"), says="SLLM_CPU=mmx")

    def test_full_disk_and_closed_pipe(self):
        with open("/dev/full", "wb") as full:
            done = sllm("help", "--markdown", stdout=full)
        self.assertEqual(done.status, 1)
        self.assertEqual(done.err, "sllm: help: standard output: No space left on device\n")
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            done = sllm("help", "--markdown", stdout=closed)
        self.assertEqual((done.status, done.err), (1, ""))

    def test_control_characters_stay_out_of_messages(self):
        done = self.fails(2, "run", "m", "p", "--reasoning", "\x1b[31m\n", says="\\x1b[31m\\n")
        self.assertNotIn("\x1b", done.err)


class PromptFiles(Case):
    def fails_with(self, says, prompt, *arguments, status=2):
        self.fails(status, "run", "m", "--prompt-file", self.write("prompt.txt", prompt), *arguments, says=says)

    def test_slots(self):
        self.fails_with(["line 2", "{{name}}", "--set name=VALUE"], "Hello\n{{ name }}\n")
        self.fails_with("has no slot {{other}}", "Hello {{name}}", "--set", "name=x", "--set", "other=y")
        self.fails_with(["line 1", "{{key}}"], "Hello {{na me}}", status=1)
        self.fails_with("must be KEY=VALUE", "Hello {{name}}", "--set", "name")
        self.fails(1, "run", "m", "--prompt-file", self.path("absent"), says="absent")

    def test_examples(self):
        for line, says in (('{"input": "a"}', '"output"'), ('{"output": "a"}', '"input" and "set"'),
                           ('{"input": 1, "output": "a"}', '"input" must be a string'), ("{", "line 1"),
                           ('{"set": {}, "output": "a"}', "--prompt-file")):
            with self.subTest(line=line):
                self.fails(1, "run", "m", "p", "--examples", self.write("e.jsonl", line + "\n"), says=["e.jsonl", says])


if __name__ == "__main__":
    main()
