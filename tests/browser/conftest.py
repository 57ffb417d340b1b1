"""One `quantmint ui` in a home of its own, small models, and a Chromium tab for each test."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser.pages import PATIENCE, SIZE, Pages, browser, chromium
from helpers import ROOT, seed
from kills.service import Service
from quantmint.home import Home
from quantmint.native.build import Bundle

# One title, so that what is made of the one checkpoint is made once.
MODEL = """\
model: {name}
title: Small
source: {{path: {source}}}
family: phi3
variants: [{variants}]
assay: {{contexts: [128], chunks: 4, tasks: false, prompt: Say something}}
{more}
"""
BROKEN = "BertTokenizer"
CHECKPOINT = ROOT / "assets" / "embedded" / "phi-3-nano"


@dataclass(frozen=True)
class World:
    """The service, and the folder of its model files."""

    service: Service
    models: Path


def write_model(
    folder: Path, name: str, *, source: str = "checkpoint", variants: str = "Q4_K_M", more: str = ""
) -> None:
    """Write a small model's file."""
    text = MODEL.format(name=name, source=source, variants=variants, more=more)
    (folder / f"{name}.yaml").write_text(text)


def break_tokenizer(checkpoint: Path) -> None:
    """Let a checkpoint name a class that can't read its vocabulary: it converts all the same."""
    (checkpoint / "tokenizer.json").unlink()
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": BROKEN}))


@pytest.fixture(scope="module")
def world(
    chrome: Browser, tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle
) -> Iterator[World]:
    """The pages of a home that has the kernel's objects and nothing else."""
    folder = tmp_path_factory.mktemp("browser")
    models = folder / "models"
    shutil.copytree(CHECKPOINT, models / "checkpoint")
    write_model(models, "mini", variants="Q8_0, Q4_K_M", more="refresh: {cron: '0 3 1 1 *'}")
    write_model(models, "strict", more="gates: {max_kld: 0.000001}")
    write_model(models, "pick", variants="Q8_0, Q4_K_M")
    write_model(models, "mend", source="comes-later")
    break_tokenizer(shutil.copytree(CHECKPOINT, models / "broken-checkpoint"))
    write_model(models, "broken", source="broken-checkpoint")
    (models / "damaged.yaml").write_text("model: damaged\nsuorce: {path: checkpoint}\n")
    home = seed(Home(folder / "home"), built_home)
    service = Service(home, env={"QUANTMINT_MODELS": str(models)})
    try:
        yield World(service.start(), models)
        assert service.stop() == 0
    finally:
        service.kill()


# Playwright's event loop counts as running until it ends: no other tests may run meanwhile.
@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """Headless Chromium; without one the tests are skipped, except where it is required."""
    executable = chromium()
    if executable is None:
        why = "there is no Chromium: apt-get install chromium"
        if os.environ.get("QUANTMINT_REQUIRE_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    expect.set_options(timeout=PATIENCE * 1000)
    with browser(executable) as found:
        yield found


@pytest.fixture
def pages(world: World, chrome: Browser) -> Iterator[Pages]:
    """A new tab, without what other tabs remember."""
    context = chrome.new_context(viewport=SIZE)
    context.set_default_timeout(PATIENCE * 1000)
    yield Pages(context.new_page(), world.service.dagster)
    context.close()
