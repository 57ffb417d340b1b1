"""One folder in which the documents' commands run: the tutorial's, and what goes on from there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_tools import TOKEN
from helpers import seed
from hub import Hub
from publishing import client_env
from quantmint.home import Home
from quantmint.native.build import Bundle

# What a reader does not have set, and what would lead a command elsewhere.
UNSET = ("QUANTMINT_", "HF_", "MLFLOW_", "DAGSTER_", "PG")


@pytest.fixture(scope="session")
def reader(
    tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle
) -> Iterator[Path]:
    """A folder to begin in; the kernel is built in the homes that the tutorial makes in it."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("home", "laptop"):
        seed(Home(folder / "mint" / name), built_home)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def reader_env(reader: Path) -> Iterator[dict[str, str]]:
    """The environment of a reader's shell: quantmint's own is active, the Hub is one of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    with Hub(tokens=(TOKEN,)) as hub:
        known = client_env(hub.url, TOKEN, reader, xet=False)
        del known["QUANTMINT_HOME"]
        yield {**kept, **known, "PATH": programs, "OMP_WAIT_POLICY": "PASSIVE"}
