"""Jobs with "publish": false: what is learnt is kept as a version, and callers get what they had until it is
published; kept over a restart; the name can be asked at once, zero-shot, when the task is new."""
import pytest

from test_files import upload
from test_jobs import SHORT, create, job_of, rows, wait_for

TEXTS = ["饭菜很香", "地方又小又吵", "还行吧"]


def scores(server, key, task, **more):
    answer = server.post("/v1/predict", {"task": task, "inputs": TEXTS, "return": ["scores"], **more}, key=key)
    assert answer.status == 200, answer
    return [p["scores"] for p in answer.json()["predictions"]]


def zero_shot(server, key):
    answer = server.post("/v1/predict", {"type": "classification", "labels": ["正面", "负面"],
                                         "inputs": TEXTS, "return": ["scores"]}, key=key)
    return [p["scores"] for p in answer.json()["predictions"]]


def held(server, key, task, steps=6):
    file = upload(server, key, rows()).json()["id"]
    made = create(server, key, file, {"task": task, "budget": {"steps": steps}, "init": "random",
                                      "publish": False}, seed=5)
    assert made.status == 200 and made.json()["mp2"]["publish"] is False
    done = wait_for(server, key, made.json()["id"])
    assert done["status"] == "succeeded", done
    return done


def test_a_new_task_answers_zero_shot_until_it_is_published(make_server):
    server = make_server()
    key = server.make_tenant("acme")
    job = held(server, key, "new")
    assert job["mp2"]["version"] == 2
    task = server.get("/v1/tasks/new", key=key).json()
    assert task["current"] == 1
    assert server.get("/v1/tasks/new/versions/1", key=key).json()["method"] == "average"
    events = server.get(f"/v1/fine_tuning/jobs/{job['id']}/events", key=key).json()["data"]
    assert "stored, not published" in events[0]["message"]
    learnt = scores(server, key, "new@2")
    assert scores(server, key, "new") == zero_shot(server, key) != learnt
    assert scores(server, key, job["fine_tuned_model"]) == learnt  # by the job's own name
    server.kill()
    server.start()
    assert scores(server, key, "new") == zero_shot(server, key)
    assert scores(server, key, "new@2") == learnt
    moved = server.post("/v1/tasks/new/current", {"version": 2}, key=key)
    assert moved.status == 200, moved
    assert scores(server, key, "new") == learnt


def test_callers_keep_what_they_had(server, tenant):
    _, key = tenant
    file = upload(server, key, rows()).json()["id"]
    first = create(server, key, file, {"task": "kept", **SHORT}, seed=1).json()
    assert first["mp2"]["publish"] is True
    wait_for(server, key, first["id"])
    before = scores(server, key, "kept")
    job = held(server, key, "kept")
    assert job["mp2"]["version"] == 2 and job_of(server, key, job["id"])["mp2"]["publish"] is False
    assert server.get("/v1/tasks/kept", key=key).json()["current"] == 1
    assert scores(server, key, "kept") == before != scores(server, key, "kept@2")
    last = create(server, key, file, {"task": "kept", **SHORT}, seed=2).json()["id"]
    wait_for(server, key, last)  # the next one is published as ever
    assert server.get("/v1/tasks/kept", key=key).json()["current"] == 3


@pytest.mark.parametrize("value", ["no", 0])
def test_it_is_true_or_false(server, tenant, value):
    _, key = tenant
    file = upload(server, key, rows()).json()["id"]
    answer = create(server, key, file, {"task": "x", "publish": value})
    assert answer.status == 422 and answer.json()["error"]["param"] == "mp2/publish"
