"""Dagster's records on a PostgreSQL server: builds, the pages, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping

import pytest

from docs.postgres import PASSWORD, PASSWORD_IN_URL, Server, running
from helpers import Ran, run_in
from minting import Mint
from quantmint.errors import UserError
from quantmint.home import Home
from quantmint.pipelines.database import DATABASE, STORAGE, storage_config
from quantmint.pipelines.instance import prepare

pytestmark = [pytest.mark.native, pytest.mark.e2e]
MODEL = "phi-3-nano"
INFO = (
    "{ instance { info }"
    " assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        found.sql("postgres", "CREATE DATABASE quantmint")
        yield found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, nano: tuple[Home, Ran]) -> Home:
    """A home in which all work was done before, with no records of it but the store's."""
    home, ran = nano
    assert ran.code == 0, ran.err
    made = Mint(tmp_path_factory.mktemp("postgres"), home).home
    shutil.rmtree(made.dagster)
    return made


@pytest.fixture(scope="module")
def env(server: Server) -> Mapping[str, str]:
    return {DATABASE: server.address("quantmint"), "QUANTMINT_TRACKING": "off",
            "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip


@pytest.fixture(scope="module")
def built(here: Home, env: Mapping[str, str]) -> Ran:
    return run_in(here, "build", MODEL, "--json", **env)


def test_a_build_keeps_its_records_there(here: Home, server: Server, built: Ran) -> None:
    assert built.code == 0, built.err
    assert f"{MODEL}/report" in json.loads(built.out)["made"]
    assert int(server.sql("quantmint", "SELECT count(*) FROM event_logs")) > 0
    assert not list(here.dagster.glob("history/**/*.db"))
    assert "env: QUANTMINT_DAGSTER_DB" in (here.dagster / "dagster.yaml").read_text()


def test_a_second_build_finds_nothing_to_do(here: Home, env: Mapping[str, str], built: Ran) -> None:
    assert built.code == 0
    again = run_in(here, "build", MODEL, "--json", **env)
    assert again.code == 0, again.err
    assert json.loads(again.out)["made"] == {}


def test_the_pages_show_it_and_no_password(here: Home, env: Mapping[str, str], built: Ran) -> None:
    assert built.code == 0
    from docs.test_documents import free_port

    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "quantmint", "ui", "--port", str(port),
         "--mlflow-port", str(free_port())],
        env={**os.environ, "QUANTMINT_HOME": str(here.root), **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        seen: list[str] = []
        while "stop with Ctrl-C" not in "".join(seen[-1:]):
            line = process.stdout.readline()
            assert line, "".join(seen)
            seen.append(line)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql", json.dumps({"query": INFO}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    found = json.loads(text)["data"]
    nodes = {"/".join(n["assetKey"]["path"]): n for n in found["assetNodes"]}
    assert nodes[f"{MODEL}/Q4_K_M"]["assetMaterializations"]
    assert "run_storage: PostgresRunStorage" in found["instance"]["info"]
    assert not secret_in(text)


def test_no_file_of_the_home_holds_the_password(here: Home, built: Ran) -> None:
    assert built.code == 0
    folders = [here.dagster, here.logs, here.mlflow, here.models]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if secret_in(path.read_bytes().decode("latin-1"))] == []


def secret_in(text: str) -> bool:
    return PASSWORD in text or PASSWORD_IN_URL in text


def test_a_shell_without_the_variable_does_not_begin_other_records(here: Home, built: Ran) -> None:
    assert built.code == 0
    ran = run_in(here, "build", MODEL, **{DATABASE: ""})
    assert (ran.code, ran.out) == (2, "")
    assert "keeps Dagster's records in PostgreSQL, and QUANTMINT_DAGSTER_DB is not set" in ran.err
    assert f"rm {here.dagster / 'dagster.yaml'}" in ran.err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("port=5433", "port=5999"), "Is the server running"),
        (("/quantmint", "/nowhere"), 'database "nowhere" does not exist'),
        ((PASSWORD_IN_URL, "an%20other"), "password authentication failed"),
    ],
)
def test_a_server_that_can_not_be_used_is_told_in_one_line(
    home: Home,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
    why: str,
) -> None:
    monkeypatch.setenv(DATABASE, server.address("quantmint").replace(*change))
    with pytest.raises(UserError, match=why) as refused:
        prepare(home)
    said = str(refused.value)
    assert said.startswith("the PostgreSQL server of QUANTMINT_DAGSTER_DB can't be used: ")
    assert len(said.splitlines()) == 2
    assert not secret_in(said)
    assert "other" not in said
    assert not (home.dagster / "dagster.yaml").exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("mysql://u:secret@h/db", "does not begin with postgresql://"),
        ("postgresql://u:secret@h", "names no database"),
        ("postgresql://u:secret@h/", "names no database"),
        ("postgresql://u:secret@h:99999/db", "holds no address"),
    ],
)
def test_what_is_no_address_is_not_repeated(
    home: Home, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    monkeypatch.setenv(DATABASE, address)
    with pytest.raises(UserError, match=why) as refused:
        prepare(home)
    assert "secret" not in str(refused.value)


def test_without_the_extra_it_says_what_to_install(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE, "postgresql://u@h/db")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'quantmint\[postgres\]'"):
        storage_config(home.dagster / "dagster.yaml")


def test_the_plain_spelling_becomes_the_drivers(
    home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg2"):
        given = server.address("quantmint").replace("postgresql", scheme, 1)
        monkeypatch.setenv(DATABASE, given)
        assert storage_config(home.dagster / "dagster.yaml") == STORAGE
        assert os.environ[DATABASE].startswith(f"postgresql+psycopg2://{server.user}:")
