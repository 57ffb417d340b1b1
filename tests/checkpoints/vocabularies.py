"""The vocabularies of the Phi family, from the vendored ones of the llama.cpp source tree."""

import functools
import json
import struct
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PHI_3_SPECIAL = {"<|endoftext|>": 32000, "<|assistant|>": 32001, "<|system|>": 32006}
PHI_3_SPECIAL |= {"<|end|>": 32007, "<|user|>": 32010}
PHI_3_SPECIAL |= {f"<|placeholder{at}|>": 32001 + at for at in range(1, 5)}
PHI_3_SPECIAL |= {f"<|placeholder{at}|>": 32003 + at for at in range(5, 7)}
PHI_4_SPECIAL = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259}
PHI_4_SPECIAL |= {"<|fim_suffix|>": 100260, "<|im_start|>": 100264, "<|im_end|>": 100265}
PHI_4_SPECIAL |= {"<|im_sep|>": 100266, "<|endofprompt|>": 100276}
PHI_3_TEMPLATE = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>\\n' + message['content'] "
    "+ '<|end|>\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI_4_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '<|im_sep|>' "
    "+ message['content'] + '<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
BYTE_LEVEL |= {"use_regex": True}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}


class _GGUF:
    """Just enough of a reader for vocabularies of 400,000 strings, ten times gguf-py's speed."""

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 8
        _, count = self._take("<QQ")
        self.values = {self._text(): self._value(self._take("<I")[0]) for _ in range(count)}

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found

    def _text(self) -> str:
        (length,) = self._take("<Q")
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == 8:
            return self._text()
        if kind != 9:
            return self._take(f"<{_SCALARS[kind]}")[0]
        item, count = self._take("<IQ")
        if item == 8:
            return [self._text() for _ in range(count)]
        return list(self._take(f"<{count}{_SCALARS[item]}"))


@functools.cache
def vocabulary(llama_source: Path, name: str) -> Json:
    return _GGUF(llama_source / "models" / f"ggml-vocab-{name}.gguf").values


def added_tokens(tokens: dict[str, int], *, special: bool = True, strip: bool = False) -> Any:
    flags = {"lstrip": False, "normalized": False, "single_word": False, "special": special}
    return {str(at): {"content": token, "rstrip": strip, **flags} for token, at in tokens.items()}


def write_json(folder: Path, **files: object) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def _tokenizer_json(model: Json, added: Any, **parts: Any) -> Json:
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer"))
    # In order of id: the tokenizers library numbers them as they come.
    listed = [{"id": at, **added[str(at)]} for at in sorted(map(int, added))]
    bpe: Json = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False} | model
    rest: Json = {"post_processor": None, "decoder": None} | parts
    return {"version": "1.0", **empty, "added_tokens": listed, **rest, "model": bpe}


def _piece(text: str, score: float, kind: int) -> bytes:
    body = b"\x0a" + _varint(len(text.encode())) + text.encode()
    body += b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
    return b"\x0a" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _sentencepiece(pieces: list[str], scores: list[float], kinds: list[int]) -> bytes:
    """A ModelProto: BPE with byte fallback, no normalisation.  By hand, for protobuf's Python
    runtime is often too old for the definition that sentencepiece carries."""
    fixed = {0: 2, 1: 3, 2: 3}  # <unk> is unknown, <s> and </s> are control
    body = b"".join(
        _piece(text, 0.0 if at in fixed else score, fixed.get(at, kind))
        for at, (text, score, kind) in enumerate(zip(pieces, scores, kinds, strict=True))
    )
    trainer = b"\x18\x02" + b"\x20" + _varint(len(pieces)) + b"\x98\x02\x01"
    normalizer = b"\x0a\x08identity" + b"\x18\x01" + b"\x20\x00" + b"\x28\x01"
    body += b"\x12" + _varint(len(trainer)) + trainer
    return body + b"\x1a" + _varint(len(normalizer)) + normalizer


def write_phi_3_tokenizer(folder: Path, llama_source: Path) -> None:
    values = vocabulary(llama_source, "phi-3")
    pieces, scores, kinds = (
        values[f"tokenizer.ggml.{part}"][:32000] for part in ("tokens", "scores", "token_type")
    )
    (folder / "tokenizer.model").write_bytes(_sentencepiece(pieces, scores, kinds))
    added = added_tokens({"<unk>": 0, "<s>": 1}) | added_tokens(
        {"</s>": 2}, special=False, strip=True
    )
    added |= added_tokens(PHI_3_SPECIAL, strip=True)
    added["32000"]["rstrip"] = False
    ids = {piece: at for at, piece in enumerate(pieces)}
    # SentencePiece merges by score; runs of spaces have the lowest and come last.
    ranked = sorted(zip(pieces, scores, kinds, strict=True), key=lambda row: -row[1])
    merges = [
        [piece[:cut], piece[cut:]]
        for piece, _, kind in ranked
        for cut in range(1, len(piece))
        if kind == 1 and piece[:cut] in ids and piece[cut:] in ids
    ]
    steps: list[Json] = [{"type": "Prepend", "prepend": "▁"}]
    steps += [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    back: list[Json] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    back += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    back += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model: Json = {"vocab": ids, "merges": merges, "unk_token": "<unk>", "fuse_unk": True}
    whole = _tokenizer_json(
        model | {"byte_fallback": True},
        added,
        normalizer={"type": "Sequence", "normalizers": steps},
        decoder={"type": "Sequence", "decoders": back},
    )
    config: Json = {"add_bos_token": False, "add_eos_token": False, "added_tokens_decoder": added}
    config |= {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config |= {"unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer", "legacy": False}
    config |= {"chat_template": PHI_3_TEMPLATE, "clean_up_tokenization_spaces": False}
    write_json(folder, added_tokens=PHI_3_SPECIAL, tokenizer=whole, tokenizer_config=config)


def write_bpe_tokenizer(
    folder: Path, base: Json, count: int, added: Any, config: Json, **parts: Any
) -> None:
    ids = {token: at for at, token in enumerate(base["tokenizer.ggml.tokens"][:count])}
    pairs = (merge.split(" ") for merge in base["tokenizer.ggml.merges"])
    merges = [[a, b] for a, b in pairs if a in ids and b in ids and a + b in ids]
    model: Json = {"vocab": ids, "merges": merges}
    whole = _tokenizer_json(model, added, decoder=BYTE_LEVEL, **parts)
    config = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False} | config
    write_json(folder, vocab=ids, tokenizer=whole, tokenizer_config=config)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
