"""Fixtures of the fault tests: a Hub of their own, and builds that know no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_tools import TOKEN, Build
from helpers import Ran, run_in
from hub import Hub
from quantmint.home import Home


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
