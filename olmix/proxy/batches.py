"""The batches of a run: the planned sequences, gathered from their token sets and moved to the device.

Several steps are gathered in one numpy call a token set, as many as hold a stated number of tokens. For a CUDA device
they lie in pinned memory and are copied while the steps before them still compute: nothing waits for a copy but the
step that reads it. Sequences are int64 on the way, eight bytes a token: at a million tokens a second that is
a thousandth of what the bus carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from olmix.data.tokenizer import Tokens
from olmix.proxy.recipe import Recipe

_TOKENS_AT_ONCE = 1 << 15  # gathered together: 64 steps of the sample


def batches(
    recipe: Recipe,
    token_sets: Sequence[Tokens],
    labels: NDArray[np.int32],
    rows: NDArray[np.int64],
    device: str,
    start: int = 0,
) -> Iterator[Tensor]:
    """The batches from step `start` on, int64 (batch_size, sequence_length + 1) each; `labels` and `rows` say which
    row of which set each sequence of the run is."""
    pinned = torch.device(device).type == "cuda"
    size = recipe.batch_size
    steps_at_once = max(1, _TOKENS_AT_ONCE // (size * recipe.sequence_length))
    for begin in range(start * size, recipe.sequences, size * steps_at_once):
        part = slice(begin, begin + size * steps_at_once)
        chosen, places = labels[part], rows[part]
        gathered = np.empty((len(chosen), recipe.sequence_length + 1), dtype=np.int64)
        for label in np.unique(chosen):
            here = chosen == label
            gathered[here] = token_sets[label][places[here]]
        tokens = torch.from_numpy(gathered)
        yield from torch.split(tokens.pin_memory().to(device, non_blocking=True) if pinned else tokens, size)
