"""POST /v1/predict: all four kinds of task, answers that do not depend on neighbours, hostile inputs."""
import json
import threading
import time

import pytest

from conftest import SLOW

SENTIMENT = {"type": "classification", "labels": ["负面", "正面"],
             "template": "情感分析：\"{text}\"的情感是？选项："}
TEXTS = ["房间很干净，老板也热情，下次还来。", "电池用了一天就没电了，客服也不理人。", "味道一般。",
         "快递三天才到，包装破了，里面的杯子碎了两个，要求退款到现在还没有回复，非常失望。",
         "这本书的前半部分很好看，后面有点拖沓，不过结尾让人印象深刻。", "hello world 123"]


def ask(server, body, **more):
    return server.post("/v1/predict", body, **more)


def good(server, body, **more):
    answer = ask(server, body, **more)
    assert answer.status == 200, answer
    return answer.json()


def problem(answer, status, pointer=None):
    """The problem document; with `pointer`, the detail of the error at that place."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    body = answer.json()
    assert body["status"] == status and body["error"] == body["detail"] and body["request_id"]
    if pointer is None:
        return body["detail"]
    found = [e["detail"] for e in body.get("errors", []) if e["pointer"] == pointer]
    assert found, body
    return found[0]


# ---- the four kinds ------------------------------------------------------------------------------


def test_classification(server):
    body = good(server, {**SENTIMENT, "inputs": ["房间很干净，下次还来", {"text": "太差了，再也不来了"}]})
    first, second = body["predictions"]
    assert first["label"] == "正面" and second["label"] == "负面"
    assert 0.5 < first["score"] <= 1 and "scores" not in first and "truncated" not in first
    assert body["task_version"] is None and body["usage"]["tokens"] > 40


def test_scores_timing_modules(server):
    answer = ask(server, {**SENTIMENT, "labels": ["负面", "中性", "正面"], "inputs": TEXTS,
                          "return": ["scores", "timing", "modules"]})
    body = answer.json()
    for prediction in body["predictions"]:
        scores = [s["score"] for s in prediction["scores"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == 3
        assert abs(sum(scores) - 1) < 1e-5
        assert prediction["scores"][0] == {k: prediction[k] for k in ("label", "score")}
    assert set(body["timing"]) == {"tokenize_ms", "queue_ms", "infer_ms"}
    assert len(body["modules"]) == 8 and abs(sum(body["modules"]) - 1) < 1e-5
    assert [p.split(";")[0] for p in answer.headers["Server-Timing"].split(", ")] == [
        "tokenize", "queue", "infer"]


def test_top_k(server):
    body = good(server, {"type": "classification", "labels": list("甲乙丙丁戊"), "inputs": ["x"],
                         "top_k": 2})
    assert len(body["predictions"][0]["scores"]) == 2


def test_pair(server):
    body = good(server, {"type": "pair", "labels": ["矛盾", "相似"],
                         "inputs": [{"text_a": "外面在下雨", "text_b": "今天有雨"}]})
    assert body["predictions"][0]["label"] in ("矛盾", "相似")


def test_choice(server):
    options = ["小明", "小红", "小刚"]
    with_context = {"question": "谁来了？", "context": "小明昨天来了。", "options": options}
    without = {"question": "谁来了？", "options": ["甲", "乙"]}
    body = good(server, {"type": "choice", "inputs": [with_context, without], "return": ["scores"]})
    assert {s["label"] for s in body["predictions"][0]["scores"]} == set(options)
    assert {s["label"] for s in body["predictions"][1]["scores"]} == {"甲", "乙"}


def test_extractive_offsets_are_code_points(server):
    context = "😀会议在Beijing举行，𠮷野家明天开始供应早餐。"
    body = good(server, {"type": "extractive", "top_k": 5,
                         "inputs": [{"question": "什么时候？", "context": context}]})
    prediction = body["predictions"][0]
    assert prediction["scores"][0]["answer"] == prediction["answer"]
    for span in prediction["scores"]:
        assert 0 <= span["start"] < span["end"] <= len(context)
        assert context[span["start"]:span["end"]] == span["answer"]


def test_extractive_may_have_no_answer(server):
    body = good(server, {"type": "extractive", "may_have_no_answer": True,
                         "inputs": [{"question": "谁？", "context": "今天下雨。"}]})
    prediction = body["predictions"][0]
    assert prediction["answer"] == "今天下雨。"[prediction["start"]:prediction["end"]]


def test_route_and_start(server):
    average = good(server, {**SENTIMENT, "inputs": TEXTS, "return": ["scores"]})
    zeros = good(server, {**SENTIMENT, "route": [0] * 8, "inputs": TEXTS, "return": ["scores"]})
    named = good(server, {**SENTIMENT, "start": "average", "inputs": TEXTS, "return": ["scores"]})
    row = good(server, {**SENTIMENT, "start": "sent+", "inputs": TEXTS, "return": ["scores"]})
    other = good(server, {**SENTIMENT, "route": [3, -3, 2.5, 0, 1, -1, 2, -2], "inputs": TEXTS,
                          "return": ["scores"]})
    assert average["predictions"] == zeros["predictions"] == named["predictions"]
    assert average["predictions"] != row["predictions"] != other["predictions"]


def test_template_with_other_fields(server):
    body = {"type": "classification", "labels": ["不符", "符合"],
            "template": "问答判断：\"{question}\"的回答\"{reply}\"符合问题吗？选项："}
    good(server, {**body, "inputs": [{"question": "几点开门？", "reply": "九点。"}]})
    missing = ask(server, {**body, "inputs": [{"question": "几点开门？"}]})
    assert "reply" in problem(missing, 422, "#/inputs/0/reply")
    assert "reply" in problem(ask(server, {**body, "inputs": ["几点开门？"]}), 422, "#/inputs/0")


def test_an_inline_task_is_flat_or_an_object(server):
    rest = {"inputs": TEXTS, "return": ["scores"]}
    flat = good(server, {**SENTIMENT, "start": "sent+", **rest})
    whole = good(server, {"task": {**SENTIMENT, "start": "sent+"}, **rest})
    assert whole["predictions"] == flat["predictions"] and whole["task_version"] is None


# ---- neighbours ----------------------------------------------------------------------------------


def kinds():
    """Requests of many tasks, each with one input."""
    asks = [{**SENTIMENT, "inputs": [t]} for t in TEXTS]
    asks += [{"type": "classification", "labels": ["甲", "乙", "丙"], "route": [i, 1, -i, 2, 0, 0, 1, 1],
              "inputs": [TEXTS[i]]} for i in range(4)]
    asks += [{"type": "pair", "labels": ["矛盾", "相似"], "start": "sent+",
              "inputs": [{"text_a": TEXTS[i], "text_b": TEXTS[i + 1]}]} for i in range(3)]
    asks += [{"type": "choice", "inputs": [{"question": "是哪个？", "options": ["甲", "乙", "丙"],
                                            "context": TEXTS[3]}]}]
    asks += [{"type": "extractive", "inputs": [{"question": "什么碎了？", "context": TEXTS[3]}]}]
    return [{**a, "return": ["scores"]} for a in asks]


def test_bitwise_independent_of_neighbours(server):
    """Alone and among concurrent others of other tasks and tenants: the same nine digits, and more."""
    keys = [server.make_tenant(f"neighbour-{i}") for i in range(4)]
    asks = kinds()
    alone = [json.dumps(good(server, a)["predictions"]) for a in asks]
    wrong = []

    def crowd(number):
        for i in range(8 if SLOW else 60):
            k = (i * 7 + number * 3) % len(asks)
            many = {**asks[k], "inputs": asks[k]["inputs"] * (1 + i % 5)}
            got = ask(server, many, key=keys[number % 4])
            if got.status != 200 or any(json.dumps([p]) != alone[k]
                                        for p in got.json()["predictions"]):
                wrong.append((k, got))

    threads = [threading.Thread(target=crowd, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    metrics = server.get("/metrics").text
    mixed = metric(metrics, "mp2_batch_tasks_count") - metric(metrics,
                                                              'mp2_batch_tasks_bucket{le="1"}')
    assert mixed > 0, "no batch mixed tasks"
    assert metric(metrics, "mp2_queue_tokens") == 0 and metric(metrics, "mp2_inflight") == 0


def metric(text, name):
    return float(next(line.split()[-1] for line in text.split("\n") if line.startswith(name + " ")))


def test_inputs_of_one_request_span_batches(server):
    inputs = [TEXTS[i % len(TEXTS)] for i in range(40 if SLOW else 256)]
    body = good(server, {**SENTIMENT, "inputs": inputs, "return": ["scores"]})
    few = good(server, {**SENTIMENT, "inputs": TEXTS, "return": ["scores"]})
    for i, prediction in enumerate(body["predictions"]):
        assert prediction == few["predictions"][i % len(TEXTS)]


def test_long_answers_are_written_too(server):
    labels = [f"类别{i}" for i in range(60)]
    body = good(server, {"type": "classification", "labels": labels, "inputs": TEXTS * 10,
                         "return": ["scores"]})
    assert all(len(p["scores"]) == 60 for p in body["predictions"])


# ---- what is cut is said -------------------------------------------------------------------------


def test_long_text_is_cut_and_said(server):
    text = "好" * 100_000
    body = good(server, {**SENTIMENT, "inputs": [text, "好"]})
    assert 99_000 < body["predictions"][0]["truncated"] < 100_000
    assert "truncated" not in body["predictions"][1]


def test_many_labels(server):
    labels = [f"第{i}类" for i in range(200)]
    answer = ask(server, {"type": "classification", "labels": labels, "inputs": ["今天天气很好"]})
    assert "512" in problem(answer, 422, "#/labels")
    short = [chr(0x4E00 + i) for i in range(200)]
    body = good(server, {"type": "classification", "labels": short, "inputs": ["今天天气很好"]})
    assert body["predictions"][0]["label"] in short


# ---- hostile -------------------------------------------------------------------------------------

BASE = {**SENTIMENT, "inputs": ["x"]}
CASES = [
    ({"inputs": ["x"]}, "#/task"),
    ({"task": "x"}, "#/inputs"),
    ({"task": 5, "inputs": ["x"]}, "#/task"),
    ({"task": None, "inputs": ["x"]}, "#/task"),
    ({"task": "", "inputs": ["x"]}, "#/task"),
    ({"task": "x" * 2000, "inputs": ["x"]}, "#/task"),
    ({**BASE, "task": "x"}, "#/type"),
    ({**BASE, "surprise": 1}, "#/surprise"),
    ({"task": {**SENTIMENT, "surprise": 1}, "inputs": ["x"]}, "#/task/surprise"),
    ({"task": SENTIMENT, "labels": ["甲", "乙"], "inputs": ["x"]}, "#/labels"),
    ({"task": {}, "inputs": ["x"]}, "#/task/type"),
    ({"task": {**SENTIMENT, "labels": ["甲", "甲"]}, "inputs": ["x"]}, "#/task/labels/1"),
    ({"task": {**SENTIMENT, "labels": ["甲", 3]}, "inputs": ["x"]}, "#/task/labels/1"),
    ({"task": {**SENTIMENT, "route": [0] * 7 + ["1"]}, "inputs": ["x"]}, "#/task/route/7"),
    ({"task": {**SENTIMENT, "template": "{text"}, "inputs": ["x"]}, "#/task/template"),
    ({**BASE, "type": "poetry"}, "#/type"),
    ({**BASE, "type": 1}, "#/type"),
    ({**BASE, "labels": None}, "#/labels"),
    ({**BASE, "labels": []}, "#/labels"),
    ({**BASE, "labels": ["一个"]}, "#/labels"),
    ({**BASE, "labels": ["甲", "甲"]}, "#/labels/1"),
    ({**BASE, "labels": ["甲", ""]}, "#/labels/1"),
    ({**BASE, "labels": ["甲", 3]}, "#/labels/1"),
    ({**BASE, "labels": ["甲", "乙" * 300]}, "#/labels/1"),
    ({**BASE, "labels": {"甲": 1}}, "#/labels"),
    ({**BASE, "labels": [str(i) for i in range(600)]}, "#/labels"),
    ({**BASE, "template": 7}, "#/template"),
    ({**BASE, "template": "没有字段"}, "#/template"),
    ({**BASE, "template": "{text"}, "#/template"),
    ({**BASE, "template": "x" * 5000}, "#/template"),
    ({**BASE, "may_have_no_answer": "yes"}, "#/may_have_no_answer"),
    ({**BASE, "may_have_no_answer": True}, "#/may_have_no_answer"),
    ({**BASE, "inputs": []}, "#/inputs"),
    ({**BASE, "inputs": "x"}, "#/inputs"),
    ({**BASE, "inputs": {"text": "x"}}, "#/inputs"),
    ({**BASE, "inputs": ["x"] * 257}, "#/inputs"),
    ({**BASE, "inputs": ["x", ""]}, "#/inputs/1"),
    ({**BASE, "inputs": ["x", None]}, "#/inputs/1"),
    ({**BASE, "inputs": ["x", 5]}, "#/inputs/1"),
    ({**BASE, "inputs": ["x", ["x"]]}, "#/inputs/1"),
    ({**BASE, "inputs": [{"text": "x"}, {"text": ""}]}, "#/inputs/1/text"),
    ({**BASE, "inputs": [{"text": ["x"]}]}, "#/inputs/0/text"),
    ({**BASE, "inputs": [{"text": "x", "lang": "zh"}]}, "#/inputs/0/lang"),
    ({**BASE, "inputs": [{"a/b~c": "x"}]}, "#/inputs/0/a~1b~0c"),
    ({**BASE, "inputs": [{}]}, "#/inputs/0/text"),
    ({**BASE, "top_k": 0}, "#/top_k"),
    ({**BASE, "top_k": -1}, "#/top_k"),
    ({**BASE, "top_k": 1.5}, "#/top_k"),
    ({**BASE, "top_k": "all"}, "#/top_k"),
    ({**BASE, "return": "scores"}, "#/return"),
    ({**BASE, "return": ["logits"]}, "#/return/0"),
    ({**BASE, "return": [1]}, "#/return/0"),
    ({**BASE, "route": [0] * 7}, "#/route"),
    ({**BASE, "route": [0] * 9}, "#/route"),
    ({**BASE, "route": []}, "#/route"),
    ({**BASE, "route": "average"}, "#/route"),
    ({**BASE, "route": [0] * 7 + ["1"]}, "#/route/7"),
    ({**BASE, "route": [0] * 7 + [None]}, "#/route/7"),
    ({**BASE, "route": [0] * 7 + [1e300]}, "#/route/7"),
    ({**BASE, "route": [-1e9] + [0] * 7}, "#/route/0"),
    ({**BASE, "start": "no such row"}, "#/start"),
    ({**BASE, "start": "average", "route": [0] * 8}, "#/start"),
    ({"type": "choice", "labels": ["a", "b"], "inputs": [{"question": "x", "options": ["a", "b"]}]},
     "#/labels"),
    ({"type": "choice", "inputs": [{"question": "x"}]}, "#/inputs/0/options"),
    ({"type": "choice", "inputs": [{"question": "x", "options": ["a"]}]}, "#/inputs/0/options"),
    ({"type": "choice", "inputs": [{"question": "x", "options": ["a", 1]}]},
     "#/inputs/0/options/1"),
    ({"type": "choice", "inputs": ["x"]}, "#/inputs/0"),
    ({"type": "choice", "inputs": [{"options": ["a", "b"]}]}, "#/inputs/0/question"),
    ({"type": "extractive", "labels": ["a", "b"], "inputs": [{"question": "x", "context": "y"}]},
     "#/labels"),
    ({"type": "extractive", "inputs": [{"question": "x"}]}, "#/inputs/0/context"),
    ({"type": "extractive", "inputs": [{"question": "x", "context": ""}]}, "#/inputs/0/context"),
    ({"type": "pair", "labels": ["a", "b"], "inputs": [{"text_a": "x"}]}, "#/inputs/0/text_b"),
    ({"type": "pair", "labels": ["a", "b"], "inputs": ["x"]}, "#/inputs/0"),
]


@pytest.mark.parametrize("body,pointer", CASES, ids=[f"{i}{p}" for i, (_, p) in enumerate(CASES)])
def test_wrong_requests_are_told_where(server, body, pointer):
    answer = ask(server, body)
    assert problem(answer, 422, pointer)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"1" * 400])
def test_numbers_that_are_none(server, number):
    body = json.dumps({**BASE, "route": [0] * 7}).encode()
    body = body.replace(b"[0, 0, 0, 0, 0, 0, 0]", b"[0,0,0,0,0,0,0," + number + b"]")
    assert number in body
    answer = ask(server, body, headers={"Content-Type": "application/json"})
    assert answer.status in (400, 422), answer


def test_all_faults_are_told_at_once(server):
    answer = ask(server, {**BASE, "inputs": ["", 3, {"text": 1}], "top_k": 3})
    pointers = {e["pointer"] for e in answer.json()["errors"]}
    assert pointers == {"#/inputs/0", "#/inputs/1", "#/inputs/2/text"}
    answer = ask(server, {**BASE, "labels": 3, "route": [1], "top_k": "x"})
    pointers = {e["pointer"] for e in answer.json()["errors"]}
    assert pointers == {"#/labels", "#/route", "#/top_k"}


@pytest.mark.parametrize("text", ["\u0001\u001f", "\ufffd\u200b\ufeff", "​", "\U0010ffff" * 50, " \t\n",
                                  "[CLS][SEP][MASK]", "'; DROP TABLE tasks; --", "{text}", "\\u0000"])
def test_nasty_texts_are_only_texts(server, text):
    body = good(server, {**SENTIMENT, "inputs": [text]})
    assert body["predictions"][0]["label"] in ("负面", "正面")


def test_unknown_and_foreign_tasks(server):
    assert "nope" in problem(ask(server, {"task": "nope", "inputs": ["x"]}), 404, "#/task")
    for name in ("other/nope", "ft:boot:default:x:1-1", "ft:boot:other:x:1-1", "ft:", "@1", "/",
                 "default/", "nope@1", "../x", "x\ny"):
        assert problem(ask(server, {"task": name, "inputs": ["x"]}), 404, "#/task")


def test_scope(server):
    key = server.make_tenant("reader-only", scopes=["read"])
    assert problem(ask(server, BASE, key=key), 403)
    assert problem(ask(server, BASE, key=None), 401)


# ---- bounds --------------------------------------------------------------------------------------


def test_a_text_over_the_setting(make_server):
    server = make_server(max_text="64", max_inputs=2)
    detail = problem(ask(server, {**SENTIMENT, "inputs": ["x" * 65]}), 422, "#/inputs/0")
    assert "max_text" in detail and "64" in detail and "65" in detail
    detail = problem(ask(server, {**SENTIMENT, "inputs": ["x"] * 3}), 422, "#/inputs")
    assert "max_inputs" in detail and "2" in detail and "3" in detail


def test_a_full_queue_refuses_whole(make_server):
    server = make_server(queue_tokens=1024)
    answer = ask(server, {**SENTIMENT, "inputs": ["房间很干净" * 50] * 20})
    assert "queue_tokens" in problem(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1 and int(answer.headers["retry-after-ms"]) > 0
    assert good(server, {**SENTIMENT, "inputs": ["x"]})


def test_vanished_clients_leave_nothing(server):
    body = json.dumps({**SENTIMENT, "inputs": TEXTS * (4 if SLOW else 40)}).encode()
    head = (f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    for _ in range(20):
        with server.connect() as s:
            s.sendall(head + body)
    assert good(server, {**SENTIMENT, "inputs": ["x"]})


def test_stopping_answers_what_is_in_flight(make_server):
    server = make_server()
    got = []

    def send():
        try:
            got.append(ask(server, {**SENTIMENT, "inputs": TEXTS * (3 if SLOW else 20)}, timeout=60).status)
        except ConnectionRefusedError:
            got.append(503)  # came when the door was closed

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    while not got:
        time.sleep(0.001)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert set(got) <= {200, 503} and len(got) == 6
