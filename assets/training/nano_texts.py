"""The texts beside the checkpoint: one to judge by, never trained on, and one to calibrate by."""

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from quantmint.assets.training.nano_corpus import WINDOW, Corpus, Document, shared_windows, windows

CALIBRATION_BYTES = 150_000


def page_texts(documents: Iterable[Document]) -> list[str]:
    """The documents of each file as one text, in file order, as a reader would meet them."""
    pages = itertools.groupby(documents, key=lambda document: document.page)
    return ["\n\n".join(document.text for document in page) for _, page in pages]


def assay_text(corpus: Corpus) -> str:
    """All held-out documents."""
    return "\n\n".join(page_texts(corpus.held_out)) + "\n"


def calibration_text(corpus: Corpus) -> str:
    """About 150 kB of the training documents, chosen by the digest of their names."""
    eligible = [d for d in corpus.documents if not d.page.startswith("test")]
    chosen: set[str] = set()
    size = 0
    for document in sorted(eligible, key=lambda d: hashlib.sha256(d.name.encode()).digest()):
        if size >= CALIBRATION_BYTES:
            break
        if len(document.text) <= CALIBRATION_BYTES // 20:
            chosen.add(document.name)
            size += len(document.text.encode()) + 2
    return "\n\n".join(page_texts(d for d in eligible if d.name in chosen)) + "\n"


def check(assay: str, corpus: Corpus) -> None:
    """Refuse an assay text of which any paragraph shares 40 characters with the training text."""
    training = (document.text for document in (*corpus.documents, *corpus.sources))
    paragraphs = [p for p in assay.split("\n\n") if any(windows(p))]
    shared = shared_windows(paragraphs, training)
    if shared:
        message = f"{len(shared)} stretches of {WINDOW} characters were trained on: {min(shared)!r}"
        raise ValueError(message)


def save_texts(corpus: Corpus, folder: Path) -> None:
    """Write assay.txt and calibration.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    assay = assay_text(corpus)
    check(assay, corpus)
    (folder / "assay.txt").write_text(assay, encoding="utf-8")
    (folder / "calibration.txt").write_text(calibration_text(corpus), encoding="utf-8")
