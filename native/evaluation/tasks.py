"""Reading sets of multiple-choice questions: typed, strict, and bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantmint.errors import UserError
from quantmint.native.evaluation.jobs import Item, Task

LARGEST = 1 << 20
_Text = Annotated[str, Field(min_length=1, max_length=2000)]


class _Item(BaseModel):
    """`right` is how the text really goes on; `wrong` are the other options."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stem: _Text
    right: _Text
    wrong: Annotated[list[_Text], Field(min_length=1, max_length=9)]


class _TaskFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    task: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
    about: _Text
    licence: _Text
    items: Annotated[list[_Item], Field(min_length=1, max_length=5000)]


def load_task(path: Path) -> Task:
    """Read one file of questions.

    The place of the right option goes round with the item's number, so that a model which always
    takes one place is at chance.

    Raises:
        UserError: the file is missing, too large or not as it should be.
    """
    mend = "see assets/embedded/tasks for the form of such a file"
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"the task {path} is larger than {LARGEST} bytes", mend=mend)
        value = _TaskFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"there is no task {path}", mend=mend) from None
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the task {path} is malformed: {error}", mend=mend) from None
    items = tuple(_placed(item, number) for number, item in enumerate(value.items))
    if len({(item.stem, item.options) for item in items}) != len(items):
        raise UserError(f"the task {path} has an item twice", mend=mend)
    return Task(value.task, items)


def _placed(item: _Item, number: int) -> Item:
    if item.right in item.wrong or len(set(item.wrong)) != len(item.wrong):
        raise UserError(f"the item {item.stem!r} has an option twice")
    place = number % (1 + len(item.wrong))
    options = (*item.wrong[:place], item.right, *item.wrong[place:])
    return Item(item.stem, options, place)
