"""The report: what stands in it, how it looks, and that nothing foreign gets out of its place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from assay_records import ABOUT, MEASURED, record, withheld
from quantmint.assets.report.files import show_report, write_report
from quantmint.assets.report.html import as_html
from quantmint.assets.report.markdown import as_markdown, escaped, fenced
from quantmint.assets.report.model import ModelReport, build_report
from quantmint.assets.report.plots import draw_plots
from quantmint.assets.report.tables import overview, quality, reasons, speed
from quantmint.assets.verdict import Verdict
from quantmint.errors import BugError, IntegrityError
from quantmint.registry.store import Store

HOSTILE = "</pre><script>alert(1)</script> | [x](javascript:alert(2)) ``` <img src=x onerror=y>"
WAYS_OUT = {"script", "img", "iframe", "object", "embed", "link", "base", "form"}


def whole() -> ModelReport:
    """Return a report of three variants that passed and one that did not, on two kernels."""
    records = [record(v, k) for v in ("Q8_0", "Q6_K", "Q4_K_M") for k in ("x64", "zen4")]
    return build_report([*records, withheld("Q2_K")], ABOUT)


def test_a_report_puts_kernels_together_and_sorts_by_size() -> None:
    report = whole()
    assert [row.variant for row in report.rows] == ["Q8_0", "Q6_K", "Q4_K_M", "Q2_K"]
    assert [on.kernel for on in report.rows[0].kernels] == ["x64", "zen4"]
    assert report.rows[0].kld == 0.00035
    assert report.contexts == (512, 1024)
    assert [row.variant for row in report.withheld] == ["Q2_K"]
    assert reasons(report) == [("Q2_K", "chat: it says one thing again and again")]


def test_the_order_of_records_changes_nothing_but_the_order_of_kernels() -> None:
    records = [record("Q8_0"), record("Q4_K_M"), withheld("Q2_K")]
    assert build_report(records, ABOUT) == build_report(records[::-1], ABOUT)


def test_the_front_leaves_out_what_is_beaten_and_what_is_withheld() -> None:
    worse = record("Q6_K", divergences=record("Q2_K").divergences)  # larger than Q4_K_M, and worse
    report = build_report([record("Q8_0"), worse, record("Q4_K_M"), withheld("Q2_K")], ABOUT)
    assert [row.variant for row in report.rows if row.pareto] == ["Q8_0", "Q4_K_M"]


def test_records_that_do_not_belong_together_are_refused() -> None:
    text = {**record().digests, "text": "e" * 64}
    with pytest.raises(IntegrityError, match="2 different text digests"):
        build_report([record("Q8_0"), record("Q4_K_M", digests=text)], ABOUT)
    other = {**record().digests, "gguf": "e" * 64}
    with pytest.raises(IntegrityError, match="Q4_K_M: records of 2 different gguf digests"):
        build_report([record("Q4_K_M", "x64"), record("Q4_K_M", digests=other)], ABOUT)
    with pytest.raises(BugError, match="several models"):
        build_report([record(), record("Q8_0", model="another")], ABOUT)
    with pytest.raises(BugError):
        build_report([], ABOUT)


def test_a_variant_that_does_not_load_is_in_the_report_with_its_reason() -> None:
    broken = record(
        "Q2_K", base=(), divergences=(), choices=(), replies=(), memory=(), peak=None, speeds=None,
        verdicts=(Verdict("loads", False, "tensor data is not within the file"),),
    )  # fmt: skip
    alone = build_report([broken], ABOUT)
    assert draw_plots(alone) == {}
    assert overview(alone).rows == (("Q2_K", "withheld", "2.0 MB", "3.44", "-", "-", "-"),)
    assert (quality(alone), speed(alone)) == ([], None)
    for page in (as_html(alone, {}), as_markdown(alone)):
        assert b"tensor data is not within the file" in page
    plots = draw_plots(build_report([record("Q8_0"), broken], ABOUT))
    assert sorted(plots) == ["perplexity", "size-kld", "speed"]


def test_a_kernel_that_refuses_a_good_file_is_named() -> None:
    bad = record("Q8_0", "x64", verdicts=(Verdict("agreement", False, "error 0.3"),))
    report = build_report([bad, record("Q8_0")], ABOUT)
    assert not report.withheld
    assert reasons(report) == [("Q8_0 on x64", "agreement: error 0.3")]


def test_equal_reports_are_equal_bytes_in_the_store(store: Store, tmp_path: Path) -> None:
    first = write_report(store, whole())
    for path in store.actions.iterdir():  # so that it is drawn again, not taken from the cache
        path.unlink()
    assert write_report(store, whole()) == first
    assert sorted(first) == [
        "perplexity.png", "perplexity.svg", "report.html", "report.json", "report.md",
        "size-kld.png", "size-kld.svg", "speed.png", "speed.svg",
    ]  # fmt: skip
    shown = show_report(store, first, tmp_path / "models" / "phi-3-nano")
    assert [path.name for path in shown] == ["report.html", "report.md"]
    assert shown[0].read_bytes() == store.read(first["report.html"])
    value = json.loads(store.read(first["report.json"]))
    assert value["report"] == 1
    assert value["rows"][2]["divergences"][0]["kld_mean"] == MEASURED["Q4_K_M"][2][3]


def test_plots_show_every_variant_and_ignore_the_users_own_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = draw_plots(whole())
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    assert draw_plots(whole()) == plain
    assert mpl.rcParams["lines.linewidth"] == 9.0
    svg = plain["size-kld"].svg.decode()
    assert all(f">{variant}<" in svg for variant in MEASURED)
    assert "withheld" in svg
    assert not re.search(r"\d{4}-\d\d-\d\dT", svg)
    assert plain["speed"].png.startswith(b"\x89PNG")
    assert ">x64<" in plain["speed"].svg.decode()


class Page(HTMLParser):
    """The elements of a page, and each address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name == "id":
                self.ids.append(str(value))
            if name in {"href", "src", "xlink:href"}:
                self.addresses.add(str(value))


def hostile() -> ModelReport:
    """Return a report in which every text that others write tries to get out."""
    reply = replace(record().replies[0], text=HOSTILE, prompt=HOSTILE)
    bad = record("Q2_K", replies=(reply,), verdicts=(Verdict("chat", False, HOSTILE),))
    about = replace(ABOUT, source=HOSTILE, origin="javascript:alert(3)", commit=HOSTILE)
    return build_report([record("Q8_0"), bad], about)


def test_nothing_foreign_gets_out_of_its_place_in_the_page() -> None:
    report = hostile()
    page = Page(as_html(report, draw_plots(report)).decode())
    assert not page.tags & WAYS_OUT
    assert all(address.startswith("#") for address in page.addresses)
    assert "table" in page.tags


def test_a_page_loads_nothing_and_links_only_to_the_hub() -> None:
    about = replace(ABOUT, origin="https://huggingface.co/microsoft/x")
    report = build_report([record("Q8_0"), record("Q4_K_M")], about)
    text = as_html(report, draw_plots(report)).decode()
    page = Page(text)
    outside = {address for address in page.addresses if not address.startswith("#")}
    assert outside == {"https://huggingface.co/microsoft/x"}
    assert "default-src 'none'" in text
    # Three plots in one page: what one of them refers to by name must be its own.
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses - outside} <= set(page.ids)


def test_nothing_foreign_gets_out_of_its_place_in_markdown() -> None:
    text = as_markdown(hostile()).decode()
    inside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in inside
    assert "<img" not in inside
    assert not re.search(r"(?<!\\)\[x", inside)
    assert fenced("a ```` b").startswith("`````text\n")
    assert escaped("Q4_K_M | *x*\n_y_") == "Q4_K_M \\| \\*x\\* \\_y\\_"


def test_a_markdown_table_has_as_many_cells_in_each_row() -> None:
    for block in re.findall(r"(?:^\|.*\n)+", as_markdown(whole()).decode(), re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1
