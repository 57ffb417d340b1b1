"""Envelopes and provenance, also as other people's programs read them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.keys import KeyFolder
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    OPENSSF_KEY_FILE,
    PROVENANCE_FILE,
    Manifest,
)
from quantmint.registry.manifest.statement import BUILDER, PAYLOAD_TYPE
from quantmint.registry.provenance import verify_provenance
from quantmint.registry.signing import openssf
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import (
    PAYLOAD_LIMIT,
    open_envelope,
    pre_authentication,
    seal,
)
from quantmint.registry.signing.folder import verify_file
from quantmint.registry.signing.release import Expect, accept_release, verify_release
from quantmint.registry.trust_policy import Seen
from releases import NOW, Release, entry, make_release, sha_of, write_release

KIND = "application/vnd.test+json"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return KeyFolder(tmp_path / "keys").new("tester")


def test_the_encoding_that_is_signed() -> None:
    """The example of the DSSE specification."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == expected
    assert pre_authentication("é", b"") == "DSSEv1 2 é 0 ".encode()


@pytest.mark.parametrize("payload", [b"", b"{}", bytes(range(256)), b"x" * PAYLOAD_LIMIT])
def test_round_trip(key: SigningKey, payload: bytes) -> None:
    data = seal(payload, KIND, [key])
    opened = open_envelope(data, KIND)
    assert opened.payload == payload
    assert key.public.accepts(opened.signatures[0].raw, opened.signed)
    assert seal(payload, KIND, [key]) == data  # the same every time


def test_what_no_reader_would_take_is_not_sealed(key: SigningKey) -> None:
    with pytest.raises(IntegrityError, match="what would be signed is refused: it must have 1 to"):
        seal(b"{}", KIND, [])
    with pytest.raises(IntegrityError, match="too large"):
        seal(b"x" * (PAYLOAD_LIMIT + 1), KIND, [key])
    with pytest.raises(IntegrityError, match="stands in it twice"):
        seal(b"{}", KIND, [key, key])


def test_openssl_verifies_our_signature(release: Release, tmp_path: Path) -> None:
    opened = json.loads(release.path(ENVELOPE_FILE).read_bytes())
    payload = base64.b64decode(opened["payload"])
    message, signature, key = tmp_path / "message", tmp_path / "signature", tmp_path / "key.pem"
    message.write_bytes(b"DSSEv1 %d %s %d %s" % (
        len(opened["payloadType"]), opened["payloadType"].encode(), len(payload), payload
    ))  # fmt: skip
    signature.write_bytes(base64.b64decode(opened["signatures"][0]["sig"]))
    key.write_text(release.key.public.pem)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key]
    words = [*command, "-in", message, "-sigfile", signature]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    message.write_bytes(message.read_bytes() + b" ")
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_another_dsse_library_verifies_our_envelope(release: Release) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    public = release.key.public
    key = SSlibKey(public.id, "ed25519", "ed25519", {"public": public.raw.hex()})
    for name in (ENVELOPE_FILE, PROVENANCE_FILE):
        value = json.loads(release.path(name).read_bytes())
        assert Envelope.from_dict(json.loads(json.dumps(value))).verify([key], 1)
        value["payload"] = base64.b64encode(b"{}").decode()
        with pytest.raises(VerificationError):
            Envelope.from_dict(value).verify([key], 1)


def test_another_library_reads_our_provenance(release: Release) -> None:
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    data = open_envelope(release.path(PROVENANCE_FILE).read_bytes(), PAYLOAD_TYPE).payload
    parsed = Parse(data.decode(), statement_pb2.Statement())
    statement = Statement.copy_from_pb(parsed)
    statement.validate()
    assert {s.name: s.digest["sha256"] for s in statement.pb.subject} == {
        path.name: sha_of(path.read_bytes()) for path in release.folder.glob("*.gguf")
    }
    details = statement.pb.predicate["runDetails"]
    assert details["builder"]["id"] == BUILDER


def test_provenance_names_what_went_in(release: Release) -> None:
    verified = release.verify()
    data = release.path(PROVENANCE_FILE).read_bytes()
    statement = verify_provenance(data, release.root.policy(), verified.manifest)
    definition = statement.predicate.build_definition
    names = {row.name for row in definition.resolved_dependencies}
    assert names == {
        "source model.safetensors", "llama.cpp 0.3.36", "converter", "tools", "importance matrix",
        "calibration text calibration.txt", "assay text assay.txt",
    }  # fmt: skip
    assert definition.external_parameters["convert"][0] == "convert_hf_to_gguf.py"
    assert "a" * 40 in (definition.resolved_dependencies[0].uri or "")


def test_two_signers_and_a_key_that_is_replaced(release: Release) -> None:
    """A release under the old and the new key is good for who knows either."""
    successor = release.keys.new("successor")
    payload = verify(release).payload_of_release
    data = seal(payload, "application/vnd.quantmint.release.v1+json", [release.key, successor])
    expect = release.expect
    assert verify_release(data, release.root.policy(), expect=expect, now=NOW).signer
    release.root.trust(successor.public, ("my-org/*",))
    release.root.revoke(release.key.public.id)
    verified = verify_release(data, release.root.policy(), expect=expect, now=NOW, strict=True)
    assert verified.signer == successor.public.id


class verify:  # noqa: N801 - reads as a verb above
    """The payload of a release that was verified before it is signed anew."""

    def __init__(self, release: Release) -> None:
        release.verify()
        data = release.path(ENVELOPE_FILE).read_bytes()
        opened = open_envelope(data, "application/vnd.quantmint.release.v1+json")
        self.payload_of_release = opened.payload


def test_a_newer_release_follows(release: Release) -> None:
    root, expect = release.root, Expect("phi-3-nano")
    for number in (2, 3, 3, 7):
        release.number = number
        write_release(release)
        data = release.path(ENVELOPE_FILE).read_bytes()
        accepted = accept_release(root, data, expect=expect, now=NOW, strict=True)
        assert root.policy().last_seen("my-org/phi-3-nano") == Seen(number, accepted.sha256)


def test_verify_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    verify_file(path, entry("x", b"abc"))
    for wrong, says in ((b"abd", "its sha256"), (b"ab", "it has 3 bytes"), (b"abcd", "3 bytes")):
        with pytest.raises(IntegrityError, match=says):
            verify_file(path, entry("x", wrong))
    with pytest.raises(IntegrityError, match="no regular file"):
        verify_file(tmp_path, entry("x", b""))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IntegrityError, match="no regular file"):
        verify_file(tmp_path / "pipe", entry("x", b""))


def test_verifying_needs_little() -> None:
    code = (
        "import sys\nfrom quantmint.registry.signing import folder\n"
        "heavy = {'dagster', 'mlflow', 'torch', 'numpy', 'model_signing', 'sigstore'}\n"
        "found = heavy & set(sys.modules)\nsys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OPENSSF = {
    "a bit flipped": lambda f: (f / "Phi-3-nano-Q8_0.gguf").write_bytes(b"x"),
    "a file added": lambda f: (f / "x").write_bytes(b""),
    "a git hook added": lambda f: (f / ".git").mkdir() or (f / ".git" / "hook").write_bytes(b"x"),
    "attributes added": lambda f: (f / ".gitattributes").write_bytes(b"x"),
    "a file beside the downloader's notes": lambda f: (
        (f / ".cache").mkdir() or (f / ".cache" / "x").write_bytes(b"x")
    ),
    "a file removed": lambda f: (f / "README.md").unlink(),
    "a file renamed": lambda f: (f / "README.md").rename(f / "README2.md"),
    "a link": lambda f: (f / "more").symlink_to(f / "README.md"),
    "an empty signature": lambda f: (f / "model.sig").write_bytes(b""),
    "no signature": lambda f: (f / "model.sig").unlink(),
    "{}": lambda f: (f / "model.sig").write_bytes(b"{}"),
    "a truncated signature": lambda f: (f / "model.sig").write_bytes(
        (f / "model.sig").read_bytes()[:-20]
    ),
    "a huge signature": lambda f: (f / "model.sig").write_bytes(bytes(2 << 20)),
}


def test_the_openssf_signature(release: Release, tmp_path: Path) -> None:
    root = release.keys.root
    public = tmp_path / "key.pub"
    public.write_text(openssf.new_key(root, "mine"))
    assert public.read_text() == openssf.public_pem(root, "mine")
    assert openssf.key_path(root, "mine").stat().st_mode & 0o777 == 0o600
    openssf.sign_folder(release.folder, root, "mine")
    openssf.verify_folder_signature(release.folder, public)
    release.verify(strict=True)  # ours holds with theirs beside it
    tool = [sys.executable, "-m", "model_signing", "verify", "key", release.folder]
    words = [*tool, "--signature", release.path("model.sig"), "--public_key", public]
    words.append("--no-ignore-git-paths")
    ran = subprocess.run(words, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    release.path("x").write_bytes(b"")
    assert subprocess.run(words, capture_output=True, check=False).returncode == 1
    release.path("x").unlink()
    # What a registry and the Hub's downloader add later is none of the signature's business.
    later = ("quantmint.status.json", "quantmint.status.dsse.json", ".cache/huggingface/x.metadata")
    for name in later:
        release.path(name).parent.mkdir(parents=True, exist_ok=True)
        release.path(name).write_bytes(b"{}")
    openssf.verify_folder_signature(release.folder, public)
    release.verify(strict=True)
    ran = subprocess.run(words, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    other = tmp_path / "other.pub"
    other.write_text(openssf.new_key(root, "other"))
    with pytest.raises(IntegrityError, match=r"model.sig is refused"):
        openssf.verify_folder_signature(release.folder, other)
    with pytest.raises(UserError, match="there is no model-signing key 'none'"):
        openssf.sign_folder(release.folder, root, "none")


@pytest.mark.parametrize("name", OPENSSF)
def test_what_the_openssf_signature_refuses(release: Release, tmp_path: Path, name: str) -> None:
    root, public = release.keys.root, tmp_path / "key.pub"
    public.write_text(openssf.new_key(root, "mine"))
    openssf.sign_folder(release.folder, root, "mine")
    openssf.verify_folder_signature(release.folder, public)
    OPENSSF[name](release.folder)
    with pytest.raises(IntegrityError, match="is refused"):
        openssf.verify_folder_signature(release.folder, public)


def test_a_signature_that_the_manifest_promises(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest() -> Manifest:
        return release.verify().manifest

    assert openssf.check_listed(release.folder, manifest()) is None
    public = openssf.new_key(release.keys.root, "mine").encode()
    release.path(OPENSSF_KEY_FILE).write_bytes(public)
    row = {**entry(OPENSSF_KEY_FILE, public).model_dump(), "role": "key"}
    release.resign(lambda value: value["files"].append(row))
    with pytest.raises(IntegrityError, match=r"model.sig is missing"):
        openssf.check_listed(release.folder, manifest())
    openssf.sign_folder(release.folder, release.keys.root, "mine")
    assert openssf.check_listed(release.folder, manifest()) == "model.sig is right too"
    release.path("README.md").write_bytes(b"altered")  # ours can't vouch for it, theirs does
    with pytest.raises(IntegrityError, match=r"model.sig is refused"):
        openssf.check_listed(release.folder, manifest())
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.setattr(openssf, "find_spec", lambda _: None)
    assert "was not checked" in str(openssf.check_listed(release.folder, manifest()))
    with pytest.raises(UserError, match="tool is not installed") as caught:
        openssf.require(release.keys.root, "mine")
    assert "quantmint[openssf]" in str(caught.value)
