"""One file for machines without a network: a release in a plain tar, of one spelling.

    quantmint-export.json        which model, from where; path, size and sha256 of every file
    objects/<sha256>             the files, small ones first

Order, names and every header byte follow from the index: a reader compares each header with the
one that it would write itself, so there is nothing in an archive to interpret. What vouches for
the files is the release's own signed manifest, which is in it and verified first.
Format of a header: POSIX ustar, with GNU's binary size for files of 8 GiB and more.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from quantmint import names
from quantmint.errors import IntegrityError, UserError
from quantmint.files import (
    canonical_json,
    fsync_file,
    full_disk_explained,
    move_into_place,
    temporary_name,
)
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE
from quantmint.registry.pull.kept import Kept, now_text
from quantmint.registry.pull.places import LARGEST, check_name
from quantmint.registry.pull.reference import check_commit, check_place
from quantmint.registry.store import Blob, Store
from quantmint.registry.strict_json import parse_canonical
from quantmint.watching import naming, note

INDEX: Final = "quantmint-export.json"
FORMAT: Final = "quantmint.export/1"
_LIMIT: Final = 4 << 20
_MOST: Final = 1024
_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_FIELDS: Final = {"format", "model", "place", "commit", "number", "identity", "variants", "files"}


def export(store: Store, kept: Kept, target: Path) -> int:
    """Write an archive; it appears whole. Return its bytes.

    Raises:
        UserError: there is such a file, or the disk is full. IntegrityError: an object is gone.
    """
    if target.exists():
        raise UserError(f"{target} is there already", mend="name another file")
    staged = temporary_name(target)
    try:
        with full_disk_explained(target.absolute().parent):
            with staged.open("xb") as file:
                size = sum(blob.size for blob in set(kept.objects.values()))
                for block in _blocks(store, kept):
                    file.write(block)
                    note("writing", target.name, min(file.tell(), size), size)
            fsync_file(staged)
            move_into_place(staged, target)
    except FileNotFoundError as error:
        raise UserError(f"{target} can't be written: {error.strerror}") from error
    finally:
        staged.unlink(missing_ok=True)
    return target.stat().st_size


def read_index(file: IO[bytes]) -> Kept:
    """Read the head of an archive: what it says that it holds, in names of the grammar only.

    Raises:
        IntegrityError: it is no archive of ours, whole to its last header byte.
    """
    head = file.read(_BLOCK)
    size = _size_in(head)
    if size > _LIMIT or head != _header(INDEX, size):
        raise _refused("it does not begin with an index")
    data = file.read(size)
    _skip(file, size)
    return _kept(parse_canonical(data, limit=_LIMIT, what="the index of the archive"))


def read_objects(file: IO[bytes], store: Store, kept: Kept, only: set[str]) -> Iterator[Blob]:
    """Bring those objects of an archive into the store whose digests are in `only`, hashed.

    They must come in the order of the index; what is left out of `only` may not come before them.

    Raises:
        IntegrityError: a header or the bytes are others than the index says, or the file ends.
    """
    named = {blob: path for path, blob in kept.objects.items()}
    for blob in _ordered(kept):
        if blob.sha256 not in only:
            continue
        with naming(named[blob]):
            _read_object(file, store, blob)
        yield blob


def read_end(file: IO[bytes]) -> None:
    """Refuse an archive that goes on behind its last object.

    Raises:
        IntegrityError: it does, or it ends too early.
    """
    if file.read(2 * _BLOCK + 1) != bytes(2 * _BLOCK):
        raise _refused("it does not end where its index ends")


def small_first(kept: Kept) -> list[Blob]:
    """Return what must be read and judged before anything large: the manifest's two files."""
    found = [kept.objects[name] for name in (ENVELOPE_FILE, MANIFEST_FILE) if name in kept.objects]
    return list(dict.fromkeys(found))


def _read_object(file: IO[bytes], store: Store, blob: Blob) -> None:
    if file.read(_BLOCK) != _header(f"objects/{blob.sha256}", blob.size):
        raise _refused("what follows is not what its index says")
    if store.has(blob):
        _copied(file, blob, None)
        _skip(file, blob.size)
    else:
        store.require_room(blob.size)
        with store.stage() as folder:
            with (folder / "object").open("xb") as staged:
                _copied(file, blob, staged)
            _skip(file, blob.size)
            store.adopt(folder / "object", size=blob.size, sha256=blob.sha256)


def _ordered(kept: Kept) -> list[Blob]:
    first = small_first(kept)
    rest = sorted(set(kept.objects.values()) - set(first), key=lambda b: (b.size, b.sha256))
    return [*first, *rest]


def _blocks(store: Store, kept: Kept) -> Iterator[bytes]:
    index = canonical_json(
        {
            "format": FORMAT, "model": kept.model, "place": kept.place, "commit": kept.commit,
            "number": kept.number, "identity": kept.identity,
            "variants": {name: list(paths) for name, paths in kept.variants.items()},
            "files": {path: [blob.sha256, blob.size] for path, blob in kept.objects.items()},
        }
    )  # fmt: skip
    yield _header(INDEX, len(index)) + index + bytes(-len(index) % _BLOCK)
    for blob in _ordered(kept):
        yield _header(f"objects/{blob.sha256}", blob.size)
        digest = hashlib.sha256()
        with store.path(store.find(blob.sha256).sha256).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != blob.sha256:
            raise IntegrityError(
                f"object {blob.sha256} is damaged", mend="quantmint verify, then pull it again"
            )
        yield bytes(-blob.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _size_in(head: bytes) -> int:
    """Return the size in the first header; whatever else it holds is compared afterwards."""
    digits = head[124:135]
    if len(head) != _BLOCK or not digits.isdigit() or digits.strip(b"01234567"):
        raise _refused("it is no archive of quantmint")
    return int(digits, 8)


def _kept(value: Any) -> Kept:  # noqa: ANN401
    try:
        if set(value) != _FIELDS or value["format"] != FORMAT:
            raise ValueError("other fields than expected")
        objects = {path: _blob(path, *row) for path, row in value["files"].items()}
        if not 1 <= len(objects) <= _MOST:
            raise ValueError(f"{len(objects)} files")
        variants = {}
        for name, paths in value["variants"].items():
            names.check(names.ANY_VARIANT, name, "name of a variant")
            if not paths or any(path not in objects for path in paths):
                raise ValueError(f"the files of {name}")
            variants[name] = tuple(paths)
        number = value["number"]
        if number is not None and (type(number) is not int or not 0 < number < 1 << 31):
            raise ValueError("the release")
        return Kept(
            model=names.check(names.MODEL, value["model"], "model name"),
            place=check_place(_line(value["place"])), commit=check_commit(value["commit"]),
            number=number, identity=value["identity"] and _line(value["identity"]),
            pulled=now_text(), variants=variants, objects=objects,
        )  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, UserError) as error:
        raise _refused(f"its index makes no sense ({json.dumps(str(error)[:100])})") from None


def _blob(path: str, sha256: str, size: int) -> Blob:
    if not check_name(path) or type(size) is not int or not 0 <= size <= LARGEST:
        raise ValueError(f"the file {path[:80]!r}")
    return Blob(names.digest(sha256), size)


def _line(text: object) -> str:
    if not isinstance(text, str) or not text.isprintable() or len(text) > 4096:
        raise ValueError("a text")
    return text


def _copied(file: IO[bytes], blob: Blob, target: IO[bytes] | None) -> None:
    left, digest = blob.size, hashlib.sha256()
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise _refused("it ends too early")
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        left -= len(chunk)
        note("reading", blob.sha256[:16], blob.size - left, blob.size)
    if digest.hexdigest() != blob.sha256:
        raise _refused(f"the bytes of {blob.sha256[:16]}... have another sha256")


def _skip(file: IO[bytes], size: int) -> None:
    padding = -size % _BLOCK
    if file.read(padding) != bytes(padding):
        raise _refused("its padding is not empty, or it ends too early")


def _refused(why: str) -> IntegrityError:
    return IntegrityError(
        f"the archive is refused: {why}; nothing of it was kept",
        mend="copy it again from where it was exported",
    )
