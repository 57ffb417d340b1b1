"""Scheduled refreshes: one run for one change, none beside another, patience with the Hub."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from changing import Changing
from quantmint.assets.graph.line import MODEL_TAG, last_metadata
from quantmint.assets.graph.order import ORDER, Order
from quantmint.native.kernels import host_kernel
from quantmint.pipelines.assembly import build_definitions
from quantmint.pipelines.automation import automation
from quantmint.pipelines.busy import building
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.refresh import CHANGE_TAG, pending, take_turn
from quantmint.pipelines.spec import Model, load_model
from quantmint.registry.store import Store

pytestmark = pytest.mark.e2e


@pytest.fixture
def here(changing: Changing, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changing]:
    """The model, built as it is now, and this process in its home and at its Hub."""
    changing.build()
    for name, value in changing.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANTMINT_HOME", str(changing.home.root))
    yield changing


@pytest.fixture
def instance(here: Changing) -> Iterator[dg.DagsterInstance]:
    with open_instance(here.home) as opened:
        yield opened


@pytest.fixture
def model(here: Changing) -> Model:
    return load_model(here.file)


def turn(instance: dg.DagsterInstance, here: Changing, model: Model, now: float = 0.0) -> str:
    """Return what a turn skips for, or the leaves that it asks to be made."""
    answer = take_turn(instance, here.home, model, now=now)
    if isinstance(answer, dg.SkipReason):
        return str(answer.skip_message)
    return " ".join(sorted(key.path[-1] for key in answer.asset_selection or ()))


def start(instance: dg.DagsterInstance, model: Model, status: dg.DagsterRunStatus) -> str:
    """Record a run as the daemon would start it for the present change."""
    from quantmint.home import find_home

    answer = take_turn(instance, find_home(), model, now=0.0)
    assert isinstance(answer, dg.RunRequest)
    job = build_definitions([model]).resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(
        job, tags=dict(answer.tags), status=status,
        asset_selection=frozenset(answer.asset_selection or ()),
    )  # fmt: skip
    return run.run_id


def test_no_change_and_a_cosmetic_one_start_nothing(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    assert turn(instance, here, model) == "nothing changed: every asset of mini is up to date"
    (here.checkpoint / "README.md").write_text("Another word.")
    here.commit()
    said = turn(instance, here, model)
    assert said == "nothing that counts changed: every asset of mini is up to date"


def test_one_change_starts_one_run(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    (here.checkpoint / "added_tokens.json").write_text('{"<|placeholder1|>": 32001}')
    here.commit()
    asked = take_turn(instance, here.home, model, now=0.0)
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags[MODEL_TAG] == "mini"
    again = take_turn(instance, here.home, model, now=60.0)
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == asked.run_key
    leaves = {key.path[-1] for key in asked.asset_selection or ()}
    assert {"source_weights", "fp16_gguf", "Q8_0", "report"} <= leaves
    assert not any(key.path[0] == "kernels" for key in asked.asset_selection or ())
    (here.checkpoint / "README.md").write_text("A commit that changes no file that counts.")
    here.commit()
    run = start(instance, model, dg.DagsterRunStatus.STARTED)
    assert turn(instance, here, model) == f"run {run[:8]} of mini is not finished"
    found = instance.get_run_by_id(run)
    assert found is not None
    instance.report_run_failed(found, "as a test wants it")
    said = turn(instance, here, model)
    assert instance.get_runs()[0].tags[CHANGE_TAG] == asked.tags[CHANGE_TAG]
    assert f"run {run[:8]} was started for this change and is FAILURE" in said
    assert "upstream changed: added_tokens.json" in said
    assert "quantmint build mini" in said
    (here.checkpoint / "added_tokens.json").write_text('{"<|placeholder2|>": 32002}')
    here.commit()
    assert "fp16_gguf" in turn(instance, here, model)  # another change is another run
    assert instance.get_runs_count(dg.RunsFilter(tags={CHANGE_TAG: asked.tags[CHANGE_TAG]})) == 1


def test_two_that_ask_at_once_start_one_run(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    (here.checkpoint / "added_tokens.json").write_text('{"<|placeholder7|>": 32007}')
    here.commit()
    first = take_turn(instance, here.home, model, now=5000.0)
    assert isinstance(first, dg.RunRequest)
    second = take_turn(instance, here.home, model, now=5003.0, by="retry_looks")
    assert isinstance(second, dg.SkipReason)
    assert second.skip_message == "schedule has asked for a run of mini this minute"
    # Nothing came of it: it is asked for again.
    later = take_turn(instance, here.home, model, now=5130.0, by="retry_looks")
    assert isinstance(later, dg.RunRequest)
    assert later.run_key == first.run_key


def test_the_schedule_and_the_sensor_ask_for_that_run(
    here: Changing, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bodies as the daemon evaluates them: nothing new, a change, a Hub that is down."""
    found = scheduled(here)
    schedule, sensor = (
        found.resolve_schedule_def("refresh_mini"),
        found.resolve_sensor_def("retry_looks"),
    )
    context = dg.build_schedule_context(instance=instance)

    def tick() -> tuple[list[dg.RunRequest], str]:
        ticked = schedule.evaluate_tick(context)
        return list(ticked.run_requests or ()), ticked.skip_message or ""

    assert tick() == ([], "nothing changed: every asset of mini is up to date")
    (here.checkpoint / "added_tokens.json").write_text('{"<|placeholder8|>": 32008}')
    here.commit()
    (request,), _ = tick()
    assert request.tags[MODEL_TAG] == "mini"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "look 1 failed, the next is due at" in tick()[1]
    monkeypatch.setenv("HF_ENDPOINT", here.env["HF_ENDPOINT"])
    asked = dg.build_sensor_context(instance=instance)  # whose schedule is off
    assert "no look is due" in str(sensor.evaluate_tick(asked).skip_message)


def test_a_build_at_the_keyboard_is_no_time_for_another(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    (here.checkpoint / "added_tokens.json").write_text('{"<|placeholder3|>": 32003}')
    here.commit()
    with building(here.home, "mini"), building(here.home, "mini"):
        assert turn(instance, here, model) == "a command builds mini"
    assert "fp16_gguf" in turn(instance, here, model)
    assert {run.tags.get(MODEL_TAG) for run in instance.get_runs()} == {"mini"}


def test_a_state_that_comes_back_and_lost_bytes_start_a_run_too(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    added = here.checkpoint / "added_tokens.json"
    first = added.read_bytes() if added.exists() else None
    added.write_text('{"<|placeholder4|>": 32004}')
    here.commit()
    start(instance, model, dg.DagsterRunStatus.SUCCESS)
    # Nothing came of it: it is not asked for a second time.
    assert "was started for this change and is SUCCESS" in turn(instance, here, model)
    assert here.run("build", here.file, "--refresh").code == 0
    assert "up to date" in turn(instance, here, model)
    added.unlink() if first is None else added.write_bytes(first)
    here.commit()
    start(instance, model, dg.DagsterRunStatus.SUCCESS)
    assert here.run("build", here.file, "--refresh").code == 0
    added.write_text('{"<|placeholder4|>": 32004}')
    here.commit()
    assert "source_weights" in turn(instance, here, model)
    start(instance, model, dg.DagsterRunStatus.SUCCESS)
    assert here.run("build", here.file, "--refresh").code == 0
    store = Store(here.home.store)
    made = last_metadata(instance, dg.AssetKey(["mini", "Q8_0"]))
    assert made is not None
    path = store.path(str(made["sha256"]))
    path.parent.chmod(0o755)
    path.unlink()
    assert turn(instance, here, model) == "Q8_0"


def test_an_edited_model_file_waits_for_the_definitions(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    before = here.file.read_text()
    here.file.write_text(before.replace("chunks: 4", "chunks: 5"))
    assert "mini.yaml was edited: reload the definitions first" in turn(instance, here, model)
    here.file.write_text(before)
    assert "up to date" in turn(instance, here, model)


def test_a_hub_that_is_down_is_asked_ever_more_seldom(
    here: Changing,
    instance: dg.DagsterInstance,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "look 1 failed, the next is due at 00:01:00 UTC" in turn(instance, here, model)
    assert "look 2 failed, the next is due at 00:02:00 UTC" in turn(instance, here, model)
    assert "look 3 failed, the next is due at 00:04:00 UTC" in turn(instance, here, model)
    for _ in range(6):
        turn(instance, here, model)
    failed = pending(here.home, model)
    assert failed is not None
    assert (failed.times, failed.due) == (9, 3600.0)
    monkeypatch.setenv("HF_ENDPOINT", here.hub.url)
    assert "up to date" in turn(instance, here, model)
    assert pending(here.home, model) is None


def scheduled(here: Changing) -> dg.Definitions:
    """Return the definitions of the same model with a schedule."""
    other = here.folder / "scheduled.yaml"
    other.write_text(here.file.read_text() + 'refresh: {cron: "0 6 * * *"}\n')
    model = load_model(other)
    return dg.Definitions.merge(build_definitions([model]), automation([model]))


def test_every_schedule_is_off_and_every_job_is_one_models(here: Changing) -> None:
    found = scheduled(here)
    schedule = found.resolve_schedule_def("refresh_mini")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "UTC")
    kernels = found.resolve_sensor_def("refresh_kernels")
    assert kernels.default_status is dg.DefaultSensorStatus.STOPPED
    made = found.resolve_job_def("build_mini").asset_layer.executable_asset_keys
    assert {key.path[0] for key in made} <= {"mini", "kernels"}


def test_a_check_alone_is_made_again(
    here: Changing, instance: dg.DagsterInstance, model: Model
) -> None:
    assert here.home.store.is_dir()
    found = build_definitions([model])
    assets = [a for a in found.assets or [] if isinstance(a, dg.AssetsDefinition | dg.AssetSpec)]
    on_kernel = f"Q8_0_on_{host_kernel().name}"
    wanted = {("Q4_K_M", "header"), (on_kernel, "divergence"), (on_kernel, "chat")}
    keys = [dg.AssetCheckKey(dg.AssetKey(["mini", leaf]), check) for leaf, check in wanted]
    done = dg.materialize(
        assets, selection=dg.AssetSelection.checks(*keys), instance=instance,
        resources={ORDER: Order()},
    )  # fmt: skip
    made = {(e.asset_key.path[-1], e.check_name) for e in done.get_asset_check_evaluations()}
    assert made == wanted
    assert not done.get_asset_materialization_events()
