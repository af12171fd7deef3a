"""Clients people have, unmodified and pinned, against a running server.

Each version lives in a virtual environment of its own (tests/clients/environments.txt), made once in
build/clients and kept. A test hands a script to the environment's Python; the script speaks to the server
and prints JSON, which the test judges.
"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
_spec = importlib.util.spec_from_file_location("http_harness", HERE.parent / "http" / "conftest.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


def environments():
    """{name: [requirement, …]}"""
    lines = (HERE / "environments.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: wanted for name, *wanted in words}


def python_of(name):
    """The Python of an environment, made when it is missing or its requirements have changed."""
    home = TOP / "build" / "clients" / name
    stamp, wanted = home / "installed", environments()[name]
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != " ".join(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", "--disable-pip-version-check",
                        *wanted], check=True)
        stamp.write_text(" ".join(wanted), encoding="utf-8")
    return str(home / "bin" / "python")


@pytest.fixture(scope="session")
def server():
    make, end = harness._factory()
    yield make(job_checkpoint="200ms")
    end()


@pytest.fixture
def pinned():
    """The version of an environment's client."""
    return lambda environment: environments()[environment][0].split("==")[1]


@pytest.fixture
def run(server):
    """run(environment, script, **values): the JSON that tests/clients/SCRIPT prints."""
    def call(environment, script, **values):
        values = {"url": server.url, **values}
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env["MP2_VALUES"] = json.dumps(values)
        env["HF_HUB_DISABLE_TELEMETRY"] = "1"
        done = subprocess.run([python_of(environment), str(HERE / script)], env=env, timeout=240,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:] + server.log()[-2000:]
        return json.loads(done.stdout)
    return call
