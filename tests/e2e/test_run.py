"""Running a pulled model: on the mint's kernel, in a process that gets none of our secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fault_tools import TOKEN
from helpers import Ran, run_in, with_template
from pulling import MODEL, OWNER, Publisher, model_bytes, to_folder
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.native.build import MADE_FROM, Bundle
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile, checkout, put_tree
from quantmint.registry.trust_root import TrustRoot
from terminal import Terminal

pytestmark = [pytest.mark.native, pytest.mark.e2e]
ENV = {"OMP_WAIT_POLICY": "PASSIVE", "HF_TOKEN": TOKEN}


def test_a_prompt_is_answered(nano: tuple[Home, Ran], nano_file: Path) -> None:
    home, _ = nano
    ref = f"file:{nano_file}:Q8_0"
    first = run_in(home, "run", ref, "Say hello.", "--max-tokens", "8", "--temperature", "0", **ENV)
    assert first.code == 0, first.err
    assert first.out.strip()
    again = run_in(home, "run", ref, "Say hello.", "--max-tokens", "8", "--temperature", "0", **ENV)
    assert again.out == first.out
    assert TOKEN not in first.out + first.err


def test_without_a_terminal_the_input_is_the_prompt(
    nano: tuple[Home, Ran], nano_file: Path
) -> None:
    home, _ = nano
    words = ["run", f"file:{nano_file}:Q8_0", "--max-tokens", "8", "--temperature", "0"]
    asked = run_in(home, *words[:2], "Say hello.", *words[2:], **ENV)
    piped = subprocess.run(
        [sys.executable, "-m", "quantmint", *words],
        input="Say hello.", env={**ENV, "QUANTMINT_HOME": str(home.root), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout) == (0, asked.out), piped.stderr


def test_a_gpus_kernel_that_does_not_work_here(
    seeded_home: Home, bundle: Bundle, nano: tuple[Home, Ran], nano_file: Path
) -> None:
    assert nano[1].code == 0, nano[1].err
    store = Store(seeded_home.store).open()
    made_from = {**bundle.made_from, "kernels": ["cuda", bundle.kernel.name]}
    added = [TreeFile("libggml-cuda.so", store.put_bytes(b"no library at all")),
             TreeFile(MADE_FROM, store.put_bytes(canonical_json(made_from)))]  # fmt: skip
    own = [file for file in bundle.tree.files if file.path != MADE_FROM]
    checkout(store, put_tree(store, [*own, *added]), "cuda")
    words = ["run", f"file:{nano_file}:Q8_0", "Say hello.", "--max-tokens", "8", "--temperature",
             "0"]  # fmt: skip
    ran = run_in(seeded_home, *words, "--kernel", "cuda", **ENV)
    assert ran.code == 0, ran.err
    assert "kernel cuda finds no GPU here: running on the CPU" in ran.err
    assert ran.out == run_in(seeded_home, *words, **ENV).out


def test_a_kernel_that_this_cpu_can_not_run(nano: tuple[Home, Ran], nano_file: Path) -> None:
    other = "armv8.0" if bundle_is_x64() else "x64"
    ran = run_in(nano[0], "run", f"file:{nano_file}:Q8_0", "hello", "--kernel", other, **ENV)
    assert (ran.code, ran.out) == (2, "")
    assert f"kernel '{other}' can't run on this machine" in ran.err


def bundle_is_x64() -> bool:
    return "x86_64" in host_kernel().machines


def test_a_model_without_a_template_is_not_chatted_with(
    nano: tuple[Home, Ran], nano_file: Path, tmp_path: Path
) -> None:
    folder = with_template(nano_file / "Phi-3-nano-Q8_0.gguf", tmp_path / "plain", None)
    ran = run_in(nano[0], "run", f"file:{folder}", "hello", "--max-tokens", "4", **ENV)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert "has no chat template" in ran.err
    assert "mend: quantmint serve " in ran.err


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ m.content", "TemplateSyntaxError"),
        ("{{ messages[0].nothing.there }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ raise_exception('not like this') }}", "not like this"),
    ],
)
def test_a_template_that_fails_is_told(
    nano: tuple[Home, Ran], nano_file: Path, tmp_path: Path, template: str, told: str
) -> None:
    # A name of its own: pulled models of one name are kept in one folder.
    folder = with_template(
        nano_file / "Phi-3-nano-Q8_0.gguf", tmp_path / f"fails-{told[:4].strip()}", template
    )
    ran = run_in(nano[0], "run", f"file:{folder}", "hello", "--max-tokens", "4", **ENV)
    assert (ran.code, ran.out) == (5, ""), ran.err
    assert "the model's own chat template fails: " in ran.err
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_a_prompt_that_is_longer_than_the_context(nano: tuple[Home, Ran], nano_file: Path) -> None:
    words = ["run", f"file:{nano_file}:Q8_0", "word " * 400, "--context", "128"]
    ran = run_in(nano[0], *words, **ENV)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert "tokens, and the context holds 256" in ran.err


def test_a_talk_goes_on_where_the_context_is_full(nano: tuple[Home, Ran], nano_file: Path) -> None:
    words = ["run", f"file:{nano_file}:Q8_0", "--max-tokens", "24", "--temperature", "0"]
    words += ["--context", "128"]  # 256, as llama.cpp rounds it
    env = {**os.environ, **ENV, "QUANTMINT_HOME": str(nano[0].root), "TERM": "dumb"}
    with Terminal([sys.executable, "-m", "quantmint", *words], env) as terminal:
        for _ in range(6):
            terminal.wait("> ")
            terminal.type("Where is the old library of the town? " * 3 + "\n")
        terminal.wait("> ")
        terminal.type("word " * 300 + "\n")  # alone too long: it is refused, and the talk goes on
        terminal.wait("the context holds 256")
        terminal.wait("> ")
        terminal.type("And who reads there?\n")
        terminal.wait("> ")
        terminal.type("\x04")
        assert terminal.code() == 0, terminal.said
    assert "the context of 256 tokens is full: the oldest" in terminal.said
    assert "Traceback" not in terminal.said


@pytest.fixture
def broken_bindings(tmp_path: Path) -> Path:
    """A llama-cpp-python whose libraries lack those of CUDA, and which says what it was given."""
    package = tmp_path / "site" / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "libllama.so").touch()
    (package / "__init__.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps(dict(os.environ)), file=sys.stderr)\n"
        "raise RuntimeError('Failed to load: libcudart.so.12: cannot open shared object file')\n"
    )
    return package.parent


def with_first(folder: Path) -> str:
    return f"{folder}:{os.environ.get('PYTHONPATH', '')}"


def test_bindings_that_do_not_load(home: Home, broken_bindings: Path, tmp_path: Path) -> None:
    given = {"LD_LIBRARY_PATH": "/opt/cuda/lib64", "OMP_NUM_THREADS": "2", "GGML_CUDA_X": "1",
             "CUDA_VISIBLE_DEVICES": "1", "HSA_OVERRIDE_GFX_VERSION": "10.3.0",
             "ROCR_VISIBLE_DEVICES": "0"}  # fmt: skip
    path = with_first(broken_bindings)
    secrets = {"HF_TOKEN": TOKEN, "LLAMA_API_KEY": TOKEN, "HTTPS_PROXY": f"http://u:{TOKEN}@x"}
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    ran = run_in(home, "run", f"file:{tmp_path / 'plain'}", "hello", PYTHONPATH=path, **given,
                 **secrets)  # fmt: skip
    assert (ran.code, ran.out) == (4, ""), ran.err
    assert "llama-cpp-python does not load: Failed to load: libcudart.so.12" in ran.err
    assert "LD_LIBRARY_PATH" in ran.err.partition("mend: ")[2]
    assert "Traceback" not in ran.err
    (line,) = (text for text in ran.err.splitlines() if text.startswith("{"))
    assert given.items() <= json.loads(line).items()
    assert TOKEN not in line


def test_what_is_here_is_warned_of_each_time(
    home: Home, broken_bindings: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    words = ["run", f"file:{tmp_path / 'plain'}:Q8_0", "hello"]
    for told in ("it has no quantmint manifest", "nobody vouches for it"):
        ran = run_in(home, *words, PYTHONPATH=with_first(broken_bindings))
        assert f"warning: file:{tmp_path / 'plain'}: {told}" in ran.err
    ran = run_in(home, *words, "--memory", "100kB", PYTHONPATH=with_first(broken_bindings))
    assert "warning: Q8_0 needs " in ran.err
    strict = run_in(home, *words, "--strict", PYTHONPATH=with_first(broken_bindings))
    assert strict.code == 5, strict.err


def test_only_what_is_not_here_is_looked_for(
    home: Home, broken_bindings: Path, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    place = tmp_path / "registry" / "Phi-3-nano-GGUF"
    to_folder(place, publisher.files(), "v1", tmp_path / "work")
    assert run_in(home, "pull", f"file:{place}:Q8_0").code == 0
    given = {"PYTHONPATH": with_first(broken_bindings), "QUANTMINT_REGISTRY": ""}
    small = run_in(home, "run", MODEL, "hello", "--memory", "1MB", **given)
    assert small.code == 2
    assert "no variant fits: the smallest, Q8_0, needs" in small.err
    there = {**given, "QUANTMINT_REGISTRY": f"file:{place.parent}"}
    other = run_in(home, "run", MODEL, "hello", "--variant", "Q4_K_M", **there)
    assert other.code == 4  # it was pulled, and the bindings are broken
    assert f"{MODEL}:Q4_K_M release 1" in other.err
    assert (home.models / MODEL / "Phi-3-nano-Q4_K_M.gguf").is_file()


def test_a_model_that_llama_cpp_does_not_load(nano: tuple[Home, Ran], tmp_path: Path) -> None:
    home, _ = nano
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    ran = run_in(home, "run", f"file:{tmp_path / 'plain'}", "hello", **ENV)
    assert ran.code == 4
    assert "error: llama.cpp does not load" in ran.err
    assert "mend: " in ran.err
    assert "Traceback" not in ran.err
