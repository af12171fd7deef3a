"""The one with thirty examples: from the file to a published task and a prediction."""
import re

import pytest
from conftest import HOSTILE, REVIEWS, enter, start_job, violations, wait_for_job
from playwright.sync_api import expect

SLOW_STEPS = 3000


def test_thirty_examples(page, server, tenant):
    """Drop a file, see it checked, see the cost, start, watch, publish, ask beside the previous version."""
    _, key = tenant
    server.post("/v1/tasks", {"name": "reviews", "type": "classification", "labels": ["甲", "乙"]}, key=key)
    enter(page, key, "teach")
    data = page.evaluate_handle("text => { const data = new DataTransfer();"
                                " data.items.add(new File([text], 'reviews.jsonl')); return data; }",
                                REVIEWS.read_text(encoding="utf-8"))
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": data})
    expect(page.get_by_label("Paste rows")).to_have_value(re.compile("甲"))
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator(".checked")).to_contain_text("40 rows are good")
    expect(page.locator(".rows tbody tr")).to_have_count(40)
    expect(page.locator(".bars .what")).to_have_text(["甲", "乙"])
    page.get_by_label("Name of the task").fill("reviews")
    page.get_by_label("Method").select_option("route")
    page.get_by_text("More settings").click()
    page.get_by_label("Steps (or").fill("20")
    cost = page.locator(".well")
    expect(cost).to_contain_text(re.compile(r"About [0-9.]+ (s|min)"))
    expect(cost).to_contain_text("Steps20")  # asked again for the new number
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("ftjob-")
    expect(page.locator("main .badge", has_text="succeeded")).to_be_visible(timeout=120000)
    for heading in ("Loss", "accuracy", "Result", "Publication", "Confusion matrix", "Wrong rows"):
        expect(page.get_by_role("heading", level=2, name=heading, exact=True)).to_be_visible()
    cells = page.get_by_role("region", name="Confusion matrix").locator("td.cell")
    assert sum(int(cell) for cell in cells.all_inner_texts()) == 20  # the half that was held back
    expect(page.get_by_text("Callers get version 2 of")).to_be_visible()
    page.get_by_label("Text").fill("菜很好吃，下次还来。")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer h3")).to_have_text(["reviews · version 2", "reviews · version 1", "Zero-shot"])
    expect(page.locator(".answer .winner").first).to_have_text(re.compile("^(甲|乙)$"))
    page.get_by_role("button", name="Back to version 1").click()
    expect(page.get_by_text("not published")).to_be_visible()
    assert server.get("/v1/tasks/reviews", key=key).json()["current"] == 1
    page.get_by_role("button", name="Publish version 2").click()
    expect(page.get_by_text("Callers get version 2 of")).to_be_visible()
    assert server.get("/v1/tasks/reviews", key=key).json()["current"] == 2


def test_look_first(page, server, tenant):
    """Not published when done: callers get zero-shot answers until its owner has looked and says so."""
    _, key = tenant
    enter(page, key, "teach")
    page.get_by_label("Paste rows").fill(REVIEWS.read_text(encoding="utf-8"))
    page.get_by_role("button", name="Upload and check").click()
    page.get_by_label("Name of the task").fill("looked-at")
    page.get_by_label("Publish when done").uncheck()
    page.get_by_text("More settings").click()
    page.get_by_label("Steps (or").fill("3")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_text("not published", exact=True)).to_be_visible(timeout=120000)
    assert server.get("/v1/tasks/looked-at", key=key).json()["current"] == 1
    page.get_by_label("Text").fill("菜很好吃，下次还来。")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer h3")).to_have_text(["looked-at · version 2", "looked-at · version 1", "Zero-shot"])
    winners = page.locator(".answer .winner").all_inner_texts()
    assert winners[1] == winners[2]  # what callers get is zero-shot
    page.get_by_role("button", name="Publish version 2").click()
    expect(page.get_by_text("Callers get version 2 of")).to_be_visible()
    assert server.get("/v1/tasks/looked-at", key=key).json()["current"] == 2


def test_beside_what_callers_get(page, server, tenant):
    """A version held back is tried beside the one that callers get, which need not be the one before it."""
    _, key = tenant
    for publish in (True, False, False):
        job = start_job(server, key, "thrice", steps=3, publish=publish)
        assert wait_for_job(server, key, job) == "succeeded"
    enter(page, key, f"job/{job}")
    expect(page.get_by_text("This is version 3; callers get version 1 of")).to_be_visible()
    page.get_by_label("Text").fill("菜很好吃，下次还来。")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer h3")).to_have_text(["thrice · version 3", "thrice · version 1", "Zero-shot"])
    page.get_by_role("button", name="Publish version 3").click()
    expect(page.get_by_role("button", name="Back to version 2")).to_be_visible()
    assert server.get("/v1/tasks/thrice", key=key).json()["current"] == 3


def test_spans_are_judged_by_f1(page, server, tenant):
    _, key = tenant
    rows = "".join(f'{{"context":"我把{thing}放在{place}了。","question":"{thing}在哪里？","answer":"{place}"}}\n'
                   for thing, place in zip("笔书伞帽钟灯碗刀", ["桌上", "床头", "门后", "柜子里"] * 2))
    job = start_job(server, key, "where", rows=rows.encode(), type="extractive", eval_every=5)
    assert wait_for_job(server, key, job) == "succeeded"
    enter(page, key, f"job/{job}")
    expect(page.get_by_role("heading", level=2, name="F1", exact=True)).to_be_visible()
    expect(page.get_by_role("group", name=re.compile("^F1: validation F1 "))).to_be_visible()
    expect(page.get_by_role("heading", level=2, name="accuracy", exact=True)).to_have_count(0)


@pytest.mark.parametrize("width", [1100, 360])
def test_curves_of_folds(open_tab, server, tenant, width):
    """Few rows are cross-validated: every fold has a line of its own, named above it and in words."""
    _, key = tenant
    rows = REVIEWS.read_text(encoding="utf-8").splitlines()[:12]
    job = start_job(server, key, f"few-{width}", steps=12, rows="\n".join(rows).encode(), eval_every=2)
    assert wait_for_job(server, key, job) == "succeeded"
    events = server.get(f"/v1/fine_tuning/jobs/{job}/events?limit=100", key=key).json()["data"]
    folds = next(event["data"]["folds"] for event in events if event["type"] == "metrics")
    assert folds > 1
    tab = open_tab(server, viewport={"width": width, "height": 800})
    enter(tab, key, f"job/{job}")
    figure = tab.get_by_role("group", name=re.compile("^Loss: "))
    expect(figure.locator(".curve.two")).to_have_count(folds)  # nothing is left out of the last run
    expect(figure.locator(".break")).to_have_count(folds)
    expect(figure.locator(".legend")).to_contain_text(f"From the start {folds} times")
    names = figure.locator(".plot text").all_text_contents()
    assert ("fold 1" in names and "∗ all rows" in names) == (width == 1100)
    assert ("1" in names and "∗" in names) == (width == 360)  # no room for words
    said = figure.get_attribute("aria-label")
    assert f"From the start {folds} times" in said
    assert violations(tab) == []
    assert len(re.search("validation loss ([0-9. ]+)", said)[1].strip(". ").split()) == folds
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_bad_rows_are_told(page, tenant):
    enter(page, tenant[1], "teach")
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("Choose a file or paste rows")
    page.get_by_label("Paste rows").fill('{"text": "好", "label": "a"}\n{"text": "坏"}\nno\n'
                                         '{"text": "%s"}' % HOSTILE.replace('"', '\\"'))
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator(".checked")).to_contain_text("1 rows are good")
    expect(page.locator(".checked")).to_contain_text("3 rows are not used")
    rows = page.locator(".rows tbody tr")
    expect(rows).to_have_count(3)  # only the problems, at first
    expect(rows.nth(0)).to_contain_text("2not used坏/label: label is missing")
    expect(rows.nth(2)).to_contain_text(HOSTILE)
    page.get_by_label("Show").select_option("all")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("1good好a")
    assert page.locator("main img").count() == 0


def test_no_good_row_at_all(page, tenant):
    enter(page, tenant[1], "teach")
    page.get_by_label("Paste rows").fill('{"text": "好"}\n')
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("no good row")
    expect(page.locator(".rows tbody tr")).to_contain_text("label is missing")
    assert page.get_by_role("button", name="Start the job").count() == 0


def test_csv_with_line_breaks(page, tenant):
    enter(page, tenant[1], "teach")
    page.get_by_label("Paste rows").fill('text,label\n"一行,\n两行",甲\n"说""好""",乙\n空,\n')
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator(".checked")).to_contain_text("2 rows are good")
    expect(page.locator(".rows tbody tr")).to_contain_text("5not used空/label: label is empty")
    page.get_by_label("Show").select_option("all")
    expect(page.locator(".rows tbody tr").nth(0)).to_contain_text("一行, 两行甲")
    expect(page.locator(".rows tbody tr").nth(1)).to_contain_text('说"好"乙')


def test_pause_and_resume(page, server, tenant):
    _, key = tenant
    job = start_job(server, key, "paused", steps=SLOW_STEPS)
    enter(page, key, f"job/{job}")
    expect(page.locator(".plot svg").first).to_be_visible(timeout=30000)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("main .badge", has_text="paused")).to_be_visible(timeout=30000)
    assert server.get(f"/v1/fine_tuning/jobs/{job}", key=key).json()["status"] == "paused"
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("main .badge", has_text="running")).to_be_visible(timeout=30000)
    expect(page.get_by_role("cell", name=re.compile("^Job resumed"))).to_be_visible(timeout=30000)
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", {}, key=key)
    expect(page.locator("main .badge", has_text="cancelled")).to_be_visible(timeout=30000)


def test_a_job_that_cannot_be_is_told_before_it_starts(page, server, tenant):
    _, key = tenant
    server.post("/v1/tasks", {"name": "other", "type": "classification", "labels": ["x", "y"]}, key=key)
    enter(page, key, "teach/other")
    page.get_by_role("button", name="Use sample rows").click()
    page.get_by_role("button", name="Upload and check").click()
    expect(page.get_by_label("Name of the task")).to_have_value("other")
    expect(page.locator("form").get_by_role("alert")).to_contain_text("label")  # other labels than the task's


def test_cancel(page, server, tenant):
    _, key = tenant
    job = start_job(server, key, "cancelled", steps=SLOW_STEPS)
    enter(page, key, f"job/{job}")
    expect(page.locator(".plot svg").first).to_be_visible(timeout=30000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("main .badge", has_text="cancelled")).to_be_visible(timeout=30000)
    assert page.get_by_role("button", name="Cancel").count() == 0
    assert server.get(f"/v1/fine_tuning/jobs/{job}", key=key).json()["status"] == "cancelled"


def test_stream_resumes_after_a_restart(open_tab, fresh_server):
    """The events come as one stream; when the server is restarted it goes on after the last one seen."""
    server = fresh_server
    key = server.make_tenant("teacher")
    job = start_job(server, key, "long", steps=SLOW_STEPS)
    tab = open_tab(server)
    streams = []
    tab.on("request", lambda request: streams.append(request.headers) if "/events" in request.url else None)
    enter(tab, key, f"job/{job}")
    expect(tab.locator(".plot svg").first).to_be_visible(timeout=30000)
    assert len(streams) == 1 and streams[0]["accept"] == "text/event-stream"
    assert server.stop() == 0
    expect(tab.locator("#banner")).to_contain_text("cannot be reached")
    server.start()
    wait_for_job(server, key, job, "running")
    expect(tab.locator("#banner")).to_be_empty()
    tab.wait_for_function("() => [...document.querySelectorAll('main tbody td')]"
                          ".filter(cell => /^Job started/.test(cell.textContent)).length > 1", timeout=60000)
    resumed = [headers["last-event-id"] for headers in streams if "last-event-id" in headers]
    assert resumed and all(int(one) > 0 for one in resumed)
    server.post(f"/v1/fine_tuning/jobs/{job}/cancel", {}, key=key)
    expect(tab.locator("main .badge", has_text="cancelled")).to_be_visible(timeout=60000)
    shown = tab.get_by_role("table", name="Events").locator("tbody tr td:last-child").all_inner_texts()
    known, after = [], ""
    while True:
        page = server.get(f"/v1/fine_tuning/jobs/{job}/events?limit=100{after}", key=key).json()
        known += [event["message"] for event in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert shown == known[:len(shown)]  # each once, in order
