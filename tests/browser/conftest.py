"""Drives Debian's Chromium against `mp2 serve`, with the harness of the HTTP tests.

    page        a fresh tab of a fresh profile; what the page logs as an error fails the test
    open_tab    a function: settings of the context (colour scheme, size, language) -> such a tab

The browser reaches the loopback only, and the driver downloads none of its own.
"""
import importlib.resources
import importlib.util
import os
import pathlib
import shutil
import time

import pytest
from playwright.sync_api import sync_playwright

HERE = pathlib.Path(__file__).resolve()
REVIEWS = HERE.parents[2] / "conf/examples/reviews.jsonl"
AXE = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
HOSTILE = "<img src=x onerror=document.title='owned'>"
_spec = importlib.util.spec_from_file_location("http_harness", HERE.parents[1] / "http" / "conftest.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

deadline = harness.deadline
make_server = harness.make_server
fresh_server = harness.fresh_server
server = harness.server
tenant = harness.tenant

CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or "/usr/bin/chromium")
ARGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-extensions", "--no-first-run", "--disable-dev-shm-usage", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGS,
                                      chromium_sandbox=os.getuid() != 0)
        yield made
        made.close()


@pytest.fixture
def open_tab(browser):
    contexts, faults, strangers = [], [], []

    def note(message):
        # A refused call is logged by the browser itself, and is for the page to explain.
        if message.type == "error" and "Failed to load resource" not in message.text:
            faults.append(message.text)

    def make(server, **settings):
        context = browser.new_context(base_url=server.url, locale=settings.pop("locale", "en-GB"), **settings)
        context.set_default_timeout(20000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", note)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("request", lambda request: strangers.append(request.url)
               if not request.url.startswith((server.url + "/", "blob:")) else None)
        return tab

    yield make
    for context in contexts:
        context.close()
    assert faults == []
    assert strangers == []


@pytest.fixture
def page(open_tab, server):
    return open_tab(server)


def sign_in(tab, key):
    tab.goto("/")
    tab.get_by_label("Key").fill(key)
    tab.get_by_role("button", name="Sign in").click()
    tab.get_by_role("heading", level=1, name="Overview").wait_for()


def enter(tab, key, place="overview"):
    """Signed in without the form, on the page of `place`."""
    tab.goto("/static/icon.svg")
    tab.evaluate("key => sessionStorage.setItem('mp2.key', key)", key)
    tab.goto(f"/#/{place}")
    tab.locator("main h1").wait_for()


def violations(tab):
    """What axe finds against the page as it is."""
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
                         ".map(v => [v.id, v.nodes.map(n => n.target.join(' ') + ': ' + n.failureSummary)])")
    return [f"{tab.url}: {one}" for one in found]


def upload(server, key, rows, name="rows.jsonl"):
    """The id of a new file of these rows (bytes)."""
    body = (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
            b'Content-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n'
            + rows + b"\r\n--x--\r\n")
    made = server.post("/v1/files", body, key=key,
                       headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert made.status == 200, made
    return made.json()["id"]


def start_job(server, key, task, steps=20, rows=None, **mp2):
    """The id of a new job on the example's rows, or these."""
    file = upload(server, key, rows or REVIEWS.read_bytes())
    made = server.post("/v1/fine_tuning/jobs", key=key, body={
        "model": "boot", "training_file": file, "seed": 8,
        "mp2": {"task": task, "method": "route", "budget": {"steps": steps}, **mp2}})
    assert made.status == 200, made
    return made.json()["id"]


def wait_for_job(server, key, job, *states):
    end = time.monotonic() + harness.TEST_SECONDS / 2
    while time.monotonic() < end:
        state = server.get(f"/v1/fine_tuning/jobs/{job}", key=key).json()["status"]
        if state in (states or ("succeeded", "failed", "cancelled")):
            return state
        time.sleep(0.1)
    raise AssertionError(f"job {job} is still {state}")
