"""The files that are measured: real ones by package, and random weights with the dimensions and types people use."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.path.join(ROOT, "..", "shared", "peers")
REAL = {"smollm2": "smollm2-135m-instruct-q4_1.gguf", "gemma3": "gemma3-270m-q4_k_m.gguf"}
DEFAULT = ["smollm2", "gemma3", "1b", "3b"]
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "f16"]
F16_BYTES = {"tiny": "0.2", "1b": "2.2", "3b": "5.9", "7b": "14"}  # GB on disk while a file is made


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def expand(names):
    """Names of --model: smollm2, gemma3, 1b, 3b-q4_0 ...; "types" is the small random model in every type."""
    out = []
    for name in names:
        out += [f"tiny-{t}" for t in TYPES] if name == "types" else [name]
    for name in out:
        if name not in REAL and not os.path.exists(name) and not re.fullmatch(r"(tiny|1b|3b|7b)(-\w+)?", name):
            sys.exit(f"bench: unknown model {name}: {', '.join(REAL)}, tiny|1b|3b|7b[-TYPE], types, or a GGUF file")
    return out


def python_with_gguf(folder):
    """An environment with the two packages that make-random.py needs."""
    python = os.path.join(folder, "venv", "bin", "python3")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", os.path.join(folder, "venv")], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "gguf", "numpy"], check=True)
    return python


def random_f16(folder, size):
    path = os.path.join(folder, f"random-{size}-f16.gguf")
    if not os.path.exists(path):
        say(f"making {path} ({F16_BYTES[size]} GB)")
        make = os.path.join(SHARED, "make-random.py")
        vocabulary = fetch(folder, "smollm2", None)
        subprocess.run([python_with_gguf(folder), make, vocabulary, path + ".part", size], check=True, stdout=subprocess.DEVNULL)
        os.rename(path + ".part", path)
    return path


def quantised(folder, name, peers):
    """Random weights in a type, quantised by the peer: mixes (q4_k_m) as they are, single types pure."""
    size, kind = (name.split("-", 1) + ["q4_k_m"])[:2]
    path = os.path.join(folder, f"random-{size}-{kind}.gguf")
    if os.path.exists(path):
        return path
    source = random_f16(folder, size)
    if kind == "f16":
        return source
    pure = [] if kind.endswith(("_m", "_s")) else ["--pure"]
    tool = os.path.join(peers, "llama.cpp", "bin", "llama-quantize")
    if not os.path.exists(tool):
        sys.exit(f"bench: {path} is made by the peer's llama-quantize, which is not in {peers}")
    say(f"making {path}")
    target = {"q4_k": "q4_k_s", "q5_k": "q5_k_s", "q3_k": "q3_k_s"}.get(kind, kind)
    done = subprocess.run([tool, *pure, source, path + ".part", target], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: llama-quantize {kind}: {done.stderr[-500:]}")
    os.rename(path + ".part", path)
    return path


def fetch(folder, name, peers):
    """The path of a model's file, fetched or made when it is not there."""
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(name):
        return name
    if name not in REAL:
        return quantised(folder, name, peers)
    path = os.path.join(folder, REAL[name])
    if not os.path.exists(path):
        say(f"fetching {path}")
        subprocess.run(["bash", os.path.join(SHARED, "fetch-models.sh"), name], check=True, env=dict(os.environ, DIR=folder),
                       stdout=subprocess.DEVNULL)
    return path
