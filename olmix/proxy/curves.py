"""The curves of a run: its loss along the way, in all and for each token set that it reads.

Losses are kept a sequence at a time where they were computed, and are fetched at the points of the curve alone, so a
GPU is not waited for in between. Everything here follows from them and from the data order, so a run that goes on
from a checkpoint needs no other memory; a sequence costs four bytes. At the sample's size, with
seven sets, it takes 0.1% of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from olmix.errors import TrainingError
from olmix.proxy.recipe import Recipe

CURVE_POINTS = 50

Curve = tuple[tuple[int, float], ...]
SetCurve = tuple[tuple[int, float | None], ...]


class Diverged(TrainingError):  # noqa: N818  # the field's word for it
    """The loss or the weights of a run stopped being finite numbers."""


def points(steps: int) -> list[int]:
    """The steps after which a curve has a point: at most CURVE_POINTS, evenly spaced, the last step among them."""
    interval = -(-steps // CURVE_POINTS)
    return [*range(interval, steps, interval), steps]


class Losses:
    """The mean loss of every sequence of a run, in nats, in the order in which they are read."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe = recipe
        self.values = torch.zeros(recipe.sequences, device=device)
        self._points = frozenset(points(recipe.steps))
        self._checked = 0

    def check(self, done: int) -> None:
        """At a point of the curve, raise Diverged when a loss since the last point is not finite."""
        if done not in self._points:
            return
        size = self.recipe.batch_size
        since = self.values[self._checked * size : done * size].cpu()
        broken = torch.nonzero(~torch.isfinite(since))
        if len(broken):
            step = self._checked + int(broken[0]) // size + 1
            raise Diverged(
                f"loss {float(since[broken[0]])} at step {step} of {self.recipe.steps}", way_out=advice(self.recipe)
            )
        self._checked = done

    def curve(self) -> Curve:
        """(step, mean loss of the sequences since the point before)."""
        return tuple((step, float(losses.mean())) for step, _, losses in self._parts())

    def set_curves(self, labels: NDArray[np.int32], identities: Sequence[str]) -> dict[str, SetCurve]:
        """The same for the sequences of each identity that the run reads, None where it read none of them."""
        names = sorted({identities[label] for label in np.unique(labels)})
        of_label = np.array([names.index(name) if name in names else -1 for name in identities])
        curves: dict[str, list[tuple[int, float | None]]] = {name: [] for name in names}
        for step, part, losses in self._parts():
            read = of_label[labels[part]]
            counts = np.bincount(read, minlength=len(names))
            sums = np.bincount(read, weights=losses, minlength=len(names))
            for name, count, total in zip(names, counts, sums, strict=True):
                curves[name].append((step, float(total / count) if count else None))
        return {name: tuple(curve) for name, curve in curves.items()}

    def _parts(self) -> Iterator[tuple[int, slice, NDArray[np.float64]]]:
        values, size, begin = self.values.cpu().double().numpy(), self.recipe.batch_size, 0
        for step in points(self.recipe.steps):
            part = slice(begin * size, step * size)
            yield step, part, values[part]
            begin = step


def advice(recipe: Recipe) -> str:
    """What to do about a run that diverged."""
    return f"lower proxy.learning_rate (it is {recipe.learning_rate}) in params.yaml"


def require_finite(weights: dict[str, Tensor], recipe: Recipe) -> None:
    """Raise Diverged when a weight is not finite after the last step, whose loss was that of the weights before."""
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            message = f"{name} is not finite after the last of {recipe.steps} steps"
            raise Diverged(message, way_out=advice(recipe))
