"""Train phi-3-nano, the checkpoint that is embedded in this project.

    python assets/training/phi_3_nano.py --out DIR

A Phi-3 with LongRoPE of 4.5 million weights, trained from nothing on the documentation that the
running Python carries (see nano_corpus.py).  It is small enough to live in a repository and good
enough that quantization visibly costs quality, which is what it is for.

Needs torch, transformers, safetensors and sentencepiece; half an hour on two idle cores.  The
learning rate is constant and then falls in a straight line, so a shorter run is a prefix of a
longer one up to where it begins to fall; with --state a stopped run goes on where it was.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Phi3ForCausalLM

from quantmint.assets.training.nano_batches import Batch, batches
from quantmint.assets.training.nano_corpus import collect
from quantmint.assets.training.nano_model import LONG, ORIGINAL_CONTEXT, new_model, save_model
from quantmint.assets.training.nano_texts import assay_text, save_texts
from quantmint.assets.training.nano_tokenizer import save_tokenizer, train_tokenizer

SEED = 20240423
STEPS = 1700
WARM_UP = 100
FALL = 0.4
RATE = 3e-3
INNER_RATE = 6e-3
DECAY = 0.1
REPORT_EVERY = 40
KEEP_EVERY = 200
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Run:
    """What a run is asked to do."""

    out: Path
    steps: int
    threads: int
    state: Path | None


def rate(step: int, steps: int) -> float:
    """The share of the full learning rate at `step`: up, level, then down to nothing."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (FALL * steps))


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the layers, AdamW for embeddings, head and norms."""
    named = list(model.named_parameters())
    norms = [weight for _, weight in named if weight.ndim < 2]
    inner = [weight for name, weight in named if weight.ndim == 2 and ".layers." in name]
    outer = [weight for name, weight in named if weight.ndim == 2 and ".layers." not in name]
    muon = torch.optim.Muon(
        inner, lr=INNER_RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
    )
    groups = [{"params": outer, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)
    for settings in (*muon.param_groups, *adam.param_groups):
        settings["full_lr"] = settings["lr"]
    return [muon, adam]


def loss_of(model: Phi3ForCausalLM) -> Loss:
    """Mean cross-entropy of a batch of rows, compiled; multiplications in bfloat16."""

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    return torch.compile(loss, dynamic=False)


def held_out_loss(loss: Loss, ids: list[int], length: int) -> float:
    """Mean loss over the first 32k tokens of the held-out text at one context length."""
    rows = 32_768 // length
    cut = torch.tensor([ids[at * length : (at + 1) * length + 1] for at in range(rows)])
    with torch.no_grad():
        return sum(loss(cut[at : at + 8]).item() for at in range(0, rows, 8)) / (rows / 8)


def step_once(batch: Batch, loss: Loss, opts: list[torch.optim.Optimizer], share: float) -> float:
    """One update of the weights; the loss before it."""
    value = loss(batch.ids)
    value.backward()  # type: ignore[no-untyped-call,unused-ignore]
    for opt in opts:
        weights = [weight for group in opt.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, 1.0)
        for group in opt.param_groups:
            group["lr"] = share * group["full_lr"]
        opt.step()
        opt.zero_grad()
    return value.item()


def _restore(state: Path | None, model: nn.Module, opts: list[torch.optim.Optimizer]) -> int:
    if state is None or not state.exists():
        return 0
    kept = torch.load(state)
    model.load_state_dict(kept["model"])
    for opt, values in zip(opts, kept["optimizers"], strict=True):
        opt.load_state_dict(values)
    return int(kept["step"])


def _keep(
    state: Path | None, step: int, model: nn.Module, opts: list[torch.optim.Optimizer]
) -> None:
    if state is None:
        return
    values = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in opts],
    }
    partial = state.with_suffix(".partial")
    torch.save(values, partial)
    partial.replace(state)


def train(run: Run, model: Phi3ForCausalLM, data: Iterator[Batch], held_out: list[int]) -> None:
    """Run the steps; a line of progress every forty."""
    loss, opts = loss_of(model), optimizers(model)
    first, began, shown = _restore(run.state, model, opts), time.monotonic(), 0.0
    for batch in data:
        if batch.step >= run.steps:
            break
        if batch.step < first:
            continue
        shown += step_once(batch, loss, opts, rate(batch.step, run.steps))
        done = batch.step + 1
        if done % REPORT_EVERY == 0:
            seconds = time.monotonic() - began
            print(f"step {done} loss {shown / REPORT_EVERY:.4f} {seconds:.0f} s", flush=True)
            shown = 0.0
        if done % KEEP_EVERY == 0 or done == run.steps:
            short, long = (held_out_loss(loss, held_out, n) for n in (ORIGINAL_CONTEXT, LONG))
            print(f"step {done} held out {short:.4f} at 512, {long:.4f} at 1024", flush=True)
            _keep(run.state, done, model, opts)


def make(run: Run) -> None:
    """Collect the text, make the tokenizer, train, and write both folders."""
    torch.manual_seed(SEED)
    torch.set_num_threads(run.threads)
    folder = run.out / "phi-3-nano"
    folder.mkdir(parents=True, exist_ok=True)
    corpus = collect()
    print(f"Python {platform.python_version()}, text sha256 {corpus.sha256}", flush=True)
    save_texts(corpus, run.out / "texts")
    tokenizer = train_tokenizer(d.text for d in (*corpus.documents, *corpus.sources[::10]))
    save_tokenizer(tokenizer, folder)
    model = new_model()
    data = batches(corpus, tokenizer, seed=SEED)
    train(run, model, data, tokenizer.ids(assay_text(corpus)))
    save_model(model, folder)


def arguments(argv: list[str] | None = None) -> Run:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the embedded checkpoint phi-3-nano.")
    parser.add_argument("--out", type=Path, required=True, help="folder for phi-3-nano/ and texts/")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of 4,096 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--state", type=Path, help="keep the state here; go on from it if it exists"
    )
    given = parser.parse_args(argv)
    return Run(given.out, given.steps, given.threads, given.state)


if __name__ == "__main__":
    make(arguments())
