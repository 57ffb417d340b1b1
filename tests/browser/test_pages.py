"""What a person does on the pages, done: each test clicks, and waits for what it must see."""

from __future__ import annotations

import re
import shutil

import pytest
from playwright.sync_api import expect

from browser.conftest import BROKEN, CHECKPOINT, World
from browser.pages import RUN_PATIENCE, Pages
from quantmint.native.kernels import host_kernel

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
ON = f"_on_{host_kernel().name}"


def ended(world: World, short: str) -> str:
    """Wait until the run of that short id ended; return its status."""
    (whole,) = [run.id for run in world.service.runs() if run.id.startswith(short)]
    return world.service.wait(whole, RUN_PATIENCE)


def build(world: World, pages: Pages, asset: str) -> str:
    """Materialize an asset and all above it, from the graph; return how the run ended."""
    pages.graph(f'+key:"{asset}"')
    return ended(world, pages.materialize("Materialize all"))


def test_the_graph_shows_models_by_group(world: World, pages: Pages) -> None:
    pages.graph()
    for group in ("kernels", "models", "upstream", "unreadable_model_files"):
        pages.sees(group)
    pages.graph('group:"models/mini"', groups=["models", "models/mini"])
    for leaf in ("upstream", "source_weights", "fp16_gguf", "Q8_0", "Q4_K_M", f"Q4_K_M{ON}"):
        pages.sees(re.compile(f"^{leaf}$"))
    pages.open("/assets/unreadable/damaged")
    pages.sees(re.compile("did you mean 'source'"))


def test_one_variant_is_made_and_its_tracking_page_followed(world: World, pages: Pages) -> None:
    assert build(world, pages, "mini/Q8_0") == "SUCCESS"
    pages.open("/assets/mini/Q4_K_M")
    pages.sees("Never materialized")
    assert ended(world, pages.materialize()) == "SUCCESS"
    expect(pages.page.get_by_text("Never materialized")).to_have_count(0)
    pages.page.reload()
    pages.sees("tensor_types")
    with pages.page.context.expect_page() as opened:
        pages.page.locator("a[href*='#/experiments/']").first.click()
    run = opened.value
    expect(run.get_by_text(re.compile(r"^mini@[0-9a-f]{8}$")).first).to_be_visible()
    expect(run.get_by_text(re.compile("digest.Q4_K_M|Q4_K_M/bytes")).first).to_be_visible()


def test_a_broken_model_is_seen_failing_with_its_reason(world: World, pages: Pages) -> None:
    assert build(world, pages, "broken/fp16_gguf") == "FAILURE"
    pages.open("/assets/broken/fp16_gguf?view=checks&checkDetail=tokenizer")
    pages.sees("Failed")
    pages.sees(re.compile(f"names {BROKEN}, which does not read tokenizer.model"))


def test_a_gate_is_seen_failing_with_its_reason(world: World, pages: Pages) -> None:
    asset = f"strict/Q4_K_M{ON}"
    assert build(world, pages, asset) == "FAILURE"
    pages.open(f"/assets/{asset}?view=checks&checkDetail=divergence")
    pages.sees("Failed")
    pages.sees(re.compile(r"mean KL divergence to FP16 is 0\.\d+ at context 128, the bound is"))
    pages.open("/assets/strict/Q4_K_M?view=checks&checkDetail=header")
    pages.sees("Passed")


def test_a_schedule_is_turned_on_and_off(world: World, pages: Pages) -> None:
    for before, after in (("STOPPED", "RUNNING"), ("RUNNING", "STOPPED")):
        assert world.service.schedules()["refresh_mini"] == before
        switch = pages.switch_of("refresh_mini")
        expect(switch).to_be_checked(checked=before == "RUNNING")
        pages.turn(switch)
        expect(switch).to_be_checked(checked=after == "RUNNING")
        # While it is turned it shows what is wanted: only the server knows what is.
        world.service.wait_for_schedule("refresh_mini", after)


def test_the_launchpad_makes_what_it_is_told(world: World, pages: Pages) -> None:
    location = world.service._location()
    pages.open(f"/locations/{location}/jobs/build_pick/playground")
    pages.sees(re.compile("variants"))
    editor = pages.page.locator(".CodeMirror").first
    editor.click()
    pages.page.keyboard.press("Control+A")
    pages.page.keyboard.insert_text("resources: {order: {config: {variants: [Q8_0]}}}")
    pages.sees("No errors")
    pages.button("Launch Run").click()
    pages.page.wait_for_url(re.compile("/runs/"))
    short = pages.page.url.rpartition("/runs/")[2][:8]
    assert ended(world, short) == "SUCCESS"
    pages.open("/assets/pick/Q8_0")
    pages.sees("tensor_types")
    pages.open("/assets/pick/Q4_K_M")
    pages.sees("Never materialized")


def test_a_failed_run_goes_on_from_its_failure(world: World, pages: Pages) -> None:
    assert build(world, pages, "mend/fp16_gguf") == "FAILURE"
    failed = world.service.runs()[0]
    pages.open(f"/runs/{failed.id}")
    pages.sees(re.compile("comes-later"))
    shutil.copytree(CHECKPOINT, world.models / "comes-later")
    pages.button("Re-execute all").locator("xpath=following::button[1]").click()
    pages.page.get_by_role("menuitem", name="From failure").click()
    pages.page.wait_for_url(re.compile(f"/runs/(?!{failed.id})"))
    short = pages.page.url.rpartition("/runs/")[2][:8]
    assert ended(world, short) == "SUCCESS"
    steps = world.service.runs()[0].steps
    assert set(steps) == {"mend__source_weights", "mend__fp16_gguf"}
    pages.sees(re.compile("^Success$"))
