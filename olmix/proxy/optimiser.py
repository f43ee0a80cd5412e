"""AdamW with decoupled weight decay (Loshchilov and Hutter 2019), through torch's functional form.

torch.optim.AdamW is the same kernel, but the first one made in a process imports torch's compiler: one to two seconds
of every process that trains, which is more than a small proxy takes. Matrices decay and gains do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from olmix.proxy.model import Weights
from olmix.proxy.recipe import Recipe

__all__ = ["MOMENTS", "AdamW"]

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of the two moments, as torch calls them: of the gradients and of their squares."""


class AdamW:
    """The optimiser of one run, over weights on one device; its moments, each of its weight's shape, begin at 0."""

    def __init__(self, recipe: Recipe, weights: Weights) -> None:
        self._recipe = recipe
        self._weights = weights
        self._averages, self._squares = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in MOMENTS)
        # A counter a weight, on its device: the kernel wants them so.
        self._steps = {name: torch.zeros((), device=weight.device) for name, weight in weights.items()}
        self._groups = [
            ([name for name, weight in weights.items() if weight.ndim > 1], recipe.weight_decay),
            ([name for name, weight in weights.items() if weight.ndim == 1], 0.0),
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the weights by their gradients, of which each has one, and forget the gradients."""
        for names, weight_decay in self._groups:
            adamw(
                [self._weights[name] for name in names],
                [cast(Tensor, self._weights[name].grad) for name in names],
                [self._averages[name] for name in names],
                [self._squares[name] for name in names],
                [],
                [self._steps[name] for name in names],
                fused=True,
                amsgrad=False,
                beta1=self._recipe.beta1,
                beta2=self._recipe.beta2,
                lr=learning_rate,
                weight_decay=weight_decay,
                eps=1e-8,
                maximize=False,
            )
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """The moments, as `exp_avg.<weight>` and `exp_avg_sq.<weight>`."""
        return {f"{moment}.{name}": tensor for moment, held in self._moments() for name, tensor in held.items()}

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:
        """Go on after `done` steps from what `state` gave then, in memory of its own; raises KeyError for a moment that
        is missing."""
        for moment, held in self._moments():
            for name, tensor in held.items():
                tensor.copy_(state[f"{moment}.{name}"])
        for steps in self._steps.values():
            steps.fill_(done)

    def _moments(self) -> zip[tuple[str, dict[str, Tensor]]]:
        return zip(MOMENTS, (self._averages, self._squares), strict=True)
