"""Drives Debian's Chromium against `mp2 serve`, with the harness of the HTTP tests.

    page        a fresh tab of a fresh profile; what the page logs as an error fails the test
    open_tab    a function: settings of the context (colour scheme, size, language) -> such a tab

The browser reaches the loopback only, and the driver downloads none of its own.
"""
import importlib.util
import os
import pathlib
import shutil

import pytest
from playwright.sync_api import sync_playwright

HERE = pathlib.Path(__file__).resolve()
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
        tab.on("dialog", lambda dialog: dialog.accept())
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
