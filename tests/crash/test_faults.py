"""Disks that are full, fail, stall or forget; memory that runs out. What was acknowledged stays, answers say
what is wrong, predictions go on, and when the trouble is over so is its effect.

MP2_FAULT_ROUNDS (10) is how often the power goes; MP2_FAULT_STRIDE (7) which allocations fail: every one
up to a hundred of a request, then every seventh; 1 for all.
"""
import errno
import http.client
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import faults  # noqa: E402
import test_crash_server as crash  # noqa: E402

ROUNDS = int(os.environ.get("MP2_FAULT_ROUNDS", "10"))
STRIDE = int(os.environ.get("MP2_FAULT_STRIDE", "7"))
LABELS = {"type": "classification", "labels": ["负面", "正面"]}
PREDICT = {**LABELS, "inputs": ["房间很干净", "太差了"]}

pytestmark = pytest.mark.skipif(not faults.LIBRARY.exists(), reason="faults.c is not in this build")


@pytest.fixture
def make():
    started = []

    def start(**settings):
        server = faults.FaultyServer(tempfile.mkdtemp(prefix="mp2-faults-"), log_level="warn", **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.control.calm()
        running = server.process.poll() is None
        code = server.stop() if running else server.process.returncode
        log = server.log()
        shutil.rmtree(server.directory, ignore_errors=True)
        assert running and code == 0, f"exit code {code}\n{log[-4000:]}"


# ---- the power goes --------------------------------------------------------------------------------


def test_power_loss(make):
    """What was not synced is lost, in part and out of order: nothing acknowledged is among it."""
    server = make(max_queued_jobs=100000)
    keys = [server.make_tenant(name) for name in ("one", "two")]
    knowns, lost = [crash.nothing_known() for _ in keys], 0
    for seed in range(ROUNDS):
        server.stop()
        before = faults.contents(server.db)
        server.control.journal = 1
        server.start()
        clients = [crash.Client(server, key, seed * 10 + i, knowns[i]) for i, key in enumerate(keys)]
        for client in clients:
            client.start()
        time.sleep(random.Random(seed).uniform(0.2, 1.0))
        server.kill()
        for client in clients:
            client.join(30)
            assert client.wrong == []
        server.control.journal = 0
        lost += faults.lose_power(server.db, server.journal, before, seed)
        server.start()
        crash.check_database(server.db, True)
        for key, known in zip(keys, knowns):
            crash.check_known(server, key, known)
    files, tasks = (sum(len(known[name]) for known in knowns) for name in ("files", "tasks"))
    print(f"{ROUNDS} power losses, {lost} writes unsynced: {files} files and {tasks} tasks are there")
    assert files > ROUNDS and tasks > ROUNDS and lost > 0


def test_power_loss_is_seen(make):
    """The other way round: with sync = normal acknowledged writes do get lost, so the test can fail."""
    server = make(sync="normal")
    server.stop()
    before = faults.contents(server.db)
    server.control.journal = 1
    server.start()
    for i in range(20):
        assert server.post("/v1/tasks", {"name": f"t{i}", **LABELS}).status == 201
    server.kill()
    server.control.journal = 0
    faults.lose_power(server.db, server.journal, before, 1)
    server.start()
    assert 404 in {server.get(f"/v1/tasks/t{i}").status for i in range(20)}


# ---- the disk is full, or broken -------------------------------------------------------------------


def uploads(server, key, tag):
    rows = b"".join(b'{"text":"%d %s","label":"%d"}\n' % (i, tag.encode() * 40, i % 2) for i in range(200))
    body = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
            + rows + b"\r\n--b--\r\n")
    made = server.post("/v1/files", body, key=key,
                       headers={"Content-Type": "multipart/form-data; boundary=b"})
    return made, rows


def write_things(server, key, tag, done):
    """A few writes of each kind; what succeeded goes into `done`. Every refusal must say why."""
    made, rows = uploads(server, key, tag)
    answers = [made]
    if made.status == 200:
        done["files"][made.json()["id"]] = rows
    for name in (f"a-{tag}", f"b-{tag}"):
        answers.append(server.post("/v1/tasks", {"name": name, **LABELS}, key=key))
        if answers[-1].status == 201:
            done["tasks"].add(name)
            answers.append(server.post(f"/v1/tasks/{name}/versions", {"route": [0.5] * 8}, key=key))
            if answers[-1].status == 201:
                done["versions"].add(name)
    if f"b-{tag}" in done["tasks"]:
        answers.append(server.delete(f"/v1/tasks/b-{tag}", key=key))
        if answers[-1].status in (200, 204):
            done["tasks"].discard(f"b-{tag}")
            done["versions"].discard(f"b-{tag}")
            done["gone"].add(f"b-{tag}")
    for answer in answers:
        if answer.status >= 400:
            assert answer.status in (500, 503) and answer.json()["error"], answer


def check_things(server, key, done):
    for file, rows in done["files"].items():
        assert server.get(f"/v1/files/{file}/content", key=key).body == rows
    for task in done["tasks"]:
        assert server.get("/v1/tasks/" + task, key=key).status == 200, task
    for task in done["versions"]:
        assert server.get(f"/v1/tasks/{task}/versions/2", key=key).status == 200, task
    for task in done["gone"]:
        assert server.get("/v1/tasks/" + task, key=key).status == 404, task


@pytest.mark.parametrize("what", ["full", "full from then on", "failing", "sync failing"])
def test_disk(make, what):
    """The n-th write, truncation or sync fails, for every n of a round of work."""
    code = errno.ENOSPC if what.startswith("full") else errno.EIO
    kinds = faults.SYNC if what == "sync failing" else faults.WRITE | faults.TRUNCATE | faults.SYNC
    server = make()
    key = server.make_tenant("acme")
    done = {"files": {}, "tasks": set(), "versions": set(), "gone": set()}
    n = 0
    for n in range(1, 2000):
        server.control.fail_io(n, code, kinds, sticky=what == "full from then on")
        write_things(server, key, f"{n}", done)
        asked = server.post("/v1/predict", PREDICT, key=key)
        assert asked.status == 200, asked  # the disk is nothing to a prediction
        hit = server.control.io_failed
        server.control.calm()
        made = server.post("/v1/tasks", {"name": f"after-{n}", **LABELS}, key=key)
        assert made.status == 201, (what, n, made)  # over, at once
        done["tasks"].add(f"after-{n}")
        if hit == 0:
            break
        if n % 10 == 0:
            check_things(server, key, done)
    assert hit == 0 and n > 5, "the work never got through"
    check_things(server, key, done)
    server.kill()
    server.start()
    crash.check_database(server.db, True)
    check_things(server, key, done)
    print(f"{what}: {n - 1} places")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_job_ends_when_the_disk_is_back(make, code):
    """The disk is full from before a job's end until long after it: the job waits, nothing of it is seen,
    and when there is room it succeeds, without a restart."""
    server = make()
    key = server.make_tenant("acme")
    file = uploads(server, key, "x")[0].json()["id"]
    made = server.post("/v1/fine_tuning/jobs", {"model": "boot", "training_file": file, "seed": 3, "mp2": {
        "task": "late", "init": "average", "budget": {"steps": 20}, "text_limit": 8}}, key=key)
    assert made.status == 200, made
    path = "/v1/fine_tuning/jobs/" + made.json()["id"]
    end = time.monotonic() + 120
    while server.get(path, key=key).json()["status"] == "queued" and time.monotonic() < end:
        time.sleep(0.01)
    server.control.fail_io(1, code, faults.WRITE | faults.TRUNCATE | faults.SYNC, sticky=True)
    while "job_waits_for_store" not in server.log() and time.monotonic() < end:
        assert server.post("/v1/predict", PREDICT, key=key).status == 200
        time.sleep(0.1)
    assert "job_waits_for_store" in server.log()
    assert server.get(path, key=key).json()["status"] == "running"
    assert server.get("/v1/tasks/late", key=key).status == 404
    server.control.calm()
    while server.get(path, key=key).json()["status"] == "running" and time.monotonic() < end:
        time.sleep(0.1)
    job = server.get(path, key=key).json()
    assert job["status"] == "succeeded" and job["mp2"]["attempts"] == 1, job
    assert server.post("/v1/predict", {"task": "late", "inputs": ["好"]}, key=key).status == 200
    assert server.stop() == 0
    crash.check_database(server.db, True)
    server.start()


def test_slow_store(make):
    """Writes wait for a disk that does not answer; predictions and reads do not."""
    server = make()
    key = server.make_tenant("acme")
    assert server.post("/v1/tasks", {"name": "kept", **LABELS}, key=key).status == 201
    server.control.hold = 1
    answers = []
    writers = [threading.Thread(target=lambda i=i: answers.append(
        server.post("/v1/tasks", {"name": f"late-{i}", **LABELS}, key=key, timeout=60)))
        for i in range(5)]
    for writer in writers:
        writer.start()
    while server.control.held == 0:
        time.sleep(0.01)
    for _ in range(30):
        assert server.post("/v1/predict", {"task": "kept", "inputs": ["很好"]}, key=key).status == 200
        assert server.get("/v1/tasks/kept", key=key).status == 200
    assert server.get("/readyz", key=None).status == 200
    assert answers == [] and server.control.held > 0  # not one write was acknowledged meanwhile
    server.control.hold = 0
    for writer in writers:
        writer.join()
    assert [answer.status for answer in answers] == [201] * 5


# ---- memory runs out ---------------------------------------------------------------------------------


def requests_of_every_kind(server, key):
    """name -> (method, path, body, headers, key), and what they need."""
    upload = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
              b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
              + crash.ROWS + b"\r\n--b--\r\n")
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    server.post("/v1/tasks", {"name": "kept", **LABELS}, key=key)
    file = server.post("/v1/files", upload, key=key, headers=form).json()["id"]
    job = server.post("/v1/fine_tuning/jobs", {
        "model": "boot", "training_file": file, "seed": 1,
        "mp2": {"task": "learnt", **LABELS, "budget": {"steps": 1}}}, key=key).json()["id"]
    while server.get("/v1/fine_tuning/jobs/" + job, key=key).json()["status"] != "succeeded":
        time.sleep(0.05)
    admin = server.admin_key
    return {
        "predict": ("POST", "/v1/predict", PREDICT, None, key),
        "predict task": ("POST", "/v1/predict", {"task": "kept@1", "inputs": ["好"]}, None, key),
        "extract": ("POST", "/v1/predict", {"type": "extractive", "inputs": [
            {"question": "谁来了？", "context": "小明昨天来了。"}]}, None, key),
        "hf": ("POST", "/hf/kept", {"inputs": "很好"}, None, key),
        "oip": ("POST", "/v2/models/kept/infer", {"inputs": [
            {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["很好"]}]}, None, key),
        "task create": ("POST", "/v1/tasks", {"name": "N", **LABELS}, None, key),
        "task update": ("PATCH", "/v1/tasks/kept", {"description": "x"}, None, key),
        "task get": ("GET", "/v1/tasks/kept", None, None, key),
        "task list": ("GET", "/v1/tasks?limit=5", None, None, key),
        "import": ("POST", "/v1/tasks/kept/versions", {"route": [0.1] * 8}, None, key),
        "export": ("GET", "/v1/tasks/kept/versions/1", None, None, key),
        "upload": ("POST", "/v1/files", upload, form, key),
        "content": ("GET", f"/v1/files/{file}/content", None, None, key),
        "files": ("GET", "/v1/files", None, None, key),
        "jobs": ("GET", "/v1/fine_tuning/jobs", None, None, key),
        "job": ("GET", "/v1/fine_tuning/jobs/" + job, None, None, key),
        "events": ("GET", f"/v1/fine_tuning/jobs/{job}/events", None, None, key),
        "models": ("GET", "/v1/models", None, None, key),
        "me": ("GET", "/v1/me", None, None, key),
        "tenants": ("GET", "/v1/admin/tenants", None, None, admin),
        "tenant create": ("POST", "/v1/admin/tenants", {"name": "n"}, None, admin),
        "key create": ("POST", "/v1/admin/tenants/acme/keys", {"scopes": ["read"]}, None, admin),
        "metrics": ("GET", "/metrics", None, None, None),
        "openapi": ("GET", "/openapi.json", None, None, None),
    }


def ask_with(server, request, n, name):
    """The answer when the n-th allocation from now on fails; None when the connection was dropped."""
    method, path, body, headers, key = request
    if isinstance(body, dict) and body.get("name") in ("N", "n"):
        body = {**body, "name": f"{name.replace(' ', '-')}-{n}"}
    server.control.fail_allocation(n)
    try:
        return server.request(method, path, body, key=key, headers=headers)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        server.control.calm()


def test_out_of_memory(make):
    """Every allocation of a request fails once: 503 or a dropped connection, or it did without."""
    server = make()
    key = server.make_tenant("acme")
    told, wrong = {}, []
    for name, request in requests_of_every_kind(server, key).items():
        n, statuses = 1, {}
        while n < 6000:
            answer = ask_with(server, request, n, name)
            status = answer.status if answer is not None else 0
            statuses[status] = statuses.get(status, 0) + 1
            assert server.process.poll() is None, f"{name}: the server ended at allocation {n}"
            good = status in (0, 200, 201) or (status == 503 and answer.headers["Retry-After"])
            if not good:
                wrong.append((name, n, answer))
            if server.control.alloc_failed == 0:
                break
            n += 1 if n < 100 else STRIDE
        told[name] = (n, statuses)
        after = ask_with(server, request, 0, name + "-x")
        assert after is not None and after.status in (200, 201), (name, after)
    for name, (n, statuses) in told.items():
        print(f"{name:14} {n:5} allocations, {statuses}")
    assert wrong == [], "\n".join(str(fault)[:400] for fault in wrong)
    end = time.monotonic() + 20
    wanted = {"mp2_requests_at_work 0", "mp2_parked 0", "mp2_body_bytes 0"}
    while wanted - set(server.get("/metrics", key=None).text.splitlines()):
        assert time.monotonic() < end, "something stayed behind"
        time.sleep(0.1)
    assert json.loads(server.get("/openapi.json", key=None).body)["openapi"]
