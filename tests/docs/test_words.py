"""What the documents name is there: commands, options, variables, messages, files."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from helpers import ROOT
from quantmint.registry.cli import COMMANDS, cli

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = [ROOT / name for name in ("src/quantmint", "pipelines", "assets", "native", "registry")]
OPERATIONS = ROOT / "docs" / "operations.md"
# A command in a code span or at the start of a line of a code block; words after two blanks tell
# about it.
USE = re.compile(r"(?:`|^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*)quantmint ([a-z][^`\n]*)", re.MULTILINE)
CODE = re.compile(r"^\s*```.*?^\s*```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")


def uses(text: str) -> set[str]:
    """Return what follows `quantmint` in code, as people would type it."""
    found = (use[1] for code in CODE.finditer(text) for use in USE.finditer(code[0]))
    return {re.split(r"\s{2,}|\s#\s|\s\|\s", use)[0].strip() for use in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_is_there(document: Path) -> None:
    wrong = [use for use in sorted(uses(document.read_text(encoding="utf-8"))) if not is_there(use)]
    assert wrong == []


def is_there(use: str) -> bool:
    name, *words = use.split()
    if name not in COMMANDS:
        return False
    command = cli.get_command(click.Context(cli), name)
    if isinstance(command, click.Group) and words and words[0].isalpha():
        command = command.commands.get(words[0])
    if command is None:
        return False
    known = {word for each in command.params for word in (*each.opts, *each.secondary_opts)}
    asked = {found for word in words for found in re.findall(r"^\[?(--?[a-z][a-z-]*)", word)}
    return asked <= known | {"--help"}


def test_the_table_of_variables_is_complete() -> None:
    table = OPERATIONS.read_text(encoding="utf-8").partition("## Environment")[2]
    rows = [line.split("|")[1] for line in table.partition("\n## ")[0].splitlines() if "|" in line]
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    files = [path for folder in PACKAGES for path in sources(folder)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    read = set(re.findall(r"QUANTMINT_[A-Z]+(?:_[A-Z]+)*", text))
    assert {name for name in named if name.startswith("QUANTMINT_")} == read
    assert [name for name in sorted(named - read) if not re.search(rf"\b{name}\b", text)] == []


def test_every_message_that_is_explained_is_said() -> None:
    table = OPERATIONS.read_text(encoding="utf-8").partition("## Trouble")[2]
    said = [found for row in table.splitlines() for found in re.findall(r"^\| `([^`]+)`", row)]
    files = [path for folder in PACKAGES for path in sources(folder) if path.suffix == ".py"]
    # A message may be written in several pieces.
    text = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in files
    )
    assert len(said) > 10
    assert [message for message in said if message not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    wrong = []
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor[1:] not in anchors(target)):
            wrong.append(path + anchor)
    assert wrong == []


def anchors(document: Path) -> set[str]:
    """Return the anchors that headings get where Markdown is shown."""
    heads = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def sources(folder: Path) -> list[Path]:
    """Return a package's sources, without those that links lead to."""
    kinds = {".py", ".cpp", ".h", ".cmake", ".txt"}
    return [path for path in folder.rglob("*") if path.suffix in kinds and path.is_file()]
