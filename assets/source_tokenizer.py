"""A child process that tokenizes with the checkpoint's own tokenizer.

Reads `{"folder": ..., "texts": [...]}` from standard input, writes `{"ids": [[...], ...]}` as the
last line of standard output. Runs apart from us: tokenizer files are foreign input to a native
parser. Code out of the checkpoint is never run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

# Classes that read a SentencePiece model. Any other, with no other file to read, can't be right.
READS_SENTENCEPIECE = frozenset(
    {"LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast", "T5Tokenizer"}
)


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    folder, texts = Path(request["folder"]), request["texts"]
    # A SentencePiece model alone is asked itself: transformers' conversion of one ranks runs of
    # spaces otherwise than SentencePiece does.
    alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    ids = _sentencepiece(folder, texts) if alone else _transformers(folder, texts)
    sys.stdout.write("\n" + json.dumps({"ids": ids}) + "\n")


def _sentencepiece(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    from sentencepiece import SentencePieceProcessor

    path = folder / "tokenizer_config.json"
    declared = json.loads(path.read_bytes()).get("tokenizer_class") if path.is_file() else None
    if declared is not None and declared not in READS_SENTENCEPIECE:
        raise SystemExit(
            f"tokenizer_config.json names {declared}, which does not read tokenizer.model, "
            "the only tokenizer file"
        )
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [list(model.encode(text)) for text in texts]


def _transformers(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    return [list(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


if __name__ == "__main__":
    main()
