"""Model files: YAML to a typed recipe, with errors that name the line and the nearest legal key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator
from yaml.constructor import SafeConstructor

from quantmint import names
from quantmint.assets.recipe import Recipe, Strict
from quantmint.assets.release.terms import Terms
from quantmint.errors import UserError, nearest
from quantmint.yaml_loader import SAFE_LOADER

SIZE_LIMIT: Final = 256 << 10
MOST_NESTED: Final = 20
SUFFIX: Final = ".yaml"
# What PyYAML lets escape beside its own errors, on a bad date or tag, say.
_NO_YAML: Final = (
    yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
)  # fmt: skip


# Minute, hour, day of the month, month, day of the week: the numbers that each may hold.
_CRON_FIELDS: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART: Final = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?")
_LONGEST_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Refresh(Strict):
    """When upstream is looked at: five cron fields of numbers, in UTC."""

    cron: Annotated[str, Field(max_length=100)]

    @field_validator("cron")
    @classmethod
    def _fires(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != len(_CRON_FIELDS):
            raise ValueError(f"{value!r} is no cron line of five fields")
        for field, (least, most) in zip(fields, _CRON_FIELDS, strict=True):
            for part in field.split(","):
                found = _CRON_PART.fullmatch(part)
                ends = [int(n) for n in found.groups()[:2] if n] if found else []
                if not found or ends != sorted(ends) or any(not least <= n <= most for n in ends):
                    raise ValueError(
                        f"{part!r} of {value!r} is no cron field between {least} and {most}"
                    )
        _, _, day, month, weekday = fields
        is_date = day.isdigit() and month.isdigit() and weekday == "*"
        if is_date and int(day) > _LONGEST_MONTH[int(month) - 1]:
            raise ValueError(f"{value!r} names a day that never comes")
        return value


class ModelSpec(Recipe):
    """One model file: the recipe, and how it is released and refreshed."""

    release: Terms | None = None
    refresh: Refresh | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model file that was read: its spec, and the file, to which its paths are relative."""

    spec: ModelSpec
    file: Path

    @property
    def base(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.file.parent


def model_folders() -> list[Path]:
    """Return the folders that model files are looked for in: ours, then `QUANTMINT_MODELS`."""
    extra = os.environ.get("QUANTMINT_MODELS", "")
    return [Path(__file__).parent / "models", *(Path(p) for p in extra.split(os.pathsep) if p)]


def shipped() -> dict[str, Path]:
    """Return the model files by model name."""
    files: dict[str, Path] = {}
    for folder in model_folders():
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            files[path.stem] = path
    return files


def find_model(named: str) -> Model:
    """Return the model of that name, or the one that the file `named` describes.

    Raises:
        UserError: there is no such model, or its file is not valid.
    """
    if named.endswith((SUFFIX, ".yml")) or os.sep in named:
        return load_model(Path(named))
    files = shipped()
    if named not in files:
        raise UserError(
            f"there is no model {named[: names.LONGEST]!r}{nearest(named, files)}",
            mend="quantmint models   (lists them); or give the path of a model file",
        )
    return load_model(files[named])


def load_all() -> tuple[list[Model], dict[Path, str]]:
    """Return every model that has a file, in order of name; and why a file can't be read."""
    models: list[Model] = []
    unreadable: dict[Path, str] = {}
    for path in shipped().values():
        try:
            models.append(load_model(path))
        except UserError as error:
            unreadable[path] = str(error)
    return models, unreadable


def load_model(path: Path) -> Model:
    """Read and check one model file.

    Raises:
        UserError: it can't be read, or something in it is unknown, missing or wrong; the message
            names the line.
    """
    node, value = _read_yaml(path)
    try:
        spec = ModelSpec.model_validate(value)
    except ValidationError as error:
        raise _explain(path, node, error) from None
    if path.parent in model_folders() and path.stem != spec.model:
        raise UserError(
            f"{path.name} describes the model {spec.model!r}",
            mend=f"rename the file to {spec.model}{SUFFIX}, or correct `model:`",
        )
    return Model(spec, path.absolute())


def _read_yaml(path: Path) -> tuple[yaml.Node, Any]:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise UserError(f"{path} is larger than {SIZE_LIMIT} bytes: no model file is")
        text = path.read_text(encoding="utf-8")
        _refuse_odd(path, text)
        node = yaml.compose(text, Loader=SAFE_LOADER)
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path} holds no keys and values", mend="see docs/models.md")
        _refuse_doubles(path, node)
        return node, SafeConstructor().construct_document(node)
    except OSError as error:
        raise UserError(
            f"the model file {path} can't be read: {error.strerror}",
            mend="quantmint models   (lists the names that need no path)",
        ) from None
    except _NO_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{where}: no valid YAML: {problem}", mend="correct that line") from None


def _refuse_odd(path: Path, text: str) -> None:
    """A few aliases of aliases stand for billions of nodes, deep nesting ends the loader in C."""
    depth = 0
    for event in yaml.parse(text, Loader=SAFE_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}:{line}: aliases are refused", mend="write the value out")
        if depth > MOST_NESTED:
            raise UserError(
                f"{path}:{line}: nested more than {MOST_NESTED} deep: no model file is",
                mend="correct that line",
            )


def _refuse_doubles(path: Path, node: yaml.Node) -> None:
    """YAML lets a key stand twice and keeps the last; a typo must not vanish that way."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(
                    f"{path}:{key.start_mark.line + 1}: a key is a plain word",
                    mend="correct that line",
                )
            if key.value in seen:
                raise UserError(
                    f"{path}:{key.start_mark.line + 1}: key {key.value!r} stands twice",
                    mend="remove one of them",
                )
            seen.add(key.value)
            _refuse_doubles(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_doubles(path, value)


def _explain(path: Path, node: yaml.Node, error: ValidationError) -> UserError:
    lines = []
    found_all = error.errors()
    # Of a union pydantic reports every branch: the text branch says nothing about a mapping.
    relevant = [found for found in found_all if found["loc"][-1:] != ("str",)] or found_all
    for found in relevant:
        place = _line_of(node, found["loc"])
        where = ".".join(str(p) for p in found["loc"] if p not in _UNION_BRANCHES)
        lines.append(f"{path}:{place}: {_say(found, where)}")
    return UserError("\n".join(lines), mend="correct the model file; its keys: docs/models.md")


_UNION_BRANCHES: Final = frozenset({"str", "PackageFile", "TextFile"})


def _say(found: Any, where: str) -> str:  # noqa: ANN401
    if found["type"] == "extra_forbidden":
        *parents, key = found["loc"]
        return f"unknown key {key!r}{nearest(str(key), _legal_keys(parents))}"
    if found["type"] == "missing":
        return f"key {where!r} is missing"
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _legal_keys(parents: list[Any]) -> list[str]:
    """Return the keys that are legal inside the mapping at `parents`."""
    kind: Any = ModelSpec
    for part in parents:
        field = kind.model_fields.get(part) if _is_model(kind) else None
        if field is not None:
            options = [field.annotation, *getattr(field.annotation, "__args__", ())]
            kind = next((option for option in options if _is_model(option)), kind)
        elif isinstance(part, str) and _is_model(kind):
            # Inside a union pydantic names the class that it tried.
            kind = next((s for s in Strict.__subclasses__() if s.__name__ == part), kind)
    return sorted(kind.model_fields)


def _is_model(kind: Any) -> bool:  # noqa: ANN401
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _line_of(node: yaml.Node, loc: tuple[Any, ...]) -> int:
    """Return the line, from 1, of the value at `loc`, or of the nearest thing around it."""
    line = node.start_mark.line
    for part in loc:
        step = _child(node, part)
        if step is None:
            continue  # the name of a union's branch, or a key that is not there
        line, node = step
    return line + 1


def _child(node: yaml.Node, part: Any) -> tuple[int, yaml.Node] | None:  # noqa: ANN401
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line, item
    return None
