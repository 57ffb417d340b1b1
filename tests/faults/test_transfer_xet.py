"""By xet where a hub offers it; plainly where that fails; the digest decides in both."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fault_tools import TOKEN
from hub import Hub
from publishing import client_env
from quantmint.registry.store import Store
from transfer import client

DATA = b"GGUF" + random.Random(3).randbytes(2_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo="A-Q8_0.gguf", repo_id="org/name")
"""


@pytest.fixture
def offering(hub: Hub, tmp_path: Path) -> Hub:
    """A hub with one file that came by xet."""
    hub.create("org/name")
    path = tmp_path / "A-Q8_0.gguf"
    path.write_bytes(DATA)
    env = client_env(hub.url, TOKEN, tmp_path / "publisher", xet=True)
    subprocess.run([sys.executable, "-c", UPLOAD, str(path)], env=env, check=True, timeout=120)
    assert hub.cas.files
    return hub


def pull(hub: Hub, store: Store, folder: Path, url: str, *, xet: bool = True) -> dict[str, Any]:
    running = client.start(
        client_env(hub.url, "", folder, xet=xet),
        root=str(store.root), origins=[f"{url}/org/name/resolve/main"], token=TOKEN,
        items=[{"sha256": SHA256, "size": len(DATA), "path": "A-Q8_0.gguf"}],
        limits={"first": 0.01, "longest": 0.05, "tries": 2},
    )  # fmt: skip
    code, rows, err = client.ended(running)
    assert code == 0, err
    assert err == ""
    assert store.path(SHA256).read_bytes() == DATA
    assert list(store.staging.iterdir()) == []
    return dict(rows[0])


def test_xet_brings_the_file_where_it_is_offered(
    offering: Hub, store: Store, tmp_path: Path
) -> None:
    assert pull(offering, store, tmp_path, offering.url)["way"] == "xet"
    assert offering.asked("/reconstructions/")
    assert not [one for one in offering.log if one.server == "cdn" and one.token == TOKEN]


@pytest.mark.parametrize("fails", ["token", "reconstruction", "xorb", "switched off", "elsewhere"])
def test_plain_http_brings_it_where_xet_fails(
    offering: Hub, store: Store, tmp_path: Path, fails: str
) -> None:
    asked = offering.url
    if fails == "token":
        offering.faults.refuse(500, times=99, part="xet-read-token")
    elif fails == "reconstruction":
        offering.faults.refuse(404, times=99, part="/reconstructions/")
    elif fails == "xorb":
        offering.faults.altered |= {f"xorb/{name}" for name in offering.cas.xorbs}
    elif fails == "elsewhere":  # the offer sends us, and our token, to another host
        offering.url = offering.cdn_url
    took = pull(offering, store, tmp_path, asked, xet=fails != "switched off")
    assert took["way"] == "http"
    assert not [one for one in offering.log if one.server == "cdn" and one.token == TOKEN]
