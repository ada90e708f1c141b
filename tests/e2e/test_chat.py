"""sllm chat through a pipe and through a terminal."""
import json
import os
import pty
import select
import signal
import stat
import subprocess
import termios
import time

from common import SLLM, Case, environment, interrupt_when, main, sllm, tiny_model

GREEDY = ("--greedy", "--max-new-tokens", "6")
# The tiny model forced to one token, for answers that only an interrupt ends.
ENDLESS = ("--logit-bias", "40=1000", "--max-new-tokens", "1000000", "--ctx", "128", "--overflow", "shift")


class Pipe(Case):
    def chat(self, lines, *options, status=0):
        done = sllm("chat", tiny_model(), *GREEDY, *options, stdin=lines)
        self.assertEqual(done.status, status, done.err)
        return done

    def saved(self):
        with open(self.path("chat.json"), encoding="utf-8") as file:
            return json.load(file)["messages"]

    def test_turns_undo_and_save(self):
        self.chat(f"one\ntwo\n/undo\nthree\n/save {self.path('chat.json')}\n/quit\nnever\n")
        messages = self.saved()
        self.assertEqual([message["role"] for message in messages], ["user", "assistant"] * 2)
        self.assertEqual([message["content"] for message in messages[::2]], ["one", "three"])

    def test_answers_are_those_of_the_whole_conversation(self):
        done = self.chat(f"one\ntwo\n/save {self.path('chat.json')}\n")
        messages = self.saved()
        self.assertEqual(done.out.rstrip("\n"), "\n".join(message["content"] for message in messages[1::2]).rstrip("\n"))
        self.write("again.json", json.dumps({"messages": messages[:2]}))
        again = self.chat(f"two\n/save! {self.path('chat.json')}\n", "--load", self.path("again.json"))
        self.assertEqual(self.saved(), messages, again.err)

    def test_prefix_is_reused(self):
        done = self.chat("one\ntwo\n/stats\n")
        reused = int(done.out.split("(")[1].split(" reused")[0])
        self.assertGreater(reused, 5)

    def test_system_and_regen(self):
        self.chat(f"/system be brief\none\n/regen\n/save {self.path('chat.json')}\n")
        self.assertEqual([message["role"] for message in self.saved()], ["system", "user", "assistant"])
        self.chat(f"one\n/system x\n/system\n/save! {self.path('chat.json')}\n", "--system", "first")
        self.assertEqual([message["role"] for message in self.saved()], ["user", "assistant"])

    def test_regen_draws_anew_and_seeds_reproduce(self):
        script = f"one\n/save! {self.path('a.json')}\n/regen\n/save! {self.path('chat.json')}\n"
        options = ("--temperature", "2", "--top-p", "1", "--seed", "3", "--max-new-tokens", "12")
        done = sllm("chat", tiny_model(), *options, stdin=script)
        with open(self.path("a.json"), encoding="utf-8") as file:
            first = json.load(file)["messages"]
        self.assertNotEqual(first, self.saved())
        self.assertEqual(sllm("chat", tiny_model(), *options, stdin=script).raw, done.raw)

    def test_lines_of_several_lines(self):
        self.chat(f'a\\\nb\n"""c\nd"""\n"""\ne\n\nf\n"""\n//g\n/save {self.path("chat.json")}\n', "--ctx", "512")
        self.assertEqual([message["content"] for message in self.saved()[::2]], ["a\nb", "c\nd", "e\n\nf\n", "/g"])

    def test_wrong_commands(self):
        for line, says in (("/sytem x", "/system"), ("/nonsense", "/help"), ("/undo", "no turn"), ("/regen", "no answer"),
                           ("/set temperature nan", "from 0 to 100"), ("/set temperature 0x1", "0x1"),
                           ("/set nonsense 1", "--nonsense"),
                           ("/set ctx 12", "--ctx"), ("/set", "KEY VALUE"), ("/save", "FILE"),
                           ("/load /nonexistent/x.json", "/nonexistent/x.json"), ("/set stop", "KEY VALUE"),
                           ("/system x\n/save /nonexistent/x.json", "/nonexistent/x.json")):
            with self.subTest(line=line):
                done = self.chat(line + "\n", status=1)
                self.assertEqual(done.err.count("\n"), 1, done.err)
                self.assertIn(says, done.err)

    def test_save_keeps_what_it_does_not_know(self):
        file = self.write("chat.json", "mine")
        done = self.chat(f"/save {file}\n", status=1)
        self.assertIn("no message", done.err)
        done = self.chat(f"one\n/save {file}\n", status=1)
        self.assertIn(f"/save! {file} overwrites", done.err)
        with open(file, encoding="utf-8") as kept:
            self.assertEqual(kept.read(), "mine")
        done = self.chat(f"one\n/save! {file}\ntwo\n/save {file}\n")
        self.assertIn(f"saved 2 messages to {file}\n", done.err)
        self.assertIn(f"saved 4 messages to {file}\n", done.err)
        self.chat(f"/load {file}\n/save {file}\n")
        self.chat(f"/save {file}\n", "--load", file)
        self.assertEqual(len(self.saved()), 4)
        link = self.path("link")
        os.symlink("chat.json", link)
        self.chat(f"one\n/save! {link}\n")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(len(self.saved()), 2)

    def test_load_names_the_place(self):
        good = {"role": "user", "content": "a"}
        for content, says in (('{"messages": 1}', "/messages"), ([good, 5], "/1"), ([{"role": "bot", "content": "a"}], "/0/role"),
                              ({"messages": [good, {"role": "user"}]}, "/messages/1/content"),
                              ([{"role": "user", "content": 5}], "/0/content"),
                              ([{"role": "user", "content": [{"text": "a"}]}], "/0/content/0/type"), ('[{"role"', "line 1")):
            with self.subTest(content=content):
                text = content if isinstance(content, str) else json.dumps(content)
                done = self.chat(f"/load {self.write('bad.json', text)}\n", status=1)
                self.assertIn(says, done.err)
        self.chat(f"/load {self.write('good.json', json.dumps([good]))}\n")

    def test_full_context_names_the_ways_out(self):
        done = self.chat("word " * 100 + "\nhi\n", "--ctx", "64", status=1)
        self.assertEqual(done.err.count("\n"), 1, done.err)
        self.assertIn("/undo", done.err)
        self.assertTrue(done.out.strip(), "the conversation went on")

    def test_interrupt_ends_the_answer_only(self):
        with subprocess.Popen([SLLM, "chat", tiny_model(), *ENDLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=environment()) as process:
            process.stdin.write(b"one\n")
            process.stdin.flush()
            interrupt_when(process, lambda text: len(text) > 10)
            process.stdin.write(f"/save {self.path('chat.json')}\n/quit\n".encode())
            process.stdin.close()
            self.assertEqual(process.wait(timeout=60), 0, process.stderr.read())
        self.assertEqual([message["role"] for message in self.saved()], ["user", "assistant"])

    def test_full_disk_ends_it(self):
        with open("/dev/full", "wb") as full:
            done = sllm("chat", tiny_model(), *GREEDY, stdin="one\ntwo\n", stdout=full)
        self.assertEqual((done.status, done.err), (1, "sllm: chat: standard output: No space left on device\n"))


class Terminal(Case):
    def setUp(self):
        super().setUp()
        model, env = tiny_model(), environment(TERM="xterm", XDG_CACHE_HOME=self.path("cache"))
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execve(SLLM, [SLLM, "chat", model, *ENDLESS], env)
            finally:
                os._exit(127)
        self.addCleanup(os.close, self.terminal)

    def read_until(self, part, timeout=30):
        text, end = b"", time.time() + timeout
        while part not in text and time.time() < end:
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    text += os.read(self.terminal, 4096)
                except OSError:
                    break
        self.assertIn(part, text)
        return text

    def exit_status(self, key):
        """Types `key`, which is to end the program, and gives its exit status. The prompt is there a moment before the
        terminal is switched to raw mode, and a Ctrl-D in between is lost: hence the wait."""
        end = time.time() + 30
        while termios.tcgetattr(self.terminal)[3] & termios.ICANON and time.time() < end:
            time.sleep(0.01)
        self.type(key)
        while time.time() < end:
            if not select.select([self.terminal], [], [], 2)[0]:
                continue
            try:
                if not os.read(self.terminal, 4096):
                    break
            except OSError:
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def type(self, text):
        os.write(self.terminal, text)

    def test_interrupts_and_history(self):
        self.read_until(b"> ")
        self.type(b"hello\r")
        self.read_until(b"\n")
        time.sleep(0.3)
        self.type(b"\x03")                    # stops the answer ...
        self.read_until(b"\n> ")
        self.type(b"half a line")
        self.read_until(b"half a line")
        self.type(b"\x03")                    # ... drops the line ...
        self.read_until(b"\n> ")
        self.type(b"/stats\r")
        self.assertIn(b"1 answers, 2 messages", self.read_until(b"tokens/s\r\n> "))
        self.type(b"\x03")
        self.read_until(b"> ")
        self.assertEqual(self.exit_status(b"\x03"), 0)  # ... and twice on an empty line leaves
        history = self.path("cache/sllm/chat_history")
        with open(history, encoding="utf-8") as file:
            self.assertIn("hello", file.read())
        self.assertEqual(stat.S_IMODE(os.stat(history).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(history)).st_mode), 0o700)

    def test_control_d_leaves(self):
        self.read_until(b"> ")
        self.assertEqual(self.exit_status(b"\x04"), 0)


if __name__ == "__main__":
    main()
