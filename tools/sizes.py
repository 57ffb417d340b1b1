"""Keeps files short, functions small and nesting shallow: fails and names what is too large."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("pipelines", "assets", "native", "registry", "src/quantmint")
MEDIAN_FILE, LONGEST_FILE = 150, 600
P90_FUNCTION, LONGEST_FUNCTION = 36, 80
DEEPEST = 4
NATIVE_SUFFIXES = {".cpp", ".h", ".hpp", ".cmake"}
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)


def tracked() -> list[Path]:
    """Return the source files that git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS, "tests"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = (Path(name) for name in listed.splitlines())
    return [p for p in paths if p.is_file() and p.suffix in {".py", *NATIVE_SUFFIXES}]


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Yield each function's name, its length in lines and its depth of nesting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1, depth(node) - 1


def depth(node: ast.AST, *, is_elif: bool = False) -> int:
    """Return how deep blocks stand in each other below `node`; an `elif` is no deeper."""
    children = list(ast.iter_child_nodes(node))
    own = isinstance(node, (*BLOCKS, ast.FunctionDef, ast.AsyncFunctionDef)) and not is_elif
    tail = getattr(node, "orelse", []) if isinstance(node, ast.If) else []
    chain = tail[0] if len(tail) == 1 and isinstance(tail[0], ast.If) else None
    inner = [depth(child, is_elif=child is chain) for child in children
             if not isinstance(child, ast.FunctionDef | ast.ClassDef)]  # fmt: skip
    return int(own) + max(inner, default=0)


def main() -> int:
    """Check everything; return the exit code."""
    problems: list[str] = []
    lengths: list[int] = []
    sizes: list[int] = []
    for path in tracked():
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > LONGEST_FILE:
            problems.append(f"{path}: {lines} lines, at most {LONGEST_FILE}")
        if path.suffix != ".py":
            continue
        if path.parts[0] != "tests" and lines > 3:
            sizes.append(lines)
        for name, length, deep in functions(ast.parse(text)):
            lengths.append(length)
            if length > LONGEST_FUNCTION:
                problems.append(f"{path}: {name} has {length} lines, at most {LONGEST_FUNCTION}")
            if deep > DEEPEST:
                problems.append(f"{path}: {name} nests {deep} deep, at most {DEEPEST}")
    p90 = statistics.quantiles(lengths, n=10)[-1]
    median = statistics.median(sizes)
    if p90 > P90_FUNCTION:
        problems.append(f"90 % of functions have up to {p90:.0f} lines, at most {P90_FUNCTION}")
    if median > MEDIAN_FILE:
        problems.append(f"the median file has {median:.0f} lines, at most {MEDIAN_FILE}")
    print("\n".join(problems) or f"sizes: median file {median:.0f}, p90 function {p90:.0f} lines")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
