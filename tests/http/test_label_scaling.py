"""Tasks with labels: a job learns beside the route how the model's scores of them are to be read; exports carry it,
imports check it."""
import json
import math
import os
import subprocess

import pytest

from conftest import BIN, model_dir
from test_answer_length import ASKED as SPAN_ASKED, version
from test_files import upload
from test_jobs import BAD, GOOD, create, wait_for

WORDS = ["甲", "乙"]  # which of them means pleased, only the rows say
ASKED = ["味道真好", "服务太差了", "房间很干净", "等了两个小时"]
BIASED = {"scale": 1, "bias": [-9, 9], "cross": None}


def ask(server, key, task, texts=tuple(ASKED)):
    answer = server.post("/v1/predict", {"task": task, "inputs": [{"text": text} for text in texts],
                                         "return": ["scores"]}, key=key)
    assert answer.status == 200, answer
    return [{one["label"]: one["score"] for one in p["scores"]} for p in answer.json()["predictions"]]


def rows():
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"
                   for texts, label in ((GOOD, WORDS[1]), (BAD, WORDS[0])) for text in texts)


def learn(server, key, task, validation_file=None, **more):
    file = upload(server, key, rows()).json()["id"]
    job = create(server, key, file, {"task": task, "labels": WORDS, "init": "average", "budget": {"steps": 2}, **more},
                 **({"validation_file": validation_file} if validation_file else {}))
    done = wait_for(server, key, job.json()["id"])
    assert done["status"] == "succeeded", done
    return done, version(server, key, task, server.get(f"/v1/tasks/{task}", key=key).json()["current"])


def test_a_job_learns_it_unless_told(server, tenant):
    _, key = tenant
    done, learnt = learn(server, key, "pleased")
    scaling = learnt["label_scaling"]
    assert done["mp2"]["label_scaling"] is True and set(scaling) == {"scale", "bias", "cross"}
    assert len(scaling["bias"]) == 2 and [len(row) for row in scaling["cross"]] == [2, 2]
    assert scaling["bias"][0] == pytest.approx(-scaling["bias"][1], abs=1e-5)  # their priors pull alike
    done, plain = learn(server, key, "plain", label_scaling=False)
    assert done["mp2"]["label_scaling"] is False and plain["label_scaling"] is None
    # the same route read in two ways
    put = server.post("/v1/tasks/plain/versions", {**learnt, "task": "plain", "label_scaling": None}, key=key)
    assert put.status == 201, put
    assert ask(server, key, "plain") != ask(server, key, "pleased")


def test_the_report_is_of_rows_that_it_was_not_fitted_to(server, tenant):
    _, key = tenant
    dev = [(text, WORDS[0]) for text in GOOD + BAD] * 2 + [(GOOD[0], WORDS[1])]  # hardly ever the other label
    file = upload(server, key, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in dev))
    done, _ = learn(server, key, "mostly", validation_file=file.json()["id"])
    result = done["mp2"]["result"]
    matrix = result["confusion"]["matrix"]
    assert (matrix[0][0] + matrix[1][1]) / sum(map(sum, matrix)) == pytest.approx(result["accuracy"])
    # what is published fits all rows, and so says that label more often
    answers = [max(scores, key=scores.get) for scores in ask(server, key, "mostly", [text for text, _ in dev])]
    assert sum(got == label for got, (_, label) in zip(answers, dev)) / len(dev) > result["accuracy"] + 0.1


def test_own_labels_in_another_order_are_read_alike(server, tenant):
    _, key = tenant
    crossed = {"scale": 0, "bias": [0, 1], "cross": [[0, 0], [1, 0]]}  # 乙 as the model scores 甲, and one more
    for name, scaling in (("plain", None), ("crossed", crossed)):
        assert server.post("/v1/tasks", {"name": name, "type": "classification", "labels": WORDS},
                           key=key).status == 201
        put = server.post(f"/v1/tasks/{name}/versions", {"start": "average", "label_scaling": scaling}, key=key)
        assert put.status == 201, put

    def odds(name, text, labels):
        body = {"inputs": text, "parameters": {"candidate_labels": labels}}
        scores = {one["label"]: one["score"] for one in server.post(f"/hf/{name}", body, key=key).json()}
        return scores["乙"] / scores["甲"]

    for text, own in zip(ASKED, ask(server, key, "crossed")):
        assert odds("crossed", text, WORDS) == pytest.approx(own["乙"] / own["甲"], rel=1e-4)
        for labels in (WORDS, WORDS[::-1]):  # z of 甲 is half of the logarithm of what 甲 is above 乙
            z = -math.log(odds("plain", text, labels)) / 2
            assert odds("crossed", text, labels) == pytest.approx(math.exp(z + 1), rel=1e-4)
        others = ["甲", "丙"]  # not its own: as the model scores them
        body = {"inputs": text, "parameters": {"candidate_labels": others}}
        assert server.post("/hf/crossed", body, key=key).json() == server.post("/hf/plain", body, key=key).json()


def test_it_is_served_and_moves_with_the_version(make_server, server, tenant, tmp_path):
    _, key = tenant
    _, learnt = learn(server, key, "pleased")
    want = ask(server, key, "pleased")
    other = make_server()
    there = other.make_tenant("there")
    for name, scaling in (("moved", learnt["label_scaling"]), ("plain", None), ("biased", BIASED)):
        made = other.post("/v1/tasks", {"name": name, "type": "classification", "labels": WORDS}, key=there)
        assert made.status == 201 and version(other, there, name, 1)["label_scaling"] is None, made
        put = other.post(f"/v1/tasks/{name}/versions", {**learnt, "label_scaling": scaling}, key=there)
        assert put.status == 201 and put.json()["label_scaling"] == scaling, put
    assert ask(other, there, "moved") == want
    plain = ask(other, there, "plain")
    assert plain != want
    for before, after in zip(plain, ask(other, there, "biased")):
        odds = before["乙"] / before["甲"]
        assert after["乙"] / (after["甲"] + 1e-12) == pytest.approx(odds * 2.718281828 ** 18, rel=1e-2)
    other.kill()
    other.start()
    assert ask(other, there, "moved") == want
    exported = version(other, there, "moved", 2)
    assert exported["label_scaling"] == learnt["label_scaling"]
    # the command line reads the export and answers the same
    (tmp_path / "route.json").write_text(json.dumps({**exported, "type": "classification", "labels": WORDS}),
                                         encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ASKED),
                                         encoding="utf-8")
    said = subprocess.run([str(BIN), "predict", "--route", tmp_path / "route.json", "--input", tmp_path / "rows.jsonl",
                           "--json"], env={**os.environ, "MP2_MODEL": model_dir()}, capture_output=True, check=True,
                          timeout=240)
    for got, wanted in zip(json.loads(said.stdout)["predictions"], want):
        assert {one["label"]: one["score"] for one in got["scores"]} == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("scaling,pointer", [
    ({"bias": [0, 0]}, "#/label_scaling/scale"), ({"scale": 1}, "#/label_scaling/bias"),
    ({"scale": "1", "bias": [0, 0]}, "#/label_scaling/scale"),
    ({"scale": 1e9, "bias": [0, 0]}, "#/label_scaling/scale"),
    ({"scale": 1, "bias": [0]}, "#/label_scaling/bias"), ({"scale": 1, "bias": [0, "1"]}, "#/label_scaling/bias/1"),
    ({"scale": 1, "bias": [0, 1e9]}, "#/label_scaling/bias/1"), ({"scale": 1, "bias": 2}, "#/label_scaling/bias"),
    ({"scale": 1, "bias": [0, 0], "cross": [[0, 0]]}, "#/label_scaling/cross"),
    ({"scale": 1, "bias": [0, 0], "cross": [[0, 0], [0]]}, "#/label_scaling/cross/1"),
    ({"scale": 1, "bias": [0, 0], "cross": [[0, 0], 0]}, "#/label_scaling/cross/1"),
    ({"scale": 1, "bias": [0, 0], "cross": [[0, 0], [0, None]]}, "#/label_scaling/cross/1/1"),
    ({"scale": 1, "bias": [0] * 9, "cross": [[0] * 9] * 9}, "#/label_scaling/bias"),
    ({"scale": 1, "bias": [0, 0], "weights": []}, "#/label_scaling/weights"),
    ([1, 0, 0], "#/label_scaling"), (2, "#/label_scaling")])
def test_what_is_refused(server, tenant, scaling, pointer):
    _, key = tenant
    assert server.post("/v1/tasks", {"name": "ab", "type": "classification", "labels": WORDS}, key=key).status == 201
    refused = server.post("/v1/tasks/ab/versions", {"start": "average", "label_scaling": scaling}, key=key)
    assert refused.status == 422 and pointer in refused.text, refused


def test_it_is_of_the_tasks_labels(server, tenant):
    _, key = tenant
    nine = [f"第{i}类" for i in range(9)]
    for name, form in (("ab", {"type": "classification", "labels": WORDS}), ("qa", {"type": "extractive"}),
                       ("nine", {"type": "classification", "labels": nine})):
        assert server.post("/v1/tasks", {"name": name, **form}, key=key).status == 201
    for name, biases in (("ab", 3), ("qa", 2), ("nine", 8)):
        refused = server.post(f"/v1/tasks/{name}/versions",
                              {"start": "average", "label_scaling": {"scale": 1, "bias": [0] * biases}}, key=key)
        assert refused.status == 409 and "label_scaling" in refused.text, refused
    assert "label_scaling" not in version(server, key, "qa", 1)
    scaling = {"scale": 1, "bias": [0] * 8 + [20], "cross": None}
    put = server.post("/v1/tasks/nine/versions", {"start": "average", "label_scaling": scaling}, key=key)
    assert put.status == 201 and put.json()["label_scaling"] == scaling, put
    assert all(max(scores, key=scores.get) == nine[8] for scores in ask(server, key, "nine"))


def test_a_task_of_the_request_alone_may_bring_it(server, tenant):
    _, key = tenant
    _, learnt = learn(server, key, "pleased")
    alone = {"type": "classification", "labels": WORDS, "route": learnt["route"],
             "label_scaling": learnt["label_scaling"]}
    body = {"inputs": [{"text": text} for text in ASKED], "return": ["scores"]}
    want = ask(server, key, "pleased")
    for asked in ({**alone, **body}, {"task": alone, **body}):
        answer = server.post("/v1/predict", asked, key=key)
        assert answer.status == 200, answer
        got = [{one["label"]: one["score"] for one in p["scores"]} for p in answer.json()["predictions"]]
        assert got == want
    for change, pointer in (({"labels": ["甲", "乙", "丙"]}, "#/label_scaling"),
                            ({"answer_length": {"mu": 1, "sigma": 1}}, "#/answer_length"),
                            ({"label_scaling": {"scale": 1}}, "#/label_scaling/bias")):
        refused = server.post("/v1/predict", {**alone, **body, **change}, key=key)
        assert refused.status == 422 and pointer in refused.text, refused


def test_spans_of_the_request_alone_may_bring_their_length(server, tenant):
    _, key = tenant
    body = {"type": "extractive", "inputs": [SPAN_ASKED[0]]}
    for mu, least, most in ((0, 1, 2), (3, 14, 27)):
        answer = server.post("/v1/predict", {**body, "answer_length": {"mu": mu, "sigma": 0.1}}, key=key)
        assert answer.status == 200, answer
        assert least <= len(answer.json()["predictions"][0]["answer"]) <= most, answer
