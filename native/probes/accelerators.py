"""Which accelerators this machine has, whatever kernels can be built for them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.native.host import machine_name, system_name
from quantmint.process import Command, Limits, run

# PCI vendor numbers.
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x106b": "Apple"}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU: its name, and what its driver says of it."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


def accelerators(drm: Path = Path("/sys/class/drm")) -> tuple[Accelerator, ...]:
    """Return the GPUs that NVIDIA's driver or the kernel's `drm` folder reports."""
    if system_name() == "darwin" and machine_name() == "aarch64":
        return (Accelerator("Apple GPU", "Metal"),)
    nvidia = nvidia_gpus(_nvidia_smi())
    others = [gpu for gpu in drm_gpus(drm) if not (nvidia and gpu.name.startswith("NVIDIA"))]
    return (*nvidia, *others)


def nvidia_gpus(table: str) -> list[Accelerator]:
    """Read `nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader`."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    return [
        Accelerator(name, f"compute capability {capability}, driver {driver}")
        for name, capability, driver in (row for row in rows if len(row) == 3)
    ]


def drm_gpus(drm: Path) -> list[Accelerator]:
    """Return the GPUs that have a render node, by their makers; `drm` is /sys/class/drm."""
    found = []
    for node in sorted(drm.glob("renderD*")):
        try:
            vendor = (node / "device" / "vendor").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue  # a device of no PCI bus
        found.append(Accelerator(f"{VENDORS.get(vendor, vendor)} GPU", f"/dev/dri/{node.name}"))
    return found


def _nvidia_smi() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = ["--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        said = run(Command(argv=[program, *query], limits=Limits(wall_seconds=60)), check=False)
    except BuildError:
        return ""
    return said.stdout if said.code == 0 else ""
