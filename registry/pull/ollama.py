"""Ollama's Modelfile for a GGUF file: text only, no template is rendered here.

Ollama renders Go templates, a GGUF file carries a Jinja one. Where the Jinja template writes the
marks of a format that is known, the same format in Go is given; else Ollama is left to find one.
Format: Ollama, docs/modelfile.md; templates: docs/template.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from quantmint.registry.gguf import Gguf
from quantmint.registry.stops import TEMPLATE, stop_texts

_SYSTEM: Final = "{{ if .System }}%s{{ .System }}%s{{ end }}"
_PROMPT: Final = "{{ if .Prompt }}%s{{ .Prompt }}%s{{ end }}"
# The marks that a Jinja template must write, all of them, and how each turn then begins and ends.
_FORMATS: Final = (
    (("<|im_start|>", "<|im_sep|>"),
     ("<|im_start|>system<|im_sep|>", "<|im_end|>"),
     ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
     ("<|im_start|>assistant<|im_sep|>", "<|im_end|>")),
    (("<|im_start|>",),
     ("<|im_start|>system\n", "<|im_end|>\n"),
     ("<|im_start|>user\n", "<|im_end|>\n"),
     ("<|im_start|>assistant\n", "<|im_end|>\n")),
    (("<|start_header_id|>", "<|eot_id|>"),
     ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
     ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
     ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>")),
    (("<start_of_turn>", "<end_of_turn>"),
     ("<start_of_turn>user\n", "<end_of_turn>\n"),
     ("<start_of_turn>user\n", "<end_of_turn>\n"),
     ("<start_of_turn>model\n", "<end_of_turn>\n")),
)  # fmt: skip
_PHI: Final = (
    ("<|system|>", "<|end|>"), ("<|user|>", "<|end|>"), ("<|assistant|>", "<|end|>")
)  # fmt: skip


def modelfile(header: Gguf, path: Path, context: int | None = None) -> str:
    """Return a Modelfile for the file at `path`.

    Raises:
        ValueError: the path holds characters that a Modelfile can't.
    """
    if not str(path).isprintable() or '"' in str(path):
        raise ValueError("the path")
    lines = [f"FROM {path}"]
    template = go_template(header)
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    plain = (text for text in stop_texts(header) if '"' not in text and "\\" not in text)
    lines += [f'PARAMETER stop "{text}"' for text in plain]
    if context is not None:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def go_template(header: Gguf) -> str | None:
    """Return the format of a file's chat template as a Go template, if it is a known one."""
    jinja = header.values.get(TEMPLATE)
    if not isinstance(jinja, str):
        return None
    for marks, system, user, assistant in _FORMATS:
        if all(mark in jinja for mark in marks):
            return _written(system, user, assistant)
    if "<|end|>" not in jinja:
        return None
    # Phi-3 and 3.5 write a line break behind each mark, Phi-4-mini does not. Both take the role's
    # name out of the message, so the marks of the roles need not stand in the template.
    if not ("<|user|>" in jinja or "'<|' +" in jinja or "<|{{" in jinja):
        return None
    gap = "\n" if "\\n" in jinja or "|>\n" in jinja else ""
    system, user, assistant = ((f"{begin}{gap}", f"{end}{gap}") for begin, end in _PHI)
    return _written(system, user, assistant)


def _written(system: tuple[str, str], user: tuple[str, str], assistant: tuple[str, str]) -> str:
    return _SYSTEM % system + _PROMPT % user + assistant[0] + "{{ .Response }}" + assistant[1]
