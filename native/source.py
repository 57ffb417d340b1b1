"""Fetching and unpacking the pinned llama.cpp source distribution."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

from quantmint.errors import BuildError, IntegrityError, SourceError
from quantmint.files import clone_or_copy, fsync_folder, sha256_of
from quantmint.native.pin import Pin
from quantmint.process import Command, Limits, run
from quantmint.registry.actions import Action, Outcome, lookup, record
from quantmint.registry.store import Blob, Store

SDIST_LIMIT = 512 << 20
UNPACKED_LIMIT = 2 << 30


def fetch_sdist(store: Store, pin: Pin) -> Blob:
    """Return the pinned source distribution, fetched through pip unless the store has it.

    `QUANTMINT_LLAMA_SDIST` names a local copy of the file, for machines without a network.

    Raises:
        SourceError: it can't be fetched.
        IntegrityError: its sha256 is not the pinned one.
    """
    path = store.path(pin.sha256)
    if path.is_file() and sha256_of(path) == pin.sha256:
        return _keep(store, store.find(pin.sha256))
    local = os.environ.get("QUANTMINT_LLAMA_SDIST")
    with store.stage() as stage:
        found = _copy_local(Path(local), stage) if local else _download(pin, stage)
        actual = sha256_of(found)
        if actual != pin.sha256:
            raise IntegrityError(
                f"{found.name} has the sha256 {actual}, not the pinned {pin.sha256}",
                mend="fetch it again from the official package index; do not use this file",
            )
        return _keep(store, store.adopt(found))


def _keep(store: Store, blob: Blob) -> Blob:
    """Record what was fetched: garbage collection keeps it as long as it is of use."""
    action = Action(name="fetch-llama.cpp", inputs={"sdist": blob.sha256}, tools={})
    if lookup(store, action) is None:
        record(store, action, Outcome(outputs={"sdist": blob}))
    return blob


def _copy_local(path: Path, stage: Path) -> Path:
    staged = stage / "sdist.tar.gz"
    try:
        clone_or_copy(path, staged)
    except OSError as error:
        raise SourceError(
            f"QUANTMINT_LLAMA_SDIST={path} can't be read: {error.strerror}",
            mend="point it to the pinned source distribution, or unset it to download",
        ) from error
    return staged


def _download(pin: Pin, stage: Path) -> Path:
    requirements = stage / "requirements.txt"
    requirements.write_text(f"{pin.requirement}\n", encoding="utf-8")
    command = Command(
        argv=[
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--no-binary", pin.package, "--require-hashes",
            "--dest", stage, "--requirement", requirements,
        ],
        env={"CMAKE_ARGS": "-DLLAMA_BUILD=OFF"},
        pass_env=_pip_environment(),
        limits=Limits(wall_seconds=1800, file_size=SDIST_LIMIT),
    )  # fmt: skip
    try:
        run(command)
    except BuildError as error:
        raise SourceError(
            f"the pinned llama.cpp source ({pin.package} {pin.version}) could not be fetched"
            f"\n{error.what}",
            mend="check the network (pip index versions llama-cpp-python), or set "
            f"QUANTMINT_LLAMA_SDIST to a copy of {pin.file_name}",
        ) from error
    return stage / pin.file_name


def _pip_environment() -> list[str]:
    """Return the names of the settings by which pip reaches its index."""
    return [
        name
        for name in os.environ
        if name.startswith(("PIP_", "SSL_CERT", "REQUESTS_CA")) or name.lower().endswith("_proxy")
    ]


def unpack(store: Store, pin: Pin, sources: Path) -> Path:
    """Return the root of the llama.cpp tree, unpacked once below the folder `sources`.

    Raises:
        SourceError, IntegrityError: see `fetch_sdist`.
    """
    final = sources / f"llama.cpp-{pin.sha256[:16]}"
    if not final.is_dir():
        blob = fetch_sdist(store, pin)
        sources.mkdir(parents=True, exist_ok=True)
        with store.stage() as stage:
            root = _extract(store.path(blob.sha256), stage)
            try:
                root.rename(final)
            except OSError:
                if not final.is_dir():  # another process may have been faster
                    raise
        fsync_folder(sources)
    return final / "vendor" / "llama.cpp"


def _extract(sdist: Path, stage: Path) -> Path:
    """Unpack with tarfile's `data` filter: no links out, no devices, no absolute names."""
    total = 0
    with tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            total += member.size
            if total > UNPACKED_LIMIT:
                raise IntegrityError(f"{sdist.name} unpacks to more than {UNPACKED_LIMIT} bytes")
            archive.extract(member, stage, filter="data")
    (root,) = stage.iterdir()
    return root
