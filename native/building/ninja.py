"""Running ninja: progress while it runs, and how long each target's objects took."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.native.building.options import Report
from quantmint.native.building.parallel import jobs
from quantmint.native.toolchain import Toolchain
from quantmint.process import Command, Limits, run

STEP = re.compile(r"\[(\d+)/(\d+)\]")
_OBJECT = re.compile(r"(?:^|/)CMakeFiles/(?P<target>[\w.+-]+)\.dir/")


def compile_targets(
    folder: Path,
    targets: Sequence[str],
    chain: Toolchain,
    report: Report,
    log: Path,
    *,
    most_jobs: int | None = None,
) -> None:
    """Build the targets of a configured folder, with as many compilers as the machine bears.

    Raises:
        BuildError: a compiler failed, or the disk is full.
    """
    count = jobs() if most_jobs is None else most_jobs
    argv: list[str | Path] = [chain.ninja.path, "-C", folder, f"-j{count}", *targets]
    command = Command(
        argv=argv, limits=Limits(wall_seconds=12 * 3600), log=log, ended_by=signal.SIGTERM
    )
    try:
        run(command, on_line=_Progress(report))
    except BuildError as error:
        if shutil.disk_usage(folder).free < 1 << 20:
            raise BuildError(
                f"no space left on the disk of {folder} while compiling",
                mend="free 2 GB, or set QUANTMINT_HOME to a folder on a larger disk",
            ) from error
        raise


def seconds_by_target(folder: Path) -> dict[str, float]:
    """Return how long the compilers of each target's objects ran, one after another, in seconds.

    From ninja's own log, whose last entry of an object counts: an interrupted build adds up too.
    Format: https://ninja-build.org/manual.html#ref_log (start, end in milliseconds; output).
    """
    try:
        lines = (folder / ".ninja_log").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    last: dict[str, float] = {}
    for line in lines:
        parts = line.split("\t")
        if len(parts) == 5 and parts[0].isdecimal() and parts[1].isdecimal():
            last[parts[3]] = (int(parts[1]) - int(parts[0])) / 1000
    total: defaultdict[str, float] = defaultdict(float)
    for output, seconds in last.items():
        found = _OBJECT.search(output)
        if found is not None:
            total[found["target"]] += seconds
    return dict(total)


class _Progress:
    """Reports ninja's `[n/total]` every ten seconds, not every object."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last = time.monotonic()

    def __call__(self, line: str) -> None:
        found = STEP.match(line)
        now = time.monotonic()
        if found and now - self._last >= 10:
            self._last = now
            self._report(f"compiled {found[1]} of {found[2]}")
