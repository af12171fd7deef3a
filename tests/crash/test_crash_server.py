"""kill -9 while tenants upload, train, pause, publish, roll back, make and delete: nothing acknowledged is
lost, nothing is half-made, interrupted jobs end, and the database stays sound.

MP2_KILLS (40) is how often; MP2_KILLS=1000 takes about half an hour. MP2_CRASH_SECONDS (300 for forty)
bounds it: a slow machine may get through fewer kills.
"""
import http.client
import importlib.util
import json
import os
import pathlib
import random
import shutil
import sqlite3
import tempfile
import threading
import time

HTTP = pathlib.Path(__file__).resolve().parents[1] / "http"
_spec = importlib.util.spec_from_file_location("http_harness", HTTP / "conftest.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

KILLS = int(os.environ.get("MP2_KILLS", "40"))
SECONDS = int(os.environ.get("MP2_CRASH_SECONDS", str(int(KILLS * 7.5))))
LEAST_KILLS = 10
JOBS_A_ROUND = 4  # of each client: more than one second trains, few enough to end
STUCK = 120  # seconds in which no job ends: then they are stuck

ROWS = "".join(json.dumps({"text": f"第{i}句，{'真好' if i % 2 else '太差'}",
                           "label": "负面" if i % 2 == 0 else "正面"}, ensure_ascii=False) + "\n"
               for i in range(8)).encode()

# Each answers 0 in a database where nothing is half.
WHOLE = [
    "SELECT count(*) FROM jobs j WHERE status = 'succeeded' AND NOT EXISTS (SELECT 1 FROM"
    " task_versions v WHERE v.job = j.id AND v.task = j.task AND v.number = j.version)",
    "SELECT count(*) FROM task_versions v WHERE job IS NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM jobs j WHERE j.id = v.job AND j.status = 'succeeded')",
    "SELECT count(*) FROM jobs j WHERE status = 'succeeded' AND NOT EXISTS (SELECT 1 FROM"
    " job_events e WHERE e.job = j.seq AND e.message LIKE 'Job succeeded%')",
    "SELECT count(*) FROM tasks WHERE current IS NULL",
    "SELECT count(*) FROM files f WHERE NOT EXISTS"
    " (SELECT 1 FROM file_data d WHERE d.file = f.seq)",
]


class Client(threading.Thread):
    """One tenant at work until its server dies; remembers what was acknowledged."""

    def __init__(self, server, key, seed, known):
        super().__init__(daemon=True)
        self.server, self.key, self.random, self.known = server, key, random.Random(seed), known
        self.wrong = []
        self.jobs_left = JOBS_A_ROUND

    def call(self, method, path, body=None, **more):
        answer = self.server.request(method, path, body, key=self.key, timeout=10, **more)
        if answer.status >= 500 and answer.status != 503:
            self.wrong.append((method, path, answer))
        return answer

    def upload(self, tag):
        data = ROWS + json.dumps({"text": tag, "label": "正面"}).encode() + b"\n"
        body = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
                b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
                + data + b"\r\n--b--\r\n")
        answer = self.call("POST", "/v1/files", body,
                           headers={"Content-Type": "multipart/form-data; boundary=b"})
        if answer.status == 200:
            self.known["files"][answer.json()["id"]] = data
            return answer.json()["id"]
        return None

    def pause_and_resume(self, job):
        """Half of the jobs: whatever state a pause finds, no job may stay paused for ever."""
        if self.random.random() < 0.5:
            path = "/v1/fine_tuning/jobs/" + job
            if self.call("POST", path + "/pause").status == 200:
                self.known["paused"].add(job)
            self.call("POST", path + "/resume")

    def publish(self, name):
        """A second version, and the alias back to the first."""
        route = [round(self.random.uniform(-2, 2), 3) for _ in range(8)]
        path = "/v1/tasks/" + name
        if self.call("POST", path + "/versions", {"route": route}).status == 201:
            self.known["routes"][name] = route
            if self.call("POST", path + "/current", {"version": 1}).status == 200:
                self.known["rolled"].add(name)

    def work(self):
        tag = f"{self.random.getrandbits(64):x}"
        file = self.upload(tag)
        if file is not None and self.jobs_left > 0:
            self.jobs_left -= 1
            answer = self.call("POST", "/v1/fine_tuning/jobs", {
                "model": "boot", "training_file": file, "seed": 1,
                "mp2": {"task": f"job-{tag[:6]}", "init": "average",
                        "budget": {"steps": self.random.choice([1, 2, 6])}}})
            if answer.status == 200:
                self.known["jobs"].add(answer.json()["id"])
                self.pause_and_resume(answer.json()["id"])
        name = f"task-{tag}"
        answer = self.call("POST", "/v1/tasks", {"name": name, "type": "classification",
                                                 "labels": ["正面", "负面"]})
        if answer.status == 201:
            self.known["tasks"].add(name)
            self.publish(name)
        if self.random.random() < 0.5 and self.known["tasks"]:
            gone = self.random.choice(sorted(self.known["tasks"]))
            self.known["tasks"].discard(gone)
            self.known["rolled"].discard(gone)
            self.known["routes"].pop(gone, None)  # between here and the answer it may be either
            if self.call("DELETE", "/v1/tasks/" + gone).status in (200, 204):
                self.known["gone"].add(gone)
        extra = self.upload(tag + "x")
        if extra is not None:
            data = self.known["files"].pop(extra)
            answer = self.call("DELETE", "/v1/files/" + extra)
            if answer.status == 200:
                self.known["gone_files"].add(extra)
            elif answer.status == 409:
                self.known["files"][extra] = data

    def run(self):
        try:
            while True:
                self.work()
        except (OSError, http.client.HTTPException):
            pass  # the server died


def check_known(server, key, known, fresh_only=None):
    """Every acknowledged object is as it was acknowledged."""
    pick = fresh_only or known
    for file in sorted(pick["files"]):
        answer = server.get(f"/v1/files/{file}/content", key=key)
        assert answer.status == 200 and answer.body == known["files"][file], (file, answer)
    for file in sorted(pick["gone_files"]):
        assert server.get("/v1/files/" + file, key=key).status == 404, file
    for job in sorted(pick["jobs"]):
        assert server.get("/v1/fine_tuning/jobs/" + job, key=key).status == 200, job
    for task in sorted(pick["tasks"]):
        assert server.get("/v1/tasks/" + task, key=key).status == 200, task
    for task in sorted(pick["routes"]):
        answer = server.get(f"/v1/tasks/{task}/versions/2", key=key)
        assert answer.status == 200, (task, answer)
        found = answer.json()["route"]
        assert all(abs(a - b) < 1e-5 for a, b in zip(found, known["routes"][task])), (task, found)
    for task in sorted(pick["rolled"]):
        assert server.get("/v1/tasks/" + task, key=key).json()["current"] == 1, task
    for task in sorted(pick["gone"]):
        assert server.get("/v1/tasks/" + task, key=key).status == 404, task


def check_database(path, full):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        check = "integrity_check" if full else "quick_check"
        assert db.execute(f"PRAGMA {check}").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        for question in WHOLE:
            assert db.execute(question).fetchone() == (0,), question
    db.close()


def nothing_known():
    known = {name: set() for name in ("gone_files", "jobs", "paused", "tasks", "rolled", "gone")}
    return {**known, "files": {}, "routes": {}}


def copy_known(known):
    return {name: set(values) for name, values in known.items()}


def one_round(server, keys, knowns, seed):
    before = [copy_known(known) for known in knowns]
    clients = [Client(server, key, seed * 10 + i, knowns[i]) for i, key in enumerate(keys)]
    for client in clients:
        client.start()
    time.sleep(random.Random(seed).uniform(0.02, 1.0))
    server.kill()
    for client in clients:
        client.join(30)
        assert not client.is_alive()
        assert client.wrong == []
    check_database(server.db, seed % 10 == 0)
    server.start()
    for key, known, old in zip(keys, knowns, before):
        fresh = {name: set(values) - old[name] for name, values in known.items()}
        check_known(server, key, known, fresh)


def jobs_waiting(server):
    """Jobs of everybody that have not begun."""
    lines = server.get("/metrics", key=None).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith('mp2_jobs{state="queued"}'))


def wait_for_jobs(server, key, known):
    left = set(known["jobs"])
    until, waiting = time.monotonic() + STUCK, jobs_waiting(server)
    while left:
        job = next(iter(left))
        seen = server.get("/v1/fine_tuning/jobs/" + job, key=key).json()
        if seen["status"] == "succeeded":
            version = seen["mp2"]["version"]
            path = f"/v1/tasks/{seen['mp2']['task']}/versions/{version}"
            assert server.get(path, key=key).json()["job"] == job
        elif seen["status"] == "failed":
            assert seen["error"]["code"] == "interrupted", seen
        if seen["status"] in ("succeeded", "failed"):
            left.discard(job)
            until = time.monotonic() + STUCK
            continue
        if seen["status"] == "paused":  # the server died between the two calls
            server.post(f"/v1/fine_tuning/jobs/{job}/resume", key=key)
        if jobs_waiting(server) < waiting:  # a long queue, but it moves
            until, waiting = time.monotonic() + STUCK, jobs_waiting(server)
        assert time.monotonic() < until, f"{len(left)} jobs have not ended: {seen}"
        time.sleep(0.05)


def test_kills():
    directory = tempfile.mkdtemp(prefix="mp2-crash-")
    server = harness.Server(directory, max_queued_jobs=100000, job_attempts=3, log_level="warn")
    try:
        began, kills = time.monotonic(), 0
        keys = [server.make_tenant(name) for name in ("one", "two")]
        knowns = [nothing_known() for _ in keys]
        while kills < KILLS and time.monotonic() - began < SECONDS:
            kills += 1
            one_round(server, keys, knowns, kills)
        for key, known in zip(keys, knowns):
            check_known(server, key, known)
        print(f"{kills} kills in {time.monotonic() - began:.0f} s", flush=True)
        for key, known in zip(keys, knowns):
            wait_for_jobs(server, key, known)
        assert server.stop() == 0
        check_database(server.db, True)
        jobs = sum(len(known["jobs"]) for known in knowns)
        files = sum(len(known["files"]) for known in knowns)
        tasks, paused = (sum(len(known[name]) for known in knowns) for name in ("tasks", "paused"))
        print(f"kept: {files} files, {jobs} jobs "
              f"({paused} paused once), {tasks} tasks")
        assert kills >= min(LEAST_KILLS, KILLS) and jobs > kills / 4 and files > kills / 4
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)
