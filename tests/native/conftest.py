"""Fixtures: phi-3-nano as FP16 and as variants, made once per session by llama.cpp's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantmint.assets.sources.local import embedded_folder
from quantmint.home import Home
from quantmint.native import tools
from quantmint.native.build import Bundle, converter_script
from quantmint.registry.store import Store

VARIANTS = ("Q8_0", "Q4_K_M", "Q2_K")


@pytest.fixture(scope="session")
def nano(
    built_home: Home, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Paths of phi-3-nano's files by type: FP16, Q8_0, Q4_K_M, Q2_K."""
    folder = tmp_path_factory.mktemp("nano")
    script = converter_script(built_home, Store(built_home.store).open())
    files = {"FP16": folder / "FP16.gguf"}
    tools.convert(
        script,
        embedded_folder("phi-3-nano"),
        files["FP16"],
        report=print,
        log=folder / "convert.log",
    )
    for name in VARIANTS:
        files[name] = folder / f"{name}.gguf"
        job = tools.Quantizing(source=files["FP16"], target=files[name], ftype=name, threads=2)
        tools.quantize(bundle, job, report=print, log=folder / "quantize.log")
    return files
