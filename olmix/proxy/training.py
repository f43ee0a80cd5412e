"""Training one proxy: AdamW, warm-up and cosine, clipped gradients, over a data order that is planned
beforehand.

A run is a pure function of recipe, token sets, counts and seed. On one thread its weights are bit-identical
on one machine, also when it was stopped and went on from its checkpoint; across threads and instruction sets BPB
agrees within 1e-5, and in bfloat16, the arithmetic of a GPU, losses end within what a seed changes (walked through
on a CPU: 0.0001 nats, where seeds differ by 0.002). A batch is read in micro-batches whose gradients add up, so
a run needs the memory of one. What it gives up: one device a run (the swarm is what is spread).
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from olmix.core.order import plan_order
from olmix.data.tokenizer import Tokens
from olmix.errors import DataError, TrainingError
from olmix.files import write_bytes
from olmix.proxy.arithmetic import Arithmetic, arithmetic_of
from olmix.proxy.batches import batches
from olmix.proxy.checkpoint import Checkpoint
from olmix.proxy.curves import CURVE_POINTS, Curve, Diverged, Losses, SetCurve, require_finite
from olmix.proxy.model import Weights, initialise, row_losses
from olmix.proxy.optimiser import MOMENTS, AdamW
from olmix.proxy.recipe import Recipe

__all__ = [
    "CURVE_POINTS",
    "Checkpoint",
    "Diverged",
    "Trained",
    "load_weights",
    "save_weights",
    "single_thread",
    "train",
]

# A run that is asked to stop keeps what it has done since its last checkpoint when that took so long.
WORTH_SECONDS = 10.0


@dataclass(frozen=True)
class Trained:
    """Weights by name, on the CPU; the curve, (step, mean loss in nats since the point before); and that of the
    sequences of each token set read, by its identity, None where none of them was read since."""

    weights: Weights
    curve: Curve
    set_curves: dict[str, SetCurve]


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
    in_order: Collection[str] = (),
    device: str = "cpu",
    on_progress: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    arithmetic: Arithmetic | None = None,
) -> Trained:
    """Train a proxy on `counts[i]` sequences of `token_sets[i]`, (rows, sequence_length + 1), named
    `identities[i]`; of those in `in_order` the first rows, as they lie.

    `on_progress` gets the tokens of a step after each step, and first those of a checkpoint that it goes on from; when
    it raises, the run writes a checkpoint and stops. The caller clears the checkpoint when it has kept the result.
    `arithmetic` is the device's unless it is given. Raises TrainingError when the counts are not those of the recipe,
    DataError when a token set does not fit it, OlmixError when a checkpoint cannot be written, and Diverged when the
    loss is no longer finite.
    """
    recipe.validate()
    _check(recipe, token_sets, identities, counts)
    arithmetic = arithmetic_of(device) if arithmetic is None else arithmetic
    labels, rows = plan_order(counts, [len(tokens) for tokens in token_sets], identities, seed, in_order)
    weights = {name: weight.to(device).requires_grad_() for name, weight in initialise(recipe, seed).items()}
    optimiser = AdamW(recipe, weights)
    losses = Losses(recipe, device)
    start = 0 if checkpoint is None else _restore(checkpoint, weights, optimiser, losses)
    if start and on_progress is not None:
        on_progress(start * recipe.batch_size * recipe.sequence_length)
    written = time.monotonic()
    for step, batch in enumerate(batches(recipe, token_sets, labels, rows, device, start), start):
        first = step * recipe.batch_size
        for micro in torch.split(batch, recipe.micro_batch):
            loss, of_rows = row_losses(weights, recipe, micro, recipe.batch_size * recipe.sequence_length, arithmetic)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.values[first : first + len(micro)] = of_rows
            first += len(micro)
        torch.nn.utils.clip_grad_norm_(weights.values(), recipe.clip)
        optimiser.step(recipe.learning_rate_at(step))
        done = step + 1
        losses.check(done)
        if checkpoint is not None and done < recipe.steps and time.monotonic() - written >= checkpoint.seconds:
            checkpoint.write(done, _state(weights, optimiser, losses, done))
            written = time.monotonic()
        if on_progress is not None:
            try:
                on_progress(recipe.batch_size * recipe.sequence_length)
            except BaseException:  # it is asked to stop: preempted, cancelled, interrupted
                if checkpoint is not None and time.monotonic() - written >= WORTH_SECONDS:
                    checkpoint.write(done, _state(weights, optimiser, losses, done))
                raise
    trained = {name: weight.detach().cpu() for name, weight in weights.items()}
    require_finite(trained, recipe)
    return Trained(trained, losses.curve(), losses.set_curves(labels, identities))


def save_weights(weights: Weights, path: Path) -> None:
    """Write weights to a safetensors file, atomically; equal weights are equal bytes."""
    write_bytes(path, save({name: weight.contiguous() for name, weight in weights.items()}))


def load_weights(path: Path) -> Weights:
    """Read a safetensors file; raises DataError when it is missing or damaged."""
    try:
        return dict(load(path.read_bytes()))
    except FileNotFoundError:
        raise DataError("no such weights", file=path, way_out="run `dvc repro`") from None
    except SafetensorError as error:
        raise DataError(f"not weights ({error})", file=path, way_out="remove it and run `dvc repro`") from None


def _check(recipe: Recipe, token_sets: Sequence[Tokens], identities: Sequence[str], counts: Sequence[int]) -> None:
    if sum(counts) != recipe.sequences:
        raise TrainingError(
            f"the counts sum to {sum(counts)} sequences, but a run of {recipe.tokens} tokens reads {recipe.sequences}",
            way_out="take them from Recipe.sequences",
        )
    for tokens, identity, count in zip(token_sets, identities, counts, strict=True):
        if tokens.ndim != 2 or tokens.shape[1] != recipe.sequence_length + 1:
            raise DataError(
                f"token set {identity}: its shape is {tokens.shape}, not rows of "
                f"{recipe.sequence_length + 1} tokens (proxy.sequence_length + 1)",
                way_out="run `dvc repro`",
            )
        if count and len(tokens) and int(tokens.max()) >= recipe.vocabulary:
            raise DataError(
                f"token set {identity}: token {int(tokens.max())} is outside the vocabulary of {recipe.vocabulary}",
                way_out="prepare it again with this tokeniser",
            )


def _state(weights: Weights, optimiser: AdamW, losses: Losses, done: int) -> dict[str, Tensor]:
    """What a checkpoint holds after `done` steps."""
    read = {"losses": losses.values[: done * losses.recipe.batch_size]}
    return read | {f"weights.{name}": weight for name, weight in weights.items()} | optimiser.state()


def _restore(checkpoint: Checkpoint, weights: Weights, optimiser: AdamW, losses: Losses) -> int:
    """Put what a checkpoint holds into place; the step to go on with, 0 when there is none of this run."""
    found = checkpoint.read()
    if found is None:
        return 0
    done, state = found
    shapes: dict[str, tuple[int, ...]] = {"losses": (done * losses.recipe.batch_size,)}
    for name, weight in weights.items():
        shapes |= {f"{part}.{name}": tuple(weight.shape) for part in ("weights", *MOMENTS)}
    if not 0 < done < losses.recipe.steps or {name: tuple(held.shape) for name, held in state.items()} != shapes:
        return 0
    losses.values[: len(state["losses"])] = state["losses"]
    with torch.no_grad():
        for name, weight in weights.items():
            # Copied into memory of torch's own: on some processors the bits of a sum depend on how memory is aligned.
            weight.copy_(state[f"weights.{name}"])
        optimiser.restore(state, done)
    return done
