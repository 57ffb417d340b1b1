"""What the tests of pulling share: small signed releases, and registries that serve them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gguf_builder import ARRAY, TEXT, File, Row, array, scalar, string, text
from hub import Repo
from quantmint.files import canonical_json
from quantmint.registry.keys import KeyFolder
from quantmint.registry.manifest.measured import MemoryAt, OnKernel, SpeedAt
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    Manifest,
    OtherFile,
    Variant,
    Withheld,
    Yanked,
)
from quantmint.registry.manifest.types import FileEntry, time_text
from quantmint.registry.publish import FileSet, FolderTarget, Options, Release, publish
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.publish.status import STATUS_TYPE
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import seal
from quantmint.registry.signing.release import sign_release
from quantmint.registry.store import Store
from quantmint.registry.tensors import make_table, table_bytes
from releases import DIVERGENCE, manifest_parts

assert (ARRAY, TEXT) == (9, 8)
OWNER, MODEL, TITLE = "my-org", "phi-3-nano", "Phi-3-nano"
REPO = f"{OWNER}/{TITLE}-GGUF"
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
KLD = {"Q8_0": 0.001, "Q4_K_M": 0.02, "Q2_K": 0.2}
SPEED = {"Q8_0": 10.0, "Q4_K_M": 18.0, "Q2_K": 25.0}
MEMORY = {"Q8_0": 4 << 30, "Q4_K_M": 2 << 30, "Q2_K": 1 << 30}
SEEDS = {"Q8_0": (1, 2, 3), "Q4_K_M": (1, 4, 5), "Q2_K": (6, 7, 8)}


def model_bytes(
    seeds: Sequence[int] = (1, 2, 3), *, rows: int = 12000, template: str = TEMPLATE
) -> bytes:
    """Return a small GGUF file: one tensor of 408,000 bytes for each seed; equal seeds, equal
    bytes."""
    words = ("<s>", "</s>", "<|end|>", "<|user|>", "a")
    kinds = b"".join(kind.to_bytes(4, "little") for kind in (3, 3, 3, 3, 1))
    values: list[tuple[bytes | str, bytes]] = [
        ("general.architecture", string("phi3")),
        ("phi3.context_length", scalar(4, 4096)),
        ("phi3.embedding_length", scalar(4, 64)),
        ("phi3.block_count", scalar(4, 2)),
        ("phi3.attention.head_count", scalar(4, 4)),
        ("phi3.feed_forward_length", scalar(4, 128)),
        ("tokenizer.ggml.tokens", array(TEXT, b"".join(text(word) for word in words), 5)),
        ("tokenizer.ggml.token_type", array(5, kinds, 5)),
        ("tokenizer.ggml.eos_token_id", scalar(4, 1)),
        ("tokenizer.chat_template", string(template)),
    ]
    size = 32 * rows // 32 * 34
    names = ["token_embd.weight", *(f"blk.{n}.ffn_up.weight" for n in range(len(seeds) - 1))]
    placed = [Row(name, (32, rows), 8, at * size, size) for at, name in enumerate(names)]
    data = b"".join(random.Random(seed).randbytes(size) for seed in seeds)
    return File(values, placed, data=data).build()


def entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass
class Publisher:
    """Somebody who signs releases of one model; keys lie in a folder of their own."""

    base: Path
    name: str = "publisher"
    key: SigningKey = field(init=False)

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.key = KeyFolder(self.base / "keys").new(self.name)

    def files(
        self,
        number: int = 1,
        variants: Mapping[str, bytes] | None = None,
        *,
        days: float = 90,
        signed: bool = True,
        yanked: tuple[Yanked, ...] = (),
        **fields: Any,
    ) -> dict[str, bytes]:
        """Return a release's files, as they are published."""
        variants = variants or {name: model_bytes(SEEDS[name]) for name in ("Q8_0", "Q4_K_M")}
        found: dict[str, bytes] = {"README.md": b"# A model\n", "params": b'{"stop":["<|end|>"]}'}
        rows = tuple(self._variant(name, data, found) for name, data in variants.items())
        now = datetime.now(UTC)
        others = (OtherFile(**entry("params", found["params"]).model_dump(), role="ollama"),)
        parts = {
            **manifest_parts(),
            "created": time_text(now - timedelta(days=100)),
            "expires": time_text(now + timedelta(days=days)),
            "withheld": (Withheld(variant="TQ1_0", reason="top1 0.31 is below 0.8"),),
            **fields,
        }
        manifest = Manifest(**parts, release=number, variants=rows, files=others, yanked=yanked)
        found |= sign_release(manifest, [self.key])
        if not signed:
            del found[ENVELOPE_FILE]
        return found

    def status(
        self, withdrawn: Mapping[str, Mapping[str, str]], *, signed: bool = True
    ) -> dict[str, bytes]:
        """Return a status file and its signature: releases that were yanked, and their digests."""
        rows = {
            name: {"state": "yanked", "reason": "it says wrong things", "files": dict(files)}
            for name, files in withdrawn.items()
        }
        body = canonical_json({"format": 1, "releases": rows})
        if not signed:
            return {STATUS: body}
        return {STATUS: body, STATUS_SIGNATURE: seal(body, STATUS_TYPE, [self.key])}

    def _variant(self, name: str, data: bytes, found: dict[str, bytes]) -> Variant:
        path = self.base / f"{TITLE}-{name}.gguf"
        path.write_bytes(data)
        file = entry(path.name, data)
        table = table_bytes(make_table(path, path.name, file.sha256))
        found[path.name], found[f"tensors/{name}.json"] = data, table
        return variant_row(name, file, entry(f"tensors/{name}.json", table))


def variant_row(name: str, file: FileEntry, table: FileEntry, **own: Any) -> Variant:
    """Return a variant with measurements that differ as those of real ones do."""
    rate = SPEED.get(name, 5.0)
    speed = SpeedAt(tokens=128, repetitions=5, median=rate, low=rate, high=rate)
    share = MEMORY.get(name, 8 << 30)
    kernel = OnKernel(kernel="x64", cpu="A CPU", threads=1, generation=(speed,), prompt=())
    fields: dict[str, Any] = {
        "variant": name,
        "file": file,
        "tensors": table,
        "weights": 1000,
        "bits_per_weight": {"Q8_0": 8.5, "Q4_K_M": 4.8, "Q2_K": 2.9}.get(name, 16.0),
        "memory": (
            MemoryAt(context=4096, weights=share, cache=1 << 28, compute=1 << 26),
            MemoryAt(context=32768, weights=share, cache=1 << 31, compute=1 << 28),
        ),
        "divergence": (DIVERGENCE.model_copy(update={"kld_mean": KLD.get(name, 0.0)}),),
        "kernels": (kernel,),
        "gates": ({"check": "header", "reason": "well-formed"},),
        **own,
    }
    return Variant.model_validate(fields)


def withdrawal(number: int, files: Mapping[str, bytes]) -> Yanked:
    digest = hashlib.sha256(files[MANIFEST_FILE]).hexdigest()
    return Yanked(release=number, manifest_sha256=digest, reason="wrong tokenizer")


def serve(repo: Repo, files: Mapping[str, bytes], number: int | None = None) -> str:
    """Commit a release to a repository of the test hub, and tag it; return the commit."""
    sha = repo.commit(dict(files))
    if number is not None:
        repo.tags[f"v{number}"] = sha
    return sha


def to_folder(root: Path, files: Mapping[str, bytes], name: str, work: Path) -> None:
    """Publish to a registry in a folder."""
    store = Store(work / "store").open()
    contents = {path: store.put_bytes(data) for path, data in files.items()}
    target = FolderTarget(root)
    options = Options(work=work, restore=True)
    publish(
        Release(name=name, files=FileSet.of(store, contents)),
        target,
        smoke=lambda _path, _file: None,
        options=options,
    )
