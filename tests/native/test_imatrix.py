"""The importance matrix: llama-imatrix's own bytes, whole after a kill, used by the variants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import checkpoints
from quantmint.assets.convert import Converted, make_fp16
from quantmint.assets.imatrix import calibration_text, make_imatrix
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Imatrix, Recipe, Source
from quantmint.assets.source import fetch_source
from quantmint.assets.variants import strike_variants
from quantmint.errors import BuildError, IntegrityError, UserError
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.native import imatrix
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry import gguf
from quantmint.registry.store import Store

pytestmark = pytest.mark.native
NANO = Source(embedded="phi-3-nano")


def recipe_of(source: Source, chunks: int = 48, context: int = 512) -> Recipe:
    return Recipe(
        model="tiny",
        source=source,
        variants=("Q4_K_M", "IQ2_XS"),
        imatrix=Imatrix(chunks=chunks, context=context),
    )


@pytest.fixture
def mint(seeded_home: Home) -> Mint:
    return Mint(seeded_home, Store(seeded_home.store).open(), 2, print)


def prepare(mint: Mint, recipe: Recipe) -> tuple[Bundle, Converted]:
    bundle = build_kernel(mint.home, mint.store, host_kernel(), print)
    source = fetch_source(mint, recipe, mint.home.root)
    return bundle, make_fp16(mint, recipe, source, bundle)


def by_hand(
    bundle: Bundle, folder: Path, model: Path, text: Path, *options: str, threads: int = 1
) -> Path:
    """Run llama-imatrix in one go, on a copy of the text under the name that it would have."""
    folder.mkdir()
    (folder / text.name).write_bytes(text.read_bytes())
    out = folder / "by-hand.gguf"
    subprocess.run(
        [
            bundle.tool("llama-imatrix"), "-m", model, "--binary-file", text.name, "-o", out,
            "-t", str(threads), *options,
        ],
        cwd=folder, check=True, capture_output=True, env={"OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    return out


def named_text(tmp_path: Path, made: str, data: bytes) -> Path:
    path = tmp_path / made
    path.write_bytes(data)
    return path


def test_the_bytes_of_llama_imatrix_and_of_llama_quantize(mint: Mint, tmp_path: Path) -> None:
    recipe = recipe_of(NANO)
    bundle, fp16 = prepare(mint, recipe)
    text = calibration_text(mint, recipe, tmp_path)
    made = make_imatrix(mint, recipe, fp16, bundle, text)
    assert (made.chunks, made.context, made.partial) == (48, 512, {})
    assert all("output" in name or "token_embd" in name for name in made.uncovered)

    model = mint.store.path(fp16.blob.sha256)
    copy = named_text(tmp_path, text.file_name, mint.store.read(text.blob))
    plain = by_hand(bundle, tmp_path / "hand", model, copy, "-b", "512", "--chunks", "48")
    assert sha256_of(plain) == made.blob.sha256
    assert make_imatrix(mint, recipe, fp16, bundle, text).cached

    struck = list(strike_variants(mint, recipe, fp16, bundle, recipe.variants, imatrix=made.blob))
    without = next(strike_variants(mint, recipe, fp16, bundle, ["Q4_K_M"]))
    assert struck[0].blob != without.blob
    for one in struck:
        path = tmp_path / "hand" / f"{one.variant}.gguf"
        words = [bundle.tool("llama-quantize"), "--imatrix", "imatrix.gguf", model, path]
        (tmp_path / "hand" / "imatrix.gguf").write_bytes(plain.read_bytes())
        subprocess.run(
            [*words, one.variant, "2"], cwd=tmp_path / "hand", check=True, capture_output=True
        )
        assert sha256_of(path) == one.blob.sha256, one.variant
        assert one.header.values["quantize.imatrix.file"] == "imatrix.gguf"
        assert one.header.values["quantize.imatrix.dataset"] == text.file_name
        assert str(mint.home.root).encode() not in path.read_bytes()


def test_a_killed_run_goes_on_and_gives_the_same_bytes(mint: Mint, tmp_path: Path) -> None:
    """Three segments; the child process that makes them is killed once the first one stands."""
    recipe = recipe_of(NANO)
    bundle, fp16 = prepare(mint, recipe)
    text = calibration_text(mint, recipe, tmp_path)
    work = mint.home.work / "imatrix"
    program = dedent("""
        import sys
        from quantmint.assets.mint import open_mint
        from quantmint.assets.recipe import Recipe
        from quantmint.assets.convert import make_fp16
        from quantmint.assets.imatrix import calibration_text, make_imatrix
        from quantmint.assets.source import fetch_source
        from quantmint.native.build import build_kernel
        from quantmint.native.kernels import host_kernel
        from pathlib import Path
        mint = open_mint(print)
        recipe = Recipe.model_validate_json(sys.argv[1])
        bundle = build_kernel(mint.home, mint.store, host_kernel(), print)
        source = fetch_source(mint, recipe, mint.home.root)
        fp16 = make_fp16(mint, recipe, source, bundle)
        make_imatrix(mint, recipe, fp16, bundle, calibration_text(mint, recipe, Path.cwd()))
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", program, recipe.model_dump_json()],
        env={**os.environ, "QUANTMINT_HOME": str(mint.home.root)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(work.glob("*/state-*.gguf")) and time.monotonic() < deadline:
        time.sleep(0.005)
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    (kept,) = work.glob("*/state-*.gguf")

    said: list[str] = []
    made = make_imatrix(replace(mint, report=said.append), recipe, fp16, bundle, text)
    chunks = imatrix.inspect(kept).chunks if kept.exists() else int(kept.stem.partition("-")[2])
    assert 0 < chunks < 48
    assert f"importance matrix: {chunks} chunks were read before" in said
    assert not list(work.glob("*/"))

    copy = named_text(tmp_path, text.file_name, mint.store.read(text.blob))
    model = mint.store.path(fp16.blob.sha256)
    plain = by_hand(
        bundle, tmp_path / "hand", model, copy, "-b", "512", "--chunks", "48", threads=3
    )
    assert sha256_of(plain) == made.blob.sha256


def test_a_torn_state_is_work_to_do_again(mint: Mint, tmp_path: Path) -> None:
    recipe = recipe_of(NANO, chunks=20)
    bundle, fp16 = prepare(mint, recipe)
    text = calibration_text(mint, recipe, tmp_path)
    mint.store.link(text.blob, tmp_path / text.file_name)
    job = imatrix.Collecting(
        model=mint.store.path(fp16.blob.sha256), folder=tmp_path, text=text.file_name,
        chunks=20, context=512, threads=2,
    )  # fmt: skip
    log = tmp_path / "log"
    tokens = imatrix.count_tokens(bundle, job, log=log)
    whole = imatrix.collect(bundle, job, tokens=tokens, report=print, log=log).read_bytes()
    (tmp_path / "state-000020.gguf").write_bytes(whole[: len(whole) // 2])
    again = imatrix.collect(bundle, job, tokens=tokens, report=print, log=log)
    assert again.read_bytes() == whole


def test_a_text_that_is_too_short(mint: Mint, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("One line.\n")
    recipe = recipe_of(NANO).model_copy(update={"imatrix": Imatrix(text="short.txt")})
    bundle, fp16 = prepare(mint, recipe)
    text = calibration_text(mint, recipe, tmp_path)
    with pytest.raises(UserError, match="at least 1024 are needed") as refused:
        make_imatrix(mint, recipe, fp16, bundle, text)
    assert refused.value.mend


def edit_weights(folder: Path, edit: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Rewrite the checkpoint's weights as float32."""
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_an_expert_that_sees_no_token(mint: Mint, tmp_path: Path, llama_source: Path) -> None:
    """Its weights count alike, as in llama-quantize; the variants are struck all the same."""
    folder = checkpoints.make_phimoe(tmp_path / "tiny-moe", llama_source=llama_source, experts=16)

    def mute(weights: dict[str, np.ndarray]) -> None:
        """With a router row of zeros an expert is among the best two of sixteen hardly ever."""
        weights["model.layers.1.block_sparse_moe.gate.weight"][3] = 0

    edit_weights(folder, mute)
    recipe = recipe_of(Source(path=str(folder)), chunks=2, context=64)
    bundle, fp16 = prepare(mint, recipe)
    made = make_imatrix(mint, recipe, fp16, bundle, calibration_text(mint, recipe, tmp_path))
    silent = {f"blk.1.ffn_{part}_exps.weight" for part in ("gate", "up", "down")}
    assert set(made.partial) >= silent
    struck = list(strike_variants(mint, recipe, fp16, bundle, recipe.variants, imatrix=made.blob))
    for one in struck:
        path = tmp_path / f"{one.variant}.gguf"
        (tmp_path / "imatrix.gguf").write_bytes(mint.store.path(made.blob.sha256).read_bytes())
        source = mint.store.path(fp16.blob.sha256)
        words = [bundle.tool("llama-quantize"), "--imatrix", "imatrix.gguf", source, path]
        subprocess.run([*words, one.variant, "2"], cwd=tmp_path, check=True, capture_output=True)
        assert sha256_of(path) == one.blob.sha256


def test_activations_that_are_not_finite(mint: Mint, tmp_path: Path, llama_source: Path) -> None:
    folder = checkpoints.make_phi3(tmp_path / "tiny-phi3", llama_source=llama_source)

    def overflow(weights: dict[str, np.ndarray]) -> None:
        weights["model.layers.0.input_layernorm.weight"][:] = np.inf

    edit_weights(folder, overflow)
    recipe = recipe_of(Source(path=str(folder)), chunks=2, context=64)
    bundle, fp16 = prepare(mint, recipe)
    text = calibration_text(mint, recipe, tmp_path)
    with pytest.raises(IntegrityError, match="not finite"):
        make_imatrix(mint, recipe, fp16, bundle, text)


def test_a_tool_that_fails_without_a_word_is_run_again(mint: Mint, tmp_path: Path) -> None:
    """Its reasons come from a thread that its exit does not wait for: they may be lost."""
    recipe = recipe_of(NANO, chunks=2, context=64)
    bundle, fp16 = prepare(mint, recipe)
    folder, real = tmp_path / "bundle", bundle.folder.absolute()
    folder.mkdir()
    for path in real.iterdir():
        if path.name != "llama-imatrix":
            (folder / path.name).symlink_to(path)
    tool, seen = folder / "llama-imatrix", tmp_path / "seen"
    text = calibration_text(mint, recipe, tmp_path)
    tool.write_text(f'#!/bin/sh\necho x >> {seen}\n[ $(wc -l < {seen}) -gt 2 ] || exit 1\n'
                    f'exec {real}/llama-imatrix "$@"\n')  # fmt: skip
    tool.chmod(0o755)
    make_imatrix(mint, recipe, fp16, replace(bundle, folder=folder), text)
    assert seen.read_text().count("x") == 3
    # A reason that was said is believed at once.
    seen.unlink()
    tool.write_text(f"#!/bin/sh\necho x >> {seen}\necho '0.00.34 E no such thing' >&2\nexit 1\n")
    other = recipe_of(NANO, chunks=3, context=64)
    with pytest.raises(BuildError, match="no such thing"):
        make_imatrix(mint, other, fp16, replace(bundle, folder=folder), text)
    assert seen.read_text().count("x") == 1


@pytest.mark.parametrize("tokens", [1024, 1100, 8192, 8193, 9216, 10_000, 54_661, 10**6])
@pytest.mark.parametrize("chunks", [1, 2, 16, 17, 18, 100])
def test_segments_tile_what_is_read(chunks: int, tokens: int) -> None:
    plan = imatrix.segments(chunks, 512, tokens)
    assert [start for start, _ in plan] == [sum(n for _, n in plan[:at]) for at in range(len(plan))]
    assert sum(n for _, n in plan) == min(chunks, tokens // 512)
    # The tool refuses to begin with two chunks left, or fewer.
    assert all(start == 0 or (start + 2) * 512 < tokens for start, _ in plan)


def test_what_is_no_matrix(tmp_path: Path, mint: Mint) -> None:
    recipe = recipe_of(NANO)
    _, fp16 = prepare(mint, recipe)
    with pytest.raises(IntegrityError, match="no importance matrix"):
        imatrix.inspect(mint.store.path(fp16.blob.sha256))
    (tmp_path / "x.gguf").write_bytes(json.dumps({"a": 1}).encode() * 9)
    with pytest.raises(gguf.GgufError):
        imatrix.inspect(tmp_path / "x.gguf")
