"""Malformed, huge and slow requests on raw sockets. After each the server still answers."""
import socket
import threading
import time

import pytest

from conftest import CLOSE, SLOW, drain, request_bytes, statuses


@pytest.fixture(autouse=True)
def still_answers(request):
    yield
    for name in ("server", "quick"):
        if name in request.fixturenames:
            assert request.getfixturevalue(name).alive()


@pytest.fixture(scope="module")
def quick():
    """A server with short deadlines and few places."""
    from conftest import _factory
    make, end = _factory()
    yield make(headers_timeout="1s", body_timeout="3s", idle_timeout="2s", max_connections=400)
    end()


def post(server, headers, body, path="/v1/admin/tenants", method="POST"):
    return request_bytes(method, path, [f"Authorization: Bearer {server.admin_key}",
                                        "Content-Type: application/json", *headers], body)


SMUGGLED = request_bytes("GET", "/healthz?smuggled", [CLOSE])

# What a proxy may read differently than we do: refused with exactly one answer, and closed, so that
# what follows is never taken for a second request.
FRAMING = {
    "length and chunked": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "chunked and length": (["Transfer-Encoding: chunked", "Content-Length: 5"], b"0\r\n\r\n"),
    "two lengths": (["Content-Length: 2", "Content-Length: 5"], b"{}"),
    "two equal lengths": (["Content-Length: 2", "Content-Length: 2"], b"{}"),
    "length list": (["Content-Length: 2, 2"], b"{}"),
    "space before the colon": (["Content-Length : 2"], b"{}"),
    "tab before the colon": (["Content-Length\t: 2"], b"{}"),
    "signed length": (["Content-Length: +2"], b"{}"),
    "negative length": (["Content-Length: -2"], b"{}"),
    "hex length": (["Content-Length: 0x2"], b"{}"),
    "empty length": (["Content-Length: "], b"{}"),
    "huge length": (["Content-Length: 99999999999999999999999"], b"{}"),
    "unknown coding": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "two codings": (["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"),
    "coding twice": (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "identity": (["Transfer-Encoding: identity"], b"{}"),
    "folded header": (["X-A: b", " Content-Length: 2"], b"{}"),
    "NUL in a value": (["X-A: b\x00c", "Content-Length: 2"], b"{}"),
    "NUL in a name": (["X\x00A: b", "Content-Length: 2"], b"{}"),
    "control byte in a value": (["X-A: b\x01c", "Content-Length: 2"], b"{}"),
    "CR in a value": (["X-A: b\rc", "Content-Length: 2"], b"{}"),
    "no colon": (["Just words", "Content-Length: 2"], b"{}"),
    "empty name": ([": b", "Content-Length: 2"], b"{}"),
    "bad name": (["X(A): b", "Content-Length: 2"], b"{}"),
    "two hosts": (["Host: y", "Content-Length: 2"], b"{}"),
}


def is_one_refusal(answer):
    """One answer, 4xx or 501. libmicrohttpd 0.9.75 sends the head of some of its own errors twice."""
    codes = statuses(answer)
    heads = answer.split(b"\r\n\r\n")
    doubled = len(codes) == 2 and heads[0] == heads[1] and b"request_id" not in answer
    return (len(codes) == 1 or doubled) and codes[0] in (400, 413, 501)


@pytest.mark.parametrize("what", FRAMING)
def test_framing(server, what):
    headers, body = FRAMING[what]
    answer = server.raw(post(server, headers, body) + SMUGGLED)
    assert is_one_refusal(answer), (what, answer[:1500])
    assert b"alive" not in answer


def test_bare_line_feeds(server):
    answer = server.raw(b"GET /healthz HTTP/1.1\nHost: x\nX-A: b\nConnection: close\n\n" + SMUGGLED)
    assert statuses(answer) == [400], answer


def test_host(server):
    assert statuses(server.raw(request_bytes(host=None, headers=[CLOSE]))) == [400]
    assert statuses(server.raw(b"GET /healthz HTTP/1.0\r\n\r\n")) == [200]


LINES = [b"GET /healthz%00x HTTP/1.1", b"GET /healthz\x00x HTTP/1.1", b"GET /a/../healthz HTTP/1.1",
         b"GET /a/%2e%2E/healthz HTTP/1.1", b"GET /./healthz HTTP/1.1", b"GET //healthz HTTP/1.1",
         b"GET /%ff HTTP/1.1", b"GET /%c0%af HTTP/1.1", b"GET /%ed%a0%80 HTTP/1.1", b"GET /\xff HTTP/1.1",
         b"GET /%zz HTTP/1.1", b"GET /% HTTP/1.1", b"GET /%0d%0aX:1 HTTP/1.1", b"GET /\x01 HTTP/1.1",
         b"GET healthz HTTP/1.1", b"GET /healthz?a=%00 HTTP/1.1", b"GET /healthz?a=%ff HTTP/1.1",
         b"GET /healthz  HTTP/1.1", b"GET /healthz HTTP/9.9", b"GET /healthz HTTP/1.1x",
         b"GET /healthz", b"/healthz HTTP/1.1", b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
         b"G\xffT /healthz HTTP/1.1", b"G(T /healthz HTTP/1.1", b"X" * 40 + b" /healthz HTTP/1.1",
         b"PRI * HTTP/2.0", b"GET * HTTP/1.1"]


@pytest.mark.parametrize("line", LINES)
def test_request_lines(server, line):
    answer = server.raw(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n", timeout=3, half_close=True)
    codes = statuses(answer)
    assert codes == [] or (len(codes) == 1 and 400 <= codes[0] < 600), (line, answer[:500])


def test_absolute_form(server):
    answer = server.raw(request_bytes(path=f"http://{server.host}:{server.port}/healthz",
                                      headers=[CLOSE]))
    assert statuses(answer) == [200]


def test_expect(server):
    """100-continue for what will be read; the refusal at once for what will not."""
    with server.connect() as s:
        s.sendall(post(server, ["Content-Length: 2", "Expect: 100-continue", CLOSE], b""))
        assert s.recv(4096).startswith(b"HTTP/1.1 100 ")
        s.sendall(b"{}")
        assert statuses(drain(s)) == [422]
    answer = server.raw(post(server, ["Content-Length: 99999999", "Expect: 100-continue"], b""))
    assert statuses(answer) == [413]


def test_a_gigabyte(server):
    start = time.monotonic()
    answer = server.raw(post(server, ["Content-Length: 1073741824"], b"x" * 65536))
    assert statuses(answer) == [413] and time.monotonic() - start < 10


def test_long_line_and_headers(server):
    for data, wanted in ((request_bytes(path="/" + "a" * 40000), {414, 431, 400}),
                         (request_bytes(headers=["X: " + "a" * 40000]), {431, 413, 400}),
                         (request_bytes(headers=[f"X-{i}: {i:0100}" for i in range(500)]),
                          {431, 413, 400})):
        codes = statuses(server.raw(data))
        assert len(codes) <= 1 and set(codes) <= wanted, codes


def test_early_errors_do_not_leave_a_body_behind(server):
    """A refused body is not parsed as the next request, whatever the method."""
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        data = request_bytes(method, "/nothing", [f"Content-Length: {len(SMUGGLED)}"]) + SMUGGLED
        answer = server.raw(data + request_bytes("GET", "/v1/me", [CLOSE]), timeout=4)
        assert statuses(answer) in ([404], [404, 401]), (method, answer)


def test_pipelining(server):
    me = ["Authorization: Bearer " + server.admin_key]
    data = (request_bytes() + request_bytes(path="/v1/admin/tenants/default", headers=me) +
            request_bytes(path="/nothing") + request_bytes(path="/v1/me", headers=me + [CLOSE]))
    answer = server.raw(data)
    assert statuses(answer) == [200, 200, 404, 200]
    order = [answer.find(word) for word in (b"alive", b'"object":"tenant"', b"not_found", b'"me"')]
    assert order == sorted(order) and order[0] > 0


def test_half_close(server):
    assert statuses(server.raw(request_bytes(), half_close=True)) == [200]
    answer = server.raw(post(server, ["Content-Length: 100"], b"{"), half_close=True)
    assert answer == b"" or statuses(answer) == [400]


def test_one_byte_at_a_time(server):
    data = post(server, ["Content-Length: 2", CLOSE], b"{}")
    with server.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
        assert statuses(drain(s)) == [422]


def test_bad_chunks(server):
    for body in (b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n{}",
                 b"2\r\n{}x\r\n0\r\n\r\n", b"2;" + b"x" * 100000 + b"\r\n{}\r\n0\r\n\r\n"):
        answer = server.raw(post(server, ["Transfer-Encoding: chunked"], body), timeout=3,
                            half_close=True)
        codes = statuses(answer)
        assert len(codes) <= 1 and 200 not in codes and 201 not in codes, (body[:40], answer[:300])


def closed_after(s, limit):
    """Seconds until the server closed, or None."""
    start = time.monotonic()
    s.settimeout(limit)
    try:
        while s.recv(4096):
            pass
    except socket.timeout:
        return None
    except OSError:
        pass
    return time.monotonic() - start


def test_endless_chunk_head(server):
    """More than the library's buffer without a line end: cut, and the loop stays free meanwhile."""
    with server.connect(20) as s:
        s.sendall(post(server, ["Transfer-Encoding: chunked"], b"2;"))
        start = time.monotonic()
        try:
            while time.monotonic() - start < 15:
                s.sendall(b"x" * 1000)
        except OSError:
            pass
        assert time.monotonic() - start < 15
    assert server.alive()


def test_silent_client(quick):
    with quick.connect() as s:
        assert closed_after(s, 20) is not None


def test_slow_headers(quick):
    """A byte now and then does not keep a connection without a request open."""
    with quick.connect() as s:
        start = time.monotonic()
        closed = False
        data = request_bytes(headers=["X-A: " + "b" * 1000])
        for byte in data:
            try:
                s.sendall(bytes([byte]))
            except OSError:
                closed = True
                break
            if time.monotonic() - start > 15:
                break
            time.sleep(0.1)
        assert closed or closed_after(s, 5) is not None


def test_slow_body(quick):
    with quick.connect() as s:
        start = time.monotonic()
        closed = False
        s.sendall(post(quick, ["Content-Length: 100000"], b""))
        while time.monotonic() - start < 25 and not closed:
            try:
                s.sendall(b"x")
            except OSError:
                closed = True
            time.sleep(0.2)
        assert closed


def test_idle_after_an_answer(quick):
    with quick.connect() as s:
        s.sendall(request_bytes())
        assert statuses(s.recv(4096)) == [200]
        assert closed_after(s, 20) is not None


def test_many_idle_connections(quick):
    idle = [quick.connect() for _ in range(300)]
    try:
        assert quick.alive()
        for s in idle[::10]:
            s.sendall(request_bytes())
            assert statuses(s.recv(4096)) == [200]
    finally:
        for s in idle:
            s.close()
    assert quick.alive()


def test_connection_limit_frees(make_server):
    """At the limit a client waits, and is served as soon as another leaves."""
    server = make_server(max_connections=5)
    held = [server.connect() for _ in range(5)]
    for s in held:
        s.sendall(request_bytes())
        assert statuses(s.recv(4096)) == [200]
    with server.connect() as waiting:
        waiting.sendall(request_bytes(headers=[CLOSE]))
        waiting.settimeout(0.5)
        with pytest.raises(socket.timeout):
            waiting.recv(1)
        held.pop().close()
        waiting.settimeout(10 if SLOW else 3)
        assert statuses(drain(waiting)) == [200]
    for s in held:
        s.close()
    assert server.alive()


def test_per_ip_limit(make_server):
    server = make_server(max_connections_per_ip=3)
    held = [server.connect() for _ in range(3)]
    for s in held:
        s.sendall(request_bytes())
        assert statuses(s.recv(4096)) == [200]
    with server.connect() as refused:
        try:
            refused.sendall(request_bytes())
        except OSError:
            pass
        assert drain(refused) == b""
    for s in held:
        s.close()


def test_max_inflight(make_server):
    """Full: 503 with Retry-After for work, while the health checks go on."""
    server = make_server(max_inflight=2)
    slow = [server.connect() for _ in range(2)]
    for s in slow:
        s.sendall(post(server, ["Content-Length: 10"], b"{"))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        answer = server.get("/v1/me")
        if answer.status == 503:
            break
        time.sleep(0.05)
    assert answer.status == 503 and answer.headers["Retry-After"] and answer.headers["retry-after-ms"]
    assert "max_inflight" in answer.json()["detail"]
    assert server.get("/readyz", key=None).status == 200
    for s in slow:
        s.close()
    while time.monotonic() < end and server.get("/v1/me").status != 200:
        time.sleep(0.05)
    assert server.get("/v1/me").status == 200


def test_body_memory(make_server):
    server = make_server(max_body_memory="1M", max_json="2M")
    body = b'{"name":"' + b"x" * (1 << 20) + b'"}'
    answer = server.post("/v1/admin/tenants", body, headers={"Content-Type": "application/json"})
    assert answer.status == 503 and "max_body_memory" in answer.json()["detail"]
    assert 'mp2_body_bytes 0' in server.get("/metrics", key=None).text


def test_clients_that_vanish(server):
    """Reset in the middle of headers, body and answers: nothing leaks, nothing sticks."""
    me = ["Authorization: Bearer " + server.admin_key]
    cases = [b"GET /heal", request_bytes(), post(server, ["Content-Length: 50"], b"{"),
             request_bytes(path="/v1/admin/tenants", headers=me)]

    def storm(data):
        for _ in range(25):
            s = server.connect()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            s.sendall(data)
            s.close()

    threads = [threading.Thread(target=storm, args=(data,)) for data in cases]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    end = time.monotonic() + 20
    wanted = {"mp2_requests_at_work 0", "mp2_parked 0", "mp2_connections 1", "mp2_body_bytes 0"}
    while time.monotonic() < end:
        missing = wanted - set(server.get("/metrics", key=None).text.splitlines())
        if not missing:
            break
        time.sleep(0.1)
    assert not missing
