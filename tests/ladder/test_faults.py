"""Kills, full disks and damaged weights: what is visible is whole and right, or it is not there."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder.models import Shape, gaussian, write_model
from ladder.programs import Programs, assert_same, files_of, find_programs

MODEL = Shape(layers=4, width=512, inner=512, heads=8, kv_heads=8, vocabulary=1000)
VARIANTS = ["Q2_K", "Q4_K_M", "Q6_K", "Q4_0", "Q8_0", "F16"]
SMALL = Shape(layers=2, inner=256, vocabulary=64)


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Programs:
    return find_programs(request)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "a.gguf", MODEL)


@pytest.fixture(scope="module")
def whole(programs: Programs, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    run(programs.command(model, out, VARIANTS))
    return out


def run(command: list[str], **options: Any) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def made(events: list[dict[str, Any]]) -> dict[str, bool]:
    """Return for each file whether it was taken over from an earlier run."""
    return {e["file"]["name"]: e["reused"] for e in events if e["event"] == "file"}


def kill_after(command: list[str], seconds: float) -> bool:
    """Kill a run after `seconds`; return whether it was still running."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_again_and_again(
    programs: Programs, model: Path, whole: Path, tmp_path: Path, seed: int
) -> None:
    out = tmp_path / "out"
    command = programs.command(model, out, VARIANTS)
    start = time.monotonic()
    run(programs.command(model, tmp_path / "timed", VARIANTS))
    full = time.monotonic() - start
    rng = random.Random(seed)
    for _ in range(4):
        if not kill_after(command, rng.uniform(0, full)):
            break
        for name, data in files_of(out).items():
            if name.endswith(".gguf"):
                assert data == (whole / name).read_bytes()
    events = run(command)
    assert_same(out, whole)
    assert len(made(events)) == len(VARIANTS)


def test_a_killed_pass_goes_on_where_it_was(
    programs: Programs, model: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = programs.command(model, out, VARIANTS, threads=1)
    journal = out / ".quantmint-ladder" / "journal"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (journal.exists() and journal.read_text().count("tensor") > 20):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not list(out.glob("*.gguf"))
    # Damage one of the finished tensors on disk, as a power failure would: it must be made again.
    staged = out / "a-Q8_0.gguf.quantmint-part"
    with staged.open("r+b") as file:
        file.seek(200_000)
        file.write(bytes(1000))
    end = run(command)[-1]
    assert_same(out, whole)
    assert end["weights_kept"] > 0
    assert end["weights_quantized"] > 0


def test_finished_files_are_recognised_by_their_digests(
    programs: Programs, model: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = programs.command(model, out, VARIANTS)
    run(command)
    assert all(made(run(command)).values())
    damaged = out / "a-Q6_K.gguf"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    times = damaged.stat()
    damaged.write_bytes(data)
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    (out / "a-Q4_0.gguf").unlink()
    again = made(run(command))
    assert {name for name, reused in again.items() if not reused} == {"a-Q6_K.gguf", "a-Q4_0.gguf"}
    assert_same(out, whole)


def test_another_input_under_the_same_name_is_another_input(
    programs: Programs, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL, seed=1)
    command = programs.command(source, tmp_path / "out", ["Q4_0"])
    run(command)
    before = files_of(tmp_path / "out")
    write_model(source, SMALL, seed=2)
    assert not any(made(run(command)).values())
    assert files_of(tmp_path / "out") != before


def test_what_killed_runs_left_is_swept(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    out = tmp_path / "out"
    (out / ".quantmint-ladder" / "scratch").mkdir(parents=True)
    (out / ".quantmint-ladder" / "scratch" / "skeleton.gguf").write_bytes(b"old")
    (out / "other-Q4_0.gguf.quantmint-part").write_bytes(b"half")
    (out / "notes.txt").write_text("mine")
    run(programs.command(source, out, ["Q4_0"]))
    assert sorted(files_of(out)) == ["a-Q4_0.gguf", "notes.txt"]
    assert not (out / ".quantmint-ladder" / "scratch").exists()


def test_one_ladder_at_a_time_in_a_folder(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    out = tmp_path / "out"
    (out / ".quantmint-ladder").mkdir(parents=True)
    with (out / ".quantmint-ladder" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = programs.command(source, out, ["Q4_0"])
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "another ladder is writing" in refused.stderr
    assert not list(out.glob("*.gguf"))


def test_no_room_leaves_nothing(programs: Programs, model: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk; the engine treats both errors alike."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    out = tmp_path / "out"
    done = subprocess.run(
        programs.command(model, out, VARIANTS),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 2
    assert "cannot reserve" in done.stderr
    assert files_of(out) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_full_disk_leaves_nothing(programs: Programs, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets not even root mount")
    try:
        command = programs.command(model, out, VARIANTS)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "No space left on device" in done.stderr
        assert files_of(out) == {}
    finally:
        subprocess.run(["umount", str(out)], check=True)


HOSTILE = [
    pytest.param("f16", np.nan, id="NaN"),
    pytest.param("f32", np.inf, id="infinity"),
    pytest.param("bf16", -np.inf, id="negative infinity"),
    pytest.param("f32", 1e38, id="too large for most types"),
    pytest.param("bf16", 1e7, id="too large for some types"),
    pytest.param("f16", 65504.0, id="largest half"),
    pytest.param("f32", 1e-41, id="denormal"),
    pytest.param("f32", -0.0, id="negative zero"),
]


@pytest.mark.parametrize(("kind", "value"), HOSTILE)
def test_hostile_weights_get_llama_quantizes_verdict(
    programs: Programs, tmp_path: Path, kind: str, value: float
) -> None:
    weights = gaussian(np.random.default_rng(5), 256, 256)
    weights[3, 7] = value
    weights[200:202] = 0
    replace = {"blk.1.attn_q.weight": weights}
    source = write_model(tmp_path / "a.gguf", SMALL, kind=kind, replace=replace)
    variants = ["Q2_K", "Q4_K_M", "Q6_K", "Q4_0", "Q8_0", "F16", "BF16"]
    for variant in variants:
        if programs.reference(source, tmp_path / "theirs", variant).returncode != 0:
            (tmp_path / "theirs" / f"a-{variant}.gguf").unlink(missing_ok=True)
    command = programs.command(source, tmp_path / "ours", variants)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_same(tmp_path / "ours", tmp_path / "theirs")
    assert (done.returncode == 0) == (len(files_of(tmp_path / "ours")) == len(variants))
    assert done.returncode in {0, 3}


def test_truncated_input(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    os.truncate(source, source.stat().st_size - 100_000)
    command = programs.command(source, tmp_path / "out", ["Q4_0"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {2, 3}
    assert files_of(tmp_path / "out") == {}
