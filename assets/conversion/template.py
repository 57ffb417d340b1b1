"""The check that a conversation reads the same in the source and in the converted file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from quantmint.assets.conversion.corpus import CONVERSATIONS
from quantmint.assets.conversion.source_side import SourceSays, ask_source
from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.verdict import NotMadeError, Verdict, judge
from quantmint.errors import BuildError, IntegrityError
from quantmint.files import digest_of
from quantmint.native.build import Bundle
from quantmint.native.conversion.ask import ask, prompt_ids
from quantmint.registry.actions import Action

CHECK: Final = "template"
KEY: Final = "tokenizer.chat_template"
MEND: Final = (
    "the file would be prompted otherwise than the model was trained: correct the checkpoint's "
    "chat template (tokenizer_config.json or chat_template.jinja), then build again"
)


def check_template(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> Verdict:
    """Compare the template itself, its renderings as text and their token ids with the source's."""
    action = Action(
        name=CHECK,
        inputs={"source": source.blob.sha256, "fp16": made.blob.sha256},
        tools={"bundle": bundle.tree.sha256, **converter_identity()},
        arguments={"conversations": digest_of(CONVERSATIONS)},
    )
    return judge(mint, action, lambda: _compare(mint, recipe, source, made, bundle))


def _compare(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    if not source.is_checkpoint:
        raise NotMadeError("the source is a GGUF file: there is no other template to compare with")
    says = ask_source(mint, recipe, source)
    ours = made.header.values.get(KEY)
    if says.template != ours:
        raise IntegrityError(
            f"the chat template's sha256 is {_digest(ours)}, the source's {_digest(says.template)}",
            mend=MEND,
        )
    if says.template is None:
        return "the source has no chat template, and neither has the file", {}
    if not says.rendered:
        raise NotMadeError(
            "the template is the source's, but transformers can't load this tokenizer "
            "(tokenizer.model alone), so there is no rendering to compare with"
        )
    path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, CHECK)
    try:
        found = ask(bundle, path, ["render"], log, conversations=CONVERSATIONS)["render"]
    except BuildError as error:
        raise IntegrityError(f"the template can't be rendered: {error.what}", mend=MEND) from None
    compared = _same(says, found)
    turns = _by_llama_cpp(mint, recipe, made, bundle, says)
    facts = {
        "template_sha256": _digest(says.template), "conversations": compared,
        "refused": len(CONVERSATIONS) - compared, "by_llama_cpp": turns,
    }  # fmt: skip
    reason = (
        f"the template is the source's (sha256 {_digest(says.template)[:16]}); {compared} "
        f"conversations render to the same text and token ids, {turns} of them in llama.cpp's own "
        "engine as well"
    )
    return reason, facts


def _same(says: SourceSays, found: Sequence[Mapping[str, Any]]) -> int:
    """Return how many conversations both render, and equally; what both refuse is as equal."""
    compared = 0
    for at, (theirs, ours) in enumerate(zip(says.rendered, found, strict=True)):
        if "refused" in theirs and "refused" in ours:
            continue
        for kind in ("text", "ids"):
            if theirs.get(kind) != ours.get(kind):
                raise IntegrityError(_say(at, kind, theirs, ours), mend=MEND)
        compared += 1
    if not compared:
        raise IntegrityError("the template refuses every conversation", mend=MEND)
    return compared


def _by_llama_cpp(
    mint: Mint, recipe: Recipe, made: Converted, bundle: Bundle, says: SourceSays
) -> int:
    """Compare single turns, which is what the tool can be given, in llama.cpp's own engine."""
    compared = 0
    for at, (conversation, theirs) in enumerate(zip(CONVERSATIONS, says.rendered, strict=True)):
        *before, last = conversation
        plain = all(message["content"].strip() for message in conversation)
        if "refused" in theirs or not plain or [m["role"] for m in before] not in ([], ["system"]):
            continue
        path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, "template-llama.cpp")
        system = before[0]["content"] if before else None
        try:
            ids = prompt_ids(bundle, path, last["content"], system, log=log)
        except BuildError as error:
            raise IntegrityError(
                f"llama.cpp can't render the template: {error.what}", mend=MEND
            ) from None
        if ids != theirs["ids"]:
            raise IntegrityError(_say(at, "ids", theirs, {"ids": ids}), mend=MEND)
        compared += 1
    return compared


def _say(at: int, kind: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    first, second = (theirs.get(kind, theirs), ours.get(kind, ours))
    what = "text" if kind == "text" else "token ids"
    return (
        f"conversation {at + 1} of {len(CONVERSATIONS)} becomes other {what} than in the source: "
        f"{str(second)[:300]} instead of {str(first)[:300]}"
    )


def _digest(template: object) -> str:
    return "none" if template is None else hashlib.sha256(str(template).encode()).hexdigest()
