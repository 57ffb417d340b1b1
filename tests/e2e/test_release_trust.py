"""Releases and who vouches for them: OpenSSF's signature, damaged bytes, a stolen key."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from fault_tools import TOKEN
from helpers import Ran
from hub import Hub
from minting import Mint
from publishing import client_env
from quantmint.registry.keys import KeyFolder

pytestmark = pytest.mark.e2e
OPENSSF = "  openssf: true\n"


def openssf_accepts(folder: Path) -> bool:
    """Ask OpenSSF's own program, with the words of the card."""
    words = [
        sys.executable, "-m", "model_signing", "verify", "key", folder,
        "--signature", folder / "model.sig", "--public_key", folder / "openssf-key.pem",
        "--no-ignore-git-paths",
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def flip(path: Path) -> None:
    """Change one bit, in a new file under the same name."""
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.fixture(scope="module")
def signed(mint: Mint) -> Ran:
    """A first release with OpenSSF's signature."""
    model = mint.model(more=OPENSSF)
    before = mint.run("release", model)
    assert before.code == 2
    assert "there is no model-signing key 'release'" in before.err
    assert "quantmint keys new release --model-signing" in before.err
    assert not mint.registry.exists()  # said before any work
    assert mint.run("keys", "new", "--model-signing").code == 0
    return mint.run("release", model, "--json")


def test_openssfs_program_accepts_a_release_and_no_other_byte(
    mint: Mint, signed: Ran, tmp_path: Path
) -> None:
    assert signed.code == 0, signed.err
    assert "model.sig: verified with OpenSSF's model-signing" in signed.err
    (folder,) = (mint.registry / "releases").glob("v1-*")
    assert openssf_accepts(folder)
    ran = mint.run("verify", folder, "--strict", "--json")
    assert json.loads(ran.out)["openssf"] == "model.sig is right too"
    for name in ("Phi-3-nano-Q4_K_M.gguf", "quantmint.dsse.json", "README.md", "model.sig"):
        copy = shutil.copytree(folder, tmp_path / name)
        flip(copy / name)
        assert not openssf_accepts(copy), name
        assert mint.run("verify", copy).code == 5, name
    again = mint.run("release", mint.model(more=OPENSSF))
    assert "release 1 is published" in again.out
    assert "nothing changed" in again.out


def test_a_download_from_a_hub_holds_as_it_comes(mint: Mint, signed: Ran, tmp_path: Path) -> None:
    assert signed.code == 0
    with Hub(tokens=(TOKEN,)) as hub:
        env = client_env(hub.url, TOKEN, tmp_path, xet=False)
        del env["QUANTMINT_HOME"]
        model = mint.model(more=OPENSSF)
        ran = mint.run("release", model, "--to", "hub:my-org/Phi-3-nano-GGUF", "--json", **env)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["sha256"] == json.loads(signed.out)["sha256"]
        folder = Path(
            snapshot_download(
                "my-org/Phi-3-nano-GGUF", local_dir=tmp_path / "here", endpoint=hub.url, token=TOKEN
            )
        )
    assert (folder / ".cache" / "huggingface").is_dir()
    assert (folder / "quantmint.status.json").is_file()
    assert (folder / "LICENSE").is_file()
    assert openssf_accepts(folder)
    ran = mint.run("verify", folder, "--strict")
    assert ran.code == 0, ran.err


def test_bytes_that_were_not_tested_are_not_published(mint: Mint, signed: Ran) -> None:
    assert signed.code == 0
    files = {row["file"]: row["sha256"] for row in json.loads(signed.out)["published"]}
    sha256 = files["Phi-3-nano-Q4_K_M.gguf"]
    item = mint.home.store / "objects" / "sha256" / sha256[:2] / sha256
    good, other = item.read_bytes(), mint.folder / "other"
    flip(item)
    # As it was signed before, and to be signed anew: neither goes, and neither stays behind.
    for more in (OPENSSF, OPENSSF + "  languages: [en, de]\n  expires_days: 9\n"):
        ran = mint.run("release", mint.model(more=more), "--to", f"file:{other}")
        assert (ran.code, ran.out) == (5, "")
        assert "Phi-3-nano-Q4_K_M.gguf" in ran.err
        assert "quantmint verify" in ran.err
        assert not (other / "main.json").exists()
        assert not list((other / "releases").iterdir())
    item.unlink()
    item.write_bytes(good)
    item.chmod(0o444)
    ran = mint.run("release", mint.model(more=OPENSSF), "--to", f"file:{other}", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["release"] == 1


def test_after_a_theft_another_key_signs_the_same_files_anew(mint: Mint, signed: Ran) -> None:
    assert signed.code == 0
    stolen = KeyFolder(mint.home.keys).load("release").public.id
    assert mint.run("keys", "revoke", stolen, "--reason", "stolen").code == 0
    ran = mint.run("release", mint.model())
    assert ran.code == 2
    assert "the key 'release' is revoked" in ran.err
    for name in ("second", "third"):
        assert mint.run("keys", "new", name).code == 0
    more = "  key: second\n  cosign: [third]\n"
    ran = mint.run("release", mint.model(more=more), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["release"], said["supersedes"]) == (2, "v1")
    assert "It is signed with another key" in said["changes"]
    assert mint.verify(2).signer != stolen
    (folder,) = (mint.registry / "releases").glob("v2-*")
    envelope = json.loads((folder / "quantmint.dsse.json").read_text())
    assert len(envelope["signatures"]) == 2
    assert not (folder / "model.sig").exists()
    assert "nothing changed" in mint.run("release", mint.model(more=more)).out
