"""Releases end to end: the embedded model, built once, released to a folder and to a hub."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from fault_tools import TOKEN
from helpers import Ran
from hub import Hub
from minting import Mint
from publishing import client_env
from quantmint.assets.graph.line import last_metadata
from quantmint.assets.graph.releasing import read_inputs
from quantmint.assets.mint import open_mint
from quantmint.errors import UserError
from quantmint.files import canonical_json
from quantmint.native.kernels import host_kernel
from quantmint.pipelines.assembly import line_of
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.spec import Model, load_model
from quantmint.registry.manifest.release import MANIFEST_FILE
from quantmint.registry.refs import read_ref
from quantmint.registry.store import Store

pytestmark = pytest.mark.e2e

# What the embedded model's Q2_K misses, and all wider variants keep.
STRICT = """
gates:
  max_kld: 0.06
"""
PASSED = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M"]


@pytest.fixture(scope="module")
def killed(mint: Mint) -> str:
    """The digest of the manifest that a release had signed when it was killed, half-way."""
    words = [sys.executable, "-m", "quantmint", "release", str(mint.model())]
    env = {**os.environ, "QUANTMINT_HOME": str(mint.home.root), "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "reading back Phi-3-nano-Q4_K_M.gguf" in line:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (mint.registry / "main.json").exists()
    return read_ref(Store(mint.home.store), "phi-3-nano", "my-org.1").objects[MANIFEST_FILE].sha256


@pytest.fixture(scope="module")
def first(mint: Mint, killed: str) -> Ran:
    """The first release, to the folder registry: the same command once more."""
    return mint.run("release", mint.model(), "--json")


def test_a_killed_release_goes_on_with_the_same_bytes(first: Ran, killed: str) -> None:
    assert first.code == 0, first.err
    said = json.loads(first.out)
    assert (said["release"], said["sha256"], said["sent"]) == (1, killed, "nothing")


def test_a_model_is_released_with_all_that_vouches_for_it(mint: Mint, first: Ran) -> None:
    assert first.code == 0, first.err
    said = json.loads(first.out)
    assert (said["release"], said["changed"], said["withheld"]) == (1, True, [])
    verified = mint.verify(1)
    assert verified.signer is not None
    manifest = verified.manifest
    assert [v.variant for v in manifest.variants] == [*PASSED, "Q2_K"]
    for variant in manifest.variants:
        assert {gate.check for gate in variant.gates} >= {"header", "loads", "divergence", "chat"}
        assert {at.context for at in variant.divergence} == {512, 1024}
        assert [on.generation[0].median > 0 for on in variant.kernels] == [True]
    assert {file.role for file in manifest.files} == {
        "provenance", "measurements", "key", "license", "ollama", "picture",
    }  # fmt: skip
    (folder,) = (mint.registry / "releases").glob("v1-*")
    assert json.loads((folder / "params").read_text())["stop"][0] == "<|endoftext|>"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "<|user|>\n{prompt}<|end|>\n<|assistant|>" in card
    assert str(mint.folder) not in card + (folder / "quantmint.json").read_text(encoding="utf-8")
    store = Store(mint.home.store).open()
    assert (store.refs / "phi-3-nano" / "my-org.1.json").is_file()


def test_every_file_was_loaded_after_it_was_read_back(first: Ran) -> None:
    for name in (*PASSED, "Q2_K"):
        file = f"Phi-3-nano-{name}.gguf"
        read, loaded = first.err.index(f"reading back {file}"), first.err.index(f"{file}: loaded")
        assert read < loaded < first.err.index("promoting")


def test_an_unchanged_release_is_not_made_again(mint: Mint, first: Ran) -> None:
    assert first.code == 0
    before = sorted(path for path in mint.registry.rglob("*"))
    again = mint.run("release", mint.model())
    assert again.code == 0, again.err
    assert "release 1 is published" in again.out
    assert "nothing changed" in again.out
    assert sorted(path for path in mint.registry.rglob("*")) == before
    # The same bytes go to another registry, under the same number.
    other = mint.run("release", mint.model(), "--to", f"file:{mint.folder / 'other'}", "--json")
    assert other.code == 0, other.err
    assert json.loads(other.out)["sha256"] == json.loads(first.out)["sha256"]


def test_nothing_is_released_that_was_made_with_other_arguments(
    mint: Mint, first: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first.code == 0
    monkeypatch.setenv("QUANTMINT_HOME", str(mint.home.root))
    model = load_model(mint.model())
    gates = model.spec.gates.model_copy(update={"max_kld": 5.0})
    line = line_of(Model(model.spec.model_copy(update={"gates": gates}), model.file))
    terms = model.spec.release
    assert terms is not None
    with open_instance(mint.home) as instance:
        read_inputs(instance, line_of(model), terms, open_mint(print), run="as it was built")
        with pytest.raises(UserError, match="was made with other arguments than now: nothing is"):
            read_inputs(instance, line, terms, open_mint(print), run="with another gate")


def test_the_command_line_verifies_a_release(mint: Mint, first: Ran, tmp_path: Path) -> None:
    assert first.code == 0
    (folder,) = (mint.registry / "releases").glob("v1-*")
    ran = mint.run("verify", folder, "--strict")
    assert ran.code == 0, ran.err
    assert "my-org/phi-3-nano release 1" in ran.out
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "Phi-3-nano-Q4_K_M.gguf"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    ran = mint.run("verify", copy)
    assert ran.code == 5
    assert "Phi-3-nano-Q4_K_M.gguf is refused: its sha256 is not the manifest's" in ran.err


def test_a_release_on_a_hub_is_one_signed_commit(mint: Mint, first: Ran, tmp_path: Path) -> None:
    assert first.code == 0
    with Hub(tokens=(TOKEN,)) as hub:
        env = client_env(hub.url, TOKEN, tmp_path, xet=False)
        del env["QUANTMINT_HOME"]
        ran = mint.run(
            "release", mint.model(), "--to", "hub:my-org/Phi-3-nano-GGUF", "--json", **env
        )
        assert ran.code == 0, ran.err
        repo = hub.repos["my-org/Phi-3-nano-GGUF"]
        assert json.loads(ran.out)["release"] == 1  # the one that the folder has
        assert repo.tags == {"v1": repo.branches["main"]}
        assert len(repo.history()) == 2
        files = repo.files()
        assert "quantmint.dsse.json" in files
        assert TOKEN not in ran.err + ran.out
        again = mint.run("release", mint.model(), "--to", "hub:my-org/Phi-3-nano-GGUF", **env)
        assert "nothing changed" in again.out
        assert len(repo.history()) == 2


def test_a_record_about_other_bytes_is_refused(mint: Mint, first: Ran) -> None:
    assert first.code == 0
    model = mint.model()
    key = dg.AssetKey(["phi-3-nano", f"Q8_0_on_{host_kernel().name}"])
    with open_instance(mint.home) as instance:
        metadata = last_metadata(instance, key)
        assert metadata is not None
        event = instance.get_latest_materialization_event(key)
        assert event is not None and event.asset_materialization is not None
        tags = dict(event.asset_materialization.tags or {})
        store = Store(mint.home.store).open()
        record = json.loads(store.read(store.find(str(metadata["sha256"]))))
        record["digests"]["gguf"] = "0" * 64
        blob = store.put_bytes(canonical_json(record))
        forged = event.asset_materialization.metadata | {
            "sha256": dg.MetadataValue.text(blob.sha256),
            "size": dg.MetadataValue.int(blob.size),
        }
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=key, metadata=forged, tags=tags)
        )
    before = sorted(path for path in mint.registry.rglob("*"))
    ran = mint.run("release", model)
    assert (ran.code, ran.out) == (5, "")
    assert "the assay record of Q8_0 on" in ran.err
    assert "is about other bytes than those at hand" in ran.err
    assert sorted(path for path in mint.registry.rglob("*")) == before


def test_what_fails_the_present_gates_is_withheld_with_its_reason(mint: Mint, first: Ran) -> None:
    assert first.code == 0
    model = mint.model(more=STRICT)
    stale = mint.run("release", model)
    assert (stale.code, stale.out) == (2, "")
    assert "is out of date: gates." in stale.err
    assert "mend: quantmint build phi-3-nano" in stale.err
    built = mint.run("build", model)
    assert built.code == 5  # Q2_K is withheld
    rehearsed = json.loads(mint.run("release", model, "--dry-run", "--json").out)
    assert (rehearsed["release"], rehearsed["published"]) == (2, PASSED)
    assert not list((mint.registry / "releases").glob("v2-*"))
    ran = mint.run("release", model)
    assert ran.code == 0, ran.err
    manifest = mint.verify(2).manifest
    assert [v.variant for v in manifest.variants] == PASSED
    (withheld,) = manifest.withheld
    assert withheld.variant == "Q2_K"
    assert "the bound is 0.06" in withheld.reason
    assert manifest.changes[0] == "Since release 1: nothing must be downloaded again."
    assert "Q2_K: no longer released, withheld now." in manifest.changes
    (folder,) = (mint.registry / "releases").glob("v2-*")
    assert "## Withheld" in (folder / "README.md").read_text(encoding="utf-8")
    assert not list(folder.glob("*Q2_K*"))
    yanked = mint.run("release", model, "--yank", "1", "--reason", "its Q2_K is too weak")
    assert yanked.code == 0, yanked.err
    assert "release 1 is withdrawn" in yanked.out
    # Only what release 2 does not carry: its own files must go on.
    row = json.loads((mint.registry / "main.json").read_text())["files"]["quantmint.status.json"]
    status = json.loads((mint.registry / row["at"]).read_text())["releases"]
    assert list(status["v1"]["files"]) == ["Phi-3-nano-Q2_K.gguf"]
    assert "nothing changed" in mint.run("release", model).out
