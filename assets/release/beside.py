"""The OpenSSF signature of a release: made over all of its files, verified before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from quantmint.assets.mint import Mint
from quantmint.files import clone_or_copy
from quantmint.registry.manifest.release import MODEL_SIGNATURE_FILE, OPENSSF_KEY_FILE
from quantmint.registry.signing import openssf
from quantmint.registry.signing.folder import verify_file
from quantmint.registry.store import Blob

Smoke = Callable[[str, Path], None]


def sign(mint: Mint, files: Mapping[str, Blob], key: str) -> Blob:
    """Return `model.sig` over these files, with the model-signing key of that name.

    Raises:
        UserError: the tool or the key is missing.
        IntegrityError: the files could not be hashed, or are not what they are named after.
    """
    with _folder(mint, files) as folder:
        for path, blob in files.items():
            verify_file(folder / path, blob)  # the tool would sign whatever is there
        return mint.store.put_bytes(openssf.sign_folder(folder, mint.home.keys, key).read_bytes())


def with_signature_test(mint: Mint, files: Mapping[str, Blob], smoke: Smoke) -> Smoke:
    """Return the test of files that came back, which also verifies a `model.sig` that came back.

    Every other file is hashed as it comes back and must be the store's, so the signature is
    verified against those: the disk need not hold all files twice.
    """

    def test(path: str, local: Path) -> None:
        smoke(path, local)
        if path != MODEL_SIGNATURE_FILE:
            return
        with _folder(mint, {p: blob for p, blob in files.items() if p != path}) as folder:
            clone_or_copy(local, folder / path)
            openssf.verify_folder_signature(folder, folder / OPENSSF_KEY_FILE)
        mint.report(f"{path}: verified with OpenSSF's model-signing")

    return test if MODEL_SIGNATURE_FILE in files and openssf.is_installed() else smoke


@contextmanager
def _folder(mint: Mint, files: Mapping[str, Blob]) -> Iterator[Path]:
    with mint.store.stage() as stage:
        folder = stage / "release"
        for path, blob in files.items():
            mint.store.link(blob, folder / path)
        yield folder
