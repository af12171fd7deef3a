"""Idempotency-Key: a POST that makes something, repeated, makes it once and is answered alike; usage by day."""
import contextlib
import datetime
import json
import sqlite3
import threading
import time

import pytest

from conftest import SLOW

TASK = {"type": "classification", "labels": ["负面", "正面"]}


def once(key):
    return {"Idempotency-Key": key}


def names(server, key):
    return [t["name"] for t in server.get("/v1/tasks?limit=1000", key=key).json()["data"]]


def form(boundary, rows="好\n坏\n", filename="r.jsonl"):
    lines = "".join(json.dumps({"text": f"{t}{i}", "label": t}) + "\n"
                    for i in range(20) for t in rows.split())
    b = boundary
    return (f"--{b}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--{b}\r\n"
            f"Content-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\r\n"
            f"{lines}\r\n--{b}--\r\n").encode(), {"Content-Type": f"multipart/form-data; boundary={b}"}


def test_a_task_is_made_once(server, tenant):
    _, key = tenant
    body = {"name": "reviews", **TASK}
    first = server.post("/v1/tasks", body, key=key, headers=once("a-1"))
    assert first.status == 201 and "Idempotent-Replayed" not in first.headers
    again = server.post("/v1/tasks", body, key=key, headers=once("a-1"))
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Content-Type"] == "application/json"
    assert server.post("/v1/tasks", body, key=key, headers=once("a-2")).status == 409
    assert names(server, key) == ["reviews"]


@pytest.mark.parametrize("path,body", [
    ("/v1/tasks", {"name": "other", **TASK}),
    ("/v1/tasks?x=1", {"name": "one", **TASK}),
    ("/v1/tasks/one/versions", {"start": "average"})])
def test_a_key_stands_for_one_request(server, tenant, path, body):
    _, key = tenant
    assert server.post("/v1/tasks", {"name": "one", **TASK}, key=key, headers=once("k")).status == 201
    answer = server.post(path, body, key=key, headers=once("k"))
    assert answer.status == 422 and answer.json()["code"] == "idempotency_key_reused"
    assert answer.headers["x-should-retry"] == "false" and names(server, key) == ["one"]


def test_keys_belong_to_a_tenant(server, tenant):
    other = server.make_tenant(tenant[0] + "-other")
    for key in (tenant[1], other):
        answer = server.post("/v1/tasks", {"name": "x", **TASK}, key=key, headers=once("same"))
        assert answer.status == 201 and "Idempotent-Replayed" not in answer.headers


def test_a_refusal_frees_the_key(server, tenant):
    _, key = tenant
    assert server.post("/v1/tasks", {"name": "x"}, key=key, headers=once("k")).status == 422
    assert server.post("/v1/tasks", b"{", key=key, headers={**once("k"), "Content-Type":
                                                            "application/json"}).status == 400
    assert server.post("/v1/tasks", {"name": "x", **TASK}, key=key, headers=once("k")).status == 201


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 256, "ä"])
def test_wrong_keys(server, tenant, given):
    answer = server.post("/v1/tasks", {"name": "x", **TASK}, key=tenant[1],
                         headers={"Idempotency-Key": given.encode("utf-8").decode("latin-1")})
    assert answer.status == 400 and names(server, tenant[1]) == []


def test_versions(server, tenant):
    _, key = tenant
    assert server.post("/v1/tasks", {"name": "x", **TASK}, key=key).status == 201
    made = [server.post("/v1/tasks/x/versions", {"start": "average"}, key=key, headers=once("v"))
            for _ in range(2)]
    assert [m.status for m in made] == [201, 201] and made[0].body == made[1].body
    assert len(server.get("/v1/tasks/x/versions", key=key).json()["data"]) == 2


def test_files_whatever_the_boundary(server, tenant):
    _, key = tenant
    ids = []
    for boundary in ("x", "another-one"):
        body, headers = form(boundary)
        answer = server.post("/v1/files", body, key=key, headers={**headers, **once("f")})
        assert answer.status == 200, answer
        ids.append(answer.json()["id"])
    assert ids[0] == ids[1] and len(server.get("/v1/files", key=key).json()["data"]) == 1
    for other in (form("x", rows="好\n差\n"), form("x", filename="s.jsonl")):
        assert server.post("/v1/files", other[0], key=key,
                           headers={**other[1], **once("f")}).status == 422
    large, headers = form("x", rows="好\n坏\n" * 400)  # written alone, in a transaction of its own
    assert len(large) > 300000
    both = [server.post("/v1/files", large, key=key, headers={**headers, **once("l")})
            for _ in range(2)]
    assert [b.status for b in both] == [200, 200] and both[0].body == both[1].body
    assert len(server.get("/v1/files", key=key).json()["data"]) == 2


def test_jobs(make_server):
    server = make_server(job_threads=0)
    key = server.make_tenant("acme")
    body, headers = form("x")
    file = server.post("/v1/files", body, key=key, headers=headers).json()["id"]
    job = {"model": "boot", "training_file": file, "mp2": {"task": "t", "method": "route"}}
    made = [server.post("/v1/fine_tuning/jobs", job, key=key, headers=once("j")) for _ in range(3)]
    assert [m.status for m in made] == [200] * 3 and len({m.json()["id"] for m in made}) == 1
    server.kill()
    server.start()
    again = server.post("/v1/fine_tuning/jobs", job, key=key, headers=once("j"))
    assert again.body == made[0].body and again.headers["Idempotent-Replayed"] == "true"
    assert len(server.get("/v1/fine_tuning/jobs", key=key).json()["data"]) == 1


def test_tenants_and_a_key_that_is_shown_once(server):
    made = [server.post("/v1/admin/tenants", {"name": "once"}, headers=once("t")) for _ in range(2)]
    assert [m.status for m in made] == [201, 201]
    keys = [server.post("/v1/admin/tenants/once/keys", {"scopes": ["read"]}, headers=once("k"))
            for _ in range(2)]
    first, again = (k.json() for k in keys)
    assert first["key"].startswith("mp2_") and again["key"] is None and again["id"] == first["id"]
    assert len(server.get("/v1/admin/tenants/once/keys").json()["data"]) == 1
    assert server.get("/v1/me", key=first["key"]).status == 200
    path = f"/v1/admin/tenants/once/keys/{first['id']}/rotate"
    turned = [server.post(path, headers=once("r")).json() for _ in range(2)]
    assert turned[0]["key"].startswith("mp2_") and turned[1]["key"] is None
    assert turned[0]["id"] == turned[1]["id"] and turned[0]["id"] != first["id"]
    for file in server.db.parent.iterdir():  # nor does the database hold it
        held = file.read_bytes()
        assert first["key"].encode() not in held and turned[0]["key"].encode() not in held


def test_at_once(server, tenant):
    """Many at once under one key: one is carried out, the others wait their turn or are told to."""
    _, key = tenant
    answers = []

    def send():
        answers.append(server.post("/v1/tasks/x/versions", {"start": "average"}, key=key,
                                   headers=once("crowd")))

    assert server.post("/v1/tasks", {"name": "x", **TASK}, key=key).status == 201
    threads = [threading.Thread(target=send) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status for a in answers} <= {201, 409} and 201 in {a.status for a in answers}
    for answer in answers:
        if answer.status == 409:
            assert answer.json()["code"] == "idempotency_running"
            assert answer.headers["x-should-retry"] == "true"
    assert len({a.body for a in answers if a.status == 201}) == 1
    assert len(server.get("/v1/tasks/x/versions", key=key).json()["data"]) == 2  # with the first


def test_the_answer_of_a_client_that_has_gone_is_kept(server, tenant):
    _, key = tenant
    body, headers = form("x", rows="好\n坏\n" * 400)
    lines = [f"POST /v1/files HTTP/1.1", "Host: x", f"Authorization: Bearer {key}",
             f"Content-Type: {headers['Content-Type']}", f"Content-Length: {len(body)}",
             "Idempotency-Key: gone"]
    with server.connect() as s:
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    end = time.monotonic() + (60 if SLOW else 20)
    answer = None
    while time.monotonic() < end:
        answer = server.post("/v1/files", body, key=key, headers={**headers, **once("gone")})
        if answer.status == 200:
            break
        assert answer.status == 409, answer
        time.sleep(0.05)
    assert answer.status == 200
    assert len(server.get("/v1/files", key=key).json()["data"]) == 1


# ---- usage ---------------------------------------------------------------------------------------

def today():
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def test_usage(server, tenant):
    name, key = tenant
    before = today()
    first = server.get("/v1/usage", key=key).json()
    assert first["object"] == "list" and sum(d["requests"] for d in first["data"]) == 1
    answers = [server.post("/v1/predict", {**TASK, "inputs": ["房间很干净"] * n}, key=key)
               for n in (1, 4)]
    tokens = sum(a.json()["usage"]["tokens"] for a in answers)
    days = server.get("/v1/usage?days=2", key=key).json()["data"]
    assert {d["day"] for d in days} <= {before, today()} and days
    total = {k: sum(d[k] for d in days) for k in days[0] if k != "day"}
    assert total == {"requests": 4, "inputs": 5, "tokens": tokens, "jobs": 0, "trained_tokens": 0}
    assert server.get(f"/v1/usage?tenant={name}").json()["data"] == days  # the admin's look
    assert server.get("/v1/usage?tenant=default", key=key).status == 403
    assert server.get("/v1/usage?tenant=nobody").status == 404
    for wrong in ("days=0", "days=3661", "days=x"):
        assert server.get("/v1/usage?" + wrong, key=key).status == 422


def test_usage_survives(make_server):
    server = make_server()
    key = server.make_tenant("acme")
    body, headers = form("x")
    file = server.post("/v1/files", body, key=key, headers=headers).json()["id"]
    job = server.post("/v1/fine_tuning/jobs", {
        "model": "boot", "training_file": file,
        "mp2": {"task": "t", "method": "route", "budget": {"steps": 4}}}, key=key).json()["id"]
    end = time.monotonic() + (200 if SLOW else 60)
    state = {}
    while time.monotonic() < end and state.get("status") not in ("succeeded", "failed"):
        time.sleep(0.2)
        state = server.get(f"/v1/fine_tuning/jobs/{job}", key=key).json()
    assert state["status"] == "succeeded", state
    for _ in range(20):
        assert server.post("/v1/predict", {**TASK, "inputs": ["好"]}, key=key).status == 200
    used = server.get("/v1/usage", key=key).json()["data"]  # what it shows is written
    assert sum(d["trained_tokens"] for d in used) == state["trained_tokens"] > 0
    assert sum(d["jobs"] for d in used) == 1 and sum(d["inputs"] for d in used) == 20
    server.kill()
    server.start()
    after = server.get("/v1/usage", key=key).json()["data"]
    assert sum(d["inputs"] for d in after) == 20
    assert sum(d["requests"] for d in after) == sum(d["requests"] for d in used) + 1
    assert server.post("/v1/predict", {**TASK, "inputs": ["好"] * 3}, key=key).status == 200
    assert server.stop() == 0  # in order: nothing is lost
    server.start()
    assert sum(d["inputs"] for d in server.get("/v1/usage", key=key).json()["data"]) == 23


def test_usage_is_written_by_itself(fresh_server):
    """Without anybody asking for it."""
    server = fresh_server
    key = server.make_tenant("acme")
    assert server.post("/v1/predict", {**TASK, "inputs": ["好"] * 7}, key=key).status == 200
    end, written = time.monotonic() + 60, 0
    while written < 7 and time.monotonic() < end:
        time.sleep(0.1)
        with contextlib.closing(sqlite3.connect(f"file:{server.db}?mode=ro", uri=True)) as db:
            written = db.execute("SELECT coalesce(sum(inputs), 0) FROM usage").fetchone()[0]
    server.kill()
    server.start()
    assert sum(d["inputs"] for d in server.get("/v1/usage", key=key).json()["data"]) == 7
