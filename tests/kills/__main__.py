"""Kill parts of a running service at points of a run; print what became of it as a table.

    python -m kills [--roles step,daemon] [--phases ladder] [--home BUILT]

At each point: what ends with the killed process is gone within seconds; the service brings the run
to an end, or a further run does; no pool slot stays claimed, no run is executed twice at a time,
there is one release, no green asset without bytes, and the same bytes as undisturbed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from helpers import ROOT
from quantmint.home import Home

from .point import PHASES, ROLES, Outcome, Place, Point, prepare, reference_of, try_point

HEAD = """
| killed | during | all gone after | the run | green after | releases | problems |
|---|---|---|---|---|---|---|"""


def row(outcome: Outcome) -> str:
    """Return a row of the table."""
    point = outcome.point
    said = "; ".join(outcome.wrong).replace("\n", " ").replace("|", "/") or "none"
    return (
        f"| {point.role} | {point.phase} | {outcome.ended_within:.1f} s | {outcome.became} | "
        f"{outcome.seconds:.0f} s | {outcome.releases} | {said} |"
    )


def tried(point: Point, folder: Path, built: Home, reference: dict[str, str]) -> Outcome:
    """Try a point in a home of its own; what breaks the trial itself is a problem of the point."""
    try:
        return try_point(point, Place(folder / "point").make(built), reference)
    except Exception as error:  # noqa: BLE001 - the next point is tried all the same
        return Outcome(point, wrong=[f"{type(error).__name__}: {error}"])


def main() -> None:
    """Try all points, and say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m kills", description=__doc__)
    parser.add_argument("--roles", default=",".join(ROLES))
    parser.add_argument("--phases", default=",".join(PHASES))
    named = os.environ.get("QUANTMINT_TEST_HOME", str(ROOT / ".quantmint" / "tests"))
    parser.add_argument("--home", default=named, help="the home with the built kernel")
    words = parser.parse_args()
    points = [Point(r, p) for p in words.phases.split(",") for r in words.roles.split(",")]
    began, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        built = prepare(Home(Path(folder) / "prepared"), Home(Path(words.home).absolute()))
        began = time.monotonic()
        reference = reference_of(Place(Path(folder) / "reference").make(built))
        print(f"undisturbed: {time.monotonic() - began:.0f} s with the service's start and stop")
        print(HEAD, flush=True)
        for point in points:
            outcome = tried(point, Path(folder), built, reference)
            wrong += bool(outcome.wrong)
            print(row(outcome), flush=True)
    print(f"\n{len(points)} points, {wrong} with problems, {time.monotonic() - began:.0f} s")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
