"""One kill: what, when, what was left, what became of the run, and what is wrong then."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers import ROOT, run_in, seed
from quantmint.assets.kernel_assay import assay_kernel
from quantmint.assets.mint import Mint
from quantmint.home import Home
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel, reference_kernel
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store

from .service import Run, Service
from .tree import Process, kill, left, processes

MODEL = "kill-me"
GROUP = "models/kill_me"
VARIANTS = ("Q8_0", "Q4_K_M")
MODEL_FILE = f"""model: {MODEL}
title: Kill-me
source: {{path: kill-source}}
family: phi3
parameters: 4000000
variants: [{", ".join(VARIANTS)}]
assay: {{contexts: [256], chunks: 8, prompt: Say something}}
release:
  path: ../registry
  publisher: my-org
  license: mit
  base_model: my-org/Kill-me
"""
WHOLE = "everything"
# What goes down with what: all that one kill must bring to an end, besides what was killed.
WITH = {
    "step": ("tool",),
    "run worker": ("step", "fork server", "tool"),
    "code server": (),
    "daemon": ("dagster dev", "webserver", "outer code server", "code server", "run worker",
               "step", "fork server", "tool"),
}  # fmt: skip
WITH["webserver"] = WITH["dagster dev"] = (*WITH["daemon"], "daemon", "webserver")
# Within so many seconds nothing of it is left, on a busy machine too: servers get a grace of eight.
SECONDS = 20.0


@dataclass(frozen=True)
class Point:
    """What is killed, and during which part of the run."""

    role: str
    phase: str

    def __str__(self) -> str:
        return f"{self.role} during {self.phase}"


@dataclass
class Outcome:
    """What was seen after one kill."""

    point: Point
    ended_within: float = 0.0
    became: str = ""
    seconds: float = 0.0
    releases: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A home, a model file with a source of its own, a folder registry: all made new."""

    root: Path

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def env(self) -> Mapping[str, str]:
        return {"QUANTMINT_MODELS": str(self.root / "models")}

    def make(self, built_home: Home) -> Place:
        """Make it; the built kernel is in its store."""
        shutil.rmtree(self.root, ignore_errors=True)
        seed(self.home, built_home)
        source = self.root / "models" / "kill-source"
        shutil.copytree(ROOT / "assets" / "embedded" / "phi-3-nano", source)
        (self.root / "models" / f"{MODEL}.yaml").write_text(MODEL_FILE)
        made = run_in(self.home, "keys", "new", **self.env)
        assert made.code == 0, made.err
        return self

    def service(self) -> Service:
        return Service(self.home, self.env)


def prepare(home: Home, built: Home) -> Home:
    """Seed a home for the points, with what a release asks of the kernel itself: minutes, once."""
    seed(home, built)
    store = Store(home.store).open()
    mint = Mint(home, store, len(os.sched_getaffinity(0)), print)
    bundle, plain = (
        build_kernel(home, store, kernel, print) for kernel in (host_kernel(), reference_kernel())
    )
    layers = bundle.kernel.force.gpu_layers
    assay_kernel(mint, bundle, plain, gpu_layers=layers, timed=False)
    release_all()
    return home


def phases(place: Place, service: Service, run_id: str) -> Mapping[str, Callable[[], bool]]:
    """Return what tells that a part of the run has begun."""

    def started(step: str) -> bool:
        steps = service.run(run_id).steps
        return any(name.endswith(step) and status != "SKIPPED" for name, status in steps.items())

    def waits(step: str, seconds: float) -> Callable[[], bool]:
        def begun() -> bool:
            if not started(step):
                return False
            time.sleep(seconds)
            return True

        return begun

    ladder, staging = place.home.work / "ladder", place.registry / "staging"
    return {
        "conversion": waits("fp16_gguf", 3.0),
        "ladder": lambda: any(path.is_dir() for path in _inside(ladder)),
        "assay": waits("__assay", 2.0),
        "release": lambda: any(_inside(staging)),
    }


PHASES = ("conversion", "ladder", "assay", "release")
ROLES = (
    "step", "run worker", "code server", "daemon", "webserver", "dagster dev", "supervisor", WHOLE,
)  # fmt: skip


def _inside(folder: Path) -> Sequence[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def everything(service: Service) -> list[list[str]]:
    """Return the keys of the whole model, its release and its kernel."""
    return [["kernels", host_kernel().name], *service.keys(GROUP)]


def try_point(point: Point, place: Place, reference: Mapping[str, str]) -> Outcome:
    """Kill there, and see how it goes on."""
    outcome = Outcome(point)
    service = place.service().start()
    try:
        run_id = service.launch(everything(service))
        begun = phases(place, service, run_id)[point.phase]
        wait_until(begun, f"{point.phase} never began")
        _kill(point, place, service, outcome)
        since = time.monotonic()
        if point.role in {"supervisor", WHOLE}:
            service.start()
        outcome.became = settle(service, run_id, outcome.wrong)
        outcome.seconds = time.monotonic() - since
        _check_slots(service, outcome)
        code = service.stop()
        if code:
            outcome.wrong.append(f"stopped with exit code {code}")
        still = left(processes(place.home), 3.0)
        outcome.wrong += [f"left running: {process.line[:90]}" for process in still]
    finally:
        service.kill()
    check_results(place, reference, outcome)
    return outcome


def _kill(point: Point, place: Place, service: Service, outcome: Outcome) -> None:
    """Kill, and wait until all that should end with it is gone."""
    there = processes(place.home)
    targets = there if point.role == WHOLE else [p for p in there if p.role == point.role]
    if not targets:
        outcome.wrong.append(f"there was no {point.role} to kill")
        return
    also = [p for p in there if p.role in WITH.get(point.role, ())]
    doomed = there if point.role in {"supervisor", WHOLE} else [*targets, *also]
    at = time.monotonic()
    kill(targets)
    if point.role in {"supervisor", WHOLE}:
        assert service.process is not None
        service.process.wait()
    remained = left(doomed, SECONDS)
    outcome.ended_within = time.monotonic() - at
    outcome.wrong += [f"outlived it: {_named(process)}" for process in remained]


def _named(process: Process) -> str:
    return f"{process.role} ({process.line[:80]})"


def wait_until(true: Callable[[], bool], else_said: str, seconds: float = 600) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, else_said
        time.sleep(0.03)


def settle(service: Service, run_id: str, wrong: list[str]) -> str:
    """Bring the run to an end: by itself, by the service's own retry, or by a further run."""
    mine, seen_twice = _watch(service, run_id)
    if seen_twice:
        wrong.append("two runs were executed at the same time")
    if mine[-1].status == "SUCCESS":
        return "went on" if len(mine) == 1 else "failed, tried again by itself"
    further = service.launch(everything(service))
    (*_, last), _ = _watch(service, further)
    if last.status != "SUCCESS":
        wrong.append(f"a further run ended as {last.status}")
    return "failed; a further run"


def _watch(service: Service, run_id: str, seconds: float = 900) -> tuple[list[Run], bool]:
    """Return the run and those that the service made of it, once all have ended."""
    deadline, twice = time.monotonic() + seconds, False
    while True:
        runs = {run.id: run for run in service.runs()}
        chain = [runs[run_id]]
        while (child := _child(chain[-1], runs)) is not None:
            chain.append(child)
        twice |= sum(run.status == "STARTED" for run in runs.values()) > 1
        if chain[-1].is_settled:
            return chain, twice
        assert time.monotonic() < deadline, f"stuck: {chain}\n{service.output}"
        time.sleep(0.3)


def _child(run: Run, runs: Mapping[str, Run]) -> Run | None:
    return next((other for other in runs.values() if other.parent == run.id), None)


def _check_slots(service: Service, outcome: Outcome) -> None:
    deadline = time.monotonic() + 40
    while claimed := service.claimed():
        if time.monotonic() > deadline:
            outcome.wrong.append(f"slots are claimed in {claimed}")
            return
        time.sleep(0.5)


def check_results(place: Place, reference: Mapping[str, str], outcome: Outcome) -> None:
    """Compare bytes and releases with those of a run that nothing disturbed."""
    outcome.releases = len(_inside(place.registry / "releases"))
    if outcome.releases != 1:
        outcome.wrong.append(f"{outcome.releases} releases")
    if _inside(place.registry / "staging"):
        outcome.wrong.append("something is left in the registry's staging")
    verified = run_in(place.home, "verify", **place.env)
    if ", 0 faults" not in verified.out:
        outcome.wrong.append(f"verify: {verified.out[-200:]} {verified.err[-200:]}")
    if list((place.home.store / "staging").iterdir()):
        outcome.wrong.append("something is left in the store's staging")
    try:
        digests = digests_of(place)
    except Exception as error:  # noqa: BLE001 - a fault of the point, not of the sweep
        outcome.wrong.append(f"an asset without bytes: {error}")
        return
    if reference and digests != reference:
        outcome.wrong.append(f"other bytes: {digests}")


def digests_of(place: Place) -> dict[str, str]:
    """Return the digest of each green GGUF asset, after looking its bytes up in the store.

    Raises:
        QuantmintError: an asset's bytes are not there.
    """
    from quantmint.assets.graph.line import last_metadata
    from quantmint.pipelines.instance import open_instance

    store = Store(place.home.store).open()
    try:
        with open_instance(place.home) as instance:
            made = {key: last_metadata(instance, key) or {} for key in instance.get_asset_keys()}
        blobs = {k: store.find(str(m["sha256"])) for k, m in made.items() if "sha256" in m}
    finally:
        release_all()
    files = {*VARIANTS, "fp16_gguf"}
    return {k.path[-1]: blob.sha256 for k, blob in blobs.items() if k.path[-1] in files}


def reference_of(place: Place) -> dict[str, str]:
    """Run everything once, undisturbed; return the digests."""
    outcome = Outcome(Point("nothing", "all of it"))
    service = place.service().start()
    try:
        outcome.became = settle(service, service.launch(everything(service)), outcome.wrong)
        _check_slots(service, outcome)
        service.stop()
    finally:
        service.kill()
    check_results(place, {}, outcome)
    assert outcome.became == "went on", outcome
    assert not outcome.wrong, outcome
    return digests_of(place)
