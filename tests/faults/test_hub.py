"""The Hub at its worst: away, closed, lying, cut off; each answer is clear and nothing is kept."""

import pickle
from pathlib import Path

import pytest

from fault_tools import (
    TOKEN,
    Build,
    assert_clear,
    assert_nothing_half_made,
    small_checkpoint,
    write_model,
)
from hub import Hub
from quantmint.assets.mint import Mint
from quantmint.assets.sources import hub as source
from quantmint.errors import IntegrityError, SourceError
from quantmint.home import Home
from quantmint.registry.actions import Outcome
from quantmint.registry.store import Store
from quantmint.registry.trees import load_tree

KNOWN = frozenset({"Phi3ForCausalLM"})
WEIGHTS = ("model.safetensors", "tokenizer.model")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return small_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def mint(home: Home, hub: Hub, hub_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Mint:
    """For what the Hub sends: fetched in this process, by the same unmodified client."""
    for name, value in hub_env.items():
        monkeypatch.setenv(name, value)
    return Mint(home, Store(home.store).open(), 1, lambda _: None)


def fetch(mint: Mint, repo: str = "org/name", revision: str = "main") -> Outcome:
    return source.fetch_commit(mint, source.resolve(repo, revision), "phi3", KNOWN)


def test_a_commit_is_fetched_once_with_its_wanted_files(
    mint: Mint, hub: Hub, checkpoint: Path
) -> None:
    (checkpoint / "README.md").write_text("read me")
    (checkpoint / "modeling_phi3.py").write_text("raise SystemExit")
    sha = hub.add("org/name").commit(checkpoint)
    outcome = fetch(mint)
    assert outcome.facts["commit"] == sha
    tree = load_tree(mint.store, outcome.outputs["source"])
    assert {file.path for file in tree.files} == {
        "config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json",
    }  # fmt: skip
    assert not hub.asked("README.md")
    assert not hub.asked("modeling_phi3.py")
    assert not list(mint.home.work.rglob("*.safetensors"))
    before = len(hub.asked("resolve"))
    assert fetch(mint).cached
    assert len(hub.asked("resolve")) == before


def test_a_branch_that_moves_is_another_commit(mint: Mint, hub: Hub, checkpoint: Path) -> None:
    repo = hub.add("org/name")
    first = repo.commit(checkpoint)
    (checkpoint / "tokenizer_config.json").write_text("{}")
    second = repo.commit(checkpoint)
    assert fetch(mint).facts["commit"] == second
    assert fetch(mint, revision=first).facts["commit"] == first
    assert not [seen for seen in hub.asked(first) if seen.path.endswith("model.safetensors")]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_altered_bytes_are_refused_and_thrown_away(
    mint: Mint, hub: Hub, checkpoint: Path, name: str
) -> None:
    hub.add("org/name").commit(checkpoint)
    hub.faults.altered.add(name)
    with pytest.raises(IntegrityError, match=f"{name} came with other bytes"):
        fetch(mint)
    assert_nothing_half_made(mint.home)
    hub.faults.altered.clear()
    fetch(mint)


def test_a_download_that_is_cut_goes_on_where_it_stopped(
    mint: Mint, hub: Hub, checkpoint: Path
) -> None:
    (checkpoint / "model.safetensors").unlink()
    import numpy as np
    from safetensors.numpy import save_file

    big = np.random.default_rng(2).random((6 << 20,), np.float32)
    save_file({"w": big}, checkpoint / "model.safetensors")
    hub.add("org/name").commit(checkpoint)
    hub.faults.cut["model.safetensors"] = 1
    try:
        fetch(mint)
    except SourceError:
        fetch(mint)
    gets = [s for s in hub.asked("model.safetensors") if (s.server, s.method) == ("cdn", "GET")]
    assert len(gets) == 2
    assert gets[0].range is None
    assert gets[1].range is not None
    assert int(gets[1].range.removeprefix("bytes=").partition("-")[0]) > 1 << 20
    assert_nothing_half_made(mint.home)


def test_a_hub_that_stumbles_is_asked_again(mint: Mint, hub: Hub, checkpoint: Path) -> None:
    hub.add("org/name").commit(checkpoint)
    hub.faults.refuse(429, 1, part="model.safetensors", Retry_After="0")
    try:
        fetch(mint)
    except SourceError as error:
        assert error.mend
        fetch(mint)
    assert_nothing_half_made(mint.home)


def test_a_hub_that_stays_down_is_said(mint: Mint, hub: Hub, checkpoint: Path) -> None:
    hub.add("org/name").commit(checkpoint)
    hub.faults.refuse(500, 50, part="/api/")
    with pytest.raises(SourceError, match="Hub"):
        fetch(mint)
    hub.faults.clear()
    fetch(mint)


def test_the_token_goes_to_the_hub_alone(
    mint: Mint, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("org/name", private=True).commit(checkpoint)
    fetch(mint)
    assert {seen.token for seen in hub.log if seen.server == "cdn"} == {None}
    assert {seen.token for seen in hub.log if seen.server == "hub"} == {TOKEN}


@pytest.mark.parametrize("name", ["Phi3VForCausalLM", "Phi3SmallForCausalLM"])
def test_an_architecture_is_refused_before_any_weight(
    build: Build, hub: Hub, hub_env: dict[str, str], tmp_path: Path, seeded_home: Home, name: str
) -> None:
    hub.add("org/name").commit(small_checkpoint(tmp_path / "c", name))
    ran = build(write_model(tmp_path, "{hub: org/name}"), env=hub_env)
    assert_clear(ran, 3, f"architecture '{name}' is not supported", "Phi3ForCausalLM", "no weight")
    for file in WEIGHTS:
        assert not hub.asked(file)
    assert_nothing_half_made(seeded_home)


def test_a_gated_repository_without_and_with_a_token(
    build: Build, hub: Hub, hub_env: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    repo = hub.add("org/name", gated=True)
    repo.commit(checkpoint)
    model = write_model(tmp_path, "{hub: org/name}", family="phi")
    ran = build(model, env=hub_env)
    assert_clear(ran, 3, "org/name is gated", "hf auth login", f"{hub.url}/org/name")
    ran = build(model, env={**hub_env, "HF_TOKEN": TOKEN})
    assert_clear(ran, 2, "says family 'phi'")  # it came as far as the config


def test_names_that_the_hub_does_not_know(
    build: Build, hub: Hub, hub_env: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    hub.add("org/name").commit(checkpoint)
    ran = build(write_model(tmp_path, "{hub: org/nmae}"), env=hub_env)
    assert_clear(ran, 3, "there is no repository org/nmae", "hf auth login")
    ran = build(write_model(tmp_path, "{hub: org/name, revision: v9}"), env=hub_env)
    assert_clear(ran, 3, "org/name has no revision 'v9'", "revision:")


def test_no_network(
    build: Build, hub_env: dict[str, str], tmp_path: Path, seeded_home: Home
) -> None:
    env = {**hub_env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    ran = build(write_model(tmp_path, "{hub: org/name}"), env=env)
    assert_clear(ran, 3, "http://127.0.0.1:9 can't be reached", "check the network")
    assert_nothing_half_made(seeded_home)


def test_pickles_by_name_and_by_content(mint: Mint, hub: Hub, checkpoint: Path) -> None:
    path, pickled = checkpoint / "model.safetensors", pickle.dumps({"w": [1.0] * 100})
    repo = hub.add("org/name")
    path.rename(checkpoint / "pytorch_model.bin")
    repo.commit(checkpoint)
    with pytest.raises(SourceError, match=r"pickles only \(pytorch_model\.bin\)"):
        fetch(mint)
    assert not hub.asked("resolve")
    (checkpoint / "pytorch_model.bin").unlink()
    path.write_bytes(pickled)
    repo.commit(checkpoint)
    with pytest.raises(SourceError, match="pickle under another name"):
        fetch(mint)
    assert_nothing_half_made(mint.home)


def test_a_hostile_file_name_is_refused(mint: Mint, hub: Hub, checkpoint: Path) -> None:
    repo = hub.add("org/name")
    files = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    for name in ("-rf.json", "a b.json", "a\\x.json"):
        repo.commit({**files, name: b"{}"})
        with pytest.raises(SourceError, match="is refused"):
            fetch(mint)
    repo.commit({**files, "../../evil.json": b"{}"})
    fetch(mint)
    assert not hub.asked("evil")
