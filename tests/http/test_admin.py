"""Keys, scopes, tenants: who may do what, and that one tenant learns nothing of another."""
import time

import pytest

from conftest import SLOW

KEY_CHARS = 47


def test_first_key_is_shown_once(fresh_server):
    first = fresh_server.admin_key
    assert first.startswith("mp2_") and len(first) == KEY_CHARS
    assert first not in fresh_server.log()
    assert fresh_server.stop() == 0
    fresh_server.start()
    assert "admin key" not in fresh_server.out
    assert fresh_server.get("/v1/me").status == 200


def test_me(server):
    me = server.get("/v1/me").json()
    assert me["tenant"]["name"] == "default"
    assert me["key"]["scopes"] == ["predict", "adapt", "read", "admin"]


@pytest.mark.parametrize("header", [
    None, "", "Bearer", "Bearer ", "Basic abc", "mp2_" + "A" * 43, "Bearer mp2_" + "A" * 43,
    "Bearer mp2_" + "A" * 42, "Bearer mp2_" + "A" * 44, "Bearer mp2_" + "!" * 43,
    "Bearer " + "x" * 4000])
def test_401(server, header):
    headers = {} if header is None else {"Authorization": header}
    answer = server.get("/v1/me", key=None, headers=headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["code"] == "unauthorized"


def test_scheme_is_case_insensitive(server):
    headers = {"Authorization": "bEaReR " + server.admin_key}
    assert server.get("/v1/me", key=None, headers=headers).status == 200


@pytest.mark.parametrize("scope,allowed", [("predict", 403), ("adapt", 403), ("read", 403),
                                           ("admin", 200)])
def test_scopes(server, scope, allowed):
    name = "scope-" + scope
    key = server.make_tenant(name, scopes=[scope])
    assert server.get("/v1/me", key=key).json()["key"]["scopes"] == [scope]
    answer = server.get("/v1/admin/tenants", key=key)
    assert answer.status == allowed
    if allowed == 403:
        assert answer.json()["code"] == "missing_scope" and "admin" in answer.json()["detail"]


def test_revoked_at_once(server, tenant):
    name, key = tenant
    assert server.get("/v1/me", key=key).status == 200
    listed = server.get(f"/v1/admin/tenants/{name}/keys").json()["data"]
    assert [k["revoked_at"] for k in listed] == [None]
    path = f"/v1/admin/tenants/{name}/keys/{listed[0]['id']}"
    assert server.delete(path).json()["revoked"] is True
    assert server.get("/v1/me", key=key).status == 401
    assert server.get(f"/v1/admin/tenants/{name}/keys").json()["data"][0]["revoked_at"] > 0
    assert server.delete(path).status == 200  # again: no change, no error


def test_expiry(server, tenant):
    name, _ = tenant
    key = server.make_key(name, expires_in=1)
    answers = []
    end = time.monotonic() + (20 if SLOW else 8)
    while time.monotonic() < end and 401 not in answers:
        answers.append(server.get("/v1/me", key=key).status)
        time.sleep(0.1)
    assert answers[0] == 200 and answers[-1] == 401


def test_disabled_tenant(server, tenant):
    name, key = tenant
    assert server.patch(f"/v1/admin/tenants/{name}", {"disabled": True}).json()["disabled"] is True
    assert server.get("/v1/me", key=key).status == 401
    assert server.patch(f"/v1/admin/tenants/{name}", {"disabled": False}).json()["disabled"] is False
    assert server.get("/v1/me", key=key).status == 200
    own = server.patch("/v1/admin/tenants/default", {"disabled": True})
    assert own.status == 422 and own.json()["errors"][0]["pointer"] == "#/disabled"


def test_secrets_are_not_shown_again(server, tenant):
    name, key = tenant
    for path in (f"/v1/admin/tenants/{name}/keys", f"/v1/admin/tenants/{name}", "/metrics", "/v1/me"):
        assert key not in server.get(path).text
    assert key not in server.log() and server.admin_key not in server.log()


def test_settings_merge(server, tenant):
    name, key = tenant
    path = f"/v1/admin/tenants/{name}"
    assert server.patch(path, {"weight": 2.5}).json()["settings"] == {"weight": 2.5}
    both = server.patch(path, {"quotas": {"concurrent": 7}}).json()["settings"]
    assert both == {"weight": 2.5, "quotas": {"concurrent": 7}}
    shown = server.get(path).json()
    assert (shown["settings"], shown["weight"], shown["quotas"]) == (both, 2.5, {"concurrent": 7})
    me = server.get("/v1/me", key=key).json()
    assert (me["tenant"]["weight"], me["quotas"]["concurrent"]["limit"]) == (2.5, 7)


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "_a", "ä", "a" * 65, "a/b", "a\u0000b", 7, None,
                                  ["a"]])
def test_tenant_names(server, name):
    answer = server.post("/v1/admin/tenants", {"name": name})
    assert answer.status in (400, 422)
    if answer.status == 422:
        assert answer.json()["errors"][0]["pointer"] == "#/name"


def test_tenant_exists(server, tenant):
    answer = server.post("/v1/admin/tenants", {"name": tenant[0]})
    assert answer.status == 409 and answer.json()["code"] == "exists"


@pytest.mark.parametrize("body,pointer", [
    ({"scopes": []}, "#/scopes"), ({"scopes": ["root"]}, "#/scopes"), ({"scopes": "read"}, "#/scopes"),
    ({"scopes": ["read,admin"]}, "#/scopes"), ({"scopes": [1]}, "#/scopes"),
    ({"expires_in": 0}, "#/expires_in"), ({"expires_in": "1"}, "#/expires_in"),
    ({"label": "x" * 129}, "#/label"), ({"surprise": 1}, "#/surprise"),
    ({"a/b~c": 1}, "#/a~1b~0c")])
def test_key_bodies(server, tenant, body, pointer):
    answer = server.post(f"/v1/admin/tenants/{tenant[0]}/keys", body)
    assert answer.status == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


def test_every_problem_is_named(server):
    answer = server.post("/v1/admin/tenants", {"name": "X", "weight": "heavy", "colour": 1})
    pointers = {e["pointer"] for e in answer.json()["errors"]}
    assert pointers == {"#/name", "#/weight", "#/colour"}


def test_missing_tenant(server):
    for method, path in (("GET", "/v1/admin/tenants/nobody"), ("GET", "/v1/admin/tenants/nobody/keys"),
                         ("DELETE", "/v1/admin/tenants/nobody/keys/key_0")):
        assert server.request(method, path).status == 404
    assert server.post("/v1/admin/tenants/nobody/keys", {}).status == 404
    assert server.patch("/v1/admin/tenants/nobody", {"weight": 1}).status == 404
    assert server.delete("/v1/admin/tenants/default/keys/key_0").status == 404


def test_pages(fresh_server):
    names = [f"t{i:02d}" for i in range(7)]
    for name in names:
        assert fresh_server.post("/v1/admin/tenants", {"name": name}).status == 201
    seen, after = [], None
    for _ in range(10):
        page = fresh_server.get("/v1/admin/tenants?limit=3" + (f"&after={after}" if after else ""))
        body = page.json()
        assert page.status == 200 and body["object"] == "list" and len(body["data"]) <= 3
        seen += [t["name"] for t in body["data"]]
        if not body["has_more"]:
            break
        after = body["last_id"]
    assert sorted(seen) == sorted(names + ["default"]) and len(set(seen)) == len(seen)
    assert fresh_server.get("/v1/admin/tenants?limit=0").status == 422
    assert fresh_server.get("/v1/admin/tenants?limit=x").status == 422
    assert fresh_server.get("/v1/admin/tenants?limit=1&limit=2").status == 400


def test_concurrent_requests_of_a_tenant(make_server):
    """A tenant at its own limit gets 429 while others are served."""
    import socket

    from conftest import request_bytes
    server = make_server()
    key = server.make_tenant("small", scopes=["admin"], quotas={"concurrent": 1})
    slow = server.connect()
    slow.sendall(request_bytes("POST", "/v1/admin/tenants", [f"Authorization: Bearer {key}",
                                                             "Content-Type: application/json",
                                                             "Content-Length: 30"]) + b"{")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        answer = server.get("/v1/me", key=key)
        if answer.status == 429:
            break
        time.sleep(0.05)
    assert answer.status == 429 and answer.headers["Retry-After"] and "x-should-retry" not in answer.headers
    assert answer.json()["quota"] == {"name": "concurrent", "of": "tenant", "limit": 1, "used": 1,
                                      "asked": 1, "window": None, "retry_after_ms": None}
    assert server.get("/v1/me").status == 200
    slow.shutdown(socket.SHUT_RDWR)
    slow.close()
    while time.monotonic() < end and server.get("/v1/me", key=key).status != 200:
        time.sleep(0.05)
    assert server.get("/v1/me", key=key).status == 200


def test_kill_keeps_tenants_and_keys(fresh_server):
    keys = {}
    for i in range(5):
        name = f"kept-{i}"
        keys[name] = fresh_server.make_tenant(name)
    gone = fresh_server.make_tenant("gone")
    key_id = fresh_server.get("/v1/admin/tenants/gone/keys").json()["data"][0]["id"]
    assert fresh_server.delete(f"/v1/admin/tenants/gone/keys/{key_id}").status == 200
    fresh_server.kill()
    fresh_server.start()
    for name, key in keys.items():
        assert fresh_server.get("/v1/me", key=key).json()["tenant"]["name"] == name
    assert fresh_server.get("/v1/me", key=gone).status == 401
