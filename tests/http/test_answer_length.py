"""Extractive tasks: a job learns how long answers are beside the route; exports carry it, imports check it."""
import json
import math
import os
import statistics
import subprocess

import pytest

from conftest import BIN, model_dir
from test_files import upload
from test_jobs import create, wait_for

# Where a thing is: the answers are two signs, seldom three.
THINGS = [("钥匙", "抽屉"), ("雨伞", "门后"), ("护照", "书包"), ("眼镜", "床头"), ("药箱", "厨房"), ("相机", "柜子里"),
          ("围巾", "衣架"), ("地图", "车上"), ("邮票", "信封"), ("手表", "桌面"), ("剪刀", "工具箱"), ("水杯", "窗台")]
ASKED = [{"question": "帽子在哪里？", "context": "帽子昨天还放在沙发上，今天早上妈妈把它收到了阳台，说是要晒一晒。"},
         {"question": "票在哪里？", "context": "火车票放在外套的口袋里，你出门以前记得再看一眼，别像上次那样又忘了。"}]


def rows():
    return "".join(json.dumps({"context": f"我昨天把{thing}放在{place}了，你去拿吧，拿完记得关灯。",
                               "question": f"{thing}在哪里？", "answer": place}, ensure_ascii=False) + "\n"
                   for thing, place in THINGS)


def ask(server, key, task):
    answer = server.post("/v1/predict", {"task": task, "inputs": ASKED}, key=key)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def version(server, key, task, number):
    got = server.get(f"/v1/tasks/{task}/versions/{number}", key=key)
    assert got.status == 200, got
    return got.json()


@pytest.fixture
def learnt(server, tenant):
    """The export of a version that a job made of the rows above, the task "where"."""
    _, key = tenant
    file = upload(server, key, rows()).json()["id"]
    job = create(server, key, file, {"task": "where", "type": "extractive", "init": "average",
                                     "budget": {"steps": 2}}).json()
    done = wait_for(server, key, job["id"])
    assert done["status"] == "succeeded", done
    events = server.get(f"/v1/fine_tuning/jobs/{job['id']}/events", key=key).json()["data"]
    assert any("Job succeeded: F1 " in event["message"] for event in events), events
    return version(server, key, "where", server.get("/v1/tasks/where", key=key).json()["current"])


def test_a_job_learns_the_length(learnt):
    length = learnt["answer_length"]
    # tokens of this vocabulary are signs; all twelve rows train, the last run of a cross-validation too
    logs = [math.log(len(place)) for _, place in THINGS]
    spread = sum((x - statistics.mean(logs)) ** 2 for x in logs)
    assert length["mu"] == pytest.approx(statistics.mean(logs), abs=1e-6)
    assert length["sigma"] == pytest.approx(math.sqrt((spread + 4 * 0.7 ** 2) / (len(logs) + 4)), abs=1e-6)


def test_it_weighs_what_is_served_and_moves_with_the_version(make_server, server, tenant, learnt, tmp_path):
    _, key = tenant
    want = ask(server, key, "where")
    other = make_server()
    there = other.make_tenant("there")
    for name, length in (("moved", learnt["answer_length"]), ("plain", None), ("long", {"mu": 3, "sigma": 0.1})):
        made = other.post("/v1/tasks", {"name": name, "type": "extractive"}, key=there)
        assert made.status == 201 and version(other, there, name, 1)["answer_length"] is None, made
        put = other.post(f"/v1/tasks/{name}/versions", {**learnt, "answer_length": length}, key=there)
        assert put.status == 201 and put.json()["answer_length"] == (length and pytest.approx(length, rel=1e-6)), put
    assert ask(other, there, "moved") == want
    assert ask(other, there, "plain") != want
    for prediction in ask(other, there, "long"):
        assert 14 <= len(prediction["answer"]) <= 27, prediction
    other.kill()
    other.start()
    assert ask(other, there, "moved") == want
    exported = version(other, there, "moved", 2)
    assert exported["answer_length"] == learnt["answer_length"]
    # the command line reads the export and answers the same
    (tmp_path / "route.json").write_text(json.dumps(exported), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASKED), encoding="utf-8")
    said = subprocess.run([str(BIN), "predict", "--route", tmp_path / "route.json", "--input", tmp_path / "rows.jsonl",
                           "--json"], env={**os.environ, "MP2_MODEL": model_dir()}, capture_output=True, check=True,
                          timeout=240)
    got = json.loads(said.stdout)["predictions"]
    assert [(p["answer"], p["start"], p["end"]) for p in got] == [(p["answer"], p["start"], p["end"]) for p in want]
    assert [p["score"] for p in got] == pytest.approx([p["score"] for p in want], abs=1e-6)


@pytest.mark.parametrize("length,pointer", [
    ({"mu": 1}, "#/answer_length/sigma"), ({"mu": -1, "sigma": 1}, "#/answer_length/mu"),
    ({"mu": 1, "sigma": 0}, "#/answer_length/sigma"), ({"mu": 1, "sigma": 1e9}, "#/answer_length/sigma"),
    ({"mu": 1, "sigma": 1, "tokens": 3}, "#/answer_length/tokens"), ({"mu": "1", "sigma": 1}, "#/answer_length/mu"),
    ([1, 1], "#/answer_length"), (2, "#/answer_length")])
def test_lengths_that_are_refused(server, tenant, length, pointer):
    _, key = tenant
    assert server.post("/v1/tasks", {"name": "qa", "type": "extractive"}, key=key).status == 201
    refused = server.post("/v1/tasks/qa/versions", {"start": "average", "answer_length": length}, key=key)
    assert refused.status == 422 and pointer in refused.text, refused


def test_labels_have_no_length(server, tenant):
    _, key = tenant
    made = server.post("/v1/tasks", {"name": "ab", "type": "classification", "labels": ["甲", "乙"]}, key=key)
    assert made.status == 201
    refused = server.post("/v1/tasks/ab/versions", {"start": "average", "answer_length": {"mu": 1, "sigma": 1}},
                          key=key)
    assert refused.status == 409 and "extractive" in refused.text, refused
    assert "answer_length" not in version(server, key, "ab", 1)
