#!/usr/bin/env python3
"""load.py: mixed traffic for as long as is asked, while jobs train.

    build/venv/bin/python tests/load/load.py [--seconds 1800] [--predictors 4]

Starts a server of its own on a free port and sets at it, all at once: predictions of every kind and
interface, tasks made, changed, listed and deleted, files up and down, jobs to their end or cancelled,
scrapers, and clients that vanish in the middle of a request. Ends with a table (requests a second, p50,
p95, p99, refusals) and fails when an answer was neither right nor a stated refusal, when something
stayed behind, when memory grew by more than 2 % after the warm-up (8 % in runs under ten minutes, in which
caches still fill), or descriptors at all.
"""
import argparse
import random
import shutil
import socket
import sys
import tempfile
import threading
import time

from harness import Client, Server, descriptors, multipart, quantile, rss_kib

WARM_UP = 0.25  # of the run: caches fill
LEAST_WARM_UP = 30  # seconds
MEMORY_GROWTH = 0.02         # of a run of ten minutes or more
SHORT_GROWTH = 0.08          # of a shorter one: tables and caches still fill
VANISH = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER of 0 s: close is a reset

SENTENCES = ["房间很干净，老板也热情，下次还来。", "电池用了一天就没电了，客服也不理人。", "味道一般。",
             "快递三天才到，包装破了，里面的杯子碎了两个，要求退款到现在还没有回复。", "hello world 123"]
LABELS = {"type": "classification", "labels": ["负面", "正面"]}
ROWS = [{"text": f"第{i}句，{'真好' if i % 2 else '太差'}", "label": "正面" if i % 2 else "负面"}
        for i in range(16)]


class Actor(threading.Thread):
    """Does `turn` again and again until the run is over."""

    def __init__(self, run, number):
        super().__init__(daemon=True)
        self.run_ = run
        self.random = random.Random(f"{type(self).__name__}-{number}")
        self.number = number
        self.client = Client(run.server, run.keys[number % len(run.keys)])

    def run(self):
        try:
            while not self.run_.over.is_set():
                self.turn()
        except Exception as e:  # noqa: BLE001: a wrong answer of any shape is a fault of the run
            self.client.faults.append((type(self).__name__, repr(e)))


class Predictor(Actor):
    def bodies(self):
        pick = self.random
        texts = pick.choices(SENTENCES, k=pick.choice([1, 1, 1, 4, 16]))
        return [
            ("predict", "/v1/predict", {**LABELS, "inputs": texts}),
            ("predict task", "/v1/predict", {"task": "kept", "inputs": texts, "return": ["scores"]}),
            ("predict pair", "/v1/predict", {
                "type": "pair", "labels": ["矛盾", "相似"],
                "inputs": [{"text_a": t, "text_b": SENTENCES[0]} for t in texts]}),
            ("predict choice", "/v1/predict", {
                "type": "choice", "inputs": [{"question": "谁来了？", "context": "小明昨天来了。",
                                              "options": ["小明", "小红", "小刚"]}]}),
            ("predict extractive", "/v1/predict", {
                "type": "extractive", "inputs": [{"question": "谁来了？", "context": "小明昨天来了。"}]}),
            ("hf", "/hf/kept", {"inputs": texts[0]}),
            ("oip", "/v2/models/kept/infer", {"inputs": [
                {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}),
        ]

    def turn(self):
        kind, path, body = self.random.choice(self.bodies())
        status, answer = self.client.ask(kind, "POST", path, body)
        if status == 200 and kind.startswith("predict"):
            assert len(answer["predictions"]) == len(body["inputs"]), answer


class TaskMaker(Actor):
    def turn(self):
        ask, name = self.client.ask, f"task-{self.number}-{self.random.getrandbits(40):x}"
        status, _ = ask("tasks create", "POST", "/v1/tasks", {"name": name, **LABELS}, good=(201,))
        if status != 201:
            return
        path = "/v1/tasks/" + name
        ask("tasks get", "GET", path)
        ask("tasks patch", "PATCH", path, {"description": "为测试而设"})
        status, first = ask("version get", "GET", path + "/versions/1")
        route = [self.random.uniform(-2, 2) for _ in range(8)]
        if status == 200 and isinstance(first, dict):
            ask("version import", "POST", path + "/versions", {"route": route}, good=(201,))
            ask("predict task", "POST", "/v1/predict", {"task": name, "inputs": SENTENCES[:2]})
            ask("version current", "POST", path + "/current", {"version": 1})
        ask("tasks list", "GET", "/v1/tasks?limit=20")
        while ask("tasks delete", "DELETE", path, good=(200, 204))[0] in (429, 503):
            pass


class FileMover(Actor):
    def turn(self):
        ask = self.client.ask
        rows = [{"text": self.random.choice(SENTENCES) * self.random.randrange(1, 9),
                 "label": self.random.choice(["负面", "正面"])} for _ in range(200)]
        body, headers = multipart(rows)
        status, made = ask("files upload", "POST", "/v1/files", body, headers=headers)
        if status != 200:
            return
        ask("files list", "GET", "/v1/files?limit=20")
        status, data = ask("files content", "GET", f"/v1/files/{made['id']}/content")
        assert status != 200 or data in body, "not what was sent"
        while ask("files delete", "DELETE", "/v1/files/" + made["id"])[0] in (429, 503):
            pass


class Trainer(Actor):
    """Jobs into a few tasks; every fourth is cancelled."""

    def turn(self):
        ask = self.client.ask
        body, headers = multipart(ROWS)
        status, file = ask("files upload", "POST", "/v1/files", body, headers=headers)
        if status != 200:
            return
        status, job = ask("jobs create", "POST", "/v1/fine_tuning/jobs", {
            "model": "boot", "training_file": file["id"], "seed": self.random.randrange(1000),
            "mp2": {"task": f"learnt-{self.number}-{self.random.randrange(4)}", **LABELS,
                    "budget": {"steps": self.random.choice([5, 20, 60])}}})
        if status == 200:
            self.follow(job)
        while ask("files delete", "DELETE", "/v1/files/" + file["id"], good=(200, 409))[0] in (429, 503):
            pass

    def follow(self, job):
        ask, path = self.client.ask, "/v1/fine_tuning/jobs/" + job["id"]
        cancels = self.random.random() < 0.25
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.1)
            if cancels:
                ask("jobs cancel", "POST", path + "/cancel", good=(200, 400, 409))
                cancels = False
            status, seen = ask("jobs get", "GET", path)
            job = seen if status == 200 else job
            ask("jobs events", "GET", path + "/events")
            if self.run_.over.is_set():
                return
        assert job["status"] != "failed", job


class Scraper(Actor):
    def turn(self):
        for path in ("/metrics", "/healthz", "/readyz", "/version", "/v1/me", "/v1/models",
                     "/openapi.json"):
            self.client.ask(path, "GET", path)
        self.run_.over.wait(0.1)


class Vanisher(Actor):
    """Resets in the middle of headers, of a body, and of the wait for an answer."""

    def turn(self):
        body = b'{"task":"kept","inputs":["' + b"x" * 2000 + b'"]}'
        data = (b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer " + self.client.key.encode() +
                b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with self.run_.server.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, VANISH)
            s.sendall(data[:self.random.choice([20, len(data) - 500, len(data)])])
        self.run_.over.wait(0.02)


class Run:
    def __init__(self, server, predictors):
        self.server, self.over = server, threading.Event()
        self.keys = [server.make_tenant(f"load-{i}") for i in range(3)]
        for key in self.keys:
            made = server.post("/v1/tasks", {"name": "kept", **LABELS}, key=key)
            assert made.status == 201, made
        crowd = [(Predictor, predictors), (TaskMaker, 2), (FileMover, 1), (Trainer, 2), (Scraper, 1),
                 (Vanisher, 1)]
        self.actors = [kind(self, i) for kind, n in crowd for i in range(n)]
        self.rss, self.files = [], []

    def go(self, seconds):
        """Samples memory and descriptors each second."""
        for actor in self.actors:
            actor.start()
        began = time.monotonic()
        while time.monotonic() - began < seconds and self.server.process.poll() is None:
            self.over.wait(1)
            self.rss.append(rss_kib(self.server.process.pid))
            self.files.append(descriptors(self.server.process.pid))
        self.over.set()
        for actor in self.actors:
            actor.join(130)
            assert not actor.is_alive(), f"{actor} does not come back"
        return time.monotonic() - began

    def times(self):
        all_ = {}
        for actor in self.actors:
            for kind, times in actor.client.times.items():
                into = all_.setdefault(kind, type(times)())
                into.ms.extend(times.ms)
                into.refused += times.refused
        return all_

    def faults(self):
        return [fault for actor in self.actors for fault in actor.client.faults]

    def growth(self, samples):
        """From the first third after the warm-up to the last third. Of each the value that nine tenths of
        its samples do not exceed: memory while jobs train, which in some seconds none does."""
        n = len(samples)
        warm = samples[max(min(LEAST_WARM_UP, n // 2), int(n * WARM_UP)):]
        third = max(1, len(warm) // 3)
        first, last = quantile(warm[:third], 0.9), quantile(warm[-third:], 0.9)
        return first, last, last / first - 1


def left_behind(server):
    """What should be zero once everybody has gone, and is not."""
    wanted = {"mp2_requests_at_work 0", "mp2_parked 0", "mp2_body_bytes 0"}
    end = time.monotonic() + 30
    while time.monotonic() < end:
        missing = wanted - set(server.get("/metrics", key=None).text.splitlines())
        if not missing:
            return []
        time.sleep(0.2)
    return sorted(missing)


def print_table(all_, seconds):
    print(f"{'kind':20} {'answers':>8} {'a second':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} "
          f"{'refused':>8}")
    for kind in sorted(all_):
        t = all_[kind]
        print(f"{kind:20} {len(t.ms):8} {len(t.ms) / seconds:9.1f} {t.at(.5):8.1f} {t.at(.95):8.1f} "
              f"{t.at(.99):8.1f} {t.refused:8}")
    total = sum(len(t.ms) for t in all_.values())
    print(f"{'all':20} {total:8} {total / seconds:9.1f}")


def measure(seconds, predictors=4):
    """Runs it; prints the table; returns what is wrong as a list of texts."""
    directory = tempfile.mkdtemp(prefix="mp2-load-")
    server = Server(directory, log_level="warn", max_queued_jobs=1000)
    try:
        run = Run(server, predictors)
        took = run.go(seconds)
        all_ = run.times()
        print_table(all_, took)
        wrong = [f"fault: {fault}" for fault in run.faults()[:20]]
        wrong += [f"left behind: {line}" for line in left_behind(server)]
        wrong += [f"nobody was served: {kind}" for kind, t in all_.items() if not t.ms]
        first, last, grown = run.growth(run.rss)
        print(f"memory {first / 1024:.1f} -> {last / 1024:.1f} MiB ({grown:+.2%})")
        most = MEMORY_GROWTH if seconds >= 600 else SHORT_GROWTH
        if grown > most:
            wrong.append(f"memory grew by {grown:.2%}, at most {most:.0%}")
        few, many, _ = run.growth(run.files)
        print(f"descriptors {few:.0f} -> {many:.0f}")
        if many > few + 2:
            wrong.append(f"descriptors went from {few:.0f} to {many:.0f}")
        code = server.stop()
        return wrong + ([f"exit code {code}"] if code != 0 else [])
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seconds", type=int, default=1800)
    options.add_argument("--predictors", type=int, default=4)
    chosen = options.parse_args()
    wrong = measure(chosen.seconds, chosen.predictors)
    for line in wrong:
        print(line)
    print("FAILED" if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
