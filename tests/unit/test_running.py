"""What a model is run on: the kernel that is at hand, the layers that fit, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pulling import model_bytes
from quantmint.errors import UserError
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.native import serving as mint
from quantmint.native.at_hand import GPU_KINDS, gpu_kernels, library_at_hand
from quantmint.native.matrix import Kernel, kernel_named, matrix
from quantmint.native.pin import current_pin
from quantmint.registry import devices, gguf, talking
from quantmint.registry.pull.fitting import Device, Fit
from quantmint.registry.pull.header import shape_of
from quantmint.registry.runtime import passed_on
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile, checkout, put_tree

MIB = 1 << 20
CUDA = kernel_named("cuda")
SOME = "2 of 3 layers fit on CUDA0 (A GPU): the rest runs on the CPU\n"
NO_ROOM = "running on the CPU: not a layer fits on CUDA0 (A GPU), with 104.9 MB of 104.9 MB free\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "x-Q8_0.gguf"
    path.write_bytes(model_bytes())
    return path


def request(model: Path, **own: Any) -> dict[str, Any]:
    return {
        "model": str(model), "files": [str(model)], "context": 4096, "threads": 1,
        "gpu_layers": None, "kernel_name": "cuda", "is_gpu_kernel": True, **own,
    }  # fmt: skip


def gpus(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    found = [Device(f"CUDA{n}", "A GPU", size, size) for n, size in enumerate(free)]
    monkeypatch.setattr(devices, "list_gpus", lambda: found)


def test_a_kernel_without_its_gpu_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus(monkeypatch)
    assert talking.fitted(request(model)).layers == 0
    assert capsys.readouterr().err == "kernel cuda finds no GPU here: running on the CPU\n"
    quiet = request(model, kernel_name="zen4", is_gpu_kernel=False)
    assert talking.fitted(quiet).layers == 0
    assert capsys.readouterr().err == ""  # nobody watches, and all is as it should be


@pytest.mark.parametrize(
    ("free", "layers", "said"),
    [
        (8 << 30, 3, ""),
        (512 * MIB + 8_000_000, 2, SOME),
        (100 * MIB, 0, NO_ROOM),
    ],
)  # fmt: skip
def test_as_many_layers_as_fit(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    free: int, layers: int, said: str,
) -> None:  # fmt: skip
    gpus(monkeypatch, free)
    fit = talking.fitted(request(model))
    assert (fit.layers, fit.most) == (layers, 3)
    assert capsys.readouterr().err == said


def test_a_number_of_layers_that_was_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 8 << 30)
    assert talking.fitted(request(model, gpu_layers=2)).layers == 2
    assert talking.fitted(request(model, gpu_layers=99)).layers == 3
    assert talking.fitted(request(model, gpu_layers=0)).layers == 0


def test_fewer_layers_where_the_gpu_refuses(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def load(options: dict[str, Any]) -> str:
        tried.append(options["n_gpu_layers"])
        if options["n_gpu_layers"] > 10:
            raise ValueError("Failed to create llama_context")
        return "loaded"

    fit = Fit(layers=33, most=33, split=(1, 2))
    assert talking._on_devices(load, request(model), fit) == "loaded"
    assert tried == [33, 22, 14, 9]
    assert capsys.readouterr().err.count("were too many for the GPU") == 3
    with pytest.raises(ValueError, match="broken"):
        talking._on_devices(_broken, request(model), fit)


def _broken(_: dict[str, Any]) -> str:
    raise ValueError("broken")


@pytest.mark.parametrize("context", [4096, 65536, 1 << 26])
def test_the_bound_of_the_memory_leaves_room_for_the_cache(model: Path, context: int) -> None:
    """What `pull` says to fit at a context may be mapped by the process that runs it."""
    header = gguf.read(model)
    needed = model.stat().st_size + shape_of(header).beside_weights(context)
    bound = talking.memory_bound(request(model, context=context))
    assert needed + (16 << 30) <= bound <= needed + (17 << 30)


def test_the_process_gets_what_gpus_need_and_no_secret() -> None:
    given = {"LD_LIBRARY_PATH": "/opt/cuda/lib64", "OMP_NUM_THREADS": "2", "PATH": "/bin",
             "GGML_VK_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1", "ZE_AFFINITY_MASK": "0",
             "HSA_OVERRIDE_GFX_VERSION": "10.3.0", "ROCR_VISIBLE_DEVICES": "0"}  # fmt: skip
    secret = {"HF_TOKEN": "x", "HTTPS_PROXY": "http://u:x@h", "LLAMA_API_KEY": "x",
              "AWS_SECRET_ACCESS_KEY": "x", "LLAMA_ARG_HF_TOKEN": "x"}  # fmt: skip
    assert passed_on(given | secret) == given


def put_bundle(store: Store, kernel: Kernel, *, pin: str = "", mark: bytes = b"") -> Path:
    """Put a bundle by hand: files that are no libraries, and the note of what it was made from."""
    sha = pin or current_pin().sha256
    note = {"kernels": [kernel.name, "x64"], "llama.cpp": {"sha256": sha}}
    contents = {kernel.library: b"library" + mark, "build.json": canonical_json(note)}
    tree = put_tree(store, [TreeFile(name, store.put_bytes(d)) for name, d in contents.items()])
    return checkout(store, tree, kernel.name)


def test_a_bundle_that_was_built_before_is_at_hand(store: Store) -> None:
    assert library_at_hand(store, CUDA) is None
    put_bundle(store, CUDA, pin="a" * 64)
    assert library_at_hand(store, CUDA) is None  # of another llama.cpp
    folder = put_bundle(store, CUDA)
    assert library_at_hand(store, CUDA) == folder / "libggml-cuda.so"
    assert library_at_hand(store, kernel_named("vulkan")) is None
    store.path(store.put_bytes(b"library").sha256).unlink()
    (folder / "libggml-cuda.so").unlink()
    assert library_at_hand(store, CUDA) is None  # it is not whole any more


def test_the_best_kernel_at_hand(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mint, "_built", lambda *args: Path("built") / args[-1].name)
    vulkan = kernel_named("vulkan")
    monkeypatch.setattr(mint, "gpu_kernels", lambda: [CUDA, vulkan])
    host, _ = mint.best_library(home, store, None, gpu=True)
    assert host.kind == "cpu"
    told = capsys.readouterr().err
    assert "its kernel is not built: quantmint kernels build cuda" in told
    put_bundle(store, vulkan)
    assert mint.best_library(home, store, None, gpu=True)[0] == vulkan
    folder = put_bundle(store, CUDA, mark=b"2")
    kernel, library = mint.best_library(home, store, None, gpu=True)
    assert (kernel, library) == (CUDA, folder / CUDA.library)
    assert mint.best_library(home, store, None, gpu=False)[0].kind == "cpu"
    named, library = mint.best_library(home, store, host.name, gpu=True)
    assert (named, library) == (host, Path("built") / host.name)
    with pytest.raises(UserError, match="there is no kernel 'cuba'"):
        mint.best_library(home, store, "cuba", gpu=True)


def test_every_gpu_kernel_of_the_matrix_has_its_rank() -> None:
    for_gpu = {kernel.kind for kernel in matrix() if kernel.force.device is not None}
    assert for_gpu == set(GPU_KINDS)
    assert {kernel.kind for kernel in matrix() if mint.is_for_gpu(kernel)} == set(GPU_KINDS)
    assert all(kernel.kind in GPU_KINDS for kernel in gpu_kernels())
