"""A child process that tokenizes with the checkpoint's own tokenizer.

Reads `{"folder": ..., "texts": [...]}` from standard input, writes `{"ids": [[...], ...]}` as the
last line of standard output. Runs apart from us: tokenizer files are foreign input to a native
parser. Code out of the checkpoint is never run.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Answer the one request on standard input."""
    from transformers import AutoTokenizer

    request = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(
        request["folder"], trust_remote_code=False, local_files_only=True
    )
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in request["texts"]]
    sys.stdout.write("\n" + json.dumps({"ids": ids}) + "\n")


if __name__ == "__main__":
    main()
