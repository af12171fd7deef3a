"""Files: the streaming multipart upload, rows judged one by one, and tenants blind to each other."""
import json

import pytest

ROWS = "".join(json.dumps({"text": f"第{i}条评论，{'很好' if i % 2 else '很差'}", "label": ["差", "好"][i % 2]},
                          ensure_ascii=False) + "\n" for i in range(8))


def form(parts, boundary="XyZ", close=True):
    """parts: (name, filename or None, bytes)."""
    out = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        out += (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
                ).encode() + data + b"\r\n"
    return out + (f"--{boundary}--\r\n".encode() if close else b"")


def upload(server, key, rows=ROWS, filename="评论.jsonl", purpose="fine-tune", parts=None, **more):
    data = rows if isinstance(rows, bytes) else rows.encode()
    if parts is None:
        parts = [("purpose", None, purpose.encode()), ("file", filename, data)]
    more.setdefault("headers", {"Content-Type": "multipart/form-data; boundary=XyZ"})
    return server.request("POST", "/v1/files", form(parts), key=key, **more)


def test_upload_and_read_back(server, tenant):
    _, key = tenant
    made = upload(server, key)
    assert made.status == 200, made
    file = made.json()
    assert file["object"] == "file" and file["id"].startswith("file-")
    assert file["bytes"] == len(ROWS.encode()) and file["filename"] == "评论.jsonl"
    assert file["purpose"] == "fine-tune" and file["status"] == "processed"
    assert file["status_details"] is None and file["expires_at"] is None
    assert file["mp2"]["type"] == "classification" and file["mp2"]["rows"] == 8
    assert sorted(file["mp2"]["labels"]) == sorted(["好", "差"])
    assert server.get("/v1/files/" + file["id"], key=key).json() == file
    content = server.get(f"/v1/files/{file['id']}/content", key=key)
    assert content.body == ROWS.encode()
    listed = server.get("/v1/files?purpose=fine-tune", key=key).json()
    assert [f["id"] for f in listed["data"]] == [file["id"]] and listed["has_more"] is False
    gone = server.delete("/v1/files/" + file["id"], key=key)
    assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
    assert server.get("/v1/files/" + file["id"], key=key).status == 404


def test_parts_in_any_order(server, tenant):
    _, key = tenant
    parts = [("file", "a.jsonl", ROWS.encode()), ("ignored", None, b"x"),
             ("purpose", None, b"fine-tune")]
    assert upload(server, key, parts=parts).status == 200


def test_csv(server, tenant):
    _, key = tenant
    made = upload(server, key, "text,label\n好吃,好\n\"难吃, 不来了\",差\n", filename="a.csv")
    assert made.status == 200, made
    assert made.json()["mp2"]["format"] == "csv" and made.json()["mp2"]["rows"] == 2


def test_boundary_like_bytes_in_the_file(server, tenant):
    _, key = tenant
    rows = ROWS + json.dumps({"text": "--XyZ \r\n--Xy \r\r\n--", "label": "好"}) + "\r\n\r\n--Xy\r\n"
    made = upload(server, key, rows)
    assert made.status == 200, made
    got = server.get(f"/v1/files/{made.json()['id']}/content", key=key)
    assert got.body == rows.encode()


def test_pieces_of_every_size(server, tenant):
    """The delimiter may be cut anywhere: the same body in chunks of one byte and up."""
    _, key = tenant
    body = form([("file", "a.jsonl", ROWS.encode() + b"\r\n--Xy"), ("purpose", None, b"fine-tune")])
    for size in (1, 2, 3, 5, 7, 11, 64):
        pieces = [body[i:i + size] for i in range(0, len(body), size)]
        raw = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        head = (f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                "Content-Type: multipart/form-data; boundary=\"XyZ\"\r\n"
                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n").encode()
        answer = server.raw(head + raw)
        assert answer.startswith(b"HTTP/1.1 200"), (size, answer)


def test_bad_rows_are_reported_and_the_rest_is_kept(server, tenant):
    _, key = tenant
    rows = ROWS + '{"text":"没有标签"}\n' + "not json\n"
    made = upload(server, key, rows)
    assert made.status == 200, made
    file = made.json()
    assert file["mp2"]["rows"] == 8 and file["mp2"]["bad_rows"] == 2
    assert [e["line"] for e in file["mp2"]["errors"]] == [9, 10]
    assert "line 9" in file["status_details"]
    assert server.get(f"/v1/files/{file['id']}/content", key=key).body == rows.encode()


def test_no_good_row_is_refused(server, tenant):
    _, key = tenant
    for rows in ("not json\n", '{"text":"x"}\n', "\n\n", "\x00\x01", '{"text":"","label":""}\n'):
        answer = upload(server, key, rows)
        assert answer.status == 422, (rows, answer)
        assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = upload(server, key, '{"text":"x"}\n{"label":"y"}\n')
    assert [e["line"] for e in answer.json()["error"]["errors"]] == [1, 2]
    assert server.get("/v1/files", key=key).json()["data"] == []


@pytest.mark.parametrize("body,headers,status", [
    (form([("purpose", None, b"fine-tune")]), None, 422),
    (form([("file", "a", b"")]), None, 422),
    (form([("file", "a", ROWS.encode())]), None, 422),
    (form([("file", "a", ROWS.encode()), ("purpose", None, b"assistants")]), None, 422),
    (form([("purpose", None, b"x" * 100)]), None, 422),
    (form([("file", "a", b"x"), ("file", "b", b"y")]), None, 400),
    (form([("file", "a", b"x")], close=False), None, 400),
    (b"--XyZ\r\nContent-Disposition: attachment\r\n\r\nx\r\n--XyZ--", None, 400),
    (b"--XyZ\r\n\r\nx\r\n--XyZ--", None, 400),
    (b"--XyZjunk\r\n", None, 400),
    (b"--XyZ\r\n" + b"X: " + b"y" * 5000, None, 400),
    (form([("f", None, b"")] * 40), None, 400),
    (b"x", "text/plain", 415),
    (b"x", "multipart/form-data", 415),
    (b"x", "multipart/form-data; boundary=" + "b" * 71, 415),
    (b"x", 'multipart/form-data; boundary="', 415),
])
def test_malformed_forms(server, tenant, body, headers, status):
    _, key = tenant
    sent = {"Content-Type": headers or "multipart/form-data; boundary=XyZ"}
    answer = server.request("POST", "/v1/files", body, key=key, headers=sent)
    assert answer.status == status, answer
    assert answer.json()["error"]["message"]
    assert server.alive()


def test_too_large(make_server):
    server = make_server(max_upload="20K")
    key = server.make_tenant("acme")
    answer = upload(server, key, ROWS * 200)
    assert answer.status == 413 and "max_upload" in answer.text, answer


def test_tenants_are_blind_to_each_other(server, tenant):
    _, key = tenant
    other = server.make_tenant("blind")
    file = upload(server, key).json()["id"]
    missing = server.get("/v1/files/file-000000000000000000000000", key=other)
    for answer in (server.get("/v1/files/" + file, key=other),
                   server.get(f"/v1/files/{file}/content", key=other),
                   server.delete("/v1/files/" + file, key=other)):
        assert answer.status == 404
        assert answer.json()["error"]["code"] == missing.json()["error"]["code"]
    assert server.get("/v1/files", key=other).json()["data"] == []
    assert server.get("/v1/files?after=" + file, key=other).status == 404
    assert server.get("/v1/files/" + file, key=key).status == 200


def test_pages(server, tenant):
    _, key = tenant
    ids = [upload(server, key).json()["id"] for _ in range(5)]
    first = server.get("/v1/files?limit=2", key=key).json()
    assert [f["id"] for f in first["data"]] == ids[:-3:-1] and first["has_more"]
    assert first["last_id"] == ids[-2]
    rest = server.get(f"/v1/files?limit=5&after={first['last_id']}", key=key).json()
    assert [f["id"] for f in rest["data"]] == ids[2::-1] and not rest["has_more"]
    upward = server.get("/v1/files?order=asc&limit=1", key=key).json()
    assert upward["data"][0]["id"] == ids[0]
    assert server.get("/v1/files?limit=0", key=key).status == 422
    assert server.get("/v1/files?order=up", key=key).status == 422


def test_scopes(server, tenant):
    name, _ = tenant
    key = server.make_key(name, scopes=("predict",))
    assert upload(server, key).status == 403
    assert server.get("/v1/files", key=key).status == 403
