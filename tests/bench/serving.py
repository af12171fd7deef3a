#!/usr/bin/env python3
"""serving.py: what a client of the running server sees, embedded model, loopback only.

    tests/bench/run.sh serving [--rounds N] [--seconds S]

  http      p50 of one short text through HTTP, beside the bare engine's time for as many tokens
  jobs      seconds from creating a few-shot job (32 examples) until it has succeeded, by method
  beside    p50 and p99 of predictions sent at a steady pace, idle and while a job trains; tokens/s of
            that job alone and beside the predictions

A client on the same machine takes part of it: the figures are an upper bound of the server's own.
"""
import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
MODEL = TOP / "engine" / "models" / "small-zh"
os.environ["MP2_TEST_MODEL"] = str(MODEL)
sys.path.insert(0, str(TOP / "tests" / "http"))
from conftest import BIN, Server  # noqa: E402

TEXT = "菜很好吃，服务也周到"
ROWS = [json.loads(line) for line in
        (TOP / "conf/examples/reviews.jsonl").read_text(encoding="utf-8").splitlines() if line]


class Client:
    """One connection that stays open."""

    def __init__(self, server, key):
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        self.headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        self.connection.request(method, path, data, self.headers)
        answer = self.connection.getresponse()
        said = json.loads(answer.read())
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {said}")
        return said

    def predict(self, task=None):
        body = {"task": task} if task else {"type": "classification", "labels": ["负面", "正面"]}
        return self.call("POST", "/v1/predict", {**body, "inputs": [TEXT]})


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def http_case(client):
    tokens = client.predict()["usage"]["tokens"]
    ours, engine = [], []
    for _ in range(ARGS.rounds):
        end, taken = time.perf_counter() + ARGS.seconds, []
        while time.perf_counter() < end:
            start = time.perf_counter()
            client.predict()
            taken.append(time.perf_counter() - start)
        ours.append(1e3 * quantile(taken, 0.5))
        said = subprocess.run([BIN, "bench", "forward", "--shape", MODEL, "--tokens", str(tokens),
                               "--seconds", str(ARGS.seconds), "--json"], check=True, capture_output=True)
        engine.append(json.loads(said.stdout)["median_ms"])
    more = [a - b for a, b in zip(ours, engine)]
    print(f"| one short text ({tokens} tokens) | p50 {statistics.median(ours):.2f} ms through HTTP, bare engine "
          f"{statistics.median(engine):.2f} ms: {statistics.median(more):+.2f} ms | at most 1 ms more |", flush=True)


def upload(server, key, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        out = subprocess.run(["curl", "-sS", f"{server.url}/v1/files", "-H", f"Authorization: Bearer {key}",
                              "-F", "purpose=fine-tune", "-F", f"file=@{path}"], check=True, capture_output=True)
    return json.loads(out.stdout)["id"]


def start_job(client, file, method, **more):
    body = {"model": "small-zh", "training_file": file, "seed": 8,
            "mp2": {"task": f"t-{method}-{time.time_ns()}", "method": method, **more}}
    return client.call("POST", "/v1/fine_tuning/jobs", body)["id"]


def wait_for(client, job):
    while True:
        said = client.call("GET", f"/v1/fine_tuning/jobs/{job}")
        if said["status"] in ("succeeded", "failed", "cancelled"):
            return said
        time.sleep(0.02)


def jobs_case(client, file):
    for method, goal in (("route", "under 5 s"), ("blackbox-route", "under 10 s")):
        taken = []
        for _ in range(ARGS.rounds):
            start = time.perf_counter()
            job = wait_for(client, start_job(client, file, method))
            taken.append(time.perf_counter() - start)
            if job["status"] != "succeeded":
                raise SystemExit(f"{method}: {job['error']}")
        print(f"| few-shot job, {method}, 32 examples | {statistics.median(taken):.2f} s "
              f"({min(taken):.2f} to {max(taken):.2f}) | {goal} |", flush=True)


def steady(client, seconds, pace):
    """Latencies of predictions due every `pace` seconds: a late one counts from when it was due."""
    taken, due, end = [], time.perf_counter(), time.perf_counter() + seconds
    while due < end:
        time.sleep(max(0, due - time.perf_counter()))
        client.predict()
        taken.append(time.perf_counter() - due)
        due += pace
    return taken


def job_rate(client, job, seconds, meanwhile):
    """Tokens a second of a running job while `meanwhile` runs."""
    def tokens():
        for event in client.call("GET", f"/v1/fine_tuning/jobs/{job}/events?limit=50")["data"]:
            if event["type"] == "metrics" and event.get("data"):
                return event["data"]["tokens"], event["data"]["seconds"]
        return 0, 0.0
    before = tokens()
    got = meanwhile(seconds)
    after = tokens()
    spent = after[1] - before[1]
    return ((after[0] - before[0]) / spent if spent > 0 else 0), got


def beside_case(server, client, key, file):
    other, idle, busy, alone, together = Client(server, key), [], [], [], []
    for _ in range(ARGS.rounds):
        idle.append(steady(client, ARGS.seconds, ARGS.pace))
        job = start_job(client, file, "route", budget={"steps": 100000})
        time.sleep(1)
        rate, _ = job_rate(other, job, ARGS.seconds, lambda s: time.sleep(s))
        alone.append(rate)
        rate, got = job_rate(other, job, ARGS.seconds, lambda s: steady(client, s, ARGS.pace))
        together.append(rate)
        busy.append(got)
        client.call("POST", f"/v1/fine_tuning/jobs/{job}/cancel")
        wait_for(client, job)
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        a, b = [1e3 * quantile(x, share) for x in idle], [1e3 * quantile(x, share) for x in busy]
        ratio = statistics.median(y / x for x, y in zip(a, b))
        goal = "p99 at most 1.5 x idle" if name == "p99" else ""
        print(f"| predictions every {1e3 * ARGS.pace:.0f} ms while a job trains, {name} | idle "
              f"{statistics.median(a):.2f} ms, training {statistics.median(b):.2f} ms: ratio **{ratio:.2f}** | {goal} |")
    print(f"| the job, tokens/s | alone {statistics.median(alone):.0f}, beside predictions "
          f"{statistics.median(together):.0f} | the rest of the machine |", flush=True)


def main():
    global ARGS
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("cases", nargs="*", default=["http", "jobs", "beside"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between predictions")
    ARGS = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores\n\n| case | measured | goal |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="mp2-bench-") as folder:
        server = Server(folder)
        try:
            key = server.make_tenant("bench")
            client = Client(server, key)
            file = upload(server, key, ROWS[:32])
            for name, case in (("http", lambda: http_case(client)), ("jobs", lambda: jobs_case(client, file)),
                               ("beside", lambda: beside_case(server, client, key, file))):
                if name in ARGS.cases:
                    case()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
