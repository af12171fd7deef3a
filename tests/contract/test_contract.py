"""The OpenAPI document against the server, by schemathesis: requests made from the schemas, right and wrong
ones, from a fixed seed. No 5xx, every answer as documented, wrong data refused, right data taken or the
reason told (hooks.py).

    test_strangers  objects that mostly do not exist, and what the document itself links
    test_members    the same operations on objects that do exist
    test_changes    PATCH, which may rename what it hits

MP2_CONTRACT_EXAMPLES (20) is the number of random requests an operation.
"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("http_harness", HERE.parent / "http/conftest.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

EXAMPLES = os.environ.get("MP2_CONTRACT_EXAMPLES", "20")
SEED = "20261125"
SENTIMENT = {"type": "classification", "labels": ["负面", "正面"]}


@pytest.fixture(scope="module")
def server():
    make, end = harness._factory()
    yield make(log_level="warn", max_queued_jobs=100000)
    end()


def upload(server):
    rows = "".join(json.dumps({"text": f"第{i}句", "label": SENTIMENT["labels"][i % 2]}) + "\n"
                   for i in range(8)).encode()
    body = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
            + rows + b"\r\n--b--\r\n")
    made = server.post("/v1/files", body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert made.status == 200, made
    return made.json()["id"]


@pytest.fixture(scope="module")
def members(server):
    """Values of path parameters that name something."""
    server.make_tenant("acme")
    for name in ("kept", "changed"):
        assert server.post("/v1/tasks", {"name": name, **SENTIMENT}).status == 201
    file = upload(server)
    job = server.post("/v1/fine_tuning/jobs", {
        "model": "boot", "training_file": file, "seed": 1,
        "mp2": {"task": "learnt", **SENTIMENT, "budget": {"steps": 1}}}).json()["id"]
    while server.get("/v1/fine_tuning/jobs/" + job).json()["status"] not in ("succeeded", "failed"):
        time.sleep(0.05)
    assert server.get("/v1/fine_tuning/jobs/" + job).json()["status"] == "succeeded"
    return {"task": "kept", "tenant": "acme", "file": file, "job": job, "model": "kept",
            "version": "1", "asset": "app.js"}


def brief(report):
    """What failed, long bodies cut."""
    begin = max(report.find("= FAILURES ="), report.find("= ERRORS ="), 0)
    return "\n".join(line[:300] for line in report[begin:].splitlines())[:20000]


def run(server, tmp_path, values=None, options=()):
    config = (HERE / "schemathesis.toml").read_text(encoding="utf-8")
    if values:
        lines = [f"{json.dumps('path.' + name)} = {json.dumps(value)}" for name, value in values.items()]
        config = "[parameters]\n" + "\n".join(lines) + "\n\n" + config
    (tmp_path / "schemathesis.toml").write_text(config, encoding="utf-8")
    words = [str(pathlib.Path(sys.executable).parent / "schemathesis"), "--config-file",
             str(tmp_path / "schemathesis.toml"), "run", server.url + "/openapi.json",
             "-H", f"Authorization: Bearer {server.admin_key}", "--seed", SEED,
             "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color", *options]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE),
           "MP2_CONTRACT_KEY_ID": server.get("/v1/me").json()["key"]["id"]}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280,
                          check=False)
    summary = done.stdout[done.stdout.rfind("= SUMMARY ="):]
    assert done.returncode == 0, brief(done.stdout + done.stderr[-2000:])
    assert " generated" in summary, summary
    print(summary)
    assert server.alive()
    assert server.get("/v1/me").status == 200, "the run has lost its own key: it looked at little"


def test_strangers(server, tmp_path):
    run(server, tmp_path, options=["--phases", "examples,coverage,fuzzing,stateful"])


def test_members(server, members, tmp_path):
    run(server, tmp_path, members,
        ["--phases", "coverage,fuzzing", "--exclude-method", "DELETE", "--exclude-method", "PATCH"])


def test_changes(server, members, tmp_path):
    run(server, tmp_path, {**members, "task": "changed"},
        ["--phases", "coverage,fuzzing", "--include-method", "PATCH"])
