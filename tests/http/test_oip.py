"""/v2/…: the Open Inference Protocol, by Triton's own client and by hand."""
import pytest

np = pytest.importorskip("numpy")
triton = pytest.importorskip("tritonclient.http")

LABELS = ["负面", "正面"]
TEXTS = ["房间很干净，下次还来", "太差了，再也不来了", "味道一般"]
CONTEXT = "😀会议在Beijing举行，𠮷野家明天开始供应早餐。"


@pytest.fixture(scope="module")
def acme(server):
    key = server.make_tenant("acme")
    for name, task in {
            "reviews": {"type": "classification", "labels": LABELS},
            "same": {"type": "pair", "labels": ["矛盾", "相似"]},
            "choose": {"type": "choice"},
            "read": {"type": "extractive"}}.items():
        made = server.post("/v1/tasks", {"name": name, **task}, key=key)
        assert made.status == 201, made
    return key


def native(server, key, task, inputs):
    answer = server.post("/v1/predict", {"task": task, "inputs": inputs, "return": ["scores"]}, key=key)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def tensor(name, data, shape=None):
    return {"name": name, "shape": shape or [len(data)], "datatype": "BYTES", "data": data}


def infer(server, key, model, *tensors, **more):
    return server.post(f"/v2/models/{model}/infer", {"inputs": list(tensors), **more}, key=key)


def good(answer):
    assert answer.status == 200, answer
    body = answer.json()
    return {o["name"]: o for o in body["outputs"]}


def wrong(answer, status, words=""):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error"} and words in answer.json()["error"], answer
    return answer.json()["error"]


# ---- Triton's client -----------------------------------------------------------------------------


def test_triton_client(server, acme):
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    headers = {"Authorization": f"Bearer {acme}"}
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("reviews", headers=headers)
    assert client.is_model_ready("reviews", "1", headers=headers)
    assert not client.is_model_ready("nope", headers=headers)
    assert client.get_server_metadata()["name"] == "mp2"
    about = client.get_model_metadata("reviews", headers=headers)
    assert about["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    texts = triton.InferInput("text", [len(TEXTS)], "BYTES")
    texts.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=False)
    outputs = [triton.InferRequestedOutput(n, binary_data=False) for n in ("label", "scores")]
    got = client.infer("reviews", [texts], outputs=outputs, headers=headers, request_id="mine")
    want = native(server, acme, "reviews", TEXTS)
    assert list(got.as_numpy("label")) == [p["label"] for p in want]
    scores = got.as_numpy("scores")
    assert scores.shape == (3, 2) and scores.dtype == np.float32
    by_label = [{s["label"]: s["score"] for s in p["scores"]} for p in want]
    assert np.allclose(scores, [[b[label] for label in LABELS] for b in by_label], atol=0, rtol=1e-7)
    assert got.get_response()["id"] == "mine" and got.get_response()["model_version"] == "1"
    client.close()


@pytest.mark.parametrize("binary_input,outputs", [
    (True, [triton.InferRequestedOutput("label", binary_data=False)]),
    (False, [triton.InferRequestedOutput("label", binary_data=True)]),
    (False, None)])
def test_binary_tensors_are_refused_with_the_way_out(server, acme, binary_input, outputs):
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    texts = triton.InferInput("text", [1], "BYTES")
    texts.set_data_from_numpy(np.array(TEXTS[:1], dtype=object), binary_data=binary_input)
    with pytest.raises(triton.InferenceServerException) as raised:
        client.infer("reviews", [texts], outputs=outputs,
                     headers={"Authorization": f"Bearer {acme}"})
    assert raised.value.status() == "400" and "binary_data=False" in str(raised.value)
    client.close()


# ---- the shapes ----------------------------------------------------------------------------------


def test_pair(server, acme):
    got = good(infer(server, acme, "same", tensor("text", ["有雨", "晴"]),
                     tensor("text_pair", ["下雨", "下雪"])))
    want = native(server, acme, "same", [{"text_a": "有雨", "text_b": "下雨"},
                                         {"text_a": "晴", "text_b": "下雪"}])
    assert got["label"]["data"] == [p["label"] for p in want]
    assert got["scores"]["shape"] == [2, 2]


def test_choice(server, acme):
    questions, contexts = ["谁来了？", "谁走了？"], ["小明昨天来了。", "小红走了。"]
    choices = [["小明", "小红"], ["小刚", "小红"]]
    want = native(server, acme, "choose", [
        {"question": q, "context": c, "options": o} for q, c, o in zip(questions, contexts, choices)])
    for data in (choices, choices[0] + choices[1]):
        got = good(infer(server, acme, "choose", tensor("question", questions),
                         tensor("context", contexts), tensor("choices", data, [2, 2])))
        assert got["label"]["data"] == [p["label"] for p in want]
        scores = got["scores"]["data"]
        for i, p in enumerate(want):
            assert dict(zip(choices[i], scores[2 * i:2 * i + 2])) == {
                s["label"]: s["score"] for s in p["scores"]}


def test_extractive(server, acme):
    got = good(infer(server, acme, "read", tensor("question", ["什么时候？", "哪里？"]),
                     tensor("context", [CONTEXT, CONTEXT])))
    want = native(server, acme, "read", [{"question": q, "context": CONTEXT}
                                         for q in ("什么时候？", "哪里？")])
    for name in ("answer", "score", "start", "end"):
        assert got[name]["data"] == [p[name] for p in want]
    assert got["start"]["datatype"] == "INT64" and got["score"]["datatype"] == "FP32"


def test_names_versions_and_outputs(server, acme):
    one = tensor("text", TEXTS[:1])
    want = good(infer(server, acme, "reviews", one))
    assert set(want) == {"label", "scores"}
    for model in ("acme%2Freviews", "reviews/versions/1", "reviews@1"):
        assert good(infer(server, acme, model, one)) == want
    body = infer(server, acme, "reviews/versions/1", one, id="").json()
    assert body["model_name"] == "reviews" and body["model_version"] == "1" and body["id"] == ""
    only = good(infer(server, acme, "reviews", one, outputs=[{"name": "scores"}]))
    assert set(only) == {"scores"}
    assert good(infer(server, acme, "reviews", tensor("text", [TEXTS[:1]], [1, 1]))) == want
    assert good(infer(server, acme, "reviews", one, parameters={"binary_data_output": False})) == want
    about = server.get("/v2/models/choose/versions/1", key=acme).json()
    assert {i["name"] for i in about["inputs"]} == {"question", "context", "choices"}
    assert [i["name"] for i in server.get("/v2/models/same", key=acme).json()["inputs"]] == \
        ["text", "text_pair"]


# ---- wrong ones ----------------------------------------------------------------------------------

TEXT = tensor("text", ["x"])


@pytest.mark.parametrize("inputs,words", [
    ([], "#/inputs"), (["x"], "#/inputs/0"), ([{**TEXT, "datatype": "FP32"}], "#/inputs/0/datatype"),
    ([{**TEXT, "shape": [2]}], "#/inputs/0/data"), ([{**TEXT, "shape": [0]}], "#/inputs/0/shape"),
    ([{**TEXT, "shape": [-1]}], "#/inputs/0/shape"), ([{**TEXT, "shape": []}], "#/inputs/0/shape"),
    ([{**TEXT, "shape": [2 ** 62]}], "#/inputs/0/shape"), ([{**TEXT, "shape": ["1"]}], "shape"),
    ([{**TEXT, "shape": [1, 2], "data": ["x", "y"]}], "choices"),
    ([{**TEXT, "data": []}], "#/inputs/0/data"), ([{**TEXT, "data": [""]}], "#/inputs/0/text"),
    ([{**TEXT, "data": [3]}], "#/inputs/0/text"), ([{**TEXT, "data": [["x", "y"]]}], "data"),
    ([{**TEXT, "surprise": 1}], "surprise"), ([TEXT, tensor("more", ["x"])], "more"),
    ([TEXT, tensor("more", ["x", "y"])], "rows"), ([tensor("txet", ["x"])], "txet"),
    ([tensor("text", ["x"] * 257)], "max_inputs"), ([{"name": "text"}], "#/inputs/0")])
def test_wrong_tensors(server, acme, inputs, words):
    wrong(infer(server, acme, "reviews", *inputs), 422, words)


def test_other_errors(server, acme):
    wrong(infer(server, acme, "nope", TEXT), 404, "nope")
    wrong(infer(server, acme, "reviews/versions/99", TEXT), 404)
    wrong(infer(server, acme, "reviews", TEXT, outputs=[{"name": "logits"}]), 422, "outputs")
    wrong(infer(server, acme, "reviews", TEXT, outputs=[{"name": "start"}]), 422, "label and scores")
    wrong(infer(server, None, "reviews", TEXT), 401)
    wrong(server.post("/v2/models/reviews/infer", b"{", key=acme,
                      headers={"Content-Type": "application/json"}), 400)
    wrong(server.get("/v2/nothing", key=acme), 404)
    assert server.get("/v2/models/nope/ready", key=acme).status == 404
    assert server.get("/v2/health/live", key=None).json() == {"live": True}
