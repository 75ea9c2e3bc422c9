"""The app in a real browser, on the road of somebody who decides."""

import os
import re
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from ensembler.app.main import PAGES
from ensembler.app.server import command

CHROMIUM = Path("/usr/bin/chromium")
PATHS = ["", *[page.module for group in PAGES.values() for page in group][1:]]

#: On a deep link Streamlit first looks for its own server below the page's path, and finds it above.
STREAMLIT_LOOKS_AROUND = re.compile(r"/\w+/_stcore/(health|host-config)$")

#: Whether nothing runs out of the window; tables and code scroll within themselves.
FITS = """width => [...document.querySelectorAll('[data-testid=stMainBlockContainer] *')]
    .filter(e => !e.closest('[data-testid=stDataFrame]') && !e.parentElement.closest('table, pre'))
    .every(e => e.getBoundingClientRect().right <= width)"""

#: Whether the background is that of the theme.
FOLLOWS = """scheme => {
    const colour = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor
    const light = colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 384
    return light === (scheme === 'light')
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(command(runs, "127.0.0.1", port, True), stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
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
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
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
        tab.set_default_timeout(20_000)
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


def test_the_road_from_verdict_to_bundle(open_tab, url, runs):
    tab = open_tab()
    tab.goto(url)
    settled(tab)
    assert (
        tab.locator("h2").first.inner_text()
        == "Use the ensemble stacking: it is better than the best single model."
    )
    assert tab.url.endswith("?run=pets")
    tab.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    tab.locator(".js-plotly-plot").first.wait_for()

    tab.get_by_text("Single models", exact=True).first.click()
    tab.wait_for_url("**kind=Single*")
    tab.get_by_role("combobox", name="Sort by").click()
    tab.get_by_role("option", name="Latency").click()
    tab.wait_for_url("**sort=Latency*")
    tab.get_by_text("The best ensemble, stacking, beats").wait_for()

    tab.get_by_role("link", name="Compare").click()
    tab.get_by_text("stacking is better than test_resnet").wait_for()
    assert "/compare?run=pets" in tab.url
    tab.get_by_role("combobox", name="Rows").click()
    tab.get_by_role("option", name="greedy").click()
    tab.keyboard.press("Escape")
    tab.get_by_text(re.compile("greedy (is|cannot be)")).first.wait_for()
    tab.wait_for_url("**row=greedy*")
    shared = tab.url

    tab.get_by_role("link", name="Export").click()
    tab.get_by_role("button", name="Export").click()
    tab.get_by_text("Exporting for").wait_for()
    tab.get_by_text("The bundle is there").wait_for(timeout=60_000)
    tab.get_by_text("What is inside").wait_for()
    assert (runs / "pets" / "bundles" / "stacking" / "bundle.json").is_file()

    other = open_tab()
    other.goto(shared)
    other.get_by_text(re.compile("greedy (is|cannot be)")).first.wait_for()


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
    tab.get_by_role("link", name="Compare").click()
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
    assert tab.url.endswith("?run=bare")
