"""What the pages and a null build cost: `make bench-ui`.

    python benchmarks/ui.py [--parts load,graph,null,warm] [--times 5] [--work FOLDER] [--json]

- `load`: definitions of 1, 10 and 50 models, with Python's start and all imports, each time in a
  fresh process;
- `graph`: `quantmint ui` with our own models and with 50: seconds until both pages answer; in
  Chromium, seconds until the graph's groups are drawn, and the slowest and largest of the answers
  that the page itself asks for (first look, and again);
- `null`: `quantmint build` of the embedded model with nothing to do: whole command, and per asset;
- `warm`: a Dagster run of all assets of that model in which everything is cached, against no-op
  assets of the same names, steps and checks, run the same way: what ours adds for each asset.

Beside wall time stands the CPU time of the process, which a busy machine does not change as much.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from playwright.sync_api import Page, Request

from browser.pages import SIZE, browser, chromium
from helpers import ROOT, run_in, seed
from kills.service import Service
from quantmint.home import Home
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store

MODEL = "phi-3-nano"
COUNTS = (1, 10, 50)
MOST = 50
LIKE = ROOT / "pipelines" / "models" / "phi-4-mini-instruct.yaml"
# The folder of our own model files gives way to the benchmark's: one model is one model.
LOAD = """
import sys
from pathlib import Path
from quantmint.pipelines import spec
spec.model_folders = lambda: [Path(sys.argv[1])]
from quantmint.pipelines.definitions import defs
print(len(list(defs().get_repository_def().assets_defs_by_key)))
"""


def models(folder: Path, count: int) -> Path:
    """Write so many model files, each like one of ours; return their folder."""
    folder.mkdir(parents=True)
    text = LIKE.read_text()
    for at in range(count):
        name = f"{LIKE.stem}-{at:02d}"
        (folder / f"{name}.yaml").write_text(text.replace(f"model: {LIKE.stem}", f"model: {name}"))
    return folder


def timed(times: int, call: Callable[[], Any]) -> dict[str, float]:
    """Return medians of wall and CPU seconds, children's included, of so many calls."""
    walls, cpus = [], []
    for _ in range(times):
        began, spent = time.perf_counter(), _cpu()
        call()
        walls.append(time.perf_counter() - began)
        cpus.append(_cpu() - spent)
    return {"seconds": statistics.median(walls), "cpu_seconds": statistics.median(cpus)}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def load(folder: Path, times: int) -> dict[str, Any]:
    """Load the definitions of 1, 10 and 50 models in fresh processes."""
    found: dict[str, Any] = {}
    for count in COUNTS:
        argv = [sys.executable, "-c", LOAD, str(models(folder / f"load-{count}", count))]
        said: list[str] = []

        def once(argv: Sequence[str] = argv, said: list[str] = said) -> None:
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            said.append(done.stdout.strip())

        found[f"{count} models"] = {**timed(times, once), "assets": int(said[-1])}
    return found


def graph(folder: Path, times: int) -> dict[str, Any]:
    """Serve our own models alone, then 50; look at the graph in Chromium and at what it asks."""
    own = len(list(LIKE.parent.glob("*.yaml")))
    found: dict[str, Any] = {}
    for count in (own, MOST):
        extra = models(folder / f"graph-{count}", count - own)
        service = Service(Home(folder / f"home-{count}"), env={"QUANTMINT_MODELS": str(extra)})
        try:
            began = time.perf_counter()
            service.start()
            ready = time.perf_counter() - began
            service.keys("kernels")
            rows = {"ui until both pages answer": {"seconds": ready}}
            executable = chromium()
            if executable is not None:
                rows |= rendered(executable, service, times)
            service.stop()
        finally:
            service.kill()
        found |= {f"{count} models: {name}": row for name, row in rows.items()}
    return found


def rendered(executable: str, service: Service, times: int) -> dict[str, Any]:
    """Return how long the graph page takes until its groups are drawn, and its slowest answer.

    Each look is by a new tab; "again" are those after the first, with the server's caches warm.
    """
    looks = []
    with browser(executable) as chrome:
        for _ in range(1 + times):
            context = chrome.new_context(viewport=SIZE)
            looks.append(_look(context.new_page(), f"{service.dagster}/asset-groups"))
            context.close()
    again = {name: statistics.median(look[name] for look in looks[1:]) for name in looks[0]}
    return {"graph page, first look": looks[0], "graph page, again": again}


def _look(page: Page, url: str) -> dict[str, float]:
    asked: list[Request] = []

    def note(request: Request) -> None:  # Playwright takes no method of a list
        asked.append(request)

    page.on("requestfinished", note)
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.get_by_text("models", exact=True).last.wait_for()
    page.get_by_text("kernels", exact=True).last.wait_for()
    drawn = time.perf_counter() - began
    page.wait_for_timeout(3000)  # it asks for states again and again, and is never idle
    answers = [request for request in asked if "/graphql" in request.url]
    return {
        "drawn_seconds": drawn,
        "slowest_answer_seconds": max(r.timing["responseEnd"] for r in answers) / 1000,
        "largest_answer_mb": max(r.sizes()["responseBodySize"] for r in answers) / 1e6,
    }


def null(home: Home, times: int) -> dict[str, Any]:
    """Build a model with nothing to do."""

    def once() -> None:
        ran = run_in(home, "build", MODEL, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["made"] == {}, ran.out

    once()
    row = timed(times, once)
    row |= {"assets": len(_keys()), "seconds per asset": row["seconds"] / len(_keys())}
    return {"quantmint build, nothing to do": row}


def warm(home: Home, times: int) -> dict[str, Any]:
    """Run all assets though all are cached; then no-ops of the same shape."""
    from quantmint.pipelines.instance import open_instance
    from quantmint.pipelines.running import run_assets

    os.environ["QUANTMINT_HOME"] = str(home.root)
    rows: dict[str, Any] = {}
    keys = _keys()
    beside = Home(home.root.parent / "no-op-home")  # no-ops would take the place of real history
    for name, at, defs in (
        ("ours, all cached", home, _defs()),
        ("no-op assets", beside, _no_ops()),
    ):
        with open_instance(at) as instance:

            def once(defs: dg.Definitions = defs, to: dg.DagsterInstance = instance) -> None:
                run_assets(defs, to, keys)

            once()
            rows[name] = timed(times, once)
            rows[name]["seconds per asset"] = rows[name]["seconds"] / len(keys)
    ours, theirs = (rows[name] for name in rows)
    more = {f: (ours[f] - theirs[f]) / len(keys) for f in ("seconds", "cpu_seconds")}
    return {**rows, "ours beyond Dagster's, per asset (bound 0.2 s)": more}


def _defs() -> dg.Definitions:
    from quantmint.pipelines.assembly import build_definitions
    from quantmint.pipelines.spec import find_model

    return build_definitions([find_model(MODEL)])


def _keys() -> list[dg.AssetKey]:
    from quantmint.pipelines.assembly import line_of
    from quantmint.pipelines.build import wanted_keys
    from quantmint.pipelines.spec import find_model

    return sorted(wanted_keys(line_of(find_model(MODEL)), ()))


def _no_ops() -> dg.Definitions:
    """Return assets of the same names, steps and checks that do nothing."""

    def like(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        specs = [
            dg.AssetSpec(s.key, deps=s.deps, skippable=s.skippable, code_version=s.code_version)
            for s in asset.specs
        ]

        @dg.multi_asset(
            name=asset.op.name, specs=specs, check_specs=list(asset.check_specs), can_subset=True
        )
        def nothing(context) -> Iterator[dg.MaterializeResult]:  # noqa: ANN001
            for key in (s.key for s in specs if s.key in context.selected_asset_keys):
                checks = [
                    dg.AssetCheckResult(asset_key=key, check_name=c.name, passed=True)
                    for c in asset.check_specs if c.asset_key == key
                ]  # fmt: skip
                yield dg.MaterializeResult(asset_key=key, check_results=checks)

        return nothing

    return dg.Definitions(
        assets=[like(a) if isinstance(a, dg.AssetsDefinition) else a for a in _defs().assets]
    )


def built_home(folder: Path) -> Home:
    """Return a home in which the model is built, with the kernel of the machine's test home."""
    home = Home(folder / "home")
    built = Home(Path(os.environ.get("QUANTMINT_TEST_HOME", ROOT / ".quantmint" / "tests")))
    if not home.root.exists():
        build_kernel(built, Store(built.store).open(), host_kernel(), print)
        release_all()
        seed(home, built)
    ran = run_in(home, "build", MODEL)
    assert ran.code == 0, ran.err
    return home


def show(name: str, rows: dict[str, Any]) -> None:
    """Print one part's rows."""
    print(f"\n{name}")
    for row, values in rows.items():
        said = "  ".join(
            f"{key} {value}" if isinstance(value, int) else f"{key} {value:.3f}"
            for key, value in values.items()
        )
        print(f"  {row:48s} {said}")


def main() -> None:
    """Measure the parts asked for, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks/ui.py", description=__doc__)
    parser.add_argument("--parts", default="load,graph,null,warm")
    parser.add_argument("--work", type=Path, help="build the model's home here, and keep it")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    parts = words.parts.split(",")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-ui-") as named:
        folder = Path(named)
        home = built_home(words.work or folder) if {"null", "warm"} & set(parts) else None
        for part in parts:
            if part in {"load", "graph"}:
                found[part] = {"load": load, "graph": graph}[part](folder, words.times)
            else:
                assert home is not None
                found[part] = {"null": null, "warm": warm}[part](home, words.times)
            if not words.json:
                show(part, found[part])
    if words.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
