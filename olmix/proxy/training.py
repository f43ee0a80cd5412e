"""Training one proxy: AdamW, warm-up and cosine, clipped gradients, over a data order that is planned
beforehand.

A run is a pure function of recipe, token sets, counts and seed. On one thread its weights are bit-identical
on one machine; across threads and instruction sets BPB agrees within 1e-5. What it gives up: a run that is
interrupted starts again (proxies take seconds to minutes; the swarm is what is resumed).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from olmix.data.tokenizer import Tokens
from olmix.errors import DataError, TrainingError
from olmix.files import write_bytes
from olmix.proxy.model import Weights, initialise, mean_loss
from olmix.proxy.order import plan_order
from olmix.proxy.recipe import Recipe

CURVE_POINTS = 50
_STEPS_AT_ONCE = 64  # steps whose rows are gathered in one numpy call a token set


class Diverged(TrainingError):  # noqa: N818  # the field's word for it
    """The loss or the weights of a run stopped being finite numbers."""


@dataclass(frozen=True)
class Trained:
    """Weights by name, on the CPU, and the curve: (step, mean loss in nats since the point before)."""

    weights: Weights
    curve: tuple[tuple[int, float], ...]


def single_thread() -> None:
    """Set this process up to train on one thread: the fastest way for small proxies, with a process a core.

    Flushes denormal numbers, which AdamW's moments of rare tokens decay into (its step takes 1.7 times as long
    on them). Under glibc, keeps freed memory in the process: a step allocates the same blocks again, and
    fetching them anew from the kernel took 0 to 700 page faults a step, up to a tenth of its time.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3
            mallopt(mmap_threshold, 1 << 25)
            mallopt(trim_threshold, 1 << 30)


def train(
    recipe: Recipe,
    token_sets: Sequence[Tokens],
    identities: Sequence[str],
    counts: Sequence[int],
    seed: int,
    *,
    device: str = "cpu",
    on_progress: Callable[[int], None] | None = None,
) -> Trained:
    """Train a proxy on `counts[i]` sequences of `token_sets[i]`, (rows, sequence_length + 1), named
    `identities[i]`.

    `on_progress` gets the tokens of a step after each step. Raises TrainingError when the counts are not
    those of the recipe, DataError when a token set does not fit it, and Diverged when the loss is no longer
    finite.
    """
    recipe.validate()
    _check(recipe, token_sets, identities, counts)
    labels, rows = plan_order(counts, [len(tokens) for tokens in token_sets], identities, seed)
    weights = {name: weight.to(device).requires_grad_() for name, weight in initialise(recipe, seed).items()}
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    gains = [weight for weight in weights.values() if weight.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        fused=True,
    )
    losses = torch.zeros(recipe.steps, device=device)
    interval = -(-recipe.steps // CURVE_POINTS)
    curve: list[tuple[int, float]] = []
    for step, batch in enumerate(_batches(recipe, token_sets, labels, rows, device)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = mean_loss(weights, recipe, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights.values(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad()
        losses[step] = loss.detach()
        done = step + 1
        if done % interval == 0 or done == recipe.steps:
            begin = curve[-1][0] if curve else 0
            curve.append((done, _mean_of_finite(losses[begin:done], begin, recipe)))
        if on_progress is not None:
            on_progress(batch.shape[0] * recipe.sequence_length)
    trained = {name: weight.detach().cpu() for name, weight in weights.items()}
    for name, weight in trained.items():
        if not bool(torch.isfinite(weight).all()):
            raise Diverged(f"{name} is not finite after the last of {recipe.steps} steps; {_advice(recipe)}")
    return Trained(trained, tuple(curve))


def save_weights(weights: Weights, path: Path) -> None:
    """Write weights to a safetensors file, atomically; equal weights are equal bytes."""
    write_bytes(path, save({name: weight.contiguous() for name, weight in weights.items()}))


def load_weights(path: Path) -> Weights:
    """Read a safetensors file; raises DataError when it is missing or damaged."""
    try:
        return dict(load(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path}: no such weights; run dvc repro") from None
    except SafetensorError as error:
        raise DataError(f"{path}: not weights ({error}); remove it and run dvc repro") from None


def _check(recipe: Recipe, token_sets: Sequence[Tokens], identities: Sequence[str], counts: Sequence[int]) -> None:
    if sum(counts) != recipe.sequences:
        raise TrainingError(
            f"the counts sum to {sum(counts)} sequences and a run of {recipe.tokens} tokens reads "
            f"{recipe.sequences}; take them from Recipe.sequences"
        )
    for tokens, identity, count in zip(token_sets, identities, counts, strict=True):
        if tokens.ndim != 2 or tokens.shape[1] != recipe.sequence_length + 1:
            raise DataError(
                f"token set {identity}: its shape is {tokens.shape}, not rows of "
                f"{recipe.sequence_length + 1} tokens (proxy.sequence_length + 1); run dvc repro"
            )
        if count and len(tokens) and int(tokens.max()) >= recipe.vocabulary:
            raise DataError(
                f"token set {identity}: token {int(tokens.max())} is beyond the vocabulary of "
                f"{recipe.vocabulary}; prepare it again with this tokeniser"
            )


def _batches(
    recipe: Recipe,
    token_sets: Sequence[Tokens],
    labels: NDArray[np.int32],
    rows: NDArray[np.int64],
    device: str,
) -> Iterator[Tensor]:
    """The batches of a run, int64 (batch_size, sequence_length + 1) each."""
    size = recipe.batch_size
    for begin in range(0, recipe.sequences, size * _STEPS_AT_ONCE):
        part = slice(begin, begin + size * _STEPS_AT_ONCE)
        chosen, places = labels[part], rows[part]
        gathered = np.empty((len(chosen), recipe.sequence_length + 1), dtype=np.int64)
        for label in np.unique(chosen):
            here = chosen == label
            gathered[here] = token_sets[label][places[here]]
        yield from torch.split(torch.from_numpy(gathered).to(device), size)


def _mean_of_finite(losses: Tensor, begin: int, recipe: Recipe) -> float:
    """Mean of the losses of the steps from `begin` on; raises Diverged at the first that is not finite."""
    values = losses.cpu().double()
    broken = torch.nonzero(~torch.isfinite(values))
    if len(broken):
        step = begin + int(broken[0]) + 1
        raise Diverged(f"loss {float(values[broken[0]])} at step {step} of {recipe.steps}; {_advice(recipe)}")
    return float(values.mean())


def _advice(recipe: Recipe) -> str:
    return f"lower proxy.learning_rate (it is {recipe.learning_rate}) in params.yaml"
