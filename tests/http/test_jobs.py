"""Fine-tuning jobs: from rows to a task that answers, what is refused, cancel, crash, shutdown."""
import json
import time

import pytest

from conftest import SLOW
from test_files import upload

GOOD = ["味道很好，还会再来", "服务热情，房间干净", "物流很快，包装完好", "声音清楚，价格实惠",
        "环境安静，适合带孩子", "做工细致，很喜欢", "医生耐心，讲得明白", "路线清楚，一点不累"]
BAD = ["等了一个小时还没上菜", "房间有异味，窗户关不上", "用了两天就坏了", "客服一直不回消息",
       "地方又吵又脏", "颜色和图片差太多", "排队太久，态度很差", "说明书看不懂，退货还要钱"]


def rows(good="正面", bad="负面", times=1):
    lines = [{"text": t, "label": good} for t in GOOD] + [{"text": t, "label": bad} for t in BAD]
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in lines * times)


def create(server, key, file, mp2=None, **more):
    body = {"model": "boot", "training_file": file, **more}
    if mp2 is not None:
        body["mp2"] = mp2
    return server.post("/v1/fine_tuning/jobs", body, key=key)


def job_of(server, key, job):
    answer = server.get("/v1/fine_tuning/jobs/" + job, key=key)
    assert answer.status == 200, answer
    return answer.json()


def wait_for(server, key, job, statuses=("succeeded", "failed", "cancelled"),
             seconds=400 if SLOW else 120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = job_of(server, key, job)
        if seen["status"] in statuses:
            return seen
        time.sleep(0.1)
    raise AssertionError(f"still {seen['status']} after {seconds} s\n{server.log()[-3000:]}")


@pytest.fixture
def file(server, tenant):
    return upload(server, tenant[1], rows()).json()["id"]


SHORT = {"budget": {"steps": 3}, "init": "average"}
LONG = {"budget": {"steps": 100000}, "init": "average"}


def test_job_to_answers(server, tenant, file):
    name, key = tenant
    made = create(server, key, file, {"task": "reviews", **SHORT}, seed=8, suffix="walk",
                  metadata={"team": "red"})
    assert made.status == 200, made
    job = made.json()
    assert job["object"] == "fine_tuning.job" and job["id"].startswith("ftjob-")
    assert job["status"] == "queued" and job["model"] == "boot" and job["seed"] == 8
    assert job["training_file"] == file and job["validation_file"] is None
    assert job["organization_id"] == name and job["result_files"] == []
    assert job["fine_tuned_model"] is None and job["error"] is None and job["integrations"] == []
    assert job["metadata"] == {"team": "red"} and job["finished_at"] is None
    assert job["hyperparameters"]["n_epochs"] == "auto" and job["trained_tokens"] is None
    assert job["method"]["type"] == "supervised"
    assert job["mp2"]["labels"] == ["正面", "负面"] and job["mp2"]["type"] == "classification"
    done = wait_for(server, key, job["id"])
    assert done["status"] == "succeeded", done
    assert done["trained_tokens"] > 0 and done["finished_at"] >= done["created_at"]
    assert done["fine_tuned_model"].startswith(f"ft:boot:{name}:walk:")
    result = done["mp2"]["result"]
    assert result["steps"] == result["best_step"] <= 3 and 0 <= result["accuracy"] <= 1
    assert (result["train_rows"], result["validation_rows"], result["folds"]) == (16, 16, 4)
    assert result["validation_from"] == "cross_validation"
    assert result["errors_from"] == "training_rows"
    for task in ("reviews", f"{name}/reviews", done["fine_tuned_model"]):
        answer = server.post("/v1/predict", {"task": task, "inputs": ["饭菜很香"]}, key=key)
        assert answer.status == 200, answer
        assert answer.json()["predictions"][0]["label"] in ("正面", "负面")
    version = server.get("/v1/tasks/reviews/versions/1", key=key).json()
    assert len(version["route"]) == 8 and version["job"] == job["id"]


def test_events(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, SHORT).json()["id"]
    wait_for(server, key, job)
    path = f"/v1/fine_tuning/jobs/{job}/events"
    page = server.get(path + "?limit=100", key=key).json()
    events = page["data"]
    assert not page["has_more"] and page["first_id"] == events[0]["id"]
    assert [e["object"] for e in events] == ["fine_tuning.job.event"] * len(events)
    numbers = [int(e["id"].removeprefix("ftevent-")) for e in events]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == len(numbers)
    assert events[-1]["message"].startswith("Created") and "succeeded" in events[0]["message"]
    metrics = [e for e in events if e["type"] == "metrics"]
    assert metrics and metrics[0]["data"]["total_steps"] == 3 * 5  # four folds and the last run
    assert isinstance(metrics[0]["data"]["train_loss"], float)
    parts = [(e["data"]["fold"], e["data"]["folds"]) for e in reversed(metrics)]
    assert parts == sorted(parts) and {folds for _, folds in parts} == {4}
    last = [e["data"] for e in metrics if e["data"]["fold"] == 5]  # the last run, on all rows
    steps = job_of(server, key, job)["mp2"]["result"]["steps"]
    assert len(last) == steps, last
    assert all(isinstance(data["train_loss"], float) and data["valid_loss"] is None for data in last), last
    assert all((e["data"]["step"] - 1) // 3 + 1 == e["data"]["fold"] for e in metrics if e["data"]["step"])
    second = server.get(f"{path}?limit=2&after={events[0]['id']}", key=key).json()
    assert [e["id"] for e in second["data"]] == [e["id"] for e in events[1:3]]
    kept = server.get(f"{path[:-7]}/checkpoints", key=key).json()["data"]
    model = job_of(server, key, job)["fine_tuned_model"]
    assert [c["fine_tuned_model_checkpoint"] for c in kept] == [model]


def test_same_seed_same_route(server, tenant, file):
    _, key = tenant
    routes = []
    for i in range(2):
        job = create(server, key, file, {"task": f"same-{i}", "budget": {"steps": 4}}, seed=13)
        wait_for(server, key, job.json()["id"])
        routes.append(server.get(f"/v1/tasks/same-{i}/versions/1", key=key).json()["route"])
    assert routes[0] == routes[1]


def test_second_job_adds_a_version(server, tenant, file):
    _, key = tenant
    jobs = [create(server, key, file, {"task": "twice", **SHORT}, seed=i).json()["id"]
            for i in range(2)]
    numbers = [wait_for(server, key, j)["mp2"]["version"] for j in jobs]
    assert numbers == [1, 2]
    third = create(server, key, file, {"task": "twice", **SHORT}).json()["id"]
    assert wait_for(server, key, third)["mp2"]["version"] == 3
    other = create(server, key, file, {"task": "twice", "labels": ["a", "b"]})
    assert other.status == 422 and other.json()["error"]["param"] == "mp2.labels"
    assert create(server, key, file, {"task": "twice", "type": "pair"}).status == 422


def test_validation_file_and_k_shot(server, tenant, file):
    _, key = tenant
    dev = upload(server, key, rows(times=2)).json()["id"]
    job = create(server, key, file, SHORT, validation_file=dev).json()["id"]
    result = wait_for(server, key, job)["mp2"]["result"]
    assert (result["train_rows"], result["validation_rows"]) == (16, 32)
    assert result["validation_from"] == "validation_file"
    job = create(server, key, file, {"k_shot": 2, **SHORT}).json()["id"]
    result = wait_for(server, key, job)["mp2"]["result"]
    assert (result["train_rows"], result["validation_rows"]) == (4, 4)
    assert (result["validation_from"], result["folds"]) == ("k_shot", 0)
    enough = upload(server, key, rows(times=2)).json()["id"]
    job = create(server, key, enough, SHORT).json()["id"]
    result = wait_for(server, key, job)["mp2"]["result"]
    assert (result["train_rows"], result["validation_rows"], result["folds"]) == (16, 16, 0)
    assert result["validation_from"] == "stratified_half"
    assert result["errors_from"] == "validation_rows"


def test_folds_without_steps(server, tenant, file):
    """What learns nothing is measured on rows it has not seen, too."""
    _, key = tenant
    for method in ("average", "retrieve"):
        job = create(server, key, file, {"task": "plain", "method": method}).json()["id"]
        done = wait_for(server, key, job)
        assert done["status"] == "succeeded", done
        result = done["mp2"]["result"]
        assert (result["validation_from"], result["folds"]) == ("cross_validation", 4)
        assert result["steps"] == 0 and result["accuracy"] == result["accuracy_before"]
        assert (result["accuracy"] * 16) % 1 == pytest.approx(0)


def test_hyperparameters(server, tenant, file):
    _, key = tenant
    hyper = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    for where in ({"hyperparameters": hyper},
                  {"method": {"type": "supervised", "supervised": {"hyperparameters": hyper}}}):
        job = create(server, key, file, {"init": "average"}, **where).json()
        assert job["hyperparameters"] == hyper
        result = wait_for(server, key, job["id"])["mp2"]["result"]
        assert result["steps"] <= 8 and result["batch_size"] == 4  # 2 epochs of 16 rows
        assert job["mp2"]["estimate"]["steps"] == 8 * 5  # four folds and the last run


def test_black_box_job(server, tenant, file):
    _, key = tenant
    how = {"method": "blackbox-route", "budget": {"evaluations": 6}, "init": "average", "label_scaling": False}
    routes = []
    for _ in range(2):
        job = create(server, key, file, how, seed=8).json()
        assert job["mp2"]["budget"] == {"evaluations": 6}
        done = wait_for(server, key, job["id"])
        assert done["status"] == "succeeded", done
        assert done["mp2"]["result"]["steps"] == 6
        version = server.get(f"/v1/tasks/{done['mp2']['task']}/versions/1", key=key).json()
        assert version["method"] == "blackbox-route"
        routes.append(version["route"])
    assert len(routes[0]) == 8 and routes[0] == routes[1]


def test_csv_job(server, tenant):
    _, key = tenant
    text = "text,label\n" + "".join(f"{t},好\n" for t in GOOD) + "".join(f"{t},差\n" for t in BAD)
    text = text.replace("，", "、")
    file = upload(server, key, text, filename="a.csv").json()["id"]
    job = create(server, key, file, SHORT).json()["id"]
    assert wait_for(server, key, job)["status"] == "succeeded"


@pytest.mark.parametrize("change,status,param", [
    ({"model": None}, 422, "model"),
    ({"model": "gpt"}, 404, "model"),
    ({"training_file": None}, 422, "training_file"),
    ({"training_file": "file-nothing"}, 404, "training_file"),
    ({"validation_file": "file-nothing"}, 404, "validation_file"),
    ({"seed": -1}, 422, "seed"),
    ({"suffix": "a b"}, 422, "suffix"),
    ({"metadata": {"k": 1}}, 422, "metadata/k"),
    ({"unknown": 1}, 422, "unknown"),
    ({"hyperparameters": {"n_epochs": 0}}, 422, "hyperparameters/n_epochs"),
    ({"method": {"type": "dpo"}}, 422, "method/type"),
    ({"mp2": {"method": "magic"}}, 422, "mp2/method"),
    ({"mp2": {"method": "full"}}, 422, "mp2/method"),
    ({"mp2": {"labels": ["正面"]}}, 422, "mp2/labels"),
    ({"mp2": {"labels": ["正面", "别的"]}}, 422, "training_file"),
    ({"mp2": {"type": "extractive"}}, 422, "training_file"),
    ({"mp2": {"template": "{nothing"}}, 422, "mp2"),
    ({"mp2": {"task": "other/reviews"}}, 404, "mp2.task"),
    ({"mp2": {"task": "a:b"}}, 422, "mp2.task"),
    ({"mp2": {"budget": {"steps": 0}}}, 422, "mp2/budget/steps"),
    ({"mp2": {"budget": {"evaluations": 50}}}, 422, "mp2/budget/evaluations"),
    ({"mp2": {"method": "blackbox-route", "budget": {"evaluations": 1}}}, 422,
     "mp2/budget/evaluations"),
])
def test_refused(server, tenant, file, change, status, param):
    _, key = tenant
    body = {"model": "boot", "training_file": file, **change}
    answer = server.post("/v1/fine_tuning/jobs", {k: v for k, v in body.items() if v is not None},
                         key=key)
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert error["message"] and error["param"] == param, error
    assert server.get("/v1/fine_tuning/jobs", key=key).json()["data"] == []


def test_one_label_is_refused(server, tenant):
    _, key = tenant
    file = upload(server, key, rows(good="好", bad="好")).json()["id"]
    answer = create(server, key, file)
    assert answer.status == 422 and "at least 2" in answer.json()["error"]["message"]


def test_tenants_are_blind_to_each_other(server, tenant, file):
    _, key = tenant
    other = server.make_tenant("blind")
    assert create(server, other, file).status == 404
    job = create(server, key, file, LONG).json()["id"]
    path = "/v1/fine_tuning/jobs/" + job
    for answer in (server.get(path, key=other), server.post(path + "/cancel", key=other),
                   server.get(path + "/events", key=other),
                   server.get(path + "/checkpoints", key=other)):
        assert answer.status == 404, answer
    assert server.get("/v1/fine_tuning/jobs", key=other).json()["data"] == []
    assert server.post(path + "/cancel", key=key).status == 200
    wait_for(server, key, job)


def test_list_and_metadata(server, tenant, file):
    _, key = tenant
    ids = [create(server, key, file, SHORT, metadata={"n": str(i % 2)}).json()["id"]
           for i in range(3)]
    page = server.get("/v1/fine_tuning/jobs?limit=2", key=key).json()
    assert [j["id"] for j in page["data"]] == ids[:0:-1] and page["has_more"]
    rest = server.get(f"/v1/fine_tuning/jobs?after={page['last_id']}", key=key).json()
    assert [j["id"] for j in rest["data"]] == ids[:1] and not rest["has_more"]
    some = server.get("/v1/fine_tuning/jobs?metadata[n]=0", key=key).json()
    assert [j["id"] for j in some["data"]] == [ids[2], ids[0]]
    for job in ids:
        wait_for(server, key, job)


def test_cancel(server, tenant, file):
    _, key = tenant
    running = create(server, key, file, LONG).json()["id"]
    waiting = create(server, key, file, SHORT).json()["id"]
    wait_for(server, key, running, ("running",))
    answer = server.post(f"/v1/fine_tuning/jobs/{waiting}/cancel", key=key)
    assert answer.json()["status"] == "cancelled"
    began = time.monotonic()
    assert server.post(f"/v1/fine_tuning/jobs/{running}/cancel", key=key).status == 200
    done = wait_for(server, key, running)
    assert done["status"] == "cancelled" and done["fine_tuned_model"] is None
    assert time.monotonic() - began < 5  # a second on a machine with nothing else to do
    assert server.post(f"/v1/fine_tuning/jobs/{running}/cancel", key=key).status == 409
    assert server.delete("/v1/files/" + file, key=key).status == 200


def test_file_in_use(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, LONG).json()["id"]
    assert server.delete("/v1/files/" + file, key=key).status == 409
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", key=key)
    wait_for(server, key, job)
    assert server.delete("/v1/files/" + file, key=key).status == 200


def test_repeated_post(server, tenant, file):
    _, key = tenant
    body = {"model": "boot", "training_file": file, "mp2": SHORT}
    again = {"x-stainless-retry-count": "1"}
    first = server.post("/v1/fine_tuning/jobs", body, key=key).json()["id"]
    retry = server.post("/v1/fine_tuning/jobs", body, key=key, headers=again).json()["id"]
    fresh = server.post("/v1/fine_tuning/jobs", body, key=key).json()["id"]
    other = server.post("/v1/fine_tuning/jobs", {**body, "seed": 5}, key=key, headers=again)
    assert retry == first and fresh != first and other.json()["id"] not in (first, fresh)
    for job in (first, fresh, other.json()["id"]):
        wait_for(server, key, job)


def test_too_many_jobs(make_server):
    server = make_server(max_queued_jobs=2, job_threads=0)
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    assert [create(server, key, file).status for _ in range(3)] == [200, 200, 429]
    other = server.make_tenant("other")
    assert create(server, other, upload(server, other, rows()).json()["id"]).status == 200


def test_crash_and_shutdown(make_server):
    """A killed job is run again and ends with the same route; a stopped one goes back in order.
    Without stored states, so that each attempt begins anew; with them: test_pause.py."""
    server = make_server(job_checkpoint="1h")
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    short = {"budget": {"steps": 4}}
    job = create(server, key, file, {"task": "calm", **short}, seed=3).json()["id"]
    wait_for(server, key, job)
    calm = server.get("/v1/tasks/calm/versions/1", key=key).json()["route"]
    answers = server.post("/v1/predict", {"task": "calm", "inputs": GOOD + BAD}, key=key).json()
    long = create(server, key, file, {"task": "long", **LONG}).json()["id"]
    stormy = create(server, key, file, {"task": "stormy", **short}, seed=3).json()["id"]
    wait_for(server, key, long, ("running",))
    server.kill()
    server.start()
    wait_for(server, key, long, ("running",))
    assert job_of(server, key, long)["mp2"]["attempts"] == 2
    again = server.post("/v1/predict", {"task": "calm", "inputs": GOOD + BAD}, key=key).json()
    assert again["predictions"] == answers["predictions"]
    assert server.stop() == 0
    server.start()
    seen = wait_for(server, key, long, ("running",))
    assert seen["mp2"]["attempts"] == 1  # the shutdown was not its fault, and it has got on
    events = server.get(f"/v1/fine_tuning/jobs/{long}/events?limit=100", key=key).json()["data"]
    messages = [e["message"] for e in events]
    assert any("attempt 2 of 3" in m for m in messages)
    assert any("queued again" in m for m in messages)
    for _ in range(2):
        server.kill()
        server.start()
        wait_for(server, key, long, ("running",))
    server.kill()
    server.start()
    seen = wait_for(server, key, long)
    assert seen["status"] == "failed" and seen["error"]["code"] == "interrupted", seen
    assert wait_for(server, key, stormy)["status"] == "succeeded"
    assert server.get("/v1/tasks/stormy/versions/1", key=key).json()["route"] == calm


def test_predictions_while_a_job_runs(server, tenant, file):
    _, key = tenant
    job = create(server, key, file, LONG).json()["id"]
    wait_for(server, key, job, ("running",))
    ask = {"type": "classification", "labels": ["正面", "负面"], "inputs": ["饭菜很香"]}
    for _ in range(5):
        assert server.post("/v1/predict", ask, key=key).status == 200
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", key=key)
    wait_for(server, key, job)


def test_scopes(server, tenant, file):
    name, _ = tenant
    reader = server.make_key(name, scopes=("read",))
    assert create(server, reader, file).status == 403
    assert server.get("/v1/fine_tuning/jobs", key=reader).status == 200
    predictor = server.make_key(name, scopes=("predict",))
    assert server.get("/v1/fine_tuning/jobs", key=predictor).status == 403
