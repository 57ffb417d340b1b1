"""Building one kernel's bundle: tools, shared libraries and that one kernel, in one folder."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.files import digest_of, sha256_of
from quantmint.home import Home
from quantmint.native.kernels import Kernel
from quantmint.native.pin import Pin, current_pin
from quantmint.native.source import unpack
from quantmint.native.toolchain import Toolchain, find_toolchain
from quantmint.process import Command, Limits, run
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Store
from quantmint.registry.trees import Tree, TreeFile, checkout, load_tree, put_tree

TOOLS = (
    "llama-quantize",
    "llama-perplexity",
    "llama-bench",
    "llama-imatrix",
    "llama-tokenize",
    "llama-completion",
)
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_CCACHE": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    # A bundle finds its own libraries beside itself, wherever it is put.
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "LLAMA_BUILD_NUMBER": "0",
}
LADDER = "quantmint-ladder"
QUANTIZER = Path(__file__).resolve().with_name("quantizer")
MEMORY_PER_JOB = 1_500_000_000
STEP = re.compile(r"\[(\d+)/(\d+)\]")
SONAME = re.compile(r"(?P<plain>lib[\w.+-]+?\.so)(?:\.(?P<major>\d+))?(?:\.\d+)*")
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A built kernel, ready to run: the folder, what it is made of and how long that took.

    `tools_digest` covers everything but the kernel's own library: what a tool computes apart
    from inference (quantizing, say) depends on it alone.
    """

    kernel: Kernel
    folder: Path
    tree: Tree
    tools_digest: str
    seconds: float
    cached: bool

    def tool(self, name: str) -> Path:
        """Return the path of one of llama.cpp's programs."""
        return self.folder / name

    @property
    def kernel_library(self) -> Path:
        """The shared library that holds the kernel."""
        return self.folder / self.kernel.library


def build_kernel(home: Home, store: Store, kernel: Kernel, report: Report) -> Bundle:
    """Build the kernel's bundle, or take it from the store.

    Raises:
        BuildError: a tool is missing or the build failed.
        SourceError: the llama.cpp source can't be fetched.
    """
    pin, toolchain = current_pin(), find_toolchain()
    action = Action(
        name="kernel",
        inputs={"llama.cpp": pin.sha256, "quantizer": quantizer_digest()},
        tools={"toolchain": toolchain.identity},
        arguments={"options": OPTIONS, "tools": list(TOOLS), "target": kernel.target},
    )
    outcome = perform(store, action, lambda: _build(home, store, kernel, toolchain, report))
    tree = load_tree(store, outcome.outputs["bundle"])
    return Bundle(
        kernel=kernel,
        folder=checkout(store, tree, kernel.name),
        tree=tree,
        tools_digest=_tools_digest(tree, kernel),
        seconds=float(outcome.facts["seconds"]),
        cached=outcome.cached,
    )


def quantizer_digest() -> str:
    """Return the digest of the quantizer's sources."""
    files = (p for p in sorted(QUANTIZER.rglob("*")) if p.suffix in {".cpp", ".h", ".txt"})
    return digest_of([[str(p.relative_to(QUANTIZER)), sha256_of(p)] for p in files])


def converter_script(home: Home, store: Store) -> Path:
    """Return the pinned tree's converter; its package and its gguf library lie beside it.

    Raises:
        SourceError: the llama.cpp source can't be fetched.
    """
    return unpack(store, current_pin(), home.work) / "convert_hf_to_gguf.py"


def _tools_digest(tree: Tree, kernel: Kernel) -> str:
    return digest_of([[f.path, f.blob.sha256] for f in tree.files if f.path != kernel.library])


def _build(
    home: Home, store: Store, kernel: Kernel, toolchain: Toolchain, report: Report
) -> Outcome:
    pin = current_pin()
    source = unpack(store, pin, home.work)
    folder = build_folder(home, toolchain)
    logs = home.logs / "native"
    started = time.monotonic()
    with _alone(folder.with_suffix(".lock"), report):
        report(f"configuring llama.cpp {pin.commit} with {toolchain.cxx.version}")
        _configure(source, folder, toolchain, pin, logs)
        report(f"compiling kernel {kernel.name} and llama.cpp's tools")
        _compile(folder, [kernel.target, *TOOLS], toolchain, report, logs / f"{kernel.name}.log")
        report("compiling the ladder engine")
        ladder = folder / "quantizer"
        configure_quantizer(source, folder / "bin", ladder, toolchain, logs)
        _compile(ladder, [LADDER], toolchain, report, logs / "ladder.log")
        tree = _collect(store, folder / "bin", ladder / "engine" / LADDER, kernel)
    seconds = time.monotonic() - started
    return Outcome(
        outputs={"bundle": tree.blob}, trees=("bundle",), facts={"seconds": round(seconds, 1)}
    )


def build_folder(home: Home, toolchain: Toolchain) -> Path:
    """Return the folder of the one build tree; it may be deleted at any time."""
    return home.work / f"build-{current_pin().sha256[:16]}-{toolchain.identity[:16]}"


@contextmanager
def _alone(lock: Path, report: Report) -> Iterator[None]:
    """One build per tree at a time; the lock saves work and ninja's own state, nothing else."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process builds the same tree: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _configure(source: Path, folder: Path, chain: Toolchain, pin: Pin, logs: Path) -> None:
    map_paths = f"-ffile-prefix-map={source}=llama.cpp -ffile-prefix-map={folder}=build"
    options = {
        **OPTIONS,
        "LLAMA_BUILD_COMMIT": pin.commit,
        "GGML_BUILD_COMMIT": pin.commit,
        "CMAKE_C_COMPILER": str(chain.cc.path),
        "CMAKE_CXX_COMPILER": str(chain.cxx.path),
        "CMAKE_MAKE_PROGRAM": str(chain.ninja.path),
        "CMAKE_C_FLAGS": map_paths,
        "CMAKE_CXX_FLAGS": map_paths,
        "CMAKE_PROJECT_TOP_LEVEL_INCLUDES": str(Path(__file__).with_name("one_kernel.cmake")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    run(
        Command(
            argv=[
                chain.cmake.path, "-S", source, "-B", folder, "-G", "Ninja",
                *(f"-D{name}={value}" for name, value in sorted(options.items())),
            ],
            limits=Limits(wall_seconds=600),
            log=logs / "configure.log",
        )
    )  # fmt: skip


def configure_quantizer(
    source: Path, libraries: Path, folder: Path, chain: Toolchain, logs: Path
) -> None:
    """Configure our own C++ against the pinned source and the libraries built from it.

    Raises:
        BuildError: CMake failed.
    """
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "$ORIGIN",
        "CMAKE_CXX_COMPILER": str(chain.cxx.path),
        "CMAKE_MAKE_PROGRAM": str(chain.ninja.path),
        "LLAMA_SOURCE": str(source),
        "LLAMA_LIBS": str(libraries),
    }
    argv: list[str | Path] = [chain.cmake.path, "-S", QUANTIZER, "-B", folder, "-G", "Ninja"]
    argv += [f"-D{name}={value}" for name, value in options.items()]
    run(Command(argv=argv, limits=Limits(wall_seconds=600), log=logs / "configure-ladder.log"))


def _compile(
    folder: Path, targets: Sequence[str], chain: Toolchain, report: Report, log: Path
) -> None:
    argv: list[str | Path] = [chain.ninja.path, "-C", folder, f"-j{jobs()}", *targets]
    command = Command(argv=argv, limits=Limits(wall_seconds=4 * 3600), log=log)
    try:
        run(command, on_line=_Progress(report))
    except BuildError as error:
        if shutil.disk_usage(folder).free < 1 << 20:
            raise BuildError(
                f"no space left on the disk of {folder} while compiling",
                mend="free 2 GB, or set QUANTMINT_HOME to a folder on a larger disk",
            ) from error
        raise


def jobs() -> int:
    """Return how many compilers to run at once: as many as cores and memory allow."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY_PER_JOB))


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


def _collect(store: Store, folder: Path, ladder: Path, kernel: Kernel) -> Tree:
    """Bring the tools, the libraries that they need and the one kernel into the store."""
    files = [TreeFile(LADDER, store.put(ladder), executable=True)]
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        if path.name in TOOLS:
            files.append(TreeFile(path.name, store.put(path), executable=True))
        elif path.name == kernel.library or not path.name.startswith("libggml-cpu-"):
            blob = store.put(path)
            files.extend(TreeFile(name, blob) for name in _library_names(path.name))
    return put_tree(store, files)


def _library_names(name: str) -> list[str]:
    """Return the names by which a library is looked for: `libx.so` and its soname `libx.so.0`."""
    found = SONAME.fullmatch(name)
    if found is None:
        return []
    soname = f"{found['plain']}.{found['major']}" if found["major"] else found["plain"]
    return sorted({found["plain"], soname})
