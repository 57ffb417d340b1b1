"""Archives that nobody signed, or that lie of where they are from: what `import` makes of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import run_in
from pulling import MODEL, OWNER, REPO, TITLE, Publisher, model_bytes
from quantmint.errors import IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry.pull import archive, local
from quantmint.registry.pull.bring import Imported, bring
from quantmint.registry.pull.kept import Kept, all_kept, keep
from quantmint.registry.pull.placing import own_spot, placed_files, put_files
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.refs import put_ref
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot

GOOD, EVIL = model_bytes((1,)), model_bytes((6,))
Q8 = f"{TITLE}-Q8_0.gguf"
FOLDER = "file:/shop/plain"
VICTIM, HUB = "victim/Other-GGUF", f"hub:{REPO}"


def a_kept(store: Store, place: str, data: bytes, path: str = "x-Q8_0.gguf", **own: object) -> Kept:
    fields: dict[str, object] = {"model": "other", "commit": "c" * 40, "pulled": "2026"}
    return Kept(place=place, variants={"Q8_0": (path,)}, objects={path: store.put_bytes(data)},
                **{**fields, **own})  # type: ignore[arg-type]  # fmt: skip


class Scene:
    """A home with another's unsigned repository and a signed model, and who makes archives."""

    def __init__(self, home: Home, base: Path) -> None:
        self.home, self.base = home, base
        self.made: dict[str, dict[str, bytes]] = {}
        self.publisher = Publisher(base / "publisher")
        TrustRoot(home.keys).trust(self.publisher.key.public, (f"{OWNER}/*",))
        self.store = Store(home.store).open()
        kept = keep(self.store, a_kept(self.store, f"hub:{VICTIM}", GOOD))
        self.theirs = put_files(self.store, kept, "Q8_0", own_spot(home, kept))
        kept = keep(self.store, a_kept(self.store, FOLDER, GOOD, model="plain"))
        self.plain = put_files(self.store, kept, "Q8_0", own_spot(home, kept))
        self.signed = bring(home, self.release(self.publisher, GOOD)).paths[0]

    def archive(self, kept: Callable[[Store], Kept], name: str = "evil.tar") -> Path:
        """Return an archive as somebody else's machine writes it."""
        store = Store(self.base / "elsewhere" / "store").open()
        (self.base / name).unlink(missing_ok=True)
        archive.export(store, kept(store), self.base / name)
        return self.base / name

    def release(self, who: Publisher, data: bytes, place: str = HUB, **own: object) -> Path:
        """Return an archive of a release with its manifest."""
        # Once for each publisher: a manifest that is made again has another date.
        key = who.base.name + str(own)
        if key not in self.made:
            self.made[key] = who.files(1, {"Q8_0": data}, **own)  # type: ignore[arg-type]
        files = self.made[key]
        names = [n for n in files if n.startswith(("quantmint.", "tensors/", TITLE))]

        def kept(store: Store) -> Kept:
            found = a_kept(store, place, data, Q8, model=own.get("model", MODEL))
            return replace(found, objects={name: store.put_bytes(files[name]) for name in names})

        return self.archive(kept)

    def state(self) -> dict[str, str]:
        """Return everything that is in the home or beside it, but for locks and leases."""
        found = {}
        for path in sorted(self.base.parent.rglob("*")):
            inner = path.relative_to(self.base.parent).as_posix()
            if path.is_file() and "lock" not in path.name and "/leases/" not in inner:
                found[inner] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    base = tmp_path / "base"
    base.mkdir()
    return Scene(Home(base / "home"), base)


@pytest.mark.parametrize(
    "place",
    [
        "hub:{outside}", "hub:../../outside", "hub:a/../../outside", "hub:../models/phi-3-nano",
        "hub:a/b/c", "hub:", "hub:.", "hub:..", "hub:a//b", "hub:.a/b", "hub:a/b:Q8_0", "hub:a/b@1",
        "file:relative", "file:", "import:{outside}", "import:../x", "import:", "import:a/b/../c",
        "elsewhere", "made there", "sha256:" + "a" * 64, "models/x", "",
    ],
)  # fmt: skip
def test_a_place_outside_the_grammar_is_refused(scene: Scene, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    named = place.format(outside=outside)
    target = scene.archive(lambda store: a_kept(store, named, EVIL))
    before = scene.state()
    with pytest.raises(IntegrityError, match="its index makes no sense"):
        bring(scene.home, target)
    assert scene.state() == before
    assert not outside.exists()


@pytest.mark.parametrize("commit", ["../../x", "/tmp/x", "main", "c" * 39, "C" * 40, "folder/.."])
def test_a_commit_is_no_path(scene: Scene, commit: str) -> None:
    target = scene.archive(lambda store: a_kept(store, HUB, EVIL, commit=commit))
    before = scene.state()
    with pytest.raises(IntegrityError, match="its index makes no sense"):
        bring(scene.home, target)
    assert scene.state() == before


def the_victims(scene: Scene) -> list[object]:
    """Return what lies under the names of those that were here first, and what these names mean."""
    names = (f"hub:{VICTIM}", FOLDER, MODEL)
    rows = [local.matching(scene.store, parse_reference(name)) for name in names]
    digests = [blob.sha256 for found in rows for kept in found for blob in kept.files("Q8_0")]
    return [scene.theirs.read_bytes(), scene.plain.read_bytes(), scene.signed.read_bytes(), digests]


def untouched() -> list[object]:
    return [GOOD, GOOD, GOOD, [hashlib.sha256(GOOD).hexdigest()] * 3]


def apart(scene: Scene, came: Imported, name: str) -> None:
    assert came.kept.title == f"import:{name}"
    assert came.paths == (scene.home.models / "_import" / name / came.paths[0].name,)
    assert came.paths[0].read_bytes() == EVIL
    assert "nobody" in came.warnings[0]
    assert f"it is called import:{name} here" in came.warnings[-1]
    found = local.matching(scene.store, parse_reference(f"import:{name}:Q8_0"))
    assert [kept.files("Q8_0") for kept in found] == [came.kept.files("Q8_0")]


def test_nobodys_archive_takes_nobodys_name(scene: Scene) -> None:
    came = bring(scene.home, scene.archive(lambda s: a_kept(s, f"hub:{VICTIM}", EVIL)))
    apart(scene, came, VICTIM)
    assert the_victims(scene) == untouched()


def test_nobodys_archive_takes_no_models_name(scene: Scene) -> None:
    made = scene.archive(lambda s: a_kept(s, FOLDER, EVIL, model="plain"))
    apart(scene, bring(scene.home, made), "plain")
    assert the_victims(scene) == untouched()
    with pytest.raises(UserError, match="may be file:/shop/plain, import:plain"):
        local.matching(scene.store, parse_reference("plain"))


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_strangers_release_takes_no_models_name(scene: Scene, is_signed: bool) -> None:
    stranger = Publisher(scene.base / "stranger")
    made = scene.release(stranger, EVIL, "hub:evil/Plain-GGUF", publisher="evil", model="plain",
                         title="Plain", repository=None, signed=is_signed)  # fmt: skip
    came = bring(scene.home, made)
    assert came.kept.signer is None
    apart(scene, came, "evil/Plain-GGUF")
    assert the_victims(scene) == untouched()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("nothing", "holds no signed manifest"), ("unsigned", "the release is not signed"),
     ("a stranger's", "accepted before with other content")],
)  # fmt: skip
def test_a_model_that_was_signed_comes_signed_or_not_at_all(
    scene: Scene, kind: str, said: str
) -> None:
    stranger = Publisher(scene.base / "stranger")
    made = (
        scene.archive(lambda s: a_kept(s, HUB, EVIL, Q8, model=MODEL))
        if kind == "nothing"
        else scene.release(stranger, EVIL, signed=kind != "unsigned")
    )
    before = scene.state()
    with pytest.raises(IntegrityError, match=said):
        bring(scene.home, made)
    assert scene.state() == before
    assert the_victims(scene) == untouched()


def test_a_signed_release_under_another_repositorys_name(scene: Scene) -> None:
    made = scene.release(scene.publisher, GOOD, f"hub:{VICTIM}")
    before = scene.state()
    with pytest.raises(IntegrityError, match=f"says that it is of {VICTIM}"):
        bring(scene.home, made)
    assert scene.state() == before


def test_one_import_does_not_replace_another(scene: Scene) -> None:
    first = bring(scene.home, scene.archive(lambda s: a_kept(s, f"hub:{VICTIM}", EVIL)))
    third = model_bytes((7,))
    made = scene.archive(lambda s: a_kept(s, f"hub:{VICTIM}", third))
    before = scene.state()
    with pytest.raises(UserError, match="another archive that says it is import:victim") as refused:
        bring(scene.home, made)
    assert scene.state() == before
    assert first.paths[0].read_bytes() == EVIL
    assert f"quantmint rm import:{VICTIM}" in str(refused.value.mend)
    other = scene.archive(lambda s: a_kept(s, f"hub:{VICTIM}", third, "y-Q8_0.gguf", model="y"))
    first.paths[0].with_name("y-Q8_0.gguf").write_bytes(b"mine")
    before = scene.state()
    with pytest.raises(UserError, match="is another file"):
        bring(scene.home, other)
    assert scene.state() == before


@pytest.mark.parametrize(
    "body",
    [{"place": "hub:../../outside"}, {"place": "hub:{outside}"}, {"commit": "../../outside"},
     {"variants": {"Q8_0": ["../../outside/x-Q8_0.gguf"]}}],
)  # fmt: skip
def test_rm_and_list_stay_in_the_home(
    scene: Scene, tmp_path: Path, body: dict[str, object]
) -> None:
    outside = tmp_path / "base" / "outside"
    named = {k: v.format(outside=outside) if isinstance(v, str) else v for k, v in body.items()}
    kept = a_kept(scene.store, "hub:evil/x", EVIL)
    (blob,) = kept.objects.values()
    objects = {"x-Q8_0.gguf": blob, "../../outside/x-Q8_0.gguf": blob}
    put_ref(scene.store, MODEL, kept.name, objects, body={**kept.body, **named})
    outside.mkdir()
    os.link(scene.store.path(blob.sha256), outside / "x-Q8_0.gguf")
    for words in (("rm", MODEL), ("rm", "hub:evil/x"), ("list",), ("verify", MODEL)):
        ran = run_in(scene.home, *words)
        assert (ran.code, "is damaged" in ran.err) == (5, True), (words, ran)
    assert (outside / "x-Q8_0.gguf").read_bytes() == EVIL


def test_no_folder_outside_is_made_of_any_reference(scene: Scene) -> None:
    for name in ("/tmp/x", "../x", "a/../../x", "", ".", "a//b"):
        kept = a_kept(scene.store, f"hub:{name}", EVIL)
        with pytest.raises(IntegrityError, match="is no folder below"):
            placed_files(scene.store, scene.home, kept, "Q8_0")


def test_what_was_imported_is_carried_on_and_removed(scene: Scene) -> None:
    came = bring(scene.home, scene.archive(lambda s: a_kept(s, f"hub:{VICTIM}", EVIL)))
    target = scene.base / "on.tar"
    ran = run_in(scene.home, "export", f"import:{VICTIM}", "-o", target)
    assert ran.code == 0, ran.err
    again = bring(Home(scene.base / "third"), target)
    assert again.kept.title == f"import:{VICTIM}"
    ran = run_in(scene.home, "rm", f"import:{VICTIM}")
    assert (ran.code, came.paths[0].exists()) == (0, False), ran.err
    assert the_victims(scene) == untouched()
    assert len(all_kept(scene.store)) == 3
