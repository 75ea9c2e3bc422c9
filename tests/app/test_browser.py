"""The app in a real browser, on the road of somebody who decides."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from ensembler.app.main import PAGES
from ensembler.app.server import command
from tests.ports import free_port

CHROMIUM = Path("/usr/bin/chromium")

#: For whatever is waited for: a page takes a second, on a machine that others use a minute.
PATIENCE_S = 120
PATHS = ["", *[page.module for group in PAGES.values() for page in group][1:]]

#: On a deep link Streamlit first looks for its own server below the page's path, and finds it above.
STREAMLIT_LOOKS_AROUND = re.compile(r"/\w+/_stcore/(health|host-config)$")

#: Whether nothing runs out of the window; tables and code scroll within themselves, and what is folded is not seen.
FITS = """width => [...document.querySelectorAll('[data-testid=stMainBlockContainer] *')]
    .filter(e => !e.closest('[data-testid=stDataFrame], details:not([open])'))
    .filter(e => !e.parentElement.closest('table, pre'))
    .every(e => e.getBoundingClientRect().right <= width)"""

#: Whether the background is that of the theme.
FOLLOWS = """scheme => {
    const colour = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor
    const light = colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 384
    return light === (scheme === 'light')
}"""

#: Whether the heading is no longer the one before.
ANOTHER = """before => {
    const heading = document.querySelector('[data-testid=stMain] h2')
    return heading && heading.innerText !== before
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists() and not os.environ.get("CI"), reason="needs Chromium at /usr/bin/chromium"
    ),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_trained_run, make_bare_run):
    """A run that was trained, with weights that a bundle can be made of, and one of predictions with hostile names."""
    from ensembler.training.backbone import create

    folder = tmp_path_factory.mktemp("runs")
    made = {}

    def weights(backbone):
        if backbone not in made:
            made[backbone] = {
                k: v.numpy() for k, v in create(backbone, 3, image_size=32).state_dict().items()
            }
        return made[backbone]

    make_bare_run(folder / "bare")
    make_trained_run(folder / "pets", weights)
    return folder


@pytest.fixture(scope="module")
def url(runs):
    port = free_port()
    server = subprocess.Popen(command(runs, "127.0.0.1", port, True), stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the server has ended"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        arguments.append("--disable-dev-shm-usage")  # which is small in containers
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=arguments, timeout=1000 * PATIENCE_S
        )
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser):
    """Tabs in which nothing may go wrong behind the reader's back."""
    tabs, faults = [], []

    def told(message):
        if message.type == "error" and not STREAMLIT_LOOKS_AROUND.search(message.location["url"]):
            faults.append(f"console: {message.text} {message.location['url']}")

    def open_(width=1440, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.set_default_timeout(1000 * PATIENCE_S)
        tab.on("console", told)
        tab.on("pageerror", lambda error: faults.append(f"page: {error}"))
        tab.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tabs.append(tab)
        return tab

    yield open_
    for tab in tabs:
        assert tab.locator("[data-testid=stException]").count() == 0
        tab.close()
    assert not faults


def settled(tab):
    tab.locator("[data-testid=stMain] h2").first.wait_for()
    tab.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    return tab


def link(tab, name):
    before = tab.locator("h2").first.inner_text()
    tab.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click()
    tab.wait_for_function(ANOTHER, arg=before)
    settled(tab)


def choose(tab, box, option):
    tab.get_by_role("combobox", name=box).first.click()
    tab.get_by_role("option", name=option, exact=True).click()


def test_the_road_from_verdict_to_answers(open_tab, url, runs, tmp_path):
    """Open, read the verdict, sort, open a confusion cell, switch a member off, save, export, predict."""
    tab = open_tab()
    tab.goto(url)
    settled(tab)
    verdict = "Use the ensemble stacking: it is better than the best single model."
    assert tab.locator("h2").first.inner_text() == verdict
    assert tab.url.endswith("?run=pets")

    link(tab, "Leaderboard")
    tab.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    tab.locator(".js-plotly-plot").first.wait_for()
    tab.get_by_text("Single models", exact=True).first.click()
    tab.wait_for_url("**kind=Single*")
    choose(tab, "Sort by", "Latency")
    tab.wait_for_url("**sort=Latency*")

    link(tab, "Compare")
    tab.get_by_text("stacking is better than test_resnet").wait_for()
    assert "/compare?run=pets" in tab.url
    choose(tab, "Rows", "greedy")
    tab.keyboard.press("Escape")
    tab.get_by_text(re.compile("greedy (is|cannot be)")).first.wait_for()
    tab.wait_for_url("**row=greedy*")
    shared = tab.url
    settled(tab)
    cell(tab, "Confusion matrix of stacking", 0.5 / 3, 0.5 / 3)
    tab.get_by_text(re.compile("stacking (is right on|takes)")).first.wait_for()

    link(tab, "Ensemble lab")
    tab.get_by_text("Switched on: 3 of 3").wait_for()
    tab.locator("[data-testid=stCheckbox] label").last.click()
    tab.get_by_text("Switched on: 2 of 3").wait_for()
    settled(tab)
    tab.get_by_role("textbox", name="Name").fill("both")
    tab.keyboard.press("Tab")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_text("Saved: both").wait_for()

    link(tab, "Export")
    choose(tab, "Row", "both")
    tab.get_by_role("button", name="Export", exact=True).click()
    tab.get_by_text("The bundle is there").wait_for()
    tab.get_by_text("What is inside").wait_for()
    bundle = runs / "pets" / "bundles" / "both"
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    answers = tmp_path / "answers.csv"
    command = ["predict", str(bundle), str(tmp_path / "photo.png"), "-o", str(answers)]
    subprocess.run([sys.executable, "-m", "ensembler", *command], check=True)
    assert len(answers.read_text().splitlines()) == 2

    other = open_tab()
    other.goto(shared)
    other.get_by_text(re.compile("greedy (is|cannot be)")).first.wait_for()


def cell(tab, plot, across, down):
    """Clicks into a figure, at these shares of its plotting area."""
    figure = tab.get_by_label(plot, exact=True)
    figure.scroll_into_view_if_needed()
    area = figure.locator(".nsewdrag").first.bounding_box()
    tab.mouse.click(area["x"] + across * area["width"], area["y"] + down * area["height"])


@pytest.mark.parametrize("path", PATHS)
def test_every_page_fits_a_desk_and_a_phone_in_light_and_dark(open_tab, url, path):
    tab = open_tab()
    tab.goto(f"{url}/{path}?run=pets")
    settled(tab)
    for width, scheme in ((1440, "dark"), (390, "dark"), (390, "light")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(FOLLOWS, arg=scheme)
        tab.wait_for_function(FITS, arg=width)


def test_names_are_text_and_run_nothing(open_tab, url):
    tab = open_tab()
    tab.goto(f"{url}/?run=bare")
    settled(tab)
    assert "<script>alert(1)</script>" in tab.locator("[data-testid=stMain]").inner_text()
    link(tab, "Compare")
    tab.get_by_role("combobox", name="Rows").click()
    tab.get_by_role("option", name=":smile: $x$ [l](http://h)").click()
    tab.get_by_text("Do the confidences mean what they say?").wait_for()
    said = settled(tab).locator("[data-testid=stMain]").inner_text()
    assert ":smile: $x$ [l](http://h)" in said
    assert "a|b*c_d" in said
    assert tab.locator("[data-testid=stMain] a[href='http://h']").count() == 0


def test_a_run_that_is_not_there_is_refused(open_tab, url):
    tab = open_tab()
    tab.goto(f"{url}/?run=../../:smile:%3Cb%3E")
    tab.get_by_text("There is no run named").wait_for()
    assert "../../:smile:<b>" in tab.locator("[data-testid=stAlert]").inner_text().replace("\u2060", "")
    tab.get_by_role("combobox", name="Run").click()
    tab.get_by_role("option", name="bare").click()
    tab.get_by_text("Use the ensemble").wait_for()
    tab.wait_for_url(re.compile(r"\?run=bare$"))
