"""Pause, resume, crash and shutdown of jobs: nothing is lost but seconds, and not a bit of the result.
Whose turn it is; what a job is thought to cost; what it says of itself when it has ended."""
import json
import re
import sqlite3
import time

import pytest

from test_files import upload
from test_jobs import BAD, GOOD, LONG, SHORT, create, job_of, rows, wait_for


@pytest.fixture
def file(server, tenant):
    return upload(server, tenant[1], rows()).json()["id"]


def act(server, key, job, verb):
    return server.post(f"/v1/fine_tuning/jobs/{job}/{verb}", key=key)


def messages(server, key, job):
    path = f"/v1/fine_tuning/jobs/{job}/events?limit=100&order=asc"
    return [e["message"] for e in server.get(path, key=key).json()["data"]]


def checkpoints(server, key, job):
    return server.get(f"/v1/fine_tuning/jobs/{job}/checkpoints", key=key).json()["data"]


def blobs(server, job):
    """What the job's version computes with, to the bit."""
    with sqlite3.connect(f"file:{server.db}?mode=ro", uri=True) as db:
        found = db.execute("SELECT v.route, b.prompt, b.head FROM task_versions v LEFT JOIN"
                           " version_blobs b ON b.version = v.id WHERE v.job = ?", (job,))
        row = found.fetchone()
    db.close()
    assert row is not None
    return row


def wait_for_state(server, key, job, beyond=0):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        kept = checkpoints(server, key, job)
        if kept and kept[0]["step_number"] > beyond:
            return kept[0]
        time.sleep(0.02)
    raise AssertionError("no state was stored")


HOW = {
    "route": {"method": "route", "budget": {"steps": 200}, "eval_every": 50, "init": "average"},
    "prompt": {"method": "prompt", "budget": {"steps": 150}, "eval_every": 50},
    "blackbox": {"method": "blackbox", "budget": {"evaluations": 300}, "init": "average"},
}


@pytest.fixture(scope="module")
def interrupted():
    """One server whose jobs store their state often; each method's result when nothing disturbs."""
    from conftest import _factory
    make, end = _factory()
    server = make(job_checkpoint="50ms")
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    calm = {}
    for method, how in HOW.items():
        job = create(server, key, file, how, seed=3).json()["id"]
        assert wait_for(server, key, job)["status"] == "succeeded"
        calm[method] = blobs(server, job)
    yield server, key, file, calm
    end()


@pytest.mark.parametrize("method", list(HOW))
def test_paused_and_resumed_it_ends_the_same(interrupted, method):
    server, key, file, calm = interrupted
    job = create(server, key, file, HOW[method], seed=3).json()["id"]
    wait_for_state(server, key, job)
    asked = act(server, key, job, "pause")
    assert asked.status == 200, asked
    paused = wait_for(server, key, job, ("paused", "succeeded"))
    assert paused["status"] == "paused", "it was over before the pause"
    assert act(server, key, job, "pause").status == 200  # once more does nothing
    other = create(server, key, file, SHORT).json()["id"]  # the worker is free
    assert wait_for(server, key, other)["status"] == "succeeded"
    state = checkpoints(server, key, job)[0]
    assert state["step_number"] > 0 and state["mp2"]["resumable"] and state["mp2"]["bytes"] > 0
    assert state["fine_tuned_model_checkpoint"] is None and state["fine_tuning_job_id"] == job
    assert job_of(server, key, job)["status"] == "paused"
    assert act(server, key, job, "resume").json()["status"] == "queued"
    done = wait_for(server, key, job)
    assert done["status"] == "succeeded" and done["mp2"]["attempts"] == 1
    said = messages(server, key, job)
    assert f"Job paused at step {state['step_number']}" in said and "Job resumed, queued" in said
    assert f"Going on from step {state['step_number']}" in said
    assert blobs(server, job) == calm[method]


@pytest.mark.parametrize("method", list(HOW))
def test_killed_it_goes_on_and_ends_the_same(interrupted, method):
    server, key, file, calm = interrupted
    job = create(server, key, file, HOW[method], seed=3).json()["id"]
    state = wait_for_state(server, key, job)
    server.kill()
    server.start()
    state = wait_for_state(server, key, job, state["step_number"])
    assert server.stop() == 0
    server.start()
    assert wait_for(server, key, job)["status"] == "succeeded"
    said = messages(server, key, job)
    went_on = [int(m.removeprefix("Going on from step ")) for m in said if "Going on" in m]
    assert len(went_on) == 2 and went_on[1] >= state["step_number"] >= went_on[0] > 0
    assert blobs(server, job) == calm[method]
    ended = checkpoints(server, key, job)
    assert len(ended) == 1 and ended[0]["fine_tuned_model_checkpoint"].startswith("ft:boot:acme:")
    assert not ended[0]["mp2"]["resumable"]


def test_a_state_that_fits_no_more_begins_anew(interrupted):
    server, key, file, calm = interrupted
    job = create(server, key, file, HOW["route"], seed=3).json()["id"]
    wait_for_state(server, key, job)
    server.kill()
    with sqlite3.connect(server.db) as db:
        db.execute("UPDATE job_checkpoints SET state = zeroblob(100)")
    db.close()
    server.start()
    assert wait_for(server, key, job)["status"] == "succeeded"
    assert any(m.startswith("Beginning anew") for m in messages(server, key, job))
    assert blobs(server, job) == calm["route"]


def test_pause_while_it_waits_and_after_the_end(server, tenant, file):
    _, key = tenant
    first = create(server, key, file, LONG).json()["id"]
    wait_for(server, key, first, ("running",))
    job = create(server, key, file, SHORT).json()["id"]
    assert act(server, key, job, "pause").json()["status"] == "paused"
    act(server, key, first, "cancel")
    wait_for(server, key, first)
    third = create(server, key, file, SHORT).json()["id"]
    wait_for(server, key, third)
    assert job_of(server, key, job)["status"] == "paused"  # others passed it
    assert act(server, key, job, "resume").status == 200
    assert wait_for(server, key, job)["status"] == "succeeded"
    for verb in ("pause", "resume"):
        refused = act(server, key, job, verb)
        assert refused.status == 409 and "succeeded" in refused.json()["error"]["message"]
        assert act(server, key, "ftjob-no", verb).status == 404
    again = create(server, key, file, SHORT).json()["id"]
    act(server, key, again, "pause")
    act(server, key, again, "cancel")
    assert wait_for(server, key, again)["status"] == "cancelled"


def test_cancel_and_pause_during_retrieval(make_server):
    server = make_server()
    key = server.make_tenant("acme")
    file = upload(server, key, rows(times=150)).json()["id"]  # long to compare with every row
    job = create(server, key, file, {"budget": {"steps": 10}}).json()["id"]
    wait_for(server, key, job, ("running",))
    act(server, key, job, "pause")
    assert wait_for(server, key, job, ("paused", "succeeded"))["status"] == "paused"
    assert not any("Step" in m for m in messages(server, key, job))
    act(server, key, job, "resume")
    wait_for(server, key, job, ("running",))
    act(server, key, job, "cancel")
    assert wait_for(server, key, job)["status"] == "cancelled"
    assert not any("Step" in m for m in messages(server, key, job))


def test_turns_go_round_the_tenants(make_server):
    server = make_server()
    keys = [server.make_tenant(name) for name in ("many", "few")]
    files = [upload(server, key, rows()).json()["id"] for key in keys]
    block = create(server, keys[0], files[0], LONG).json()["id"]
    wait_for(server, keys[0], block, ("running",))
    jobs = [(0, create(server, keys[0], files[0], SHORT).json()["id"]) for _ in range(5)]
    jobs += [(1, create(server, keys[1], files[1], SHORT).json()["id"]) for _ in range(2)]
    act(server, keys[0], block, "cancel")
    begun = []
    for tenant, job in jobs:
        wait_for(server, keys[tenant], job)
        path = f"/v1/fine_tuning/jobs/{job}/events?order=asc&limit=100"
        events = server.get(path, key=keys[tenant]).json()["data"]
        start = next(e for e in events if e["message"] == "Job started")
        begun.append((int(start["id"].removeprefix("ftevent-")), tenant))
    assert [tenant for _, tenant in sorted(begun)] == [1, 0, 1, 0, 0, 0, 0]


def test_estimate(server, tenant, file):
    _, key = tenant
    before = server.get("/v1/fine_tuning/jobs", key=key).json()["data"]
    body = {"model": "boot", "training_file": file, "seed": 5, "mp2": {"budget": {"steps": 40}}}
    answer = server.post("/v1/fine_tuning/jobs/estimate", body, key=key)
    assert answer.status == 200, answer
    cost = answer.json()
    assert cost["object"] == "fine_tuning.job.estimate" and cost["method"] == "route"
    assert cost["type"] == "classification" and cost["labels"] == ["正面", "负面"]
    assert (cost["train_rows"], cost["validation_rows"], cost["steps"]) == (16, 16, 200)
    assert cost["tokens"] > 40 * 8 * 16 and cost["seconds"] > 0
    more = {**body, "mp2": {"budget": {"steps": 400}}}
    assert server.post("/v1/fine_tuning/jobs/estimate", more, key=key).json()["tokens"] > \
        5 * cost["tokens"]
    assert server.get("/v1/fine_tuning/jobs", key=key).json()["data"] == before
    bad = server.post("/v1/fine_tuning/jobs/estimate", {**body, "training_file": "file-no"},
                      key=key)
    assert bad.status == 404 and bad.json()["error"]["param"] == "training_file"
    job = server.post("/v1/fine_tuning/jobs", body, key=key).json()
    assert job["mp2"]["estimate"] == cost
    done = wait_for(server, key, job["id"])
    assert done["mp2"]["result"]["tokens"] == pytest.approx(cost["tokens"], rel=0.5)


def test_estimated_finish_while_it_runs(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, LONG).json()["id"]
    wait_for(server, key, job, ("running",))
    end = time.monotonic() + 60
    while (seen := job_of(server, key, job))["estimated_finish"] is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert seen["estimated_finish"] >= seen["created_at"]
    act(server, key, job, "cancel")
    assert wait_for(server, key, job)["estimated_finish"] is None


def test_confusion_and_wrong_rows(server, tenant, file):
    _, key = tenant
    dev_rows = rows(times=4)
    dev = upload(server, key, dev_rows).json()["id"]
    # what is published fits these rows too where it fits how labels are read, what is reported does not
    how = {"task": "told", "budget": {"steps": 1}, "init": "average", "lr": 1e-6, "label_scaling": False}
    job = create(server, key, file, how, validation_file=dev).json()["id"]
    result = wait_for(server, key, job)["mp2"]["result"]
    confusion = result["confusion"]
    assert confusion["labels"] == ["正面", "负面"]
    matrix = confusion["matrix"]
    assert [sum(line) for line in matrix] == [32, 32]
    assert (matrix[0][0] + matrix[1][1]) / 64 == pytest.approx(result["accuracy"])
    parsed = [json.loads(line) for line in dev_rows.splitlines()]
    asked = server.post("/v1/predict", {"task": "told", "inputs": [r["text"] for r in parsed]},
                        key=key).json()["predictions"]
    wrong = [(i, p) for i, p in enumerate(asked) if p["label"] != parsed[i]["label"]]
    assert len(wrong) == matrix[0][1] + matrix[1][0]
    assert [e["row"] for e in result["errors"]] == [i for i, _ in wrong][:50]
    for error, (i, predicted) in zip(result["errors"], wrong):
        assert error["input"] == {"text": parsed[i]["text"]} and error["label"] == parsed[i]["label"]
        assert error["predicted"] == predicted["label"]
        assert error["score"] == pytest.approx(predicted["score"], abs=1e-6)
    listed = server.get("/v1/fine_tuning/jobs", key=key).json()["data"][0]["mp2"]["result"]
    assert "errors" not in listed and listed["confusion"] == confusion
    version = server.get("/v1/tasks/told/versions/1", key=key).json()
    assert "errors" not in version["metrics"] and version["metrics"]["accuracy"] == result["accuracy"]


def test_wrong_rows_of_other_types(server, tenant):
    _, key = tenant
    context = "会议定在周五下午三点，地点是二号楼。"
    spans = [{"question": q, "context": context, "answer": a, "answer_start": context.index(a)}
             for q, a in (("会议在哪天？", "周五"), ("几点？", "三点"), ("在哪里？", "二号楼")) * 4]
    choices = [{"question": "哪个好？", "options": ["好", "坏"], "context": t, "label": "好"}
               for t in GOOD + BAD]
    for lines in (spans, choices):
        file = upload(server, key, "".join(json.dumps(r) + "\n" for r in lines)).json()["id"]
        done = wait_for(server, key, create(server, key, file, SHORT).json()["id"])
        result = done["mp2"]["result"]
        assert result["confusion"] is None, done
        right = round(result["accuracy"] * result["validation_rows"])
        assert len(result["errors"]) == result["validation_rows"] - right
        for error in result["errors"]:
            assert error["predicted"] != error["label"] and error["label"] in context + "好坏"
            assert 0 <= error["score"] <= 1


def test_metrics_of_jobs(interrupted):
    server = interrupted[0]
    text = server.get("/metrics", key=None).text
    for name in ("mp2_job_checkpoints_total", "mp2_job_checkpoint_bytes_total",
                 "mp2_jobs_resumed_total"):
        assert re.search(rf"^{name} \d", text, re.M), name
