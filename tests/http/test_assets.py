"""The dashboard's files: served from memory, by name, with strict headers; and rules of their text."""
import pathlib
import re

import pytest

STATIC = pathlib.Path(__file__).resolve().parents[2] / "static"
FILES = sorted(path.name for path in STATIC.iterdir())
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
MAX_BYTES = 150_000


def sources(*kinds):
    return [(path.name, path.read_text(encoding="utf-8")) for path in sorted(STATIC.iterdir())
            if path.suffix in kinds]


def test_page(server):
    answer = server.get("/", key=None)
    assert answer.status == 200 and answer.body == (STATIC / "index.html").read_bytes()
    assert answer.headers["Content-Type"] == TYPES[".html"]
    assert answer.headers.get_all("Content-Security-Policy") == [POLICY]


@pytest.mark.parametrize("name", FILES)
def test_every_file(server, name):
    answer = server.get(f"/static/{name}", key=None)
    assert answer.status == 200 and answer.body == (STATIC / name).read_bytes()
    assert answer.headers["Content-Type"] == TYPES[pathlib.Path(name).suffix]
    assert answer.headers.get_all("Content-Security-Policy") == [POLICY]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers.get_all("Cache-Control") == ["no-cache"]


def test_etag(server):
    tags = set()
    for name in FILES:
        first = server.get(f"/static/{name}", key=None)
        tag = first.headers["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
        tags.add(tag)
        for sent in (tag, f"W/{tag}", f'"x", {tag}', f'W/"x",{tag} , "y"', "*", f" {tag} "):
            again = server.get(f"/static/{name}", key=None, headers={"If-None-Match": sent})
            assert again.status == 304 and again.body == b"" and again.headers["ETag"] == tag, sent
        for sent in ('"x"', tag[1:-1], tag[:-2] + '"', f"{tag}x", f"x{tag}", "**", ""):
            again = server.get(f"/static/{name}", key=None, headers={"If-None-Match": sent})
            assert again.status == 200 and again.body == first.body, sent
    assert len(tags) == len(FILES)
    page = server.get("/", key=None)
    assert server.get("/", key=None, headers={"If-None-Match": page.headers["ETag"]}).status == 304


@pytest.mark.parametrize("path", [
    "/static/nothing.js", "/static/", "/static", "/static/app.js/", "/static/App.js", "/app.js",
    "/static/..%2Fserver%2Fmain.c", "/static/..%2f..%2fetc%2fpasswd", "/static/%2Fetc%2Fpasswd",
    "/static/app.js%20", "/static/x/app.js"])
def test_not_there(server, path):
    answer = server.get(path, key=None)
    assert answer.status == 404 and answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/static/../CMakeLists.txt", "/static/./app.js", "/static/app.js%00"])
def test_refused(server, path):
    assert server.get(path, key=None).status == 400


def test_only_reading(server):
    for path in ("/", "/static/app.js"):
        answer = server.post(path, {}, key=None)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_other_answers_stay_uncached(server):
    assert server.get("/healthz", key=None).headers.get_all("Cache-Control") == ["no-store"]


def test_size():
    total = sum((STATIC / name).stat().st_size for name in FILES)
    assert 0 < total < MAX_BYTES, f"{total} bytes"


def test_data_is_never_markup():
    for name, text in sources(".js"):
        for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                       "new Function", "DOMParser", "createContextualFragment", "srcdoc", "localStorage"):
            assert banned not in text, f"{name}: {banned}"
        assert not re.search(r"set(Timeout|Interval)\(\s*['\"`]", text), name


def test_nothing_inline_and_nothing_from_elsewhere():
    for name, text in sources(".html", ".css", ".js", ".svg"):
        text = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|['\"(]//\w", text), f"{name}: names another host"
    for name, text in sources(".html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", text), name


def test_every_word_is_in_the_table():
    table = (STATIC / "strings.js").read_text(encoding="utf-8")
    rows = re.findall(r"^  (?:'([^']+)'|(\w+)): \['((?:[^'\\]|\\.)+)', '((?:[^'\\]|\\.)+)'\],$", table, re.M)
    known = {quoted or plain for quoted, plain, _, _ in rows}
    assert len(rows) == len(known) > 100
    for name, text in sources(".js"):
        for word in re.findall(r"\bt\('([^']+)'[,)]", text):
            assert word in known, f"{name}: no word for {word}"


def test_modules_import_what_is_there_and_used():
    for name, text in sources(".js"):
        for names, target in re.findall(r"import \{([^}]*)\} from '\./([^']+)'", text):
            assert target in FILES, f"{name}: {target}"
            exporter = (STATIC / target).read_text(encoding="utf-8")
            for one in names.replace("\n", " ").split(","):
                one = one.strip()
                assert re.search(rf"^export (async )?(function|const|class) {one}\b", exporter, re.M), f"{name}: {one}"
                assert len(re.findall(rf"\b{one}\b", text)) > 1, f"{name}: {one} is not used"


def test_pictures_of_the_readme():
    """Each picture named is there, each one there is named, and together they stay small."""
    top = STATIC.parent
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (top / "README.md").read_text(encoding="utf-8"))
    there = sorted([*(top / "tests/browser/shots").iterdir(), *(top / "tests/results").glob("*.svg")])
    assert sorted(top / name for name in named) == there
    assert 0 < sum(path.stat().st_size for path in there) < 600_000
