"""Backups, restore and checks; rotation of keys; the audit log; the commands beside them."""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess

import pytest

from conftest import BIN, model_dir


def run(*words, db=None, code=0):
    """`mp2 WORDS`; returns (standard output, standard error)."""
    more = ["--db", str(db)] if db else []
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    done = subprocess.run([str(BIN), *words, *more], capture_output=True, text=True, timeout=120,
                          check=False, env=clean)
    assert done.returncode == code, done
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.stdout, done.stderr


# ---- rotation ---------------------------------------------------------------------------------


def rotate(server, tenant, key_id, body=None):
    return server.post(f"/v1/admin/tenants/{tenant}/keys/{key_id}/rotate", body)


def test_rotate_ends_the_old_key_at_once(server, tenant):
    name, old = tenant
    old_id = server.get("/v1/me", key=old).json()["key"]["id"]
    made = rotate(server, name, old_id)
    assert made.status == 201, made
    fresh = made.json()
    assert fresh["key"].startswith("mp2_") and fresh["id"] != old_id
    assert fresh["scopes"] == ["predict", "adapt", "read"] and fresh["expires_at"] is None
    assert server.get("/v1/me", key=old).status == 401
    assert server.get("/v1/me", key=fresh["key"]).status == 200
    assert rotate(server, name, old_id).status == 409  # nothing left to rotate
    assert fresh["key"] not in server.log()


def test_rotate_with_grace(server, tenant):
    name, _ = tenant
    old = server.post(f"/v1/admin/tenants/{name}/keys",
                      {"scopes": ["read"], "label": "robot", "expires_in": 1000}).json()
    fresh = rotate(server, name, old["id"], {"grace_seconds": 600}).json()
    assert (fresh["label"], fresh["scopes"]) == ("robot", ["read"])
    assert 990 <= fresh["expires_at"] - fresh["created_at"] <= 1000
    assert server.get("/v1/me", key=old["key"]).status == 200
    listed = {k["id"]: k for k in server.get(f"/v1/admin/tenants/{name}/keys").json()["data"]}
    assert 590 <= listed[old["id"]]["expires_at"] - fresh["created_at"] <= 601
    # a grace does not make an old key live longer than it would have
    longer = rotate(server, name, old["id"], {"grace_seconds": 999999}).json()
    listed = {k["id"]: k for k in server.get(f"/v1/admin/tenants/{name}/keys").json()["data"]}
    assert listed[old["id"]]["expires_at"] - longer["created_at"] <= 601


@pytest.mark.parametrize("body,pointer", [({"grace_seconds": -1}, "#/grace_seconds"),
                                          ({"grace_seconds": "1"}, "#/grace_seconds"),
                                          ({"grace": 1}, "#/grace")])
def test_rotate_bodies(server, tenant, body, pointer):
    name, key = tenant
    key_id = server.get("/v1/me", key=key).json()["key"]["id"]
    answer = rotate(server, name, key_id, body)
    assert answer.status == 422 and answer.json()["errors"][0]["pointer"] == pointer
    assert server.get("/v1/me", key=key).status == 200


def test_rotate_what_is_not_there(server, tenant):
    name, key = tenant
    key_id = server.get("/v1/me", key=key).json()["key"]["id"]
    assert rotate(server, name, "key_none").status == 404
    assert rotate(server, "default", key_id).status == 404  # of another tenant
    answer = server.post(f"/v1/admin/tenants/{name}/keys/{key_id}/rotate", key=key)
    assert answer.status == 403


# ---- audit ------------------------------------------------------------------------------------


def test_audit(make_server):
    server = make_server()
    secret = server.make_tenant("acme", weight=2)
    key = server.get("/v1/admin/tenants/acme/keys").json()["data"][0]["id"]
    server.patch("/v1/admin/tenants/acme", {"disabled": True})
    server.post("/v1/admin/tenants", {"name": "acme"})  # refused: nothing happened
    fresh = rotate(server, "acme", key).json()
    server.delete(f"/v1/admin/tenants/acme/keys/{fresh['id']}")
    answer = server.get("/v1/admin/audit?limit=100").json()
    assert answer["object"] == "list" and answer["has_more"] is False
    acts = [(row["action"], row["object"]) for row in reversed(answer["data"])]
    assert acts == [("tenant.create", "acme"), ("key.create", f"acme/{key}"),
                    ("tenant.update", "acme"), ("key.rotate", f"acme/{key}"),
                    ("key.revoke", f"acme/{fresh['id']}")]
    first = answer["data"][-1]
    me = server.get("/v1/me").json()["key"]["id"]
    assert first["actor"] == {"tenant": "default", "key": me, "user": None}
    assert first["detail"] == {"name": "acme", "weight": 2} and first["created_at"] > 0
    text = json.dumps(answer)
    assert secret not in text and fresh["key"] not in text and server.admin_key not in text
    page = server.get("/v1/admin/audit?limit=2").json()
    assert page["has_more"] is True
    rest = server.get(f"/v1/admin/audit?limit=3&after={page['data'][1]['id']}").json()
    assert [row["id"] for row in page["data"] + rest["data"]] == [5, 4, 3, 2, 1]
    assert server.get("/v1/admin/audit", key=server.make_key("default", ["read"])).status == 403
    out, _ = run("audit", "--json", "--limit", "2", db=server.db)  # beside the running server
    assert [json.loads(line)["action"] for line in out.splitlines()] == ["key.create", "key.revoke"]


# ---- backup -----------------------------------------------------------------------------------


@pytest.fixture
def keeping(make_server, tmp_path):
    return make_server(backup_dir=str(tmp_path)), tmp_path


def test_backup_while_writing(keeping):
    server, folder = keeping
    names = [f"t{i}" for i in range(30)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writes = pool.map(lambda name: server.post("/v1/admin/tenants", {"name": name}).status, names)
        made = server.post("/v1/admin/backup", {"name": "one.db"})
        assert list(writes) == [201] * 30
    assert made.status == 201, made
    body = made.json()
    place = folder / "one.db"
    assert body["path"] == str(place) and body["bytes"] == place.stat().st_size
    assert body["object"] == "backup" and body["seconds"] >= 0 and body["created_at"] > 0
    assert place.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(place) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    out, _ = run("check", "--json", db=place)
    assert json.loads(out)["ok"] is True
    acts = server.get("/v1/admin/audit?limit=100").json()["data"]
    assert [a["object"] for a in acts if a["action"] == "backup.create"] == [str(place)]
    again = server.post("/v1/admin/backup", {"name": "one.db"})
    assert again.status == 409 and again.json()["code"] == "exists"
    dated = server.post("/v1/admin/backup")
    assert re.search(r"/mp2-\d{8}T\d{6}Z\.db$", dated.json()["path"])
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", ".hidden", "a b", "x" * 129,
                                  "a\u0000b", 7])
def test_backup_names(keeping, name):
    server, folder = keeping
    answer = server.post("/v1/admin/backup", {"name": name})
    assert answer.status in (400, 422), answer
    assert list(folder.iterdir()) == []


def test_backup_needs_place_and_scope(server, keeping, tenant):
    answer = server.post("/v1/admin/backup")
    assert answer.status == 409 and "backup_dir" in answer.json()["detail"]
    other, folder = keeping
    key = other.make_key("default", ["predict", "adapt", "read"])
    assert other.post("/v1/admin/backup", key=key).status == 403
    shutil.rmtree(folder)
    lost = other.post("/v1/admin/backup")
    assert lost.status == 500 and other.alive()
    folder.mkdir()
    assert other.post("/v1/admin/backup").status == 201


def test_backup_and_restore_commands(fresh_server, tmp_path):
    server = fresh_server
    key = server.make_tenant("acme")
    copy = tmp_path / "copy.db"
    out, _ = run("backup", "--out", str(copy), "--json", db=server.db)  # beside the running server
    assert json.loads(out)["bytes"] == copy.stat().st_size
    assert copy.stat().st_mode & 0o777 == 0o600
    _, err = run("backup", "--out", str(copy), db=server.db, code=1)
    assert "exists already" in err
    server.make_tenant("later")
    _, err = run("restore", str(copy), "--replace", db=server.db, code=1)
    assert "in use" in err
    assert server.stop() == 0
    _, err = run("restore", str(copy), db=server.db, code=1)
    assert "--replace" in err
    out, _ = run("restore", str(copy), "--replace", "--json", db=server.db)
    kept = json.loads(out)["kept"]
    assert ".before-" in kept
    server.start()
    assert server.get("/v1/me", key=key).status == 200
    assert server.get("/v1/admin/tenants/later").status == 404
    names, _ = run("tenant", "list", db=kept)
    assert "later" in names
    run("restore", str(tmp_path / "none.db"), db=tmp_path / "new" / "x.db", code=3)
    run("restore", str(copy), db=tmp_path / "new" / "x.db")
    names, _ = run("tenant", "list", db=tmp_path / "new" / "x.db")
    assert "acme" in names
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(copy.read_bytes()[:-8192])
    _, err = run("restore", str(damaged), db=tmp_path / "y.db", code=1)
    assert "y.db" not in os.listdir(tmp_path) and err


# ---- check ------------------------------------------------------------------------------------


def subjects(out):
    return {s["subject"]: {c["name"]: c for c in s["checks"]} for s in json.loads(out)["checked"]}


def test_check_of_a_database(fresh_server, tmp_path):
    server = fresh_server
    found = subjects(run("check", "--json", db=server.db)[0])["database"]
    assert all(check["ok"] for check in found.values())
    assert "schema" in found["identity"]["detail"] and "1 tenants" in found["contents"]["detail"]
    run("check", db=tmp_path / "none.db", code=3)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (a)")
    assert "another program" in run("check", db=other, code=1)[0]
    newer = tmp_path / "newer.db"
    run("backup", "--out", str(newer), db=server.db)
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 999")
    assert "999" in run("check", db=newer, code=1)[0]
    orphan = tmp_path / "orphan.db"
    run("backup", "--out", str(orphan), db=server.db)
    with sqlite3.connect(orphan) as db:
        db.execute("UPDATE api_keys SET tenant = 77")
    out, _ = run("check", "--json", db=orphan, code=1)
    assert subjects(out)["database"]["integrity"]["ok"] is False


@pytest.mark.skipif(model_dir() is None, reason="no model beside the tests")
def test_check_of_a_model(tmp_path):
    out, _ = run("check", "--model", model_dir(), "--json")
    found = subjects(out)["model"]
    assert found["weights"]["ok"] and "fingerprint" in found["weights"]["detail"]
    assert any(name.startswith("bank ") for name in found)
    run("check", "--model", str(tmp_path / "none"), code=3)
    bad = tmp_path / "bad"
    shutil.copytree(model_dir(), bad)
    weights = next(bad.glob("model*.safetensors"))
    weights.chmod(0o600)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    out, _ = run("check", "--model", str(bad), "--json", code=1)
    assert subjects(out)["model"]["weights"]["ok"] is False
    n = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:8 + n])
    name = next(name for name in header if name.endswith("layer.0.output.dense.weight"))
    at = 8 + n + header[name]["data_offsets"][0]
    weights.write_bytes(whole[:at] + b"\xff" * 4 + whole[at + 4:])  # no number in any format
    out, _ = run("check", "--model", str(bad), code=1)
    assert re.search(r"FAILED +weights .*finite", out), out
    weights.write_bytes(whole)
    for bank in bad.glob("*.bank.safetensors"):
        bank.chmod(0o600)
        bank.write_bytes(b"rubbish")
    out, _ = run("check", "--model", str(bad), code=1)
    assert re.search(r"FAILED +bank ", out)


# ---- the vocabulary of commands -----------------------------------------------------------------


def test_commands_beside_a_running_server(fresh_server):
    """Reading works, writing says how to ask the server; neither shows a key."""
    server = fresh_server
    server.make_tenant("acme")
    key = server.get("/v1/admin/tenants/acme/keys").json()["data"][0]["id"]
    assert "acme" in run("tenant", "list", db=server.db)[0]
    assert json.loads(run("tenant", "show", "acme", "--json", db=server.db)[0])["disabled"] is False
    assert key in run("key", "list", "--tenant", "acme", db=server.db)[0]
    assert run("job", "list", "--tenant", "acme", db=server.db)[0] == ""
    for words, advice in ((["key", "revoke", key], f"-X DELETE http://HOST:PORT/v1/admin/tenants/acme/keys/{key}"),
                          (["key", "rotate", key], f"/keys/{key}/rotate"),
                          (["key", "create"], "-X POST http://HOST:PORT/v1/admin/tenants/acme/keys")):
        _, err = run(*words, "--tenant", "acme", db=server.db, code=1)
        assert advice in err and "curl -H @FILE" in err and "stop it first" in err
    _, err = run("tenant", "disable", "acme", db=server.db, code=1)
    assert "-X PATCH http://HOST:PORT/v1/admin/tenants/acme" in err and '{"disabled":true}' in err


def test_commands_without_a_server(fresh_server):
    server = fresh_server
    old = server.make_tenant("acme")
    assert server.stop() == 0
    key = run("key", "list", "--tenant", "acme", db=server.db)[0].split()[0]
    fresh = json.loads(run("key", "rotate", key, "--tenant", "acme", "--json", db=server.db)[0])
    spare = json.loads(run("key", "create", "--tenant", "acme", "--scopes", "read", "--json",
                           db=server.db)[0])
    run("key", "revoke", spare["id"], "--tenant", "acme", db=server.db)
    run("key", "rotate", key, "--tenant", "acme", db=server.db, code=1)
    run("key", "revoke", "key_none", "--tenant", "acme", db=server.db, code=3)
    run("key", "list", "--tenant", "nobody", db=server.db, code=3)
    run("tenant", "create", "beta", db=server.db)
    run("tenant", "disable", "beta", db=server.db)
    run("tenant", "enable", "beta", db=server.db)
    run("tenant", "create", "beta", db=server.db, code=1)
    run("tenant", "enable", "gamma", db=server.db, code=3)
    run("job", "show", "ftjob-none", "--tenant", "acme", db=server.db, code=3)
    run("job", "cancel", "ftjob-none", "--tenant", "acme", db=server.db, code=3)
    run("job", "events", "ftjob-none", "--tenant", "acme", db=server.db, code=3)
    out, _ = run("audit", "--json", "--limit", "7", db=server.db)
    acts = [json.loads(line) for line in out.splitlines()]
    assert [act["action"] for act in reversed(acts)] == [
        "tenant.create", "key.create", "key.rotate", "key.create", "key.revoke", "tenant.create",
        "tenant.disable", "tenant.enable"][-7:]
    assert acts[0]["actor"]["key"] is None and "uid" in acts[0]["actor"]["user"]
    assert fresh["key"] not in out and spare["key"] not in out
    server.start()
    assert server.get("/v1/me", key=old).status == 401
    assert server.get("/v1/me", key=fresh["key"]).status == 200
    assert server.get("/v1/me", key=spare["key"]).status == 401


TABLE = pathlib.Path(__file__).resolve().parents[2] / "server/commands/commands.c"
COMMANDS = re.findall(r'^ +\{"(\w+)", "', TABLE.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_everywhere(command):
    if command == "version":
        return
    out, _ = run(command, "--help")
    assert "usage: mp2 " + command in out
    assert command in run("--help")[0]


def test_options_of_other_commands_are_refused(tmp_path):
    for words in (["tenant", "list", "--scopes", "read"], ["key", "list", "--tenant", "x", "--out", "y"],
                  ["backup", "--replace", "--out", "x"], ["audit", "--tenant", "x"], ["backup"],
                  ["restore"], ["check", "x"], ["audit", "x"], ["job", "list"], ["job", "make"]):
        _, err = run(*words, db=tmp_path / "x.db", code=2)
        assert err.startswith("mp2: "), words
