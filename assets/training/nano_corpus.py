"""The text of phi-3-nano: what the running Python says about itself.

Four sources, read by `ast` and never imported: the language reference that `pydoc` carries, the
docstrings of the standard library, its long comment blocks, and (as material for training only,
with every docstring removed) the bodies of its functions.  Everything is a function of the Python
that runs this, so one version and one digest name the text.

Split and hygiene, in this order: a paragraph that occurs twice is kept once; a digest of its name
decides whether a document is held out; a held-out paragraph that shares any 40 characters with the
training text is dropped.  What is left of the held-out documents was never seen in training.
"""

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-untyped,unused-ignore]

WINDOW = 40
HELD_OUT_PER_MILLE = 140
SKIPPED = (
    "site-packages/",
    "pydoc_data/",
    "idlelib/idle_test/",
    "lib2to3/tests/",
    "lib-dynload/",
    "_sysconfigdata",
)
MAX_SOURCE = 3000
_COMMENT = re.compile(r"(?:^[ \t]*#.*\n){4,}", re.MULTILINE)
_BOILERPLATE = re.compile(r"copyright|licen[cs]e|all rights reserved|warrant", re.IGNORECASE)
_WORD = re.compile(r"\b[a-z]{2,}\b")


@dataclass(frozen=True)
class Document:
    """One piece of text: `name` is unique, `page` groups what stood in one file."""

    name: str
    page: str
    heading: str
    body: str

    @property
    def text(self) -> str:
        """The document as a reader meets it: its heading, then its text."""
        return f"{self.heading}\n\n{self.body}" if self.heading else self.body


@dataclass(frozen=True)
class Corpus:
    """Training documents, training source code, and held-out documents."""

    documents: tuple[Document, ...]
    sources: tuple[Document, ...]
    held_out: tuple[Document, ...]

    @property
    def sha256(self) -> str:
        """The digest that names this text."""
        digest = hashlib.sha256()
        for part in (self.documents, self.sources, self.held_out):
            for document in part:
                digest.update(f"{document.name}\0{document.text}\0".encode())
        return digest.hexdigest()


def collapsed(text: str) -> str:
    """`text` with every run of white space as one space: what comparisons look at."""
    return " ".join(text.split())


def _clean(text: str) -> str:
    lines = (line.rstrip() for line in text.expandtabs(8).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _topics() -> Iterator[Document]:
    for name in sorted(topics):
        yield Document(f"topic:{name}", f"topic:{name}", "", _clean(topics[name]))


def _stdlib() -> Iterator[tuple[str, str]]:
    """Dotted module name and source text of every module of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if relative.startswith(SKIPPED) or "/bad" in relative:
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # other encodings occur in Python's own tests only
        yield relative.removesuffix(".py").removesuffix("/__init__").replace("/", "."), text


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _signature(node: Definition) -> str:
    """Parameter names with their defaults, without annotations and `self`."""
    bare = ast.parse(ast.unparse(node.args).join(("def f(", "): pass"))).body[0]
    assert isinstance(bare, ast.FunctionDef)
    for argument in ast.walk(bare.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"({re.sub(r'^(self|cls)(, |$)', '', ast.unparse(bare.args))})"


def _without_docstring(node: Definition) -> str:
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return ast.unparse(ast.fix_missing_locations(_replaced_body(node, body or [ast.Pass()])))


def _replaced_body(node: Definition, body: list[ast.stmt]) -> Definition:
    copy = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copy, ast.FunctionDef | ast.AsyncFunctionDef)
    copy.body = body
    copy.decorator_list = []
    return copy


def _definitions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef | Definition]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from _definitions(node, name)
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node, prefix)


def _documented(module: str, tree: ast.Module) -> Iterator[Document]:
    doc = ast.get_docstring(tree)
    if doc:
        yield Document(f"module:{module}", module, f"module {module}", _clean(doc))
    for name, node in _definitions(tree, module):
        doc = ast.get_docstring(node)
        if not doc:
            continue
        if isinstance(node, ast.ClassDef):
            yield Document(f"class:{name}:{node.lineno}", module, f"class {name}", _clean(doc))
        else:
            heading = f"{name}{_signature(node)}"
            yield Document(f"def:{name}:{node.lineno}", module, heading, _clean(doc))


def _comments(module: str, text: str) -> Iterator[Document]:
    for match in _COMMENT.finditer(text):
        lines = [re.sub(r"^[ \t]*#+ ?", "", line) for line in match[0].splitlines()]
        body = _clean(inspect.cleandoc("\n".join(lines)))
        words = _WORD.findall(body)
        prose = sum(map(len, words)) >= 0.6 * len(body) and len(words) >= 25
        if prose and not _BOILERPLATE.search(body):
            yield Document(f"comment:{module}:{match.start()}", module, "", body)


def _sources(module: str, tree: ast.Module) -> Iterator[Document]:
    for name, node in _definitions(tree, module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = _without_docstring(node)
            if 120 <= len(body) <= MAX_SOURCE:
                yield Document(f"source:{name}:{node.lineno}", module, "", body)


def _unrepeated(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents, each paragraph of 40 or more characters only where it occurs first."""
    seen: set[str] = set()
    for document in documents:
        kept: list[str] = []
        for paragraph in document.body.split("\n\n"):
            key = collapsed(paragraph).lower()
            if len(key) < WINDOW or key not in seen:
                kept.append(paragraph)
                seen.add(key)
        body = "\n\n".join(kept).strip()
        if len(body) >= 20:
            yield replace(document, body=body)


def _is_held_out(document: Document) -> bool:
    if document.page.startswith("test."):
        return False
    digest = hashlib.sha256(document.name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < HELD_OUT_PER_MILLE


def windows(text: str) -> Iterator[str]:
    """Every stretch of 40 characters of `text`, white space collapsed, case ignored."""
    flat = collapsed(text).lower()
    return (flat[at : at + WINDOW] for at in range(len(flat) - WINDOW + 1))


def shared_windows(held_out: Iterable[str], training: Iterable[str]) -> set[str]:
    """The 40-character windows of `held_out` that occur anywhere in `training`."""
    wanted = {window for text in held_out for window in windows(text)}
    return {window for text in training for window in windows(text) if window in wanted}


def _paragraphs(document: Document) -> list[str]:
    return [p for p in document.body.split("\n\n") if p.strip()]


def _never_seen(held_out: list[Document], training: list[Document]) -> Iterator[Document]:
    texts = [p for d in held_out for p in (*_paragraphs(d), d.heading)]
    shared = shared_windows(texts, (d.text for d in training))
    for document in held_out:
        kept = [p for p in _paragraphs(document) if shared.isdisjoint(windows(p))]
        heading = document.heading if shared.isdisjoint(windows(document.heading)) else ""
        if sum(map(len, kept)) >= 2 * WINDOW:
            yield replace(document, heading=heading, body="\n\n".join(kept))


def collect() -> Corpus:
    """All text, split; takes about half a minute."""
    documents, sources = list(_topics()), []
    for module, text in _stdlib():
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue  # a template or a deliberately broken file
        documents += [*_documented(module, tree), *_comments(module, text)]
        if not module.startswith("test"):
            sources += list(_sources(module, tree))
    unique = list(_unrepeated(documents))
    training = [d for d in unique if not _is_held_out(d)]
    code = list(_unrepeated(sources))
    held_out = _never_seen([d for d in unique if _is_held_out(d)], training + code)
    return Corpus(tuple(training), tuple(code), tuple(held_out))
