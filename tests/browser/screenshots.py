"""Makes the pictures of the README, so that they stay true:

    build/venv/bin/python tests/browser/screenshots.py [FOLDER]

A server of its own with the embedded model, a tenant with tasks, jobs, keys and traffic, and a picture
of each page in FOLDER (default: tests/browser/shots). The pages are as a visitor sees them; nothing is
drawn by hand.
"""
import contextlib
import json
import pathlib
import random
import re
import struct
import sys
import tempfile
import threading
import zlib

from playwright.sync_api import expect, sync_playwright

import conftest
from conftest import ARGS, CHROMIUM, REVIEWS, enter, harness, start_job, wait_for_job

WIDTH, HEIGHT = 1120, 760
TASKS = ["takeaway", "hotels", "cinema", "books", "phone-support", "returns", "delivery", "clothes"]
SENTENCES = ["等了很久，菜都凉了", "老板热情，上菜很快，下次还来", "隔音太差", "送货快，包装也很仔细，值得推荐"]
CONTEXT = "路上堵车，王先生九点半才到公司，错过了早上的会。"


# ---- what there is to see -----------------------------------------------------------------------

def furnish(server):
    """(key, job): a tenant as one may look after a week."""
    made = server.post("/v1/admin/tenants", {"name": "acme", "quotas": {"requests_per_minute": 6000, "queued_jobs": 20}})
    assert made.status == 201, made
    for other in ("harbour-books", "north-clinic"):
        server.make_tenant(other)
    key = server.make_key("acme", ["predict", "adapt", "read", "admin"], label="dashboard")
    server.make_key("acme", ["predict"], label="shop front")
    draw = random.Random(8)
    for name in TASKS:
        route = [round(draw.gauss(-0.5, 2), 3) for _ in range(8)]
        server.post("/v1/tasks", {"name": name, "type": "classification", "labels": ["好评", "差评"], "route": route,
                                  "description": f"Is a review of {name} content or a complaint?"}, key=key)
    server.post("/v1/tasks", {"name": "same-question", "type": "pair", "labels": ["相同", "不同"]}, key=key)
    server.post("/v1/tasks", {"name": "who-and-when", "type": "extractive"}, key=key)
    wait_for_job(server, key, start_job(server, key, "reviews", steps=10))
    job = start_job(server, key, "reviews", steps=60)
    assert wait_for_job(server, key, job) == "succeeded"
    return key, job


@contextlib.contextmanager
def traffic(server, key):
    """Predictions of several tasks at once, until the end of the block."""
    stop = threading.Event()

    def ask(seed):
        draw = random.Random(seed)
        while not stop.is_set():
            server.post("/v1/predict", {"task": draw.choice(TASKS), "inputs": draw.choices(SENTENCES, k=draw.randint(1, 6))},
                        key=key if draw.random() > 0.02 else "mp2_wrong")
            stop.wait(draw.expovariate(20))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


# ---- the pictures -------------------------------------------------------------------------------

def overview(tab, server, key, _):
    with traffic(server, key):
        enter(tab, key, "overview")
        tab.wait_for_timeout(24000)


def phone(tab, server, key, job):
    with traffic(server, key):
        enter(tab, key, "overview")
        tab.wait_for_timeout(8000)


def tasks(tab, server, key, _):
    enter(tab, key, "tasks")


def task(tab, server, key, _):
    enter(tab, key, "task/reviews")


def teach(tab, server, key, _):
    enter(tab, key, "teach")
    rows = REVIEWS.read_text(encoding="utf-8").splitlines()[:30]
    rows[3] = json.dumps({"text": "少了一半的东西"}, ensure_ascii=False)
    tab.locator("textarea").fill("\n".join(rows))
    tab.locator("main form button:not([type=button])").first.click()
    expect(tab.locator(".loading")).to_have_count(0)
    tab.get_by_label(re.compile("Name of the task|任务名称")).fill("reviews")
    expect(tab.locator(".checked")).to_be_visible()
    tab.wait_for_timeout(600)
    expect(tab.locator(".well")).to_be_visible()


def job(tab, server, key, job):
    enter(tab, key, f"job/{job}")
    expect(tab.locator(".plot svg").first).to_be_visible()
    tab.get_by_label("Text").fill("菜很好吃，服务也周到。")
    tab.get_by_role("button", name="Predict").click()
    expect(tab.locator(".winner")).to_have_count(3)


def play(tab, server, key, _):
    enter(tab, key, "play")
    tab.get_by_label("What to ask").select_option("extractive")
    tab.get_by_label("Question").fill("谁错过了会？")
    tab.get_by_label("Context").fill(CONTEXT)
    tab.get_by_role("button", name="Predict").click()
    expect(tab.locator("mark")).to_be_visible()
    tab.get_by_text("This request as code").click()


def usage(tab, server, key, _):
    enter(tab, key, "usage")


def admin(tab, server, key, _):
    enter(tab, key, "admin/tenant/acme")


SHOTS = [(overview, {}), (phone, {"viewport": {"width": 360, "height": HEIGHT}, "color_scheme": "dark"}), (tasks, {}),
         (task, {}), (teach, {"locale": "zh-CN"}), (job, {"color_scheme": "dark"}), (play, {}), (usage, {}), (admin, {})]
WHOLE = {"overview", "phone", "task", "teach", "job", "usage"}  # the others: what fits the window


# ---- small files --------------------------------------------------------------------------------

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def unfiltered(data, width, height, depth):
    """Rows of a PNG without its filters (RFC 2083, 6)."""
    stride, rows, above = width * depth, [], bytes(width * depth)
    for y in range(height):
        kind = data[y * (stride + 1)]
        row = bytearray(data[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride if kind else 0):
            left = row[i - depth] if i >= depth else 0
            corner = above[i - depth] if i >= depth else 0
            if kind == 1:
                row[i] = row[i] + left & 255
            elif kind == 2:
                row[i] = row[i] + above[i] & 255
            elif kind == 3:
                row[i] = row[i] + (left + above[i]) // 2 & 255
            else:
                p = left + above[i] - corner
                far = (abs(p - left), abs(p - above[i]), abs(p - corner))
                row[i] = row[i] + (left, above[i], corner)[far.index(min(far))] & 255
        rows.append(bytes(row))
        above = row
    return rows


def distance(a, b):
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


def smaller(png):
    """The same picture with at most 256 colours: near shades of anti-aliased text fall together."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    depth = {2: 3, 6: 4}[kind]
    data, at = b"", 8
    while at < len(png):
        size = struct.unpack(">I", png[at:at + 4])[0]
        if png[at + 4:at + 8] == b"IDAT":
            data += png[at + 8:at + 8 + size]
        at += size + 12
    rows = unfiltered(zlib.decompress(data), width, height, depth)
    pixels = [[row[i:i + 3] for i in range(0, len(row), depth)] for row in rows]
    count = {}
    for line in pixels:
        for pixel in line:
            count[pixel] = count.get(pixel, 0) + 1
    palette, place = [], {}
    for pixel in sorted(count, key=count.get, reverse=True):  # a colour far from those that are in comes in
        near = min(range(len(palette)), default=None, key=lambda i: distance(palette[i], pixel))
        if near is None or len(palette) < 256 and distance(palette[near], pixel) > 100:
            near = len(palette)
            palette.append(pixel)
        place[pixel] = near
    packed = b"".join(b"\0" + bytes(place[pixel] for pixel in line) for line in pixels)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
            + chunk(b"PLTE", b"".join(palette)) + chunk(b"IDAT", zlib.compress(packed, 9)) + chunk(b"IEND", b""))


def shoot(browser, server, key, job, folder):
    for draw, settings in SHOTS:
        context = browser.new_context(base_url=server.url, **{"viewport": {"width": WIDTH, "height": HEIGHT},
                                                              "locale": "en-GB", **settings})
        tab = context.new_page()
        draw(tab, server, key, job)
        expect(tab.locator(".loading")).to_have_count(0)
        if draw.__name__ in WHOLE:
            tab.evaluate("scrollTo(0, 0)")
        picture = smaller(tab.screenshot(full_page=draw.__name__ in WHOLE))
        (folder / f"{draw.__name__}.png").write_bytes(picture)
        print(f"{draw.__name__}.png  {len(picture) // 1024} KiB")
        context.close()


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else conftest.HERE.parent / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as driver:
        server = harness.Server(directory)
        try:
            key, job = furnish(server)
            browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGS, chromium_sandbox=False)
            shoot(browser, server, key, job, folder)
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
