"""Every Phi architecture passes the conversion checks; each broken file fails the one meant for it.

The checks see the files that the converter wrote, with the named damage and no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import broken
import checkpoints
from helpers import seed
from quantmint.assets.conversion import logits
from quantmint.assets.conversion.checks import CHECKS, check_conversion
from quantmint.assets.conversion.logits import check_logits
from quantmint.assets.conversion.template import check_template
from quantmint.assets.conversion.tokens import check_tokens
from quantmint.assets.conversion.weights import check_weights
from quantmint.assets.convert import Converted, make_fp16
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe, Source
from quantmint.assets.source import SourceWeights, fetch_source
from quantmint.assets.verdict import Verdict
from quantmint.home import Home
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

pytestmark = pytest.mark.native
Ready = tuple[Mint, Recipe, SourceWeights, Converted, Bundle]


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle) -> Mint:
    """One home for all: what the source says is asked once."""
    home = seed(Home(tmp_path_factory.mktemp("conversion") / "home"), built_home)
    return Mint(home, Store(home.store).open(), 2, print)


def ready(mint: Mint, source: Source, model: str = "tiny") -> Ready:
    recipe = Recipe(model=model, source=source)
    bundle = build_kernel(mint.home, mint.store, host_kernel(), print)
    found = fetch_source(mint, recipe, mint.home.root)
    return mint, recipe, found, make_fp16(mint, recipe, found, bundle), bundle


def nano(mint: Mint) -> Ready:
    return ready(mint, Source(embedded="phi-3-nano"), "phi-3-nano")


def without_bundle(check: Callable[..., Verdict], at: Ready, made: Converted) -> Verdict:
    mint, recipe, source, _, bundle = at
    if check is check_weights:
        return check(mint, recipe, source, made)
    return check(mint, recipe, source, made, bundle)


def test_phi_3_nano_passes_all_and_is_judged_once(mint: Mint) -> None:
    at = nano(mint)
    verdicts = check_conversion(*at)
    assert [verdict.check for verdict in verdicts] == list(CHECKS)
    assert all(verdict.passed and verdict.made for verdict in verdicts), verdicts
    facts = {name: value for verdict in verdicts for name, value in verdict.facts.items()}
    assert facts["nmse_short"] < 1e-6
    assert facts["nmse_long"] < 1e-6
    assert facts["differing"] == 0
    assert facts["conversations"] == 7
    assert facts["by_llama_cpp"] == 3
    logs = list((mint.home.logs / "phi-3-nano").iterdir())
    for log in logs:
        log.unlink()
    assert check_conversion(*at) == verdicts
    assert not list((mint.home.logs / "phi-3-nano").iterdir())  # no child was asked again


ARCHITECTURES: dict[str, Callable[[Path, Path], Path]] = {
    "phi-2": lambda folder, source: checkpoints.make_phi2(folder, llama_source=source),
    "phi-3.5": lambda folder, source: checkpoints.make_phi3(
        folder, llama_source=source, long_rope=True
    ),
    "phi-4-mini": lambda folder, source: checkpoints.make_phi4(
        folder, llama_source=source, mini=True
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_pass(name: str, mint: Mint, tmp_path: Path, llama_source: Path) -> None:
    folder = ARCHITECTURES[name](tmp_path / f"tiny-{name}", llama_source)
    verdicts = check_conversion(*ready(mint, Source(path=str(folder))))
    assert all(verdict.passed and verdict.made for verdict in verdicts), verdicts


BROKEN: list[tuple[str, Callable[..., Verdict], Callable[[Store, Converted], Converted], str]] = [
    (
        "a zeroed tensor", check_weights,
        lambda store, made: broken.zeroed(store, made, "blk.2.ffn_down.weight"),
        r"blk\.2\.ffn_down\.weight: \d+ of \d+ weights differ",
    ),
    (
        "a zeroed tensor", check_logits,
        lambda store, made: broken.zeroed(store, made, "blk.2.ffn_down.weight"),
        "not the source's: short RoPE: NMSE",
    ),
    (
        "two tensors swapped", check_weights,
        lambda store, made: broken.swapped(
            store, made, "blk.0.attn_qkv.weight", "blk.1.attn_qkv.weight"
        ),
        "2 tensors or settings are not the source's",
    ),
    (
        "a wrong rotary base", check_logits,
        lambda store, made: broken.with_number(store, made, "phi3.rope.freq_base", 20_000.0),
        "not the source's: short RoPE: NMSE",
    ),
    (
        "wrong long factors", check_weights,
        lambda store, made: broken.with_floats(store, made, "rope_factors_long.weight", 1.5),
        r"rope_factors_long\.weight holds other factors",
    ),
    (
        "wrong long factors", check_logits,
        lambda store, made: broken.with_floats(store, made, "rope_factors_long.weight", 1.5),
        "not the source's: short RoPE: NMSE",
    ),
    (
        "a wrong template", check_template,
        lambda store, made: broken.with_text(store, made, "'<|end|>", "'<|emd|>"),
        "the chat template's sha256 is",
    ),
    (
        "a name by which llama.cpp strips no blank", check_template,
        lambda store, made: broken.with_text(store, made, "phi-3-nano", "phi-x-nano"),
        "becomes other token ids than in the source",
    ),
    (
        "two tokens swapped", check_tokens,
        lambda store, made: broken.with_text(store, made, "<|placeholder1|>", "<|placeholder9|>"),
        "token ids differ in",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "check", "damage", "said"),
    [pytest.param(*row, id=f"{row[0]} / {row[1].__name__}") for row in BROKEN],
)
def test_broken_files_fail_the_check_meant_for_them(
    mint: Mint,
    what: str,
    check: Callable[..., Verdict],
    damage: Callable[[Store, Converted], Converted],
    said: str,
) -> None:
    at = nano(mint)
    made = damage(mint.store, at[3])
    assert made.blob != at[3].blob, what
    verdict = without_bundle(check, at, made)
    assert verdict.refuses, verdict
    assert verdict.reason.count("\n  mend: ") == 1
    assert re.search(said, verdict.reason), verdict.reason


def test_a_wrong_tokenizer_class(mint: Mint, tmp_path: Path, llama_source: Path) -> None:
    folder = checkpoints.make_llama_with_a_wrong_tokenizer(
        tmp_path / "wrong", llama_source=llama_source
    )
    verdict = check_tokens(*ready(mint, Source(path=str(folder))))
    assert verdict.refuses
    assert "tokenizer_config.json" in verdict.reason


def test_a_checkpoint_too_large_for_transformers(
    mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and nothing of it is remembered: a larger machine makes the check."""
    at = nano(mint)
    made = broken.zeroed(mint.store, at[3], "blk.3.attn_output.weight")
    monkeypatch.setattr(logits, "memory_budget", lambda: 1_000_000)
    verdict = without_bundle(check_logits, at, made)
    assert (verdict.passed, verdict.made, verdict.refuses) == (False, False, False)
    assert "22.3 MB of memory, and 1.0 MB may be used" in verdict.reason
    monkeypatch.undo()
    assert without_bundle(check_logits, at, made).refuses


def test_a_gguf_source_has_nothing_to_compare_with(mint: Mint) -> None:
    at = nano(mint)
    source = Source(gguf=str(mint.store.path(at[3].blob.sha256)))
    verdicts = {verdict.check: verdict for verdict in check_conversion(*ready(mint, source))}
    assert verdicts["tokenizer"].passed
    for name in ("template", "weights", "logits"):
        assert not verdicts[name].made
        assert "GGUF file" in verdicts[name].reason


def test_general_name_follows_the_tokenizer(mint: Mint, tmp_path: Path, llama_source: Path) -> None:
    """A Phi-3 tokenizer strips blanks after its tokens, whatever the folder is called."""
    folder = checkpoints.make_phi3(tmp_path / "my-model", llama_source=llama_source)
    at = ready(mint, Source(path=str(folder)))
    assert at[3].header.values["general.name"] == "my-model (phi-3 tokens)"
    assert check_template(*at).passed

    path = folder / "tokenizer.json"
    value = json.loads(path.read_bytes())
    for token in value["added_tokens"]:
        token["rstrip"] = False
    path.write_text(json.dumps(value))
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    for token in config["added_tokens_decoder"].values():
        token["rstrip"] = False
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    other = folder.rename(tmp_path / "phi3-tuned")
    at = ready(mint, Source(path=str(other)))
    assert at[3].header.values["general.name"] == "phi 3-tuned"
    verdict = check_tokens(*at)
    assert verdict.passed, verdict.reason
    assert verdict.facts["differing"] == 0
