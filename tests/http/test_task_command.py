"""`mp2 task list|show` on the database of a running server."""
import json
import subprocess

from conftest import BIN


def run(server, *words):
    done = subprocess.run([str(BIN), "task", *words, "--db", str(server.db)], timeout=60,
                          capture_output=True, text=True, check=False)
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_list_and_show(server, tenant):
    name, key = tenant
    for task in ("news", "reviews", "reviews-2"):
        body = {"name": task, "type": "classification", "labels": ["负面", "正面"],
                "route": [1, 2, 3, 4, 5, 6, 7, 8]}
        assert server.post("/v1/tasks", body, key=key).status == 201
    code, out, _ = run(server, "list", "--tenant", name)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [
        "news", "reviews", "reviews-2"]
    code, out, _ = run(server, "list", "reviews", "--tenant", name, "--json")
    assert code == 0 and [json.loads(line)["name"] for line in out.splitlines()] == [
        "reviews", "reviews-2"]
    code, out, _ = run(server, "show", "news", "--tenant", name)
    assert code == 0 and "route     1 2 3 4 5 6 7 8" in out and "负面" in out
    code, out, _ = run(server, "show", "news", "--tenant", name, "--json")
    assert code == 0 and json.loads(out)["version"]["route"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_wrong_is_said(server, tenant):
    name, _ = tenant
    code, _, err = run(server, "show", "none", "--tenant", name)
    assert code == 3 and "none" in err
    code, _, err = run(server, "list", "--tenant", "nobody")
    assert code == 3 and "nobody" in err
    assert run(server, "list")[0] == 2
    assert run(server, "drop", "--tenant", name)[0] == 2
    assert run(server, "show", "--tenant", name)[0] == 2
    missing = subprocess.run([str(BIN), "task", "list", "--tenant", "x", "--db", "/nonexistent/x"],
                             capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode == 3 and "--db" in missing.stderr
