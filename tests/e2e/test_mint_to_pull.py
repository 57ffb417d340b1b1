"""From the mint to a user: what `release` published is what `pull` verifies, runs and tells of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fault_tools import TOKEN
from helpers import run_in, seed
from hub import Hub
from minting import Mint
from publishing import client_env
from quantmint.home import Home

pytestmark = [pytest.mark.native, pytest.mark.e2e]
MODEL, FILE = "phi-3-nano", "Phi-3-nano-Q8_0.gguf"


@pytest.fixture(scope="module")
def registry(mint: Mint) -> str:
    """A registry in a folder that holds the first release."""
    ran = mint.run("release", mint.model())
    assert ran.code == 0, ran.err
    return f"file:{mint.registry}"


@pytest.fixture
def user(mint: Mint, home: Home) -> Home:
    """A home of another person, who trusts the publisher's key, with nothing in its store."""
    key = json.loads(mint.run("keys", "show", "release", "--json").out)["key"]
    ran = run_in(home, "keys", "trust", key, "--for", "my-org/*", "--for", "org/*")
    assert ran.code == 0, ran.err
    return home


def told(home: Home, *words: str, **env: str) -> Any:
    ran = run_in(home, *words, "--json", **env)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_a_release_goes_over_a_hub_by_xet(mint: Mint, user: Home, tmp_path: Path) -> None:
    model = mint.model()
    model.write_text(model.read_text().replace("my-org", "org"))  # the hub's own owner
    with Hub(tokens=(TOKEN,)) as hub:
        env = client_env(hub.url, TOKEN, tmp_path / "publisher", xet=True)
        del env["QUANTMINT_HOME"]
        name = "hub:org/Phi-3-nano-GGUF"
        ran = mint.run("release", model, "--to", name, **env)
        assert ran.code == 0, ran.err
        reads = client_env(hub.url, "", tmp_path / "reader", xet=True)
        del reads["QUANTMINT_HOME"]
        came = told(user, "pull", "org/Phi-3-nano-GGUF:Q8_0", "--strict", **reads)
        assert came["ways"] == ["xet"]
        assert Path(came["path"]).read_bytes() == (mint.home.models / MODEL / FILE).read_bytes()
        (row,) = told(user, "outdated", **reads)
        assert row["changed"] == "nothing"
        assert TOKEN not in json.dumps(came)


def test_a_release_is_pulled_run_and_withdrawn(
    mint: Mint, registry: str, user: Home, built_home: Home
) -> None:
    seed(user, built_home)  # the kernel
    came = told(user, "pull", registry, "--strict")
    assert (came["model"], came["release"], came["warnings"]) == (MODEL, 1, [])
    path = Path(came["path"])
    assert path == user.models / MODEL / path.name
    assert path.read_bytes() == (mint.home.models / MODEL / path.name).read_bytes()
    assert [row["variant"] for row in came["candidates"] if row["taken"]] == [came["variant"]]
    assert all(row["tokens_per_second"] > 0 for row in came["candidates"])
    (listed,) = told(user, "list")
    assert (listed["path"], listed["signer"]) == (str(path), came["signer"])
    shown = told(user, "show", MODEL)
    assert shown["manifest"]["publisher"] == "my-org"
    (row,) = told(user, "outdated")
    assert (row["changed"], row["matters"]) == ("nothing", False)
    assert told(user, "verify", MODEL)["bits"] == 0
    assert told(user, "verify", "--all", "--strict")["bits"] == 0
    said = run_in(user, "run", MODEL, "Say hello.", "--max-tokens", "4", OMP_WAIT_POLICY="PASSIVE")
    assert (said.code, said.err) == (0, "")
    assert said.out.strip()
    other = told(user, "pull", f"{registry}:Q4_K_M" if "Q8_0" in path.name else f"{registry}:Q8_0")
    assert other["reused"] > 0  # tensors that both have
    # The mint's own home finds what it released by the same words.
    own = told(mint.home, "list")
    assert {each["place"] for each in own} == {"made here"}
    assert told(mint.home, "verify", "--all")["bits"] == 0
    yanked = mint.run("release", mint.model(), "--yank", "1", "--reason", "it says 2+2=5")
    assert yanked.code == 0, yanked.err
    rows = told(user, "outdated")
    assert {row["changed"] for row in rows} == {"withdrawn"}
    assert all("it says 2+2=5" in row["means"] for row in rows)
    for words in (("pull", registry), ("pull", f"{registry}@1"), ("run", MODEL, "Say hello.")):
        ran = run_in(user, *words)
        assert (ran.code, ran.out) == (5, ""), ran
        assert "was withdrawn by its publisher (v1: it says 2+2=5)" in ran.err
