"""--speculate and --draft: the same text with and without, and errors that say what does not go together."""
import unittest

from common import Case, main, sllm, tiny_model


class Speculation(Case):
    def setUp(self):
        super().setUp()
        self.model = tiny_model()
        self.prompt = "one two three four one two three four one two three four one two three"

    def answer(self, *options):
        return self.works("run", self.model, self.prompt, "--raw", "--json", "--seed", "3", "-m", "60", "--ignore-end",
                          *options).json()

    def test_the_answer_is_the_same(self):
        for sampling in (("-g",), ("-t", "0.3"), ("-t", "1", "--top-k", "4"), ("-t", "2", "--repetition-penalty", "1.2")):
            plain = self.answer(*sampling)
            self.assertNotIn("speculation", plain)
            for way in (("--speculate", "lookup"), ("--draft", self.model),
                        ("--draft", tiny_model(file="llama32-Q4_K_M.gguf"))):
                guessed = self.answer(*sampling, *way)
                self.assertEqual(guessed["ids"], plain["ids"], (sampling, way))
                self.assertEqual(guessed["text"], plain["text"])
                counts = guessed["speculation"]
                computed = guessed["prompt_tokens"] - guessed["reused_tokens"] + 60 - 1
                self.assertEqual(counts["rows"], computed + counts["proposed"] - counts["accepted"])
                if "lookup" in way:
                    self.assertEqual(counts["draft_rows"], 0)
                    if "-g" in sampling:
                        self.assertGreater(counts["proposed"], 0)
                else: # the first rows show what the others would take
                    self.assertGreater(counts["draft_rows"], 8)

    def test_chat(self):
        lines = "hello hello hello hello\nhello hello hello hello\n/stats\n"
        plain = self.works("chat", self.model, "-m", "20", "--seed", "1", stdin=lines)
        guessed = self.works("chat", self.model, "-m", "20", "--seed", "1", "--speculate", "lookup", stdin=lines)
        drafted = self.works("chat", self.model, "-m", "20", "--seed", "1", "--draft", self.model, stdin=lines)
        first = plain.out.split("answers,")[0]
        self.assertEqual(guessed.out.split("answers,")[0], first)
        self.assertEqual(drafted.out.split("answers,")[0], first)
        done = sllm("chat", self.model, "-m", "4", stdin="/set speculate lookup\nhi\n/set draft x\n")
        self.assertIn("/set draft: takes effect at the start only", done.err)

    def test_what_does_not_go_together(self):
        self.fails(2, "run", self.model, "x", "--speculate", "lookup", "--draft", self.model, says="one way to guess")
        self.fails(2, "run", self.model, "x", "--speculate", "guess", says="off, lookup")
        other = tiny_model("qwen2-moe", "qwen2-moe-Q8_0.gguf")
        self.fails(2, "run", self.model, "x", "--draft", other, says=["another vocabulary", "token"])
        self.fails(1, "run", self.model, "x", "--draft", self.path("none.gguf"), says="none.gguf")

    def test_choices_stand_aside(self):
        done = self.answer("--choices", "yes,no", "--speculate", "lookup")
        self.assertEqual(done["speculation"]["proposed"], 0)
        self.assertIn(done["text"], ("yes", "no"))


if __name__ == "__main__":
    main()
