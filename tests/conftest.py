"""Fixtures: fresh homes, and homes that share one build of llama.cpp per machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import ROOT, Ran, mounted, run_in, seed
from quantmint.home import Home
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import host_kernel, reference_kernel
from quantmint.native.pin import current_pin
from quantmint.native.source import unpack
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store

Quantmint = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home folder of the test's own, with nothing in it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("QUANTMINT_HOME", str(folder))
    yield Home(folder)
    release_all()  # what the test pinned: one open file for each store


@pytest.fixture
def store(home: Home) -> Store:
    """An empty store."""
    return Store(home.store).open()


@pytest.fixture(scope="session")
def built_home() -> Home:
    """The home in which llama.cpp is built once; kept between sessions, never written otherwise."""
    return Home(Path(os.environ.get("QUANTMINT_TEST_HOME", ROOT / ".quantmint" / "tests")))


@pytest.fixture(scope="session")
def bundle(built_home: Home) -> Bundle:
    """This machine's best kernel, built; beside it the scalar one, which releases compare with."""
    store = Store(built_home.store).open()

    def report(line: str) -> None:
        print(line, flush=True)

    build_kernel(built_home, store, reference_kernel(), report)
    return build_kernel(built_home, store, host_kernel(), report)


@pytest.fixture(scope="session")
def llama_source(built_home: Home, bundle: Bundle) -> Path:
    """The root of the pinned llama.cpp tree."""
    return unpack(Store(built_home.store).open(), current_pin(), built_home.work)


@pytest.fixture
def seeded_home(home: Home, built_home: Home, bundle: Bundle) -> Home:
    """A home of the test's own that holds the built kernel already, and nothing else."""
    return seed(home, built_home)


@pytest.fixture
def quantmint(home: Home) -> Quantmint:
    """The command line as a process: `quantmint("build", "phi-3-nano", env={...})`."""

    def run(*words: str | Path, env: dict[str, str] | None = None, timeout: float = 600) -> Ran:
        return run_in(home, *words, timeout=timeout, **(env or {}))

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of two megabytes of its own; skipped where none can be mounted."""
    with mounted(tmp_path / "small-disk", "2m") as folder:
        yield folder
