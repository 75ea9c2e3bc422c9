"""Seconds until the app's pages stand, in a browser: the first page, page changes, an update of the lab.

    python benchmarks/pages.py

Over a folder with one small run, then with one of 10,000 candidates, then with one of 50 members x 10,000 rows x 10
classes. "Cold" is the first page that a server has ever drawn, its imports included; the server itself has started. A
page stands when its heading is there and the script has ended. The bars: 2 s for the first page, 1 s for the lab.

Before them, and in turn with the small run's first page, one of Streamlit that holds a heading and a chart of three
bars: what this browser on this machine takes for anything that Streamlit draws. `--first` measures no more than these.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from leaderboard import stored_run
from measure import commit, verdict
from page_loads import serving
from playwright.sync_api import Browser, Page, sync_playwright

from ensembler.app.main import PAGES
from ensembler.comparison import combine, compare, start_bare_run
from ensembler.predictions import Predictions
from ensembler.store import RunStore

CHROMIUM = Path("/usr/bin/chromium")
FIRST_BAR, LAB_BAR = 2.0, 1.0

#: The least that Streamlit can be asked to draw a chart on.
BARE = """
import plotly.graph_objects as go
import streamlit as st

st.header("Bars")
st.plotly_chart(go.Figure(go.Bar(x=[1, 2, 3])))
"""

FAST: list[tuple[str, dict[str, Any]]] = [("mean", {}), ("greedy", {}), ("convex", {})]


def bare_run(folder: Path, n_members: int, n_samples: int, n_classes: int) -> None:
    """A run of predictions alone, members of different quality that err apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_samples)
    strength = np.linspace(2.5, 1.5, n_members)[:, None, None]
    logits = strength * np.eye(n_classes)[labels] + rng.normal(size=(n_members, n_samples, n_classes))
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    source = folder.parent / f"{folder.name}.npz"
    names = [f"member_{i:02}" for i in range(n_members)]
    Predictions.from_arrays(proba, labels, np.arange(n_samples) % 5, members=names).save(source)
    store = RunStore(folder)
    start_bare_run(store, source, "log_loss", FAST)
    with store.stage("combine"):
        compare(store, combine(store))


#: Whether the heading is no longer the one before.
ANOTHER = """before => {
    const heading = document.querySelector('[data-testid=stMain] h2')
    return heading && heading.innerText !== before
}"""


def settle(page: Page) -> None:
    """Until the page stands."""
    page.locator("[data-testid=stMain] h2").first.wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def main(argv: list[str] | None = None) -> None:
    """Prints the median of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small runs, one round, no promise")
    parser.add_argument("--first", action="store_true", help="first pages of the small run alone")
    args = parser.parse_args(argv)
    repeats, shrink = (1, 50) if args.quick else (args.repeats, 1)
    print(f"commit {commit()}; median of {repeats}", flush=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM) if CHROMIUM.exists() else None,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        runs: dict[str, Callable[[Path], object]] = {
            "one small run": lambda folder: bare_run(folder, 5, 500, 5),
            f"{10_000 // shrink:,} candidates": lambda folder: stored_run(folder, 10_000 // shrink),
            f"50 members x {10_000 // shrink:,} rows": lambda folder: bare_run(
                folder, 50, 10_000 // shrink, 10
            ),
        }
        for number, (title, make) in enumerate(runs.items()):
            folder = Path(home) / str(number)
            folder.mkdir()
            make(folder / "run")
            scripts: dict[str, Path | None] = {title: None}
            if number == 0:
                bare = Path(home) / "bare.py"
                bare.write_text(BARE)
                scripts = {"a heading and three bars": bare, title: None}
            found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in scripts}
            for _ in range(repeats):
                for name, script in scripts.items():
                    with serving(folder, script=script) as address:
                        for times in found[name]:
                            times.append(first_page(browser, address))
            for name, (cold, warm) in found.items():
                print(f"{name}: first page")
                show("cold", cold, FIRST_BAR)
                show("warm", warm, FIRST_BAR)
            if args.first:
                break
            with serving(folder) as address:
                tab = browser.new_page()
                tab.goto(f"http://{address}/")
                settle(tab)
                changes(tab, title, repeats)
                if "members" in title:
                    lab(tab, address, repeats)
                tab.close()
        browser.close()


def first_page(browser: Browser, address: str) -> float:
    """Seconds until a new tab stands."""
    tab = browser.new_page()
    began = time.perf_counter()
    tab.goto(f"http://{address}/")
    settle(tab)
    seconds = time.perf_counter() - began
    tab.close()
    return seconds


def changes(tab: Page, title: str, repeats: int) -> None:
    """A click on each page's link, until it stands; the first click, which computes what is then cached, apart."""
    found: dict[str, list[float]] = {}
    pages = [page for group in PAGES.values() for page in group]
    for _ in range(repeats + 1):
        for page in [*pages[1:], pages[0]]:  # it begins on the first
            link = tab.get_by_test_id("stSidebar").get_by_role("link", name=page.title, exact=True)
            before = tab.locator("h2").first.inner_text()
            began = time.perf_counter()
            link.click()
            tab.wait_for_function(ANOTHER, arg=before)
            settle(tab)
            found.setdefault(page.title, []).append(time.perf_counter() - began)
    print(f"{title}: page changes, the first and the median of the others")
    for name, (first, *others) in found.items():
        print(f"  {name:16} {first:5.2f} s {statistics.median(others):5.2f} s", flush=True)


def lab(tab: Page, address: str, repeats: int) -> None:
    """One member switched off, until score, interval and cost are those without it; a member each time."""
    for combiner in ("mean", "greedy", "convex", "weighted"):
        tab.goto(f"http://{address}/lab?combiner={combiner}")
        settle(tab)
        switches = tab.locator("[data-testid=stCheckbox] label")
        switches.nth(repeats).wait_for()
        n, times = switches.count(), []
        for i in range(repeats):
            settle(tab)  # else the click waits for what the one before has left to draw
            began = time.perf_counter()
            switches.nth(i).click()
            tab.get_by_text(f"Switched on: {n - 1 - i} of {n}").wait_for()
            times.append(time.perf_counter() - began)
        show(f"lab, {combiner}", times, LAB_BAR)


def show(name: str, times: list[float], bar: float) -> None:
    """One line: median, range, verdict."""
    middle = statistics.median(times)
    spread = f"({min(times):.2f} to {max(times):.2f})"
    print(
        f"  {name:16} {middle:5.2f} s {spread}, bar {bar:g} s: {verdict(middle, bar, at_least=False)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
