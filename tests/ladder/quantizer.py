"""The quantizer's CMake build, as the ladder's tests use it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class QuantizerBuild:
    """A CMake build folder of native/quantizer."""

    folder: Path
    cmake: Path

    def program(self, target: str) -> Path:
        """Builds `target` if it is not up to date and returns the path of its executable."""
        run(str(self.cmake), "--build", str(self.folder), "--target", target)
        return next(p for p in self.folder.rglob(target) if p.is_file())


def run(*command: str) -> None:
    """Runs a command that must succeed; its output is shown if it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
