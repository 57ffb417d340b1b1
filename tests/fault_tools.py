"""What the fault tests share: model files, small checkpoints, and what must never be left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers import Ran
from quantmint.home import Home
from quantmint.registry.store import Store

TOKEN = "hf_" + "S3cretS3cretS3cretS3cretS3cretS3cr"
Build = Callable[..., Ran]


def know_only(hub: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and those that it starts be a client that knows no Hub but this one."""
    for name, value in {
        "HF_ENDPOINT": hub, "HF_HOME": str(folder / "hf"), "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def write_model(folder: Path, source: str, **own: str) -> Path:
    """Write a model file whose values are given as YAML; return its path."""
    rows = {"model": "test-model", "title": "Test", "source": source, "variants": "[Q8_0]", **own}
    path = folder / "test-model.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in rows.items()))
    return path


def small_checkpoint(folder: Path, architecture: str = "Phi3ForCausalLM") -> Path:
    """Write what a source check reads: config, tokenizer and one shard. It does not convert."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": [architecture], "model_type": "phi3", "hidden_size": 256}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    rng = np.random.default_rng(1)
    save_file({"w": rng.random((256, 256), np.float32)}, folder / "model.safetensors")
    return folder


def assert_nothing_half_made(home: Home) -> None:
    """No damaged object, no file under a public name, an empty staging area."""
    store = Store(home.store).open()
    assert list(store.verify()) == []
    assert list(store.staging.iterdir()) == []
    found = [path for path in home.models.rglob("*") if path.is_file()]
    assert found == []


def assert_clear(ran: Ran, code: int, *said: str) -> None:
    """One message with a mend and the right exit code, and no traceback."""
    assert ran.code == code, ran.err
    for words in said:
        assert words in ran.err, ran.err
    assert ran.err.count("error: ") == 1 or "\nerror: " in ran.err
    assert "\n  mend: " in ran.err
    assert "Traceback" not in ran.err, ran.err
    assert TOKEN not in ran.out + ran.err
