#!/usr/bin/env python3
"""A model hub on 127.0.0.1 that misbehaves on demand (standard library only).

Prints two port numbers: the hub's and that of "another host" to which it redirects. A repository's name says what goes
wrong: t/drop closes the connection in the middle, t/stall stops sending, and so on (see FAULTS). Every fault ends after
a while so that no test can hang. GET /stats/NAME tells what was asked for.
"""
import hashlib
import http.server
import json
import sys
import threading
import time
import urllib.parse

TOKEN = "Bearer secret-token"


def content(name, size=300_000):
    """Bytes that depend on the name only; an index names the parts that NAMED says."""
    repository, _, file = name.partition("/")
    if file == INDEX:
        parts = {f"w{i}": part for i, part in enumerate(NAMED[repository])}
        return json.dumps({"weight_map": parts}).encode().ljust(size)
    out = bytearray()
    counter = 0
    while len(out) < size:
        out += hashlib.sha256(f"{name}:{counter}".encode()).digest()
        counter += 1
    return bytes(out[:size])


GGUF = "model.gguf"
INDEX = "model.safetensors.index.json"
CHECKPOINT = ["config.json", "tokenizer.json", "model-00001-of-00002.safetensors",
              "model-00002-of-00002.safetensors", INDEX, "pytorch_model.bin",
              "original/consolidated.00.pth", "README.md", "LICENSE"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "checkpoint": CHECKPOINT,
    "many": ["a-q4_k_m.gguf", "a-q8_0.gguf", "mmproj-f16.gguf"],
    "pickle": ["config.json", "pytorch_model.bin"],
    "adapter": ["adapter_config.json", "adapter_model.safetensors"],
    "split": [f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)] + ["README.md"],
    "missing-part": ["big-00001-of-00003.gguf", "big-00003-of-00003.gguf"],
    "missing-shard": ["config.json", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors",
                      "model-00003-of-00003.safetensors"],
    "index-lies": ["config.json", "model-00001-of-00001.safetensors", INDEX],
    "index-unsafe": ["config.json", "model-00001-of-00001.safetensors", INDEX],
    "evil": ["../../evil.gguf", "good.gguf"],
    "evil-zero": ["e\x00vil.gguf", "good.gguf"],
    "evil-shard": ["config.json", "model.safetensors", "a\\b/model-00001-of-00001.safetensors"],
    "evil-picture": ["../../evil.png", "good.gguf"],
    "odd": ["sub folder/q%4 é.gguf"],
}
# The parts that an index file names.
NAMED = {
    "checkpoint": [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)],
    "index-lies": ["model-00001-of-00001.safetensors", "other.safetensors"],
    "index-unsafe": ["model-00001-of-00001.safetensors", "../../evil.safetensors"],
}


class State:
    """What happened so far, per repository."""
    lock = threading.Lock()
    log = {}

    @classmethod
    def note(cls, name, **what):
        with cls.lock:
            cls.log.setdefault(name, []).append(what)
            return len(cls.log[name])


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    # ------------------------------------------------------------ routes

    def do_GET(self):
        path = self.path.split("?")[0]
        parts = path.strip("/").split("/")
        if parts[0] == "stats":
            self.answer_json(State.log.get(parts[1], []))
        elif parts[:2] == ["api", "models"]:
            self.list_files(parts[3])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.send_file_of(parts[1], "/".join(parts[4:]))
        else:
            self.answer_json({"error": "no such page"}, 404)

    def answer_json(self, value, code=200, headers=()):
        body = json.dumps(value).encode()
        self.send_response(code)
        for key, text in headers:
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def list_files(self, name):
        if name == "gated":
            return self.answer_json({}, 403, [("X-Error-Code", "GatedRepo")])
        if name == "absent":
            return self.answer_json({}, 404, [("X-Error-Code", "RepoNotFound")])
        if name == "private" and self.headers.get("Authorization") != TOKEN:
            return self.answer_json({}, 401)
        if name == "list-busy" and State.note(name, kind="list") < 3:
            return self.answer_json({}, 503)
        if name == "list-garbage":
            return self.answer_json([1, 2, {"siblings": "no"}])
        files = FILES.get(name, [GGUF])
        siblings = []
        for file in files:
            data = content(f"{name}/{file}")
            sibling = {"rfilename": file, "size": len(data)}
            if file.endswith((".gguf", ".safetensors", ".bin", ".pth")):
                sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            if name == "huge":
                sibling["size"] = sibling["lfs"]["size"] = 10**15
            if name in ("unsized", "unsized-drop", "shared-slow"):
                sibling = {"rfilename": file}
            siblings.append(sibling)
        return self.answer_json({"id": f"t/{name}", "sha": COMMIT, "siblings": siblings})

    # ------------------------------------------------------------ files

    def send_file_of(self, name, file):
        file = urllib.parse.unquote(file)
        attempt = State.note(name, kind="file", file=file, range=self.headers.get("Range"),
                             if_range=self.headers.get("If-Range"), authorised="Authorization" in self.headers,
                             port=self.server.server_port)
        data = content(f"{name}/{file}")
        fault = FAULTS.get(name)
        if fault:
            fault(self, data, attempt)
        else:
            self.send_data(data)

    def send_data(self, data, etag='"v1"', ranges=True, stop=None, pause=0.0, length=None, extra=()):
        """The file, or the rest of it when that is asked for. stop: bytes after which the connection is closed or, with
        a pause, sleeps that long first."""
        start, asked = 0, self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked and ranges and (condition is None or condition == etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", etag)
        for key, text in extra:
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        try:
            self.wfile.write(body[:length if stop is None else stop])
            self.wfile.flush()
            if stop is not None:
                time.sleep(pause)
                self.close_connection = True
                self.connection.close()
        except OSError:
            self.close_connection = True

    def redirect(self, where, extra=()):
        self.send_response(302)
        self.send_header("Location", where)
        for key, text in extra:
            self.send_header(key, text)
        self.send_header("Content-Length", "0")
        self.end_headers()


def first(fault, then):
    """The fault at the first attempt, good manners afterwards."""
    return lambda hub, data, attempt: fault(hub, data) if attempt == 1 else then(hub, data)


def good(hub, data):
    hub.send_data(data)


def drop(hub, data):
    hub.send_data(data, stop=100_000)


def status(hub, code):
    hub.answer_json({"error": "busy"}, code)


def busy(hub, data, attempt):
    if attempt < 3:
        status(hub, (503, 429)[attempt - 1])
    else:
        good(hub, data)


def redirect(hub, data, attempt):
    if hub.server.server_port == hub.server.other_port:  # the token must not arrive here
        hub.send_data(data if "Authorization" not in hub.headers else b"the token was sent to another host")
    else:
        hub.redirect(f"http://localhost:{hub.server.other_port}{hub.path}",
                     [("X-Linked-Size", str(len(data))), ("X-Linked-ETag", f'"{hashlib.sha256(data).hexdigest()}"')])


def private(hub, data, attempt):
    if hub.headers.get("Authorization") == TOKEN:
        redirect(hub, data, attempt)
    elif hub.server.server_port == hub.server.other_port:
        hub.send_data(data)
    else:
        status(hub, 401)


def huge_headers(hub, data, attempt):
    hub.send_response(200)
    for i in range(20_000):
        hub.send_header(f"X-Junk-{i}", "x" * 50)
    try:
        hub.end_headers()
    except OSError:
        hub.close_connection = True


def slow(hub, data, attempt):
    hub.send_response(200)
    hub.send_header("Content-Length", str(len(data)))
    hub.send_header("ETag", '"v1"')
    hub.end_headers()
    try:
        for i in range(0, len(data), 10_000):
            hub.wfile.write(data[i:i + 10_000])
            time.sleep(0.05)
    except OSError:
        hub.close_connection = True


def other_version(data):
    return bytes(255 - b for b in data)


FAULTS = {
    "drop": first(drop, good),
    "always-drop": lambda hub, data, attempt: hub.send_data(data, stop=1000) if attempt > 1 else drop(hub, data),
    "stall": first(lambda hub, data: hub.send_data(data, stop=50_000, pause=6), good),
    "truncate": first(lambda hub, data: hub.send_data(data, length=1000), good),
    "endless-truncate": lambda hub, data, attempt: hub.send_data(data[:1000], ranges=False, length=1000),
    "lie": lambda hub, data, attempt: hub.send_data(other_version(data)),
    "too-much": lambda hub, data, attempt: hub.send_data(data + b"more"),
    "no-range": first(drop, lambda hub, data: hub.send_data(data, ranges=False)),
    "etag": first(lambda hub, data: hub.send_data(other_version(data), etag='"v0"', stop=100_000), good),
    # a careless server: honours Range although If-Range names another version
    "etag-206": first(lambda hub, data: hub.send_data(other_version(data), etag='"v0"', stop=100_000),
                      lambda hub, data: careless(hub, data) if hub.headers.get("Range") else good(hub, data)),
    # the same without an ETag: only the checksum can tell
    "mixed": first(lambda hub, data: hub.send_data(other_version(data), etag="", stop=100_000),
                   lambda hub, data: hub.send_data(data, etag="")),
    "weak-etag": first(lambda hub, data: hub.send_data(data, etag='W/"v1"', stop=100_000),
                       lambda hub, data: hub.send_data(data, etag='W/"v1"')),
    "wrong-range": first(drop, lambda hub, data: wrong_range(hub, data)),
    "unsized-drop": first(drop, good),
    "busy": busy,
    "broken": lambda hub, data, attempt: status(hub, 500),
    "redirect": redirect,
    "private": private,
    "loop": lambda hub, data, attempt: hub.redirect(hub.path),
    "to-ftp": lambda hub, data, attempt: hub.redirect("ftp://127.0.0.1/x"),
    "to-file": lambda hub, data, attempt: hub.redirect("file:///etc/passwd"),
    "huge-headers": huge_headers,
    "slow": slow,
    "shared-slow": slow,
    "trampled": slow,
}


def careless(hub, data):
    start = int(hub.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    hub.send_response(206)
    hub.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    hub.send_header("ETag", '"v1"')
    hub.send_header("Content-Length", str(len(data) - start))
    hub.end_headers()
    try:
        hub.wfile.write(data[start:])
    except OSError:
        hub.close_connection = True


def wrong_range(hub, data):
    """Answers a request for the rest with the file's start, and calls it a part."""
    if not hub.headers.get("Range"):
        return hub.send_data(data)
    hub.send_response(206)
    hub.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
    hub.send_header("ETag", '"v1"')
    hub.send_header("Content-Length", str(len(data)))
    hub.end_headers()
    try:
        hub.wfile.write(data)
    except OSError:
        hub.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that goes away in the middle is what many tests are about."""


def main():
    servers = [Server(("127.0.0.1", 0), Hub) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        server.other_port = servers[1].server_port
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()
    threading.Thread(target=servers[0].serve_forever, daemon=True).start()
    print(f"{servers[0].server_port} {servers[1].server_port}", flush=True)
    sys.stdin.read()  # ends with the test that started it


if __name__ == "__main__":
    main()
