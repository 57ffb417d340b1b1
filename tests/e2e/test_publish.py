"""Releases on a hub and in a folder, through the unmodified client, in both ways of uploading."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fault_tools import TOKEN
from hub import Hub
from publishing import Ended, client_env, contents, run, start, without_status, write

LARGE = ("A-Q8_0.gguf", "A-Q4_K_M.gguf")
Publish = Callable[..., Ended]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        yield running


@pytest.fixture(params=["xet", "lfs"])
def env(request: pytest.FixtureRequest, hub: Hub, tmp_path: Path) -> dict[str, str]:
    return client_env(hub.url, TOKEN, tmp_path, xet=request.param == "xet")


@pytest.fixture
def publish(env: dict[str, str], tmp_path: Path) -> Publish:
    def go(
        name: str, files: dict[str, bytes], target: str = "org/name", **options: object
    ) -> Ended:
        folder = write(tmp_path / name, files)
        return run(env, target=target, release=name, folder=str(folder), options=options)

    return go


def size_of(files: dict[str, bytes]) -> int:
    return sum(len(files[name]) for name in LARGE)


def test_a_release_is_one_commit_and_again_it_is_none(hub: Hub, publish: Publish) -> None:
    files = contents()
    done = publish("v1", files, private=True)
    assert done.code == 0, done.err
    repo = hub.repos["org/name"]
    assert repo.private
    assert [commit.title for commit in repo.history()] == ["Release v1", "initial commit"]
    assert without_status(repo.files()) == files
    assert repo.tags == {"v1": repo.branches["main"]}
    assert repo.branches == {"main": done.result["commit"]}  # the staging branch is gone
    kept = repo.commits[repo.branches["main"]].files
    assert [kept[name].is_lfs for name in LARGE] == [True, True]
    sent, before = hub.uploaded(), len(hub.log)
    assert size_of(files) <= sent < size_of(files) * 1.01
    done = publish("v1", files)
    assert (done.code, done.result["changed"], done.result["sent"]) == (0, False, [])
    assert {seen.method for seen in hub.log[before:]} <= {"GET", "HEAD"}
    assert hub.uploaded() == sent


def test_the_next_release_sends_what_changed_and_drops_what_is_gone(
    hub: Hub, publish: Publish
) -> None:
    publish("v1", contents())
    sent, files = hub.uploaded(), contents(seed=2)
    files["moved/A-Q8_0.gguf"] = files.pop("A-Q8_0.gguf")  # the same bytes under another name
    done = publish("v2", files)
    assert done.code == 0, done.err
    assert done.result["supersedes"] == "v1"
    assert "moved/A-Q8_0.gguf" not in done.result["sent"]
    assert hub.uploaded() - sent < len(files["A-Q4_K_M.gguf"]) * 1.01
    repo = hub.repos["org/name"]
    assert without_status(repo.files("main")) == without_status(repo.files("v2")) == files
    assert without_status(repo.files("v1")) == contents()
    assert len(repo.history()) == 3
    status = json.loads(repo.files()["quantmint.status.json"])["releases"]
    assert (status["v1"]["state"], status["v1"]["by"]) == ("superseded", "v2")
    assert status["v2"]["state"] == "current"


def test_the_token_is_seen_by_the_hub_alone(hub: Hub, publish: Publish, tmp_path: Path) -> None:
    publish("v1", contents(), private=True)
    tokens = {seen.token for seen in hub.log if seen.server == "cdn"}
    assert TOKEN not in tokens
    assert tokens <= {None, hub.cas.token}
    assert any(seen.server == "cdn" and seen.method == "GET" for seen in hub.log)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
    for data in hub.repos["org/name"].files().values():
        assert TOKEN.encode() not in data


def test_killed_at_any_request_the_same_command_finishes(
    hub: Hub, env: dict[str, str], tmp_path: Path
) -> None:
    files = contents()
    folder = write(tmp_path / "v1", files)
    asked = {"release": "v1", "folder": str(folder)}
    run(env, target="org/count", **asked)
    total = len(hub.log)
    for turn, at in enumerate(range(4, total, total // 3)):
        hub.log.clear()
        name = f"org/name{turn}"
        killed = start(env, target=name, **asked)

        def kill(_: object, process: object = killed, at: int = at) -> None:
            if len(hub.log) == at:
                process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]

        hub.on_request = kill
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        hub.on_request = lambda _: None
        repo = hub.repos.get(name)
        assert repo is None or len(repo.history()) <= 2
        if repo is not None and len(repo.history()) == 1:
            assert without_status(repo.files()) == {}
        done = run(env, target=name, **asked)
        assert done.code == 0, done.err
        repo = hub.repos[name]
        assert without_status(repo.files()) == without_status(repo.files("v1")) == files
        assert [commit.title for commit in repo.history()] == ["Release v1", "initial commit"]
        assert list(repo.branches) == ["main"]
