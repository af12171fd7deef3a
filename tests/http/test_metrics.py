"""/metrics read by the Prometheus client's own parser, and /v1/admin/stats beside it."""
import re
import time

import pytest

from conftest import PATIENCE, model_dir

parser = pytest.importorskip("prometheus_client.parser")

SPEC = {"type": "classification", "labels": ["负面", "正面"]}
# API: name → type, and the values its labels may have (None: any of a bounded set, checked below)
FAMILIES = {
    "mp2_requests": "counter", "mp2_request_duration_seconds": "histogram",
    "mp2_stage_duration_seconds": "histogram", "mp2_batch_sequences": "histogram",
    "mp2_batch_tokens": "histogram", "mp2_batch_tasks": "histogram", "mp2_queue_tokens": "gauge",
    "mp2_queue_requests": "gauge", "mp2_inflight": "gauge", "mp2_input_tokens": "histogram",
    "mp2_tasks": "gauge", "mp2_jobs": "gauge", "mp2_job_duration_seconds": "histogram",
    "mp2_job_queue_seconds": "histogram", "mp2_train_tokens": "counter", "mp2_rejected": "counter",
    "mp2_gemm_gflops": "gauge", "mp2_prompt_cache_hits": "counter", "mp2_prompt_cache_bytes": "gauge",
    "process_cpu_seconds": "counter", "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge", "process_start_time_seconds": "gauge"}


def scrape(server):
    answer = server.get("/metrics", key=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(parser.text_string_to_metric_families(answer.text))
    return answer.text, {family.name: family for family in families}


@pytest.fixture(scope="module")
def busy(server):
    """A server that has answered and refused something of everything."""
    key = server.make_tenant("secretive-tenant")
    for _ in range(3):
        assert server.post("/v1/predict", {**SPEC, "inputs": ["好", "不好"]}, key=key).status == 200
    for path, status in (("/nothing", 404), ("/v1/tasks/unknown-task-name", 404), ("/healthz", 200)):
        assert server.get(path, key=key).status == status
    server.request("BREW", "/healthz", key=None)
    server.get("/v1/me", key="mp2_" + "A" * 43)
    server.get("/healthz/" + "x" * 200, key=None)
    return server, key


def value(families, family, sample=None, **labels):
    return sum(s.value for s in families[family].samples
               if s.name == (sample or family) and labels.items() <= s.labels.items())


def test_every_family_of_the_contract(busy):
    text, families = scrape(busy[0])
    for name, kind in FAMILIES.items():
        assert name in families, name
        assert families[name].type == kind, name
        assert families[name].documentation, name
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert len(names) == len({name for name, _ in names}), "a family is written twice"
    assert [n for n, _ in names] == re.findall(r"^# HELP (\S+) \S", text, re.M)


def test_names_and_units(busy):
    """Base units, _total on counters and on nothing else, every sample below its own family."""
    text, families = scrape(busy[0])
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        assert re.fullmatch(r"(mp2|process)_[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|us|mb|kb|mib|minutes|percent)(_|$)", name), name
    for family in families.values():
        allowed = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
        for sample in family.samples:
            assert sample.name in {family.name + end for end in allowed[family.type]}, sample
            assert sample.value >= 0, sample


def test_histograms_add_up(busy):
    _, families = scrape(busy[0])
    for family in families.values():
        if family.type != "histogram":
            continue
        series = {}
        for sample in family.samples:
            rest = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            series.setdefault(rest, []).append(sample)
        for samples in series.values():
            buckets = [s for s in samples if s.name.endswith("_bucket")]
            bounds = [float(s.labels["le"]) for s in buckets]
            counts = [s.value for s in buckets]
            assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), family.name
            assert counts == sorted(counts), family.name
            assert counts[-1] == next(s.value for s in samples if s.name.endswith("_count"))


def test_labels_are_bounded(busy):
    """Nothing that a client chose, and no tenant, becomes a label."""
    server, key = busy
    text, families = scrape(server)
    for word in ("secretive", "unknown-task-name", "BREW", "nothing", "xxx", key, server.admin_key):
        assert word not in text
    allowed = {"api": {"native", "openai", "hf", "oip", "none"},
               "stage": {"tokenize", "queue", "infer"},
               "state": {"validating_files", "queued", "running", "paused", "succeeded", "failed",
                         "cancelled"}}
    for family in families.values():
        for sample in family.samples:
            for name, of in allowed.items():
                assert sample.labels.get(name) in of | {None}, sample
            assert set(sample.labels) <= {"api", "type", "code", "method", "le", "stage", "state",
                                          "reason", "outcome"}, sample


def test_counts_are_true(busy):
    server, key = busy
    _, before = scrape(server)
    server.post("/v1/predict", {**SPEC, "inputs": ["一", "二", "三"]}, key=key)
    server.get("/v1/me", key=None)
    _, after = scrape(server)

    def gained(family, sample=None, **labels):
        return value(after, family, sample, **labels) - value(before, family, sample, **labels)

    assert gained("mp2_requests", "mp2_requests_total", type="predict", code="200") == 1
    assert gained("mp2_requests", "mp2_requests_total", type="me", code="401") == 1
    assert gained("mp2_request_duration_seconds", "mp2_request_duration_seconds_count",
                  type="predict") == 1
    assert gained("mp2_input_tokens", "mp2_input_tokens_count") == 3
    assert gained("mp2_rejected", "mp2_rejected_total", reason="auth") == 1
    assert value(after, "mp2_gemm_gflops") > 0
    assert value(after, "mp2_jobs", state="running") == 0


# ---- /v1/admin/stats ------------------------------------------------------------------------------


def test_stats(busy):
    server, key = busy
    assert server.get("/v1/admin/stats", key=key).status == 403
    before = server.get("/v1/admin/stats").json()
    for _ in range(5):
        server.post("/v1/predict", {**SPEC, "inputs": ["好", "不好"]}, key=key)
    server.get("/nothing", key=key)
    after = server.get("/v1/admin/stats").json()
    assert after["object"] == "stats" and after["ready"] is True and after["draining"] is False
    assert after["requests"]["total"]["2xx"] - before["requests"]["total"]["2xx"] == 6
    assert after["requests"]["total"]["4xx"] - before["requests"]["total"]["4xx"] == 1
    assert after["requests"]["window"]["2xx"] <= after["requests"]["total"]["2xx"]
    assert after["requests"]["per_second"] > 0 and 0 < after["window_seconds"] < 70
    for stage in ("whole", "queue", "inference"):
        at = after["latency"][stage]
        assert 0 <= at["p50"] <= at["p95"] <= at["p99"], stage
    assert after["latency"]["whole"]["p50"] > 0
    assert after["batches"]["tokens_per_second"] > 0 and after["batches"]["mean_tasks"] >= 1
    assert after["refusals"]["auth"]["total"] >= 1
    assert after["memory"]["resident_bytes"] > 0 and after["memory"]["workspace_bytes"] > 0
    for name, one in after["limits"].items():
        assert 0 <= one["used"] <= one["limit"], name
    assert {"connections", "requests", "queue_requests", "queue_tokens", "body_bytes",
            "keys"} <= set(after["limits"])
    assert after["limits"]["connections"]["used"] >= 1
    assert after["jobs"]["running"] == 0
    text = server.get("/v1/admin/stats").text
    assert key not in text and server.admin_key not in text


@pytest.mark.skipif(model_dir() is None, reason="no model beside the tests")
def test_jobs_are_counted(make_server):
    server = make_server(job_threads="0")
    rows = "".join(f'{{"text":"第{i}个","label":"{"好" if i % 2 else "坏"}"}}\n' for i in range(8))
    boundary = "b"
    body = (f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
            f'{rows}\r\n--{boundary}--\r\n').encode()
    file = server.post("/v1/files", body,
                       headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}).json()
    job = server.post("/v1/fine_tuning/jobs", {"model": "boot", "training_file": file["id"],
                                               "mp2": {"task": "t"}})
    assert job.status == 200, job
    assert server.get("/v1/admin/stats").json()["jobs"]["queued"] == 1
    end = time.monotonic() + PATIENCE
    while value(scrape(server)[1], "mp2_jobs", state="queued") != 1:
        assert time.monotonic() < end
        time.sleep(0.1)
