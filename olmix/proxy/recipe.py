"""A proxy's recipe: the shape of its model and how it is trained, and every number that follows from them.

It is pure arithmetic: training, the counts of a run and its key read the same properties, so they cannot
disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from olmix.errors import ConfigError

# What a run's key names instead of code hashes: raise it when training or evaluation
# changes what it computes.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """A decoder-only transformer and one training run of it.

    `hidden` is the width of the SwiGLU layer, `tokens` the budget of a run, `batch_size` in sequences,
    `warmup` the share of steps in which the learning rate rises, `final_fraction` what is left of it after
    the cosine, `weight_decay` that of matrices (vectors have none), `clip` the largest norm of the gradient.
    """

    layers: int
    heads: int
    width: int
    hidden: int
    vocabulary: int
    sequence_length: int
    tokens: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.05
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0

    @property
    def steps(self) -> int:
        """Steps of a run: the whole batches that fit into the budget, so all steps have one shape."""
        return self.tokens // (self.sequence_length * self.batch_size)

    @property
    def sequences(self) -> int:
        """Sequences of a run, in whole batches; it reads `sequences * sequence_length` tokens."""
        return self.steps * self.batch_size

    @property
    def matrices(self) -> int:
        """Parameters that multiply every token: the layers' matrices and the head, without the embedding's
        lookup."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.hidden) + self.width * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters: matrices, the embedding, four gains a layer and the last norm's."""
        return self.matrices + self.vocabulary * self.width + (4 * self.layers + 1) * self.width

    @property
    def non_embedding_parameters(self) -> int:
        """Parameters without the embedding and the head."""
        return self.parameters - 2 * self.vocabulary * self.width

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of training on one token: 6 a matrix parameter (forward 2, backward 4),
        and 6 layers sequence_length width for attention, whose causal half alone is counted."""
        return 6 * self.matrices + 6 * self.layers * self.sequence_length * self.width

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step in [0, steps): linear warm-up, then a cosine to `final_fraction`."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        progress = (step - rising + 1) / (self.steps - rising)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)

    def validate(self) -> None:
        """Raise ConfigError, one line, when the numbers do not fit each other."""
        for name in (
            "layers",
            "heads",
            "width",
            "hidden",
            "vocabulary",
            "sequence_length",
            "tokens",
            "batch_size",
        ):
            _require(getattr(self, name) > 0, name, f"{getattr(self, name)} is not a positive number")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _require(0 < value < math.inf, name, f"{value} is not a positive number")
        for name in ("beta1", "beta2", "warmup"):
            _require(0 <= getattr(self, name) < 1, name, f"{getattr(self, name)} is not in [0, 1)")
        _require(0 <= self.final_fraction <= 1, "final_fraction", f"{self.final_fraction} is not in [0, 1]")
        _require(
            0 <= self.weight_decay < math.inf,
            "weight_decay",
            f"{self.weight_decay} is negative or not finite",
        )
        _require(self.sequence_length > 1, "sequence_length", "1 token has no context; use 2 or more")
        _require(
            self.width % self.heads == 0,
            "heads",
            f"{self.heads} heads do not divide width {self.width}; use a divisor of it",
        )
        size = self.width // self.heads
        _require(
            size % 2 == 0,
            "heads",
            f"{self.heads} heads of width {self.width} are {size} wide, and rotary embeddings need "
            "an even number; change heads or width",
        )
        batch = self.batch_size * self.sequence_length
        _require(
            self.steps > 0,
            "tokens",
            f"{self.tokens} are less than one batch of {self.batch_size} sequences of {self.sequence_length} "
            f"({batch} tokens); use {batch} or more",
        )


def _require(condition: bool, key: str, message: str) -> None:
    if not condition:
        raise ConfigError(f"params.yaml: proxy.{key}: {message}")
