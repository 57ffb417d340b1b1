"""Attacks of a hostile registry: each ends in one typed error, and leaves nothing that lies."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evil import COMMIT, Evil, answer, endless, row
from fault_tools import TOKEN
from pulling import MODEL, OWNER, REPO, Publisher, model_bytes, to_folder, withdrawal
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.registry.machine import Machine
from quantmint.registry.pull import web
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.transfer import Limits
from quantmint.registry.trust_root import TrustRoot

Q8, T8 = "Phi-3-nano-Q8_0.gguf", "tensors/Q8_0.json"
ENVELOPE, MANIFEST, STATUS = "quantmint.dsse.json", "quantmint.json", "quantmint.status.json"
QUICK = Limits(tries=1, first=0.01, longest=0.01, patience=5.0, connections=1)
MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)


@dataclass
class Scene:
    """A home that has accepted release 2, a publisher it trusts, and who now serves what."""

    home: Home
    evil: Evil
    thief: Evil
    publisher: Publisher
    folder: Path
    first: dict[str, bytes] = field(default_factory=dict)
    second: dict[str, bytes] = field(default_factory=dict)

    def pull(self, ref: str, *, strict: bool = False) -> Pulled:
        request = Request(reference=parse_reference(ref), strict=strict, limits=QUICK)
        return Puller(self.home, machine=MACHINE).pull(request)

    def serve(self, files: dict[str, bytes]) -> None:
        self.evil.files = dict(files)

    def third(self, **fields: Any) -> dict[str, bytes]:
        """Return a newer release whose model is another one."""
        return self.publisher.files(3, {"Q8_0": model_bytes((7, 8, 9))}, **fields)


@pytest.fixture
def scene(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(web, "PATIENCE", QUICK)
    with Evil() as evil, Evil() as thief:
        monkeypatch.setenv("HF_ENDPOINT", evil.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        publisher = Publisher(tmp_path / "publisher")
        TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
        scene = Scene(home, evil, thief, publisher, tmp_path / "folder")
        variants = {"Q8_0": model_bytes()}
        scene.first = publisher.files(1, variants)
        scene.second = publisher.files(2, variants)
        scene.serve(scene.second)
        scene.pull(REPO)
        yield scene


Attack = Callable[[Scene], str]
ATTACKS: list[tuple[str, Attack, type[QuantmintError], str, bool, bool]] = []


def attack(
    kind: type[QuantmintError], said: str, *, strict: bool = False, seen: bool = False
) -> Callable[[Attack], Attack]:
    """Note an attack. `seen`: the manifest is right, so its number is remembered all the same."""

    def note(made: Attack) -> Attack:
        ATTACKS.append((made.__name__, made, kind, said, strict, seen))
        return made

    return note


# Metadata that is old, another's, or not signed.


@attack(IntegrityError, "the registry went back in time")
def rollback(s: Scene) -> str:
    s.serve(s.first)
    return REPO


@attack(IntegrityError, "expired", strict=True)
def freeze(s: Scene) -> str:
    s.serve(s.third(days=-1))
    return REPO


@attack(IntegrityError, "accepted before with other content")
def two_faces_of_one_number(s: Scene) -> str:
    s.serve(s.publisher.files(2, {"Q8_0": model_bytes((7, 8, 9))}))
    return REPO


@attack(IntegrityError, "listed with other bytes than the manifest says", seen=True)
def models_of_another_release(s: Scene) -> str:
    third = s.third()
    s.serve({**third, Q8: s.second[Q8] + b"\0"})
    return REPO


@attack(IntegrityError, "serves the release of my-org/Other-GGUF")
def another_repositorys_release(s: Scene) -> str:
    s.serve(s.third(repository="my-org/Other-GGUF", model="other", title="Other"))
    return REPO


@attack(IntegrityError, "is of model 'other', where 'phi-3-nano' was asked for")
def another_models_release(s: Scene) -> str:
    s.serve(s.third(repository=None, model="other", title="Other"))
    os.environ["QUANTMINT_REGISTRY"] = f"hub:{REPO}"
    return MODEL


@attack(IntegrityError, "is not signed")
def the_signature_left_away(s: Scene) -> str:
    third = s.third()
    del third[ENVELOPE]
    s.serve(third)
    return REPO


@attack(IntegrityError, "is not signed by anybody who is trusted")
def the_manifest_left_away(s: Scene) -> str:
    s.serve({"other.gguf": model_bytes((9,))})
    return REPO


@attack(IntegrityError, "which nobody trusts")
def a_key_of_ones_own(s: Scene) -> str:
    stranger = Publisher(s.folder / "stranger")
    s.serve(stranger.files(3, {"Q8_0": model_bytes((7,))}))
    return REPO


@attack(IntegrityError, "is not signed by anybody who is trusted")
def a_stranger_under_another_publishers_name(s: Scene) -> str:
    stranger = Publisher(s.folder / "stranger")
    s.serve(stranger.files(3, {"Q8_0": model_bytes((7,))}, publisher="evil", repository=REPO))
    os.environ["QUANTMINT_REGISTRY"] = f"hub:{REPO}"
    return MODEL


@attack(IntegrityError, "is not trusted for my-org/phi-3-nano")
def a_trusted_key_of_somebody_else(s: Scene) -> str:
    other = Publisher(s.folder / "other")
    TrustRoot(s.home.keys).trust(other.key.public, ("other/*",))
    s.serve(other.files(3, {"Q8_0": model_bytes((7,))}))
    return REPO


@attack(IntegrityError, "which is revoked")
def a_revoked_key(s: Scene) -> str:
    TrustRoot(s.home.keys).revoke(s.publisher.key.public.id, "stolen")
    s.serve(s.third())
    return REPO


def _envelope(s: Scene, change: Callable[[dict[str, Any]], None]) -> str:
    files = s.third()
    value = json.loads(files[ENVELOPE])
    change(value)
    s.serve({**files, ENVELOPE: canonical_json(value)})
    return REPO


@attack(IntegrityError, "the signature of key")
def a_signature_of_other_bytes(s: Scene) -> str:
    old = json.loads(s.second[ENVELOPE])["signatures"]
    return _envelope(s, lambda value: value.update(signatures=old))


@attack(IntegrityError, "the signature of key")
def a_payload_with_another_digest(s: Scene) -> str:
    def change(value: dict[str, Any]) -> None:
        payload = base64.b64decode(value["payload"]).replace(b'"Q8_0"', b'"Q6_0"')
        value["payload"] = base64.b64encode(payload).decode()

    return _envelope(s, change)


@attack(IntegrityError, "its payload is no application/vnd.quantmint.release")
def a_signed_document_of_another_kind(s: Scene) -> str:
    return _envelope(s, lambda value: value.update(payloadType="application/vnd.in-toto+json"))


@attack(IntegrityError, "is not the one that was signed")
def another_plain_manifest(s: Scene) -> str:
    s.serve({**s.third(), MANIFEST: s.second[MANIFEST]})
    return REPO


@attack(IntegrityError, "it is no strict JSON")
def an_envelope_that_is_no_json(s: Scene) -> str:
    s.serve({**s.third(), ENVELOPE: b"[" * 100_000})
    return REPO


@attack(IntegrityError, "was withdrawn by its publisher")
def a_yanked_release_by_its_number(s: Scene) -> str:
    third = s.publisher.files(3, yanked=(withdrawal(1, s.first),))
    s.serve(third)
    s.pull(REPO)
    s.evil.revisions["v1"] = s.first
    return f"{REPO}@1"


@attack(IntegrityError, "was withdrawn: it says wrong things")
def what_the_status_file_withdraws(s: Scene) -> str:
    third = s.third()
    digest = hashlib.sha256(third[Q8]).hexdigest()
    said = {"state": "yanked", "reason": "it says wrong things", "files": {Q8: digest}}
    s.serve({**third, STATUS: canonical_json({"format": 1, "releases": {"v3": said}})})
    return REPO


@attack(RegistryError, "quantmint.status.json of hub:.* can't be read")
def a_status_file_of_nonsense(s: Scene) -> str:
    s.serve({**s.third(), STATUS: b'{"format": 2}'})
    return REPO


@attack(IntegrityError, "is of release 3, where 2 was asked for")
def another_number_than_its_tag(s: Scene) -> str:
    s.evil.revisions["v2"] = s.third()
    return f"{REPO}@2"


# Bytes that are not those that were promised.


@attack(IntegrityError, "has not the sha256", seen=True)
def other_bytes_of_the_same_size(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    altered = third[Q8][:-1] + bytes([third[Q8][-1] ^ 1])
    s.evil.pages[Q8] = answer(altered)
    return REPO


@attack(QuantmintError, Q8, seen=True)
def a_model_that_ends_early(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    s.evil.pages[Q8] = answer(third[Q8][:1000], Content_Length=str(len(third[Q8])))
    return REPO


@attack(IntegrityError, "has not the sha256", seen=True)
def a_model_without_an_end(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[Q8] = endless(b"GGUF")
    return REPO


@attack(IntegrityError, "listed with other bytes than the manifest says", seen=True)
def another_digest_in_the_list(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    s.evil.rows = [row(path, data) for path, data in third.items()]
    for listed in s.evil.rows:
        if listed["path"] == Q8:
            listed["lfs"]["oid"] = "0" * 64
    return REPO


@attack(IntegrityError, "has not the sha256", seen=True)
def another_table_of_tensors(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[T8] = answer(s.second[T8])
    return REPO


@attack(IntegrityError, "no well-formed GGUF file")
def a_model_that_no_parser_should_see(s: Scene) -> str:
    bomb = b"GGUF" + (3).to_bytes(4, "little") + (1 << 40).to_bytes(8, "little") * 2
    s.serve({"x-Q8_0.gguf": bomb + bytes(5000)})
    return "somebody/bomb"


@attack(IntegrityError, "no well-formed GGUF file")
def a_program_by_the_name_of_a_model(s: Scene) -> str:
    s.serve({"x-Q8_0.gguf": b"\x7fELF" + bytes(5000)})
    return "somebody/elf"


@attack(RegistryError, "is not what it lists")
def other_bytes_than_gits_name(s: Scene) -> str:
    data = model_bytes((1,))
    s.serve({"x-Q8_0.gguf": data})
    s.evil.rows = [row("x-Q8_0.gguf", data, lfs=None, oid="0" * 40)]
    return "somebody/plain"


@attack(RegistryError, "lists no digest of x-Q8_0.gguf")
def a_file_without_a_digest(s: Scene) -> str:
    data = model_bytes((1,))
    s.serve({"x-Q8_0.gguf": data})
    s.evil.rows = [row("x-Q8_0.gguf", data, lfs=None, oid=None)]
    return "somebody/plain"


# Answers without an end, or without sense.


@attack(RegistryError, "more than 1[0-9]+ bytes")
def an_endless_envelope(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[ENVELOPE] = endless(b"x")
    return REPO


@attack(RegistryError, "more than 8388608 bytes")
def an_endless_list(s: Scene) -> str:
    s.evil.pages[f"/tree/{COMMIT}"] = endless(b" ")
    return REPO


@attack(RegistryError, "more than 64 pages of files")
def a_list_that_leads_in_circles(s: Scene) -> str:
    here = f'<{s.evil.url}/api/models/{REPO}/tree/{COMMIT}?x=1>; rel="next"'
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[]", Link=here)
    return REPO


@attack(RegistryError, "more than 4096 files")
def a_list_of_too_many_files(s: Scene) -> str:
    s.evil.rows = [row(f"f{n}.txt", b"") for n in range(4097)]
    return REPO


@attack(RegistryError, "packs its answers")
def a_packed_envelope(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[ENVELOPE] = answer(b"\x1f\x8b" + bytes(100), Content_Encoding="gzip")
    return REPO


@attack(RegistryError, "what no registry says")
def a_list_that_is_nested_too_deep(s: Scene) -> str:
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[" * 200_000)
    return REPO


@attack(RegistryError, "what no registry says: the size of")
def a_file_of_less_than_nothing(s: Scene) -> str:
    s.evil.rows = [row("x.gguf", b"", size=-1)]
    return "somebody/odd"


@attack(RegistryError, "what no registry says: the size of")
def a_file_larger_than_any_disk(s: Scene) -> str:
    s.evil.rows = [row("x.gguf", b"", size=1 << 70)]
    return "somebody/odd"


@attack(RegistryError, "what no registry says")
def a_commit_that_is_a_path(s: Scene) -> str:
    s.evil.commit = "../../../etc"
    return REPO


@attack(UserError, "no space left on the disk")
def a_file_larger_than_this_disk(s: Scene) -> str:
    s.serve({"x-Q8_0.gguf": model_bytes((1,))})
    s.evil.rows = [row("x-Q8_0.gguf", b"", size=1 << 43, lfs={"oid": "a" * 64})]
    return "somebody/odd:Q8_0"


# Names that would lead elsewhere.

NAMES = (
    "../evil.gguf", "../../home/evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", ".evil.gguf",
    "a//evil.gguf", "evil.gguf/", "C:\\evil.gguf", "evil\n.gguf", "a/./evil.gguf", "~/evil.gguf",
    "e\u202evil.gguf", "%2e%2e/evil.gguf", "x" * 300 + ".gguf", "evil.gguf.", "-evil.gguf",
)  # fmt: skip


@attack(RegistryError, "no GGUF model in it")
def names_that_lead_elsewhere(s: Scene) -> str:
    s.evil.rows = [row(name, b"GGUF") for name in NAMES]
    return "somebody/names"


def _registry(s: Scene, change: Callable[[dict[str, Any]], None]) -> str:
    """Serve release 3 from a folder, and change its newest record."""
    root = s.folder / "registry"
    to_folder(root, s.third(repository=None), "v3", s.folder / "work")
    value = json.loads((root / "main.json").read_bytes())
    change(value)
    (root / "main.json").unlink()
    (root / "main.json").write_bytes(canonical_json(value))
    return f"file:{root}"


@attack(RegistryError, "the file name")
def a_folders_file_outside_of_it(s: Scene) -> str:
    (s.folder / "outside").mkdir(parents=True)
    (s.folder / "outside" / "x").write_bytes(s.third()[Q8])
    return _registry(s, lambda value: value["files"][Q8].update(at="../outside/x"))


@attack(IntegrityError, "has the sha256 .*, not", seen=True)
def a_folders_model_that_is_a_link_to_a_secret(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    root = Path(ref.removeprefix("file:"))
    at = root / json.loads((root / "main.json").read_bytes())["files"][Q8]["at"]
    secret = s.folder / "secret"
    secret.write_bytes(b"s" * at.stat().st_size)
    at.unlink()
    at.symlink_to(secret)
    return ref


@attack(RegistryError, "is refused")
def a_folders_record_that_never_ends(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    main = Path(ref.removeprefix("file:")) / "main.json"
    main.unlink()
    os.mkfifo(main)
    return ref


@attack(RegistryError, "commit 00000001 is another one than its tag names")
def a_folders_tag_that_was_moved(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    root = Path(ref.removeprefix("file:"))
    commit = root / "commits" / "00000001.json"
    data = commit.read_bytes().replace(b'"description":""', b'"description":"x"')
    assert data != commit.read_bytes()
    commit.unlink()
    commit.write_bytes(data)
    return f"{ref}@3"


# Credentials.


@attack(RegistryError, "goes on at another host")
def a_list_that_goes_on_at_another_host(s: Scene) -> str:
    there = f'<{s.thief.url}/api/models/{REPO}/tree/{COMMIT}?x=1>; rel="next"'
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[]", Link=there)
    return REPO


@attack(QuantmintError, ".", seen=True)
def the_model_at_another_host(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[Q8] = answer("", 302, Location=f"{s.thief.url}/x/{Q8}")
    return REPO


@attack(RegistryError, "redirects without an end")
def redirects_in_circles(s: Scene) -> str:
    here = f"{s.evil.url}/api/models/{REPO}/revision/main"
    s.evil.pages["/revision/main"] = answer("", 307, Location=here)
    return REPO


@attack(RegistryError, "which is not followed")
def a_redirect_into_a_network(s: Scene) -> str:
    s.evil.pages["/revision/main"] = answer("", 302, Location="ftp://10.0.0.1/x")
    return REPO


@attack(UserError, "no such repository")
def an_answer_that_repeats_the_token(s: Scene) -> str:
    s.evil.pages["/revision/main"] = answer(f'{{"error": "{TOKEN}"}}', 401)
    return REPO


@pytest.mark.parametrize(
    ("made", "kind", "said", "strict", "seen"),
    [pytest.param(*rest, id=name) for name, *rest in ATTACKS],
)
def test_attack(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    made: Attack,
    kind: type[QuantmintError],
    said: str,
    strict: bool,
    seen: bool,
) -> None:
    monkeypatch.setenv("QUANTMINT_REGISTRY", "")
    ref = made(scene)
    before, was = state(scene.home), highest(scene.home)
    with pytest.raises(kind, match=said) as refused:
        scene.pull(ref, strict=strict)
    assert TOKEN not in str(refused.value)
    assert scene.thief.tokens.count(TOKEN) == 0
    assert state(scene.home) == before
    assert highest(scene.home) == (3 if seen else was)
    store = Store(scene.home.store).open()
    assert list(store.verify()) == []
    # What came of a model that ended early is kept to go on with: under no name of a model.
    assert {path.name[:5] for path in store.staging.iterdir()} <= {"part-"}
    assert not list(scene.folder.parent.rglob("evil*.gguf"))


def test_a_redirect_to_another_host_takes_no_token_along(scene: Scene) -> None:
    third = scene.third()
    scene.serve(third)
    scene.thief.files = third
    there = f"/api/models/{REPO}/revision/main"
    scene.evil.pages["/revision/main"] = answer("", 302, Location=scene.thief.url + there)
    model = f"/{REPO}/resolve/{COMMIT}/{Q8}"
    scene.evil.pages[Q8] = answer("", 302, Location=scene.thief.url + model)
    assert scene.pull(REPO).path.read_bytes() == third[Q8]
    assert [there, model] == list(dict.fromkeys(scene.thief.paths))
    assert set(scene.thief.tokens) == {None}
    assert set(scene.evil.tokens) == {TOKEN}


def test_there_are_at_least_thirty() -> None:
    assert len(ATTACKS) >= 30
    assert len({name for name, *_ in ATTACKS}) == len(ATTACKS)


def test_without_an_attack_all_of_it_is_pulled(scene: Scene) -> None:
    third = scene.third()
    scene.serve(third)
    done = scene.pull(REPO, strict=True)
    assert done.path.read_bytes() == third[Q8]
    assert set(scene.evil.tokens) == {TOKEN}


def highest(home: Home) -> int:
    """Return the number of the highest release that was accepted."""
    return TrustRoot(home.keys).policy().seen[f"{OWNER}/{MODEL}"].release


def state(home: Home) -> dict[str, str]:
    """Return what a program could find: models, references, what was seen, and GGUF objects."""
    store = Store(home.store).open()
    found = {}
    for path in sorted(home.root.rglob("*")):
        inner = path.relative_to(home.root).as_posix()
        if not path.is_file() or inner.startswith(("store/leases", "store/gc.lock")):
            continue
        if inner.endswith(".lock") or inner.startswith(("keys/seen", "store/staging/part-")):
            continue
        data = path.read_bytes()
        if inner.startswith("store/objects") and data[:4] != b"GGUF" and data[:1] in b"{[":
            continue  # small files that the signed manifest lists; nothing names them
        found[inner] = hashlib.sha256(data).hexdigest()
    assert store.staging.is_dir()
    return found
