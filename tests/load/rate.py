#!/usr/bin/env python3
"""rate.py: requests a second on paths that do not compute, with wrk.

    build/venv/bin/python tests/load/rate.py [--seconds 5]

Fails below 10,000 a second on one of them, or when an answer was not 200.
"""
import argparse
import re
import shutil
import subprocess
import sys
import tempfile

from harness import Server

PATHS = ("/healthz", "/version", "/v1/me", "/v1/tasks/kept", "/v1/tasks?limit=1", "/v1/models",
         "/metrics")
GOAL = 10000


def wrk(server, path, seconds):
    """(requests a second, p99 as text, answers that were not 200)."""
    done = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-H",
                           f"Authorization: Bearer {server.admin_key}", server.url + path],
                          capture_output=True, text=True, check=True, timeout=seconds + 60)
    rate = float(re.search(r"Requests/sec: +([\d.]+)", done.stdout).group(1))
    late = re.search(r"99% +(\S+)", done.stdout).group(1)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    return rate, late, int(other.group(1)) if other else 0


def measure(seconds):
    """{path: (rate, bad answers)}; prints a line each."""
    directory = tempfile.mkdtemp(prefix="mp2-rate-")
    server = Server(directory, log_level="warn")
    try:
        made = server.post("/v1/tasks", {"name": "kept", "type": "classification",
                                         "labels": ["负面", "正面"]})
        assert made.status == 201, made
        found = {}
        for path in PATHS:
            rate, late, bad = wrk(server, path, seconds)
            print(f"{path:24} {rate:9.0f} requests a second, p99 {late}, {bad} not 200")
            found[path] = (rate, bad)
        return found
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seconds", type=int, default=5)
    found = measure(options.parse_args().seconds)
    slow = [path for path, (rate, bad) in found.items() if rate < GOAL or bad]
    print(f"below {GOAL} a second: {slow}" if slow else "passed")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
