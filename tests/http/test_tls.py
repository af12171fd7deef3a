"""HTTPS: certificates made for the test, replaced while serving; keys that are refused."""
import http.client
import os
import ssl
import subprocess

import pytest

from conftest import BIN, PATIENCE, drain, model_dir, statuses
from test_reload import hup


def make_certificate(folder, name, days="30"):
    """(certificate, key): self-made, for 127.0.0.1."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key), "-out",
                    str(certificate), "-days", days, "-subj", f"/CN={name}", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60)
    key.chmod(0o600)
    return certificate, key


def connect(server, *trusted, **limits):
    """An HTTPS connection that trusts these certificates and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in trusted:
        context.load_verify_locations(str(certificate))
    if limits:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # the client alone would not refuse
    for name, value in limits.items():
        setattr(context, name, value)
    connection = http.client.HTTPSConnection(server.host, server.port, timeout=PATIENCE,
                                             context=context)
    connection.connect()
    return connection


def ask(connection, server, path="/v1/me", body=None):
    method = "POST" if body is not None else "GET"
    connection.request(method, path, body=body,
                       headers={"Authorization": "Bearer " + server.admin_key})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def subject(connection):
    return dict(part[0] for part in connection.sock.getpeercert()["subject"])["commonName"]


@pytest.fixture
def secured(make_server, tmp_path):
    certificate, key = make_certificate(tmp_path, "first")
    return make_server(tls_certificate=str(certificate), tls_key=str(key)), tmp_path


def test_https(secured):
    server, folder = secured
    assert server.url.startswith("https://")
    connection = connect(server, folder / "first.crt")
    for _ in range(3):
        status, headers, _ = ask(connection, server)
        assert status == 200 and headers["Strict-Transport-Security"] == "max-age=31536000"
    body = b'{"name":"t","padding":"' + b"y" * 200000 + b'"}'
    assert ask(connection, server, "/v1/admin/tenants", body)[0] == 422
    assert b"mp2_tls_certificate_not_after_seconds" in ask(connection, server, "/metrics")[2]
    connection.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version,allowed", [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_versions(secured, version, allowed):
    server, folder = secured
    wanted = getattr(ssl.TLSVersion, version)
    limits = {"minimum_version": wanted, "maximum_version": wanted}
    if allowed:
        connection = connect(server, folder / "first.crt", **limits)
        assert connection.sock.version().replace(".", "_") == version
        assert ask(connection, server)[0] == 200
        connection.close()
    else:
        with pytest.raises((ssl.SSLError, OSError)):
            connect(server, folder / "first.crt", **limits)


def test_reload_while_serving(secured):
    """New connections see the new certificate, open ones go on, a wrong one changes nothing."""
    server, folder = secured
    second, second_key = make_certificate(folder, "second")
    trusted = (folder / "first.crt", second)
    # what is trusted must not be what is replaced
    trusted[0].rename(folder / "old.crt")
    trusted = (folder / "old.crt", second)
    kept = connect(server, *trusted)
    assert ask(kept, server)[0] == 200 and subject(kept) == "first"
    (folder / "first.crt").write_text("rubbish")
    assert "first.crt" in hup(server, "event=reload_failed")
    again = connect(server, *trusted)
    assert subject(again) == "first"
    again.close()
    (folder / "first.crt").write_bytes(second.read_bytes())
    assert "is not the key of" in hup(server, "event=reload_failed")
    (folder / "first.key").write_bytes(second_key.read_bytes())
    hup(server, "event=reloaded")
    fresh = connect(server, *trusted)
    assert subject(fresh) == "second" and ask(fresh, server)[0] == 200
    assert ask(kept, server)[0] == 200
    kept.close()
    fresh.close()


def test_plain_http_and_noise_on_the_port(secured):
    server, folder = secured
    with server.connect() as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(drain(s)) == []
    with server.connect() as s:
        s.sendall(b"\x16\x03\x01\x00\x05" + b"\xff" * 200)
        drain(s)
    connection = connect(server, folder / "first.crt")
    assert ask(connection, server)[0] == 200
    connection.close()


def test_a_silent_handshake_is_cut(make_server, tmp_path):
    certificate, key = make_certificate(tmp_path, "first")
    server = make_server(tls_certificate=str(certificate), tls_key=str(key), headers_timeout="500ms")
    with server.connect() as s:
        s.sendall(b"\x16\x03\x01")
        assert drain(s) == b""  # ends because the server closes; a hang would raise
    connection = connect(server, certificate)
    assert ask(connection, server)[0] == 200
    connection.close()


def refused(tmp_path, certificate, key):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MP2_")}
    done = subprocess.run([str(BIN), "serve", "--db", str(tmp_path / "db"), "--listen", "127.0.0.1:0",
                           "--tls-certificate", str(certificate), "--tls-key", str(key)],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**clean, "MP2_MODEL": model_dir() or ""})
    assert done.returncode == 1, done
    return done.stderr


def test_keys_that_are_refused(tmp_path):
    certificate, key = make_certificate(tmp_path, "one")
    other, _ = make_certificate(tmp_path, "other")
    assert "is not the key of" in refused(tmp_path, other, key)
    key.chmod(0o644)
    assert "chmod" in refused(tmp_path, certificate, key)
    key.chmod(0o660)
    assert "chmod" in refused(tmp_path, certificate, key)
    key.chmod(0o640)
    assert "private key" in refused(tmp_path, certificate, certificate_as_key(tmp_path, certificate))
    assert "one.crt" not in refused(tmp_path, tmp_path / "none", key)
    assert "certificate" in refused(tmp_path, key, key)


def certificate_as_key(folder, certificate):
    wrong = folder / "wrong.key"
    wrong.write_bytes(certificate.read_bytes())
    wrong.chmod(0o600)
    return wrong
