"""Other programs find what was pulled, and we what they have: without a second copy on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import run_in
from hub import Hub
from quantmint.home import Home
from quantmint.native.build import Bundle
from quantmint.process import Command, Finished, Limits, run
from quantmint.registry.store import ATTRIBUTE, Store

pytestmark = [pytest.mark.native, pytest.mark.e2e]
REPO, NAME = "somebody/Phi-3-nano-GGUF", "Phi-3-nano-Q4_K_M.gguf"


@pytest.fixture
def hub(nano_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        names = ("Q4_K_M", "Q2_K")
        files = [nano_file / f"Phi-3-nano-{name}.gguf" for name in names]
        running.add(REPO).commit({path.name: path.read_bytes() for path in files})
        for name, value in {
            "HF_ENDPOINT": running.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": "",
            "HF_HUB_DISABLE_XET": "1", "LMSTUDIO_MODELS": str(tmp_path / "lm"),
            "OLLAMA_MODELS": str(tmp_path / "ollama"), "OMP_WAIT_POLICY": "PASSIVE",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield running


def completion(bundle: Bundle, *words: str | Path, **env: str) -> Finished:
    quiet = ("-n", "2", "-p", "def", "-no-cnv", "--no-warmup", "-c", "64", "--log-disable")
    argv = [*bundle.command("llama-completion"), *words, *quiet]
    command = Command(argv=argv, env=env, limits=Limits(wall_seconds=120),
                      pass_env=("HF_ENDPOINT", "HF_HUB_CACHE", "OMP_WAIT_POLICY"))  # fmt: skip
    return run(command, check=False)


def is_shared(store: Store, path: Path, sha256: str) -> bool:
    """Whether a file takes no room of its own: another name of the object, or its clone."""
    return path.samefile(store.path(sha256)) or os.getxattr(path, ATTRIBUTE) == sha256.encode()


def test_every_program_is_served_from_one_copy(
    hub: Hub, home: Home, bundle: Bundle, tmp_path: Path
) -> None:
    ran = run_in(home, "pull", f"{REPO}:Q4_K_M", "--lm-studio", "--ollama", "--hub-cache", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    path, lm, ollama, cached = (Path(each) for each in (told["path"], *told["also"]))
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    store = Store(home.store)
    assert lm == tmp_path / "lm" / REPO / NAME
    assert ollama == tmp_path / "ollama" / "blobs" / f"sha256-{sha}"
    snapshots = tmp_path / "cache" / f"models--{REPO.replace('/', '--')}" / "snapshots"
    assert cached == snapshots / told["commit"] / NAME
    for each in (path, lm, ollama, cached.resolve()):
        assert is_shared(store, each, sha), each
    assert completion(bundle, "-m", path).code == 0
    hub.log.clear()
    # llama.cpp itself finds it in the cache: nobody is asked for its bytes.
    ran_hf = completion(bundle, "-hf", f"{REPO}:Q4_K_M", "--offline")
    assert ran_hf.code == 0, ran_hf.last_lines
    assert [seen for seen in hub.log if seen.path.endswith(".gguf")] == []
    made = run_in(home, "show", f"{REPO}:Q4_K_M", "--modelfile").out.splitlines()
    assert made[0] == f"FROM {path}"
    assert made[1].startswith('TEMPLATE """{{ if .System }}<|system|>\n'.partition("\n")[0])
    assert 'PARAMETER stop "<|end|>"' in made


def test_the_hubs_own_client_finds_a_sound_cache(hub: Hub, home: Home, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    for variant in ("Q4_K_M", "Q2_K"):
        ran = run_in(home, "pull", f"{REPO}:{variant}", "--hub-cache")
        assert ran.code == 0, ran.err
    cache = tmp_path / "cache"
    scanned = scan_cache_dir(cache)
    assert scanned.warnings == []
    (repo,) = scanned.repos
    assert (repo.repo_id, repo.nb_files) == (REPO, 2)
    found = hf_hub_download(REPO, NAME, cache_dir=cache, local_files_only=True)
    assert Path(found).read_bytes() == (home.models / REPO / NAME).read_bytes()


def test_what_llama_cpp_fetched_is_not_fetched_again(
    hub: Hub, home: Home, bundle: Bundle, tmp_path: Path
) -> None:
    ran = completion(bundle, "-hf", f"{REPO}:Q4_K_M")
    assert ran.code == 0, ran.last_lines
    hub.log.clear()
    pulled = run_in(home, "pull", f"{REPO}:Q4_K_M", "--json")
    assert pulled.code == 0, pulled.err
    told = json.loads(pulled.out)
    assert (told["adopted"], told["fetched"]) == ([NAME], 0)
    # One header was read, to choose by; the model itself was here.
    asked = [seen for seen in hub.log if seen.path.endswith(NAME)]
    assert {seen.range for seen in asked} == {"bytes=0-1048575"}
    assert Path(told["path"]).is_file()
