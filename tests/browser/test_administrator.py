"""The one who administers: tenants, keys that are shown once, quotas, what was used."""
import re

from conftest import enter, violations
from playwright.sync_api import expect


def test_tenant_and_key(page, server):
    enter(page, server.admin_key, "admin")
    page.get_by_label("Name of a new tenant").fill("from-browser")
    page.get_by_role("button", name="Make a tenant").click()
    expect(page.get_by_text("No keys yet")).to_be_visible()
    page.get_by_label("Label").fill("till <b>June</b>")
    page.get_by_label("Expires after days").fill("30")
    page.get_by_label("read").uncheck()
    page.get_by_role("button", name="Make a key").click()
    key = page.locator("pre").inner_text()
    me = server.get("/v1/me", key=key).json()
    assert me["tenant"]["name"] == "from-browser" and me["key"]["scopes"] == ["predict", "adapt"]
    expect(page.get_by_role("cell", name="till <b>June</b>")).to_be_visible()
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("link", name="from-browser").click()
    expect(page.get_by_role("button", name=re.compile("^Revoke key_"))).to_be_visible()
    assert key not in page.content()  # shown once
    page.get_by_role("button", name=re.compile("^Revoke key_")).click()
    page.get_by_role("dialog").get_by_role("button", name="No, leave it").click()
    assert server.get("/v1/me", key=key).status == 200
    page.get_by_role("button", name=re.compile("^Revoke key_")).click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.locator(".badge", has_text="Revoked")).to_be_visible()
    assert server.get("/v1/me", key=key).status == 401


def test_quotas(page, server):
    key = server.make_tenant("bounded")
    enter(page, server.admin_key, "admin/tenant/bounded")
    page.get_by_label("requests a minute").fill("50")
    page.get_by_label("Weight").fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#notice")).to_have_text("Saved.")
    expect(page.get_by_label("requests a minute")).to_have_value("50")
    quotas = server.get("/v1/me", key=key).json()
    assert quotas["quotas"]["requests_per_minute"]["limit"] == 50 and quotas["tenant"]["weight"] == 2
    page.get_by_label("requests a minute").fill("")
    page.get_by_label("enabled").uncheck()
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("requests a minute")).to_have_value("")
    tenant = server.get("/v1/admin/tenants/bounded").json()
    assert tenant["disabled"] and tenant["quotas"] == {}


def test_usage_of_a_tenant(page, server):
    key = server.make_tenant("using")
    asked = {"type": "classification", "labels": ["好", "坏"], "inputs": ["一", "二", "三"]}
    assert server.post("/v1/predict", asked, key=key).status == 200
    enter(page, server.admin_key, "admin/tenant/using")
    used = page.locator("section.card", has=page.get_by_role("heading", name="Used"))
    expect(used.get_by_role("heading", name="Inputs: 3")).to_be_visible()
    page.get_by_text("Day by day").click()
    expect(page.get_by_role("region", name="Day by day").locator("tbody tr")).to_have_count(1)


def test_usage_page(page, server):
    server.post("/v1/admin/tenants", {"name": "user", "quotas": {"requests_per_minute": 500}})
    key = server.make_key("user", ["read"])
    enter(page, key, "usage")
    expect(page.locator(".bars", has_text="requests a minute").first).to_contain_text("/ 500")
    expect(page.locator("code", has_text="key_")).to_be_visible()


def test_one_refusal_is_shown(page, server):
    enter(page, server.admin_key, "admin")
    page.get_by_label("Name of a new tenant").fill("no/such name")
    page.get_by_role("button", name="Make a tenant").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("name")


def test_rotate_a_key(page, server):
    server.post("/v1/admin/tenants", {"name": "rotating"})
    old = server.make_key("rotating", ["read"], label="rotated")
    enter(page, server.admin_key, "admin/tenant/rotating")
    page.get_by_role("button", name=re.compile("^Rotate key_")).click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    new = page.locator("pre").inner_text()
    assert new != old
    for key in (old, new):
        assert server.get("/v1/me", key=key).json()["key"]["scopes"] == ["read"]
    expect(page.get_by_role("region", name="keys").locator("tbody tr")).to_have_count(2)
    page.reload()
    expect(page.get_by_role("region", name="keys").locator("tbody tr")).to_have_count(2)
    assert new not in page.content()


def test_edit_a_key(page, server):
    server.post("/v1/admin/tenants", {"name": "edited"})
    key = server.make_key("edited", ["read"], label="before")
    enter(page, server.admin_key, "admin/tenant/edited")
    page.get_by_role("button", name=re.compile("^Edit key_")).click()
    form = page.locator(".well form")
    expect(form.get_by_label("Label")).to_be_focused()
    assert violations(page) == []
    form.get_by_label("Label").fill("after")
    form.get_by_label("requests a minute").fill("70")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="keys")).to_contain_text("after")
    expect(page.locator(".well form")).to_have_count(0)
    assert server.get("/v1/admin/tenants/edited/keys").json()["data"][0]["label"] == "after"
    me = server.get("/v1/me", key=key).json()["key"]
    assert me["quotas"]["requests_per_minute"]["limit"] == 70


def test_audit_log(page, server):
    """What was done is told, newest first, a page at a time; texts of others are shown as texts."""
    server.post("/v1/admin/tenants", {"name": "audited"})
    for i in range(52):
        server.make_key("audited", ["read"], label=f"<b>{i}</b>")
    enter(page, server.admin_key, "admin/audit")
    rows = page.get_by_role("region", name="Audit log").locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("key.create")
    expect(rows.first).to_contain_text("<b>51</b>")
    page.get_by_role("button", name="More").click()
    expect(rows.nth(52)).to_contain_text("tenant.create")
    expect(rows.nth(52)).to_contain_text("audited")


def test_backup(open_tab, make_server, tmp_path, server):
    tab = open_tab(server)
    enter(tab, server.admin_key, "admin/backup")
    tab.get_by_role("button", name="Back up now").click()
    expect(tab.locator("main").get_by_role("alert")).to_contain_text("backup_dir")  # not set here
    keeping = make_server(backup_dir=str(tmp_path))
    tab = open_tab(keeping)
    enter(tab, keeping.admin_key, "admin")
    tab.get_by_role("link", name="Backup").click()
    tab.get_by_label("Name of the file").fill("from-browser.db")
    tab.get_by_role("button", name="Back up now").click()
    expect(tab.get_by_text("The backup is made.")).to_be_visible()
    assert (tmp_path / "from-browser.db").stat().st_size > 0
