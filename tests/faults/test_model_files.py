"""Mistakes in model files, checkpoints and on the machine: refused clearly, mended, built on."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import make_llama_with_a_wrong_tokenizer, make_phi3
from fault_tools import Build, assert_clear, assert_nothing_half_made, small_checkpoint, write_model
from helpers import mounted, run_in
from quantmint.home import Home
from quantmint.native.pin import current_pin
from quantmint.registry.store import Store

Change = Callable[[Path], None]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"familly": "phi3"}, "unknown key 'familly'; did you mean 'family'?"),
        ({"variants": "[Q4_KM]"}, "there is no variant 'Q4_KM'; did you mean 'Q4_K_M'?"),
        ({"assay": "{kernels: [zen5]}"}, "there is no kernel 'zen5'; did you mean 'zen4'?"),
        ({"source": "{}"}, "a source is exactly one of hub, path, gguf and embedded"),
        ({"source": "{path: ./nowhere}"}, "nowhere is no folder"),
        ({"source": "{gguf: ./nowhere.gguf}"}, "nowhere.gguf is no file"),
    ],
)
def test_mistakes_in_the_model_file(
    build: Build, tmp_path: Path, seeded_home: Home, own: dict[str, str], said: str
) -> None:
    ran = build(write_model(tmp_path, **{"source": "{path: .}", **own}))
    assert_clear(ran, 2, said)
    assert_nothing_half_made(seeded_home)


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def corrupt(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[20:24] = b"\0\0\0\0"
    path.write_bytes(data)


CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "no checkpoint": (lambda f: (f / "config.json").unlink(), "is no checkpoint"),
    "a cut shard": (cut, "model.safetensors is no whole safetensors file"),
    "a corrupt shard": (corrupt, "model.safetensors is no whole safetensors file"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_bad_checkpoint(build: Build, tmp_path: Path, seeded_home: Home, name: str) -> None:
    change, said = CHECKPOINTS[name]
    change(small_checkpoint(tmp_path / "c"))
    ran = build(write_model(tmp_path, "{path: c}"))
    assert_clear(ran, 3, said)
    assert_nothing_half_made(seeded_home)


def test_a_wrong_tokenizer_class_is_refused_by_the_check_and_mended(
    build: Build, tmp_path: Path, seeded_home: Home, llama_source: Path
) -> None:
    """It converts without an error: only a test of the result finds it."""
    folder = make_phi3(tmp_path / "c", llama_source=llama_source)
    (folder / "tokenizer.json").unlink()
    path = folder / "tokenizer_config.json"
    right = path.read_bytes()
    path.write_text(json.dumps({**json.loads(right), "tokenizer_class": "BertTokenizer"}))
    model = write_model(tmp_path, "{path: c}", gates="{chat: false, max_ppl_ratio: 9.0}",
                        assay="{chunks: 2, contexts: [128]}")  # fmt: skip
    ran = build(model)
    assert_clear(ran, 5, "names BertTokenizer, which does not read tokenizer.model")
    assert_nothing_half_made(seeded_home)
    path.write_bytes(right)
    ran = build(model)
    assert ran.code == 0, ran.err
    assert (seeded_home.models / "test-model" / "Test-Q8_0.gguf").is_file()


def test_a_file_that_converts_and_then_cannot_tokenize_is_refused(
    build: Build, tmp_path: Path, seeded_home: Home, llama_source: Path
) -> None:
    make_llama_with_a_wrong_tokenizer(tmp_path / "c", llama_source=llama_source)
    ran = build(write_model(tmp_path, "{path: c}"))
    assert_clear(ran, 5, "tokenizer:", "tokenizer class")
    assert_nothing_half_made(seeded_home)


def bare_path(tmp_path: Path) -> str:
    """A PATH that has what a shell has, but no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "env", "uname"):
        (folder / tool).symlink_to(shutil.which(tool) or "/bin/false")
    return str(folder)


def test_no_compiler(home: Home, tmp_path: Path) -> None:
    env = {"PATH": bare_path(tmp_path)}
    ran = run_in(home, "kernels", "build", **env)
    assert_clear(ran, 4, "no C++ compiler was found", "apt-get install g++")
    assert_nothing_half_made(home)
    ran = run_in(home, "doctor", **env)
    assert_clear(ran, 4, "missing: C++ compiler")


def test_no_network_for_llama_cpp(home: Home, tmp_path: Path) -> None:
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_FIND_LINKS": "",
           "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_EXTRA_INDEX_URL": "",
           "QUANTMINT_LLAMA_SDIST": ""}  # fmt: skip
    ran = run_in(home, "kernels", "build", **env)
    assert_clear(ran, 3, "could not be fetched", "QUANTMINT_LLAMA_SDIST", "check the network")
    assert_nothing_half_made(home)
    ran = run_in(home, "kernels", "build", QUANTMINT_LLAMA_SDIST=str(tmp_path / "none.tar.gz"))
    assert_clear(ran, 3, "can't be read: No such file")
    (tmp_path / "other.tar.gz").write_bytes(b"other bytes")
    ran = run_in(home, "kernels", "build", QUANTMINT_LLAMA_SDIST=str(tmp_path / "other.tar.gz"))
    assert_clear(ran, 5, "not the pinned")
    assert_nothing_half_made(home)


def test_no_disk_space_for_the_source(built_home: Home, llama_source: Path, tmp_path: Path) -> None:
    sdist = Store(built_home.store).path(current_pin().sha256)
    with mounted(tmp_path / "disk", "8m") as disk:
        home = Home(disk / "home")
        ran = run_in(home, "kernels", "build", QUANTMINT_LLAMA_SDIST=str(sdist))
        assert_clear(ran, 2, "no space left on the disk", "QUANTMINT_HOME")
        assert_nothing_half_made(home)


def test_no_disk_space_for_the_weights(built_home: Home, bundle: object, tmp_path: Path) -> None:
    """The bundle fits, the checkpoint does not: said before anything is copied."""
    with mounted(tmp_path / "disk", "700m") as disk:
        home = Home(disk / "home")
        copy_seed(home, built_home)
        folder = small_checkpoint(tmp_path / "c")
        size = shutil.disk_usage(disk).free
        header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4],
                                   "data_offsets": [0, size // 4 * 4]}}).encode()  # fmt: skip
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size // 4 * 4)
        model = write_model(tmp_path, "{path: c}")
        ran = run_in(home, "build", model, QUANTMINT_TRACKING="off")
        assert_clear(ran, 2, "no space left on the disk", "needed", "QUANTMINT_HOME")
        assert_nothing_half_made(home)


def too_large(folder: str, names: list[str]) -> set[str]:
    """Leave out what other kernels' bundles bring along: a CUDA kernel's libraries, say."""
    return {name for name in names if (Path(folder) / name).stat().st_size > 100 << 20}


def copy_seed(home: Home, built_home: Home) -> None:
    """Links can't cross disks: copy the smallest part of a built home."""
    home.store.mkdir(parents=True)
    for name in ("objects", "actions"):
        shutil.copytree(built_home.store / name, home.store / name, ignore=too_large)
    home.work.mkdir()
    for tree in built_home.work.glob("llama.cpp-*"):
        (home.work / tree.name).symlink_to(tree)
