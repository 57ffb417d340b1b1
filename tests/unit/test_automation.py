"""Jobs, schedules and sensors as the model files make them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster import EvaluateAutomationConditionsResult
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor

from quantmint.assets.graph.line import kernel_key
from quantmint.assets.graph.order import Order
from quantmint.errors import UserError
from quantmint.native.kernels import host_kernel
from quantmint.pipelines.assembly import build_definitions
from quantmint.pipelines.definitions import defs
from quantmint.pipelines.spec import load_model

GOOD = "model: {name}\nsource: {{path: checkpoint}}\nvariants: [Q8_0]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of model files that the definitions look into."""
    monkeypatch.setenv("QUANTMINT_MODELS", str(tmp_path))
    return tmp_path


def evaluate(
    found: dg.Definitions,
    instance: dg.DagsterInstance,
    cursor: AssetDaemonCursor | None = None,
) -> EvaluateAutomationConditionsResult:
    """Evaluate the conditions of the kernels, as their sensor does."""
    kernels = dg.AssetSelection.groups("kernels")
    return dg.evaluate_automation_conditions(
        found, instance, asset_selection=kernels, cursor=cursor
    )


def loaded() -> dg.Definitions:
    found = defs()
    assert isinstance(found, dg.Definitions)
    return found


def test_a_file_that_cant_be_read_is_shown_and_the_others_load(folder: Path) -> None:
    (folder / "good.yaml").write_text(GOOD.format(name="good"))
    (folder / "bad.yaml").write_text(GOOD.format(name="bad") + "gatse: {}\n")
    found = loaded()
    graph = found.resolve_asset_graph()
    assert dg.AssetKey(["good", "Q8_0"]) in graph.materializable_asset_keys
    said = graph.get(dg.AssetKey(["unreadable", "bad"])).description
    assert said is not None
    assert "bad.yaml:4: unknown key 'gatse'; did you mean 'gates'?" in said
    assert "build_good" in {job.name for job in found.jobs or []}


def test_two_names_that_dagster_can_not_tell_apart(folder: Path) -> None:
    (folder / "a-b.yaml").write_text(GOOD.format(name="a-b"))
    (folder / "a.b.yaml").write_text(GOOD.format(name="a.b"))
    graph = loaded().resolve_asset_graph()
    assert dg.AssetKey(["a-b", "Q8_0"]) in graph.materializable_asset_keys
    said = graph.get(dg.AssetKey(["unreadable", "a.b"])).description
    assert said is not None
    assert "'a.b' is the same name as 'a-b'" in said


def test_each_asset_links_to_its_model_file_and_its_code(folder: Path) -> None:
    (folder / "good.yaml").write_text(GOOD.format(name="good"))
    node = loaded().resolve_asset_graph().get(dg.AssetKey(["good", "fp16_gguf"]))
    links = node.metadata["dagster/code_references"].value.code_references
    files = [Path(link.file_path).name for link in links]
    assert files == ["good.yaml", "conversion.py"]


@pytest.mark.parametrize(
    "cron", ["0 6 * * *", "*/15 * * * *", "0,30 8-18 * * 1-5", "0 0 29 2 *", "5 4 1 */3 7"]
)
def test_cron_lines_that_fire(tmp_path: Path, cron: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD.format(name="m") + f'refresh: {{cron: "{cron}"}}\n')
    model = load_model(path)
    assert model.spec.refresh is not None
    dg.ScheduleDefinition(name="x", job_name="y", cron_schedule=model.spec.refresh.cron)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 6 * *", "is no cron line of five fields"),
        ("60 6 * * *", "'60' of '60 6 * * *' is no cron field between 0 and 59"),
        ("0 24 * * *", "is no cron field between 0 and 23"),
        ("0 6 0 * *", "is no cron field between 1 and 31"),
        ("0 18-6 * * *", "is no cron field between 0 and 23"),
        ("0 6 * * MON", "is no cron field between 0 and 7"),
        ("*/0 6 * * *", "is no cron field between 0 and 59"),
        ("0 0 30 2 *", "names a day that never comes"),
    ],
)
def test_cron_lines_that_are_refused(tmp_path: Path, cron: str, said: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD.format(name="m") + f'refresh: {{cron: "{cron}"}}\n')
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert said in caught.value.what
    assert "m.yaml:4: refresh.cron" in caught.value.what


def test_built_kernels_follow_the_compiler_and_others_stay_unbuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = kernel_key(host_kernel())
    before = build_definitions([])
    code = before.resolve_asset_graph().get(key).code_version
    assert code is not None
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"dagster/code_version": code, "dagster/data_version": "a"}
        instance.report_runless_asset_event(dg.AssetMaterialization(key, tags=tags))
        first = evaluate(before, instance)
        assert first.total_requested == 0
        again = evaluate(before, instance, first.cursor)
        assert again.total_requested == 0
        other = tmp_path / "c++"
        other.write_text("#!/bin/sh\n[ $1 = -dumpmachine ] && echo x86_64-x-linux || echo c++ 99\n")
        other.chmod(0o755)
        monkeypatch.setenv("CXX", str(other))
        after = build_definitions([])
        asked = evaluate(after, instance, again.cursor)
        assert asked.get_requested_partitions(key)
        assert asked.total_requested == 1


def test_a_person_asks_for_some_kernels_in_the_launchpad() -> None:
    names = ["x64", "haswell", "zen4"]
    assert Order(kernels=["zen4", "x64"]).kernels_of(names) == ["x64", "zen4"]
    assert Order().kernels_of(names) == names
    with pytest.raises(UserError, match="no kernel 'zen5' here; did you mean 'zen4'"):
        Order(kernels=["zen5"]).kernels_of(names)
