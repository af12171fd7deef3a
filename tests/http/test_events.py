"""Events of a job as a stream: order, resume, silence, slow readers, many readers, the end."""
import contextlib
import json
import re
import resource
import socket
import sqlite3
import time

import pytest

from conftest import SLOW
from test_files import upload
from test_jobs import LONG, SHORT, create, rows, wait_for


@pytest.fixture
def file(server, tenant):
    return upload(server, tenant[1], rows()).json()["id"]


class Stream:
    """One reader. next() gives (id, data), ("", ": comment") for a comment, None at the end."""

    def __init__(self, server, key, job, last=None, query="stream=true", headers=()):
        self.socket = socket.create_connection((server.host, server.port), timeout=60)
        lines = [f"GET /v1/fine_tuning/jobs/{job}/events?{query} HTTP/1.1", "Host: x",
                 "Authorization: Bearer " + key, *headers]
        if last is not None:
            lines.append(f"Last-Event-ID: {last}")
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        self.raw, self.text, self.over = b"", b"", False
        self.head = None

    def _more(self):
        piece = self.socket.recv(65536)
        self.over = self.over or not piece
        self.raw += piece
        if self.head is None and b"\r\n\r\n" in self.raw:
            head, self.raw = self.raw.split(b"\r\n\r\n", 1)
            self.head = head.decode()
            self.status = int(self.head.split()[1])
        while self.head is not None and "chunked" in self.head:
            size, found, rest = self.raw.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                return
            if int(size, 16) == 0:
                self.over = True
                return
            self.text += rest[:int(size, 16)]
            self.raw = rest[int(size, 16) + 2:]

    def next(self):
        while b"\n\n" not in self.text:
            if self.over:
                return None
            self._more()
        block, self.text = self.text.split(b"\n\n", 1)
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n")
                      if not line.startswith(":"))
        if not fields:
            return "", block.decode()
        return fields.get("id", ""), fields["data"]

    def events(self):
        """Every event up to [DONE] or the end, which `done` tells apart."""
        seen, self.done = [], False
        while (block := self.next()) is not None:
            if block[1] == "[DONE]":
                self.done = True
            elif block[0]:
                seen.append((int(block[0]), json.loads(block[1])))
        return seen

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def stream(*args, **more):
    opened = Stream(*args, **more)
    try:
        yield opened
    finally:
        opened.close()


def listed(server, key, job):
    path = f"/v1/fine_tuning/jobs/{job}/events?limit=100&order=asc"
    return server.get(path, key=key).json()["data"]


def metric(server, name):
    found = re.search(rf"^{name} (\S+)$", server.get("/metrics", key=None).text, re.M)
    return float(found.group(1))


def test_from_the_first_event_to_the_end(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, {"budget": {"steps": 6}, "eval_every": 1}).json()["id"]
    with stream(server, key, job) as live:
        seen = live.events()
    assert live.status == 200 and "content-type: text/event-stream" in live.head.lower()
    assert live.done and [e["id"] for _, e in seen] == [f"ftevent-{n}" for n, _ in seen]
    numbers = [n for n, _ in seen]
    assert numbers == sorted(set(numbers))
    assert [e for _, e in seen] == listed(server, key, job)
    assert seen[-1][1]["message"].startswith("Job succeeded")


def test_it_resumes_behind_the_last_id(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, SHORT).json()["id"]
    wait_for(server, key, job)
    every = listed(server, key, job)
    number = every[1]["id"].removeprefix("ftevent-")
    for more in ({"last": number}, {"last": every[1]["id"]},
                 {"query": f"stream=true&after={every[1]['id']}"}):
        with stream(server, key, job, **more) as rest:
            assert [e for _, e in rest.events()] == every[2:] and rest.done
    with stream(server, key, job, last=every[-1]["id"]) as rest:
        assert rest.events() == [] and rest.done
    with stream(server, key, job, query="x=", headers=["Accept: text/event-stream"]) as accepted:
        assert [e for _, e in accepted.events()] == every and accepted.done


def test_events_arrive_while_the_job_runs(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, {**LONG, "eval_every": 1}).json()["id"]
    with stream(server, key, job) as live:
        steps = []
        while len(steps) < 3:
            _, data = live.next()
            steps += [json.loads(data)] if '"metrics"' in data else []
        assert wait_for(server, key, job, ("running",))  # it had not ended
        server.post(f"/v1/fine_tuning/jobs/{job}/cancel", key=key)
        rest = live.events()
    assert live.done and rest[-1][1]["message"] == "Job cancelled"
    assert [s["data"]["step"] for s in steps] == sorted(s["data"]["step"] for s in steps)


def test_refusals(server, tenant, file):
    name, key = tenant
    job = create(server, key, file, SHORT).json()["id"]
    wait_for(server, key, job)
    path = f"/v1/fine_tuning/jobs/{job}/events?stream="
    assert server.get(path + "perhaps", key=key).status == 422
    assert server.get(path + "false", key=key).json()["object"] == "list"
    bad = server.get(path + "true", key=key, headers={"Last-Event-ID": "17x"})
    assert bad.status == 422 and bad.json()["error"]["param"] == "Last-Event-ID"
    other = server.make_tenant(name + "-other")
    assert server.get(path + "true", key=other).status == 404
    assert server.get("/v1/fine_tuning/jobs/ftjob-no/events?stream=true", key=key).status == 404
    predictor = server.make_key(name, scopes=("predict",))
    assert server.get(path + "true", key=predictor).status == 403


def test_silence_is_pinged_and_a_revoked_key_ends_it(make_server):
    server = make_server(job_threads=0, event_ping="200ms")
    key = server.make_tenant("acme")
    job = create(server, key, upload(server, key, rows()).json()["id"]).json()["id"]
    with stream(server, key, job) as quiet:
        assert json.loads(quiet.next()[1])["message"].startswith("Created")
        assert [quiet.next() for _ in range(3)] == [("", ": ping")] * 3
        key_id = server.get("/v1/admin/tenants/acme/keys").json()["data"][0]["id"]
        assert server.delete(f"/v1/admin/tenants/acme/keys/{key_id}").status == 200
        assert quiet.events() == [] and not quiet.done


def test_bounds(make_server):
    server = make_server(job_threads=0, max_streams=3, max_tenant_streams=2)
    keys = [server.make_tenant(name) for name in ("one", "two")]
    jobs = [create(server, k, upload(server, k, rows()).json()["id"]).json()["id"] for k in keys]
    path = "/v1/fine_tuning/jobs/{}/events?stream=true"
    with contextlib.ExitStack() as stack:
        open_ = [stack.enter_context(stream(server, keys[0], jobs[0])) for _ in range(2)]
        assert all(s.next() for s in open_)
        own = server.get(path.format(jobs[0]), key=keys[0])
        assert own.status == 429 and "max_tenant_streams" in own.text
        third = stack.enter_context(stream(server, keys[1], jobs[1]))
        assert third.next()
        full = server.get(path.format(jobs[1]), key=keys[1])
        assert full.status == 503 and "max_streams" in full.text
        assert metric(server, "mp2_streams") == 3 and metric(server, "mp2_requests_at_work") == 0
        third.close()  # a vanished client frees its place
        end = time.monotonic() + 30
        while metric(server, "mp2_streams") != 2 and time.monotonic() < end:
            time.sleep(0.05)
        fourth = stack.enter_context(stream(server, keys[1], jobs[1]))
        assert fourth.next()


def add_events(server, job, n, data):
    """Rows as a long job would have left them."""
    with sqlite3.connect(server.db) as db:
        seq = db.execute("SELECT seq FROM jobs WHERE id = ?", (job,)).fetchone()[0]
        db.executemany("INSERT INTO job_events (job, created, level, type, message, data)"
                       " VALUES (?, 1, 'info', 'metrics', ?, ?)",
                       [(seq, f"event {i}", data) for i in range(n)])
    db.close()


def memory(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024


def test_slow_readers_cost_a_bounded_amount_and_lose_nothing(make_server):
    server = make_server(job_threads=0, stream_buffer="4K")
    key = server.make_tenant("acme")
    job = create(server, key, upload(server, key, rows()).json()["id"]).json()["id"]
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", key=key)
    server.kill()
    n, size = 3000, 2000
    add_events(server, job, n, json.dumps({"filling": "x" * size}))
    server.start()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(stream(server, key, job)) for _ in range(30)]
        for s in slow:
            assert s.next()
        before = memory(server)
        fast = stack.enter_context(stream(server, key, job))
        assert len(fast.events()) == n + 2 and fast.done  # nobody holds it up
        grown = memory(server) - before
        assert SLOW or grown < 30 * n * size / 6, grown  # what thirty wait for, many times over
        rest = slow[0].events()
        assert slow[0].done and len(rest) == n + 1
        assert [number for number, _ in rest] == sorted({number for number, _ in rest})


def test_many_readers(make_server):
    many = 50 if SLOW else 200
    need = many + 100
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < need:
        resource.setrlimit(resource.RLIMIT_NOFILE,
                           (need, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    server = make_server()
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    first = create(server, key, file, LONG).json()["id"]
    job = create(server, key, file, {"budget": {"steps": 5}, "eval_every": 1}).json()["id"]
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(stream(server, key, job)) for _ in range(many)]
        for reader in readers:
            assert "Created" in reader.next()[1]
        assert metric(server, "mp2_streams") == many
        server.post(f"/v1/fine_tuning/jobs/{first}/cancel", key=key)
        rest = [reader.events() for reader in readers]
    assert all(r == rest[0] for r in rest) and all(reader.done for reader in readers)
    assert [e for _, e in rest[0]] == listed(server, key, job)[1:]


def test_they_end_when_the_server_stops_and_go_on_after(make_server):
    server = make_server()
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    job = create(server, key, file, {**LONG, "eval_every": 1}).json()["id"]
    with stream(server, key, job) as live:
        while '"metrics"' not in (last := live.next())[1]:
            pass
        assert server.stop() == 0
        rest = live.events()
        assert not live.done
    number = rest[-1][0] if rest else int(last[0])
    server.start()
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", key=key)
    with stream(server, key, job, last=number) as again:
        behind = again.events()
    assert again.done and behind[0][0] > number
    every = [int(e["id"].removeprefix("ftevent-")) for e in listed(server, key, job)]
    assert [n for n, _ in behind] == [n for n in every if n > number]
