"""The quantizer's CMake build, as the ladder's tests use it."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class QuantizerBuild:
    """A CMake build folder of native/quantizer, and the libraries that its programs run with."""

    folder: Path
    cmake: Path
    libraries: Path

    def program(self, target: str) -> Path:
        """Build `target` if it is not up to date; return it, beside links to its libraries."""
        run(str(self.cmake), "--build", str(self.folder), "--target", target)
        beside = self.folder / "run"
        beside.mkdir(exist_ok=True)
        for library in self.libraries.glob("lib*.so*"):
            (beside / library.name).unlink(missing_ok=True)
            (beside / library.name).symlink_to(library.resolve())
        shutil.copy2(self.folder / target, beside / target)
        return beside / target


def run(*command: str) -> None:
    """Runs a command that must succeed; its output is shown if it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
