"""Tuned prompts over HTTP: learnt by jobs, kept with their version, read on first use, evicted."""
import base64
import concurrent.futures
import json
import os
import re
import subprocess

import pytest

from conftest import BIN, model_dir
from test_files import upload
from test_jobs import BAD, GOOD, create, rows, wait_for

ASK = GOOD[:4] + BAD[:4]
TUNED = {"method": "prompt", "budget": {"steps": 3}}


def learn(server, key, file, task, seed=5, **mp2):
    job = create(server, key, file, {"task": task, **TUNED, **mp2}, seed=seed).json()
    done = wait_for(server, key, job["id"])
    assert done["status"] == "succeeded", done
    return done


def ask(server, key, task, inputs=ASK):
    body = {"task": task, "inputs": inputs, "return": ["scores"]}
    answer = server.post("/v1/predict", body, key=key)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def counted(server, name):
    text = server.get("/metrics", key=None).text
    return float(re.search(rf"^mp2_prompt_cache_{name} (\S+)$", text, re.M).group(1))


@pytest.fixture
def file(server, tenant):
    return upload(server, tenant[1], rows()).json()["id"]


def command(*words):
    env = {**os.environ, "MP2_MODEL": model_dir()}
    done = subprocess.run([str(BIN), *map(str, words)], env=env, capture_output=True, timeout=240,
                          check=True)
    return json.loads(done.stdout or "null")


@pytest.mark.parametrize("method,budget,words", [
    ("prompt", {"steps": 4}, ["--steps", 4]),
    ("route+prompt", {"steps": 6}, ["--steps", 6]),
    ("blackbox", {"evaluations": 30}, ["--evaluations", 30]),
])
def test_a_job_learns_and_serves_what_the_engine_does(server, tenant, file, tmp_path, method, budget,
                                                      words):
    _, key = tenant
    (tmp_path / "rows.jsonl").write_text(rows(), encoding="utf-8")
    out = tmp_path / "task.json"
    command("adapt", "--train", tmp_path / "rows.jsonl", "--method", method, "--seed", 5,
            "--init", "average", "--out", out, *words)
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ASK))
    want = command("predict", "--route", out, "--input", tmp_path / "ask.jsonl", "--json")
    learnt = json.loads(out.read_text(encoding="utf-8"))
    learn(server, key, file, "tuned", method=method, budget=budget, init="average")
    version = server.get("/v1/tasks/tuned/versions/1", key=key).json()
    assert version["method"] == method
    assert version["has_prompt"] == bool(learnt.get("prompt"))
    assert version["has_prompt"] or method == "route+prompt"
    assert version["route"] == pytest.approx(learnt["route"], abs=0)
    got = ask(server, key, "tuned")
    assert [p["label"] for p in got] == [p["label"] for p in want["predictions"]]
    assert [p["score"] for p in got] == [p["score"] for p in want["predictions"]]


def test_cold_after_a_restart_then_warm(make_server):
    server = make_server()
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    learn(server, key, file, "tuned")
    before = ask(server, key, "tuned")
    assert server.stop() == 0
    server.start()
    assert counted(server, "entries") == 0 and counted(server, "bytes") == 0
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        many = [pool.submit(ask, server, key, "tuned") for _ in range(32)]
        assert all(one.result() == before for one in many)
    assert counted(server, "entries") == 1
    assert counted(server, "hits_total") + counted(server, "misses_total") == 32
    bytes_of_one = counted(server, "bytes")
    assert bytes_of_one > 16 * 128 * 4
    assert ask(server, key, "tuned") == before and counted(server, "bytes") == bytes_of_one


def test_the_least_used_goes_when_there_is_no_room(make_server):
    server = make_server(prompt_cache="0")  # raised to what one takes
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    names = ["one", "two", "three"]
    for i, name in enumerate(names):
        learn(server, key, file, name, seed=i)
    answers = {name: ask(server, key, name) for name in names}
    assert len({json.dumps(a) for a in answers.values()}) == 3
    for name in names * 2:
        assert ask(server, key, name) == answers[name]
        assert counted(server, "entries") == 1
        assert counted(server, "bytes") <= counted(server, "limit_bytes")
    assert counted(server, "evictions_total") >= 6

    def either(name):
        body = {"task": name, "inputs": ASK, "return": ["scores"]}
        answer = server.post("/v1/predict", body, key=key)
        assert answer.status in (200, 503), answer
        if answer.status == 200:
            assert answer.json()["predictions"] == answers[name]
        else:
            assert "prompt_cache" in answer.text and "retry-after" in answer.headers
        return answer.status

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        got = list(pool.map(either, names * 12))
    assert 200 in got


def test_versions_of_both_kinds(server, tenant, file):
    """The alias moves between a route and a prompt; a pinned version is asked beside it."""
    _, key = tenant
    learn(server, key, file, "both", method="route", init="average")
    plain = ask(server, key, "both")
    learn(server, key, file, "both", seed=7)
    tuned = ask(server, key, "both")
    assert plain != tuned
    listed = server.get("/v1/tasks/both/versions", key=key).json()["data"]
    assert [v["has_prompt"] for v in listed] == [True, False]
    assert ask(server, key, "both@1") == plain
    assert server.post("/v1/tasks/both/current", {"version": 1}, key=key).status == 200
    assert ask(server, key, "both") == plain and ask(server, key, "both@2") == tuned
    assert server.post("/v1/tasks/both/current", {"version": 2}, key=key).status == 200
    assert ask(server, key, "both") == tuned
    assert server.patch("/v1/tasks/both", {"name": "renamed"}, key=key).status == 200
    assert ask(server, key, "renamed") == tuned
    export = server.get("/v1/tasks/renamed/versions/2", key=key).json()
    refused = server.post("/v1/tasks/renamed/versions", export, key=key)
    assert refused.status == 422 and "has_prompt" in refused.text
    export["has_prompt"] = export["has_head"] = False
    assert server.post("/v1/tasks/renamed/versions", export, key=key).status == 201
    assert server.delete("/v1/tasks/renamed", key=key).status == 200


@pytest.mark.parametrize("how", [{"method": "prompt", "budget": {"steps": 4}},
                                 {"method": "route+prompt", "budget": {"steps": 6}}])
def test_export_and_import_of_tuned_parts(make_server, server, tenant, file, how):
    """From one server to another on the same backbone and bank: the same numbers, to the bit."""
    _, key = tenant
    learn(server, key, file, "whole", init="average", **how)
    want = ask(server, key, "whole")
    plain = server.get("/v1/tasks/whole/versions/1", key=key).json()
    export = server.get("/v1/tasks/whole/versions/1?tuned=true", key=key).json()
    assert "prompt" not in plain and "head" not in plain
    assert {k: v for k, v in export.items() if k not in ("prompt", "head")} == plain
    assert ("prompt" in export, "head" in export) == (plain["has_prompt"], plain["has_head"]) != (False, False)
    other = make_server()
    there = other.make_tenant("there")
    made = other.post("/v1/tasks", {"name": "moved", "type": "classification", "labels": ["正面", "负面"]}, key=there)
    assert made.status == 201
    assert other.post("/v1/tasks/moved/versions", export, key=there).status == 201
    assert ask(other, there, "moved") == want
    other.kill()
    other.start()
    assert ask(other, there, "moved") == want
    again = other.get("/v1/tasks/moved/versions/2?tuned=true", key=there).json()
    assert (again.get("prompt"), again.get("head")) == (export.get("prompt"), export.get("head"))


def test_tuned_parts_that_are_refused(server, tenant, file):
    _, key = tenant
    learn(server, key, file, "hostile", init="average")
    export = server.get("/v1/tasks/hostile/versions/1?tuned=true", key=key).json()
    part = "prompt" if export["has_prompt"] else "head"
    bad = base64.b64encode(b"\x00\x00\xc0\x7f" * (len(base64.b64decode(export[part])) // 4)).decode()
    for value in ("", "=", export[part][:-8], export[part] + "AAAA", "!" + export[part][1:], bad,
                  export[part][:100] + "\n" + export[part][100:], 7, [], {"a": 1}):
        refused = server.post("/v1/tasks/hostile/versions", {**export, part: value}, key=key)
        assert refused.status == 422 and f"#/{part}" in refused.text, (value, refused)
    assert server.get("/v1/tasks/hostile/versions/1?tuned=maybe", key=key).status == 422
    assert len(server.get("/v1/tasks/hostile/versions", key=key).json()["data"]) == 1


def test_facades_use_the_prompt(server, tenant, file):
    name, key = tenant
    learn(server, key, file, "facade")
    want = ask(server, key, "facade", [GOOD[0]])[0]
    got = server.post("/hf/facade", {"inputs": GOOD[0]}, key=key).json()
    assert got[0][0] == {"label": want["label"], "score": want["score"]}
    body = {"inputs": GOOD[0], "parameters": {"candidate_labels": ["正面", "负面"]}}
    zero = server.post("/hf/facade", body, key=key).json()
    assert {s["label"]: s["score"] for s in zero} == pytest.approx(
        {s["label"]: s["score"] for s in want["scores"]}, abs=1e-6)
    infer = server.post("/v2/models/facade/infer", {"inputs": [
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": [GOOD[0]]}]}, key=key).json()
    assert infer["outputs"][0]["data"] == [want["label"]]
