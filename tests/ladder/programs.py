"""Both sides of a comparison: the ladder, and llama-quantize run once for each variant."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantmint.native.build import LADDER
from quantmint.native.ladder.naming import file_name


@dataclass(frozen=True)
class Programs:
    """The two programs, made from the same source."""

    ladder: Path
    llama_quantize: Path

    def command(
        self,
        source: Path,
        out: Path,
        variants: Sequence[str],
        *options: str,
        threads: int = 2,
    ) -> list[str]:
        """Return the engine's command line for these variants."""
        asked = [word for v in variants for word in ("--variant", f"{v}={file_name(source, v)}")]
        words = [self.ladder, source, "--out", out, "--threads", threads, *asked, *options]
        return [str(word) for word in words]

    def reference(
        self, source: Path, out: Path, variant: str, *options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run llama-quantize for one variant."""
        out.mkdir(exist_ok=True)
        target = out / file_name(source, variant)
        words = [self.llama_quantize, *options, source, target, variant, "1"]
        return subprocess.run(
            [str(word) for word in words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        )


def find_programs(request: pytest.FixtureRequest) -> Programs:
    """Return the programs out of the bundle that the other tests use."""
    bundle = request.getfixturevalue("bundle")
    return Programs(bundle.tool(LADDER), bundle.tool("llama-quantize"))


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the visible files of a folder by name."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def assert_same(ours: Path, theirs: Path) -> None:
    """Fail unless both folders hold the same files; say where the first differing byte is."""
    made, wanted = files_of(ours), files_of(theirs)
    assert sorted(made) == sorted(wanted)
    for name, data in made.items():
        if data != wanted[name]:
            pairs = enumerate(zip(data, wanted[name], strict=False))
            first = next((i for i, (a, b) in pairs if a != b), min(len(data), len(wanted[name])))
            pytest.fail(f"{name}: {len(data)} and {len(wanted[name])} bytes, differ at {first}")


def compare(
    programs: Programs,
    source: Path,
    folder: Path,
    variants: Sequence[str],
    *options: str,
    threads: int = 2,
) -> None:
    """Make the variants both ways and fail unless all bytes are the same."""

    def reference(variant: str) -> None:
        done = programs.reference(source, folder / "theirs", variant, *options)
        assert done.returncode == 0, done.stderr[-2000:]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(reference, variants))
    command = programs.command(source, folder / "ours", variants, *options, threads=threads)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert_same(folder / "ours", folder / "theirs")
