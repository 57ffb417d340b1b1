"""Fixtures of the ladder's tests: the quantizer's programs, built from the pinned source."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladder.quantizer import QuantizerBuild
from quantmint.home import Home
from quantmint.native.build import Bundle, build_folder, configure_quantizer
from quantmint.native.toolchain import find_toolchain


@pytest.fixture(scope="session")
def quantizer_build(built_home: Home, bundle: Bundle, llama_source: Path) -> QuantizerBuild:
    """The build tree that the ladder engine came from: the rest costs only its own objects."""
    chain = find_toolchain()
    folder = build_folder(built_home, chain) / "quantizer"
    configure_quantizer(llama_source, bundle.folder, folder, chain, built_home.logs / "native")
    return QuantizerBuild(folder, chain.cmake.path, bundle.folder)
