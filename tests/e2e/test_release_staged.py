"""A release that was staged on a hub and failed there: others may have pulled what was signed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fault_tools import TOKEN
from helpers import Ran, run_in
from hub import Hub
from minting import Mint
from publishing import client_env
from quantmint.home import Home
from quantmint.registry.manifest.release import MANIFEST_FILE
from quantmint.registry.refs import read_ref
from quantmint.registry.store import Store

pytestmark = [pytest.mark.native, pytest.mark.e2e]
REPO = "my-org/Phi-3-nano-GGUF"
WIDER = "  fp16: true\n"


def test_a_number_that_was_staged_is_used_up_and_withdrawn(
    mint: Mint, home: Home, tmp_path: Path
) -> None:
    with Hub(tokens=(TOKEN,)) as hub:
        env = client_env(hub.url, TOKEN, tmp_path, xet=False)
        del env["QUANTMINT_HOME"]

        def release(more: str) -> Ran:
            return mint.run("release", mint.model(f"hub: {REPO}", more=more), "--json", **env)

        hub.faults.altered.add("Phi-3-nano-Q8_0.gguf")
        failed = release("")
        assert failed.code == 5, failed.err
        repo = hub.repos[REPO]
        (branch,) = (name for name in repo.branches if name != "main")
        staged = repo.files(branch)[MANIFEST_FILE]
        assert (json.loads(staged)["release"], repo.tags) == (1, {})
        hub.faults.clear()

        ran = release(WIDER)
        assert ran.code == 0, ran.err
        assert list(repo.tags) == ["v2"]
        manifest = json.loads(repo.files("v2")[MANIFEST_FILE])
        (row,) = manifest["yanked"]
        assert (row["release"], row["manifest_sha256"]) == (1, hashlib.sha256(staged).hexdigest())
        assert "never published" in row["reason"]
        assert manifest["changes"] == ["First release."]
        kept = read_ref(Store(mint.home.store), "phi-3-nano", "my-org.1").objects
        assert sorted(kept) == ["quantmint.dsse.json", MANIFEST_FILE]  # nobody needs its weights
        again = json.loads(release(WIDER).out)
        assert (again["release"], again["changed"]) == (2, False)

        # Who pulls knows the release, and what was staged is refused for ever.
        key = json.loads(mint.run("keys", "show", "release", "--json").out)["key"]
        assert run_in(home, "keys", "trust", key, "--for", "my-org/*").code == 0
        assert run_in(home, "pull", f"hub:{REPO}", **env).code == 0
