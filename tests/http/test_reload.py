"""SIGHUP: settings that change in a running server, those that do not, and files that are wrong."""
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import BIN, PATIENCE, model_dir


def hup(server, wanted):
    """Sends SIGHUP and waits for the log to say one more `wanted`."""
    before = len(re.findall(wanted, server.log()))
    server.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while len(re.findall(wanted, server.log())) == before:
        assert time.monotonic() < end, server.log()[-2000:]
        time.sleep(0.02)
    return [line for line in server.log().splitlines() if re.search(wanted, line)][-1]


@pytest.fixture
def configured(make_server, tmp_path):
    conf = tmp_path / "mp2.conf"
    conf.write_text("max_json = 2K\n")
    return make_server(config=str(conf)), conf


def big(server):
    return server.post("/v1/admin/tenants", {"name": "x", "padding": "y" * 4096}).status


def test_live_settings_change(configured):
    server, conf = configured
    assert big(server) == 413
    conf.write_text("max_json = 1M\nlog_level = debug\n")
    line = hup(server, "event=reloaded")
    assert "max_json" in line and "log_level" in line and "needs_restart" not in line
    assert big(server) == 422
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        rows = [r for r in server.get("/v1/admin/audit").json()["data"] if r["action"] == "settings.reload"]
        if rows:
            break
    assert [r["actor"]["user"] for r in rows] == ["signal HUP"]
    assert "max_json" in rows[0]["detail"]["changed"] and rows[0]["detail"]["needs_restart"] is None
    server.get("/healthz", key=None)
    assert server.stop() == 0
    assert re.search(r"level=debug event=request .*path=/healthz", server.log())


def test_others_wait_for_a_restart(configured):
    server, conf = configured
    conf.write_text("max_json = 2K\nbatch_tokens = 4096\nworkers = 3\n")
    line = hup(server, "event=reloaded")
    assert 'needs_restart="workers, batch_tokens"' in line and 'changed=""' in line
    conf.write_text("max_json = 1M\nbatch_tokens = 4096\n")
    assert "batch_tokens" in hup(server, "event=reloaded")
    assert big(server) == 422


def test_a_wrong_file_changes_nothing(configured):
    server, conf = configured
    conf.write_text("max_json = 1M\nmax_inflight = none\n")
    line = hup(server, "event=reload_failed")
    assert "mp2.conf:2" in line and "max_inflight" in line
    assert big(server) == 413
    conf.unlink()
    assert "mp2.conf" in hup(server, "event=reload_failed")
    assert big(server) == 413 and server.alive()
    conf.write_text("max_json = 1M\n")
    hup(server, "event=reloaded")
    assert big(server) == 422


def test_log_form_changes(configured):
    server, conf = configured
    conf.write_text("max_json = 2K\nlog_format = json\naccess_log = no\n")
    hup(server, '"event":"reloaded"')
    server.get("/v1/me")
    conf.write_text("max_json = 2K\nlog_format = json\n")
    hup(server, '"event":"reloaded"')
    server.get("/v1/admin/tenants")
    assert server.stop() == 0  # and all lines are written
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    asked = [line["path"] for line in lines if line["event"] == "request"]
    assert "/v1/admin/tenants" in asked and "/v1/me" not in asked


def check(*words, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    return subprocess.run([str(BIN), "serve", "--check-config", *words], capture_output=True,
                          text=True, timeout=60, check=False, env={**clean, **env})


def test_check_config(tmp_path):
    conf = tmp_path / "a.conf"
    conf.write_text("max_json = 2M\n")
    done = check("--config", str(conf))
    assert done.returncode == 0 and "fine" in done.stdout
    assert not (tmp_path / "data").exists()
    cases = [("max_json = lots\n", "a.conf:1"), ("\n\nwhat\n", "a.conf:3"),
             ("cors_origins = example.com\n", "a.conf:1"),
             ("trusted_proxies = 10.0.0.0/99\n", "a.conf:1"), ("listen = here\n", "a.conf:1"),
             ("tls_certificate = x.pem\n", "tls_key"),
             ("tls_certificate = /none.pem\ntls_key = /none.pem\n", "/none.pem")]
    for text, says in cases:
        conf.write_text(text)
        done = check("--config", str(conf))
        assert done.returncode == 2 and says in done.stderr, (text, done)
    conf.write_text("")
    done = check("--config", str(conf), MP2_MAX_JSON="lots")
    assert done.returncode == 2 and "MP2_MAX_JSON" in done.stderr


def test_systemd_is_told(make_server, tmp_path, monkeypatch):
    """READY=1 when it serves, RELOADING=1 and READY=1 around a reload, STOPPING=1, WATCHDOG=1."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        server = make_server()

        def next_message(but="WATCHDOG=1"):
            while (text := listener.recv(4096).decode()) == but:
                pass
            return text

        assert next_message().startswith("READY=1")
        assert next_message(but="") == "WATCHDOG=1"
        hup(server, "event=reloaded")
        assert next_message().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert next_message() == "READY=1"
        assert server.stop() == 0
        assert next_message().startswith("STOPPING=1")


def test_no_core_file_by_default(make_server):
    limits = (make_server().process.pid, make_server(core_dumps="yes").process.pid)
    texts = [open(f"/proc/{pid}/limits").read() for pid in limits]
    soft = [re.search(r"Max core file size +(\S+)", text).group(1) for text in texts]
    assert soft[0] == "1"
    assert soft[1] == re.search(r"Max core file size +(\S+)",
                                open("/proc/self/limits").read()).group(1)


def test_first_key_in_a_file(make_server, tmp_path):
    place = tmp_path / "key"
    server = make_server(admin_key_file=str(place))
    key = place.read_text().strip()
    assert server.admin_key is None and key not in server.out and key not in server.log()
    assert place.stat().st_mode & 0o777 == 0o600
    assert server.get("/v1/me", key=key).status == 200
    taken = tmp_path / "taken"
    taken.write_text("mine")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    done = subprocess.run([str(BIN), "serve", "--db", str(tmp_path / "x.db"), "--listen",
                           "127.0.0.1:0", "--admin-key-file", str(taken)], capture_output=True,
                          text=True, timeout=60, check=False,
                          env={**clean, "MP2_MODEL": model_dir() or ""})
    assert done.returncode == 1 and "admin_key_file" in done.stderr
    assert taken.read_text() == "mine"
