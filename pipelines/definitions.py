"""The code location: the assets of every model file, their jobs, schedules and sensors."""

from __future__ import annotations

import dagster as dg

from quantmint.orphans import end_with_parent
from quantmint.pipelines.assembly import build_definitions, told_apart, unreadable_spec
from quantmint.pipelines.automation import automation
from quantmint.pipelines.spec import load_all


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of every model that has a file.

    A file that can't be read does not take the others with it: it is shown with its error.
    """
    end_with_parent()  # the first that a step's process has of us, seconds before the step begins
    found, unreadable = load_all()
    models, alike = told_apart(found)
    return dg.Definitions.merge(
        build_definitions(models),
        automation(models),
        dg.Definitions(assets=[unreadable_spec(*row) for row in {**unreadable, **alike}.items()]),
    )
