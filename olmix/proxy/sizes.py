"""Model sizes by name, and the tokens that suit a size.

A name counts parameters with a vocabulary of 100k and without the input embedding, a lookup that multiplies
nothing. Where OLMo-core's `TransformerConfig` has a size (`olmo2_1M`, `_30M`, `_60M`, `_190M`), it has the same
layers, heads and width here, with SwiGLU widened by 1.5 throughout and queries, keys and values of `width` in all;
so `1m` has 3 heads of 4 where OLMo-core has 4 of 4 on a width of 12, and 1.24M parameters. The price of such names:
a model of another vocabulary has another count, and half of `30m` and nine tenths of `15m` is the head. `100k` is
the sample's and is named for its layers alone: the sample's vocabulary is 1024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Hoffmann et al. 2022, "Training compute-optimal large language models": about 20 at every budget they tried.
CHINCHILLA_TOKENS = 20


@dataclass(frozen=True)
class Size:
    """Layers, heads, width and the width of the SwiGLU layer of a decoder-only transformer."""

    layers: int
    heads: int
    width: int
    hidden: int

    def matrices(self, vocabulary: int) -> int:
        """Parameters that multiply every token: the layers' matrices and the head."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.hidden) + self.width * vocabulary

    def parameters(self, vocabulary: int) -> int:
        """Parameters without the input embedding: matrices, four gains a layer and the last norm's."""
        return self.matrices(vocabulary) + (4 * self.layers + 1) * self.width


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "100k": Size(layers=2, heads=4, width=64, hidden=192),
        "1m": Size(layers=4, heads=3, width=12, hidden=256),
        "15m": Size(layers=8, heads=4, width=128, hidden=512),
        "30m": Size(layers=4, heads=8, width=256, hidden=1024),
        "60m": Size(layers=8, heads=8, width=384, hidden=1536),
        "190m": Size(layers=12, heads=12, width=768, hidden=3072),
    }
)


def chinchilla_tokens(parameters: int, multiple: float = 1.0) -> int:
    """Tokens of a run at `multiple` times the compute-optimal budget, 20 tokens a parameter; `parameters` are those
    without the input embedding (`Size.parameters`, `Recipe.parameters_without_embedding`)."""
    return round(CHINCHILLA_TOKENS * parameters * multiple)
