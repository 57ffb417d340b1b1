"""Who can withdraw a release, and who can't: status files that are right, forged, old or gone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from attacks import ENVELOPE, MACHINE, MANIFEST, Q8, SIGNATURE, STATUS, Scene
from fault_tools import TOKEN
from helpers import Ran, run_in
from pulling import MODEL, OWNER, REPO, Publisher, model_bytes, to_folder
from quantmint.errors import IntegrityError, RegistryError
from quantmint.home import Home
from quantmint.registry.publish import FolderTarget, Options
from quantmint.registry.publish import yank as yank_release
from quantmint.registry.publish.status import STATUS_TYPE
from quantmint.registry.pull import local
from quantmint.registry.pull.engine import Puller, Request
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.outdated import Standing, newest_of, standing
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.pull.withdrawn import WithdrawnError
from quantmint.registry.signing.envelope import seal
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot

Files = dict[str, bytes]


def yank(publisher: Publisher, files: Files, name: str = "v2", *, signed: bool = True) -> Files:
    return publisher.status({name: {Q8: hashlib.sha256(files[Q8]).hexdigest()}}, signed=signed)


def stands(scene: Scene) -> Standing:
    store = Store(scene.home.store).open()
    (kept,) = newest_of(all_kept(store))
    (row,) = standing(store, kept, TrustRoot(scene.home.keys))
    return row


def run(scene: Scene, *words: str) -> Ran:
    return run_in(scene.home, *words, HF_HUB_OFFLINE="1")


def test_a_withdrawal_by_the_publisher_is_seen_everywhere(scene: Scene) -> None:
    carried = scene.folder.parent / "carried.tar"
    assert run(scene, "export", MODEL, "-o", str(carried)).code == 0
    scene.serve({**scene.second, **yank(scene.publisher, scene.second)})
    row = stands(scene)
    assert (row.change, row.matters) == ("withdrawn", True)
    assert "it says wrong things" in row.means
    # It was noted: without asking anybody the model is found, and told of, but not used.
    shown = run(scene, "show", MODEL)
    assert shown.code == 0
    assert "not to be used any more" in shown.err
    assert "it says wrong things" in shown.err
    for words in (("show", MODEL, "--modelfile"), ("run", MODEL, "hello"), ("pull", MODEL),
                  ("export", MODEL), ("verify", MODEL), ("import", str(carried))):  # fmt: skip
        ran = run(scene, *words)
        assert (ran.code, "withdrawn" in ran.err + ran.out) == (5, True), (words, ran)
    listed = json.loads(run(scene, "list", "--json").out)
    assert [each["withdrawn"] for each in listed] == [True]
    with pytest.raises(WithdrawnError):
        local.find(Store(scene.home.store).open(), parse_reference(MODEL),
                   TrustRoot(scene.home.keys))  # fmt: skip


@pytest.mark.parametrize("who", ["nobody", "a stranger", "another's key", "a revoked key", "junk"])
def test_a_forged_withdrawal_withdraws_nothing(scene: Scene, who: str) -> None:
    third = scene.third()
    other = Publisher(scene.folder / "other")
    said = yank(other, third, "v3", signed=who != "nobody")
    root = TrustRoot(scene.home.keys)
    if who == "another's key":
        root.trust(other.key.public, ("other-org/*",))
    if who == "a revoked key":
        root.trust(other.key.public, (f"{OWNER}/*",))
        root.revoke(other.key.public.id, "stolen")
    if who == "junk":
        said[SIGNATURE] = b"[" * 1000
    scene.serve({**third, **said})
    done = scene.pull(REPO)
    assert done.path.read_bytes() == third[Q8]
    (warning,) = done.resolved.warnings
    assert "says that this was withdrawn (v3: it says wrong things)" in warning
    assert warning.endswith("it does not count")
    assert root.policy().withdrawn == {}
    assert stands(scene).change == "nothing"
    assert run(scene, "show", MODEL).err == ""
    with pytest.raises(IntegrityError, match="it does not count"):
        scene.pull(REPO, strict=True)


def test_what_was_signed_counts_not_the_plain_file_beside_it(scene: Scene) -> None:
    third = scene.third()
    signed = yank(scene.publisher, third, "v3")
    scene.serve({**third, **signed, STATUS: scene.publisher.status({})[STATUS]})
    with pytest.raises(WithdrawnError, match="v3: it says wrong things"):
        scene.pull(REPO)
    calm = scene.publisher.status({})
    assert TrustRoot(scene.home.keys).policy().withdrawn[f"{OWNER}/{MODEL}"]
    fourth = scene.publisher.files(4, {"Q8_0": scene.first[Q8] + b""})
    scene.serve({**fourth, **calm, STATUS: yank(scene.publisher, fourth, "v4")[STATUS]})
    assert scene.pull(REPO).kept.number == 4


def test_main_tells_what_was_withdrawn_of_a_release_that_is_named(
    home: Home, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    root, work = tmp_path / "registry", tmp_path / "work"
    data = {"Q8_0": model_bytes()}
    to_folder(root, publisher.files(1, data), "v1", work)
    to_folder(root, publisher.files(2, {**data, "Q4_K_M": model_bytes((9,))}), "v2", work)

    def sign(body: bytes) -> bytes:
        return seal(body, STATUS_TYPE, [publisher.key])

    options = Options(work=work, sign=sign)
    yank_release("v1", FolderTarget(root), reason="it says wrong things", options=options)
    puller = Puller(home, machine=MACHINE)
    with pytest.raises(WithdrawnError, match="v1: it says wrong things"):
        puller.pull(Request(reference=parse_reference(f"file:{root}@1")))
    # The same bytes in a release that stands are not withdrawn with the other.
    done = puller.pull(Request(reference=parse_reference(f"file:{root}:Q8_0")))
    assert (done.kept.number, done.path.read_bytes()) == (2, data["Q8_0"])


@pytest.mark.parametrize("served", ["nothing", "an older one", "an unsigned one"])
def test_a_withdrawal_is_not_taken_back(scene: Scene, served: str) -> None:
    third = scene.third()
    scene.serve({**third, **yank(scene.publisher, third, "v3")})
    with pytest.raises(WithdrawnError):
        scene.pull(REPO)
    calm = scene.publisher.status({}, signed=served == "an older one")
    scene.serve(third if served == "nothing" else {**third, **calm})
    with pytest.raises(WithdrawnError, match="v3: it says wrong things"):
        scene.pull(REPO)
    assert stands(scene).change == "unknown"  # release 2 is here; what is newest can't be used


def test_a_trusted_publisher_withdraws_nothing_of_anothers(scene: Scene) -> None:
    third = scene.third()
    other = Publisher(scene.folder / "other")
    TrustRoot(scene.home.keys).trust(other.key.public, ("other-org/*",))
    theirs = other.files(1, {"Q8_0": third[Q8]}, publisher="other-org", model="theirs",
                         repository="other-org/Theirs-GGUF")  # fmt: skip
    scene.serve({**theirs, **yank(other, theirs, "v1")})
    with pytest.raises(WithdrawnError):
        scene.pull("other-org/Theirs-GGUF")
    assert list(TrustRoot(scene.home.keys).policy().withdrawn) == ["other-org/theirs"]
    scene.serve(third)  # the same bytes, by who owns this model
    assert scene.pull(REPO).kept.number == 3


def test_a_main_from_which_all_was_withdrawn(scene: Scene) -> None:
    gone = {"README.md": b"withdrawn"}
    scene.serve({**gone, **yank(scene.publisher, scene.second)})
    with pytest.raises(WithdrawnError, match="it says wrong things") as refused:
        scene.pull(REPO)
    assert f"{REPO}@NUMBER" in str(refused.value.mend)
    assert stands(scene).change == "withdrawn"


def test_a_main_from_which_somebody_took_the_release(scene: Scene) -> None:
    scene.serve({"x-Q8_0.gguf": scene.first[Q8], **scene.publisher.status({})})
    with pytest.raises(IntegrityError, match="somebody took it away"):
        scene.pull(REPO)
    assert stands(scene).change == "unknown"


def test_a_main_that_a_stranger_says_is_withdrawn(scene: Scene) -> None:
    other = Publisher(scene.folder / "other")
    scene.serve({"README.md": b"withdrawn", **yank(other, scene.second)})
    with pytest.raises(RegistryError, match="nobody trusts here"):
        scene.pull(REPO)
    assert stands(scene).change == "unknown"
    assert run(scene, "show", MODEL).err == ""
    # Another model there, of which nobody knows that it must be signed, is only warned of.
    scene.serve({"README.md": b"x", "x-Q8_0.gguf": scene.second[Q8], **yank(other, scene.second)})
    assert scene.pull("somebody/other").path.read_bytes() == scene.second[Q8]


def test_without_any_trust_all_is_told_and_nothing_counts(scene: Scene) -> None:
    TrustRoot(scene.home.keys).forget(scene.publisher.key.public.id)
    for folder in (scene.home.keys / "seen").glob("*/*/*"):
        folder.unlink()
    third = scene.third(repository="my-org/New-GGUF", model="new", title="New")
    assert {ENVELOPE, MANIFEST} < set(third)
    scene.serve({**third, **yank(scene.publisher, third, "v3")})
    first, second = scene.pull("my-org/New-GGUF").resolved.warnings
    assert "which nobody trusts" in first
    assert "it does not count" in second
    assert TOKEN not in first + second
