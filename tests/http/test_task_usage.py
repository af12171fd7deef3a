"""Who asks a task: requests, inputs and tokens by day and key, through every façade."""
import time

from conftest import PATIENCE

TASK = {"type": "classification", "labels": ["负面", "正面"]}


def uses(server, key, task, **query):
    words = "&".join(f"{k}={v}" for k, v in query.items())
    answer = server.get(f"/v1/tasks/{task}/usage" + (f"?{words}" if words else ""), key=key)
    assert answer.status == 200, answer
    return answer.json()["data"]


def wait_for(server, key, task, requests):
    """Counts lie in memory for two seconds at most."""
    end = time.monotonic() + PATIENCE
    while sum(one["requests"] for one in uses(server, key, task)) < requests and time.monotonic() < end:
        time.sleep(0.1)
    return uses(server, key, task)


def key_id(server, key):
    return server.get("/v1/me", key=key).json()["key"]["id"]


def test_by_key_through_every_face(make_server):
    server = make_server()
    first = server.make_tenant("acme")
    second = server.make_key("acme", ["predict", "read"])
    for name in ("asked", "other"):
        assert server.post("/v1/tasks", {"name": name, **TASK}, key=first).status == 201
    asked = server.post("/v1/predict", {"task": "asked", "inputs": ["很好", "不好"]}, key=first).json()
    assert server.post("/v1/predict", {"task": "asked@1", "inputs": ["很好"]}, key=first).status == 200
    assert server.post("/hf/asked", {"inputs": "很好"}, key=second).status == 200
    infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["很好"]}]}
    assert server.post("/v2/models/asked/infer", infer, key=second).status == 200
    assert server.post("/v1/predict", {**TASK, "inputs": ["无名"]}, key=second).status == 200  # no task's
    found = {one["key"]: one for one in wait_for(server, first, "asked", 4)}
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert set(found) == {key_id(server, first), key_id(server, second)}
    one = found[key_id(server, first)]
    assert (one["requests"], one["inputs"]) == (2, 3) and one["tokens"] > asked["usage"]["tokens"]
    assert one["day"] >= today
    assert found[key_id(server, second)]["requests"] == found[key_id(server, second)]["inputs"] == 2
    assert uses(server, first, "other") == []
    assert server.stop() == 0  # what is in memory is written
    server.start()
    assert {one["key"]: one for one in uses(server, first, "asked")} == found
    assert server.delete("/v1/tasks/asked", key=first).status == 200
    assert server.get("/v1/tasks/asked/usage", key=first).status == 404


def test_only_ones_own(server):
    mine, theirs = server.make_tenant("mine-used"), server.make_tenant("theirs-used")
    assert server.post("/v1/tasks", {"name": "private", **TASK}, key=mine).status == 201
    assert server.get("/v1/tasks/private/usage", key=theirs).status == 404
    assert server.get("/v1/tasks/private/usage", key=None).status == 401
    for days in ("0", "401", "x"):
        assert server.get(f"/v1/tasks/private/usage?days={days}", key=mine).status == 422


def test_the_sums_are_the_tenants(make_server):
    server = make_server()
    key = server.make_tenant("many")
    assert server.post("/v1/tasks", {"name": "one", **TASK}, key=key).status == 201
    for _ in range(50):
        assert server.post("/v1/predict", {"task": "one", "inputs": ["好"]}, key=key).status == 200
    assert sum(u["requests"] for u in wait_for(server, key, "one", 50)) == 50
    used = server.get("/v1/usage", key=key).json()["data"]
    for name in ("inputs", "tokens"):
        assert sum(u[name] for u in uses(server, key, "one")) == sum(day[name] for day in used)
