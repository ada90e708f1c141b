"""The rooms of the library stand in layers (docs/design.md): what a file includes and calls lies in its own or below."""
import glob
import os
import re

from common import SOURCE, Case, main

ROOMS = ["base", "tensor", "format", "text", "model", "infer", "eval", "quant", "train", "hub", "api"]
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
INCLUDE = re.compile(r'#include "(\w+)/')
DEFINITION = re.compile(r"^[a-z][^\n=;]*?\b(sllm_\w+)\([^;{]*\{", re.MULTILINE)


def files(room):
    for path in sorted(glob.glob(os.path.join(SOURCE, "src", room, "*.[ch]"))):
        with open(path, encoding="utf-8") as file:
            yield os.path.relpath(path, SOURCE), COMMENT.sub(" ", file.read())


class Layers(Case):
    def test_includes(self):
        for level, room in enumerate(ROOMS):
            for path, text in files(room):
                above = [name for name in INCLUDE.findall(text) if name not in ROOMS[:level + 1]]
                self.assertEqual(above, [], path)

    def test_calls_of_the_door(self):
        door = {name for _, text in files("api") for name in DEFINITION.findall(text)}
        self.assertIn("sllm_machine_info", door)
        self.assertGreater(len(door), 60)
        for room in ROOMS[:-1]:
            for path, text in files(room):
                self.assertEqual(sorted(door & set(re.findall(r"\b(sllm_\w+)\(", text))), [], path)


if __name__ == "__main__":
    main()
