"""Fixtures of the fault tests: a Hub of their own, and builds that know no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attacks import QUICK, Scene
from evil import Evil
from fault_tools import TOKEN, Build
from helpers import Ran, run_in
from hub import Hub
from pulling import OWNER, REPO, Publisher, model_bytes
from quantmint.home import Home
from quantmint.registry.pull import web
from quantmint.registry.trust_root import TrustRoot


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        yield running


@pytest.fixture
def hub_env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The environment of an unmodified client that knows no Hub but ours."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": "",
        "QUANTMINT_TRACKING": "off",
    }


@pytest.fixture
def build(seeded_home: Home) -> Build:
    """`quantmint build` in a home that has the kernel."""

    def run(model: Path, *words: str, env: dict[str, str] | None = None) -> Ran:
        return run_in(
            seeded_home, "build", model, *words, **{"QUANTMINT_TRACKING": "off", **(env or {})}
        )

    return run


@pytest.fixture
def scene(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(web, "PATIENCE", replace(QUICK, patience=2.0))
    with Evil() as evil, Evil() as thief:
        monkeypatch.setenv("HF_ENDPOINT", evil.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        publisher = Publisher(tmp_path / "publisher")
        TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
        scene = Scene(home, evil, thief, publisher, tmp_path / "folder")
        variants = {"Q8_0": model_bytes()}
        scene.first = publisher.files(1, variants)
        scene.second = publisher.files(2, variants)
        scene.serve(scene.second)
        scene.pull(REPO)
        yield scene
