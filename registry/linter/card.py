"""Rules on the small files: the card's front matter, `.gitattributes`, Ollama's `params`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

from quantmint.registry.linter.listing import Finding, Listing

FRONT_MATTER_LIMIT: Final = 64 << 10
# What a repository of ours ships: everything large goes through LFS or xet, and pictures do: for
# a binary file that is not routed the Hub adds a line of its own to the file.
ATTRIBUTES: Final = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    for pattern in ("*.gguf", "*.imatrix", "*.dat", "*.png")
)
_LARGE: Final = (".gguf", ".imatrix", ".dat")
_REPO: Final = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}")


class _UnreadableError(ValueError):
    """The front matter can't be read; the message says why."""


def front_matter(readme: str) -> dict[str, Any]:
    """Return the YAML mapping between the two `---` lines at the top of a card.

    Only plain YAML is read: no tag makes an object.

    Raises:
        ValueError: there is none, it is too large, or it is no YAML mapping.
    """
    import yaml

    text = readme.replace("\r\n", "\n")
    if not text.startswith("---\n"):
        raise _UnreadableError("does not start with a line `---`")
    body, end, _ = text[4:].partition("\n---\n")
    if not end:
        raise _UnreadableError("has no second line `---`")
    if len(body) > FRONT_MATTER_LIMIT:
        raise _UnreadableError(f"is longer than {FRONT_MATTER_LIMIT >> 10} KiB")
    try:
        value = yaml.safe_load(body)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        raise _UnreadableError(f"is no YAML: {problem}") from None
    if not isinstance(value, dict):
        raise _UnreadableError("is no mapping of keys to values")
    return value


def check_card(listing: Listing) -> Iterator[Finding]:
    """The front matter has what puts a repository into the model tree, and its license.

    Sources: hub-docs, `docs/hub/model-cards.md` (base_model, base_model_relation, license,
    license_name, license_link, tags, pipeline_tag, library_name).
    """
    readme = listing.find("README.md")
    if readme is None or (readme.text is None and not readme.size):
        yield Finding("card", "error", "there is no README.md", "write the card from the manifest")
        return
    if readme.text is None:
        return
    try:
        matter = front_matter(readme.text)
    except ValueError as error:
        what = f"README.md: its front matter {error}"
        yield Finding("card", "error", what, "write the card from the manifest again")
        return
    yield from _check_base(matter)
    yield from _check_license(matter, listing)
    tags = matter.get("tags")
    if not isinstance(tags, list) or "gguf" not in tags:
        yield _card("error", "tags does not list `gguf`", "tags: [gguf]")
    for key in ("pipeline_tag", "library_name", "quantized_by", "language"):
        if not matter.get(key):
            yield _card("warning", f"{key} is missing", f"{key}: ...")


def _check_base(matter: dict[str, Any]) -> Iterator[Finding]:
    bases = matter.get("base_model")
    bases = bases if isinstance(bases, list) else [bases]
    if not bases or not all(isinstance(b, str) and _REPO.fullmatch(b) for b in bases):
        what = "base_model names no repository: it is not shown below its base model"
        yield _card("error", what, "base_model: OWNER/NAME")
    if matter.get("base_model_relation") != "quantized":
        what = "base_model_relation is not `quantized`"
        yield _card("error", what, "base_model_relation: quantized")


def _check_license(matter: dict[str, Any], listing: Listing) -> Iterator[Finding]:
    name = matter.get("license")
    if not isinstance(name, str) or not name.strip():
        yield _card("error", "license is missing or no text", "license: mit (as the source's)")
    elif name == "other":
        for key in ("license_name", "license_link"):
            if not isinstance(matter.get(key), str):
                yield _card("error", f"license is `other` without {key}", f"{key}: ...")
    link = matter.get("license_link")
    if link is not None and not (isinstance(link, str) and re.match(r"https://|LICENSE", link)):
        yield _card("error", "license_link is no https address and no file", "license_link: ...")
    elif link is not None and "://" not in link and link not in listing.paths:
        what = f"license_link is {link}, and there is no such file"
        yield _card("error", what, "license_link: ...")


def _card(severity: Any, what: str, line: str) -> Finding:  # noqa: ANN401
    return Finding("card", severity, f"README.md: {what}", f"put into the front matter: {line}")


def check_attributes(listing: Listing) -> Iterator[Finding]:
    """Every large file is routed to LFS or xet by `.gitattributes`.

    Source: hub-docs, `docs/hub/xet/overview.md` and `repositories-getting-started.md`.
    """
    file = listing.find(".gitattributes")
    if file is not None and file.text is None:
        return
    lines = file.text.splitlines() if file is not None and file.text else []
    bare = [p for p in listing.paths if p.endswith(_LARGE) and _filter_of(p, lines) != "lfs"]
    if bare:
        what = f".gitattributes routes {bare[0]} (of {len(bare)}) not to LFS"
        mend = f"add the line: *.{bare[0].rpartition('.')[2]} filter=lfs diff=lfs merge=lfs -text"
        yield Finding("attributes", "error", what, mend)


def _filter_of(path: str, lines: list[str]) -> str | None:
    """Return the value of `filter` for the path: the last line that matches decides."""
    found: str | None = None
    for line in lines:
        pattern, *words = line.split() or [""]
        if not pattern or pattern.startswith("#"):
            continue
        name = path if "/" in pattern else path.rpartition("/")[2]
        if not fnmatchcase(name, pattern.removeprefix("/")):
            continue
        for word in words:
            key, _, value = word.partition("=")
            if key.lstrip("-!") == "filter":
                found = value if key == "filter" else None
    return found


def check_ollama_files(listing: Listing) -> Iterator[Finding]:
    """`params` is a JSON object with stop texts, `template` is no Jinja.

    Source: hub-docs, `docs/hub/ollama.md` ("Custom Chat Template and Parameters").
    """
    params, template = listing.find("params"), listing.find("template")
    if params is not None and params.text is not None:
        try:
            value = json.loads(params.text)
        except (ValueError, RecursionError):
            value = None
        stops = value.get("stop", []) if isinstance(value, dict) else None
        if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
            what = "params is no JSON object with a list of texts under `stop`"
            yield Finding("ollama", "error", what, 'write it as {"stop": ["<|end|>"]}')
    if template is not None and "{%" in (template.text or ""):
        what = "template is Jinja; Ollama reads a Go template there"
        yield Finding("ollama", "error", what, "remove it: Ollama takes the one in the file")
