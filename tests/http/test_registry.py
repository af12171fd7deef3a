"""The registry over HTTP: undoing a deletion, orders of the list, similar tasks, evaluation."""
import json
import math
import sqlite3
import contextlib
import time

import pytest

from conftest import SLOW

LABELS = ["负面", "正面"]
TASK = {"type": "classification", "labels": LABELS}
ROUTE = [1.5, -2, 0.25, 3, -0.5, 0, 2, -1]
TEXTS = ["房间很干净，下次还来", "太差了，再也不来了", "味道一般", "物流太慢", "服务周到", "不推荐"]


def made(server, key, name, **more):
    answer = server.post("/v1/tasks", {"name": name, **TASK, **more}, key=key)
    assert answer.status == 201, answer
    return answer.json()


def names(server, key, query=""):
    return [t["name"] for t in server.get("/v1/tasks?limit=1000" + query, key=key).json()["data"]]


def predictions(server, key, task, inputs):
    answer = server.post("/v1/predict", {"task": task, "inputs": inputs, "return": ["scores"]}, key=key)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def upload(server, key, rows):
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    body = ("--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--x\r\n"
            "Content-Disposition: form-data; name=\"file\"; filename=\"r.jsonl\"\r\n\r\n"
            + lines + "\r\n--x--\r\n").encode()
    answer = server.post("/v1/files", body, key=key,
                         headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status == 200, answer
    return answer.json()["id"]


# ---- undo ----------------------------------------------------------------------------------------

def test_delete_and_restore(server, tenant):
    _, key = tenant
    made(server, key, "reviews", route=ROUTE)
    before = predictions(server, key, "reviews", TEXTS)
    assert server.delete("/v1/tasks/reviews", key=key).status == 200
    assert names(server, key) == []
    gone = server.get("/v1/tasks?deleted=true", key=key).json()["data"]
    assert [t["name"] for t in gone] == ["reviews"] and gone[0]["deleted_at"] > 0
    back = server.post("/v1/tasks/reviews/restore", key=key)
    assert back.status == 200 and back.json()["current"] == 1 and "deleted_at" not in back.json()
    assert predictions(server, key, "reviews", TEXTS) == before
    assert server.get("/v1/tasks?deleted=true", key=key).json()["data"] == []
    again = server.post("/v1/tasks/reviews/restore", key=key)
    assert again.status == 404 and "deleted=true" in again.json()["detail"]


def test_restoring_takes_the_last_one_and_only_a_free_name(server, tenant):
    _, key = tenant
    for route in (ROUTE, [-r for r in ROUTE]):
        made(server, key, "x", route=route)
        assert server.delete("/v1/tasks/x", key=key).status == 200
    made(server, key, "x")
    assert server.post("/v1/tasks/x/restore", key=key).status == 409
    assert server.patch("/v1/tasks/x", {"name": "y"}, key=key).status == 200
    assert server.post("/v1/tasks/x/restore", key=key).status == 200
    route = server.get("/v1/tasks/x/versions/1", key=key).json()["route"]
    assert route == [-r for r in ROUTE]
    other = server.make_tenant(tenant[0] + "-other")
    assert server.post("/v1/tasks/x/restore", key=other).status == 404


def test_pages_of_deleted_tasks(server, tenant):
    _, key = tenant
    for i in (3, 1, 4, 2, 0):
        made(server, key, f"t{i}")
    for i in (0, 1, 2, 3):
        assert server.delete(f"/v1/tasks/t{i}", key=key).status == 200
    seen, after = [], ""
    while True:
        page = server.get(f"/v1/tasks?deleted=true&limit=3{after}", key=key).json()
        seen += [t["name"] for t in page["data"]]
        if not page["has_more"]:
            break
        after = "&after=" + page["last_id"]
    assert seen == ["t3", "t2", "t1", "t0"]  # the last deletion first
    assert server.get("/v1/tasks?deleted=true&q=2", key=key).json()["data"][0]["name"] == "t2"
    for bad in ("deleted=yes", "deleted=true&sort=name"):
        assert server.get("/v1/tasks?" + bad, key=key).status == 422


def test_deleted_tasks_go_after_the_retention(make_server):
    server = make_server(task_retention="0")
    key = server.make_tenant("acme")
    made(server, key, "gone")
    made(server, key, "stays")
    assert server.delete("/v1/tasks/gone", key=key).status == 200
    end, left = time.monotonic() + 60, None
    server.stop()
    server.start()  # the first cleaning comes soon after a start
    while left != [("stays",)] and time.monotonic() < end:
        time.sleep(0.2)
        with contextlib.closing(sqlite3.connect(f"file:{server.db}?mode=ro", uri=True)) as db:
            left = db.execute("SELECT name FROM tasks").fetchall()
    assert left == [("stays",)] and names(server, key) == ["stays"]


def test_order_of_change(server, tenant):
    _, key = tenant
    for name in ("a", "b", "c", "d"):
        made(server, key, name)
    time.sleep(0.01)  # times are milliseconds
    assert server.patch("/v1/tasks/b", {"description": "changed"}, key=key).status == 200
    rising, after = [], ""
    while True:
        page = server.get(f"/v1/tasks?sort=updated&limit=1{after}", key=key).json()
        rising += [t["name"] for t in page["data"]]
        if not page["has_more"]:
            break
        after = "&after=" + page["last_id"].replace("/", "%2F")
    assert rising == ["a", "c", "d", "b"]
    assert names(server, key, "&sort=-updated") == rising[::-1]


# ---- similar -------------------------------------------------------------------------------------

def mix(route):
    w = [1 / (1 + math.exp(-r)) for r in route]
    return [x / sum(w) - 1 / len(w) for x in w]


def cosine(a, b):
    x, y = mix(a), mix(b)
    return sum(p * q for p, q in zip(x, y)) / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))


def test_similar(server, tenant):
    _, key = tenant
    routes = {"me": ROUTE, "twin": ROUTE, "near": [r + 0.1 * i for i, r in enumerate(ROUTE)],
              "opposite": [-r for r in ROUTE]}
    for name, route in routes.items():
        made(server, key, name, route=route)
    made(server, key, "average")
    made(server, key, "gone", route=ROUTE)
    server.delete("/v1/tasks/gone", key=key)
    other = server.make_tenant(tenant[0] + "-other")
    made(server, other, "foreign", route=ROUTE)
    found = server.get("/v1/tasks/me/similar?limit=100", key=key).json()["data"]
    tasks = [f for f in found if f["source"] == "task"]
    assert {f["name"] for f in tasks} == {"twin", "near", "opposite", "average"}
    assert found[0]["name"] == "twin" and found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    similarities = [f["similarity"] for f in found]
    assert similarities == sorted(similarities, reverse=True)
    bank = [f for f in found if f["source"] == "bank"]
    assert bank and all(len(f["route"]) == 8 for f in found)
    for f in found:
        if f["name"] == "average":
            assert f["similarity"] == 0
        else:
            assert f["similarity"] == pytest.approx(cosine(ROUTE, f["route"]), abs=1e-4)
    assert [f["name"] for f in server.get("/v1/tasks/me/similar?limit=2", key=key).json()["data"]] == [
        f["name"] for f in found[:2]]
    assert server.get("/v1/tasks/nobody/similar", key=key).status == 404
    for bad in ("0", "101", "x"):
        assert server.get("/v1/tasks/me/similar?limit=" + bad, key=key).status == 422


# ---- evaluate ------------------------------------------------------------------------------------

def labelled(n):
    return [{"text": TEXTS[i % len(TEXTS)] + str(i), "label": LABELS[i % 3 == 0]} for i in range(n)]


def test_evaluate_agrees_with_predictions(server, tenant):
    _, key = tenant
    made(server, key, "reviews", route=ROUTE)
    rows = labelled(150)
    answer = server.post("/v1/tasks/reviews/evaluate", {"rows": rows, "errors": 1000}, key=key)
    assert answer.status == 200, answer
    got = answer.json()
    predicted = predictions(server, key, "reviews", [r["text"] for r in rows])
    matrix, loss, wrong = [[0, 0], [0, 0]], 0, []
    for i, (row, p) in enumerate(zip(rows, predicted)):
        matrix[LABELS.index(row["label"])][LABELS.index(p["label"])] += 1
        loss -= math.log(next(s["score"] for s in p["scores"] if s["label"] == row["label"])) / len(rows)
        if p["label"] != row["label"]:
            wrong.append({"row": i, "input": {"text": row["text"]}, "label": row["label"],
                          "predicted": p["label"], "score": p["score"]})
    assert got["confusion"] == {"labels": LABELS, "matrix": matrix}
    assert (got["rows"], got["task"], got["task_version"]) == (150, "reviews", 1)
    assert got["accuracy"] == pytest.approx((matrix[0][0] + matrix[1][1]) / 150)
    assert got["loss"] == pytest.approx(loss, rel=1e-4)
    f1 = [2 * matrix[k][k] / (sum(matrix[k]) + matrix[0][k] + matrix[1][k]) for k in (0, 1)]
    assert got["macro_f1"] == pytest.approx(sum(f1) / 2)
    assert wrong and [{**e, "score": pytest.approx(e["score"], rel=1e-5)} for e in got["errors"]] == wrong
    used = server.post("/v1/predict", {"task": "reviews", "inputs": [r["text"] for r in rows]}, key=key)
    assert got["usage"]["tokens"] == used.json()["usage"]["tokens"]
    few = server.post("/v1/tasks/reviews/evaluate", {"rows": rows, "errors": 2}, key=key).json()
    assert few["errors"] == got["errors"][:2] and few["accuracy"] == got["accuracy"]
    none = server.post("/v1/tasks/reviews/evaluate", {"rows": rows}, key=key).json()
    assert none["errors"] == []


def test_evaluate_a_file_and_a_version(server, tenant):
    _, key = tenant
    made(server, key, "reviews", route=ROUTE)
    assert server.post("/v1/tasks/reviews/versions", {"route": [-r for r in ROUTE]}, key=key).status == 201
    rows = labelled(30)
    file = upload(server, key, rows)
    results = {}
    for version in (None, 1, 2):
        more = {} if version is None else {"version": version}
        by_file = server.post("/v1/tasks/reviews/evaluate", {"file": file, **more}, key=key).json()
        by_rows = server.post("/v1/tasks/reviews/evaluate", {"rows": rows, **more}, key=key).json()
        assert by_file == by_rows
        results[version] = by_file
    assert results[None] == results[2] and results[1]["task_version"] == 1
    assert results[1]["loss"] != results[2]["loss"]
    assert server.post("/v1/tasks/reviews/evaluate", {"file": file, "version": 9}, key=key).status == 404
    other = server.make_tenant(tenant[0] + "-other")
    made(server, other, "reviews")
    assert server.post("/v1/tasks/reviews/evaluate", {"file": file}, key=other).status == 404


def test_evaluate_other_kinds(server, tenant):
    _, key = tenant
    for name, kind in (("pick", "choice"), ("find", "extractive")):
        assert server.post("/v1/tasks", {"name": name, "type": kind}, key=key).status == 201
    rows = [{"question": "谁来了？", "context": "小王来了。", "options": ["小王", "小李"], "label": "小王"},
            {"question": "谁走了？", "context": "小李走了。", "options": ["小王", "小李"], "label": "小李"}]
    pick = server.post("/v1/tasks/pick/evaluate", {"rows": rows, "errors": 9}, key=key)
    assert pick.status == 200, pick
    pick = pick.json()
    predicted = predictions(server, key, "pick", [{k: r[k] for k in ("question", "context", "options")}
                                                  for r in rows])
    right = [p["label"] == r["label"] for p, r in zip(predicted, rows)]
    assert pick["accuracy"] == sum(right) / 2 and pick["confusion"] is None
    assert [e["row"] for e in pick["errors"]] == [i for i in (0, 1) if not right[i]]
    context = "会议在杭州举行。"
    ask = {"question": "会议在哪里？", "context": context}
    best = predictions(server, key, "find", [ask])[0]["answer"]
    truth = {**ask, "answer": best, "answer_start": context.index(best)}
    wrong = {**ask, "answer": "会", "answer_start": 0}
    found = server.post("/v1/tasks/find/evaluate", {"rows": [truth, wrong], "errors": 9}, key=key).json()
    assert found["exact_match"] == found["accuracy"] == (1 if best == "会" else 0.5)
    assert 0.5 <= found["f1"] <= 1 and found["loss"] is None and found["confusion"] is None
    if best != "会":
        assert [(e["row"], e["label"], e["predicted"]) for e in found["errors"]] == [(1, "会", best)]


@pytest.mark.parametrize("body,pointer", [
    ({}, "#"), ({"rows": []}, "#/rows"), ({"rows": "x"}, "#/rows"), ({"file": 3}, "#/file"),
    ({"rows": [{"text": "a", "label": "负面"}], "file": "file-1"}, "#/rows"),
    ({"rows": [{"text": "a", "label": "负面"}, {"text": "b", "label": "中"}]}, "#/rows/1"),
    ({"rows": [{"text": "a", "label": "负面"}, {"text": 3, "label": "正面"}]}, "#/rows/1"),
    ({"rows": [{"text": "a", "label": "负面"}, 7]}, "#/rows/1"),
    ({"rows": [{"text": "a", "label": "负面"}], "errors": 1001}, "#/errors"),
    ({"rows": [{"text": "a", "label": "负面"}], "version": 0}, "#/version"),
    ({"rows": [{"text": "a", "label": "负面"}], "more": 0}, "#/more")])
def test_wrong_evaluations(server, tenant, body, pointer):
    _, key = tenant
    made(server, key, "reviews")
    answer = server.post("/v1/tasks/reviews/evaluate", body, key=key)
    assert answer.status == 422, answer
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


def test_limits_of_an_evaluation(make_server):
    server = make_server(max_evaluate_rows=10)
    key = server.make_tenant("acme")
    made(server, key, "reviews")
    over = server.post("/v1/tasks/reviews/evaluate", {"rows": labelled(11)}, key=key)
    assert over.status == 422 and "max_evaluate_rows" in over.json()["detail"]
    assert server.post("/v1/tasks/reviews/evaluate", {"rows": labelled(10)}, key=key).status == 200
    used = server.get("/v1/usage", key=key).json()["data"]
    assert sum(d["inputs"] for d in used) == 10
    server.patch("/v1/admin/tenants/acme", {"quotas": {"tokens_per_minute": 10}})
    assert server.post("/v1/tasks/reviews/evaluate", {"rows": labelled(2)}, key=key).status == 200
    no = server.post("/v1/tasks/reviews/evaluate", {"rows": labelled(2)}, key=key)
    assert no.status == 429 and no.json()["quota"]["name"] == "tokens_per_minute"


def test_an_evaluation_ends_with_its_deadline_or_its_client(make_server):
    server = make_server(batch_tokens=512, batch_time="0")
    key = server.make_tenant("acme")
    made(server, key, "reviews")
    rows = [{"text": "房间很干净，下次还来。" * 30, "label": LABELS[i % 2]} for i in range(600)]
    late = server.post("/v1/tasks/reviews/evaluate", {"rows": rows}, key=key,
                       headers={"X-Request-Timeout": "0.1"})
    assert late.status == 504
    body = json.dumps({"rows": rows}).encode()
    lines = ["POST /v1/tasks/reviews/evaluate HTTP/1.1", "Host: x", f"Authorization: Bearer {key}",
             "Content-Type: application/json", f"Content-Length: {len(body)}"]
    with server.connect() as s:
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        assert server.get("/v1/tasks", key=key).status == 200  # the loop is free meanwhile
    end = time.monotonic() + (120 if SLOW else 30)
    while time.monotonic() < end and "\nmp2_queue_tokens 0\n" not in server.get("/metrics", key=None).text:
        time.sleep(0.1)
    assert "\nmp2_queue_tokens 0\n" in server.get("/metrics", key=None).text
    assert len(predictions(server, key, "reviews", TEXTS)) == len(TEXTS)
