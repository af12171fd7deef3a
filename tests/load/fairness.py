#!/usr/bin/env python3
"""fairness.py: what a flood of one tenant does to another's predictions.

    build/venv/bin/python tests/load/fairness.py [--seconds 60] [--apart]

A small tenant asks one input at a time, ten times a second: alone, then beside a tenant that keeps a
hundred times as many inputs on their way. Prints p50, p95 and p99 of the small one both times, what the
flood got, and the ratio of the p99s. With --apart the server has one core and the clients the others, both
times: what the server does to the small tenant, without what the flood's own client does to it.
"""
import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time

from harness import Client, Server

SMALL = {"type": "classification", "labels": ["负面", "正面"], "inputs": ["房间很干净，老板也热情。"]}
FLOOD = {**SMALL, "inputs": ["快递三天才到，包装破了，里面的杯子碎了两个。"] * 64}
FLOODERS = 16  # each with 64 inputs on their way: more than a thousand against ten a second
PAUSE = 0.1


def ask_for(server, key, seconds):
    """The small tenant; milliseconds of its answers."""
    client, end = Client(server, key), time.monotonic() + seconds
    while time.monotonic() < end:
        client.ask("small", "POST", "/v1/predict", SMALL)
        time.sleep(PAUSE)
    assert client.faults == [], client.faults[:3]
    return client.times["small"]


def flood(server, key, flooders, over, served):
    """In a process of its own: what its threads take of an interpreter must not delay the small tenant's."""
    clients = [Client(server, key) for _ in range(flooders)]

    def run(client):
        while not over.is_set():
            if client.ask("flood", "POST", "/v1/predict", FLOOD)[0] == 200:
                with served.get_lock():
                    served.value += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Flood:
    """Many clients of one tenant, as fast as they are answered."""

    def __init__(self, server, key, flooders=FLOODERS):
        self.over, self.count = multiprocessing.Event(), multiprocessing.Value("q", 0)
        self.process = multiprocessing.Process(target=flood, args=(server, key, flooders, self.over, self.count))

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.process.join()

    def served(self):
        return self.count.value


def show(name, times):
    print(f"{name:24} {len(times.ms):6} answers  p50 {times.at(.5):7.1f} ms  p95 {times.at(.95):7.1f} ms  "
          f"p99 {times.at(.99):7.1f} ms")


def measure(seconds, apart, **settings):
    directory = tempfile.mkdtemp(prefix="mp2-fair-")
    cores = sorted(os.sched_getaffinity(0))
    if apart:
        os.sched_setaffinity(0, cores[:1])
    server = Server(directory, log_level="warn", **settings)
    os.sched_setaffinity(0, cores[1:] if apart else cores)
    try:
        small, big = server.make_tenant("small"), server.make_tenant("big")
        ask_for(server, small, 1)  # warm
        alone = ask_for(server, small, seconds)
        with Flood(server, big) as crowd:
            time.sleep(1)
            beside = ask_for(server, small, seconds)
        show("the small tenant alone", alone)
        show("beside the flood", beside)
        per_second = crowd.served() * len(FLOOD["inputs"]) / (seconds + 1)
        print(f"the flood got {per_second:.0f} inputs a second; "
              f"p99 is {beside.at(.99) / alone.at(.99):.2f} times that alone, "
              f"the median {statistics.median(beside.ms) / statistics.median(alone.ms):.2f} times")
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--batch-time", default="20ms", help="setting batch_time of the server")
    options.add_argument("--apart", action="store_true", help="the server on one core, clients on the others")
    chosen = options.parse_args()
    measure(chosen.seconds, chosen.apart, batch_time=chosen.batch_time)
    return 0


if __name__ == "__main__":
    sys.exit(main())
