"""Starts `mp2 serve` for the HTTP tests and talks to it, with the standard library only.

    server        one server for a whole test file
    fresh_server  one of its own for a test
    make_server   a function: settings by name -> a running server
    tenant        a new tenant on `server` with a key of every scope but admin

A server writes to a temporary directory, listens on a free port, is ended by its process id alone and
must end with exit code 0 after SIGTERM, sanitizer reports included. MP2_BIN names the executable.
"""
import http.client
import itertools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MP2_BIN", TOP / "build" / "mp2"))
SLOW = os.environ.get("MP2_SLOW_BUILD") == "1"  # a sanitizer build: allow more time
PATIENCE = 60 if SLOW else 20
TEST_SECONDS = 300


def model_dir():
    """The small model of the tests, or the one beside the project; a bench names its own in MP2_TEST_MODEL."""
    if "MP2_TEST_MODEL" in os.environ:
        return os.environ["MP2_TEST_MODEL"]
    for place in (TOP / "tests/models/boot", TOP / "../shared/boot"):
        if (place / "config.json").exists():
            return str(place.resolve())
    return None


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Server:
    """A running `mp2 serve`; start() again after kill() or stop() keeps database and port."""

    def __init__(self, directory, **settings):
        self.directory = pathlib.Path(directory)
        self.db = self.directory / "db" / "mp2.db"
        self.settings = {"listen": "127.0.0.1:0", **settings}
        self.process = None
        self.admin_key = None
        self.out = ""
        self.start()

    def command(self):
        words = [str(BIN), "serve", "--db", str(self.db)]
        for name, value in self.settings.items():
            words += ["--" + name.replace("_", "-"), str(value)]
        return words

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
        env.update(getattr(self, "environment", {}))
        if model_dir():
            env["MP2_MODEL"] = model_dir()
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log,
                                            env=env, cwd=self.directory)
        self.out = self._read_banner()
        key = re.search(r"^admin key +(mp2_\S+)", self.out, re.M)
        if key:
            self.admin_key = key.group(1)
        self.url = re.search(r"^listening +(https?://\S+)", self.out, re.M).group(1)
        parts = urllib.parse.urlsplit(self.url)
        self.host, self.port = parts.hostname, parts.port
        self.settings["listen"] = f"{self.host}:{self.port}"

    def _read_banner(self):
        text, end = b"", time.monotonic() + PATIENCE
        while b"\nlistening " not in text or not text.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not piece:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not start: {text!r}\n{self.log()}")
            text += piece
        return text.decode("utf-8")

    def log(self):
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        """Waits for the end of a server that was told to stop; returns the exit code."""
        try:
            code = self.process.wait(PATIENCE + 40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server did not stop\n" + self.log()[-4000:]) from None
        self.process.stdout.close()
        return code

    def connect(self, timeout=PATIENCE):
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def request(self, method, path, body=None, key="admin", headers=None, timeout=PATIENCE):
        """body: bytes as they are, anything else as JSON. key: "admin", a key, or None."""
        send = dict(headers or {})
        if key is not None:
            send.setdefault("Authorization", "Bearer " + (self.admin_key if key == "admin" else key))
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode("utf-8")
            send.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            try:
                connection.request(method, path, body=body, headers=send)
            except BrokenPipeError:
                pass  # refused and closed before the whole body was sent: the answer is there
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def patch(self, path, body=None, **more):
        return self.request("PATCH", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def make_tenant(self, name, scopes=("predict", "adapt", "read"), **settings):
        made = self.post("/v1/admin/tenants", {"name": name, **settings})
        assert made.status == 201, made
        return self.make_key(name, scopes)

    def make_key(self, tenant, scopes=("predict", "adapt", "read"), **more):
        made = self.post(f"/v1/admin/tenants/{tenant}/keys", {"scopes": list(scopes), **more})
        assert made.status == 201, made
        return made.json()["key"]

    def raw(self, data, timeout=PATIENCE, half_close=False):
        """Sends bytes as they are; everything that comes back until the server closes or is silent."""
        with self.connect(timeout) as s:
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed on us already: what it said still counts
            return drain(s)

    def alive(self):
        answer = self.get("/healthz", key=None)
        return answer.status == 200 and self.process.poll() is None


def drain(s):
    got = b""
    try:
        while piece := s.recv(65536):
            got += piece
    except OSError:
        pass
    return got


def statuses(raw):
    """The status of every answer in a byte stream."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]


def request_bytes(method="GET", path="/healthz", headers=(), body=b"", host="Host: x"):
    lines = [f"{method} {path} HTTP/1.1"] + ([host] if host else []) + list(headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CLOSE = "Connection: close"


@pytest.fixture(autouse=True)
def deadline():
    def late(signum, frame):
        raise AssertionError(f"the test took more than {TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _factory():
    started = []

    def make(**settings):
        server = Server(tempfile.mkdtemp(prefix="mp2-test-"), **settings)
        started.append(server)
        return server

    def end():
        for server in started:
            running = server.process.poll() is None
            code = server.stop() if running else 0
            log = server.log()
            shutil.rmtree(server.directory, ignore_errors=True)
            assert code == 0, f"exit code {code}\n{log[-6000:]}"
            assert "ERROR: AddressSanitizer" not in log and "WARNING: ThreadSanitizer" not in log, \
                log[-6000:]

    return make, end


@pytest.fixture
def make_server():
    make, end = _factory()
    yield make
    end()


@pytest.fixture
def fresh_server(make_server):
    return make_server()


@pytest.fixture(scope="module")
def server():
    make, end = _factory()
    yield make()
    end()


_names = itertools.count(1)


@pytest.fixture
def tenant(server):
    """(name, key) of a new tenant."""
    name = f"tenant-{next(_names)}"
    return name, server.make_tenant(name)


# ---- task folders, for commands ----------------------------------------------------------------------

GOOD = ["味道很好", "质量不错", "服务周到", "很满意", "值得推荐", "非常喜欢", "做工精致", "口味正宗"]
BAD = ["难吃死了", "质量太差", "态度恶劣", "很失望", "千万别买", "不敢再用", "褪色严重", "浪费钱"]


def write_task(folder):
    """A task folder of our own: sixteen opinions, the same in every part."""
    folder.mkdir(parents=True)
    rows = [{"text": t, "label": "正面"} for t in GOOD] + [{"text": t, "label": "负面"} for t in BAD]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "task.json").write_text(json.dumps(
        {"type": "classification", "labels": ["负面", "正面"]}), encoding="utf-8")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of two such folders, one and two."""
    top = tmp_path_factory.mktemp("tasks")
    write_task(top / "one")
    write_task(top / "two")
    return top
