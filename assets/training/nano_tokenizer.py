"""The tokenizer of phi-3-nano: a small SentencePiece model, then Phi-3's own special tokens.

The special tokens follow the pieces in Phi-3's order, so that only the offset differs from the
real model (there the first of them is 32000).
"""

import io
import json
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece as spm
import tokenizers
from tokenizers import decoders, models, normalizers

from quantmint.assets.training.nano_chat import Turn

PIECES = 2032
VOCABULARY = 2048
SPECIAL = (
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
)
SPECIAL_IDS = {token: PIECES + at for at, token in enumerate(SPECIAL)}
END_OF_TEXT = SPECIAL_IDS["<|endoftext|>"]
ASSISTANT = SPECIAL_IDS["<|assistant|>"]
END = SPECIAL_IDS["<|end|>"]
USER = SPECIAL_IDS["<|user|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% elif message['role'] == 'user' %}"
    "{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids, as transformers and llama.cpp do it for Phi-3."""

    model: bytes

    def __post_init__(self) -> None:
        processor = spm.SentencePieceProcessor(model_proto=self.model)
        object.__setattr__(self, "_processor", processor)

    def ids(self, text: str) -> list[int]:
        """The ids of plain text, no special token added."""
        processor: Any = self._processor  # type: ignore[attr-defined]
        return list(processor.encode(text))

    def chat(self, turn: Turn) -> list[int]:
        """A whole exchange; line feeds after special tokens are stripped, as Phi-3's rules say."""
        question, answer = self.ids(turn.question), self.ids(turn.answer)
        return [USER, *question, END, ASSISTANT, *answer, END, END_OF_TEXT]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """BPE with byte fallback and no normalisation, the settings of Llama's and Phi-3's model."""
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.9995,
        required_chars=string.printable.strip(),
        max_sentence_length=16384,
        num_threads=2,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


def _added(token: str, *, right_strip: bool) -> dict[str, Any]:
    return {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": right_strip,
        "single_word": False,
    }


def _tokenizer_config() -> dict[str, Any]:
    decoder = {
        "0": _added("<unk>", right_strip=False) | {"special": True},
        "1": _added("<s>", right_strip=False) | {"special": True},
        "2": _added("</s>", right_strip=True) | {"special": False},
    }
    for token, at in SPECIAL_IDS.items():
        decoder[str(at)] = _added(token, right_strip=at != END_OF_TEXT) | {"special": True}
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": decoder,
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _merges(pieces: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each piece: in SentencePiece's BPE an earlier piece merges first."""
    return [
        (piece[:at], piece[at:])
        for piece in pieces
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]


def _fast(model: bytes) -> tokenizers.Tokenizer:
    """The same tokenizer as tokenizer.json holds it, for readers without SentencePiece."""
    processor: Any = spm.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(at) for at in range(PIECES)]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    learned = [p for at, p in enumerate(pieces) if not (at < 3 or processor.is_byte(at))]
    bpe = models.BPE(
        vocabulary,
        _merges(learned, vocabulary),
        unk_token="<unk>",  # noqa: S106 - a token of the vocabulary
        fuse_unk=True,
        byte_fallback=True,
    )
    fast = tokenizers.Tokenizer(bpe)
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    for added in _tokenizer_config()["added_tokens_decoder"].values():
        options = {key: value for key, value in added.items() if key != "content"}
        fast.add_tokens([tokenizers.AddedToken(added["content"], **options)])
    return fast


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that a Phi-3 folder holds for its tokenizer."""
    marks = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    special = {name: _added(token, right_strip=False) for name, token in marks.items()}
    special["unk_token"] = _added("<unk>", right_strip=False)
    (folder / "tokenizer.model").write_bytes(tokenizer.model)
    _fast(tokenizer.model).save(str(folder / "tokenizer.json"))
    for name, value in (
        ("added_tokens.json", SPECIAL_IDS),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", _tokenizer_config()),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
