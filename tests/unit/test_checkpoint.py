"""Checkpoint folders: refused by config and by names before any weight, then by content."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantmint.assets.sources import checkpoint
from quantmint.errors import BugError, SourceError, UserError

KNOWN = frozenset({"Phi3ForCausalLM", "PhiForCausalLM", "PhiMoEForCausalLM", "LlamaForCausalLM"})
GOOD = ["config.json", "model.safetensors", "tokenizer.model"]


def config(architecture: object, model_type: str = "phi3") -> dict[str, object]:
    return {"architectures": [architecture], "model_type": model_type}


def test_a_known_architecture_passes() -> None:
    assert checkpoint.check_config(config("Phi3ForCausalLM"), "phi3", KNOWN) == "Phi3ForCausalLM"
    assert checkpoint.check_config(config("PhiForCausalLM"), None, KNOWN) == "PhiForCausalLM"


@pytest.mark.parametrize("name", ["Phi3VForCausalLM", "Phi3SmallForCausalLM"])
def test_an_unknown_architecture_names_the_nearest(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        checkpoint.check_config(config(name), "phi3", KNOWN)
    assert name in caught.value.what
    assert "nearest supported: Phi3ForCausalLM" in caught.value.what
    assert "no weight was fetched" in str(caught.value)


def test_nothing_near_says_none() -> None:
    with pytest.raises(SourceError, match="nearest supported: none"):
        checkpoint.check_config(config("ZZZ"), None, KNOWN)


def test_another_family_is_the_model_files_mistake() -> None:
    with pytest.raises(UserError, match=r"says family 'phi', config.json says 'phi3'"):
        checkpoint.check_config(config("Phi3ForCausalLM"), "phi", KNOWN)


@pytest.mark.parametrize(
    "value", [{}, {"architectures": []}, {"architectures": "Phi3"}, config(5), config(None)]
)
def test_a_config_without_architecture(value: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="names no architecture"):
        checkpoint.check_config(value, None, KNOWN)


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ([], "is no checkpoint"),
        (["model.gguf"], "is no checkpoint"),
        (["config.json"], r"no \*\.safetensors"),
        (["config.json", "pytorch_model.bin"], "pickles only"),
        (["config.json", "a.pt", "b.pth", "c.ckpt", "tokenizer.model"], "pickles only"),
        (["config.json", "model.safetensors.index.json", "tokenizer.model"], r"no \*\.safetensors"),
        (["config.json", "sub/model.safetensors", "tokenizer.model"], r"no \*\.safetensors"),
        (["config.json", "model.safetensors", "tokenizer_config.json"], "no tokenizer"),
    ],
)
def test_listings(present: list[str], said: str) -> None:
    checkpoint.check_listing(GOOD, "here")
    with pytest.raises(SourceError, match=said):
        checkpoint.check_listing(present, "here")


def test_wanted_takes_what_a_conversion_reads() -> None:
    names = [
        *GOOD, "README.md", "modeling_phi3.py", "pytorch_model.bin", ".gitattributes", "a.onnx",
        "sub/config.json", "consolidated.safetensors", ".hidden.json", "chat_template.jinja",
        "generation_config.json", "merges.txt", "requirements.txt",
    ]  # fmt: skip
    assert checkpoint.wanted(names) == sorted(
        [*GOOD, "chat_template.jinja", "generation_config.json", "merges.txt"]
    )


def test_json_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for bad in (b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000):
        path.write_bytes(bad)
        with pytest.raises(SourceError, match=r"config\.json"):
            checkpoint.read_json(path)
    with path.open("wb") as file:
        os.truncate(file.fileno(), checkpoint.JSON_LIMIT + 1)
    with pytest.raises(SourceError, match="larger"):
        checkpoint.read_json(path)


def test_phi_3_needs_its_sentencepiece_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"needs tokenizer\.model"):
        checkpoint.check_tokenizer(tmp_path, "Phi3ForCausalLM")
    checkpoint.check_tokenizer(tmp_path, "PhiForCausalLM")
    declared = tmp_path / "tokenizer_config.json"
    declared.write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    checkpoint.check_tokenizer(tmp_path, "Phi3ForCausalLM")  # phi-4
    declared.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(SourceError):
        checkpoint.check_tokenizer(tmp_path, "PhiMoEForCausalLM")
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    checkpoint.check_tokenizer(tmp_path, "PhiMoEForCausalLM")


def shards(folder: Path) -> Path:
    save_file({"a": np.zeros((4, 4), np.float16)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(3, np.float16)}, folder / "model-00002-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_weights_are_counted(tmp_path: Path) -> None:
    assert checkpoint.check_weights(shards(tmp_path)) == 19


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SourceError, match="missing: model-00002-of-00002"):
        checkpoint.check_weights(tmp_path)


def test_an_index_without_a_map(tmp_path: Path) -> None:
    (shards(tmp_path) / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(SourceError, match="no weight_map"):
        checkpoint.check_weights(tmp_path)


def test_a_pickle_under_another_name(tmp_path: Path) -> None:
    (shards(tmp_path) / "model-00001-of-00002.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(SourceError, match="pickle under another name"):
        checkpoint.check_weights(tmp_path)


def test_a_truncated_shard(tmp_path: Path) -> None:
    os.truncate(shards(tmp_path) / "model-00001-of-00002.safetensors", 90)
    with pytest.raises(SourceError, match="no whole safetensors"):
        checkpoint.check_weights(tmp_path)


def test_architectures_are_read_from_the_converter_without_running_it(tmp_path: Path) -> None:
    folder = tmp_path / "conversion"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "raise SystemExit('it was run')\n"
        "TEXT_MODEL_MAP: dict[str, str] = {'Phi3ForCausalLM': 'phi', 'B': 'b'}\n"
    )
    assert checkpoint.supported_architectures(tmp_path) == {"Phi3ForCausalLM", "B"}
    (folder / "__init__.py").write_text("OTHER = {}\n")
    with pytest.raises(BugError):
        checkpoint.supported_architectures(tmp_path)
