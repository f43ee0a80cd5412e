"""The arithmetic of a device: the type that its products are in, and whether its kernels are compiled.

A CPU takes float32 products as they come: at 100k parameters bfloat16 takes 1.4 times as long, and compiled layers,
8% faster, cost ten seconds before the first step, where a run takes five. A CUDA device takes bfloat16 products,
with weights, moments, norms, the residual stream and losses in float32, and has the rest of a layer compiled into a
few kernels. The recipe knows nothing of it: counts, order, schedule and micro-batches are the same everywhere, and
only rounding differs. What it gives up: a layer is compiled, not the model (ten seconds a worker process, not
minutes), so kernels are not fused across layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Arithmetic:
    """`dtype` of the products (None: that of the weights), and whether functions are `compiled`."""

    dtype: torch.dtype | None = None
    compiled: bool = False

    def ready(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """The function as it is, or compiled, once a process."""
        return _compiled(function) if self.compiled else function


AS_IT_IS = Arithmetic()


def arithmetic_of(device: str) -> Arithmetic:
    """How runs are trained on a device."""
    return Arithmetic(torch.bfloat16, compiled=True) if torch.device(device).type == "cuda" else AS_IT_IS


@functools.cache
def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    # Shapes are few (a whole micro-batch and a last one): fixed ones give better kernels than symbolic ones.
    return torch.compile(function, dynamic=False)
