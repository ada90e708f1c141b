"""What the end-to-end tests share: running the program, finding models, reading safetensors.

Every run gets a cache and a home of its own, so that nothing on the machine is touched or depended on.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SLLM = os.environ["SLLM"]
SOURCE = os.environ["SLLM_SOURCE_DIR"]
BUILD = os.environ["SLLM_BUILD_DIR"]
SANITIZED = bool(os.environ.get("SLLM_SANITIZE"))
GOLDEN = os.path.join(SOURCE, "..", "shared", "golden")
DATA = os.path.join(SOURCE, "tests", "golden", "data")
HOME = tempfile.TemporaryDirectory(prefix="sllm-e2e-")


def environment(**changes):
    env = dict(os.environ, HOME=HOME.name, XDG_CACHE_HOME=os.path.join(HOME.name, "cache"), COLUMNS="80")
    env.update(changes)
    return env


class Result:
    """Exit status, and both outputs as text; `raw` is standard output as bytes."""

    def __init__(self, status, out, err):
        self.status, self.raw = status, out
        self.out, self.err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.raw)


def sllm(*arguments, stdin=None, env=None, stdout=subprocess.PIPE, timeout=300):
    """Runs the program. stdin: None (/dev/null), bytes or text."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    feed = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run([SLLM, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=env or environment(),
                          timeout=timeout, check=False, **feed)
    return Result(done.returncode, done.stdout or b"", done.stderr)


def first_existing(*paths):
    return next((path for path in paths if os.path.exists(path)), None)


def tiny_model(name="llama32", file="llama32-Q8_0.gguf"):
    """A random-weight model of a few hundred kilobytes, with tokenizer and chat template."""
    path = first_existing(os.path.join(DATA, "quant", "gguf", name, file), os.path.join(GOLDEN, "quant", "gguf", name, file))
    if not path:
        raise unittest.SkipTest(f"no {file} in the golden data")
    return path


def golden(*parts):
    path = first_existing(os.path.join(DATA, *parts), os.path.join(GOLDEN, *parts))
    if not path:
        raise unittest.SkipTest(f"no golden {'/'.join(parts)}")
    return path


def shared_golden(*parts):
    """Data of others, which are never in the repository: the folder in the repository may hold files of the same names."""
    path = os.path.join(GOLDEN, *parts)
    if not os.path.exists(path):
        raise unittest.SkipTest(f"no shared golden {'/'.join(parts)}")
    return path


def real_model():
    """The default model, when the user's own cache holds it."""
    found = sllm("show", "smollm2:135m", "--json", env=dict(os.environ))
    if found.status:
        raise unittest.SkipTest("smollm2:135m is not in the model cache; `sllm pull smollm2:135m` gets it")
    return "smollm2:135m"


def real_environment():
    return dict(os.environ, COLUMNS="80")


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        body = file.read()
    return {name: (info["dtype"], info["shape"], body[slice(*info["data_offsets"])])
            for name, info in header.items() if name != "__metadata__"}


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sllm-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return self.path(name)

    def fails(self, status, *arguments, says, **options):
        """The program ends with this status and one line that holds each of `says`."""
        done = sllm(*arguments, **options)
        self.assertEqual(done.status, status, done.err)
        self.assertEqual(done.err.count("\n"), 1, done.err)
        self.assertTrue(done.err.startswith("sllm: "), done.err)
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, done.err)
        return done

    def works(self, *arguments, **options):
        done = sllm(*arguments, **options)
        self.assertEqual(done.status, 0, done.err)
        return done


def interrupt_when(process, ready, timeout=60):
    """Sends SIGINT as soon as `ready` (a function of what standard output gave so far) is true; gives the output."""
    out, end = b"", time.time() + timeout
    os.set_blocking(process.stdout.fileno(), False)
    while not ready(out) and time.time() < end:
        chunk = process.stdout.read(4096)
        if chunk:
            out += chunk
        elif process.poll() is not None:
            break
        else:
            time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    os.set_blocking(process.stdout.fileno(), True)
    return out


def main():
    """unittest.main, with exit status 77 (skipped, for ctest) when no test could run."""
    result = unittest.main(exit=False, verbosity=1).result
    ran = result.testsRun - len(result.skipped)
    for _, reason in result.skipped:
        print("skipped:", reason, file=sys.stderr)
    sys.exit(1 if not result.wasSuccessful() else 0 if ran else 77)
