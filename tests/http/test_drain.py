"""Stopping: what is in flight finishes, the door closes, the exit code is 0; and starting again."""
import http.client
import os
import re
import signal
import subprocess
import threading
import time

from conftest import BIN, CLOSE, SLOW, drain, model_dir, request_bytes, statuses


def begin_post(server, name, length=None):
    """A request whose body has not come yet."""
    body = b'{"name":"%s"}' % name.encode()
    s = server.connect()
    s.sendall(request_bytes("POST", "/v1/admin/tenants",
                            [f"Authorization: Bearer {server.admin_key}",
                             "Content-Type: application/json", f"Content-Length: {len(body)}"]))
    return s, body


def test_in_flight_finishes(fresh_server):
    server = fresh_server
    s, body = begin_post(server, "late")
    while "mp2_requests_at_work 1" not in server.get("/metrics", key=None).text:
        time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10
    while time.monotonic() < end:  # the door closes
        try:
            server.connect(1).close()
        except OSError:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("still accepts connections")
    s.sendall(body)
    answer = drain(s)
    assert statuses(answer) == [201] and b"Connection: close" in answer
    s.close()
    assert server.wait() == 0
    server.start()
    assert server.get("/v1/admin/tenants/late").status == 200


def test_ready_turns_first(make_server):
    """With drain_delay the server answers on, but says that it is leaving."""
    server = make_server(drain_delay="1s")
    assert server.get("/readyz", key=None).status == 200
    server.process.send_signal(signal.SIGTERM)
    codes = set()
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        codes.add((server.get("/readyz", key=None).status, server.get("/v1/me").status))
    assert (503, 200) in codes and codes <= {(200, 200), (503, 200)}
    assert server.wait() == 0


def test_a_client_that_never_ends(make_server):
    """drain_timeout bounds the wait for others."""
    server = make_server(drain_timeout="1s", body_min_rate="0")
    s, _ = begin_post(server, "never")
    while "mp2_requests_at_work 1" not in server.get("/metrics", key=None).text:
        time.sleep(0.02)
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < (20 if SLOW else 6)
    s.close()


def test_idle_connections_do_not_hold_it(fresh_server):
    held = [fresh_server.connect() for _ in range(50)]
    for s in held[:25]:
        s.sendall(request_bytes())
        assert statuses(s.recv(4096)) == [200]
    start = time.monotonic()
    assert fresh_server.stop() == 0
    assert time.monotonic() - start < (20 if SLOW else 6)
    for s in held:
        s.close()


def test_second_signal_ends_at_once(make_server):
    server = make_server(drain_timeout="1h", body_min_rate="0", body_timeout="1h")
    s, _ = begin_post(server, "never")
    while "mp2_requests_at_work 1" not in server.get("/metrics", key=None).text:
        time.sleep(0.02)
    server.process.send_signal(signal.SIGINT)
    while "event=stopping" not in server.log():
        time.sleep(0.02)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == -signal.SIGINT
    s.close()


def test_under_load(fresh_server):
    """Every request that was answered was answered whole, and what was acknowledged is there."""
    server = fresh_server
    made, broken = [], []

    def client(number):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
        for i in range(100000):
            name = f"load-{number}-{i}"
            try:
                connection.request("POST", "/v1/admin/tenants", body=b'{"name":"%s"}' % name.encode(),
                                   headers={"Authorization": "Bearer " + server.admin_key,
                                            "Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                return
            if answer.status == 201:
                made.append(name)
            elif answer.status != 503:
                broken.append((answer.status, body))

    clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for c in clients:
        c.start()
    time.sleep(1)
    assert server.stop() == 0
    for c in clients:
        c.join()
    assert made and not broken
    server.start()
    seen, after = set(), ""
    while True:
        page = server.get("/v1/admin/tenants?limit=100" + after).json()
        seen |= {t["name"] for t in page["data"]}
        if not page["has_more"]:
            break
        after = "&after=" + page["last_id"]
    assert set(made) <= seen


def test_kill_under_load(fresh_server):
    """kill -9 at any time loses nothing that was acknowledged."""
    server = fresh_server
    made = []
    for round_ in range(2 if SLOW else 5):
        def client(number):
            i = 0
            while True:
                name = f"k{round_}-{number}-{i}"
                try:
                    if server.post("/v1/admin/tenants", {"name": name}).status == 201:
                        made.append(name)
                except (OSError, http.client.HTTPException):
                    return
                i += 1

        clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for c in clients:
            c.start()
        time.sleep(0.2 + 0.07 * round_)
        server.kill()
        for c in clients:
            c.join()
        server.start()
    assert made
    for name in made:
        assert server.get(f"/v1/admin/tenants/{name}").status == 200


def run(*words, db=None, **env):
    more = ["--db", str(db)] if db else []
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    return subprocess.run([str(BIN), *words, *more], capture_output=True, text=True, timeout=60,
                          check=False, env={**clean, **env})


def test_commands_beside_a_running_server(fresh_server):
    """The command line refuses while the server runs, and works when it does not."""
    server = fresh_server
    busy = run("tenant", "create", "offline", db=server.db)
    assert busy.returncode == 1 and "stop it first" in busy.stderr
    assert server.stop() == 0
    assert run("tenant", "create", "offline", db=server.db).returncode == 0
    made = run("key", "create", "--tenant", "offline", "--scopes", "read", db=server.db)
    key = re.search(r"mp2_\S+", made.stdout).group(0)
    key_id = re.search(r"key_\S+", made.stdout).group(0)
    assert "offline" in run("tenant", "list", db=server.db).stdout
    assert key_id in run("key", "list", "--tenant", "offline", db=server.db).stdout
    server.start()
    me = server.get("/v1/me", key=key).json()["key"]
    assert (me["id"], me["scopes"]) == (key_id, ["read"])
    assert server.stop() == 0
    assert run("key", "revoke", key_id, "--tenant", "offline", db=server.db).returncode == 0
    assert run("tenant", "delete", "offline", db=server.db).returncode == 0
    server.start()
    assert server.get("/v1/me", key=key).status == 401


def test_a_second_server_on_one_database(fresh_server):
    second = run("serve", "--listen", "127.0.0.1:0", db=fresh_server.db, MP2_MODEL=model_dir() or "")
    assert second.returncode == 1 and "mp2:" in second.stderr
    assert fresh_server.alive()


def test_wrong_arguments(tmp_path):
    bad = tmp_path / "bad.conf"
    bad.write_text("listen = 127.0.0.1:0\nmax_jsonn = 2M\n")
    cases = [(["serve", "--max-json", "lots"], "max_json"), (["serve", "--nonsense"], "--nonsense"),
             (["serve", "--config", str(bad)], "bad.conf:2"), (["serve", "--listen"], "--listen"),
             (["serve", "--sync", "maybe"], "full|normal"), (["tenant"], "create"),
             (["key", "create"], "--tenant"), (["tenant", "create", "A B"], "name"),
             (["key", "create", "--tenant", "x", "extra"], "--tenant"),
             (["serve", "--listen", "nonsense"], "listen"),
             (["serve", "--listen", "256.0.0.1:80"], "listen")]
    for words, says in cases:
        done = run(*words)
        assert done.returncode == 2 and says in done.stderr, (words, done)
    done = run("serve", "--model", str(tmp_path / "none"), db=tmp_path / "x.db")
    assert done.returncode == 3, done
    done = run("tenant", "create", "first", db=tmp_path / "made" / "here" / "x.db")
    assert done.returncode == 0, done
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    for command in ("serve", "tenant", "key"):
        assert run(command, "--help").returncode == 0
    assert run("tenant", "list", db=tmp_path / "none.db").returncode == 3


def test_environment_and_file(make_server, tmp_path):
    conf = tmp_path / "mp2.conf"
    conf.write_text("max_inflight = 17\nlog_format = json\n")
    server = make_server(config=str(conf))
    server.get("/v1/me")
    assert server.stop() == 0
    import json
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    assert any(line["event"] == "request" and line["path"] == "/v1/me" and line["status"] == 200
               for line in lines)
