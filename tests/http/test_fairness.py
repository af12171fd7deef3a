"""Who goes next: weights of tenants, batches of many tasks and tenants, places of clients that vanish.

Requests are sent as bytes on sockets of their own, so that a crowd waits before much is computed; looked
at is the order in which answers come, never how long they take."""
import concurrent.futures
import json
import re
import selectors
import threading
import time

import pytest

from conftest import SLOW, statuses

TASK = {"type": "classification", "labels": ["负面", "正面"]}
TEXT = "房间很干净，下次还来住，服务也很周到，就是离车站有点远。" * 3


def metric(server, name):
    text = server.get("/metrics", key=None).text
    return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))


def request(key, inputs, task=None):
    body = json.dumps({**({"task": task} if task else TASK), "inputs": inputs}).encode()
    return (f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n").encode() + body


def send(server, data):
    s = server.connect(timeout=120)
    s.sendall(data)
    return s


def order_of_answers(named):
    """[(name, socket)] → names in the order of their answers; all must be 200."""
    waiting, order = selectors.DefaultSelector(), []
    got = {}
    for name, s in named:
        waiting.register(s, selectors.EVENT_READ, name)
        got[s] = b""
    while waiting.get_map():
        ready = waiting.select(120)
        assert ready, f"no answer after {order}"
        for key, _ in ready:
            piece = key.fileobj.recv(65536)
            got[key.fileobj] += piece
            if not piece:
                assert statuses(got[key.fileobj]) == [200], got[key.fileobj][:300]
                order.append(key.data)
                waiting.unregister(key.fileobj)
                key.fileobj.close()
    return order


@pytest.mark.parametrize("weight,least,most", [(1, 8, 24), (8, 0, 7)])
def test_a_tenant_is_served_by_its_weight(make_server, weight, least, most):
    """One tenant has forty requests waiting when another comes with sixteen: by the time these are
    done as much of the flood is as its weight says, not all of it."""
    server = make_server(batch_tokens=1024, batch_time="0", max_connections=200)
    flood = server.make_tenant("flood")
    late = server.make_tenant("late", weight=weight)
    inputs = [TEXT] * (4 if SLOW else 12)
    named = [("flood", send(server, request(flood, inputs))) for _ in range(40)]
    named += [("late", send(server, request(late, inputs))) for _ in range(16)]
    order = order_of_answers(named)
    last = len(order) - 1 - order[::-1].index("late")
    first = order.index("late")
    between = order[first:last].count("flood")
    assert least <= between <= most, order


def test_weights_are_changed_at_run_time(make_server):
    server = make_server(batch_tokens=1024, batch_time="0", max_connections=200)
    flood, late = server.make_tenant("flood"), server.make_tenant("late")
    assert server.patch("/v1/admin/tenants/late", {"weight": 8}).json()["weight"] == 8
    inputs = [TEXT] * (4 if SLOW else 12)
    named = [("flood", send(server, request(flood, inputs))) for _ in range(40)]
    named += [("late", send(server, request(late, inputs))) for _ in range(16)]
    order = order_of_answers(named)
    last = len(order) - 1 - order[::-1].index("late")
    assert order[order.index("late"):last].count("flood") <= 7, order


def test_batches_mix_tasks_and_tenants(make_server):
    """mp2_batch_tasks: while one batch computes, requests for six tasks of three tenants gather."""
    server = make_server(max_connections=200)
    named = []
    keys = [server.make_tenant(f"t{i}") for i in range(3)]
    for key in keys:
        for task in ("a", "b"):
            made = server.post("/v1/tasks", {"name": task, **TASK}, key=key)
            assert made.status == 201
    for i in range(60):
        named.append(("x", send(server, request(keys[i % 3], [TEXT] * 8, task="ab"[i % 2]))))
    order_of_answers(named)
    batches = metric(server, "mp2_batch_tasks_count")
    assert metric(server, "mp2_batch_tasks_sum") > 1.5 * batches  # distinct tasks of a batch
    assert batches < 480 and metric(server, "mp2_batch_sequences_sum") == 480


def come_and_go(server, key, pause, end):
    """A client of a tenant that may have one request at a time sends 250 inputs and goes; its place is free
    again before the 250 could all be computed."""
    def is_inside():
        return server.get("/v1/tasks", key=key).status == 429

    gone = send(server, request(key, [TEXT] * 250))
    while not is_inside() and time.monotonic() < end:
        time.sleep(0.02)
    assert is_inside()
    time.sleep(pause)
    gone.close()
    while is_inside() and time.monotonic() < end:
        time.sleep(0.02)
    assert server.get("/v1/tasks", key=key).status == 200
    time.sleep(0.2)  # what of it is in the batch that computes now is waited for


def test_a_vanished_client_gives_its_place_and_is_not_computed(make_server):
    server = make_server(batch_tokens=1024, batch_time="0", max_connections=200)
    busy = server.make_tenant("busy")
    # its share is small, and the busy go on until it was missed: most of it waits, however fast the machine
    key = server.make_tenant("acme", weight=0.01, quotas={"concurrent": 1})
    seen = threading.Event()

    def keep_busy():
        count = 0
        while not seen.is_set():
            named = [("busy", send(server, request(busy, [TEXT] * 16))) for _ in range(20)]
            count += len(order_of_answers(named))
        return count

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        crowds = [pool.submit(keep_busy) for _ in range(2)]
        try:
            while metric(server, "mp2_requests_at_work") < 10:
                assert server.alive()
            end = time.monotonic() + 60
            pause = 0  # who goes before the body is parsed was never in the batcher: later each time
            while metric(server, "mp2_dropped_inputs_total") == 0 and time.monotonic() < end:
                come_and_go(server, key, pause, end)
                pause += 0.02
            assert metric(server, "mp2_dropped_inputs_total") > 0
        finally:
            seen.set()
        assert all(crowd.result() >= 20 for crowd in crowds)


def test_a_long_text_stops_nobody(make_server):
    """A sequence that does not fit the rest of a batch waits for the next one; shorter ones go on."""
    server = make_server(batch_tokens=600, batch_time="0", max_connections=200)
    long, short = server.make_tenant("long"), server.make_tenant("short")
    named = [("long", send(server, request(long, [TEXT * 20] * (3 if SLOW else 6))))
             for _ in range(20)]
    named += [("short", send(server, request(short, ["好"]))) for _ in range(20)]
    order = order_of_answers(named)
    last = len(order) - 1 - order[::-1].index("short")
    assert order[:last].count("long") < 20, order
