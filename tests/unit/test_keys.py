"""Keys: made once, readable by their owner alone, never printed; and whom a home trusts."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import Ran
from quantmint.errors import IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry.keys import KeyFolder, load_signer, new_trusted_key
from quantmint.registry.signing.ed25519 import PublicKey, read_public_key
from quantmint.registry.trust_policy import Policy, Seen, Trusted, check_scope
from quantmint.registry.trust_root import TrustRoot

Quantmint = Callable[..., Ran]
LOW_ORDER = [
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ed" + "ff" * 30 + "7f",  # 2**255 - 19, another spelling of zero
    "ff" * 32,
]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "home" / "keys")


@pytest.fixture
def root(keys: KeyFolder) -> TrustRoot:
    return TrustRoot(keys.root)


def test_a_new_key_is_for_its_owner_alone(keys: KeyFolder) -> None:
    old = os.umask(0)
    try:
        key = keys.new("mine")
    finally:
        os.umask(old)
    path = keys.path("mine")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.root.stat().st_mode & 0o777 == 0o700
    assert keys.private.stat().st_mode & 0o777 == 0o700
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert [p.name for p in keys.private.iterdir()] == ["mine.pem"]  # nothing staged is left
    again = keys.load("mine")
    assert again.public == key.public
    assert key.public.accepts(again.sign(b"x"), b"x")
    assert not key.public.accepts(again.sign(b"x"), b"y")


def test_a_key_is_never_replaced(keys: KeyFolder) -> None:
    before = keys.new("mine").public
    with pytest.raises(UserError, match="there is a key 'mine' already"):
        keys.new("mine")
    assert keys.load("mine").public == before


def test_trust_in_a_key_that_could_not_be_kept_is_taken_back(
    root: TrustRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EIO, "no luck")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(UserError, match="can't be written: no luck"):
            new_trusted_key(root.root, "mine")
    assert root.policy().trusted == {}
    assert KeyFolder(root.root).names() == []
    key = new_trusted_key(root.root, "mine").public
    with pytest.raises(UserError, match="there is a key 'mine' already"):
        new_trusted_key(root.root, "mine")
    assert list(root.policy().trusted) == [key.id]


def test_one_of_many_makers_wins(keys: KeyFolder) -> None:
    won: list[PublicKey] = []
    lost: list[UserError] = []

    def make() -> None:
        try:
            won.append(keys.new("mine").public)
        except UserError as error:
            lost.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert keys.load("mine").public == won[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_use_is_refused(keys: KeyFolder, mode: int) -> None:
    keys.new("mine")
    keys.path("mine").chmod(mode)
    with pytest.raises(UserError, match=f"others can use it .mode 0{mode:o}") as refusal:
        keys.load("mine")
    assert str(keys.path("mine")) in str(refusal.value.mend)


def test_so_is_one_in_an_open_folder(keys: KeyFolder) -> None:
    keys.new("mine")
    keys.root.chmod(0o755)
    with pytest.raises(UserError, match="chmod 700"):
        keys.load("mine")
    with pytest.raises(UserError, match="chmod 700"):
        keys.new("other")
    assert keys.names() == ["mine"]


def test_a_link_is_no_key(keys: KeyFolder, tmp_path: Path) -> None:
    keys.new("mine")
    outside = tmp_path / "outside.pem"
    keys.path("mine").rename(outside)
    keys.path("mine").symlink_to(outside)
    with pytest.raises(UserError, match="can't be read"):
        keys.load("mine")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "A", "x" * 97, "a b", "a\n"])
def test_names_of_keys(keys: KeyFolder, name: str) -> None:
    with pytest.raises(UserError, match="is no name of a key"):
        keys.new(name)
    assert not keys.root.exists()


def test_a_passphrase(keys: KeyFolder) -> None:
    key = keys.new("mine", "correct horse")
    assert keys.path("mine").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert keys.load("mine", "correct horse").public == key.public
    with pytest.raises(UserError, match="is encrypted"):
        keys.load("mine")
    with pytest.raises(UserError, match="its passphrase is another one"):
        keys.load("mine", "battery staple")


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN PRIVATE KEY-----\n", "\0" * 9000])
def test_a_damaged_key(keys: KeyFolder, text: str) -> None:
    keys.new("mine")
    keys.path("mine").write_text(text)
    with pytest.raises(UserError, match="is no private key in PEM"):
        keys.load("mine")


def test_a_private_key_has_no_text(keys: KeyFolder) -> None:
    key = keys.new("mine")
    secret = keys.path("mine").read_text().splitlines()[1]
    assert secret not in repr(key) + str(key)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(key)


def test_the_id_is_what_openssl_prints(keys: KeyFolder) -> None:
    public = keys.new("mine").public
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=public.pem.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    said = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout
    assert said.decode().split()[0] == public.id
    assert read_public_key(public.pem) == read_public_key(public.text) == public


@pytest.mark.parametrize("point", LOW_ORDER)
def test_keys_for_which_anybody_can_sign(point: str) -> None:
    with pytest.raises(UserError, match="anybody could sign for it"):
        PublicKey(bytes.fromhex(point))


def pem_of_another_kind(kind: str) -> str:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

    private = {
        "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "X25519": x25519.X25519PrivateKey.generate,
    }[kind]()
    pem = private.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


@pytest.mark.parametrize("kind", ["EC", "RSA", "X25519"])
def test_keys_of_other_kinds(kind: str) -> None:
    with pytest.raises(UserError, match="a key of another kind"):
        read_public_key(pem_of_another_kind(kind))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither"),
        ("ed25519:", "holds 0 bytes"),
        ("ed25519:AAAA", "holds 3 bytes"),
        ("ed25519:%%", "base64 is damaged"),
        ("ed25519:" + "A" * 42 + "B=", "holds 32 bytes"),  # spare bits: another spelling
        ("rsa:AAAA", "neither"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "neither"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "this is a private key"),
        ("x" * 5000, "5000 characters"),
    ],
)
def test_what_is_no_public_key(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_public_key(text)


@pytest.mark.parametrize(
    ("scope", "covered", "strange"),
    [
        ("*", ["a/b", "c/d"], []),
        ("*/*", ["a/b"], []),
        ("my-org/*", ["my-org/phi"], ["my-org2/phi", "x/my-org"]),
        ("phi", ["a/phi", "b/phi"], ["phi/a", "a/phi-2"]),
        ("my-org/phi", ["my-org/phi"], ["my-org/phi-2", "x/phi"]),
    ],
)
def test_scopes(root: TrustRoot, scope: str, covered: list[str], strange: list[str]) -> None:
    key = KeyFolder(root.root).new().public
    root.trust(key, (scope,))
    trusted = root.policy().trusted[key.id]
    assert all(trusted.covers(identity) for identity in covered)
    assert not any(trusted.covers(identity) for identity in strange)
    assert trusted.names(covered[0]) is ("phi" in scope or "my-org" in scope)


@pytest.mark.parametrize("scope", ["", "a/b/c", "my-*/x", "../x", "a b", "/", "a/", "x" * 300])
def test_what_is_no_scope(scope: str) -> None:
    with pytest.raises(UserError, match="is no scope"):
        check_scope(scope)


def test_trust_is_replaced_and_revocation_wins(root: TrustRoot) -> None:
    key = KeyFolder(root.root).new().public
    root.trust(key, ("a/*",), "publisher")
    root.trust(key, ("b/*",))
    trusted = root.policy().trusted[key.id]
    assert (trusted.scopes, trusted.label) == (("b/*",), "publisher")
    assert load_signer(root.root, "release").public == key
    root.revoke(key.id, "lost")
    assert root.policy().revoked == {key.id: "lost"}
    with pytest.raises(UserError, match="is revoked; it can't be trusted again"):
        root.trust(key)
    with pytest.raises(UserError, match="is revoked: what it signs is refused"):
        load_signer(root.root, "release")
    (root.revoked / f"{key.id}.json").write_bytes(b"\xff")
    assert root.policy().revoked == {key.id: ""}  # damaged, and still a revocation


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[" * 99999, b"\xff", b'{"format":1,"key":5,"label":"","scopes":[]}']
)
def test_a_damaged_trust_root_trusts_nobody(root: TrustRoot, damage: bytes) -> None:
    key = KeyFolder(root.root).new().public
    root.trust(key)
    (root.trusted / f"{key.id}.json").write_bytes(damage)
    with pytest.raises(IntegrityError, match="nothing is trusted until it is mended"):
        root.policy()


def test_a_key_under_the_name_of_another(root: TrustRoot) -> None:
    keys = KeyFolder(root.root)
    one, two = keys.new("one").public, keys.new("two").public
    root.trust(one)
    (root.trusted / f"{one.id}.json").rename(root.trusted / f"{two.id}.json")
    with pytest.raises(IntegrityError, match="nothing is trusted until it is mended"):
        root.policy()


def test_a_trust_root_that_others_can_write(root: TrustRoot) -> None:
    root.trust(KeyFolder(root.root).new().public)
    root.trusted.chmod(0o770)
    with pytest.raises(UserError, match="others could have written to it"):
        root.policy()


def test_the_highest_release_stays(root: TrustRoot) -> None:
    for number in (3, 10, 9, 2):
        root.remember("My-Org/phi", Seen(number, f"{number:064x}", frozenset({"b" * 64})))
    expected = Seen(10, f"{10:064x}", frozenset({"b" * 64}))
    assert root.policy().last_seen("my-org/phi") == expected
    assert root.policy().must_be_signed("phi", "MY-ORG")
    assert root.policy().must_be_signed("phi")
    assert not root.policy().must_be_signed("phi", "other-org")
    assert not root.policy().must_be_signed("other", "my-org")
    assert not root.policy().must_be_signed("other")


def test_many_rememberers_lose_nothing(root: TrustRoot) -> None:
    numbers = list(range(1, 33))
    threads = [
        threading.Thread(target=root.remember, args=("a/b", Seen(n, f"{n:064x}"))) for n in numbers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert root.policy().last_seen("a/b") == Seen(32, f"{32:064x}")


def test_an_empty_policy_asks_for_nothing() -> None:
    key = PublicKey(bytes(range(32)))
    assert not Policy().must_be_signed("b", "a")
    assert not Policy({key.id: Trusted(key, ("*",))}).must_be_signed("b", "a")
    assert Policy({key.id: Trusted(key, ("a/*",))}).must_be_signed("b", "a")
    assert Policy({key.id: Trusted(key, ("a/b",))}).must_be_signed("b")
    assert not Policy({key.id: Trusted(key, ("a/*", "*"))}).must_be_signed("b")


def test_the_command_line(quantmint: Quantmint, home: Home, tmp_path: Path) -> None:
    made = quantmint("keys", "new")
    secret = (home.keys / "private" / "release.pem").read_text().splitlines()[1]
    shown = json.loads(quantmint("keys", "show", "--json").out)
    assert shown["id"] in made.out
    assert shown["key"] in made.out
    again = quantmint("keys", "new")
    assert (again.code, again.out) == (2, "")
    assert "it was left as it is" in again.err
    assert quantmint("keys", "new", "--model-signing").out.startswith("-----BEGIN PUBLIC KEY")
    friend = KeyFolder(tmp_path / "friend" / "keys").new().public
    (tmp_path / "friend.pem").write_text(friend.pem)
    told = quantmint("keys", "trust", tmp_path / "friend.pem", "--for", "friend/*", "--name", "Bo")
    assert told.out == f"trusted {friend.id}  for friend/*\n"
    assert quantmint("keys", "show", friend.id[:12], "--pem").out == friend.pem
    assert quantmint("keys", "revoke", friend.id[:12], "--reason", "gone").code == 0
    rows = json.loads(quantmint("keys", "list", "--json").out)
    assert (rows["own"], rows["model_signing"]) == (["release"], ["release"])
    states = {row["id"]: (row["state"], row["for"], row["reason"]) for row in rows["keys"]}
    assert states == {shown["id"]: ("trusted", ["*"], None), friend.id: ("revoked", [], "gone")}
    private = quantmint("keys", "trust", home.keys / "private" / "release.pem")
    assert (private.code, private.out) == (2, "")
    assert "this is a private key" in private.err
    for ran in (made, again, told, private, quantmint("keys", "list")):
        assert secret not in ran.out + ran.err


def test_an_encrypted_key_on_the_command_line(quantmint: Quantmint, home: Home) -> None:
    word = {"QUANTMINT_KEY_PASSPHRASE": "correct horse"}
    assert quantmint("keys", "new", "locked", env=word).code == 0
    assert b"ENCRYPTED" in (home.keys / "private" / "locked.pem").read_bytes()
    assert quantmint("keys", "show", "locked", env=word).code == 0
    without = quantmint("keys", "show", "locked")
    assert (without.code, without.out) == (2, "")
    assert "set QUANTMINT_KEY_PASSPHRASE" in without.err
