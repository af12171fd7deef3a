"""What every answer says to browsers, pages of other origins, and limits by address."""
import http.client

import pytest

from conftest import PATIENCE, drain

HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
           "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
           "Cache-Control": "no-store"}
PAGE = "https://app.example.com"


@pytest.mark.parametrize("method,path", [("GET", "/healthz"), ("GET", "/nothing"), ("PUT", "/healthz"),
                                         ("OPTIONS", "/v1/tasks"), ("GET", "/v1/tasks"),
                                         ("POST", "/v1/predict"), ("GET", "/v1/files")])
def test_headers_on_every_answer(server, method, path):
    for key in ("admin", None):
        answer = server.request(method, path, key=key)
        for name, value in HEADERS.items():
            assert answer.headers.get_all(name) == [value], (method, path, name)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Strict-Transport-Security" not in answer.headers


def preflight(server, path="/v1/predict", origin=PAGE, method="POST"):
    return server.request("OPTIONS", path, key=None, headers={
        "Origin": origin, "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type"})


def test_cors_is_off(server):
    answer = preflight(server)
    assert answer.status == 204
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_cors(make_server):
    server = make_server(cors_origins=PAGE + ", http://localhost:3000")
    answer = preflight(server)
    assert answer.status == 204 and answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert answer.headers["Vary"] == "Origin"
    for origin in ("https://evil.example", PAGE + ".evil.example", "null", PAGE.upper(),
                   "http://app.example.com"):
        answer = preflight(server, origin=origin)
        assert "Access-Control-Allow-Origin" not in answer.headers, origin
        assert "Access-Control-Allow-Methods" not in answer.headers, origin
        assert answer.headers["Vary"] == "Origin"
    for path, key in (("/v1/me", "admin"), ("/v1/me", None), ("/nothing", None)):
        answer = server.get(path, key=key, headers={"Origin": "http://localhost:3000"})
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in server.get("/v1/me").headers


def test_cors_for_all(make_server):
    server = make_server(cors_origins="*")
    assert preflight(server).headers["Access-Control-Allow-Origin"] == "*"


def test_connections_of_one_address(make_server):
    """What is over the limit is closed unread; a place that comes free is taken again."""
    server = make_server(max_connections_per_ip="3")
    held = [http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE) for _ in range(3)]
    for connection in held:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
    with server.connect() as s:
        try:
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        except OSError:
            pass  # closed already
        assert drain(s) == b""
    held[0].request("GET", "/metrics")
    text = held[0].getresponse().read().decode()
    assert 'mp2_rejected_total{reason="address"} 1\n' in text
    held.pop().close()
    for _ in range(200):
        try:
            if server.get("/healthz", key=None).status == 200:
                break
        except (OSError, http.client.HTTPException):
            pass  # the end of the closed one has not been seen yet
    else:
        raise AssertionError("the place did not come free")
    for connection in held:
        connection.close()


def test_requests_of_one_address(make_server):
    server = make_server(max_requests_per_ip="5")
    answers = [server.get("/v1/me", key=key) for key in ("admin", None, "admin", None, "admin")]
    assert [a.status for a in answers] == [200, 401, 200, 401, 200]
    late = server.get("/v1/me")
    assert late.status == 429 and late.json()["code"] == "address_limit"
    assert "max_requests_per_ip" in late.json()["detail"] and int(late.headers["Retry-After"]) > 5
    assert server.get("/healthz", key=None).status == 200
    # nobody believes a client that speaks for others
    forged = server.get("/v1/me", headers={"X-Forwarded-For": "7.7.7.7"})
    assert forged.status == 429


def test_behind_a_trusted_proxy(make_server):
    server = make_server(max_requests_per_ip="2", max_connections_per_ip="1",
                         trusted_proxies="127.0.0.0/8, 10.0.0.0/8")

    def ask(forwarded):
        return server.get("/v1/me", headers={"X-Forwarded-For": forwarded}).status

    assert [ask("7.7.7.7"), ask("7.7.7.7"), ask("7.7.7.7"), ask("8.8.8.8")] == [200, 200, 429, 200]
    assert ask("1.2.3.4, 7.7.7.7") == 429  # what the client wrote itself does not count
    assert ask("7.7.7.7, 10.0.0.1") == 429
    assert [ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8::3")] == [200, 200, 429]
    # two lines of the header are one list
    head = (f"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin_key}\r\n"
            "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 7.7.7.7\r\nConnection: close\r\n\r\n")
    assert b" 429 " in server.raw(head.encode())
    # connections of a proxy are not counted as one client's
    held = [server.connect() for _ in range(3)]
    assert server.alive()
    for s in held:
        s.close()
    assert server.stop() == 0 and " from=7.7.7.7 " in server.log()
