"""Publishing where everything fails: main is the old release or the new one, and never between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fault_tools import TOKEN
from hub import Hub, Repo
from publishing import contents, file_set, smoke, without_status
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.registry.publish import (
    HubTarget,
    Options,
    Published,
    Release,
    hub_target,
    publish,
    yank,
)
from quantmint.registry.publish.trouble import Patience
from quantmint.registry.store import Store

# The Hub's client uploads with an argument that its own transport warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LARGE = sum(len(data) for name, data in contents().items() if name.endswith(".gguf"))
TITLES = ["Release v1", "initial commit"]
# Every request that a release makes, by a part of its path and its method.
REQUESTS = {
    "looking": ("/api/models/org/name", "GET"),
    "creating": ("/api/repos/create", "POST"),
    "refs": ("/refs", "GET"),
    "listing": ("/tree/", "GET"),
    "branch": ("/branch/", "POST"),
    "card": ("/validate-yaml", "POST"),
    "preupload": ("/preupload/", "POST"),
    "batch": ("/objects/batch", "POST"),
    "bytes": ("/upload/", "PUT"),
    "checking": ("/lfs/verify", "POST"),
    "staging": ("/commit/staging-", "POST"),
    "reading": ("/resolve/", "GET"),
    "storage": ("/A-Q8_0.gguf", "GET"),
    "copying": ("/paths-info/", "POST"),
    "promoting": ("/commit/main", "POST"),
    "tagging": ("/tag/", "POST"),
    "tidying": ("/branch/", "DELETE"),
}
Go = Callable[..., Published]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens={TOKEN: "write", TOKEN + "r": "read", TOKEN + "e": "expired"}) as running:
        yield running


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which nobody waits for; and uploads go the older way, LFS."""
    import huggingface_hub.constants
    import huggingface_hub.utils._http as http

    seconds: list[float] = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda _: None))
    return seconds


@pytest.fixture
def target(hub: Hub, waited: list[float]) -> Callable[..., HubTarget]:
    def make(repo: str = "org/name", token: str | None = TOKEN, tries: int = 6) -> HubTarget:
        patience = Patience(tries=tries, sleep=waited.append)
        return hub_target(repo, endpoint=hub.url, token=token, patience=patience)

    return make


@pytest.fixture
def go(store: Store, target: Callable[..., HubTarget], tmp_path: Path) -> Go:
    def run(files: dict[str, bytes] | None = None, name: str = "v1", **own: object) -> Published:
        to = own.pop("target", None) or target()
        test = own.pop("smoke", smoke)
        release = Release(name=name, files=file_set(store, files or contents()))
        options = Options(work=tmp_path / "work", **own)  # type: ignore[arg-type]
        return publish(release, to, smoke=test, options=options)  # type: ignore[arg-type]

    return run


def released(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    return without_status(repo.files(revision))


def assert_released(hub: Hub, *, titles: list[str] = TITLES) -> None:
    """One commit, its tag, the right bytes, no branch left, nothing sent twice."""
    repo = hub.repos["org/name"]
    assert [commit.title for commit in repo.history()] == titles
    assert released(repo) == released(repo, "v1") == contents()
    assert list(repo.branches) == ["main"]
    assert hub.uploaded() == LARGE


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("kind", ["500", "429", "drop", "lose"])
def test_a_request_that_stumbles_is_made_again(hub: Hub, go: Go, name: str, kind: str) -> None:
    part, method = REQUESTS[name]
    if kind == "drop":
        hub.faults.drop(part, method=method)
    elif kind == "lose":
        hub.faults.lose(part, method=method)
    else:
        hub.faults.refuse(int(kind), part=part, method=method, Retry_After="0")
    assert go().changed
    assert [rule.times for rule in hub.faults.rules] == [0]
    repo = hub.repos["org/name"]
    assert [commit.title for commit in repo.history()] == TITLES
    assert released(repo) == contents()


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - {"checking"}))  # that one mends itself
def test_a_request_that_stays_down_leaves_main_whole_and_the_next_run_goes_on(
    hub: Hub, go: Go, target: Callable[..., HubTarget], name: str
) -> None:
    part, method = REQUESTS[name]
    hub.faults.refuse(503, 999, part=part, method=method)
    with pytest.raises(RegistryError) as failed:
        go(target=target(tries=2))
    assert failed.value.mend is not None
    repo = hub.repos.get("org/name")
    if repo is not None:
        is_promoted = name in {"tagging", "tidying"}
        assert released(repo) == (contents() if is_promoted else {})
    hub.faults.clear()
    hub.log.clear()
    go()
    assert_released(hub)
    if name in {"reading", "storage", "copying", "promoting"}:  # all was staged already
        assert not [seen for seen in hub.asked("/staging-") if seen.method == "POST"]


@pytest.mark.parametrize("kind", ["altered", "smoke"])
def test_bytes_that_come_back_bad_are_never_promoted(hub: Hub, go: Go, kind: str) -> None:
    def refuse(path: str, local: Path) -> None:
        raise IntegrityError(f"{path} does not run")

    if kind == "altered":
        hub.faults.altered.add("A-Q4_K_M.gguf")
    with pytest.raises(IntegrityError, match=r"came back .* with other bytes|does not run"):
        go(smoke=refuse if kind == "smoke" else smoke)
    assert released(hub.repos["org/name"]) == {}
    hub.faults.clear()
    go()
    assert_released(hub)


def test_the_smoke_test_gets_what_was_served(hub: Hub, go: Go) -> None:
    seen: dict[str, bytes] = {}
    go(smoke=lambda path, local: seen.update({path: local.read_bytes()}))
    assert seen == contents()
    assert {s.method for s in hub.asked("/A-Q8_0.gguf") if s.server == "cdn"} == {"GET"}


def test_a_transfer_that_is_cut_goes_on_where_it_stopped(hub: Hub, go: Go) -> None:
    hub.faults.cut["A-Q8_0.gguf"] = 2
    go()
    ranges = [s.range for s in hub.asked("/A-Q8_0.gguf") if s.server == "cdn"]
    assert ranges[0] is None
    assert all(text is not None and not text.startswith("bytes=0-") for text in ranges[1:])
    assert len(ranges) == 3
    assert_released(hub)


@pytest.mark.parametrize(
    ("card", "is_ours"),
    [
        (b"---\nlicense: mit\n---\n", True),
        (b"", True),
        (b"---\nlicense: mit\n---\n\n# Mine\n", False),
        (b"---\nlicense: mit\n---\nMine\n---\n", False),
        (b"# Mine\n", False),
    ],
)
def test_a_repository_made_on_the_hubs_page_takes_a_release(
    hub: Hub, go: Go, card: bytes, is_ours: bool
) -> None:
    """The page writes a card that says nothing but the license."""
    repo = hub.create("org/name")
    repo.commit({**repo.files(), "README.md": card})
    if is_ours:
        go()
        assert released(repo) == contents()
        return
    with pytest.raises(UserError, match=r"holds 1 files .* did not publish \(README.md\)"):
        go()
    assert repo.files()["README.md"] == card


def test_somebody_elses_commit_is_not_overwritten(hub: Hub, go: Go) -> None:
    go()
    repo, after = hub.repos["org/name"], contents(seed=2)

    def meanwhile(path: str, local: Path) -> None:
        if path == "README.md":
            repo.commit({**repo.files(), "theirs.txt": b"theirs"})

    with pytest.raises(RegistryError, match="somebody else committed; nothing of theirs") as failed:
        go(after, "v2", smoke=meanwhile)
    assert "run the same command again" in str(failed.value.mend)
    assert repo.files()["theirs.txt"] == b"theirs"
    assert "v2" not in repo.tags
    with pytest.raises(RegistryError, match="was expected"):
        go(after, "v2", expected_parent=repo.history()[1].sha)
    sent = hub.uploaded()
    with pytest.raises(UserError, match=r"holds 1 files that .* did not publish \(theirs.txt\)"):
        go(after, "v2", expected_parent=repo.branches["main"])
    assert repo.files()["theirs.txt"] == b"theirs"
    go(after, "v2", expected_parent=repo.branches["main"], replace=True)
    assert released(repo) == after
    assert hub.uploaded() == sent


def test_a_promotion_that_landed_late_is_found(hub: Hub, go: Go) -> None:
    """The answer is lost, and so is the next try's: the commit is there all the same, once."""
    hub.faults.lose("/commit/main")
    hub.faults.refuse(502, 2, part="/tree/", method="GET")
    go()
    assert_released(hub)


def test_files_that_are_not_ours_are_not_removed(hub: Hub, go: Go) -> None:
    hub.add("org/name").commit({"B-Q4_K_M.gguf": b"theirs", "README.md": b"theirs"})
    with pytest.raises(UserError, match=r"holds 2 files that quantmint did not publish \(B-Q4"):
        go()
    assert hub.uploaded() == 0
    go(replace=True)
    assert released(hub.repos["org/name"]) == contents()


def test_a_file_of_ours_that_somebody_edited_is_not_lost(hub: Hub, go: Go) -> None:
    go()
    repo = hub.repos["org/name"]
    edited = {**repo.files(), "A-Q8_0.gguf": b"theirs", "README.md": b"our card, with a word more"}
    repo.commit(edited)
    with pytest.raises(UserError, match=r"holds 1 files .* \(A-Q8_0.gguf\)"):
        go(contents(seed=2), "v2")
    repo.commit({**edited, "A-Q8_0.gguf": contents()["A-Q8_0.gguf"]})
    go(contents(seed=2), "v2")  # the card is made whole each time
    assert released(repo) == contents(seed=2)


def test_a_public_repository_is_no_place_for_a_private_release(hub: Hub, go: Go) -> None:
    hub.add("org/name").commit({"README.md": b"a page"})
    with pytest.raises(UserError, match="is public, and a private release was asked for"):
        go(private=True)
    assert hub.uploaded() == 0


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://hub.example.com", "a token would go to hub.example.com in the clear"),
        ("https://me:secret@hub.example.com", "is no address of a registry"),
        ("ftp://hub.example.com", "is no address of a registry"),
    ],
)
def test_no_token_goes_to_an_unsafe_address(endpoint: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        hub_target("org/name", endpoint=endpoint, token=TOKEN)
    assert "secret" not in str(refused.value)


def test_a_hub_that_serves_something_else_after_all(hub: Hub, go: Go) -> None:
    def alter(seen: object) -> None:
        repo = hub.repos.get("org/name")
        if repo and "/tag/" in getattr(seen, "path", ""):
            commit = repo.commits[repo.branches["main"]]
            commit.files.pop("A-Q8_0.gguf", None)  # type: ignore[attr-defined]

    hub.on_request = alter
    with pytest.raises(IntegrityError, match="lists other files at main than were published"):
        go()


@pytest.mark.parametrize(
    ("token", "said", "mend"),
    [
        (None, "asks for a token, and there is none", "hf auth login"),
        (TOKEN + "e", "does not accept the token: it may have expired", "hf auth login"),
        (TOKEN + "x", "does not accept the token", "hf auth login"),
        (TOKEN + "r", "may not write to org/name", "write access to org"),
        (TOKEN + "\n", "characters that no token has", "HF_TOKEN"),
    ],
)
def test_tokens_that_will_not_do(
    go: Go, hub: Hub, waited: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    token: str | None, said: str, mend: str,
) -> None:  # fmt: skip
    import huggingface_hub.constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError) as failed:
        go(target=hub_target("org/name", endpoint=hub.url, token=token,
                             patience=Patience(sleep=waited.append)))  # fmt: skip
    assert said in failed.value.what
    assert mend in str(failed.value.mend)
    assert TOKEN not in str(failed.value)
    assert waited == []  # waiting would not help


def test_a_token_that_comes_back_in_a_message_is_not_repeated(
    target: Callable[..., HubTarget],
) -> None:
    contact = target().contact
    assert TOKEN not in str(contact.explain(RuntimeError(f"odd: {TOKEN}"), "trying"))
    assert TOKEN not in repr(target())


def test_repositories_that_may_not_be_used(
    hub: Hub, go: Go, target: Callable[..., HubTarget]
) -> None:
    with pytest.raises(UserError, match="the token may not write to others/name"):
        go(target=target("others/name"))
    hub.create("org/gated").gated = True
    hub.tokens.pop(TOKEN)
    hub.tokens[TOKEN + "2"] = "write"
    with pytest.raises(UserError, match="does not accept the token"):
        go(target=target("org/gated"))
    hub.tokens[TOKEN] = "write"
    hub.faults.refuse(403, 1, part="/resolve/", X_Error_Code="GatedRepo")
    with pytest.raises(UserError, match="org/name is gated: its owner asks for an agreement") as at:
        go()
    assert at.value.mend == f"accept it at {hub.url}/org/name, and run again"
    assert "quantmint.json" not in hub.repos["org/name"].files()
    hub.faults.refuse(404, 1, part="/tree/", X_Error_Code="RepoNotFound")
    with pytest.raises(UserError, match=r"no repository org/name on .*, or it is hidden from you"):
        go()
    go()  # what was sent is kept, and the release comes to its end
    for name in ("org", "a/b/c", "../x", "org/na me", "org/" + "n" * 99):
        with pytest.raises(UserError, match="is no repository"):
            target(name)


def test_a_hub_that_asks_to_wait_is_given_the_time(
    hub: Hub, go: Go, waited: list[float], target: Callable[..., HubTarget]
) -> None:
    hub.faults.refuse(429, 2, part="/commit/main", Retry_After="7")
    go()
    assert waited == [7, 7]
    hub.faults.refuse(429, 1, part="/refs", Retry_After="86400")
    with pytest.raises(RegistryError, match="limits the rate of requests for another 86400 s"):
        go(contents(seed=2), "v2")
    assert waited == [7, 7]
    # As the Hub itself says it: a limit that was met, and when its window ends.
    limit = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    hub.faults.refuse(429, 1, part="/commit/main", **limit)
    go(contents(seed=3), "v3")
    assert waited == [7, 7, 55]
    hub.faults.refuse(429, 1, part="/refs", RateLimit='"api";r=0;t=7200')
    with pytest.raises(RegistryError, match="limits the rate of requests for another 7200 s"):
        go(contents(seed=4), "v4")
    waited.clear()
    hub.faults.refuse(503, 9, part="/refs", RateLimit='"api";r=0;t=55')  # no limit was met
    with pytest.raises(RegistryError, match=r"failed again and again \(HTTP 503\)"):
        go(contents(seed=2), "v2", target=target(tries=5))
    assert waited == [1, 2, 4, 8]


@pytest.mark.parametrize(
    "asked", ["Wed, 21 Oct 2015 07:28:00 +99999999999999999999", "9" * 400, "Fri, 31 Dec 9999"]
)
def test_an_absurd_time_to_wait_is_not_waited_for(
    hub: Hub, go: Go, waited: list[float], asked: str
) -> None:
    hub.faults.refuse(429, 1, part="/commit/main", Retry_After=asked)
    go()
    assert waited == [1]


def test_no_way_to_the_hub(
    store: Store, waited: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants
    from huggingface_hub import close_session

    def go_to(endpoint: str) -> QuantmintError:
        to = hub_target("org/name", endpoint=endpoint, token=TOKEN,
                        patience=Patience(tries=2, sleep=waited.append))  # fmt: skip
        release = Release(name="v1", files=file_set(store, {"README.md": b"x"}))
        with pytest.raises(QuantmintError) as failed:
            publish(release, to, smoke=smoke, options=Options(work=tmp_path))
        return failed.value

    close_session()
    error = go_to("http://127.0.0.1:9")
    assert (error.exit_code, "http://127.0.0.1:9 can't be reached" in error.what) == (6, True)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    close_session()
    error = go_to("https://hub.invalid")
    assert "can't be reached through the proxy 127.0.0.1:9" in error.what
    assert "secret" not in str(error)
    monkeypatch.delenv("HTTPS_PROXY")
    close_session()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = go_to("http://127.0.0.1:9")
    assert (error.exit_code, error.mend) == (2, "unset HF_HUB_OFFLINE, and run again")
    close_session()


def test_redirects_without_an_end_and_answers_without_one(hub: Hub, go: Go) -> None:
    hub.faults.refuse(302, 99, part="/resolve/", Location="/org/name/resolve/main/x")
    with pytest.raises(RegistryError, match="redirects 5 times without an end"):
        go()
    hub.faults.clear()
    hub.faults.refuse(302, 1, part="/resolve/", Location=f"{hub.cdn_url}/endless")
    hub.faults.refuse(200, 1, part="/endless")
    with pytest.raises(IntegrityError, match="larger than the 1 bytes"):
        go({**contents(), "A-Q4_K_M.gguf": b"x"})


def test_a_release_never_changes_and_never_goes_back_unasked(hub: Hub, go: Go) -> None:
    go()
    repo = hub.repos["org/name"]
    with pytest.raises(RegistryError, match="has a release v1 already, with other files"):
        go(contents(seed=2))
    with pytest.raises(UserError, match="the same files as release v1 already"):
        go(name="v2")
    go(contents(seed=2), "v2")
    with pytest.raises(RegistryError, match="has moved on since"):
        go()
    first = repo.tags["v1"]
    assert go(restore=True).supersedes == "v2"
    assert released(repo) == contents()
    assert repo.tags["v1"] == first


def test_a_yank_takes_the_release_from_main_and_bars_its_bytes(
    hub: Hub, go: Go, target: Callable[..., HubTarget], tmp_path: Path
) -> None:
    go()
    repo, options = hub.repos["org/name"], Options(work=tmp_path)
    with pytest.raises(UserError, match="has no release v2; did you mean 'v1'"):
        yank("v2", target(), reason="x", options=options)
    with pytest.raises(UserError, match="needs a reason"):
        yank("v1", target(), reason=" ", options=options)
    hub.faults.refuse(500, 99, part="/tag/")
    with pytest.raises(RegistryError):
        yank("v1", target(), reason="bad template", options=options)
    hub.faults.clear()
    assert yank("v1", target(), reason="bad template", options=options).changed
    assert not yank("v1", target(), reason="bad template", options=options).changed
    assert sorted(repo.files()) == [".gitattributes", "README.md", "quantmint.status.json"]
    assert "bad template" in repo.files()["README.md"].decode()
    assert repo.tags["yanked/v1"] == repo.tags["v1"]
    assert [commit.title for commit in repo.history()] == ["Yank v1", *TITLES]
    with pytest.raises(RegistryError, match="was yanked: its name is used up"):
        go()
    with pytest.raises(IntegrityError, match="that was yanked with release v1"):
        go(contents(seed=2), "v2")  # one of its two variants is the same
    go({n: d + b"2" for n, d in contents().items()}, "v2")


def test_an_older_release_is_yanked_without_touching_main(
    hub: Hub, go: Go, target: Callable[..., HubTarget], tmp_path: Path
) -> None:
    go()
    go(contents(seed=2), "v2")
    repo, options = hub.repos["org/name"], Options(work=tmp_path)
    with pytest.raises(UserError, match=r"no large file 'A-Q4\.gguf'"):
        yank("v1", target(), reason="x", options=options, withdrawn=["A-Q4.gguf"])
    yank("v1", target(), reason="x", options=options, withdrawn=["A-Q4_K_M.gguf"])
    assert released(repo) == contents(seed=2)
    files = {**contents(seed=3), "A-Q4_K_M.gguf": contents(seed=1)["A-Q4_K_M.gguf"]}
    with pytest.raises(IntegrityError, match="that was yanked with release v1"):
        go(files, "v3")
    go(contents(seed=3), "v3")  # the variant that was not withdrawn may go on


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"format":2}', b"x" * ((1 << 20) + 1)])
def test_a_status_that_cannot_be_read_stops_everything(hub: Hub, go: Go, body: bytes) -> None:
    hub.add("org/name").commit({"quantmint.status.json": body})
    with pytest.raises(RegistryError, match="nobody knows which releases were withdrawn"):
        go()
    assert hub.uploaded() == 0
