"""Living with pulled models: list, show, outdated, rm, gc, export and import."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import Ran
from pulling import MODEL, OWNER, SEEDS, Publisher, model_bytes, to_folder, variant_row, withdrawal
from quantmint.errors import IntegrityError, QuantmintError, UserError
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.registry.leases import release_all
from quantmint.registry.machine import Machine
from quantmint.registry.pull import archive
from quantmint.registry.pull.bring import bring
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.outdated import standing
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.refs import put_ref
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot

Quantmint = Callable[..., Ran]
MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)


class Shop:
    """A registry in a folder, whose publisher is trusted here, and a home that pulls from it."""

    def __init__(self, home: Home, base: Path) -> None:
        self.home, self.base = home, base
        self.root = base / "registry" / "Phi-3-nano-GGUF"
        self.publisher = Publisher(base / "publisher")
        TrustRoot(home.keys).trust(self.publisher.key.public, (f"{OWNER}/*",))

    @property
    def ref(self) -> str:
        return f"file:{self.root}"

    def publish(self, number: int, files: dict[str, bytes]) -> dict[str, bytes]:
        to_folder(self.root, files, f"v{number}", self.base / "work")
        return files

    def pull(self, ref: str | None = None) -> Pulled:
        request = Request(reference=parse_reference(ref or self.ref))
        return Puller(self.home, machine=MACHINE).pull(request)

    def changes(self) -> dict[str, str]:
        store = Store(self.home.store).open()
        (kept,) = all_kept(store)
        return {row.variant: row.change for row in standing(store, kept, TrustRoot(self.home.keys))}


@pytest.fixture
def shop(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.delenv("QUANTMINT_REGISTRY", raising=False)
    return Shop(home, tmp_path)


def objects(home: Home) -> set[str]:
    return {path.name for path in Store(home.store).open().blobs()}


@pytest.mark.parametrize(
    ("expected", "variants", "fields"),
    [
        ("nothing", {"Q8_0": model_bytes()}, {}),
        ("weights", {"Q8_0": model_bytes((1, 2, 9))}, {}),
        ("template", {"Q8_0": model_bytes(template="other")}, {"chat_template_sha256": "d" * 64}),
        ("metadata", {"Q8_0": model_bytes(template="other")}, {}),
        ("gone", {"Q4_K_M": model_bytes(SEEDS["Q4_K_M"])}, {}),
    ],
)
def test_what_a_newer_release_changed(
    shop: Shop, expected: str, variants: dict[str, bytes], fields: dict[str, str]
) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    assert shop.changes() == {"Q8_0": "nothing"}
    shop.publish(2, shop.publisher.files(2, variants, **fields))
    assert shop.changes() == {"Q8_0": expected}


def test_new_measurements_and_a_withdrawal(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()

    def other(*words: object) -> object:
        return variant_row(*words, choices=(), weights=2000)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("pulling.variant_row", other)
        shop.publish(2, shop.publisher.files(2, {"Q8_0": model_bytes()}))
    assert shop.changes() == {"Q8_0": "measurements"}
    shop.publish(3, shop.publisher.files(3, yanked=(withdrawal(1, first),)))
    assert shop.changes() == {"Q8_0": "withdrawn"}


def test_list_show_rm_and_gc(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1))
    eight, four = shop.pull(f"{shop.ref}:Q8_0"), shop.pull(f"{shop.ref}:Q4_K_M")
    rows = json.loads(quantmint("list", "--json").out)
    assert {(row["variant"], row["path"]) for row in rows} == {
        ("Q8_0", str(eight.path)), ("Q4_K_M", str(four.path)),
    }  # fmt: skip
    shown = quantmint("show", MODEL)
    assert "made from microsoft/Phi-3-nano" in shown.out
    made = quantmint("show", f"{MODEL}:Q8_0", "--modelfile").out
    assert f"FROM {eight.path}\n" in made
    assert 'PARAMETER stop "<|end|>"' in made
    removed = quantmint("rm", f"{MODEL}:Q8_0", "--json")
    assert (removed.code, removed.err) == (0, "")
    assert [row["variant"] for row in json.loads(removed.out)] == ["Q8_0"]
    assert not eight.path.exists()
    assert four.path.exists()
    quantmint("gc", "--older-than", "0")
    assert [row["variant"] for row in json.loads(quantmint("list", "--json").out)] == ["Q4_K_M"]
    sizes = {path.stat().st_size for path in Store(shop.home.store).open().blobs()}
    assert four.path.stat().st_size in sizes
    assert len([size for size in sizes if size > 1_000_000]) == 1
    assert quantmint("rm", MODEL).code == 0
    assert quantmint("list").out == ""
    assert list(shop.home.models.rglob("*.gguf")) == []
    again = quantmint("rm", MODEL)
    assert (again.code, "is not on this machine" in again.err) == (2, True)


def test_rm_frees_the_disk_by_itself(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1))
    eight, four = shop.pull(f"{shop.ref}:Q8_0"), shop.pull(f"{shop.ref}:Q4_K_M")
    young = Store(shop.home.store).open().put_bytes(b"not named yet" * 1000)
    (both,) = all_kept(Store(shop.home.store))
    release_all()  # what this process pulled is needed by nobody else
    assert quantmint("rm", f"{MODEL}:Q8_0").code == 0
    left = objects(shop.home)
    assert {blob.sha256 for blob in both.objects.values()} - left == {
        four.kept.objects[path].sha256 for path in ("Phi-3-nano-Q8_0.gguf", "tensors/Q8_0.json")
    }
    assert four.path.exists()
    assert quantmint("verify", MODEL).code == 0
    kept_by_another = four.path.with_name("of-another.gguf")
    Store(shop.home.store).link(four.kept.objects["Phi-3-nano-Q4_K_M.gguf"], kept_by_another)
    assert quantmint("rm", MODEL).code == 0
    needed = {four.kept.objects["Phi-3-nano-Q4_K_M.gguf"].sha256, young.sha256}
    assert objects(shop.home) == needed  # a link below models/, and what is younger than a day
    assert not eight.path.exists()


def test_rm_takes_nothing_from_who_uses_it(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    kept = shop.pull().kept  # pinned by this process, which goes on
    assert quantmint("rm", MODEL).code == 0
    assert {blob.sha256 for blob in kept.objects.values()} <= objects(shop.home)
    release_all()
    assert quantmint("gc", "--older-than", "0").code == 0
    assert objects(shop.home) == set()


def folder_of(shop: Shop, *names: str, seed: int = 5) -> str:
    for at, name in enumerate(names):
        path = shop.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model_bytes((seed + at,)))
    return f"file:{shop.base / Path(names[0]).parts[0] / Path(names[0]).parts[1]}"


def test_a_short_name_is_not_guessed(shop: Shop, quantmint: Quantmint) -> None:
    alice = folder_of(shop, "alice/Phi-3-GGUF/x-Q8_0.gguf")
    bob = folder_of(shop, "bob/Phi-3-GGUF/y-Q8_0.gguf", seed=8)
    first, second = shop.pull(alice), shop.pull(bob)
    assert {first.kept.model, second.kept.model} == {"phi-3"}
    for words in (("rm", "phi-3"), ("show", "phi-3:Q8_0"), ("export", "phi-3"), ("verify", "phi-3"),
                  ("outdated", "phi-3"), ("run", "phi-3", "hello")):  # fmt: skip
        ran = quantmint(*words)
        if words[0] == "run" and "is not installed" in ran.err:
            continue
        assert (ran.code, ran.out) == (2, ""), words
        assert f"phi-3 is ambiguous here: it may be {alice}, {bob}" in ran.err, words
    assert first.path.exists()
    assert second.path.exists()
    rows = json.loads(quantmint("list", "--json").out)
    assert {row["ref"] for row in rows} == {f"{alice}:Q8_0", f"{bob}:Q8_0"}
    assert quantmint("rm", rows[0]["ref"]).code == 0
    assert [first.path.exists(), second.path.exists()].count(True) == 1
    assert quantmint("rm", "phi-3").code == 0  # now it means one
    assert json.loads(quantmint("list", "--json").out) == []


def test_a_short_name_is_the_signed_ones(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    signed = shop.pull()
    other = shop.pull(folder_of(shop, "other/Phi-3-nano/x-Q4_0.gguf"))
    assert other.kept.model == MODEL
    ran = quantmint("rm", MODEL, "--json")
    assert [row["variant"] for row in json.loads(ran.out)] == ["Q8_0"]
    assert (signed.path.exists(), other.path.exists()) == (False, True)
    again = shop.pull()
    assert quantmint("rm", f"{OWNER}/{MODEL}").code == 0
    assert (again.path.exists(), other.path.exists()) == (False, True)


def test_two_publishers_of_one_name(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    other = Publisher(shop.base / "other")
    TrustRoot(shop.home.keys).trust(other.key.public, ("other/*",))
    root = shop.base / "elsewhere" / "Phi-3-nano-GGUF"
    files = other.files(1, {"Q4_0": model_bytes((9,))}, publisher="other", repository=None)
    to_folder(root, files, "v1", shop.base / "work-of-other")
    shop.pull(f"file:{root}")
    rows = json.loads(quantmint("list", "--json").out)
    assert {row["ref"] for row in rows} == {f"{OWNER}/{MODEL}:Q8_0", f"other/{MODEL}:Q4_0"}
    ran = quantmint("rm", MODEL)
    assert (ran.code, f"it may be {OWNER}/{MODEL}, other/{MODEL}" in ran.err) == (2, True)
    assert quantmint("rm", f"other/{MODEL}:Q4_0").code == 0
    assert [row["ref"] for row in json.loads(quantmint("list", "--json").out)] == [f"{MODEL}:Q8_0"]


def test_an_unsigned_folder_replaces_no_signed_file(shop: Shop) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    signed = shop.pull()
    other = folder_of(shop, f"other/Phi-3-nano/{signed.path.name}")
    with pytest.raises(UserError, match="is another file; it was left as it is"):
        shop.pull(other)
    assert len(all_kept(Store(shop.home.store))) == 1
    assert signed.path.read_bytes() == model_bytes()
    mine = folder_of(shop, "mine/own/x-Q8_0.gguf")
    shop.pull(mine)
    folder_of(shop, "mine/own/x-Q8_0.gguf", seed=9)
    assert shop.pull(mine).path.read_bytes() == model_bytes((9,))  # its own older one it does


def test_two_variants_of_different_releases_are_both_compared(
    shop: Shop, quantmint: Quantmint
) -> None:
    shop.publish(1, shop.publisher.files(1))
    shop.pull(f"{shop.ref}:Q4_K_M")
    shop.publish(2, shop.publisher.files(2, {"Q8_0": model_bytes(),
                                             "Q4_K_M": model_bytes((1, 4, 9))}))  # fmt: skip
    shop.pull(f"{shop.ref}:Q8_0")
    rows = json.loads(quantmint("outdated", "--json").out)
    found = {(row["variant"], row["here"], row["newest"], row["changed"]) for row in rows}
    assert found == {("Q4_K_M", "1", "2", "weights"), ("Q8_0", "2", "2", "nothing")}
    shop.pull(f"{shop.ref}:Q4_K_M")
    rows = json.loads(quantmint("outdated", "--json").out)
    assert {(row["variant"], row["here"]) for row in rows} == {("Q4_K_M", "2"), ("Q8_0", "2")}


def test_outdated_by_hand(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    shop.publish(2, shop.publisher.files(2, {"Q8_0": model_bytes(template="x" * 500)},
                                         chat_template_sha256="d" * 64))  # fmt: skip
    ran = quantmint("outdated", "--exit-code")
    assert ran.code == 1
    assert "another chat template" in ran.out
    (row,) = json.loads(quantmint("outdated", MODEL, "--json").out)
    assert (row["changed"], row["matters"]) == ("template", True)
    assert row["fetch"] < 10_000


def test_outdated_knows_only_what_was_pulled(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    for ref in ("another", f"{MODEL}:Q2_K"):
        ran = quantmint("outdated", ref, "--exit-code")
        assert (ran.code, ran.out) == (2, "")
        assert f"{ref!r} was not pulled to this machine" in ran.err


def test_verify_says_what_is_wrong_with_a_model(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1))
    eight, four = shop.pull(f"{shop.ref}:Q8_0"), shop.pull(f"{shop.ref}:Q4_K_M")
    ran = quantmint("verify", MODEL)
    assert (ran.code, ran.err) == (0, "")
    key = shop.publisher.key.public.id
    assert f"sound; signed with key {key[:16]}" in ran.out
    assert json.loads(quantmint("verify", "--all", "--json").out)["bits"] == 0
    store = Store(shop.home.store).open()
    blob = eight.kept.objects["Phi-3-nano-Q8_0.gguf"]
    path = store.path(blob.sha256)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    table = store.path(eight.kept.objects["tensors/Q8_0.json"].sha256)
    table.unlink()
    four.path.unlink()
    four.path.write_bytes(b"something else")
    ran = quantmint("verify", MODEL, "--json")
    assert ran.code == 5
    assert "1 of 1 releases are not sound (bits 5)" in ran.err
    said = json.loads(ran.out)
    (model,) = said["models"]
    assert (said["bits"], model["bits"], model["signer"]) == (5, 5, key)
    found = {(fault["verdict"], fault["path"]) for fault in model["faults"]}
    assert found == {
        ("corrupt", str(path)), ("unreadable", str(table)), ("corrupt", str(four.path)),
    }  # fmt: skip
    # What the message says to do mends it.
    path.unlink()
    four.path.unlink()
    for variant in ("Q8_0", "Q4_K_M"):
        shop.pull(f"{shop.ref}:{variant}")
    assert quantmint("verify", MODEL).code == 0


def test_verify_does_not_believe_the_reference(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    kept = shop.pull().kept
    store = Store(shop.home.store).open()
    other = store.put_bytes(model_bytes((7, 8, 9)))
    objects = {**kept.objects, "Phi-3-nano-Q8_0.gguf": other}
    assert kept.ref is not None
    put_ref(store, kept.model, kept.name, objects, body=kept.body, expected=kept.ref.revision)
    ran = quantmint("verify", MODEL)
    assert ran.code == 5
    assert "Phi-3-nano-Q8_0.gguf is not what the signed manifest lists" in ran.out


def test_verify_asks_who_vouches_for_a_model(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1))
    shop.pull()
    plain = shop.base / "plain"
    plain.mkdir()
    (plain / "x-Q8_0.gguf").write_bytes(model_bytes((5,)))
    shop.pull(f"file:{plain}")
    unsigned = quantmint("verify", f"file:{plain}")
    assert unsigned.code == 0
    assert "nobody vouches for it" in unsigned.err
    strict = quantmint("verify", "--all", "--strict", "--json")
    assert (strict.code, json.loads(strict.out)["bits"]) == (5, 2)
    TrustRoot(shop.home.keys).revoke(shop.publisher.key.public.id, "stolen")
    ran = quantmint("verify", MODEL)
    assert ran.code == 5
    assert ran.out.startswith("untrusted  ")
    assert "which is revoked ('stolen')" in ran.out
    missing = quantmint("verify", "phi-9")
    assert (missing.code, missing.out) == (2, "")
    assert "is neither a folder nor a model that is here" in missing.err


def test_two_releases_of_one_model_share_a_name(shop: Shop, quantmint: Quantmint) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    shop.publish(2, shop.publisher.files(2, {"Q8_0": model_bytes((7, 8, 9))}))
    shop.pull()
    ran = quantmint("verify", "--all")
    assert (ran.code, ran.out.count("sound; signed")) == (0, 2), ran.out


def test_gc_throws_away_what_nobody_goes_on_with(shop: Shop, quantmint: Quantmint) -> None:
    store = Store(shop.home.store).open()
    left = store.staging / f"part-{'a' * 64}.{'0' * 16}.{'b' * 12}"
    left.mkdir()
    (left / "data").write_bytes(b"x" * 1_000_000)
    (left / "journal").write_bytes(b"{}")
    assert json.loads(quantmint("gc", "--json").out)["unfinished"] == []
    dry = json.loads(quantmint("gc", "--older-than", "0", "--dry-run", "--json").out)
    assert dry["unfinished"] == [str(left)]
    assert left.exists()
    ran = quantmint("gc", "--older-than", "0")
    assert "1 unfinished transfers: 1.0 MB freed" in ran.out
    assert not left.exists()


def carried(shop: Shop, tmp_path: Path) -> Path:
    target = tmp_path / "carried.tar"
    store = Store(shop.home.store).open()
    (kept,) = all_kept(store)
    archive.export(store, kept, target)
    return target


def other_home(shop: Shop, tmp_path: Path) -> Home:
    home = Home(tmp_path / "other")
    TrustRoot(home.keys).trust(shop.publisher.key.public, (f"{OWNER}/*",))
    return home


def test_a_model_is_carried_to_another_machine(
    shop: Shop, quantmint: Quantmint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = shop.publish(1, shop.publisher.files(1))
    shop.pull(f"{shop.ref}:Q8_0")
    shop.pull(f"{shop.ref}:Q4_K_M")
    target = tmp_path / "one.tar"
    ran = quantmint("export", f"{MODEL}:Q8_0", "-o", target)
    assert (ran.code, ran.out) == (0, f"{target}\n"), ran.err
    assert quantmint("export", f"{MODEL}:Q8_0", "-o", target).code == 2  # it is not replaced
    home = other_home(shop, tmp_path)
    monkeypatch.setenv("QUANTMINT_OFFLINE", "1")
    came = bring(home, target, strict=True)
    assert [path.read_bytes() for path in came.paths] == [files["Phi-3-nano-Q8_0.gguf"]]
    assert came.kept.signer == shop.publisher.key.public.id
    listed = subprocess.run(["tar", "-tf", target], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[0] == archive.INDEX
    again = carried(shop, tmp_path)
    assert bring(home, again).kept.variants.keys() == {"Q8_0", "Q4_K_M"}


def test_two_exports_are_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    shop.publish(1, shop.publisher.files(1))
    shop.pull()
    first = carried(shop, tmp_path).read_bytes()
    (tmp_path / "carried.tar").unlink()
    assert carried(shop, tmp_path).read_bytes() == first


def _at(data: bytes, size: int) -> int:
    """Return where the last object of that size begins."""
    return len(data) - 1024 - size - (-size % 512)


def damaged(data: bytes) -> list[tuple[str, bytes]]:
    """Return archives that were tampered with, by what was done."""
    size = len(model_bytes())
    start = _at(data, size)
    index_ends = 512 + -(-int(data[124:135], 8) // 512) * 512
    index = data[512 : 512 + int(data[124:135], 8)]
    value = json.loads(index)

    def with_index(**own: object) -> bytes:
        body = canonical_json({**value, **own})
        head = archive._header(archive.INDEX, len(body))
        return head + body + bytes(-len(body) % 512) + data[index_ends:]

    other = {**value["files"], "../evil.gguf": ["a" * 64, 5]}
    wrong = {**value["files"], "Phi-3-nano-Q4_K_M.gguf": value["files"]["Phi-3-nano-Q8_0.gguf"]}
    return [
        ("a bit", data[: start + 700] + bytes([data[start + 700] ^ 1]) + data[start + 701 :]),
        ("the end", data[:-1024]),
        ("half", data[: len(data) // 2]),
        ("more", data + b"x"),
        ("a name", data[: start - 512] + b"../../evil" + data[start - 502 :]),
        ("a link", data[: start - 512 + 156] + b"2" + data[start - 512 + 157 :]),
        ("a long name", b"././@LongLink" + data[13:]),
        ("a size", data[:124] + b"77777777777" + data[135:]),
        ("no tar", b"x" * 5000),
        ("nothing", b""),
        ("a path", with_index(files=other)),
        ("a file more", with_index(files=wrong)),
        ("a variant", with_index(variants={"Q4_K_M": ["Phi-3-nano-Q8_0.gguf"]})),
        ("a model", with_index(model="../x")),
        ("another model", with_index(model="phi-4")),
        ("a field", with_index(more=1)),
        ("a size less than nothing", with_index(files={"a": ["a" * 64, -1]})),
        ("a release", with_index(number="1")),
        ("padding", data[: -1024 - 1] + b"x" + data[-1024:]),
    ]  # fmt: skip


def test_no_tampered_archive_is_taken(shop: Shop, tmp_path: Path) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    data = carried(shop, tmp_path).read_bytes()
    home = other_home(shop, tmp_path)
    bring(home, tmp_path / "carried.tar")
    for kept in all_kept(Store(home.store).open()):
        assert kept.number == 1
    empty = Home(tmp_path / "empty")
    TrustRoot(empty.keys).trust(shop.publisher.key.public, (f"{OWNER}/*",))
    for what, altered in damaged(data):
        if what == "padding" and len(model_bytes()) % 512 == 0:
            continue
        (tmp_path / "altered.tar").write_bytes(altered)
        with pytest.raises(QuantmintError) as refused:
            bring(empty, tmp_path / "altered.tar")
        assert isinstance(refused.value, IntegrityError), what
        assert objects(empty) == set(), what
        assert not empty.models.exists(), what
        assert list(Store(empty.store).open().staging.iterdir()) == [], what
        assert all_kept(Store(empty.store)) == [], what


def test_an_archive_is_no_way_back(shop: Shop, tmp_path: Path) -> None:
    shop.publish(1, shop.publisher.files(1, {"Q8_0": model_bytes()}))
    shop.pull()
    target = carried(shop, tmp_path)
    home = other_home(shop, tmp_path)
    shop.publish(2, shop.publisher.files(2, {"Q8_0": model_bytes((9,))}))
    newer = Puller(home, machine=MACHINE)
    newer.pull(Request(reference=parse_reference(shop.ref)))
    with pytest.raises(IntegrityError, match="went back in time"):
        bring(home, target)
    assert bring(home, target, release=1).kept.number == 1
    TrustRoot(home.keys).revoke(shop.publisher.key.public.id, "stolen")
    with pytest.raises(IntegrityError, match="revoked"):
        bring(home, target, release=1)


def test_an_unsigned_archive(shop: Shop, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "x-Q8_0.gguf").write_bytes(model_bytes())
    shop.pull(f"file:{plain}")
    target = carried(shop, tmp_path)
    home = Home(tmp_path / "other")
    assert "nobody vouches" in bring(home, target).warnings[0]
    with pytest.raises(IntegrityError, match="no signed manifest"):
        bring(Home(tmp_path / "strict"), target, strict=True)


def test_running_needs_something_that_runs(
    shop: Shop, quantmint: Quantmint, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "llama_cpp"
    hidden.mkdir(parents=True)
    (tmp_path / "hidden" / "sitecustomize.py").write_text(
        "import importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n in ('llama_cpp', 'dagster') else real(n, p)\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "hidden")}
    ran = quantmint("run", MODEL, "hello", env=env)
    assert ran.code == 2
    assert "llama-cpp-python is not installed" in ran.err
    with pytest.raises(UserError):
        shop.pull(MODEL)
