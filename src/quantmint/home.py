"""Where quantmint keeps its state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The one folder that holds the store and all state of quantmint."""

    root: Path

    @property
    def store(self) -> Path:
        """Content-addressed objects, the action cache and the staging area."""
        return self.root / "store"

    @property
    def models(self) -> Path:
        """Links to the built variants, by model, under their public file names."""
        return self.root / "models"

    @property
    def keys(self) -> Path:
        """Private keys, trusted and revoked public ones, and which releases were seen."""
        return self.root / "keys"

    @property
    def dagster(self) -> Path:
        """`DAGSTER_HOME`: run history, event log, schedules."""
        return self.root / "dagster"

    @property
    def mlflow(self) -> Path:
        """The MLflow database and small artifacts."""
        return self.root / "mlflow"

    @property
    def work(self) -> Path:
        """Build trees that may be deleted at any time."""
        return self.root / "work"

    @property
    def service(self) -> Path:
        """The lock of the home's one service, which says where its pages are."""
        return self.root / "service.lock"

    @property
    def logs(self) -> Path:
        """Whole output of native tools, one file per run of a tool."""
        return self.root / "logs"


def checkout_root() -> Path | None:
    """Return the root of the checkout that this package runs from, or None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "pyproject.toml").is_file() and (root / "workspace.yaml").is_file()
    return root if is_checkout else None


def find_home() -> Home:
    """Return `QUANTMINT_HOME`, or `.quantmint/` of a checkout, or the user's data folder."""
    named = os.environ.get("QUANTMINT_HOME")
    if named:
        return Home(Path(named).expanduser().absolute())
    checkout = checkout_root()
    if checkout is not None:
        return Home(checkout / ".quantmint")
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("quantmint")))
