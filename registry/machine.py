"""What this machine is, as far as choosing a file for it goes. Nothing is run but `nvidia-smi`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GIB: Final = 1 << 30
# Flags (Linux's /proc/cpuinfo) that llama.cpp's CPU kernels ask for, the least capable first. A
# test compares this with the matrix that the kernels are built by.
_AVX2: Final = ("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2")
_AVX512: Final = (*_AVX2, "avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw")
_ARM: Final = ("asimddp", "fphp", "asimdhp")
KERNELS: Final = {
    "x86_64": {
        "x64": (),
        "sse42": ("sse4_2",),
        "sandybridge": ("sse4_2", "avx"),
        "ivybridge": ("sse4_2", "avx", "f16c"),
        "piledriver": ("sse4_2", "avx", "f16c", "fma"),
        "haswell": _AVX2,
        "alderlake": (*_AVX2, "avx_vnni"),
        "skylakex": _AVX512,
        "cannonlake": (*_AVX512, "avx512vbmi"),
        "cascadelake": (*_AVX512, "avx512_vnni"),
        "icelake": (*_AVX512, "avx512vbmi", "avx512_vnni"),
        "cooperlake": (*_AVX512, "avx512_vnni", "avx512_bf16"),
        "zen4": (*_AVX512, "avx512vbmi", "avx512_vnni", "avx512_bf16"),
        "sapphirerapids": (*_AVX512, "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile",
                           "amx_int8"),
    },
    "aarch64": {
        "armv8.0": (),
        "armv8.2-dotprod": ("asimddp",),
        "armv8.2-fp16": _ARM,
        "armv8.2-sve": (*_ARM, "sve"),
        "armv8.6-i8mm": (*_ARM, "sve", "i8mm"),
        "armv8.6-sve2": (*_ARM, "sve", "i8mm", "sve2"),
        "armv9.2-sme": (*_ARM, "sve", "i8mm", "sme"),
        "armv9.2-sve2-sme": (*_ARM, "sve", "i8mm", "sve2", "sme"),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine. `kernels` are those that it can run, the best last; `memory` is in bytes.

    `available` is what of the memory is free now.
    """

    cpu: str
    cores: int
    kernels: tuple[str, ...]
    memory: int
    available: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def best(self) -> str | None:
        """The best CPU kernel that it can run."""
        return self.kernels[-1] if self.kernels else None


def this_machine() -> Machine:
    """Return this machine; what can't be told is left empty or small."""
    name, flags = _cpu(Path("/proc/cpuinfo"))
    kind = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower())
    rows = KERNELS.get(kind or platform.machine().lower(), {})
    total, available = _memory(Path("/proc/meminfo"))
    limit = _group_limit(Path("/sys/fs/cgroup"))
    return Machine(
        cpu=name,
        cores=_cores(),
        kernels=tuple(kernel for kernel, needed in rows.items() if flags.issuperset(needed)),
        memory=min(total, limit),
        available=min(available, limit),
        gpus=(*_nvidia(), *_amd(Path("/sys/class/drm"))),
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu(path: Path) -> tuple[str, frozenset[str]]:
    name, flags = "", frozenset[str]()
    for line in _lines(path):
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not name:
            name = value.strip()
        if key.strip() in {"flags", "Features"} and not flags:
            flags = frozenset(value.split())
    return name or platform.processor() or platform.machine(), flags


def _memory(path: Path) -> tuple[int, int]:
    found = {}
    for line in _lines(path):
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdecimal():
            found[key] = int(number[0]) * 1024
    if "MemTotal" in found:
        return found["MemTotal"], found.get("MemAvailable", found["MemTotal"])
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 4 * GIB, 4 * GIB
    return total, total


def _group_limit(root: Path) -> int:
    """Return the memory that a container leaves us; a very large number where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = "".join(_lines(root / name)).strip()
        if text.isdecimal():
            return int(text)
    return 1 << 60


def _nvidia() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return nvidia_gpus(said.stdout if said.returncode == 0 else "")


def nvidia_gpus(table: str) -> list[Gpu]:
    """Read what `nvidia-smi --query-gpu=name,memory.total` prints: memory in MiB."""
    rows = [line.rpartition(",") for line in table.splitlines()]
    return [
        Gpu(name.strip(), int(size) << 20)
        for name, _, size in rows
        if name.strip() and size.strip().isdecimal()
    ]


def _amd(drm: Path) -> list[Gpu]:
    found = []
    for path in sorted(drm.glob("card[0-9]/device/mem_info_vram_total")):
        text = "".join(_lines(path)).strip()
        if text.isdecimal():
            found.append(Gpu(f"AMD GPU ({path.parent.parent.name})", int(text)))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
