"""A child process that compares every tensor of the FP16 file with the checkpoint's.

Reads `{"folder", "gguf", "gguf_py"}` from standard input and answers with
`{"compared": n, "wrong": [[name, how], ...], "unmatched": [...]}`. Runs apart from us, for the
safetensors library is a native parser. Memory stays small: tensors are read in slices.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from quantmint.registry import gguf

EXPERT: Final = re.compile(r"(?P<head>.*\.experts)\.(?P<at>\d+)\.(?P<tail>.*)")
SLICE: Final = 1 << 24
# One unit in the last place of F16, and half of its smallest number.
RELATIVE, ABSOLUTE = 2.0**-10, 2.0**-24


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    sys.path.insert(0, request["gguf_py"])
    header = gguf.read(Path(request["gguf"]))
    sources, unmatched = _match(Path(request["folder"]), header)
    wrong: list[tuple[str, str]] = []
    for tensor in header.tensors:
        if tensor.name in sources:
            problem = _compare(Path(request["gguf"]), tensor, sources[tensor.name])
            wrong += [] if problem is None else [(tensor.name, problem)]
    unmatched += [tensor.name for tensor in header.tensors if tensor.name not in sources]
    answer = {"compared": len(sources), "wrong": wrong, "unmatched": sorted(unmatched)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _match(folder: Path, header: gguf.Gguf) -> tuple[dict[str, list[tuple[Path, str]]], list[str]]:
    """Return where each GGUF tensor comes from (experts: from several), and what has no place."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from safetensors import safe_open

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    layers = int(header.values[f"{header.architecture}.block_count"])
    names = get_tensor_name_map(arch, layers)
    have = {tensor.name for tensor in header.tensors}
    found: dict[str, list[tuple[int, Path, str]]] = defaultdict(list)
    unmatched = []
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            listed = list(file.keys())
        for name in listed:
            expert = EXPERT.fullmatch(name)
            plain = f"{expert['head']}.{expert['tail']}" if expert else name
            target = names.get_name(plain, try_suffixes=(".weight", ".bias"))
            if target in have:
                found[target].append((int(expert["at"]) if expert else 0, shard, name))
            else:
                unmatched.append(name)
    return {key: [row[1:] for row in sorted(rows)] for key, rows in found.items()}, unmatched


def _compare(path: Path, tensor: gguf.Tensor, sources: list[tuple[Path, str]]) -> str | None:
    """Return what is wrong with a tensor; its source's weights, rounded, should be its own."""
    import numpy as np

    kinds = {"F16": "<f2", "F32": "<f4"}
    if tensor.type.name not in kinds:
        return f"it is {tensor.type.name}, neither F16 nor F32"
    ours = np.memmap(
        path, dtype=kinds[tensor.type.name], mode="r", offset=tensor.offset, shape=tensor.weights
    )
    at, differing, worst = 0, 0, 0.0
    for theirs in _slices(sources):
        mine = ours[at : at + len(theirs)].astype(np.float32)
        at += len(theirs)
        if len(mine) != len(theirs):
            break
        off = np.abs(mine - theirs)
        bad = ~(off <= RELATIVE * np.abs(theirs) + ABSOLUTE)  # a NaN is bad too
        differing += int(bad.sum())
        worst = max(worst, float(off.max(initial=0.0)))
    if at != tensor.weights:
        return f"it has {tensor.weights} weights, its source another number"
    return f"{differing} of {at} weights differ, by up to {worst:.3g}" if differing else None


def _slices(sources: list[tuple[Path, str]]) -> Iterator[Any]:
    """Yield the weights of the sources, one after another, as flat float32 arrays."""
    import torch
    from safetensors import safe_open

    for shard, name in sources:
        with safe_open(shard, framework="pt") as file:
            part = file.get_slice(name)
            shape = part.get_shape()
            rows = max(1, SLICE // max(1, int(torch.tensor(shape[1:]).prod())))
            for row in range(0, shape[0], rows):
                yield part[row : row + rows].to(torch.float32).flatten().numpy()


if __name__ == "__main__":
    main()
