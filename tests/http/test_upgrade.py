"""A database written by an earlier schema opens, migrates and serves; one of a newer schema is refused."""
import os
import pathlib
import re
import sqlite3
import subprocess

from conftest import BIN, TOP, Server, model_dir

FIXTURE = (TOP / "tests/fixtures/schema_1.sql").read_text(encoding="utf-8")


def named(what):
    return re.search(rf"^-- {what}: (\S+)$", FIXTURE, re.M).group(1)


def old_database(directory):
    place = pathlib.Path(directory) / "db"
    place.mkdir()
    with sqlite3.connect(place / "mp2.db") as db:
        db.executescript(FIXTURE)
    db.close()
    return place / "mp2.db"


def user_version(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()


def test_schema_1_is_migrated_and_served(tmp_path):
    path = old_database(tmp_path)
    assert user_version(path) == 1
    server = Server(tmp_path)
    try:
        key, job = named("key"), named("job")
        me = server.get("/v1/me", key=key)
        assert me.status == 200 and me.json()["tenant"]["name"] == "acme", me
        task = server.get("/v1/tasks/reviews", key=key).json()
        assert task["current"] == 1 and task["description"] == "从前", task
        route = server.get("/v1/tasks/reviews/versions/2", key=key).json()["route"]
        assert route == [0.25, -1.5, 2, 0, 0.5, -0.5, 1, -2]
        assert server.get("/v1/tasks/gone", key=key).status == 404
        names = [t["name"] for t in server.get("/v1/tasks", key=key).json()["data"]]
        assert sorted(names) == ["learnt", "reviews"]
        content = server.get(f"/v1/files/{named('file')}/content", key=key)
        assert content.status == 200 and content.body.count(b"\n") == 8
        assert server.get("/v1/fine_tuning/jobs/" + job, key=key).json()["status"] == "succeeded"
        events = server.get(f"/v1/fine_tuning/jobs/{job}/events", key=key).json()["data"]
        assert any("succeeded" in event["message"] for event in events)
        for name in ("reviews", "learnt"):
            asked = server.post("/v1/predict", {"task": name, "inputs": ["很好"]}, key=key)
            assert asked.status == 200, asked
        made = server.post("/v1/tasks", {"name": "new", "type": "classification",
                                         "labels": ["甲", "乙"]}, key=key)
        assert made.status == 201, made
    finally:
        assert server.stop() == 0
    assert user_version(path) > 1
    assert user_version(str(path) + ".schema-1") == 1  # as it was before
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    plan = db.execute("EXPLAIN QUERY PLAN SELECT id FROM tasks INDEXED BY tasks_tenant WHERE"
                      " tenant = 1 AND deleted = 0 AND id < 9 ORDER BY id DESC").fetchall()
    assert len(plan) == 1 and "deleted=? AND rowid<?" in plan[0][3], plan  # no deleted task walked
    db.close()


def test_a_newer_schema_is_refused(tmp_path):
    path = old_database(tmp_path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 4711")
    db.close()
    before = path.read_bytes()
    env = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    done = subprocess.run([str(BIN), "serve", "--db", str(path), "--listen", "127.0.0.1:0"],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**env, "MP2_MODEL": model_dir() or ""})
    assert done.returncode != 0 and "4711" in done.stderr and "newer mp2" in done.stderr, done
    assert path.read_bytes() == before
