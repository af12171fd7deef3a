"""What settings do not keep: ended jobs, their events, files; and the time that warming up may take."""
import time

import pytest

from test_files import upload
from test_jobs import LONG, SHORT, create, job_of, rows, wait_for

PURGE_SECONDS = 60  # the first look comes seconds after the start


def restart(server, **settings):
    """Ages what is there beyond the one second that the tests keep things for."""
    assert server.stop() == 0
    server.settings.update(settings)
    time.sleep(1.1)
    server.start()


def wait_until(what, server):
    end = time.monotonic() + PURGE_SECONDS
    while not what():
        assert time.monotonic() < end, server.log()[-3000:]
        time.sleep(0.2)


@pytest.fixture
def used(make_server):
    """(server, key, ended job, its file): the job made version 1 of "kept"."""
    server = make_server()
    key = server.make_tenant("acme")
    file = upload(server, key, rows()).json()["id"]
    job = create(server, key, file, {"task": "kept", **SHORT}, seed=1).json()["id"]
    assert wait_for(server, key, job)["status"] == "succeeded"
    return server, key, job, file


def events(server, key, job):
    answer = server.get(f"/v1/fine_tuning/jobs/{job}/events", key=key)
    assert answer.status == 200, answer
    return answer.json()["data"]


def test_jobs_go_and_their_versions_stay(used):
    server, key, job, file = used
    path = "/v1/fine_tuning/jobs/" + job
    ask = {"task": "kept", "inputs": ["味道很好"]}
    before = server.post("/v1/predict", ask, key=key).json()["predictions"]
    open_job = create(server, key, file, {"task": "open", **LONG}, seed=1).json()["id"]
    restart(server, keep_jobs="1s")
    wait_until(lambda: server.get(path, key=key).status == 404, server)
    assert server.get(path + "/events", key=key).status == 404
    assert server.get("/v1/tasks/kept/versions/1", key=key).status == 200
    assert server.post("/v1/predict", ask, key=key).json()["predictions"] == before
    assert server.get("/v1/files/" + file, key=key).status == 200  # the other job reads it
    assert job_of(server, key, open_job)["status"] in ("queued", "running", "validating_files")
    assert [j["id"] for j in server.get("/v1/fine_tuning/jobs", key=key).json()["data"]] == [open_job]
    assert "jobs_purged" in server.log()
    assert server.post(f"/v1/fine_tuning/jobs/{open_job}/cancel", key=key).status == 200


def test_events_go_and_their_job_stays(used):
    server, key, job, file = used
    assert events(server, key, job) != []
    restart(server, keep_events="1s")
    wait_until(lambda: events(server, key, job) == [], server)
    seen = job_of(server, key, job)
    assert seen["status"] == "succeeded" and seen["fine_tuned_model"], seen
    assert server.get("/v1/files/" + file, key=key).status == 200


def test_files_go_when_no_open_job_reads_them(used):
    server, key, job, file = used
    read = upload(server, key, rows()).json()["id"]
    open_job = create(server, key, read, {"task": "open", **LONG}, seed=1).json()["id"]
    restart(server, keep_files="1s")
    wait_until(lambda: server.get("/v1/files/" + file, key=key).status == 404, server)
    assert server.get(f"/v1/files/{file}/content", key=key).status == 404
    assert job_of(server, key, job)["training_file"] == file  # a job says what it read
    assert server.get(f"/v1/files/{read}/content", key=key).status == 200
    assert server.post(f"/v1/fine_tuning/jobs/{open_job}/cancel", key=key).status == 200
    wait_for(server, key, open_job)


def test_all_is_kept_by_default(used):
    server, key, job, file = used
    restart(server)
    time.sleep(4)  # the first look is over
    assert events(server, key, job) != [] and "jobs_purged" not in server.log()
    assert server.get(f"/v1/files/{file}/content", key=key).status == 200


def test_no_time_to_warm_up(make_server):
    """One look at the machine is all: the server starts, with the least budget that fits any input."""
    server = make_server(warmup_timeout="0", batch_time="10s")
    key = server.make_tenant("acme")
    answer = server.post("/v1/predict", {
        "type": "classification", "labels": ["负面", "正面"], "inputs": ["味道很好"] * 40}, key=key)
    assert answer.status == 200 and len(answer.json()["predictions"]) == 40, answer
