"""One home in which the embedded model was built by the command line, for all tests to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from changing import Changing, make_changing
from helpers import Ran, run_in, seed
from hub import Hub
from minting import Mint
from quantmint.home import Home
from quantmint.native.build import Bundle
from quantmint.registry.leases import release_all


@pytest.fixture(scope="session")
def nano(
    tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle
) -> tuple[Home, Ran]:
    """The home after `quantmint build phi-3-nano`, and what that printed."""
    home = seed(Home(tmp_path_factory.mktemp("nano") / "home"), built_home)
    return home, run_in(home, "build", "phi-3-nano")


@pytest.fixture(scope="session")
def nano_file(nano: tuple[Home, Ran]) -> Path:
    """The folder of the built variants."""
    return nano[0].models / "phi-3-nano"


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory, nano: tuple[Home, Ran]) -> Iterator[Mint]:
    """A mint of the test module's own that begins with the built model."""
    home, ran = nano
    assert ran.code == 0, ran.err
    yield Mint(tmp_path_factory.mktemp("mint"), home)
    release_all()


@pytest.fixture(scope="session")
def changing(
    tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle
) -> Iterator[Changing]:
    """A model whose upstream can be changed; each test begins with building it."""
    folder = tmp_path_factory.mktemp("changing")
    with Hub() as hub:
        yield make_changing(folder, seed(Home(folder / "home"), built_home), hub)
