"""kill -9 on a running job, again and again: it goes on from its last stored state each time and ends with
the bytes of a run that nothing disturbed. More kills than job_attempts: getting on is what counts."""
import os
import random
import shutil
import sqlite3
import tempfile
import time

import pytest

from test_crash_server import ROWS, check_database, harness

KILLS = 3 if os.environ.get("MP2_SLOW_BUILD") == "1" else 6
HOW = {
    "route": {"method": "route", "init": "average", "eval_every": 40, "budget": {"steps": 250}},
    "prompt": {"method": "prompt", "eval_every": 40, "budget": {"steps": 200}},
}


def start(server, key, file, how):
    made = server.post("/v1/fine_tuning/jobs", {"model": "boot", "training_file": file, "seed": 6,
                                                "mp2": how}, key=key)
    assert made.status == 200, made
    return made.json()["id"]


def status(server, key, job):
    return server.get("/v1/fine_tuning/jobs/" + job, key=key).json()["status"]


def state_step(server, key, job):
    kept = server.get(f"/v1/fine_tuning/jobs/{job}/checkpoints", key=key).json()["data"]
    return kept[0]["step_number"] if kept else 0


def wait(server, condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, server.log()[-3000:]
        time.sleep(0.02)


def stored_step(server):
    """Of the only job that has a state, in the database of a dead server."""
    with sqlite3.connect(f"file:{server.db}?mode=ro", uri=True) as db:
        row = db.execute("SELECT step FROM job_checkpoints").fetchone()
    db.close()
    return row[0] if row else 0


def bytes_of(server, job):
    with sqlite3.connect(f"file:{server.db}?mode=ro", uri=True) as db:
        row = db.execute("SELECT v.route, b.prompt, b.head FROM task_versions v LEFT JOIN"
                         " version_blobs b ON b.version = v.id WHERE v.job = ?", (job,)).fetchone()
    db.close()
    return row


@pytest.mark.parametrize("method", list(HOW))
def test_a_job_outlives_kills(method):
    directory = tempfile.mkdtemp(prefix="mp2-crash-")
    server = harness.Server(directory, job_attempts=2, job_checkpoint="50ms", log_level="warn")
    chance = random.Random(method)
    try:
        key = server.make_tenant("one")
        form = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
                b'Content-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n' + ROWS
                + b"\r\n--b--\r\n")
        file = server.post("/v1/files", form, key=key, headers={
            "Content-Type": "multipart/form-data; boundary=b"}).json()["id"]
        calm = start(server, key, file, HOW[method])
        wait(server, lambda: status(server, key, calm) == "succeeded")
        job = start(server, key, file, HOW[method])
        seen = kills = 0
        while kills < KILLS:
            wait(server, lambda: state_step(server, key, job) > seen
                 or status(server, key, job) in ("succeeded", "failed"))
            if status(server, key, job) in ("succeeded", "failed"):
                break
            time.sleep(chance.uniform(0, 0.1))
            server.kill()
            check_database(server.db, False)
            seen = stored_step(server)
            server.start()
            kills += 1
        wait(server, lambda: status(server, key, job) in ("succeeded", "failed"))
        assert status(server, key, job) == "succeeded"
        assert kills > 2, "it ended before it could be killed"
        events = server.get(f"/v1/fine_tuning/jobs/{job}/events?limit=100&order=asc", key=key)
        went_on = [int(e["message"].removeprefix("Going on from step "))
                   for e in events.json()["data"] if e["message"].startswith("Going on from")]
        assert len(went_on) == kills and went_on == sorted(went_on) and went_on[0] > 0, went_on
        assert bytes_of(server, job) == bytes_of(server, calm) is not None
        assert server.stop() == 0
        check_database(server.db, True)
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)
