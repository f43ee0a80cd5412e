"""The loss: negative log-likelihoods of the next tokens, without the logits of a whole batch.

16,384 tokens of a vocabulary of 100k have 6.6 GB of logits in float32, and as much again for their gradient. Tokens
are taken in chunks instead, and a chunk's losses and their gradients with respect to hidden states and head are
computed together, so that one chunk's logits are held at a time and nothing is computed twice. It is the faster way
for a small vocabulary too (one chunk; 6% of the time of head and loss, 2% of a step at the sample's size), so there
is no other. What it gives up: gradients are computed even when nobody asks for them (`token_losses` does not), and
there is no second derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from olmix.proxy.arithmetic import AS_IT_IS, Arithmetic

# Logits that are held at once. On a CPU 32 MB in float32: with a vocabulary of 100k, smaller chunks read the head's
# gradient too often (8 MB take 2.7 times as long), and larger ones gain 1%; the sample has a sixteenth of it. On
# a GPU 0.5 GB in bfloat16, meant to fill it; that has not been measured.
LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 28}


def total_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, scale: float, arithmetic: Arithmetic = AS_IT_IS
) -> tuple[Tensor, Tensor]:
    """`scale` times the sum of the negative log-likelihoods, in nats, which can be differentiated once, and each of
    them (tokens,), which cannot; for hidden states (tokens, width), a head (width, vocabulary) and int64 `targets`
    (tokens,)."""
    total, losses = _Loss.apply(hidden, head, targets, scale, arithmetic)  # type: ignore[no-untyped-call]
    return total, losses


@torch.no_grad()
def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihoods (tokens,), in nats, without gradients; shapes as in `total_loss`."""
    return torch.cat(
        [functional.cross_entropy(part @ head, aims, reduction="none") for part, aims in _chunks(hidden, head, targets)]
    )


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, scale: float, arithmetic: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        low = arithmetic.dtype or head.dtype
        part_of = arithmetic.ready(_in_two_passes) if arithmetic.compiled else _in_library_calls
        narrow, matrix = hidden.to(low), head.to(low)
        losses, of_hidden, of_head = [], [], None
        for part, aims in _chunks(narrow, head, targets):
            of_part, gradient = part_of(part @ matrix, aims, head.dtype)
            losses.append(of_part)
            of_hidden.append(gradient @ matrix.T)
            # Chunks are added up in the head's own type.
            of_chunk = part.T @ gradient
            of_head = of_chunk.to(head.dtype) if of_head is None else of_head.add_(of_chunk)
        ctx.scale = scale
        ctx.save_for_backward(_joined(of_hidden).to(hidden.dtype), of_head)
        each = _joined(losses)
        ctx.mark_non_differentiable(each)
        return each.sum() * scale, each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_hidden, of_head = ctx.saved_tensors
        factor = of_total * ctx.scale
        return of_hidden * factor, of_head * factor, None, None, None


def _in_library_calls(logits: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Losses of a chunk, in `dtype`, and the gradient of their sum, in the type of the logits."""
    shares = functional.softmax(logits, dim=-1, dtype=dtype)
    # The logarithm of the sum of exponentials, from what was computed anyway: the largest share is at least
    # 1 / vocabulary, so its logarithm is exact to rounding.
    normaliser = logits.amax(-1).to(dtype) - shares.amax(-1).log()
    places = targets[:, None]
    losses = normaliser - logits.gather(1, places)[:, 0].to(dtype)
    shares.scatter_add_(1, places, torch.full_like(places, -1, dtype=dtype))
    return losses, shares.to(logits.dtype)


def _in_two_passes(logits: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same for a compiler, which makes one pass of the reductions and one of the rest."""
    wide = logits.to(dtype)
    normaliser = wide.logsumexp(-1)
    losses = normaliser - logits.gather(1, targets[:, None])[:, 0].to(dtype)
    hit = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    return losses, ((wide - normaliser[:, None]).exp() - hit.to(dtype)).to(logits.dtype)


def _chunks(hidden: Tensor, head: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    at_once = max(1, LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cpu"]) // head.shape[1])
    return zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
