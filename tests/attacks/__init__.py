"""Attacks of a hostile registry: each prepares what is served, and names what is then pulled.

`ATTACKS` has them all, with the error that must come of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evil import Evil
from pulling import Publisher, model_bytes
from quantmint.errors import QuantmintError
from quantmint.home import Home
from quantmint.registry.machine import Machine
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.transfer import Limits

Q8, T8 = "Phi-3-nano-Q8_0.gguf", "tensors/Q8_0.json"
ENVELOPE, MANIFEST, STATUS = "quantmint.dsse.json", "quantmint.json", "quantmint.status.json"
SIGNATURE = "quantmint.status.dsse.json"
QUICK = Limits(tries=1, first=0.01, longest=0.01, patience=5.0, connections=1)
MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)


@dataclass
class Scene:
    """A home that has accepted release 2, a publisher it trusts, and who now serves what."""

    home: Home
    evil: Evil
    thief: Evil
    publisher: Publisher
    folder: Path
    first: dict[str, bytes] = field(default_factory=dict)
    second: dict[str, bytes] = field(default_factory=dict)

    def pull(self, ref: str, *, strict: bool = False) -> Pulled:
        request = Request(reference=parse_reference(ref), strict=strict, limits=QUICK)
        return Puller(self.home, machine=MACHINE).pull(request)

    def serve(self, files: dict[str, bytes]) -> None:
        self.evil.files = dict(files)

    def third(self, **fields: Any) -> dict[str, bytes]:
        """Return a newer release whose model is another one."""
        return self.publisher.files(3, {"Q8_0": model_bytes((7, 8, 9))}, **fields)


Attack = Callable[[Scene], str]
ATTACKS: list[tuple[str, Attack, type[QuantmintError], str, bool, bool]] = []


def attack(
    kind: type[QuantmintError], said: str, *, strict: bool = False, seen: bool = False
) -> Callable[[Attack], Attack]:
    """Note an attack. `seen`: the manifest is right, so its number is remembered all the same."""

    def note(made: Attack) -> Attack:
        ATTACKS.append((made.__name__, made, kind, said, strict, seen))
        return made

    return note


# They note themselves.
from . import served, signed  # noqa: E402, F401
