"""A child process that asks the checkpoint's own tokenizer.

Reads `{"folder": ..., "texts": [...], "added": [...], "conversations": [...]}` from standard
input and writes, as the last line of standard output, `{"ids": [[...], ...], "rendered": [...],
"template": ...}`. Runs apart from us: tokenizer files are foreign input to a native parser, and
a template to a template engine. Code out of the checkpoint is never run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Classes that read a SentencePiece model. Any other, with no other file to read, can't be right.
READS_SENTENCEPIECE = frozenset(
    {"LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast", "T5Tokenizer"}
)


def main() -> None:
    """Answer the one request on standard input."""
    from transformers import AutoTokenizer

    request = json.load(sys.stdin)
    folder, texts = Path(request["folder"]), request["texts"]
    # A SentencePiece model alone is asked itself: transformers' conversion of one ranks runs of
    # spaces otherwise than SentencePiece does.
    alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    if alone:
        _check_class(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception:
        if not alone:
            raise
        answer = _without_transformers(folder, texts, request["added"])
    else:
        answer = _with(tokenizer, request)
        if alone:
            answer["ids"] = _by_sentencepiece(folder, texts, request["added"], answer["ids"])
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _with(tokenizer: Any, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    template = tokenizer.chat_template
    rendered = [] if template is None else [_render(tokenizer, c) for c in request["conversations"]]
    return {
        "ids": [list(tokenizer.encode(t, add_special_tokens=False)) for t in request["texts"]],
        "rendered": rendered,
        "template": None if template is None else tokenizer.get_chat_template(),
    }


def _without_transformers(
    folder: Path, texts: Sequence[str], added: Sequence[str]
) -> dict[str, Any]:
    """Ask SentencePiece alone: texts with added tokens stay unanswered, nothing is rendered."""
    config = folder / "tokenizer_config.json"
    template = json.loads(config.read_bytes()).get("chat_template") if config.is_file() else None
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        template = beside.read_text(encoding="utf-8")
    ids = _by_sentencepiece(folder, texts, added, [None] * len(texts))
    return {
        "ids": ids, "rendered": [], "template": template if isinstance(template, str) else None,
    }  # fmt: skip


def _check_class(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    declared = json.loads(path.read_bytes()).get("tokenizer_class") if path.is_file() else None
    if declared is not None and declared not in READS_SENTENCEPIECE:
        raise SystemExit(
            f"tokenizer_config.json names {declared}, which does not read tokenizer.model, "
            "the only tokenizer file"
        )


def _by_sentencepiece(
    folder: Path, texts: Sequence[str], added: Sequence[str], ids: Sequence[list[int] | None]
) -> list[list[int] | None]:
    """Return SentencePiece's ids of all texts that hold no added token, which it knows not."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [
        known if any(name in text for name in added) else list(model.encode(text))
        for text, known in zip(texts, ids, strict=True)
    ]


def _render(tokenizer: Any, conversation: list[dict[str, str]]) -> dict[str, Any]:  # noqa: ANN401
    """Return the conversation as text and token ids, or why the template refuses it."""
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # noqa: BLE001  (a template raises what it likes)
        return {"refused": str(error)[:200]}
    return {"text": text, "ids": list(tokenizer.encode(text, add_special_tokens=False))}


if __name__ == "__main__":
    main()
