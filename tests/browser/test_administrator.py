"""The one who administers: tenants, keys that are shown once, quotas, what was used."""
import re

from conftest import enter
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
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("requests a minute")).to_have_value("")
    tenant = server.get("/v1/admin/tenants/bounded").json()
    assert tenant["disabled"] and tenant["quotas"] == {}


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
