"""Every Phi architecture through convert and quantize: the bytes of the plain upstream commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import checkpoints
from quantmint.assets.conversion.added import model_name
from quantmint.assets.conversion.tokens import check_tokens
from quantmint.assets.convert import make_fp16
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe, Source
from quantmint.assets.source import fetch_source
from quantmint.assets.variants import strike_variants
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

pytestmark = pytest.mark.native

MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "phi-2": lambda folder, source: checkpoints.make_phi2(folder, llama_source=source),
    "phi-3": lambda folder, source: checkpoints.make_phi3(folder, llama_source=source),
    "phi-3.5": lambda folder, source: checkpoints.make_phi3(
        folder, llama_source=source, long_rope=True
    ),
    "phi-4": lambda folder, source: checkpoints.make_phi4(folder, llama_source=source),
    "phi-3.5-moe": lambda folder, source: checkpoints.make_phimoe(folder, llama_source=source),
}


@pytest.mark.parametrize("name", MAKERS)
def test_bytes_equal_the_plain_commands(
    name: str, tmp_path: Path, seeded_home: Home, llama_source: Path
) -> None:
    folder = MAKERS[name](tmp_path / f"tiny-{name}", llama_source)
    store = Store(seeded_home.store).open()
    mint = Mint(seeded_home, store, 2, print)
    recipe = Recipe(model=f"tiny-{name}", source=Source(path=str(folder)))
    bundle = build_kernel(seeded_home, store, host_kernel(), print)

    source = fetch_source(mint, recipe, tmp_path)
    fp16 = make_fp16(mint, recipe, source, bundle)
    struck = list(strike_variants(mint, recipe, fp16, bundle, ["Q8_0", "Q4_K_M", "Q2_K"]))

    plain = tmp_path / "plain.gguf"
    convert = llama_source / "convert_hf_to_gguf.py"
    # Phi-3's tokens strip blanks: llama.cpp knows that by the model's name alone.
    chosen = model_name(folder, folder.name)
    assert (chosen is None) == (name in {"phi-2", "phi-4"})
    named = () if chosen is None else ("--model-name", chosen)
    subprocess.run(
        [sys.executable, convert, folder, "--outtype", "f16", "--outfile", plain, *named],
        check=True, capture_output=True,
    )  # fmt: skip
    assert sha256_of(plain) == fp16.blob.sha256
    for made in struck:
        out = tmp_path / f"{made.variant}.gguf"
        subprocess.run(
            [bundle.tool("llama-quantize"), plain, out, made.variant, "2"],
            check=True, capture_output=True,
        )  # fmt: skip
        assert sha256_of(out) == made.blob.sha256, made.variant

    verdict = check_tokens(mint, recipe, source, fp16, bundle)
    assert verdict.passed, verdict.reason
