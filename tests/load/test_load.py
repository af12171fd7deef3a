"""The short forms of this folder's scripts, for CI. They assert on what was answered and in which order,
never on how fast; the times are printed.

MP2_LOAD_SECONDS (120) is the length of the mixed run.
"""
import os
import shutil
import tempfile
import threading
import time

import fairness
import load
import pytest
import rate
from harness import Server

SECONDS = int(os.environ.get("MP2_LOAD_SECONDS", "120"))


@pytest.fixture
def server():
    directory = tempfile.mkdtemp(prefix="mp2-load-")
    made = Server(directory, log_level="warn", queue_requests=20000)
    yield made
    code = made.stop()
    shutil.rmtree(directory, ignore_errors=True)
    assert code == 0


def test_mixed_traffic():
    wrong = load.measure(SECONDS)
    assert wrong == [], "\n".join(wrong)


def test_paths_that_do_not_compute():
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    for path, (_, bad) in rate.measure(1).items():
        assert bad == 0, path


def served_inputs(server):
    """Inputs computed so far, of everybody."""
    for line in server.get("/metrics", key=None).text.splitlines():
        if line.startswith("mp2_batch_sequences_sum "):
            return float(line.split()[1])
    raise AssertionError("mp2_batch_sequences_sum is not in /metrics")


def test_a_flood_does_not_delay_others(server):
    """A thousand inputs of one tenant wait; another's single input is served after a few batches of them,
    not after all."""
    big, small = server.make_tenant("big"), server.make_tenant("small")
    waits = []
    with fairness.Flood(server, big):
        time.sleep(1)
        for _ in range(30):
            before = served_inputs(server)
            answer = server.post("/v1/predict", fairness.SMALL, key=small)
            assert answer.status == 200, answer
            waits.append(served_inputs(server) - before)
            time.sleep(0.05)
    waits.sort()
    backlog = fairness.FLOODERS * len(fairness.FLOOD["inputs"])
    print(f"inputs served meanwhile: median {waits[15]:.0f}, most {waits[-1]:.0f}, {backlog} on their way")
    assert waits[15] < backlog / 2, waits


def test_equal_tenants_get_equal_service(server):
    """Two tenants that both ask for more than there is: neither gets twice the other's inputs."""
    floods = [fairness.Flood(server, server.make_tenant(name), flooders) for name, flooders in
              (("many", 16), ("few", 6))]
    with floods[0], floods[1]:
        while min(flood.served() for flood in floods) == 0:
            time.sleep(0.1)
        before, got = [flood.served() for flood in floods], [0, 0]
        while sum(got) < 60:
            time.sleep(0.1)
            got = [flood.served() - start for flood, start in zip(floods, before)]
    print(f"requests served: {got}")
    assert max(got) <= 2 * min(got), got


def test_threads_come_back(server):
    """A crowd that comes and goes leaves no thread and no connection."""
    key = server.make_tenant("crowd")

    def one():
        for _ in range(5):
            assert server.post("/v1/predict", fairness.SMALL, key=key).status == 200

    def threads():
        return len(os.listdir(f"/proc/{server.process.pid}/task"))

    one()
    before = threads()
    crowd = [threading.Thread(target=one) for _ in range(50)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert threads() == before
