"""/v1/tasks, versions, the alias, /v1/models: what they keep, and that tenants are blind to each other."""
import json
import threading
from urllib.parse import quote

import pytest

from conftest import TOP

LABELS = ["负面", "正面"]
TEMPLATE = "情感分析：\"{text}\"的情感是？选项："
TEXTS = ["房间很干净，下次还来", "太差了，再也不来了", "味道一般", "物流太慢"]
ROUTE = [1.5, -2, 0.25, 3, -0.5, 0, 2, -1]


def make(server, key, name, **more):
    body = {"name": name, "type": "classification", "labels": LABELS, "template": TEMPLATE, **more}
    return server.post("/v1/tasks", body, key=key)


def made(server, key, name, **more):
    answer = make(server, key, name, **more)
    assert answer.status == 201, answer
    return answer.json()


def predict(server, key, task, **more):
    return server.post("/v1/predict", {"task": task, "inputs": TEXTS, "return": ["scores"], **more},
                       key=key)


def predictions(server, key, task):
    answer = predict(server, key, task)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def by_route(server, key, route):
    """What a task with this route must answer, asked inline."""
    body = {"type": "classification", "labels": LABELS, "template": TEMPLATE, "route": route,
            "inputs": TEXTS, "return": ["scores"]}
    answer = server.post("/v1/predict", body, key=key)
    assert answer.status == 200, answer
    return answer.json()["predictions"]


def pointers(answer, status=422):
    assert answer.status == status, answer
    return {e["pointer"] for e in answer.json().get("errors", [])}


# ---- make, show, list, change, delete ------------------------------------------------------------


def test_a_task_from_words_alone(server, tenant):
    name, key = tenant
    task = made(server, key, "reviews", description="酒店评论")
    assert task["id"] == f"{name}/reviews" and task["object"] == "task" and task["current"] == 1
    assert task["labels"] == LABELS and task["template"] == TEMPLATE
    assert task["description"] == "酒店评论" and task["created_at"] > 1.7e9
    assert server.get("/v1/tasks/reviews", key=key).json() == task
    assert server.get(f"/v1/tasks/{quote(name + '/reviews', safe='')}", key=key).json() == task
    answer = predict(server, key, "reviews").json()
    assert answer["task_version"] == 1
    assert answer["predictions"] == by_route(server, key, [0] * 8)
    assert predictions(server, key, f"{name}/reviews") == answer["predictions"]


def test_a_task_with_a_route_or_a_row(server, tenant):
    _, key = tenant
    made(server, key, "routed", route=ROUTE)
    assert predictions(server, key, "routed") == by_route(server, key, ROUTE)
    made(server, key, "rowed", start="sent+")
    version = server.get("/v1/tasks/rowed/versions/1", key=key).json()
    assert version["started_from"] == "sent+" and len(version["route"]) == 8
    assert predictions(server, key, "rowed") == by_route(server, key, version["route"])


@pytest.mark.parametrize("kind,labels,inputs", [
    ("pair", ["矛盾", "相似"], {"text_a": "甲", "text_b": "乙"}),
    ("choice", None, {"question": "谁？", "options": ["甲", "乙"]}),
    ("extractive", None, {"question": "谁？", "context": "小明来了"})])
def test_other_kinds(server, tenant, kind, labels, inputs):
    _, key = tenant
    body = {"name": kind, "type": kind, **({"labels": labels} if labels else {})}
    assert server.post("/v1/tasks", body, key=key).status == 201
    answer = server.post("/v1/predict", {"task": kind, "inputs": [inputs]}, key=key)
    assert answer.status == 200, answer


def test_survives_restart(fresh_server):
    server, key = fresh_server, "admin"
    made(server, key, "one", route=ROUTE)
    made(server, key, "two", start="sent-")
    assert server.post("/v1/tasks/one/versions", {"route": [0] * 8}, key=key).status == 201
    assert server.post("/v1/tasks/one/current", {"version": 1}, key=key).status == 200
    assert server.delete("/v1/tasks/two", key=key).status == 200
    before = predict(server, key, "one").json()
    server.kill()
    server.start()
    after = predict(server, key, "one").json()
    assert after["predictions"] == before["predictions"] and after["task_version"] == 1
    assert predict(server, key, "two").status == 404


def test_names(server, tenant):
    _, key = tenant
    for good in ("情感", "a b", "A.b-c_d", "x" * 128):
        made(server, key, good)
        assert predict(server, key, good).status == 200
        assert server.get("/v1/tasks/" + quote(good, safe=""), key=key).json()["name"] == good
    for bad in ("", "a/b", "x" * 129, " x", "x ", "a:b", "a@1", "..", "a\nb", "%41", 5, None):
        assert "#/name" in pointers(make(server, key, bad))
    taken = make(server, key, "情感")
    assert taken.status == 409 and "情感" in taken.json()["detail"]


CASES = [
    ({"labels": ["一个"]}, "#/labels"), ({"labels": ["甲", "甲"]}, "#/labels/1"),
    ({"labels": None}, "#/labels"), ({"labels": "甲乙"}, "#/labels"), ({"type": "poem"}, "#/type"),
    ({"type": None}, "#/type"), ({"template": "没有字段"}, "#/template"),
    ({"template": ["x"]}, "#/template"), ({"route": [0] * 3}, "#/route"),
    ({"route": [0] * 7 + [1e300]}, "#/route/7"), ({"route": {}}, "#/route"),
    ({"start": "no such"}, "#/start"), ({"start": 1}, "#/start"), ({"surprise": 1}, "#/surprise"),
    ({"description": 1}, "#/description"), ({"description": "x" * 3000}, "#/description"),
    ({"labels": [f"第{i}类" for i in range(200)]}, "#/labels"),
]


@pytest.mark.parametrize("change,pointer", CASES, ids=[f"{i}{p}" for i, (_, p) in enumerate(CASES)])
def test_wrong_tasks_are_not_made(server, tenant, change, pointer):
    _, key = tenant
    assert pointer in pointers(make(server, key, "wrong", **change))
    assert server.get("/v1/tasks/wrong", key=key).status == 404
    assert server.get("/v1/tasks", key=key).json()["data"] == []


def test_list_pages_and_searches(server, tenant):
    name, key = tenant
    names = sorted([f"hotel-{i:02}" for i in range(25)] + [f"news-{i:02}" for i in range(7)])
    for n in names:
        made(server, key, n)
    seen, after = [], ""
    while True:
        page = server.get(f"/v1/tasks?limit=10{after}", key=key).json()
        assert page["object"] == "list" and len(page["data"]) <= 10
        assert page["first_id"] == page["data"][0]["id"]
        assert page["last_id"] == page["data"][-1]["id"]
        seen += [t["name"] for t in page["data"]]
        if not page["has_more"]:
            break
        after = "&after=" + quote(page["last_id"], safe="")
    assert seen == names
    prefixed = server.get("/v1/tasks?prefix=news&limit=5", key=key).json()
    assert [t["name"] for t in prefixed["data"]] == names[25:30] and prefixed["has_more"]
    found, after = [], ""
    while True:
        page = server.get(f"/v1/tasks?q=-03&limit=1{after}", key=key).json()
        found += [t["name"] for t in page["data"]]
        if not page["has_more"]:
            break
        after = "&after=" + quote(page["last_id"], safe="")
    assert found == ["hotel-03", "news-03"]
    assert server.get("/v1/tasks?q=nothing", key=key).json()["data"] == []
    for bad in ("limit=0", "limit=x", "limit=100000", "after=other/x"):
        assert server.get("/v1/tasks?" + bad, key=key).status == 422


def pages_of(server, key, query):
    seen, after = [], ""
    while True:
        page = server.get(f"/v1/tasks?limit=2&{query}{after}", key=key).json()
        seen += [t["name"] for t in page["data"]]
        if not page["has_more"]:
            return seen
        after = "&after=" + quote(page["last_id"], safe="")


def test_list_sorts_and_filters(server, tenant):
    _, key = tenant
    for name in ("m", "c", "z"):
        made(server, key, name)
    for name in ("a", "y"):
        body = {"name": name, "type": "extractive"}
        assert server.post("/v1/tasks", body, key=key).status == 201
    assert pages_of(server, key, "sort=name") == ["a", "c", "m", "y", "z"]
    assert pages_of(server, key, "sort=-name") == ["z", "y", "m", "c", "a"]
    assert pages_of(server, key, "sort=created") == ["m", "c", "z", "a", "y"]
    assert pages_of(server, key, "sort=-created") == ["y", "a", "z", "c", "m"]
    assert pages_of(server, key, "type=extractive&sort=-created") == ["y", "a"]
    assert pages_of(server, key, "type=classification&q=z") == ["z"]
    assert pages_of(server, key, "type=choice") == []
    for bad in ("sort=size", "type=poem", "sort="):
        assert server.get("/v1/tasks?" + bad, key=key).status == 422
    assert server.get("/v1/tasks?sort=created&after=nothing", key=key).status == 404


def test_patch(server, tenant):
    _, key = tenant
    made(server, key, "old", route=ROUTE)
    before = predictions(server, key, "old")
    answer = server.patch("/v1/tasks/old", {"name": "new", "description": "x"}, key=key)
    assert answer.status == 200 and answer.json()["name"] == "new"
    assert answer.json()["description"] == "x"
    assert predict(server, key, "old").status == 404
    assert predictions(server, key, "new") == before
    other = "打分：\"{text}\"的评价是？选项："
    assert server.patch("/v1/tasks/new", {"template": other}, key=key).status == 200
    assert predictions(server, key, "new") != before
    assert server.patch("/v1/tasks/new", {"template": TEMPLATE}, key=key).status == 200
    assert predictions(server, key, "new") == before
    assert "#/template" in pointers(server.patch("/v1/tasks/new", {"template": "无"}, key=key))
    assert "#/labels" in pointers(server.patch("/v1/tasks/new", {"labels": ["x", "y"]}, key=key))
    assert "#/type" in pointers(server.patch("/v1/tasks/new", {"type": "pair"}, key=key))
    assert "#/x" in pointers(server.patch("/v1/tasks/new", {"x": 1}, key=key))
    made(server, key, "taken")
    assert server.patch("/v1/tasks/new", {"name": "taken"}, key=key).status == 409
    assert predictions(server, key, "new") == before
    assert server.patch("/v1/tasks/none", {"name": "x"}, key=key).status == 404


def test_delete(server, tenant):
    name, key = tenant
    made(server, key, "gone")
    answer = server.delete("/v1/tasks/gone", key=key)
    assert answer.json() == {"id": f"{name}/gone", "object": "task", "deleted": True}
    assert predict(server, key, "gone").status == 404
    assert server.get("/v1/tasks/gone", key=key).status == 404
    assert server.delete("/v1/tasks/gone", key=key).status == 404
    made(server, key, "gone", route=ROUTE)
    assert predictions(server, key, "gone") == by_route(server, key, ROUTE)


def test_the_nearest_name_is_given(server, tenant):
    _, key = tenant
    made(server, key, "reviews")
    assert '"reviews"' in predict(server, key, "review").json()["detail"]
    assert '"reviews"' in server.get("/v1/tasks/rewiews", key=key).json()["detail"]
    assert "reviews" not in predict(server, key, "weather-forecast").json()["detail"]


# ---- versions and the alias ----------------------------------------------------------------------


def test_versions_and_rolling_back(server, tenant):
    name, key = tenant
    made(server, key, "t", route=ROUTE)
    first = predictions(server, key, "t")
    answer = server.post("/v1/tasks/t/versions", {"start": "sent-"}, key=key)
    assert answer.status == 201 and answer.json()["version"] == 2 and answer.json()["current"]
    second = predictions(server, key, "t")
    assert second != first
    assert predictions(server, key, "t@1") == first and predictions(server, key, "t@2") == second
    for version, want in ((1, first), (2, second)):
        pinned = predict(server, key, "t", version=version).json()
        assert (pinned["predictions"], pinned["task_version"]) == (want, version)
    assert predict(server, key, "t", version=9).status == 404
    for task, version in (("t", 0), ("t", "1"), ({"type": "classification", "labels": LABELS}, 1)):
        assert predict(server, key, task, version=version).status == 422
    moved = server.post("/v1/tasks/t/current", {"version": 1}, key=key)
    assert moved.status == 200 and moved.json()["current"] == 1
    answer = predict(server, key, "t").json()
    assert answer["predictions"] == first and answer["task_version"] == 1
    for _ in range(2):  # read from the store, then from memory
        assert predict(server, key, "t@2").json()["task_version"] == 2
        assert predictions(server, key, "t@2") == second
    third = server.post("/v1/tasks/t/versions", {"route": [0] * 8, "current": False}, key=key)
    assert third.json()["version"] == 3 and third.json()["current"] is False
    assert predictions(server, key, "t") == first
    listed = server.get("/v1/tasks/t/versions", key=key).json()
    assert [v["version"] for v in listed["data"]] == [3, 2, 1]
    assert [v["current"] for v in listed["data"]] == [False, False, True]
    page = server.get("/v1/tasks/t/versions?limit=2", key=key).json()
    assert page["has_more"] and page["last_id"] == "2"
    rest = server.get("/v1/tasks/t/versions?limit=2&after=2", key=key).json()
    assert [v["version"] for v in rest["data"]] == [1] and not rest["has_more"]
    ft = server.get("/v1/tasks/t/versions/2", key=key).json()["model"]
    assert ft.startswith(f"ft:boot:{name}:t:")
    assert predictions(server, key, ft) == second
    assert server.delete("/v1/tasks/t", key=key).status == 200
    assert predict(server, key, ft).status == 404


def test_versions_that_are_none(server, tenant):
    _, key = tenant
    made(server, key, "t")
    for number in ("2", "0", "-1", "x", "1x", "99999999999999999999", "1.0"):
        assert server.get(f"/v1/tasks/t/versions/{number}", key=key).status == 404
    assert predict(server, key, "t@2").status == 404
    assert server.post("/v1/tasks/t/current", {"version": 2}, key=key).status == 404
    for bad in ({}, {"version": "1"}, {"version": 0}, {"version": 1, "x": 1}, {"version": 2**40}):
        assert server.post("/v1/tasks/t/current", bad, key=key).status == 422
    assert server.get("/v1/tasks/none/versions", key=key).status == 404
    assert server.post("/v1/tasks/none/versions", {"route": [0] * 8}, key=key).status == 404
    assert server.post("/v1/tasks/none/current", {"version": 1}, key=key).status == 404


def test_export_and_import(server, tenant):
    _, key = tenant
    made(server, key, "from", route=ROUTE)
    exported = server.get("/v1/tasks/from/versions/1", key=key)
    assert len(exported.body) < 1500
    made(server, key, "to")
    assert predictions(server, key, "to") != predictions(server, key, "from")
    answer = server.post("/v1/tasks/to/versions", exported.json(), key=key)
    assert answer.status == 201, answer
    assert predictions(server, key, "to") == predictions(server, key, "from")
    assert answer.json()["route"] == exported.json()["route"] == ROUTE
    average = {**exported.json(), "route": []}  # as a version without a route of its own is exported
    assert server.post("/v1/tasks/to/versions", average, key=key).status == 201
    assert predictions(server, key, "to") == by_route(server, key, [0] * 8)
    made(server, key, "others", labels=["差", "好"])
    answer = server.post("/v1/tasks/others/versions", exported.json(), key=key)
    assert answer.status == 409 and "labels" in answer.json()["detail"]
    for field in ("model_fingerprint", "bank_fingerprint"):
        foreign = {**exported.json(), field: "0" * 64}
        answer = server.post("/v1/tasks/to/versions", foreign, key=key)
        assert f"#/{field}" in pointers(answer) and "000000000000" in answer.json()["detail"]


@pytest.mark.parametrize("body,pointer", [
    ({}, "#/route"), ({"route": [0] * 7}, "#/route"), ({"route": [0] * 7 + ["x"]}, "#/route/7"),
    ({"route": None}, "#/route"), ({"route": [1e99] * 8}, "#/route/0"), ({"start": "x"}, "#/start"),
    ({"route": [0] * 8, "current": 1}, "#/current"), ({"route": [0] * 8, "x": 1}, "#/x"),
    ({"route": [0] * 8, "bank_fingerprint": 5}, "#/bank_fingerprint")])
def test_wrong_imports(server, tenant, body, pointer):
    _, key = tenant
    made(server, key, "t")
    assert pointer in pointers(server.post("/v1/tasks/t/versions", body, key=key))


def test_publishing_under_load_is_a_clean_swap(server, tenant):
    """Every answer is wholly of one version, and of the one it names."""
    _, key = tenant
    made(server, key, "t", route=ROUTE)
    made(server, key, "u", start="sent-")
    want = {1: predictions(server, key, "t"), 2: predictions(server, key, "u")}
    route = server.get("/v1/tasks/u/versions/1", key=key).json()["route"]
    assert server.post("/v1/tasks/t/versions", {"route": route}, key=key).json()["version"] == 2
    wrong, over = [], threading.Event()

    def ask():
        while not over.is_set():
            got = predict(server, key, "t")
            if got.status != 200 or got.json()["predictions"] != want[got.json()["task_version"]]:
                wrong.append(got)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(40):
        assert server.post("/v1/tasks/t/current", {"version": 1 + i % 2}, key=key).status == 200
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- two tenants ---------------------------------------------------------------------------------


def test_tenants_are_blind_to_each_other(server):
    alice, bob = server.make_tenant("alice"), server.make_tenant("bob")
    made(server, alice, "shared", route=ROUTE)
    made(server, alice, "secret", route=ROUTE)
    made(server, bob, "shared", start="sent-")
    assert predictions(server, alice, "shared") != predictions(server, bob, "shared")
    ft = server.get("/v1/tasks/secret/versions/1", key=alice).json()["model"]
    calls = [
        lambda name: predict(server, bob, name), lambda name: predict(server, bob, name + "@1"),
        lambda name: server.get("/v1/tasks/" + quote(name, safe=""), key=bob),
        lambda name: server.patch("/v1/tasks/" + quote(name, safe=""), {"description": "x"}, key=bob),
        lambda name: server.delete("/v1/tasks/" + quote(name, safe=""), key=bob),
        lambda name: server.get(f"/v1/tasks/{quote(name, safe='')}/versions", key=bob),
        lambda name: server.get(f"/v1/tasks/{quote(name, safe='')}/versions/1", key=bob),
        lambda name: server.post(f"/v1/tasks/{quote(name, safe='')}/versions", {"route": [0] * 8}, key=bob),
        lambda name: server.post(f"/v1/tasks/{quote(name, safe='')}/current", {"version": 1}, key=bob),
        lambda name: server.get("/v1/models/" + quote(name, safe=""), key=bob),
        lambda name: server.delete("/v1/models/" + quote(name, safe=""), key=bob)]
    for call in calls:
        # one that exists and one that does not must answer alike, names aside
        for exists, missing in (("secret", "secrer"), ("alice/secret", "alice/secrer"),
                                (ft, ft.replace("-1", "-2"))):
            a, b = call(exists), call(missing)
            assert a.status == b.status == 404
            strip = lambda r, n: json.loads(r.text.replace(json.dumps(n)[1:-1], "X"))
            left, right = strip(a, exists), strip(b, missing)
            left.pop("request_id", None), right.pop("request_id", None)
            assert left == right
            assert "nearest" not in a.text
    assert [t["name"] for t in server.get("/v1/tasks", key=bob).json()["data"]] == ["shared"]
    assert not any("alice" in m["id"] for m in server.get("/v1/models", key=bob).json()["data"])
    assert predictions(server, alice, "secret") == by_route(server, alice, ROUTE)


def test_scopes(server):
    server.make_tenant("scoped")
    reader = server.make_key("scoped", ["read"])
    predictor = server.make_key("scoped", ["predict"])
    adapter = server.make_key("scoped", ["adapt"])
    made(server, adapter, "t")
    for key in (reader, predictor):
        assert make(server, key, "u").status == 403
        assert server.delete("/v1/tasks/t", key=key).status == 403
        assert server.get("/v1/tasks/t", key=key).status == 200
    assert predict(server, predictor, "t").status == 200
    assert predict(server, reader, "t").status == 403


# ---- models --------------------------------------------------------------------------------------


def test_models(server, tenant):
    name, key = tenant
    made(server, key, "m", route=ROUTE)
    listed = server.get("/v1/models", key=key).json()
    assert listed["object"] == "list"
    ids = [m["id"] for m in listed["data"]]
    assert ids == ["boot", "boot:shallow", f"{name}/m"]
    for model in listed["data"]:
        assert model["object"] == "model" and isinstance(model["created"], int) and model["owned_by"]
        assert server.get("/v1/models/" + quote(model["id"], safe=""), key=key).json() == model
    ft = listed["data"][2]["mp2"]["fine_tuned_model"]
    assert server.get("/v1/models/" + quote(ft, safe=""), key=key).json()["id"] == ft
    assert predictions(server, key, ft) == predictions(server, key, "m")
    missing = server.get("/v1/models/none", key=key)
    assert missing.status == 404 and missing.json()["error"]["code"] == "task_not_found"
    assert server.delete("/v1/models/boot", key=key).status == 403
    gone = server.delete("/v1/models/" + quote(ft, safe=""), key=key)
    assert gone.json() == {"id": ft, "object": "model", "deleted": True}
    assert predict(server, key, "m").status == 404
    assert server.delete("/v1/models/" + quote(ft, safe=""), key=key).status == 404


# ---- another model under the same database -------------------------------------------------------


def test_a_foreign_backbone_is_said_never_used(make_server):
    """Tasks learnt on one model are kept, refused on another with both fingerprints, and come back."""
    deep = TOP / "tests/models/boot-deep"
    if not (deep / "config.json").exists():
        pytest.skip("no second model in tests/models")
    server = make_server()
    key = "admin"
    made(server, key, "t", route=ROUTE)
    before = predictions(server, key, "t")
    version = server.get("/v1/tasks/t/versions/1", key=key).json()
    assert server.stop() == 0
    server.settings["model"] = str(deep)
    server.start()
    answer = predict(server, key, "t")
    assert answer.status == 409, answer
    assert version["model_fingerprint"][:12] in answer.json()["detail"]
    assert answer.headers["x-should-retry"] == "false"
    assert predict(server, key, "t@1").status == 409
    assert server.get("/v1/tasks/t", key=key).status == 200
    assert server.post("/v1/tasks/t/current", {"version": 1}, key=key).status == 409
    assert "#/model_fingerprint" in pointers(server.post("/v1/tasks/t/versions", version, key=key))
    deep_task = made(server, key, "deep")
    assert deep_task["current"] == 1 and predict(server, key, "deep").status == 200
    modules = server.post("/v1/predict", {"task": "deep", "inputs": ["x"], "return": ["modules"]},
                          key=key).json()["modules"]
    assert len(modules) == 3 and all(len(layer) == 8 for layer in modules)
    assert server.stop() == 0
    del server.settings["model"]
    server.start()
    assert predictions(server, key, "t") == before
    assert predict(server, key, "deep").status == 409
