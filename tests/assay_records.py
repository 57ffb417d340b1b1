"""Assay records as the line makes them: numbers of the embedded model, measured on one machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantmint.assets.assay.record import Assayed
from quantmint.assets.report.model import About
from quantmint.assets.verdict import Verdict
from quantmint.native.evaluation.results import (
    Agreement,
    BasePerplexity,
    Choices,
    Divergence,
    MemoryAt,
    Peak,
    Reply,
    SpeedAt,
    Speeds,
)

PIN = "832db0699007f1be832db0699007f1be832db069"
# size, bits per weight; then for 512 and 1024 tokens: perplexity, ratio, its error, mean KLD, its
# error, 99 % KLD, top-1, RMS of the probability change.
MEASURED: dict[str, Any] = {
    "Q8_0": (4793088, 8.51,
             (36.2404, 0.99971, 0.00022, 0.00035, 0.00001, 0.0032, 0.9858, 0.0037),
             (37.5492, 0.99992, 0.00022, 0.00037, 0.00002, 0.0040, 0.9851, 0.0036)),
    "Q6_K": (3713088, 6.58,
             (36.2741, 1.00064, 0.00047, 0.00181, 0.00007, 0.0169, 0.9658, 0.0079),
             (37.6105, 1.00155, 0.00049, 0.00187, 0.00008, 0.0175, 0.9648, 0.0080)),
    "Q4_K_M": (2902624, 5.12,
               (36.4806, 1.00633, 0.00104, 0.00856, 0.00015, 0.0680, 0.9310, 0.0178),
               (37.7628, 1.00561, 0.00111, 0.00947, 0.00019, 0.0803, 0.9264, 0.0192)),
    "Q2_K": (1963296, 3.44,
             (38.6430, 1.06599, 0.00338, 0.08120, 0.00065, 0.3801, 0.7817, 0.0618),
             (40.3843, 1.07542, 0.00360, 0.08978, 0.00076, 0.4776, 0.7628, 0.0678)),
}  # fmt: skip
BASE = (
    BasePerplexity(
        context=512, chunks=64, wanted=64, tokens=16320, ppl=36.2509, ppl_error=0.7032, rope="short"
    ),
    BasePerplexity(
        context=1024, chunks=32, wanted=32, tokens=16352, ppl=37.5522, ppl_error=0.7284, rope="long"
    ),
)
ABOUT = About(
    title="Phi-3-nano", kernel="zen4", source="embedded phi-3-nano", origin="embedded",
    commit="none", source_sha256="5" * 64, fp16_size=8_700_000, llama_cpp=PIN,
    llama_cpp_release="llama-cpp-python 0.3.36", date="2026-11-22", calibration="c" * 64,
)  # fmt: skip
BASIS = {"source": "5" * 64}


def divergence(base: BasePerplexity, numbers: tuple[float, ...]) -> Divergence:
    """Return one context's numbers."""
    ppl, ratio, ratio_error, kld, kld_error, p99, top1, rms = numbers
    return Divergence(
        context=base.context, chunks=base.chunks, tokens=base.tokens, ppl=ppl, ppl_error=0.70,
        base_ppl=base.ppl, base_ppl_error=base.ppl_error, ppl_ratio=ratio,
        ppl_ratio_error=ratio_error, kld_mean=kld, kld_error=kld_error, kld_median=0.7 * kld,
        kld_p99=p99, kld_p999=3 * p99, kld_max=10 * p99, top1=top1, top1_error=0.002, rms_dp=rms,
        rms_dp_error=0.0004, rope=base.rope,
    )  # fmt: skip


def record(variant: str = "Q4_K_M", kernel: str = "zen4", **changed: Any) -> Assayed:
    """Return the record of a variant that passed; on `x64` only speed and agreement are known."""
    size, bits, short, long = MEASURED[variant]
    reply = Reply(
        prompt="What does os.path.join do?", rendered="<|user|>\nWhat?<|end|>\n",
        text="Return the path to the path.", ended="stop", tokens=12, finite=True,
        repetition=0.1, looping=False,
    )  # fmt: skip
    task = Choices(
        task="agreement", items=44, correct=36, base_correct=36, difference=0.0, low=0.0, high=0.0,
        gained=0, lost=0, p_value=1.0,
    )  # fmt: skip
    speeds = Speeds(
        prompt=(SpeedAt(tokens=128, repetitions=3, median=8410.0, low=8300.0, high=8500.0),
                SpeedAt(tokens=512, repetitions=3, median=5693.0, low=5600.0, high=5700.0)),
        generation=(SpeedAt(tokens=32, repetitions=3, median=1825.0, low=1800.0, high=1858.0),),
    )  # fmt: skip
    whole = Assayed(
        model="phi-3-nano", variant=variant, file=f"Phi-3-nano-{variant}.gguf", kernel=kernel,
        cpu="AMD EPYC", threads=2, size=size, bits_per_weight=bits,
        digests={"fp16": "f" * 64, "text": "7" * 64, "gguf": f"{size:064x}", "kernel": "4" * 64},
        base=BASE, divergences=(divergence(BASE[0], short), divergence(BASE[1], long)),
        choices=(task,), replies=(reply,),
        memory=(MemoryAt(context=4096, weights=size, cache=1 << 24, compute=10 << 20),),
        peak=Peak(context=512, tokens=511, resident=61136896, before=35909632), speeds=speeds,
        verdicts=(Verdict("header", True, "29 tensors as planned", {"tensors": 29}),),
    )  # fmt: skip
    if kernel != "zen4":
        near = Agreement(
            reference="x64", tokens=64, nmse=1.2e-6, top1=1.0, largest_difference=0.01, finite=True
        )
        whole = replace(
            whole, base=(), divergences=(), choices=(), replies=(), memory=(), peak=None,
            agreement=near, digests={**whole.digests, "kernel": "8" * 64},
        )  # fmt: skip
    return replace(whole, **changed)


def withheld(variant: str = "Q2_K", reason: str = "it says one thing again and again") -> Assayed:
    """Return the record of a variant that a gate refused."""
    return record(variant, verdicts=(Verdict("chat", False, reason),))
