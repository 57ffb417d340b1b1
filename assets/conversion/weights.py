"""The check that every tensor of the FP16 file is the checkpoint's, up to rounding; of any size."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from quantmint.assets.conversion.source_side import OFFLINE, source_folder
from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.sources.checkpoint import read_json
from quantmint.assets.verdict import NotMadeError, Verdict, judge
from quantmint.errors import IntegrityError
from quantmint.native.build import converter_script
from quantmint.process import Command, Limits, answer_of, run
from quantmint.registry import gguf
from quantmint.registry.actions import Action

CHECK: Final = "weights"
# The converter takes their weights as they are, but for experts, which it stacks.
AS_THEY_ARE: Final = frozenset({"PhiForCausalLM", "Phi3ForCausalLM", "PhiMoEForCausalLM"})
FACTORS: Final = {f"{name}_factor": f"rope_factors_{name}.weight" for name in ("short", "long")}
MEND: Final = "the converted file is damaged: build again; if it stays, the converter is at fault"


def check_weights(mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted) -> Verdict:
    """Compare all weights, LongRoPE's factors and the rotary base with the checkpoint's."""
    action = Action(
        name=CHECK,
        inputs={"source": source.blob.sha256, "fp16": made.blob.sha256},
        tools=converter_identity(),
        arguments={"version": 1},
    )
    return judge(mint, action, lambda: _compare(mint, recipe, source, made))


def _compare(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted
) -> tuple[str, Mapping[str, Any]]:
    if not source.is_checkpoint:
        raise NotMadeError("the source is a GGUF file: there is no checkpoint to compare with")
    if source.architecture not in AS_THEY_ARE:
        raise NotMadeError(
            f"the converter reorders or changes weights of {source.architecture}; the `logits` "
            "check covers them"
        )
    path = mint.store.path(made.blob.sha256)
    problems = _settings(mint, recipe, source, made)
    answer = _ask(mint, recipe, source, made)
    problems += [f"{name}: {how}" for name, how in answer["wrong"]]
    strange = [name for name in answer["unmatched"] if name not in FACTORS.values()]
    strange = [name for name in strange if not name.endswith("rotary_emb.inv_freq")]
    problems += [f"{name} has no counterpart" for name in strange]
    if problems:
        shown = "; ".join(problems[:5])
        raise IntegrityError(
            f"{len(problems)} tensors or settings are not the source's (0 are allowed): {shown}",
            mend=MEND,
        )
    count = int(answer["compared"])
    size = gguf.read(path).weights
    reason = f"all {count} tensors ({size} weights) equal the source's, rounded to 16 bits"
    return reason, {"tensors": count, "weights": size}


def _settings(mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted) -> list[str]:
    """Compare what a wrong rotary embedding comes from with config.json."""
    import numpy as np

    config = read_json(source_folder(mint, recipe, source) / "config.json")
    scaling = config.get("rope_scaling")
    scaling = scaling if isinstance(scaling, dict) else {}
    parameters = config.get("rope_parameters")
    scaling = scaling | (parameters if isinstance(parameters, dict) else {})
    base = made.header.values.get(f"{made.header.architecture}.rope.freq_base")
    wanted = config.get("rope_theta", scaling.get("rope_theta"))
    problems = []
    if isinstance(wanted, int | float) and base is not None and not _near(base, float(wanted)):
        problems.append(f"the rotary base is {base}, config.json says {wanted}")
    tensors = {tensor.name: tensor for tensor in made.header.tensors}
    for key, name in FACTORS.items():
        listed, tensor = scaling.get(key), tensors.get(name)
        if not isinstance(listed, Sequence) or tensor is None:
            problems += [] if listed is None and tensor is None else [f"{name} is on one side only"]
            continue
        path = mint.store.path(made.blob.sha256)
        found = np.fromfile(path, dtype="<f4", count=tensor.weights, offset=tensor.offset)
        if not np.array_equal(found, np.array(listed, dtype=np.float32)):
            problems.append(f"{name} holds other factors than config.json's {key}")
    return problems


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def _ask(mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted) -> Mapping[str, Any]:
    request = {
        "folder": str(source_folder(mint, recipe, source)),
        "gguf": str(mint.store.path(made.blob.sha256)),
        "gguf_py": str(converter_script(mint.home, mint.tools).parent / "gguf-py"),
    }
    command = Command(
        argv=[sys.executable, "-m", "quantmint.assets.conversion.weights_child"],
        env=OFFLINE,
        limits=Limits(wall_seconds=4 * 3600, address_space=2 * made.blob.size + (32 << 30)),
        stdin=json.dumps(request).encode(),
        log=mint.log(recipe.model, CHECK),
    )
    return answer_of(command, run(command))
