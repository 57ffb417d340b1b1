"""A build tree: one folder that CMake configured, in which every kernel of its tree is built."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantmint.files import alone, canonical_json, digest_of, write_whole
from quantmint.home import Home
from quantmint.native.building import codemodel
from quantmint.native.building.options import (
    NATIVE,
    QUANTIZER,
    QUANTIZER_OPTIONS,
    TREE_FILE,
    Report,
    link_options,
    tree_files_digest,
)
from quantmint.native.building.sdk import nvcc
from quantmint.native.pin import Pin, current_pin
from quantmint.native.source import unpack
from quantmint.native.toolchain import Toolchain
from quantmint.process import Command, Limits, run
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTree:
    """One configuration of llama.cpp: its options but for paths, and with which compilers.

    `tools` are versions of further programs that take part (nvcc, glslc), by name.
    """

    home: Home
    store: Store
    name: str
    chain: Toolchain
    options: Mapping[str, str]
    tools: Mapping[str, str]

    @property
    def pin(self) -> Pin:
        """The llama.cpp that is built."""
        return current_pin()

    @property
    def action(self) -> Action:
        """What configuring depends on: its result tells the flags of every target."""
        return Action(
            name="configure",
            inputs={"llama.cpp": self.pin.sha256, "tree files": tree_files_digest()},
            tools={"toolchain": self.chain.identity, **self.tools},
            arguments={"options": dict(self.options)},
        )

    @property
    def folder(self) -> Path:
        """The build folder; it may be deleted at any time."""
        return self.home.work / f"build-{self.name}-{self.action.key[:16]}"

    @property
    def source(self) -> Path:
        """The pinned source, unpacked on first use.

        Raises:
            SourceError: it can't be fetched.
        """
        return unpack(self.store, self.pin, self.home.work)

    @property
    def logs(self) -> Path:
        """Where the whole output of CMake and the compilers goes."""
        return self.home.logs / "native"

    def model(self, report: Report) -> codemodel.Json:
        """Return what CMake says of this tree (see `codemodel`), from the store if it is known.

        Raises:
            BuildError: CMake failed.
        """
        outcome = perform(self.store, self.action, lambda: self._ask(report))
        text = self.store.read(outcome.outputs["model"])
        model: codemodel.Json = json.loads(text)
        return model

    @contextmanager
    def alone(self, report: Report) -> Iterator[None]:
        """One build per tree at a time; the lock saves work and ninja's own state, nothing else."""
        waiting = "another process builds the same tree: waiting for it"
        with alone(self.folder.with_suffix(".lock"), lambda: report(waiting)):
            yield

    def configure(self, report: Report) -> None:
        """Run CMake unless this very folder is configured already. Call it inside `alone`.

        Raises:
            BuildError: CMake failed.
            SourceError: the llama.cpp source can't be fetched.
        """
        source, folder, chain = self.source, self.folder, self.chain
        mark = folder / "configured.json"
        places = [str(source), str(folder), str(NATIVE)]
        wanted = canonical_json([self.action.key, places, chain.options])
        if mark.is_file() and mark.read_bytes() == wanted:
            return
        report(f"configuring llama.cpp {self.pin.commit} with {chain.cxx.version}")
        folder.mkdir(parents=True, exist_ok=True)
        codemodel.ask(folder)
        options = {**chain.options, **self.options, **self._path_options(source)}
        argv: list[str | Path] = [chain.cmake.path, "--fresh", "-S", source, "-B", folder]
        argv += ["-G", "Ninja", *(f"-D{name}={options[name]}" for name in sorted(options))]
        log = self.logs / f"configure-{self.name}.log"
        run(Command(argv=argv, limits=Limits(wall_seconds=600), log=log))
        write_whole(mark, wanted)

    def _path_options(self, source: Path) -> dict[str, str]:
        """Return options that hold paths; none of them may be found in what is built."""
        maps = [f"-ffile-prefix-map={source}=llama.cpp", f"-ffile-prefix-map={self.folder}=build"]
        found = {
            "CMAKE_C_FLAGS": " ".join(maps),
            "CMAKE_CXX_FLAGS": " ".join(maps),
            "CMAKE_PROJECT_TOP_LEVEL_INCLUDES": str(TREE_FILE),
        }
        if self.options.get("GGML_CUDA") == "ON":
            found["CMAKE_CUDA_COMPILER"] = str(nvcc())
            found["CMAKE_CUDA_FLAGS"] = " ".join(f"-Xcompiler={one}" for one in maps)
        return found

    def _ask(self, report: Report) -> Outcome:
        with self.alone(report):
            self.configure(report)
            names = {self.source: "llama.cpp", self.folder: "build", NATIVE: "native"}
            model = codemodel.read(self.folder, names)
        return Outcome(outputs={"model": self.store.put_bytes(canonical_json(model))})


def configure_quantizer(
    source: Path, libraries: Path, folder: Path, chain: Toolchain, logs: Path
) -> None:
    """Configure our own C++ against the pinned source and the libraries built from it.

    A folder that another copy of our sources was configured in (a home outlives an environment)
    is begun anew: CMake refuses it otherwise.

    Raises:
        BuildError: CMake failed.
    """
    options = {
        **QUANTIZER_OPTIONS,
        **link_options(chain),
        **chain.options,
        "LLAMA_SOURCE": str(source),
        "LLAMA_LIBS": str(libraries),
    }
    options.pop("CMAKE_C_COMPILER")
    argv: list[str | Path] = [chain.cmake.path, "-S", QUANTIZER, "-B", folder, "-G", "Ninja"]
    cache = folder / "CMakeCache.txt"
    ours = f"CMAKE_HOME_DIRECTORY:INTERNAL={QUANTIZER}\n"
    if cache.is_file() and ours not in cache.read_text(encoding="utf-8"):
        argv.append("--fresh")
    argv += [f"-D{name}={value}" for name, value in sorted(options.items())]
    run(Command(argv=argv, limits=Limits(wall_seconds=600), log=logs / "configure-ladder.log"))


def quantizer_identity(chain: Toolchain) -> str:
    """Return a digest of how our own C++ is configured."""
    return digest_of({**QUANTIZER_OPTIONS, **link_options(chain)})
