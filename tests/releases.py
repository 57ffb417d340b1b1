"""A small signed release in a folder: two real GGUF files, their tables, provenance, signatures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gguf_builder import sample
from quantmint.files import canonical_json
from quantmint.registry.keys import KeyFolder
from quantmint.registry.manifest.measured import (
    Agreement,
    Choices,
    Divergence,
    Gate,
    MemoryAt,
    OnKernel,
    SpeedAt,
)
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    PROVENANCE_FILE,
    Calibration,
    Manifest,
    OtherFile,
    Source,
    Toolchain,
    Variant,
    Withheld,
)
from quantmint.registry.manifest.types import FileEntry, ListedFile, TextEntry
from quantmint.registry.provenance import Built, Run, sign_provenance, statement_of
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import pre_authentication
from quantmint.registry.signing.folder import verify_folder
from quantmint.registry.signing.release import Expect, Verified, sign_release
from quantmint.registry.tensors import make_table, table_bytes
from quantmint.registry.trust_root import TrustRoot

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Q4, Q8 = "Phi-3-nano-Q4_K_M.gguf", "Phi-3-nano-Q8_0.gguf"
T4, T8 = "tensors/Q4_K_M.json", "tensors/Q8_0.json"
DIVERGENCE = Divergence(
    context=4096, chunks=4, tokens=8192, ppl=8.5, ppl_error=0.1, base_ppl=8.4, base_ppl_error=0.1,
    ppl_ratio=1.01, ppl_ratio_error=0.001, kld_mean=0.01, kld_error=0.001, kld_median=0.005,
    kld_p99=0.2, kld_p999=0.5, kld_max=1.5, top1=0.95, top1_error=0.002, rms_dp=0.02,
    rms_dp_error=0.001,
)  # fmt: skip
SPEED = SpeedAt(tokens=128, repetitions=5, median=100.0, low=95.5, high=101.0)


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, size=len(data), sha256=sha_of(data))


def toolchain() -> Toolchain:
    return Toolchain(
        quantmint="0.1.0", llama_cpp="0.3.36", llama_cpp_commit="0c1e57098",
        llama_cpp_source_sha256="8" * 64, converter_sha256="c" * 64, tools_sha256="7" * 64,
        compiler="g++ 13.2.0", cmake="4.4.4", target="x86_64-linux-gnu",
        options={"GGML_NATIVE": "OFF", "CMAKE_CXX_FLAGS": ""}, host_cpu="AMD EPYC",
    )  # fmt: skip


@dataclass
class Release:
    """A release folder, the key that signed it, and the trust root that judges it."""

    folder: Path
    key: SigningKey
    root: TrustRoot
    keys: KeyFolder
    number: int = 2
    expect: Expect = field(default_factory=lambda: Expect("phi-3-nano", "my-org"))

    def verify(self, *, strict: bool = False, deep: bool = True, now: datetime = NOW) -> Verified:
        return verify_folder(
            self.folder, self.root.policy(), expect=self.expect, now=now, strict=strict, deep=deep
        )

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.path(MANIFEST_FILE).read_bytes()))

    @property
    def envelope(self) -> dict[str, Any]:
        return dict(json.loads(self.path(ENVELOPE_FILE).read_bytes()))

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self.envelope["payload"])

    @property
    def signature(self) -> bytes:
        return base64.b64decode(self.envelope["signatures"][0]["sig"])

    def edit_envelope(self, change: Callable[[dict[str, Any]], object]) -> None:
        value = self.envelope
        change(value)
        self.path(ENVELOPE_FILE).write_bytes(canonical_json(value))

    def resign(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest as its publisher could: the signature is right."""
        value = self.manifest
        change(value)
        self.sign_raw(canonical_json(value))

    def sign_raw(self, payload: bytes, key: SigningKey | None = None) -> None:
        """Sign any bytes as a manifest, which our own code would refuse to do."""
        self.path(MANIFEST_FILE).write_bytes(payload)
        self.path(ENVELOPE_FILE).write_bytes(self.sealed_raw(payload, key))

    def sealed_raw(self, payload: bytes, key: SigningKey | None = None) -> bytes:
        key = key or self.key
        signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
        value = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}
            ],
        }  # fmt: skip
        return canonical_json(value)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file of the release, and list it with its new size and digest."""
        self.path(name).write_bytes(data)

        def relist(value: dict[str, Any]) -> None:
            rows = [row[k] for row in value["variants"] for k in ("file", "tensors")]
            for row in (*rows, *value["files"]):
                if row["path"] == name:
                    row.update(size=len(data), sha256=sha_of(data))

        self.resign(relist)


def make_release(base: Path, number: int = 2) -> Release:
    """Make a release of two variants, signed with a key that is trusted for its publisher."""
    keys = KeyFolder(base / "keys")
    key, root = keys.new("publisher"), TrustRoot(base / "keys")
    root.trust(key.public, ("my-org/*",))
    folder = base / "release"
    (folder / "tensors").mkdir(parents=True)
    release = Release(folder, key, root, keys, number)
    write_release(release)
    return release


def write_release(release: Release) -> Manifest:
    folder, key = release.folder, release.key
    variants = tuple(write_variant(folder, name) for name in ("Q8_0", "Q4_K_M"))
    base = manifest_parts()
    built = Built(
        files={v.file.path: v.file.sha256 for v in variants},
        source=base["source"],
        toolchain=base["toolchain"],
        calibration=base["calibration"],
        assay=base["assay"],
        commands={"convert": ("convert_hf_to_gguf.py", "--outtype", "f16")},
        run=Run("run-1", "2026-01-31T10:00:00Z", "2026-01-31T12:00:00Z"),
    )
    provenance = sign_provenance(statement_of(built), [key])
    (folder / PROVENANCE_FILE).write_bytes(provenance)
    listed = entry(PROVENANCE_FILE, provenance)
    manifest = Manifest(
        **base,
        release=release.number,
        variants=variants,
        files=(OtherFile(**listed.model_dump(), role="provenance"),),
    )
    for name, data in sign_release(manifest, [key]).items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("# Model card\n")
    return manifest


def write_variant(folder: Path, name: str) -> Variant:
    data = sample().build()
    if name == "Q8_0":
        data = data[:-1] + b"\7"  # another file, with the same header
    path = folder / f"Phi-3-nano-{name}.gguf"
    path.write_bytes(data)
    table = table_bytes(make_table(path, path.name, sha_of(data)))
    (folder / f"tensors/{name}.json").write_bytes(table)
    on_kernel = OnKernel(
        kernel="zen4", cpu="AMD EPYC", threads=2, prompt=(SPEED,), generation=(SPEED,),
        agreement=Agreement(
            reference="x64", tokens=64, nmse=1e-9, top1=1.0, largest_difference=0.001, finite=True
        ),
    )  # fmt: skip
    choices = Choices(
        task="facts", items=100, correct=60, base_correct=61, difference=-0.01, low=-0.05,
        high=0.03, gained=2, lost=3, p_value=1.0,
    )  # fmt: skip
    return Variant(
        variant=name,
        file=entry(path.name, data),
        tensors=entry(f"tensors/{name}.json", table),
        weights=229,
        bits_per_weight=8.5,
        memory=(MemoryAt(context=4096, weights=348, cache=1 << 20, compute=1 << 20),),
        divergence=(DIVERGENCE,),
        choices=(choices,),
        kernels=(on_kernel,),
        gates=(Gate(check="header", reason="well-formed"),),
    )


def manifest_parts() -> dict[str, Any]:
    """What every manifest of these tests has, whatever its number."""
    return {
        "format": "quantmint.release/1",
        "publisher": "my-org",
        "model": "phi-3-nano",
        "title": "Phi-3-nano",
        "created": "2026-02-01T00:00:00Z",
        "expires": "2026-08-01T00:00:00Z",
        "repository": "my-org/Phi-3-nano-GGUF",
        "architecture": "phi3",
        "chat_template_sha256": "e" * 64,
        "source": Source(
            kind="hub", name="microsoft/Phi-3-nano", commit="a" * 40, license="mit",
            files=(ListedFile(path="model.safetensors", size=10, sha256="f" * 64),),
        ),
        "toolchain": toolchain(),
        "calibration": Calibration(
            imatrix_sha256="1" * 64, context=512, chunks=4,
            text=TextEntry(name="calibration.txt", size=9, sha256="2" * 64),
        ),
        "assay": (TextEntry(name="assay.txt", size=9, sha256="3" * 64),),
        "withheld": (Withheld(variant="TQ1_0", reason="top1 0.31 is below 0.8"),),
    }  # fmt: skip


def put(*place: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a change that sets what is at `place` of a JSON value."""

    def change(root: Any) -> None:
        for part in place[:-1]:
            root = root[part]
        root[place[-1]] = value

    return change
