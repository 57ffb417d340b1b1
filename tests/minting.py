"""A mint of a test's own: the built embedded model, a key, and terms of release."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from helpers import Ran, run_in
from quantmint.home import Home
from quantmint.pipelines.spec import shipped
from quantmint.registry.keys import new_trusted_key
from quantmint.registry.linter.run import from_folder, lint
from quantmint.registry.signing.folder import verify_folder
from quantmint.registry.signing.release import Expect, Verified
from quantmint.registry.trust_root import TrustRoot

TERMS = """
release:
  {where}
  publisher: my-org
  license: mit
  base_model: my-org/Phi-3-nano
"""


class Mint:
    """A copy of the built home with a key of its own, a model file and a folder registry."""

    def __init__(self, folder: Path, nano: Home) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.registry = folder / "registry"
        shutil.copytree(
            nano.store, self.home.store, copy_function=os.link,
            # Other tests pull into the built home: what they know of it is left behind.
            ignore=shutil.ignore_patterns("leases", "staging", "trees", "refs"),
        )  # fmt: skip
        for name in ("dagster", "mlflow", "models"):
            shutil.copytree(nano.root / name, self.home.root / name)
        self.home.work.mkdir()
        for tree in nano.work.glob("llama.cpp-*"):
            (self.home.work / tree.name).symlink_to(tree.resolve())
        new_trusted_key(self.home.keys, "release")

    def model(self, where: str = "path: registry", more: str = "") -> Path:
        """Write a model file: the shipped one with terms of release, and with other gates."""
        path = self.folder / "phi-3-nano.yaml"
        text = shipped()["phi-3-nano"].read_text(encoding="utf-8")
        path.write_text(text + TERMS.format(where=where) + more, encoding="utf-8")
        return path

    def run(self, *words: str | Path, **env: str) -> Ran:
        """Run the command line in this home."""
        return run_in(self.home, *words, OMP_WAIT_POLICY="PASSIVE", **env)

    def verify(self, number: int) -> Verified:
        """Verify a release of the folder registry, as strictly as can be."""
        (folder,) = (self.registry / "releases").glob(f"v{number}-*")
        expect = Expect("phi-3-nano", "my-org", number)
        policy = TrustRoot(self.home.keys).policy()
        assert [f for f in lint(from_folder(folder)) if f.severity == "error"] == []
        return verify_folder(folder, policy, expect=expect, strict=True, deep=True)
