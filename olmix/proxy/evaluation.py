"""Evaluation: bits per byte of a proxy on a task.

Windows of like length are read together, and only the hidden states of scored tokens reach the head, which
for a short-answer task saves most of it. Losses are float32 and their sum float64: batching moves BPB by less
than 1e-6. Logits of a large vocabulary are made a chunk of tokens at a time. It is float32 on a GPU too, where
training is not: a measurement should not depend on where it was taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from olmix.errors import DataError, TrainingError
from olmix.proxy.loss import token_losses
from olmix.proxy.model import Weights, hidden_states
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import EncodedTask, untrained_bpb

# Tokens that are read at once: on a CPU enough for matrix products to run at their peak, and logits stay in the
# cache; on a GPU meant to fill it.
BATCH_TOKENS = {"cpu": 1024, "cuda": 1 << 16}


@dataclass(frozen=True)
class TaskScore:
    """Negative log-likelihood of a task's continuations in bits, their UTF-8 bytes, and BPB of a uniform
    model."""

    bits: float
    bytes: int
    uniform_bpb: float

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return self.bits / self.bytes


def evaluate(
    weights: Weights, recipe: Recipe, task: EncodedTask, device: str = "cpu", batch_tokens: int | None = None
) -> TaskScore:
    """Score `weights` on a task, in float32 on every device; raises DataError when it was encoded for another recipe,
    and TrainingError when a loss is not finite. `batch_tokens` is the device's BATCH_TOKENS unless it is given."""
    if task.sequence_length != recipe.sequence_length or int(task.rows.max()) >= recipe.vocabulary:
        raise DataError(
            f"task {task.name}: encoded for sequences of {task.sequence_length} with tokens up to "
            f"{int(task.rows.max())}, but the proxy reads {recipe.sequence_length} of a vocabulary of "
            f"{recipe.vocabulary}",
            way_out="encode it for this recipe",
        )
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS.get(torch.device(device).type, BATCH_TOKENS["cpu"])
    moved = {name: weight.to(device) for name, weight in weights.items()}
    total = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for batch in _batches(task, batch_tokens):
            longest = int(task.lengths[batch].max())
            rows = torch.from_numpy(task.rows[batch, : longest + 1].astype(np.int64)).to(device)
            places = np.arange(longest)
            counted = (places >= task.firsts[batch, None]) & (places < task.lengths[batch, None])
            # Indices are made on the CPU: a mask would have the GPU waited for at each batch.
            scored = torch.from_numpy(np.flatnonzero(counted)).to(device)
            # Padding stands to the right of everything that is scored, where causal attention cannot look.
            hidden = hidden_states(moved, recipe, rows[:, :-1]).flatten(0, 1)[scored]
            total += token_losses(hidden, moved["head"], rows[:, 1:].flatten()[scored]).double().sum()
    nats = float(total)
    if not math.isfinite(nats):
        raise TrainingError(f"task {task.name}: the loss is {nats}", way_out="the run has diverged; train it again")
    return TaskScore(nats / math.log(2), task.bytes, untrained_bpb(task, recipe.vocabulary))


def _batches(task: EncodedTask, batch_tokens: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Indices of windows that are read together, short ones first: `batch_tokens` with padding, or one
    window."""
    order = np.argsort(task.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        # Lengths rise, so the last window that fits decides the padding of those before it.
        size = np.arange(1, len(order) - begin + 1) * task.lengths[order[begin:]]
        count = max(1, int(np.searchsorted(size, batch_tokens, side="right")))
        yield order[begin : begin + count]
        begin += count
