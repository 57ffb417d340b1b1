"""What a person reads on an asset's page: the outcome first, figures rounded, nothing rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from assay_records import record, withheld
from quantmint.assets.assay.record import Assayed
from quantmint.assets.graph.kernels import kernel_assets
from quantmint.assets.graph.line import check_result
from quantmint.assets.report.graph import assay_metadata, significant
from quantmint.assets.report.summaries import assay_summary
from quantmint.assets.verdict import Verdict
from quantmint.native.matrix import MATRIX_FILE
from quantmint.pipelines.links import with_links
from quantmint.registry.store import Blob


def page(found: Assayed) -> dict[str, Any]:
    return assay_metadata(found, Blob("0" * 64, 10), Path("/home/models/m/file.gguf"))


def test_the_first_line_says_how_it_came_out() -> None:
    assert next(iter(page(record()))) == "summary"
    assert assay_summary(record()) == "passed: KLD 0.00856, PPL +0.63 %, 1825 t/s"
    assert assay_summary(record(divergences=(), speeds=None)) == "passed"
    refused = page(withheld(reason="it loops"))
    assert refused["summary"] == "WITHHELD: chat; see Checks"
    assert refused["visible_file"] == "none: withheld"
    assert "FAILED  chat: it loops" in refused["reasons"].value


def test_every_gate_has_its_reason_as_plain_text() -> None:
    verdicts = (
        Verdict("header", True, "as planned"),
        Verdict("chat", False, "said ```\n# <b>loud</b> `x`"),
        Verdict("tasks", False, "no items", made=False),
    )
    shown = page(record(verdicts=verdicts))["reasons"].value
    assert "passed  header: as planned" in shown
    assert "FAILED  chat: said '''" in shown
    assert "not made  tasks: no items" in shown
    assert shown.startswith("```text\n")
    assert shown.count("`") == 6


def test_figures_have_six_digits_at_most() -> None:
    near = page(record(kernel="avx2"))["nmse"]
    assert near == 1.2e-6
    assert significant(121.48400000000001) == 121.484
    verdict = Verdict("divergence", True, "close", {"kld_512": 0.007209819426122529, "n": 3})
    facts = check_result(dg.AssetKey("a"), verdict).metadata
    assert (facts["kld_512"].value, facts["n"].value) == (0.00720982, 3)
    numbers = [v for v in page(record()).values() if isinstance(v, float)]
    assert numbers
    assert all(number == significant(number) for number in numbers)


def test_a_kernel_links_to_the_matrix_and_to_its_code() -> None:
    (linked,) = with_links([kernel_assets()], MATRIX_FILE, label="kernel matrix")
    assert isinstance(linked, dg.AssetsDefinition)
    for spec in linked.specs:
        found = spec.metadata["dagster/code_references"].code_references
        assert {link.label for link in found} >= {"kernel matrix"}
        assert any(link.file_path.endswith("kernels.py") for link in found)
