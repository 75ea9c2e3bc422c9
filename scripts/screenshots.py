"""Takes a picture of every page of the app: python scripts/screenshots.py RUNS docs/images [RUN] [--all]

Every page at 1440 px; the first also in dark, and at 390 px, the width of a phone. With `--all` every page in all
three. Needs Chromium: Debian's, or Playwright's own (`playwright install chromium`).
"""

import argparse
import io
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from ensembler.app.main import PAGES
from ensembler.app.server import command

CHROMIUM = Path("/usr/bin/chromium")
NAMES = [page.module for group in PAGES.values() for page in group]
#: Pixels of a page that are kept.
TALLEST = 2400
SHOTS = (("", 1440, "light"), ("-dark", 1440, "dark"), ("-phone", 390, "light"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", type=Path, help="folder of runs")
    options.add_argument("output", type=Path, help="folder for the pictures")
    options.add_argument("run", nargs="?", help="name of a run (default: the newest)")
    options.add_argument(
        "--all", action="store_true", help="every page in dark and at the width of a phone too"
    )
    args = options.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(command(args.runs, "127.0.0.1", port, headless=True), stdout=subprocess.DEVNULL)
    try:
        wait(f"http://127.0.0.1:{port}/_stcore/health")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(CHROMIUM) if CHROMIUM.exists() else None,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            for suffix, width, scheme in SHOTS:
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for name in NAMES if args.all or not suffix else NAMES[:1]:
                    path = "" if name == NAMES[0] else name
                    page.goto(f"http://127.0.0.1:{port}/{path}" + (f"?run={args.run}" if args.run else ""))
                    keep(whole(page).screenshot(), args.output / f"{name}{suffix}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()


def keep(picture: bytes, file: Path) -> None:
    """The upper part in 256 colours: a third of the bytes, and no difference that matters here."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
    image.quantize(256).save(file, optimize=True)
    print(file)


def wait(url: str, seconds: float = 30) -> None:
    """Until the server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def whole(page: Page) -> Page:
    """The page when it has settled, in a window as tall as what it shows."""
    page.locator("[data-testid=stMain] h2").first.wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(1500)
    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": max(900, height)})
    page.wait_for_timeout(1000)
    return page


if __name__ == "__main__":
    sys.exit(main())
