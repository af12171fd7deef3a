"""Raw sockets: what libmicrohttpd makes of odd requests, each with the answer it must get, and what
clients do that are slow, idle, many or half gone. A good client is served all the while: its times before
and meanwhile are printed, and that it is served is what is asserted.
"""
import resource
import socket
import statistics
import threading
import time

import pytest

from conftest import CLOSE, SLOW, drain, request_bytes, statuses

IDLE = 1000 if SLOW else 5000
BAD = b"GET /healthz?smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def times(server, n=20):
    """Median milliseconds of a good client's request, each with a connection of its own."""
    took = []
    for _ in range(n):
        start = time.monotonic()
        answer = server.get("/v1/me")
        assert answer.status == 200, answer
        took.append((time.monotonic() - start) * 1000)
    return statistics.median(took)


@pytest.fixture
def good_client(server):
    """Compares a good client's times before the test and at its end."""
    before = times(server)
    yield
    print(f"a good client: {before:.1f} ms, after {times(server):.1f} ms")


def post(headers, body, line=b"POST /v1/admin/tenants HTTP/1.1"):
    lines = [line, b"Host: x", b"Content-Type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# ---- odd requests ----------------------------------------------------------------------------------

# What, the bytes, the statuses it may get. libmicrohttpd before 1.0 sends the head of its own 400 twice.
TABLE = [
    ("length and coding", post([b"Content-Length: 5", b"Transfer-Encoding: chunked"], b"0\r\n\r\n"), {400}),
    ("coding xchunked", post([b"Transfer-Encoding: xchunked"], b"0\r\n\r\n"), {400, 501}),
    ("coding gzip, chunked", post([b"Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"), {400, 501}),
    ("two lengths", post([b"Content-Length: 2", b"Content-Length: 40"], b"{}"), {400}),
    ("space before the colon", post([b"Content-Length : 25"], b"{}"), {400}),
    ("NUL in a value", post([b"X: a\x00b", b"Content-Length: 2"], b"{}"), {400}),
    ("folded line", post([b"X: a", b" b", b"Content-Length: 2"], b"{}"), {400}),
    ("bare line feeds", b"GET /healthz HTTP/1.1\nHost: x\n\n", {400}),
    ("%00 in the path", request_bytes(path="/healthz%00x"), {400}),
    ("no Host", b"GET /healthz HTTP/1.1\r\n\r\n", {400}),
    ("length of letters", post([b"Content-Length: abc"], b"{}"), {400}),
    ("a path of 40 KB", request_bytes(path="/" + "a" * 40960), {400, 414, 431}),
    ("a header of 40 KB", request_bytes(headers=["X: " + "a" * 40960]), {400, 413, 431}),
    ("500 headers", request_bytes(headers=[f"X-{i}: {i:090}" for i in range(500)]), {400, 413, 431}),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    # smuggling: what a proxy before us may read in another way
    ("vertical tab before chunked", post([b"Transfer-Encoding:\x0bchunked"], b"0\r\n\r\n"), {400, 501}),
    ("chunked, chunked", post([b"Transfer-Encoding: chunked, chunked"], b"0\r\n\r\n"), {400, 501}),
    ("chunked and more", post([b"Transfer-Encoding: chunked;q=1"], b"0\r\n\r\n"), {400, 501}),
    ("quoted coding", post([b'Transfer-Encoding: "chunked"'], b"0\r\n\r\n"), {400, 501}),
    ("coding in HTTP/1.0", post([b"Transfer-Encoding: chunked"], b"0\r\n\r\n",
                                b"POST /v1/admin/tenants HTTP/1.0"), {400, 501}),
    ("underscore for dash and both", post([b"Content_Length: 2", b"Content-Length: 2",
                                           b"Content-Length: 3"], b"{}"), {400}),
    ("length with a comma", post([b"Content-Length: 2,3"], b"{}"), {400}),
    ("length with a space", post([b"Content-Length: 2 3"], b"{}"), {400}),
    ("length past 64 bits", post([b"Content-Length: 18446744073709551618"], b"{}"), {400, 413}),
    ("two Hosts", request_bytes(headers=["Host: y"]), {400}),
    ("CR alone ends a line", b"GET /healthz HTTP/1.1\rHost: x\r\r", {400}),
    ("line within a value", post([b"X: a\nContent-Length: 40", b"Content-Length: 2"], b"{}"), {400}),
]


@pytest.mark.parametrize("what,data,wanted", TABLE, ids=[row[0] for row in TABLE])
def test_odd_request(server, what, data, wanted):
    """One refusal and the end: what follows is never taken for a request."""
    answer = server.raw(data + BAD, timeout=5)
    codes = statuses(answer)
    heads = answer.split(b"\r\n\r\n")
    doubled = len(codes) == 2 and codes[0] == codes[1] and heads[0] == heads[1]
    assert codes and codes[0] in wanted and (len(codes) == 1 or doubled), (what, answer[:600])
    assert b'"alive"' not in answer, (what, answer[:600])


def test_chunks_that_hide_a_request(server):
    """Odd chunk heads: refused or read as one body; the bytes behind are not a request of their own."""
    key = server.admin_key.encode()
    for chunk in (b"2\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n",
                  b"2\r\n{}\n0\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}0\r\n\r\n",
                  b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", b"00000000000000000002\r\n{}\r\n0\r\n\r\n"):
        answer = server.raw(post([b"Authorization: Bearer " + key, b"Transfer-Encoding: chunked"], chunk) +
                            BAD, timeout=2, half_close=True)
        codes = statuses(answer)
        # one answer to the chunked request (422: it has no name), then at most the honest second one
        assert codes in ([400], [422], [422, 200], [400, 400], [413], []), (chunk, codes, answer[:300])
        assert server.alive()


def test_pipelined_and_half_closed(server, good_client):
    """Everything sent before the half-close is answered, in order; a parked request may be given up."""
    me = ["Authorization: Bearer " + server.admin_key]
    data = b"".join(request_bytes(path=f"/v1/nothing/{i}", headers=me) for i in range(50))
    answer = server.raw(data + request_bytes(headers=[CLOSE]), half_close=False)
    assert statuses(answer) == [404] * 50 + [200]
    short = server.raw(data, timeout=5, half_close=True)
    codes = statuses(short)
    assert set(codes) <= {404} and len(codes) <= 50


# ---- slow and idle clients ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict():
    """A server with short deadlines."""
    from conftest import _factory
    make, end = _factory()
    yield make(headers_timeout="1s", body_timeout="2s", reply_timeout="2s", idle_timeout="2s",
               request_timeout="10s", max_connections=600)
    end()


def trickle(server, head, n):
    """n clients that send a byte now and then; all must be closed in the end."""
    sockets = [server.connect() for _ in range(n)]
    for s in sockets:
        s.setblocking(False)
        s.sendall(head)
    open_, end = set(sockets), time.monotonic() + (60 if SLOW else 20)
    while open_ and time.monotonic() < end:
        for s in list(open_):
            try:
                s.send(b"x")
                if s.recv(4096) == b"":
                    open_.discard(s)
            except BlockingIOError:
                pass
            except OSError:
                open_.discard(s)
        time.sleep(0.05)
    for s in sockets:
        s.close()
    return len(open_)


@pytest.mark.parametrize("what", ["headers", "body"])
def test_slow_writers(strict, what):
    before = times(strict)
    head = b"GET /healthz HTTP/1.1\r\nX: " if what == "headers" else request_bytes(
        "POST", "/v1/admin/tenants", ["Authorization: Bearer " + strict.admin_key,
                                      "Content-Type: application/json", "Content-Length: 100000"])
    left = []
    slow = threading.Thread(target=lambda: left.append(trickle(strict, head, 200)))
    slow.start()
    meanwhile = times(strict)
    slow.join()
    print(f"a good client: {before:.1f} ms, beside 200 slow {what} {meanwhile:.1f} ms")
    assert left == [0], f"{left} of 200 were left open"


def test_slow_readers(strict):
    """Who asks for much and reads nothing is cut off, and holds no more than one answer."""
    before = times(strict)
    readers = []
    for _ in range(50):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect((strict.host, strict.port))
        s.setblocking(False)
        try:
            s.sendall(request_bytes(path="/openapi.json") * 100)
        except BlockingIOError:
            pass
        readers.append(s)
    meanwhile = times(strict)
    print(f"a good client: {before:.1f} ms, beside 50 that do not read {meanwhile:.1f} ms")
    end = time.monotonic() + (90 if SLOW else 40)
    while time.monotonic() < end:
        lines = strict.get("/metrics", key=None).text.splitlines()
        if any(line.startswith("mp2_connections ") and int(line.split()[1]) <= 2 for line in lines):
            break
        time.sleep(0.2)
    else:
        raise AssertionError([line for line in lines if line.startswith("mp2_connections")])
    for s in readers:
        s.close()


def test_idle_connections(make_server):
    """Thousands of connections that say nothing, or ask once and stay."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < IDLE + 100:
        pytest.skip(f"only {most} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = make_server(max_connections=IDLE + 200, headers_timeout="5m", idle_timeout="5m")
    before = times(server)
    idle = [server.connect() for _ in range(IDLE)]
    try:
        for s in idle[::10]:
            s.sendall(request_bytes())
        for s in idle[::10]:
            assert statuses(s.recv(4096)) == [200]
        meanwhile = times(server)
        print(f"a good client: {before:.1f} ms, beside {IDLE} idle connections {meanwhile:.1f} ms")
        end = time.monotonic() + 20
        while True:  # the good client's last one may not have been closed yet
            metrics = server.get("/metrics", key=None).text.splitlines()
            if f"mp2_connections {IDLE + 1}" in metrics or time.monotonic() > end:
                break
        assert f"mp2_connections {IDLE + 1}" in metrics
        asked = idle[-1]
        asked.sendall(request_bytes(headers=[CLOSE]))
        assert statuses(drain(asked)) == [200]
    finally:
        for s in idle:
            s.close()
    assert server.alive()
