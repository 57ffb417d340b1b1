"""Mirrors of a hub that can't be reached: they list and serve, get no token, are judged alike."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import quantmint as package
from attacks import MACHINE, QUICK
from fault_tools import TOKEN, know_only
from helpers import Ran
from hub import Hub
from pulling import MODEL, OWNER, REPO, TITLE, Publisher, model_bytes, serve
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.home import Home
from quantmint.registry.pull import web
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.pull.ways import MIRRORS, Ways
from quantmint.registry.trust_root import TrustRoot

Q8 = f"{TITLE}-Q8_0.gguf"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(web, "PATIENCE", QUICK)
    with Hub(tokens=(TOKEN,)) as running:
        know_only(running.url, tmp_path, monkeypatch)
        monkeypatch.delenv("QUANTMINT_REGISTRY", raising=False)
        monkeypatch.delenv(MIRRORS, raising=False)
        yield running


@pytest.fixture
def mirror() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def publisher(tmp_path: Path, home: Home) -> Publisher:
    made = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(made.key.public, (f"{OWNER}/*",))
    return made


def pull(home: Home, ref: str = REPO, *mirrors: str, strict: bool = False) -> Pulled:
    request = Request(
        reference=parse_reference(ref), limits=QUICK, mirrors=mirrors, strict=strict
    )  # fmt: skip
    return Puller(home, machine=MACHINE).pull(request)


def stop(hub: Hub) -> None:
    """Nobody listens there any more."""
    for server in hub._servers:
        server.shutdown()
        server.server_close()


def drop(hub: Hub) -> None:
    hub.faults.drop("", times=1000)


def overload(hub: Hub) -> None:
    hub.faults.refuse(503, times=1000)


@pytest.mark.parametrize("fails", [stop, drop, overload])
def test_a_hub_that_is_down_is_mirrored(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher, fails: Callable[[Hub], None]
) -> None:
    files = publisher.files()
    for hub in (own, mirror):
        serve(hub.add(REPO), files, 1)
    fails(own)
    done = pull(home, REPO, mirror.url, strict=True)
    assert done.path.read_bytes() == files[Q8]
    assert done.resolved.warnings == ()
    assert done.kept.place == f"hub:{REPO}"
    assert mirror.log
    assert {seen.token for seen in mirror.log} == {None}


def test_a_hub_that_says_nothing_is_mirrored(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE", replace(QUICK, patience=0.5))
    serve(mirror.add(REPO), publisher.files(), 1)
    own.faults.slow("/api/", 3.0, times=100)
    own.faults.refuse(503, times=1000)
    assert pull(home, REPO, mirror.url, strict=True).path.name == Q8


def test_a_list_is_of_one_host_alone(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher
) -> None:
    """Where a hub fails in the middle of its list, the mirror's begins anew, at its own commit."""
    serve(own.add(REPO), publisher.files(1), 1)
    sha = serve(mirror.add(REPO), publisher.files(2), 2)
    own.page_size = mirror.page_size = 2
    own.faults.refuse(503, part="/tree/", times=1000)
    done = pull(home, REPO, mirror.url, strict=True)
    assert (done.kept.commit, done.kept.number) == (sha, 2)
    assert own.asked("/revision/main")


def test_a_hub_that_answers_is_not_mirrored(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher
) -> None:
    """Not even where it says no: a mirror has no say in what a hub hides or lacks."""
    files = publisher.files()
    serve(own.add(REPO, private=True), files, 1)
    serve(mirror.add("my-org/hidden"), files, 1)
    assert pull(home, REPO, mirror.url).path.name == Q8
    with pytest.raises(UserError, match="no such repository"):
        pull(home, "my-org/hidden", mirror.url)
    assert not mirror.log
    assert TOKEN in {seen.token for seen in own.log}


def test_mirrors_are_asked_in_turn(own: Hub, mirror: Hub, home: Home, publisher: Publisher) -> None:
    serve(mirror.add(REPO), publisher.files(), 1)
    stop(own)
    with Hub() as without, Hub() as down:
        overload(down)
        assert pull(home, REPO, down.url, without.url, mirror.url).path.name == Q8
        assert down.log
        assert without.log
        with pytest.raises(RegistryError, match=r"can't be read: .*; its mirrors: ") as refused:
            pull(home, f"{REPO}:Q4_K_M", down.url, without.url)
    assert "HTTP 503" in refused.value.what
    assert "has no such repository" in refused.value.what


def test_the_environment_names_mirrors_and_the_option_wins(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(mirror.add(REPO), publisher.files(), 1)
    stop(own)
    monkeypatch.setenv(MIRRORS, f" http://127.0.0.1:9, {mirror.url}/ ")
    assert pull(home).path.name == Q8
    with pytest.raises(RegistryError, match="can't be read"):
        pull(home, f"{REPO}:Q4_K_M", "http://127.0.0.1:9")
    assert package.pull(f"{REPO}:Q4_K_M").name == f"{TITLE}-Q4_K_M.gguf"
    folder = home.root / "plain"
    folder.mkdir()
    (folder / "x-Q8_0.gguf").write_bytes(model_bytes())
    assert pull(home, f"file:{folder}").path.name == "x-Q8_0.gguf"  # none of a folder's
    with pytest.raises(UserError, match="can mirror a hub's repository, and file:"):
        pull(home, f"file:{folder}", mirror.url)
    monkeypatch.setenv(MIRRORS, "nowhere")
    with pytest.raises(UserError, match="'nowhere' is no mirror"):
        pull(home)


def test_what_is_outdated_is_asked_of_a_mirror_too(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher, quantmint: Callable[..., Ran]
) -> None:
    serve(mirror.add(REPO), publisher.files(), 1)
    stop(own)
    pull(home, REPO, mirror.url)
    ran = quantmint("outdated", "--json", env={MIRRORS: mirror.url})
    assert [row["changed"] for row in json.loads(ran.out)] == ["nothing"]


def test_an_owners_list_comes_from_a_mirror_too(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(mirror.add(REPO), publisher.files(), 1)
    stop(own)
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"hub:{OWNER}")
    assert pull(home, f"{MODEL}@1", mirror.url).path.name == Q8


def test_what_nobody_signed_is_told_as_the_mirrors_word(
    own: Hub, mirror: Hub, home: Home, quantmint: Callable[..., Ran]
) -> None:
    mirror.add("somebody/x").commit({"x-Q8_0.gguf": model_bytes()})
    stop(own)
    told = pull(home, "somebody/x", mirror.url).resolved.warnings
    said = f"what the mirror {mirror.url} lists, and nobody signed that"
    assert any(said in line for line in told)
    ran = quantmint("pull", "somebody/x:Q8_0", "--mirror", mirror.url)
    assert f"warning: hub:somebody/x can't be reached: its files and their digests are {said}" in (
        ran.err
    )
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRRORS, mirror.url)
        warnings.simplefilter("error", package.PullWarning)
        with pytest.raises(package.PullWarning):
            package.pull("somebody/x")
    with pytest.raises(IntegrityError, match="is refused"):
        pull(home, "somebody/x", mirror.url, strict=True)


def test_a_mirror_can_take_nothing_back(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher
) -> None:
    """The rules for a signed release are the same whoever gives it."""
    first, second = publisher.files(1), publisher.files(2)
    serve(own.add(REPO), second, 2)
    pull(home)
    stop(own)
    repo = mirror.add(REPO)
    for files, said in (
        (first, "release 1"),  # an older one
        ({path: data for path, data in second.items() if "dsse" not in path}, "is not signed"),
        ({Q8: second[Q8]}, "is not signed by anybody"),
        ({**second, "quantmint.dsse.json": first["quantmint.dsse.json"]}, "release 1"),
    ):
        mirror.repos[REPO] = repo = type(repo)(REPO)
        serve(repo, files)
        with pytest.raises(QuantmintError, match=said) as refused:
            pull(home, REPO, mirror.url)
        assert isinstance(refused.value, IntegrityError), refused.value


def test_bytes_of_a_mirror_are_believed_by_digest(
    own: Hub, mirror: Hub, home: Home, publisher: Publisher
) -> None:
    serve(mirror.add(REPO), publisher.files(), 1)
    mirror.faults.altered.add(Q8)
    stop(own)
    with pytest.raises(QuantmintError):
        pull(home, REPO, mirror.url)
    assert not (home.models / MODEL / Q8).exists()


def test_ways_are_read_from_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRRORS, "https://a.example/, https://b.example\tfile:/there")
    found = Ways.of()
    assert (found.hubs, found.folders) == (
        ("https://a.example", "https://b.example"), ("file:/there",),
    )  # fmt: skip
    assert Ways.of(["https://c.example"]).hubs == ("https://c.example",)
    monkeypatch.setenv(MIRRORS, " , ")
    assert Ways.of() == Ways(named=False)
    for odd in ("ftp://x", "https://user:pw@x", "x"):
        with pytest.raises(UserError, match="is no mirror") as refused:
            Ways.of([odd])
        assert "pw" not in str(refused.value)
