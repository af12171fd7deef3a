"""The one who owns tasks: ten thousand in the list, a task's page, versions, what can be undone."""
import concurrent.futures
import http.client
import json
import math
import pathlib

import pytest
from conftest import HOSTILE, REVIEWS, enter, start_job, violations, wait_for_job
from playwright.sync_api import expect

ROUTE = [3, -3, 0, 0, 1, 1, 1, 1]
MANY = 10000
DEEP = REVIEWS.parents[2] / "tests/models/boot-deep"


def fill_registry(server, key, names):
    """One connection makes all of them."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for name in names:
        kind = "pair" if name.endswith("7") else "classification"
        connection.request("POST", "/v1/tasks", json.dumps({"name": name, "type": kind, "labels": ["a", "b"]}), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()


def test_ten_thousand_tasks(page, server, tenant):
    _, key = tenant
    names = [f"t{i:05}" for i in range(MANY)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda part: fill_registry(server, key, part), [names[i::16] for i in range(16)]))
    enter(page, key, "tasks")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("t00000")
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("t00050")
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("t00100")
    page.get_by_role("button", name="Previous").click()
    expect(rows.first).to_contain_text("t00050")
    page.get_by_label("Order").select_option("-name")
    expect(rows.first).to_contain_text("t09999")
    page.get_by_label("a page").select_option("25")
    expect(rows).to_have_count(25)
    page.get_by_label("Search").fill("t0123")
    expect(rows).to_have_count(10)
    page.get_by_label("Type").first.select_option("pair")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("t01237")
    page.get_by_role("link", name="t01237").click()
    expect(page.get_by_role("heading", level=1, name="t01237")).to_be_visible()
    page.go_back()  # the search is where it was left
    expect(rows).to_have_count(1)
    expect(page.get_by_label("Search")).to_have_value("t0123")
    page.get_by_label("Search").fill("nothing like it")
    expect(page.get_by_text("No task found")).to_be_visible()


@pytest.fixture
def two_versions(server, tenant):
    _, key = tenant
    server.post("/v1/tasks", {"name": "two", "type": "classification", "labels": ["好", "坏"]}, key=key)
    second = server.post("/v1/tasks/two/versions", {"route": ROUTE}, key=key)
    assert second.status == 201, second
    return key


def route_of(page):
    return page.get_by_role("img", name="Route two").get_attribute("aria-label")


def test_roll_back_export_import(page, server, two_versions):
    key = two_versions
    enter(page, key, "task/two")
    assert "0.95 0.05 0.50 0.50 0.73" in route_of(page)
    assert page.locator(".routes.mine rect.column").count() == 8
    with page.expect_download() as download:
        page.get_by_role("button", name="Export 2").click()
    path = pathlib.Path(download.value.path())
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == 2
    page.get_by_role("button", name="Make current 1").click()
    expect(page.get_by_role("button", name="Make current 2")).to_be_visible()
    assert "0.50 0.50 0.50" in route_of(page)
    assert server.get("/v1/tasks/two", key=key).json()["current"] == 1
    page.get_by_label("Import a version").set_input_files(path)
    expect(page.get_by_role("button", name="Make current 3")).to_be_visible()
    page.goto("/#/tasks")
    page.get_by_text("New task without examples").click()
    page.get_by_label("Name", exact=True).fill("copy")
    page.get_by_label("Import an export").set_input_files(path)
    expect(page.get_by_role("heading", level=1, name="copy")).to_be_visible()
    copied = server.get("/v1/tasks/copy/versions/2", key=key).json()
    assert copied["route"] == ROUTE and copied["current"]
    page.get_by_label("Import a version").set_input_files(REVIEWS)  # not an export
    expect(page.locator("#notice")).to_contain_text("not an exported version")


def test_new_task_and_edit(page, server, tenant):
    _, key = tenant
    enter(page, key, "tasks")
    page.get_by_text("New task without examples").click()
    page.get_by_label("Name", exact=True).fill("fresh")
    page.get_by_label("Labels").fill("好，坏、一般")
    page.get_by_role("button", name="Make the task").click()
    expect(page.get_by_role("heading", level=1, name="fresh")).to_be_visible()
    assert server.get("/v1/tasks/fresh", key=key).json()["labels"] == ["好", "坏", "一般"]
    page.get_by_text("Edit", exact=True).click()
    page.get_by_label("Name", exact=True).fill("renamed")
    page.get_by_label("Description").fill("what it is for")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1, name="renamed")).to_be_visible()
    expect(page.get_by_text("what it is for").first).to_be_visible()


def test_route_beside_the_nearest(page, server, tenant):
    _, key = tenant
    for name, route in (("two", ROUTE), ("near", [3, -3, 0, 0, 1, 1, 1, 0.9]), ("far", [-9] * 8)):
        body = {"name": name, "type": "classification", "labels": ["好", "坏"], "route": route}
        assert server.post("/v1/tasks", body, key=key).status == 201
    enter(page, key, "task/two")
    near = page.locator(".routes:not(.mine) figure").first
    expect(near).to_contain_text("near")
    assert near.locator("rect.column").count() == 8
    assert page.locator(".routes:not(.mine) figure", has_text="far").count() == 0
    expect(page.locator(".routes:not(.mine) figure", has_text="of the bank").first).to_be_visible()
    near.get_by_role("link", name="near").click()
    expect(page.get_by_role("heading", level=1, name="near")).to_be_visible()


@pytest.mark.parametrize("settings", [{}, {"viewport": {"width": 360, "height": 700}, "color_scheme": "dark"}])
def test_deep_bank(open_tab, make_server, settings):
    """A task of a deep bank has a heat map, a row a layer; so have its neighbours; words say the same."""
    server = make_server(model=str(DEEP))
    key = server.make_tenant("deep")
    route = [(i % 5) - 2 for i in range(24)]
    for name, numbers in (("mine", route), ("alike", route[:-1] + [0])):
        body = {"name": name, "type": "classification", "labels": ["好", "坏"], "route": numbers}
        made = server.post("/v1/tasks", body, key=key)
        assert made.status == 201, made
    tab = open_tab(server, **settings)
    enter(tab, key, "task/mine")
    heat = tab.locator(".routes.mine .heat")
    cells = heat.locator("span")
    expect(cells).to_have_count(24)
    weights = [1 / (1 + math.exp(-r)) for r in route]
    titles = [cell.get_attribute("title") for cell in cells.all()]
    assert titles == [f"layer {i // 8 + 1}, module {i % 8 + 1}: {w:.3f}" for i, w in enumerate(weights)]
    shown = cells.evaluate_all("cells => cells.map(cell => Number(getComputedStyle(cell).opacity))")
    assert shown == pytest.approx([0.08 + 0.92 * w for w in weights], abs=1e-3)
    tops = cells.evaluate_all("cells => cells.map(cell => cell.offsetTop)")
    assert len(set(tops)) == 3 and all(len(set(tops[i:i + 8])) == 1 for i in (0, 8, 16))
    assert min(cells.evaluate_all("cells => cells.map(cell => cell.offsetWidth)")) > 8
    said = heat.get_attribute("aria-label")
    assert said.startswith("Route mine: layer 1: 0.12 0.27 0.50 ") and "layer 3: 0.27" in said
    expect(tab.locator(".routes.mine")).to_contain_text("A row a layer")
    near = tab.locator(".routes:not(.mine) figure", has_text="alike")
    expect(near.locator(".heat span")).to_have_count(24)
    assert tab.locator(".routes rect").count() == 0
    assert violations(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_who_asks(page, server, tenant):
    name, key = tenant
    assert server.post("/v1/tasks", {"name": "asked", "type": "classification", "labels": ["好", "坏"]}, key=key).status == 201
    other = server.make_key(name, ["predict"])
    for caller, times in ((key, 2), (other, 3)):
        for _ in range(times):
            assert server.post("/v1/predict", {"task": "asked", "inputs": ["一", "二"]}, key=caller).status == 200
    enter(page, key, "task/asked")
    rows = page.get_by_role("region", name="Who asked it in 30 days").locator("tbody tr")
    expect(rows).to_have_count(2)
    mine = rows.filter(has_text=server.get("/v1/me", key=key).json()["key"]["id"])
    expect(mine.locator("td.num").nth(0)).to_have_text("2")
    expect(mine.locator("td.num").nth(1)).to_have_text("4")


def test_evaluate(page, server, two_versions):
    enter(page, two_versions, "task/two")
    rows = [{"text": text, "label": label} for text, label in (("菜很好吃", "好"), ("等了很久", "坏"), (HOSTILE, "坏"))]
    page.get_by_label("Choose a file").set_input_files({"name": "rows.jsonl", "mimeType": "text/plain",
        "buffer": "\n".join(json.dumps(row) for row in rows).encode()})
    matrix = page.get_by_role("region", name="Confusion matrix")
    expect(matrix.get_by_role("row")).to_have_count(3)
    expect(matrix.get_by_role("columnheader")).to_have_text(["好", "坏"])
    assert sum(int(cell) for cell in matrix.locator("td.cell").all_inner_texts()) == 3
    wrong = sum(int(cell) for cell in matrix.locator("td.miss").all_inner_texts())
    expect(page.get_by_role("region", name="Wrong rows").locator("tbody tr")).to_have_count(wrong)
    assert page.locator("main img").count() == 0
    page.get_by_label("Choose a file").set_input_files({"name": "rows.csv", "mimeType": "text/plain",
        "buffer": "text,label\n好,未知\n".encode()})
    expect(page.locator("main").get_by_role("alert")).to_contain_text("未知")


def test_delete_asks_first(page, server, two_versions):
    enter(page, two_versions, "task/two")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="No, leave it").click()
    assert server.get("/v1/tasks/two", key=two_versions).status == 200
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1, name="Tasks")).to_be_visible()
    assert server.get("/v1/tasks/two", key=two_versions).status == 404
    page.get_by_text("Deleted tasks (1)").click()  # and can be undone
    page.get_by_role("button", name="Restore two").click()
    expect(page.get_by_role("link", name="two")).to_be_visible()
    expect(page.get_by_text("Deleted tasks")).to_have_count(0)
    assert server.get("/v1/tasks/two", key=two_versions).json()["current"] == 2


def test_a_reader_changes_nothing(page, server, tenant):
    name, key = tenant
    server.post("/v1/tasks", {"name": "seen", "type": "classification", "labels": ["好", "坏"]}, key=key)
    enter(page, server.make_key(name, ["read"]), "task/seen")
    expect(page.get_by_role("heading", name="Versions")).to_be_visible()
    for button in ("Delete", "Predict", "Save"):
        assert page.get_by_role("button", name=button).count() == 0
    assert page.get_by_label("Import a version").count() == 0


def test_scores_and_jobs_of_a_task(page, server, tenant):
    _, key = tenant
    job = start_job(server, key, "scored")
    assert wait_for_job(server, key, job) == "succeeded"
    enter(page, key, "task/scored")
    row = page.get_by_role("region", name="Versions").locator("tbody tr").first
    expect(row).to_contain_text("accuracy")
    expect(page.get_by_role("link", name=job)).to_be_visible()
    row.get_by_role("link", name="Job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(job)
