"""The one who tries it out: every kind of task, the request as code."""
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import enter
from playwright.sync_api import expect


@pytest.mark.parametrize("kind, fields", [
    ("classification", {"Labels": "好,坏", "Text": "很好"}),
    ("pair", {"Labels": "同,异", "First text": "很好", "Second text": "不坏"}),
    ("choice", {"Question": "谁来了？", "Context": "昨天王先生来了。", "Options": "王先生\n李先生"}),
    ("extractive", {"Question": "谁来了？", "Context": "😀昨天王先生来了。"})])
def test_playground(page, server, tenant, kind, fields):
    _, key = tenant
    enter(page, key, "play")
    page.get_by_label("What to ask").select_option(kind)
    for label, text in fields.items():
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .winner")).to_have_count(1)
    if kind == "extractive":
        assert page.locator("mark").inner_text() == page.locator(".winner").inner_text()
        assert page.locator(".context").inner_text() == fields["Context"]
    else:
        shares = [float(one.split()[0]) for one in page.locator(".bars .value").all_inner_texts()]
        assert len(shares) == 2 and abs(sum(shares) - 100) < 0.2
    page.get_by_text("This request as code").click()
    curl, python = page.locator("pre").all_inner_texts()
    assert key not in curl + python and "$MP2_KEY" in curl
    env = {**os.environ, "MP2_KEY": key}
    assert shutil.which("curl")
    for command in (["sh", "-c", curl], [sys.executable, "-c", python]):
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        winner = page.locator(".winner").inner_text()
        assert winner in ran.stdout.encode().decode("unicode_escape", "ignore") or winner in ran.stdout, ran


@pytest.mark.parametrize("kind", ["classification", "pair", "choice", "extractive"])
def test_example(page, tenant, kind):
    enter(page, tenant[1], "play")
    page.get_by_label("What to ask").select_option(kind)
    page.get_by_role("button", name="Fill in an example").click()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .winner")).to_have_count(1)


def test_own_task_beside_zero_shot(page, server, tenant):
    _, key = tenant
    made = server.post("/v1/tasks", {"name": "own", "type": "classification", "labels": ["好", "坏"],
                                     "template": "{title}：{body}"}, key=key)
    assert made.status == 201
    enter(page, key, "play")
    page.get_by_label("What to ask").select_option("task")
    page.get_by_label("Task", exact=True).fill("owm")
    page.get_by_role("button", name="Choose").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("own")  # the nearest name
    page.get_by_label("Task", exact=True).fill("own")
    page.get_by_role("button", name="Choose").click()
    page.get_by_label("title").fill("菜")
    page.get_by_label("body").fill("很好")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer h3")).to_have_text(["own", "Zero-shot"])


def test_what_is_wrong_is_said(page, tenant):
    enter(page, tenant[1], "play")
    page.get_by_label("Labels").fill("one")
    page.get_by_label("Text").fill("很好")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text(re.compile("label"))
    assert page.locator(".winner").count() == 0
