"""Take a picture of a page in headless Chromium: screenshot.py URL FILE.png [CSS-TO-WAIT-FOR]."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(url: str, file: str, wait_for: str = "body") -> None:
    """Open the page, wait until it is drawn, and keep what a person would see."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 940})
        page.goto(url)
        page.wait_for_selector(wait_for, timeout=60_000)
        page.wait_for_timeout(6_000)
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
