"""The README's five-minute walk, run as it is written.

Takes every line of the README's ```sh walk blocks, replaces only the address and the admin key, and
runs them in one shell. Then kills the server, starts it on the same database, and asks again: the
answers must be the same to the byte.
"""
import json
import pathlib
import re
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]


def walk_script():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh walk\n(.*?)^```", text, re.S | re.M))


def run_walk(server, extra=""):
    script = walk_script()
    script, n = re.subn(r"^MP2=.*$", f"MP2={server.url}", script, count=1, flags=re.M)
    assert n == 1
    script, n = re.subn(r"^ADMIN=.*$", f"ADMIN={server.admin_key}", script, count=1, flags=re.M)
    assert n == 1
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script + extra], cwd=TOP, timeout=240,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_walk_and_restart(make_server):
    server = make_server(model=TOP / "engine/models/small-zh")  # the reader's: the embedded one
    out = run_walk(server, "\necho KEY=$KEY\n")
    assert '"succeeded"' in out
    key = re.search(r"^KEY=(mp2_\S+)$", out, re.M).group(1)
    ask = {"task": "reviews", "inputs": ["等了很久，菜都凉了", "味道很好，还会再来"],
           "return": ["scores"]}
    before = server.post("/v1/predict", ask, key=key)
    labels = [p["label"] for p in before.json()["predictions"]]
    assert labels == ["乙", "甲"]
    server.kill()
    server.start()
    after = server.post("/v1/predict", ask, key=key)
    strip = lambda r: json.dumps(r.json()["predictions"], sort_keys=True)
    assert strip(after) == strip(before)
    assert after.json()["task_version"] == before.json()["task_version"]
