"""conf/mp2.service and the Dockerfile: well-formed, and in step with what they start."""
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import BIN

TOP = pathlib.Path(__file__).resolve().parents[2]
UNIT = TOP / "conf/mp2.service"
DOCKERFILE = (TOP / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path):
    unit = tmp_path / "mp2.service"
    text = UNIT.read_text(encoding="utf-8").replace("/usr/local/bin/mp2", str(BIN))
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0 and "mp2.service" not in done.stderr, done
    unit.write_text(text.replace("Type=notify", "Type=nonsense"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True,
                          timeout=60, check=False)
    assert "nonsense" in done.stderr  # it does look


def check_words(words):
    """Every --option of a command line is a setting."""
    done = subprocess.run([str(BIN), "serve", "--check-config", *words], capture_output=True,
                          text=True, timeout=60, check=False, env={})
    assert done.returncode == 0, done


def test_the_unit_starts_a_server_that_knows_its_options():
    line = re.search(r"^ExecStart=\S+ serve (.*)$", UNIT.read_text(encoding="utf-8"), re.M).group(1)
    words = [str(TOP / "conf/mp2.conf") if word == "/etc/mp2/mp2.conf" else word
             for word in line.split()]
    check_words(words)


def test_the_dockerfile():
    entry = re.search(r"^ENTRYPOINT \[(.*)\]$", DOCKERFILE, re.M).group(1)
    words = re.findall(r'"([^"]*)"', entry)
    assert words[:2] == ["mp2", "serve"]
    check_words(words[2:])
    settings = re.search(r"^ENV (.*)$", DOCKERFILE, re.M).group(1).split()
    known = subprocess.run([str(BIN), "serve", "--print-config"], capture_output=True, text=True,
                           timeout=60, check=True).stdout
    for setting in settings:
        name = setting.split("=")[0].removeprefix("MP2_").lower()
        assert f"\n#{name} =" in known, name
    assert re.search(r"^USER (?!root)\S+", DOCKERFILE, re.M)
    assert re.search(r"^HEALTHCHECK .*CMD ", DOCKERFILE, re.M)
    assert "trixie" in DOCKERFILE
    wanted = re.search(r'^BUILD_PACKAGES="([^"]*)"', (TOP / "conf/packages.sh").read_text(), re.M)
    for package in wanted.group(1).split():
        assert re.search(rf"\b{re.escape(package)}\b", DOCKERFILE), package
