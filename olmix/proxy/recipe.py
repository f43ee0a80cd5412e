"""A proxy's recipe: the shape of its model and how it is trained, and every number that follows from them.

It is pure arithmetic: training, the counts of a run and its key read the same properties, so they cannot
disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from olmix.errors import ConfigError
from olmix.proxy.sizes import Size

# What a run's key names instead of code hashes: raise it when training or evaluation
# changes what it computes.
RECIPE_VERSION = 2

# Tokens that are read at once: enough for matrix products to run at their peak on any device, and activations of a
# 190M model are some 10 GB by count. A constant, so that every device adds gradients up in the same order.
MICRO_BATCH_TOKENS = 16_384


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
    def micro_batch(self) -> int:
        """Sequences that are read at once: a batch in as few and as equal parts as hold MICRO_BATCH_TOKENS or one
        sequence each; the last part may be the smaller one."""
        at_once = max(1, MICRO_BATCH_TOKENS // self.sequence_length)
        parts = -(-self.batch_size // at_once)
        return -(-self.batch_size // parts)

    @property
    def size(self) -> Size:
        """The shape of the model, without its vocabulary."""
        return Size(self.layers, self.heads, self.width, self.hidden)

    @property
    def matrices(self) -> int:
        """Parameters that multiply every token: the layers' matrices and the head, without the embedding's
        lookup."""
        return self.size.matrices(self.vocabulary)

    @property
    def parameters_without_embedding(self) -> int:
        """All parameters but the input embedding's: what a size is named for, and what `chinchilla_tokens`
        multiplies."""
        return self.size.parameters(self.vocabulary)

    @property
    def parameters(self) -> int:
        """All parameters: matrices, the embedding, four gains a layer and the last norm's."""
        return self.parameters_without_embedding + self.vocabulary * self.width

    @property
    def forward_flops_per_token(self) -> int:
        """Floating-point operations of reading one token of a full sequence: 2 a matrix parameter, and 2 layers
        sequence_length width for attention, whose causal half alone is counted."""
        return 2 * self.matrices + 2 * self.layers * self.sequence_length * self.width

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of training on one token: those of reading it, and twice as many for the
        gradients of inputs and weights."""
        return 3 * self.forward_flops_per_token

    @property
    def flops(self) -> int:
        """Floating-point operations of a whole run."""
        return self.flops_per_token * self.sequences * self.sequence_length

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
        _require(self.sequence_length > 1, "sequence_length", "a sequence of 1 token has no context", "use 2 or more")
        _require(
            self.width % self.heads == 0,
            "heads",
            f"width {self.width} cannot be divided into {self.heads} heads",
            "use a divisor of the width",
        )
        size = self.width // self.heads
        _require(
            size % 2 == 0,
            "heads",
            f"{self.heads} heads of width {self.width} are {size} wide, but rotary embeddings need an even number",
            "change heads or width",
        )
        batch = self.batch_size * self.sequence_length
        _require(
            self.steps > 0,
            "tokens",
            f"{self.tokens} are fewer than one batch of {self.batch_size} sequences of {self.sequence_length} "
            f"({batch} tokens)",
            f"use {batch} or more",
        )


def _require(condition: bool, key: str, message: str, way_out: str | None = None) -> None:
    if not condition:
        where = f"size.{key}" if key in Size.__dataclass_fields__ else key
        raise ConfigError(message, file="params.yaml", key=f"proxy.{where}", way_out=way_out)
