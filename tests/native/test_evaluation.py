"""The evaluation engine against llama.cpp's own programs, on real files and processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quantmint.assets.sources.local import embedded_folder
from quantmint.errors import BuildError, IntegrityError, UserError
from quantmint.native.build import Bundle
from quantmint.native.evaluation.agreement import compare_logits
from quantmint.native.evaluation.by_tool import compare_log_probabilities, write_log_probabilities
from quantmint.native.evaluation.child.divergence import base_path
from quantmint.native.evaluation.child.logprobs import open_base
from quantmint.native.evaluation.engine import Evaluation, evaluate
from quantmint.native.evaluation.facts import predict_memory
from quantmint.native.evaluation.jobs import (
    Basing,
    Jobs,
    Probe,
    Reading,
    Setup,
    Talk,
    Weighing,
)
from quantmint.native.evaluation.results import Divergence
from quantmint.native.evaluation.speed import Race, measure_speed
from quantmint.native.evaluation.statistics import compare_choices
from quantmint.native.evaluation.tasks import load_task
from quantmint.native.tools import PATIENT
from quantmint.registry import gguf

pytestmark = pytest.mark.native
TEXT = embedded_folder("texts") / "assay.txt"
# Contexts below, at and above LongRoPE's switch (512); 3000 is read in two batches and is no
# multiple of 256; the chunks do not fill the last batch.
READINGS = (Reading(256, 9), Reading(512, 5), Reading(3000, 2))
SETUP = Setup(threads=2)


@pytest.fixture(scope="module")
def bases(bundle: Bundle, nano: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP16's log-probabilities at all readings."""
    folder = tmp_path_factory.mktemp("bases")
    basing = Basing(text=TEXT, readings=READINGS, folder=folder)
    found = ask(bundle, nano["FP16"], folder, basing=basing)
    assert [(b.context, b.chunks, b.rope) for b in found.base] == [
        (256, 9, "short"),
        (512, 5, "short"),
        (3000, 2, "long"),
    ]
    return folder


@pytest.fixture(scope="module")
def divergences(
    bundle: Bundle, nano: dict[str, Path], bases: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Divergence, ...]]:
    """How far each file is from FP16, at every reading."""
    folder = tmp_path_factory.mktemp("divergences")
    return {
        name: ask(bundle, nano[name], folder, divergence=bases).divergences
        for name in ("FP16", "Q8_0", "Q4_K_M", "Q2_K")
    }


def ask(bundle: Bundle, model: Path, folder: Path, **jobs: object) -> Evaluation:
    return evaluate(bundle, model, Jobs(**jobs), setup=SETUP, log=folder / "child.log")


def by_hand(bundle: Bundle, model: Path, reading: Reading, *more: str | Path) -> str:
    argv = [
        *bundle.command("llama-perplexity"), "-m", model, "-f", TEXT, "-c", str(reading.context),
        "--chunks", str(reading.chunks), "-t", "2", *more,
    ]  # fmt: skip
    for _ in range(30):  # the tool may end before its log is written
        done = subprocess.run(
            argv, env={**os.environ, **PATIENT}, capture_output=True, text=True, check=True
        )
        text = done.stdout + done.stderr
        whole = all(f"{what}:" in text for what in ("Mean    KLD", "RMS Δp    ", "Same top p"))
        if whole or "--kl-divergence" not in more:
            break
    return text


def printed(text: str, what: str) -> tuple[float, ...]:
    found = re.search(re.escape(what) + r"\s*:\s*(-?[\d.]+)(?:\s*±\s*([\d.]+))?", text)
    assert found is not None, text
    return tuple(float(group) for group in found.groups() if group is not None)


def test_the_numbers_are_llama_perplexitys(
    bundle: Bundle,
    nano: dict[str, Path],
    divergences: dict[str, tuple[Divergence, ...]],
    tmp_path: Path,
) -> None:
    found = divergences["Q4_K_M"]
    assert [(d.context, d.chunks) for d in found] == [(r.context, r.chunks) for r in READINGS]
    for value, reading in zip(found, READINGS, strict=True):
        path = tmp_path / "by-hand"
        path.unlink(missing_ok=True)
        by_hand(bundle, nano["FP16"], reading, "--kl-divergence-base", path)
        words = ("--kl-divergence", "--kl-divergence-base", path)
        text = by_hand(bundle, nano["Q4_K_M"], reading, *words)
        for what, ours in (
            ("Mean PPL(Q)", (value.ppl, value.ppl_error)),
            ("Mean PPL(base)", (value.base_ppl, value.base_ppl_error)),
            ("Mean PPL(Q)/PPL(base)", (value.ppl_ratio, value.ppl_ratio_error)),
            ("Mean    KLD", (value.kld_mean, value.kld_error)),
            ("Median  KLD", (value.kld_median,)),
            ("99.0%   KLD", (value.kld_p99,)),
            ("99.9%   KLD", (value.kld_p999,)),
            ("Maximum KLD", (value.kld_max,)),
        ):
            # Sums of float32 in another order: the sixth decimal may turn.
            assert ours == pytest.approx(printed(text, what), rel=1e-6, abs=5e-6), what
        assert (100 * value.top1, 100 * value.top1_error) == pytest.approx(
            printed(text, "Same top p"), abs=6e-4
        )
        assert (100 * value.rms_dp, 100 * value.rms_dp_error) == pytest.approx(
            printed(text, "RMS Δp   "), abs=6e-4
        )


def test_a_vocabulary_that_wants_bos_gets_it_where_llama_perplexity_puts_it(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    files = {}
    key = b"tokenizer.ggml.add_bos_token" + (7).to_bytes(4, "little")
    for name in ("FP16", "Q4_K_M"):
        data = nano[name].read_bytes()
        assert data.count(key + b"\0") == 1
        files[name] = tmp_path / f"{name}.gguf"
        files[name].write_bytes(data.replace(key + b"\0", key + b"\1"))
    reading = Reading(256, 3)
    basing = Basing(text=TEXT, readings=(reading,), folder=tmp_path / "bases")
    ask(bundle, files["FP16"], tmp_path, basing=basing)
    found = ask(bundle, files["Q4_K_M"], tmp_path, divergence=basing.folder).divergences[0]
    path = tmp_path / "by-hand"
    by_hand(bundle, files["FP16"], reading, "--kl-divergence-base", path)
    words = ("--kl-divergence", "--kl-divergence-base", path)
    text = by_hand(bundle, files["Q4_K_M"], reading, *words)
    assert found.ppl == pytest.approx(printed(text, "Mean PPL(Q)")[0], rel=1e-6)
    assert found.kld_mean == pytest.approx(printed(text, "Mean    KLD")[0], abs=2e-6)


def test_llama_perplexity_reads_our_file_and_we_read_its(
    bundle: Bundle,
    nano: dict[str, Path],
    bases: Path,
    divergences: dict[str, tuple[Divergence, ...]],
    tmp_path: Path,
) -> None:
    ours = base_path(bases, 256)
    text = by_hand(
        bundle, nano["Q2_K"], READINGS[0], "--kl-divergence", "--kl-divergence-base", ours
    )
    found = divergences["Q2_K"][0]
    assert found.kld_mean == pytest.approx(printed(text, "Mean    KLD")[0], abs=2e-6)

    theirs = tmp_path / "theirs"
    write_log_probabilities(
        bundle, nano["FP16"], TEXT, READINGS[0], threads=2, log=tmp_path / "log", target=theirs
    )
    assert theirs.stat().st_size == ours.stat().st_size
    assert np.array_equal(open_base(theirs).tokens, open_base(ours).tokens)
    near = compare_log_probabilities(ours, theirs, kernel="ours")
    assert near.tokens == 9 * 127
    assert near.top1 == 1.0
    assert near.nmse < 1e-9
    write_log_probabilities(
        bundle, nano["Q2_K"], TEXT, READINGS[0], threads=2, log=tmp_path / "log", target=theirs
    )
    assert compare_log_probabilities(ours, theirs, kernel="ours").nmse > 1e-4


def test_fewer_bits_are_further_from_fp16(
    divergences: dict[str, tuple[Divergence, ...]],
) -> None:
    for at in range(len(READINGS)):
        klds = [values[at].kld_mean for values in divergences.values()]
        assert klds == sorted(klds)
        assert abs(klds[0]) < 1e-6
        assert divergences["FP16"][at].top1 > 0.999


def test_tasks_are_above_chance_and_paired(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    tasks = tuple(load_task(path) for path in sorted((embedded_folder("tasks")).glob("*.yaml")))
    base = ask(bundle, nano["FP16"], tmp_path, tasks=tasks).scores
    found = ask(bundle, nano["Q2_K"], tmp_path, tasks=tasks).scores
    for task, one, other in zip(tasks, base, found, strict=True):
        chance = sum(1 / len(item.options) for item in task.items)
        spread = np.sqrt(sum(1 / len(i.options) * (1 - 1 / len(i.options)) for i in task.items))
        assert one.correct > chance + 3 * spread
        choices = compare_choices(one, other)
        assert choices.correct - choices.base_correct == choices.gained - choices.lost
        assert choices.low <= choices.difference <= choices.high


def test_a_chat_says_why_it_ended(bundle: Bundle, nano: dict[str, Path], tmp_path: Path) -> None:
    prompts = ("What does os.path.join do?", "Hello")
    ended = ask(bundle, nano["FP16"], tmp_path, talk=Talk(prompts=prompts)).replies
    assert [reply.prompt for reply in ended] == list(prompts)
    assert all(reply.finite and reply.stopped and reply.text.strip() for reply in ended)
    assert ended[0].rendered == "<|user|>\nWhat does os.path.join do?<|end|>\n<|assistant|>\n"
    cut = ask(bundle, nano["FP16"], tmp_path, talk=Talk(prompts=prompts, max_tokens=2)).replies
    assert [(reply.ended, reply.tokens) for reply in cut] == [("length", 2), ("length", 2)]
    assert ended[0].text.startswith(cut[0].text)


def test_logits_repeat_and_differ_between_files(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    def probe(name: str, file: str) -> Evaluation:
        job = Probe(text=TEXT.read_text("utf-8")[:2000], target=tmp_path / file, threads=(1,))
        return ask(bundle, nano[name], tmp_path, probe=job)

    same = probe("FP16", "one.npy").sameness
    assert same is not None and same.across_runs and len(same.digests) == 2
    again = probe("FP16", "two.npy").sameness
    assert again is not None and again.digests == same.digests  # another process, the same bits
    equal = compare_logits(tmp_path / "one.npy", tmp_path / "two.npy", kernel="self")
    assert (equal.nmse, equal.top1, equal.tokens, equal.finite) == (0.0, 1.0, 64, True)
    probe("Q2_K", "other.npy")
    other = compare_logits(tmp_path / "one.npy", tmp_path / "other.npy", kernel="self")
    assert other.nmse > 1e-4
    # Reading at once and one by one is the same arithmetic but for rounding.
    logits = np.load(tmp_path / "one.npy", allow_pickle=False)
    assert np.abs(logits[:32] - logits[32:]).max() < 0.2


def test_memory_is_as_predicted(bundle: Bundle, nano: dict[str, Path], tmp_path: Path) -> None:
    contexts = (2048, 4096, 32768)
    found = ask(bundle, nano["FP16"], tmp_path, accounting=contexts, weighing=Weighing(2048, 100))
    header = gguf.read(nano["FP16"])
    for at in found.memory:
        predicted = predict_memory(header, at.context)
        assert predicted.cache == at.cache
        assert predicted.total == pytest.approx(at.total, rel=0.05)
    assert found.peak is not None
    taken = found.peak.resident - found.peak.before
    assert 0.5 * found.memory[0].total < taken < found.memory[0].total + (100 << 20)


def test_speed_has_a_spread(bundle: Bundle, nano: dict[str, Path], tmp_path: Path) -> None:
    race = Race(prompts=(16, 32), generations=(4,), repetitions=2)
    speeds = measure_speed(bundle, nano["Q4_K_M"], race, log=tmp_path / "log")
    assert [(at.tokens, at.repetitions) for at in speeds.prompt] == [(16, 2), (32, 2)]
    assert [at.tokens for at in speeds.generation] == [4]
    assert all(0 < at.low <= at.median <= at.high for at in (*speeds.prompt, *speeds.generation))


def broken(source: Path, target: Path, tensor: str, pattern: bytes) -> Path:
    """Return a copy with every 16-bit weight of one tensor replaced."""
    shutil.copy(source, target)
    target.chmod(0o644)
    row = next(t for t in gguf.read(source).tensors if t.name == tensor)
    with target.open("r+b") as file:
        file.seek(row.offset)
        file.write(pattern * (row.size // len(pattern)))
    return target


def test_not_a_number_is_refused_with_its_place(
    bundle: Bundle, nano: dict[str, Path], bases: Path, tmp_path: Path
) -> None:
    nan = broken(nano["FP16"], tmp_path / "nan.gguf", "output.weight", b"\x00\x7e")
    with pytest.raises(IntegrityError, match=r"NaN or infinity \(context 256, chunk 1"):
        ask(bundle, nan, tmp_path, divergence=bases)
    basing = Basing(text=TEXT, readings=READINGS[:1], folder=tmp_path / "none")
    with pytest.raises(IntegrityError, match="NaN"):
        ask(bundle, nan, tmp_path, basing=basing)
    assert list((tmp_path / "none").iterdir()) == []
    replies = ask(bundle, nan, tmp_path, talk=Talk(prompts=("Hello",))).replies
    assert not replies[0].finite


def test_a_malformed_file_never_reaches_the_native_parser(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(nano["Q2_K"].read_bytes()[:-1000])
    with pytest.raises(IntegrityError, match="no well-formed GGUF"):
        ask(bundle, cut, tmp_path, talk=Talk(prompts=("Hello",)))
    assert not (tmp_path / "child.log").exists()


def test_a_file_that_llama_cpp_refuses_is_an_integrity_error(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(nano["Q2_K"].read_bytes().replace(b"blk.0.attn_norm", b"blk.0.attn_nerm"))
    with pytest.raises(IntegrityError, match=r"does not load it.*attn_norm"):
        ask(bundle, odd, tmp_path, talk=Talk(prompts=("Hello",)))


def test_limits_are_one_clear_error(
    bundle: Bundle, nano: dict[str, Path], bases: Path, tmp_path: Path
) -> None:
    for setup, words in (
        (Setup(threads=2, wall_seconds=0.2), "ran past its 0 s"),
        (Setup(threads=1, address_space=40 << 20), "child"),
    ):
        with pytest.raises(BuildError, match=words):
            evaluate(bundle, nano["Q2_K"], Jobs(divergence=bases), setup=setup,
                     log=tmp_path / "log")  # fmt: skip


def test_the_budget_bounds_the_logits(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    basing = Basing(text=TEXT, readings=(Reading(256, 9),), folder=folder, budget=2_000_000)
    found = ask(bundle, nano["FP16"], tmp_path, basing=basing).base[0]
    assert (found.chunks, found.wanted) == (3, 9)
    assert base_path(folder, 256).stat().st_size <= 2_000_000
    with pytest.raises(UserError, match="are allowed"):
        basing = Basing(text=TEXT, readings=(Reading(256, 9),), folder=folder, budget=1000)
        ask(bundle, nano["FP16"], tmp_path, basing=basing)
    short = tmp_path / "short.txt"
    short.write_text("few words")
    with pytest.raises(UserError, match="the text has"):
        basing = Basing(text=short, readings=(Reading(256, 9),), folder=folder)
        ask(bundle, nano["FP16"], tmp_path, basing=basing)


def test_a_killed_writer_leaves_no_logits_under_their_name(
    bundle: Bundle, nano: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bases"
    program = (
        "import sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from quantmint.native.evaluation.engine import evaluate\n"
        "from quantmint.native.evaluation.jobs import *\n"
        "b = SimpleNamespace(folder=Path(sys.argv[1]), kernel_library=Path(sys.argv[2]))\n"
        "basing = Basing(text=Path(sys.argv[4]), readings=(Reading(512, 140),),\n"
        "                folder=Path(sys.argv[5]))\n"
        "evaluate(b, Path(sys.argv[3]), Jobs(basing=basing), setup=Setup(threads=1),\n"
        "         log=Path(sys.argv[5]) / 'log')\n"
    )
    words = [bundle.folder, bundle.kernel_library, nano["FP16"], TEXT, folder]
    process = subprocess.Popen([sys.executable, "-c", program, *words])
    deadline = time.monotonic() + 60
    while not any(folder.glob(".*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert any(folder.glob(".*"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not base_path(folder, 512).exists()
    with pytest.raises(UserError, match="no log-probabilities"):
        ask(bundle, nano["Q2_K"], tmp_path, divergence=folder)
