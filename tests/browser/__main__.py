"""Make the pictures of docs/ui.md from a real server: `make screenshots`.

    python -m browser OUT [--work FOLDER] [--only graph,variant]

The embedded model is built, and one that a gate refuses; then their pages are looked at. With
--work the home is kept there, and a second time only the pictures are made.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from browser.pages import PATIENCE, SIZE, Pages, browser, chromium
from helpers import ROOT, run_in, seed
from kills.service import Service
from quantmint.home import Home
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store

NANO = "phi-3-nano"
STRICT = f"""\
model: strict
title: Strict
source: {{embedded: {NANO}}}
variants: [Q4_K_M]
assay: {{contexts: [512], chunks: 8, tasks: false}}
gates: {{max_kld: 0.001}}
"""
WEEKLY = f"""\
model: weekly
title: Weekly
source: {{embedded: {NANO}}}
refresh: {{cron: "0 5 * * 1"}}
"""
LOOK_MS, MOST_LOOKS = 4000, 8
MOST_BYTES = 250_000
ON = f"_on_{host_kernel().name}"


def prepare(work: Path, built: Home) -> tuple[Home, Path]:
    """Return a home with the models built, and the folder of their files."""
    home, models = Home(work / "home"), work / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "strict.yaml").write_text(STRICT)
    (models / "weekly.yaml").write_text(WEEKLY)
    if not home.root.exists():
        build_kernel(built, Store(built.store).open(), host_kernel(), print)
        release_all()
        seed(home, built)
    for model, code in ((NANO, 0), ("strict", 5)):
        ran = run_in(home, "build", model, QUANTMINT_MODELS=str(models))
        assert ran.code == code, ran.err
    return home, models


def graph(pages: Pages) -> None:
    """Show the models as groups, one of them built."""
    pages.graph(groups=["models"])
    pages.sees("phi_3_nano")
    expect(pages.page.get_by_text("fetching statuses")).to_have_count(0)


def model(pages: Pages) -> None:
    """Show one model's line."""
    pages.graph(f'key:"{NANO}/*"', groups=["models", "models/phi_3_nano"])
    pages.sees("source_weights")
    pages.sees("report")


def variant(pages: Pages) -> None:
    """Show what one variant is: summary, MLflow's page, tensor types."""
    pages.open(f"/assets/{NANO}/Q4_K_M")
    pages.sees("summary")
    pages.sees("tensor_types")


def check(pages: Pages) -> None:
    """Show why a variant is withheld."""
    pages.open(f"/assets/strict/Q4_K_M{ON}?view=checks&checkDetail=divergence")
    pages.sees(re.compile("the bound is"))


def schedules(pages: Pages) -> None:
    """Show the schedules, one of them on."""
    switch = pages.switch_of("refresh_weekly")
    if not switch.is_checked():
        pages.turn(switch)
    expect(switch).to_be_checked()
    pages.open("/automation")
    pages.sees("refresh_weekly")


def launchpad(pages: Pages) -> None:
    """Show what a person may ask of a run."""
    pages.open("/jobs")
    pages.page.get_by_role("link", name="build_phi_3_nano").first.click()
    pages.page.wait_for_url(re.compile("/jobs/build_phi_3_nano"))
    job = re.match(".*/jobs/build_phi_3_nano", pages.page.url)
    assert job is not None
    pages.page.goto(f"{job[0]}/playground")
    pages.sees("No errors")


SHOTS: dict[str, Callable[[Pages], None]] = {
    "graph": graph, "model": model, "variant": variant, "check": check, "schedules": schedules,
    "launchpad": launchpad,
}  # fmt: skip


def settled(page: Page) -> bytes:
    """Return a picture once two in a row are the same: groups unfold, states come in one by one."""
    before, last = b"", page.screenshot()
    for _ in range(MOST_LOOKS):
        page.wait_for_timeout(LOOK_MS)
        before, last = last, page.screenshot()
        if before == last:
            break
    made = io.BytesIO()
    Image.open(io.BytesIO(last)).convert("RGB").save(made, "PNG", optimize=True)
    return made.getvalue()


def shoot(service: Service, executable: str, out: Path, names: Sequence[str]) -> None:
    """Make these pictures."""
    expect.set_options(timeout=PATIENCE * 1000)
    with browser(executable) as chrome:
        page = chrome.new_context(viewport=SIZE).new_page()
        for name in names:
            SHOTS[name](Pages(page, service.dagster))
            page.mouse.move(0, 0)
            data = settled(page)
            assert len(data) < MOST_BYTES, f"{name}: {len(data)} bytes"
            (out / f"{name}.png").write_bytes(data)
            print(f"{name}.png: {len(data) // 1000} kB", flush=True)


def main() -> None:
    """Build, serve, shoot."""
    parser = argparse.ArgumentParser(prog="python -m browser", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", default=",".join(SHOTS), help="these pictures")
    words = parser.parse_args()
    executable = chromium()
    if executable is None:
        sys.exit("there is no Chromium: apt-get install chromium")
    built = Home(Path(os.environ.get("QUANTMINT_TEST_HOME", ROOT / ".quantmint" / "tests")))
    with tempfile.TemporaryDirectory(prefix="quantmint-") as folder:
        home, models = prepare(words.work or Path(folder), built)
        service = Service(home, env={"QUANTMINT_MODELS": str(models)})
        try:
            shoot(service.start(), executable, words.out, words.only.split(","))
            service.stop()
        finally:
            service.kill()


if __name__ == "__main__":
    main()
