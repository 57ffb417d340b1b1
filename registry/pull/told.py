"""What pulling says to people: the table of candidates, what came from where, commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from quantmint.files import human_bytes
from quantmint.registry.machine import Machine
from quantmint.registry.pull.choose import Candidate, Choice
from quantmint.registry.pull.engine import Pulled, Resolved
from quantmint.registry.pull.hub import HubPlace
from quantmint.registry.text import wrapped


def explained(machine: Machine, candidates: Sequence[Candidate]) -> str:
    """Return the machine and the table of candidates, the best first."""
    gpus = ", ".join(f"{gpu.name} ({human_bytes(gpu.memory)})" for gpu in machine.gpus) or "none"
    lines = [
        f"machine: {machine.cpu}, {machine.cores} cores, kernel {machine.best or 'unknown'}",
        f"memory: {human_bytes(machine.memory)}, {human_bytes(machine.available)} of it free",
        f"gpu: {gpus}",
        wrapped(
            ["", "variant", "size", "memory", "on", "KLD", "tokens/s", "verdict"],
            [_row(each) for each in candidates],
            columns=120,
        ),
    ]
    taken = next((row for row in candidates if row.taken), None)
    if taken is not None and taken.speed is not None:
        lines.append(f"speed: {taken.speed.source}")
    if taken is not None and taken.kld_context is not None:
        lines.append(f"KLD: measured at a context of {taken.kld_context} tokens")
    return "\n".join(lines)


def facts_of(choice: Choice) -> list[dict[str, Any]]:
    """Return the table of candidates for programs."""
    return [
        {
            "variant": row.offer.variant,
            "files": [file.path for file in row.offer.files],
            "size": row.offer.size,
            "memory": row.memory,
            "on": row.on,
            "fits": row.fits,
            "kld": row.kld,
            "tokens_per_second": row.speed.rate if row.speed else None,
            "speed_from": row.speed.source if row.speed else None,
            "taken": row.taken,
            "why": row.why,
        }
        for row in choice.candidates
    ]


def from_where(resolved: Resolved) -> str:
    """Return one line: what is taken, how large, from where, vouched for by whom."""
    offer = resolved.offer
    place = resolved.place.name if resolved.place else "this machine"
    if isinstance(resolved.place, HubPlace):
        place = f"{resolved.place.asked.name}/{resolved.place.repo}"
    believed = resolved.believed
    manifest = believed.manifest if believed else None
    release = f" release {manifest.release}" if manifest else ""
    signer = believed.verified.signer if believed and believed.verified else None
    signed = f", signed with key {signer[:16]}" if signer else ""
    size = human_bytes(offer.size)
    return f"{resolved.model}:{offer.variant}{release} ({size}) from {place}{signed}"


def saved(pulled: Pulled) -> str:
    """Return one line: the bytes that came, and those that need not."""
    got = pulled.got
    if got is None or all(one.way == "present" for one in got.took):
        return "everything was here already" + (
            f" (taken over from the Hub's cache: {', '.join(got.adopted)})"
            if got and got.adopted
            else ""
        )
    if all(one.way == "copied" for one in got.took):
        return f"copied {human_bytes(got.reused)}; hashed"
    here = f", {human_bytes(got.reused)} were here already" if got.reused else ""
    return f"fetched {human_bytes(got.fetched)}{here}; hashed"


def commands(pulled: Pulled) -> list[tuple[str, str]]:
    """Return ready commands, by what each is for."""
    path = shlex.quote(str(pulled.path))
    name = shlex.quote(f"{pulled.name}:{pulled.resolved.offer.variant}")
    create = f"ollama create {pulled.kept.model} -f Modelfile"
    return [
        ("chat", f"quantmint run {name}"),
        ("serve", f"quantmint serve {name}"),
        ("llama.cpp", f"llama-cli -m {path}"),
        ("Ollama", f"quantmint show {name} --modelfile > Modelfile && {create}"),
    ]


def lines(report: Callable[[str], None], pulled: Pulled) -> None:
    """Tell the ready commands."""
    for name, command in commands(pulled):
        report(f"  {name:<10} {command}")
    if not any(path.name.startswith("sha256-") for path in pulled.also):
        report("             (Ollama copies the file then; it does not after a pull with --ollama)")


def _row(row: Candidate) -> list[object]:
    return [
        "->" if row.taken else "",
        row.offer.variant,
        human_bytes(row.offer.size),
        human_bytes(row.memory),
        row.on if row.fits else "-",
        "-" if row.kld is None else f"{row.kld:.4f}",
        "-" if row.speed is None else f"{row.speed.rate:.1f}",
        row.why,
    ]
