"""/hf/…: huggingface_hub's own client, and what its older versions send and read.

One version of huggingface_hub fits one virtual environment, so the older ones are here as the bodies and
User-Agents that they send: 0.32 (question and context at the top), 1.1 (zero-shot answers with
"sequence") and 0.24 (candidate labels in one string).
"""
import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

AGENT = "unknown/None; hf_hub/{}; python/3.11.2"
LABELS = ["负面", "正面"]
FORM = "情感分析：\"{text}\"的情感是？选项："
TEXT = "房间很干净，下次还来"
CONTEXT = "😀会议在Beijing举行，𠮷野家明天开始供应早餐。"


@pytest.fixture(scope="module")
def acme(server):
    """Key of a tenant with a task of each kind."""
    key = server.make_tenant("acme")
    for name, task in {
            "reviews": {"type": "classification", "labels": LABELS, "template": FORM},
            "routed": {"type": "classification", "labels": LABELS, "template": FORM,
                       "start": "sent+"},
            "same": {"type": "pair", "labels": ["矛盾", "相似"]},
            "read": {"type": "extractive"},
            "perhaps": {"type": "extractive", "may_have_no_answer": True}}.items():
        made = server.post("/v1/tasks", {"name": name, **task}, key=key)
        assert made.status == 201, made
    return key


def client(server, key, task):
    return huggingface_hub.InferenceClient(base_url=f"{server.url}/hf/{task}", api_key=key)


def native(server, key, body):
    answer = server.post("/v1/predict", {**body, "return": ["scores"]}, key=key)
    assert answer.status == 200, answer
    return [p["scores"] for p in answer.json()["predictions"]]


def good(answer):
    assert answer.status == 200, answer
    return answer.json()


def problem(answer, status, pointer=None):
    assert answer.status == status, answer
    body = answer.json()
    assert body["error"] == body["detail"]
    if pointer is not None:
        assert pointer in [e["pointer"] for e in body["errors"]], body
    return body["error"]


# ---- the client as it is -------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["acme/reviews", "reviews", "reviews@1"])
def test_client_text_classification(server, acme, task):
    got = client(server, acme, task).text_classification(TEXT)
    want = native(server, acme, {"task": "reviews", "inputs": [TEXT]})[0]
    assert [(e.label, e.score) for e in got] == [(s["label"], s["score"]) for s in want]
    assert got[0].label == "正面"
    one = client(server, acme, task).text_classification(TEXT, top_k=1, function_to_apply="softmax")
    assert [e.label for e in one] == ["正面"]


def test_client_zero_shot(server, acme):
    hf = client(server, acme, "acme/routed")
    got = hf.zero_shot_classification(TEXT, ["差评", "好评", "中评"])
    want = native(server, acme, {"type": "classification", "labels": ["差评", "好评", "中评"],
                                 "template": FORM,
                                 "start": "sent+", "inputs": [TEXT]})[0]
    assert [(e.label, e.score) for e in got] == [(s["label"], s["score"]) for s in want]


def test_client_zero_shot_with_a_hypothesis(server, acme):
    hf = client(server, acme, "acme/routed")
    got = hf.zero_shot_classification(TEXT, ["差", "好"], hypothesis_template="这是{}评")
    want = native(server, acme, {"type": "classification", "labels": ["这是差评", "这是好评"],
                                 "template": FORM,
                                 "start": "sent+", "inputs": [TEXT]})[0]
    assert ["这是" + e.label + "评" for e in got] == [s["label"] for s in want]
    assert [e.score for e in got] == [s["score"] for s in want]


def test_client_zero_shot_multi_label(server, acme):
    hf = client(server, acme, "acme/reviews")
    labels = ["酒店", "体育", "服务", "好评"]
    got = hf.zero_shot_classification(TEXT, labels, multi_label=True)
    assert sorted(e.label for e in got) == sorted(labels)
    scores = [e.score for e in got]
    assert scores == sorted(scores, reverse=True) and all(0 < s < 1 for s in scores)
    alone = hf.zero_shot_classification(TEXT, ["酒店"])
    assert alone[0].score == next(e.score for e in got if e.label == "酒店")


def test_client_question_answering(server, acme):
    hf = client(server, acme, "acme/read")
    got = hf.question_answering("什么时候？", CONTEXT)
    assert CONTEXT[got.start:got.end] == got.answer != "" and 0 < got.score <= 1
    many = hf.question_answering("什么时候？", CONTEXT, top_k=4)
    assert len(many) == 4 and many[0] == got
    assert all(CONTEXT[e.start:e.end] == e.answer for e in many)
    short = hf.question_answering("什么时候？", CONTEXT, top_k=8, max_answer_len=2)
    assert all(len(e.answer) <= len("Beijing") + 1 for e in short)


def test_client_sees_errors(server, acme):
    with pytest.raises(Exception) as raised:
        client(server, acme, "acme/revews").text_classification(TEXT)
    assert "404" in str(raised.value)


# ---- older clients, by what they send ------------------------------------------------------------


def post(server, key, task, body, version=None):
    headers = {"User-Agent": AGENT.format(version)} if version else None
    return server.post(f"/hf/{task}", body, key=key, headers=headers)


@pytest.mark.parametrize("version", ["0.24.7", "0.32.6", "1.0.0", "1.1.4"])
def test_zero_shot_answers_of_old_clients(server, acme, version):
    ask = {"inputs": TEXT, "parameters": {"candidate_labels": LABELS}}
    old = good(post(server, acme, "acme/reviews", ask, version))
    new = good(post(server, acme, "acme/reviews", ask, "1.2.0"))
    assert old == {"sequence": TEXT, "labels": [e["label"] for e in new],
                   "scores": [e["score"] for e in new]}


@pytest.mark.parametrize("agent", ["hf_hub/1.1.5", "hf_hub/1.2.0", "hf_hub/1.10.3", "hf_hub/2.4.0", "hf_hub/11.0",
                                   "curl/8", "hf_hub/", "hf_hub/x.y", "hf_hub/99999999999999999999.1"])
def test_zero_shot_answers_of_new_clients_and_others(server, acme, agent):
    ask = {"inputs": TEXT, "parameters": {"candidate_labels": LABELS}}
    got = good(server.post("/hf/acme/reviews", ask, key=acme, headers={"User-Agent": agent}))
    assert {e["label"] for e in got} == set(LABELS)


def test_labels_in_one_string(server, acme):
    ask = {"inputs": TEXT, "parameters": {"candidate_labels": "负面, 正面,", "multi_label": False}}
    whole = {"inputs": TEXT, "parameters": {"candidate_labels": LABELS}}
    assert good(post(server, acme, "acme/reviews", ask, "0.24.7")) == \
        good(post(server, acme, "acme/reviews", whole, "0.24.7"))


def test_question_and_context_at_the_top(server, acme):
    ask = {"question": "什么时候？", "context": CONTEXT}
    assert good(post(server, acme, "acme/read", ask, "0.32.6")) == \
        good(post(server, acme, "acme/read", {"inputs": ask}))
    assert problem(post(server, acme, "acme/read", {"question": "x"}), 422, "#/context")


# ---- the shapes ----------------------------------------------------------------------------------


def test_lists(server, acme):
    texts = [TEXT, "太差了，再也不来了"]
    both = good(post(server, acme, "acme/reviews", {"inputs": texts}))
    assert both == [good(post(server, acme, "acme/reviews", {"inputs": t}))[0] for t in texts]
    parameters = {"candidate_labels": LABELS}
    both = good(post(server, acme, "acme/reviews", {"inputs": texts, "parameters": parameters}))
    assert both == [good(post(server, acme, "acme/reviews", {"inputs": t, "parameters": parameters}))
                    for t in texts]
    asks = [{"question": q, "context": CONTEXT} for q in ("哪里？", "什么时候？")]
    assert good(post(server, acme, "acme/read", {"inputs": asks})) == \
        [good(post(server, acme, "acme/read", {"inputs": a})) for a in asks]


def test_pairs(server, acme):
    want = good(post(server, acme, "same", {"inputs": {"text_a": "有雨", "text_b": "下雨"}}))
    assert want == good(post(server, acme, "same", {"inputs": {"text": "有雨", "text_pair": "下雨"}}))
    assert want == good(post(server, acme, "same", {"inputs": [{"text": "有雨", "text_pair": "下雨"}],
                                                    "options": {"wait_for_model": True}}))


def test_no_answer(server, acme):
    ask = {"inputs": {"question": "谁？", "context": "今天下雨。"},
           "parameters": {"handle_impossible_answer": True, "doc_stride": 128}}
    got = good(post(server, acme, "perhaps", ask))
    assert got["answer"] == "今天下雨。"[got["start"]:got["end"]]
    assert problem(post(server, acme, "read", ask), 422, "#/parameters/handle_impossible_answer")


def test_health_and_info(server, acme):
    for path in ("/hf/acme/reviews", "/hf/reviews"):
        assert good(server.get(path + "/health", key=acme)) == {"status": "ok"}
        info = good(server.get(path + "/info", key=acme))
        assert info["task"] == "text-classification" and info["labels"] == LABELS
        assert info["version"] == 1 and info["max_input_length"] == 512
        assert good(server.get(path, key=acme)) == info
    assert good(server.get("/hf/read/info", key=acme))["task"] == "question-answering"
    assert server.get("/hf/nope/health", key=acme).status == 404
    assert server.get("/hf/reviews/health", key=None).status == 401


ZERO = {"inputs": "x", "parameters": {"candidate_labels": LABELS}}


def zero(**parameters):
    return {"inputs": "x", "parameters": {**ZERO["parameters"], **parameters}}


@pytest.mark.parametrize("task,body,pointer", [
    ("reviews", {}, "#/inputs"),
    ("reviews", {"inputs": None}, "#/inputs"),
    ("reviews", {"inputs": 3}, "#/inputs"),
    ("reviews", {"inputs": ""}, "#/inputs"),
    ("reviews", {"inputs": []}, "#/inputs"),
    ("reviews", {"inputs": ["x"] * 257}, "#/inputs"),
    ("reviews", {"inputs": ["x", ""]}, "#/inputs/1"),
    ("reviews", {"inputs": "x", "surprise": 1}, "#/surprise"),
    ("reviews", {"inputs": "x", "parameters": []}, "#/parameters"),
    ("reviews", {"inputs": "x", "parameters": {"top_k": 0}}, "#/parameters/top_k"),
    ("reviews", {"inputs": "x", "parameters": {"surprise": 0}}, "#/parameters/surprise"),
    ("reviews", {"inputs": "x", "parameters": {"function_to_apply": "sigmoid"}},
     "#/parameters/function_to_apply"),
    ("reviews", {"inputs": {"question": "x", "context": "y"}}, "#/inputs/question"),
    ("read", {"inputs": "x"}, "#/inputs"),
    ("read", {"inputs": {"question": "x"}}, "#/inputs/context"),
    ("read", zero(), "#/parameters/candidate_labels"),
    ("reviews", zero(candidate_labels=[]), "#/parameters/candidate_labels"),
    ("reviews", zero(candidate_labels=", ,"), "#/parameters/candidate_labels"),
    ("reviews", zero(candidate_labels=7), "#/parameters/candidate_labels"),
    ("reviews", zero(candidate_labels=["a", 1]), "#/parameters/candidate_labels/1"),
    ("reviews", zero(candidate_labels=["甲", ""]), "#/parameters/candidate_labels/1"),
    ("reviews", zero(candidate_labels=["甲", "甲"]), "#/parameters/candidate_labels/1"),
    ("reviews", zero(candidate_labels=["甲", "乙" * 200]), "#/parameters/candidate_labels/1"),
    ("reviews", zero(candidate_labels=[str(i) for i in range(600)]), "#/parameters/candidate_labels"),
    ("reviews", zero(hypothesis_template="no gap"), "#/parameters/hypothesis_template"),
    ("reviews", zero(multi_label="yes"), "#/parameters/multi_label"),
    ("reviews", {**zero(multi_label=True), "inputs": ["x"]}, "#/inputs"),
    ("reviews", {**zero(), "inputs": {"text": "x"}}, "#/inputs"),
])
def test_wrong_requests_are_told_where(server, acme, task, body, pointer):
    assert problem(post(server, acme, task, body), 422, pointer)


def test_whose_task(server, acme):
    other = server.make_tenant("other")
    assert problem(post(server, other, "acme/reviews", {"inputs": "x"}), 404)
    assert "reviews" in problem(post(server, acme, "acme/revews", {"inputs": "x"}), 404)
    reader = server.make_key("acme", ["read"])
    assert problem(post(server, reader, "acme/reviews", {"inputs": "x"}), 403)
    assert server.get("/hf/acme/reviews/info", key=reader).status == 200
