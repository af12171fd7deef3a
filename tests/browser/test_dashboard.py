"""The dashboard in a real browser: what its visitors do, from their first key to a prediction."""
import pathlib
import re

import pytest
from conftest import sign_in
from playwright.sync_api import expect

TOP = pathlib.Path(__file__).resolve().parents[2]
REVIEWS = TOP / "conf/examples/reviews.jsonl"
HOSTILE = "<img src=x onerror=document.title='owned'>"


def test_wrong_key(page):
    page.goto("/")
    page.get_by_label("Key").fill("mp2_nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know the key")
    assert page.evaluate("sessionStorage.getItem('mp2.key')") is None


def test_the_key_stays_in_the_tab(page, server):
    sign_in(page, server.admin_key)
    page.reload()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    assert page.evaluate("localStorage.length") == 0 and page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('mp2.key')") is None


def test_overview(page, server):
    sign_in(page, server.admin_key)
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    expect(page.get_by_text("Tasks per batch")).to_be_visible()
    before = int(page.locator(".tile", has_text="Requests/s").locator(".more").inner_text().split()[0])
    page.wait_for_function(
        "n => parseInt(document.querySelectorAll('.tile .more')[1].textContent) > n", arg=before)


def test_thirty_examples(page, tenant):
    """Drop a file, see it checked, start the job, see it succeed, ask the new task."""
    _, key = tenant
    sign_in(page, key)
    page.get_by_role("link", name="Teach").click()
    page.get_by_label("A file").set_input_files(REVIEWS)
    expect(page.get_by_label("Or paste rows")).to_have_value(re.compile("甲"))
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator(".checked")).to_contain_text("40 rows are good")
    page.get_by_label("Name of the task").fill("reviews")
    page.get_by_label("Steps").fill("20")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("ftjob-")
    expect(page.locator("main strong.good")).to_have_text("succeeded", timeout=120000)
    expect(page.get_by_role("heading", name="Loss")).to_be_visible()
    page.get_by_label("Text").fill("菜很好吃，下次还来。")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .winner")).to_have_count(2)  # the task, and zero-shot beside it
    expect(page.locator(".answer .winner").first).to_have_text(re.compile("^(甲|乙)$"))
    page.locator("main").get_by_role("link", name="reviews").first.click()
    expect(page.get_by_role("heading", level=1, name="reviews")).to_be_visible()
    expect(page.locator(".bars .fill")).to_have_count(8)


def test_bad_rows_are_told(page, tenant):
    sign_in(page, tenant[1])
    page.goto("/#/teach")
    page.get_by_label("Or paste rows").fill('{"text": "好", "label": "a"}\n{"text": "坏"}\nno\n'
                                            '{"text": "%s"}' % HOSTILE.replace('"', '\\"'))
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator(".checked")).to_contain_text("1 rows are good, 3 rows are not used")
    expect(page.get_by_role("cell", name="label is missing").first).to_be_visible()


def test_hostile_name_and_text(page, server, tenant):
    _, key = tenant
    made = server.post("/v1/tasks", {"name": HOSTILE, "type": "classification", "labels": ["好", HOSTILE],
                                     "description": HOSTILE}, key=key)
    assert made.status == 201, made
    sign_in(page, key)
    page.get_by_role("link", name="Tasks").click()
    page.get_by_role("link", name=HOSTILE, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    page.get_by_label("Text").fill(HOSTILE)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .winner")).to_have_count(2)
    assert page.locator("main img, main script").count() == 0
    assert page.title() != "owned"


def test_roll_back_and_export(page, server, tenant):
    name, key = tenant
    server.post("/v1/tasks", {"name": "two", "type": "classification", "labels": ["好", "坏"]}, key=key)
    second = server.post("/v1/tasks/two/versions", {"route": [3, -3, 0, 0, 1, 1, 1, 1]}, key=key)
    assert second.status == 201, second
    sign_in(page, key)
    page.goto("/#/task/two")
    expect(page.locator(".bars .value").first).to_have_text("0.953")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export 2").click()
    assert '"version": 2' in pathlib.Path(download.value.path()).read_text(encoding="utf-8")
    page.get_by_role("button", name="Make current 1").click()
    expect(page.locator(".bars .value").first).to_have_text("0.500")
    assert server.get("/v1/tasks/two", key=key).json()["current"] == 1


@pytest.mark.parametrize("kind, fields", [
    ("classification", {"Labels": "好,坏", "Text": "很好"}),
    ("pair", {"Labels": "同,异", "First text": "很好", "Second text": "不坏"}),
    ("choice", {"Question": "谁来了？", "Context": "昨天王先生来了。", "Options": "王先生\n李先生"}),
    ("extractive", {"Question": "谁来了？", "Context": "😀昨天王先生来了。"})])
def test_playground(page, tenant, kind, fields):
    sign_in(page, tenant[1])
    page.goto("/#/play")
    page.get_by_label("What to ask").select_option(kind)
    for label, text in fields.items():
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .winner")).to_have_count(1)
    if kind == "extractive":
        assert page.locator("mark").inner_text() == page.locator(".winner").inner_text()
        assert page.locator(".context").inner_text() == fields["Context"]
    page.get_by_text("This request as code").click()
    expect(page.locator("pre").first).to_contain_text("/v1/predict")


def test_tenants_and_keys(page, server):
    sign_in(page, server.admin_key)
    page.get_by_role("link", name="Admin").click()
    page.get_by_label("Name of a new tenant").fill("from-browser")
    page.get_by_role("button", name="Make a tenant").click()
    page.get_by_role("button", name="Make a key").click()
    key = page.locator("pre").inner_text()
    assert server.get("/v1/me", key=key).json()["tenant"]["name"] == "from-browser"
    page.get_by_role("button", name=re.compile("^Revoke key_")).click()
    expect(page.get_by_role("cell", name=re.compile("^Revoked"))).to_be_visible()
    assert server.get("/v1/me", key=key).status == 401


def test_scopes_decide_what_is_shown(page, server):
    server.post("/v1/admin/tenants", {"name": "narrow"})
    sign_in(page, server.make_key("narrow", ["predict"]))
    expect(page.get_by_role("link", name="Playground")).to_be_visible()
    assert page.get_by_role("link", name="Teach").count() == 0
    assert page.get_by_role("link", name="Admin").count() == 0
    page.goto("/#/admin")
    expect(page.get_by_role("alert")).to_contain_text("does not have the scope")


def test_many_tasks(page, server, tenant):
    _, key = tenant
    for i in range(120):
        made = server.post("/v1/tasks", {"name": f"t{i:03}", "type": "classification", "labels": ["a", "b"]},
                           key=key)
        assert made.status == 201
    sign_in(page, key)
    page.get_by_role("link", name="Tasks").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("t050")
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Previous").click()
    expect(rows.first).to_contain_text("t050")
    page.get_by_label("Search by name").fill("t11")
    expect(rows).to_have_count(10)


def test_server_restarted_underneath(open_tab, fresh_server):
    tab = open_tab(fresh_server)
    sign_in(tab, fresh_server.admin_key)
    expect(tab.get_by_text("ready", exact=True)).to_be_visible()
    assert fresh_server.stop() == 0
    expect(tab.get_by_role("alert")).to_contain_text("cannot be reached")
    fresh_server.start()
    expect(tab.get_by_role("alert")).to_have_count(0)
    expect(tab.get_by_text("ready", exact=True)).to_be_visible()


def test_two_tenants_in_two_tabs(open_tab, server):
    tabs = []
    for name in ("left", "right"):
        key = server.make_tenant(name)
        server.post("/v1/tasks", {"name": f"of-{name}", "type": "classification", "labels": ["a", "b"]}, key=key)
        tab = open_tab(server)
        sign_in(tab, key)
        tab.get_by_role("link", name="Tasks").click()
        tabs.append(tab)
    expect(tabs[0].locator("tbody tr")).to_have_text(re.compile("of-left"))
    expect(tabs[1].locator("tbody tr")).to_have_text(re.compile("of-right"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_chinese(open_tab, server, tenant, scheme):
    """At 360 px nothing is wider than the screen, in Chinese, by day and by night."""
    tab = open_tab(server, locale="zh-CN", color_scheme=scheme, viewport={"width": 360, "height": 640})
    tab.goto("/")
    tab.get_by_label("密钥").fill(server.admin_key)
    tab.get_by_role("button", name="登录").click()
    tab.get_by_role("heading", level=1, name="总览").wait_for()
    assert tab.evaluate("document.documentElement.lang") == "zh"
    server.post("/v1/tasks", {"name": "a" * 60, "type": "classification", "labels": ["好", "坏"]})
    for place in ("overview", "tasks", "task/" + "a" * 60, "teach", "play", "admin"):
        tab.goto(f"/#/{place}")
        tab.wait_for_function("document.querySelector('main h1')")
        tab.wait_for_load_state("networkidle") if place != "overview" else tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, place


def test_keyboard_alone(page, server):
    """From the address bar to a prediction without a mouse."""
    page.goto("/")
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type(server.admin_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "Playground":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Playground")).to_be_focused()
    page.keyboard.press("Tab")  # what to ask
    page.keyboard.press("Tab")
    page.keyboard.type("good,bad")
    page.keyboard.press("Tab")  # the template
    page.keyboard.press("Tab")
    page.keyboard.type("fine")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .winner")).to_have_count(1)
