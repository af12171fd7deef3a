"""What the scripts of this folder share: the server of the HTTP tests, a client that keeps its
connection and its times, and what the kernel says about a process."""
import array
import http.client
import importlib.util
import json
import pathlib
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("http_harness", TOP / "tests/http/conftest.py")
http_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(http_tests)
Server = http_tests.Server

REFUSALS = (429, 503)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Times:
    """Milliseconds of the answers of one kind of request."""

    def __init__(self):
        self.ms, self.refused = array.array("f"), 0

    def at(self, share):
        return quantile(self.ms, share)


class Client:
    """One connection, kept open. Every answer must be one of `good` or a refusal that says when to
    come back; anything else is a fault."""

    def __init__(self, server, key):
        self.server, self.key = server, key
        self.times, self.faults = {}, []
        self.connection = None

    def connect(self):
        self.connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=120)

    def exchange(self, method, path, body, headers):
        if self.connection is None:
            self.connect()
        self.connection.request(method, path, body=body, headers=headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def ask(self, kind, method, path, body=None, good=(200,), headers=None):
        """(status, body); the body is parsed when it is JSON. (0, None) when the exchange broke."""
        send = {"Authorization": "Bearer " + self.key, **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
            send["Content-Type"] = "application/json"
        times = self.times.setdefault(kind, Times())
        start = time.monotonic()
        try:
            answer, data = self.exchange(method, path, body, send)
        except (OSError, http.client.HTTPException) as e:
            self.connection.close()
            self.connection = None
            self.faults.append((kind, method, path, repr(e)))
            return 0, None
        if answer.status in REFUSALS and answer.headers.get("Retry-After"):
            times.refused += 1
            time.sleep(0.05)
        elif answer.status in good:
            times.ms.append((time.monotonic() - start) * 1000)
        else:
            self.faults.append((kind, method, path, answer.status, data[:300]))
        if "json" in answer.headers.get("Content-Type", "") and data:
            data = json.loads(data)
        return answer.status, data


def multipart(rows):
    """(body, headers) of an upload of JSONL."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    body = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
            + data + b"\r\n--b--\r\n")
    return body, {"Content-Type": "multipart/form-data; boundary=b"}


def rss_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
