"""A published repository in llama.cpp's own hands: `-hf` fetches the variant that was asked for."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from hub import Hub
from publishing import CARD
from quantmint.files import sha256_of
from quantmint.native.build import Bundle
from quantmint.process import Command, Finished, Limits, run
from quantmint.registry.publish import FileSet, Options, Release, hub_target, publish
from quantmint.registry.store import Store

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]
VARIANTS = ("Q2_K", "Q4_K_M")
REPO = "org/Phi-3-nano-GGUF"


def completion(bundle: Bundle, *words: str | Path, **env: str) -> Finished:
    """Let the model say two words."""
    quiet = ("-n", "2", "-p", "def", "-no-cnv", "--no-warmup", "-c", "64", "--log-disable")
    argv = [*bundle.command("llama-completion"), *words, *quiet]
    limits = Limits(wall_seconds=120)
    return run(Command(argv=argv, env={"OMP_WAIT_POLICY": "PASSIVE", **env}, limits=limits),
               check=False)  # fmt: skip


def test_llama_cpp_runs_what_was_published(
    nano_file: Path, bundle: Bundle, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process the client's chunk cache would be the user's own.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    files = {name: nano_file / f"Phi-3-nano-{name}.gguf" for name in VARIANTS}
    content = {path.name: store.put(path) for path in files.values()}
    release = FileSet.of(store, {**content, "README.md": CARD.encode(), "quantmint.json": b"{}"})
    tested = []

    def smoke(path: str, local: Path) -> None:
        if path.endswith(".gguf"):
            tested.append(path)
            assert completion(bundle, "-m", local).code == 0

    with Hub() as hub:
        target = hub_target(REPO, endpoint=hub.url, token="hf_test")
        publish(Release(name="v1", files=release), target, smoke=smoke,
                options=Options(work=tmp_path / "work"))  # fmt: skip
        assert sorted(tested) == sorted(content)
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        for tag, variant in (("Q2_K", "Q2_K"), ("q2_k", "Q2_K"), ("", "Q4_K_M")):
            hub.log.clear()
            ran = completion(bundle, "-hf", f"{REPO}:{tag}" if tag else REPO, **env)
            assert ran.code == 0, ran.last_lines
            asked = {Path(seen.path).name for seen in hub.log if seen.path.endswith(".gguf")}
            assert asked <= {files[variant].name}
            (kept,) = (tmp_path / "cache").rglob(f"snapshots/*/{files[variant].name}")
            assert sha256_of(kept) == sha256_of(files[variant])
        assert completion(bundle, "-hf", f"{REPO}:Q5_K_M", **env).code != 0
