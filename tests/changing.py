"""A model whose upstream is a Hub of the test's own, for tests of what changes re-make."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import ROOT, Ran, run_in
from hub import Hub
from quantmint.home import Home

MODEL = """\
model: mini
title: Mini
source: {hub: org/mini}
imatrix: {text: calibration.txt, chunks: 4, context: 128}
variants: [Q8_0, Q4_K_M]
assay: {text: assay.txt, contexts: [128], chunks: 4, tasks: false}
"""
WORDS = "Return the sum of all numbers in the list. If the list is empty, return zero.\n"


@dataclass
class Changing:
    """A model, its upstream on a Hub of the test's own, and a home with the kernel built."""

    home: Home
    hub: Hub
    checkpoint: Path
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that know this Hub and no other."""
        return {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "QUANTMINT_TRACKING": "off",
        }

    def run(self, *words: str | Path, **env: str) -> Ran:
        """Run the command line."""
        return run_in(self.home, *words, **{**self.env, **env})

    @property
    def file(self) -> Path:
        return self.folder / "mini.yaml"

    def build(self) -> dict[str, Any]:
        ran = self.run("build", self.file, "--refresh", "--json")
        assert ran.code == 0, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def commit(self) -> None:
        self.hub.repos["org/mini"].commit(self.checkpoint)

    def edit(self, before: str, after: str) -> None:
        text = self.file.read_text()
        assert before in text
        self.file.write_text(text.replace(before, after))


def make_changing(folder: Path, home: Home, hub: Hub) -> Changing:
    """Put a small model on the Hub, and its model file and texts into `folder`."""
    checkpoint = folder / "checkpoint"
    shutil.copytree(ROOT / "assets" / "embedded" / "phi-3-nano", checkpoint)
    for role in ("calibration", "assay"):
        words = [WORDS.replace("list", f"list {role} {at}") for at in range(120)]
        (folder / f"{role}.txt").write_text("".join(words))
    hub.add("org/mini")
    made = Changing(home, hub, checkpoint, folder)
    made.commit()
    made.file.write_text(MODEL)
    return made
