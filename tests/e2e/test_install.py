"""The built wheel in a clean environment: the light base, without the mint."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers import ROOT
from pulling import MODEL, Publisher, to_folder

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the base install alone."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run(
        [folder / "bin/pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "bin"


def test_the_wheel_holds_one_import_package_with_real_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"quantmint"}
    for needed in (
        "quantmint/pipelines/models/phi-3-nano.yaml",
        "quantmint/native/kernels.yaml",
        "quantmint/native/one_kernel.cmake",
        "quantmint/assets/embedded/phi-3-nano/model.safetensors",
        "quantmint/assets/embedded/texts/assay.txt",
        "quantmint/py.typed",
    ):
        assert needed in names


def test_the_base_runs_without_the_mint(clean: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        [clean / "pip", "list", "--format", "json"], check=True, capture_output=True
    ).stdout
    present = {row["name"].lower() for row in json.loads(listed)}
    assert not {"dagster", "mlflow", "torch", "llama-cpp-python", "numpy"} & present
    said = subprocess.run([clean / "quantmint", "--help"], check=True, capture_output=True)
    assert b"build" in said.stdout
    ran = subprocess.run(
        [clean / "quantmint", "verify"],
        env={"QUANTMINT_HOME": str(tmp_path)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.strip() == "0 objects, 0 faults"
    made = subprocess.run(
        [clean / "quantmint", "keys", "new"],
        env={"QUANTMINT_HOME": str(tmp_path)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert made.stdout.startswith("key release ")


def test_the_base_pulls_and_lives_with_what_it_pulled(clean: Path, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "publisher")
    files = publisher.files()
    root = tmp_path / "registry" / "Phi-3-nano-GGUF"
    to_folder(root, files, "v1", tmp_path / "work")
    env = {"QUANTMINT_HOME": str(tmp_path / "home"),
           "QUANTMINT_REGISTRY": f"file:{root.parent}"}  # fmt: skip

    def said(*words: str, code: int = 0) -> str:
        ran = subprocess.run([clean / "quantmint", *words], env=env, capture_output=True,
                             text=True, check=False)  # fmt: skip
        assert ran.returncode == code, ran.stderr
        assert "Traceback" not in ran.stderr
        return ran.stdout if code == 0 else ran.stderr

    said("keys", "trust", publisher.key.public.text, "--for", "my-org/*")
    path = Path(said("pull", MODEL, "--strict", "--memory", "3GB").strip())
    assert path.read_bytes() == files["Phi-3-nano-Q4_K_M.gguf"]
    assert f"{MODEL}:Q4_K_M" in said("list")
    assert "made from" in said("show", MODEL)
    assert "FROM " in said("show", MODEL, "--modelfile")
    assert "up to date" in said("outdated")
    assert "sound; signed" in said("verify", MODEL)
    archive = said("export", MODEL, "-o", str(tmp_path / "one.tar")).strip()
    said("rm", MODEL)
    said("gc", "--older-than", "0")
    assert said("import", archive, "--strict").strip() == str(path)
    assert "llama-cpp-python is not installed" in said("run", MODEL, "hello", code=2)
    assert "llama-cpp-python is not installed" in said("serve", MODEL, code=2)


def test_a_command_of_the_mint_says_what_to_install(clean: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [clean / "quantmint", "build", "phi-3-nano"],
        env={"QUANTMINT_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "quantmint[build]" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_module_imports_under_its_one_name() -> None:
    """No module of ours is importable as `assets`, `native`, `pipelines` or `registry`."""
    code = "import quantmint.assets, quantmint.native, quantmint.pipelines, quantmint.registry"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
    for name in ("assets", "native", "pipelines", "registry"):
        ran = subprocess.run([sys.executable, "-c", f"import {name}"], cwd="/", check=False,
                             capture_output=True)  # fmt: skip
        assert ran.returncode != 0, name
