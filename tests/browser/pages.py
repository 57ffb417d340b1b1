"""Dagster's and MLflow's pages as a person uses them: open, click, wait until it is shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZE = {"width": 1600, "height": 1000}
# A page that hangs fails a test sooner than a slow machine does.
PATIENCE = 60.0
RUN_PATIENCE = 300.0


def chromium() -> str | None:
    """Return where the system's Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Start Chromium with a new empty profile; end it."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=executable, chromium_sandbox=False, args=FLAGS
        )
        try:
            yield found
        finally:
            found.close()


@dataclass(frozen=True)
class Pages:
    """One tab, and where Dagster is served."""

    page: Page
    dagster: str

    def open(self, path: str) -> None:
        """Open a path of Dagster's."""
        self.page.goto(f"{self.dagster}{path}")

    def graph(self, selection: str = "", groups: Sequence[str] = ()) -> None:
        """Open the graph of a selection, with these groups unfolded."""
        unfolded = quote(",".join(f"global@global:{name}" for name in groups))
        self.open(f"/asset-groups~{quote(selection, safe='')}?expanded={unfolded}")

    def switch_of(self, schedule: str) -> Locator:
        """Return the switch on a schedule's own page.

        The list of all draws its rows again and again while states come in: clicks get lost.
        """
        self.open("/automation")
        self.page.get_by_role("link", name=schedule).first.click()
        self.page.wait_for_url(re.compile(f"/schedules/{schedule}"))
        switch = self.page.get_by_role("checkbox")
        expect(switch).to_have_count(1)
        return switch

    def turn(self, switch: Locator) -> None:
        """Click a switch: the drawing beside the box, which is itself not shown."""
        self.page.locator("label").filter(has=switch).locator("svg").click()

    def materialize(self, button: str = "Materialize") -> str:
        """Press the button; return the run that its notice names, in short."""
        self.button(button).click()
        return self.launched()

    def launched(self) -> str:
        """Return the run that the notice at the lower edge names, in short."""
        notice = self.page.get_by_text("Launched run").last
        expect(notice).to_be_visible(timeout=PATIENCE * 1000)
        found = re.search(r"Launched run\s*([0-9a-f]{8})", notice.inner_text())
        assert found, notice.inner_text()
        return found[1]

    def button(self, name: str) -> Locator:
        """Return the button of that name, once it is there and can be pressed."""
        found = self.page.get_by_role("button", name=name).first
        expect(found).to_be_enabled(timeout=PATIENCE * 1000)
        return found

    def sees(self, text: str | re.Pattern[str], seconds: float = PATIENCE) -> Locator:
        """Wait until the page shows a text."""
        found = self.page.get_by_text(text).first
        expect(found).to_be_visible(timeout=seconds * 1000)
        return found

    def shoot(self, path: Path) -> None:
        """Keep a picture of what the window shows."""
        self.page.screenshot(path=path)
