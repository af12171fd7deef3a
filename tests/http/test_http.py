"""Shapes of answers: statuses, headers, problem+json, the error shape of OpenAI's paths."""
import json

import pytest

OPS = ["/healthz", "/readyz", "/metrics", "/version", "/"]


@pytest.mark.parametrize("path", OPS)
def test_ops_are_public(server, path):
    answer = server.get(path, key=None)
    assert answer.status == 200 and answer.headers["x-request-id"]


@pytest.mark.parametrize("path", OPS)
def test_head(server, path):
    answer = server.request("HEAD", path, key=None)
    assert answer.status == 200 and answer.body == b""
    assert answer.headers["Content-Type"] == server.get(path, key=None).headers["Content-Type"]
    if path != "/metrics":  # whose length changes
        assert int(answer.headers["Content-Length"]) > 0


def test_404_shape(server):
    answer = server.get("/v1/nothing")
    body = answer.json()
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["x-should-retry"] == "false"
    assert body["type"].startswith("urn:") and body["title"] == "Not Found" and body["status"] == 404
    assert body["detail"] == body["error"] and body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/files/x/y/z", "/v1/fine_tuning/nothing", "/v1/models/a/b/c/d"])
def test_openai_shape(server, path):
    answer = server.get(path)
    assert answer.status == 404 and answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_405(server):
    answer = server.request("DELETE", "/v1/admin/tenants")
    assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    assert answer.json()["code"] == "method_not_allowed"
    assert server.request("BREW", "/healthz", key=None).status == 405


def test_options(server):
    answer = server.request("OPTIONS", "/v1/admin/tenants", key=None)
    assert answer.status == 204 and answer.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    assert server.request("OPTIONS", "/nothing", key=None).status == 404


def test_415(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
        answer = server.post("/v1/admin/tenants", b'{"name":"x"}', headers={"Content-Type": kind})
        assert answer.status == 415 and "application/json" in answer.json()["detail"]
    answer = server.post("/v1/admin/tenants", b"x", headers={"Content-Type": "application/json",
                                                              "Content-Encoding": "gzip"})
    assert answer.status == 415


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8",
                                  "Application/JSON", "application/merge-patch+json"])
def test_json_types(server, kind):
    answer = server.post("/v1/admin/tenants", b"{}", headers={"Content-Type": kind})
    assert answer.status == 422


@pytest.mark.parametrize("body,status", [
    (b"", 400), (b"{", 400), (b"nope", 400), (b"{} x", 400), (b'{"a":1,"a":2}', 400),
    (b'{"name":"\xff"}', 400), (b'{"name":"\xed\xa0\x80"}', 400), (b'{"name":"\\ud800"}', 400),
    (b'{"name":"a\\u0000b"}', 400), (b'{"name":"a\x00b"}', 400), (b"\xef\xbb\xbf{}", 400),
    (b'{"name":NaN}', 400), (b'{"name":1e999}', 400), (b"[]", 422), (b'"x"', 400), (b"{}", 422)])
def test_json_bodies(server, body, status):
    answer = server.post("/v1/admin/tenants", body, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer
    assert answer.json()["status"] == status
    if status == 400:
        assert answer.json()["code"] == "malformed_json"


def test_depth(server):
    deep = b'{"name":' + b"[" * 10000 + b"]" * 10000 + b"}"
    answer = server.post("/v1/admin/tenants", deep, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and "32" in answer.json()["detail"]
    wide = b'{"name":[' + b",".join([b"1"] * 100001) + b"]}"
    answer = server.post("/v1/admin/tenants", wide, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and "max_json_tokens" in answer.json()["detail"]


def test_large_json_off_the_loop(server):
    body = json.dumps({"name": "X", "pad": "x" * 200000}).encode()
    answer = server.post("/v1/admin/tenants", body, headers={"Content-Type": "application/json"})
    assert answer.status == 422
    broken = body[:-1]
    answer = server.post("/v1/admin/tenants", broken, headers={"Content-Type": "application/json"})
    assert answer.status == 400


def test_413(server):
    body = b'{"name":"' + b"x" * (1 << 20) + b'"}'
    answer = server.post("/v1/admin/tenants", body, headers={"Content-Type": "application/json"})
    assert answer.status == 413
    assert "max_json" in answer.json()["detail"] and "1048576" in answer.json()["detail"]
    answer = server.request("GET", "/v1/me", b"surprise")
    assert answer.status == 413 and answer.json()["code"] == "body_not_allowed"


def test_413_chunked(server):
    def pieces():
        for _ in range(24):
            yield b"x" * 65536

    import http.client
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.request("POST", "/v1/admin/tenants", body=pieces(), encode_chunked=True,
                       headers={"Authorization": "Bearer " + server.admin_key,
                                "Transfer-Encoding": "chunked", "Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413 and "max_json" in json.loads(answer.read())["detail"]
    connection.close()


def test_chunked_json(server):
    import http.client
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.request("POST", "/v1/admin/tenants", body=iter([b'{"na', b'me":"chu', b'nked"}']),
                       encode_chunked=True,
                       headers={"Authorization": "Bearer " + server.admin_key,
                                "Transfer-Encoding": "chunked", "Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 201 and json.loads(answer.read())["name"] == "chunked"
    connection.close()


@pytest.mark.parametrize("given,kept", [("abc-123_X.y", True), ("x" * 64, True), ("x" * 65, False),
                                        ("a b", False), ("a\"b", False), ("é", False)])
def test_request_ids(server, given, kept):
    answer = server.get("/healthz", key=None, headers={"x-request-id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) == kept
    if not kept:
        assert answer.headers["x-request-id"].startswith("req_")


def test_ids_differ(server):
    ids = {server.get("/healthz", key=None).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_keep_alive(server):
    import http.client
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    for path, status in (("/healthz", 200), ("/nothing", 404), ("/v1/me", 401), ("/healthz", 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status and answer.headers["Connection"] is None
        answer.read()
        assert connection.sock is not None
    connection.close()


@pytest.mark.parametrize("path,status", [
    ("/v1/admin/tenants/", 404), ("/v1/admin/tenants/%6Eobody", 404), ("/v1/%61dmin/tenants", 404),
    ("/v1/admin/tenants/a%2Fb", 404), ("/v1/admin/tenants/%E7%94%B2", 404),
    ("/v1/admin/tenants/default", 200), ("/v1/admin/tenants/%64efault", 200),
    ("/v1/admin/tenants/default?x=%E7%94%B2", 200)])
def test_paths(server, path, status):
    assert server.get(path).status == status


def test_metrics(server):
    server.get("/healthz", key=None)
    text = server.get("/metrics", key=None).text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert {"mp2_requests_total", "mp2_requests_at_work", "mp2_rejected_total", "process_cpu_seconds_total",
            "process_resident_memory_bytes"} <= names
    assert 'type="healthz"' in text and 'code="200"' in text
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in names:
        base = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.endswith(suffix) and name[:-len(suffix)] in typed:
                base = name[:-len(suffix)]
        assert base in typed, name
    last = [line for line in text.splitlines() if line.startswith("mp2_request_duration_seconds")]
    assert last


def test_version(server):
    body = server.get("/version", key=None).json()
    assert body["name"] == "mp2" and len(body["model"]["fingerprint"]) == 64
