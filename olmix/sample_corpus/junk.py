"""Noise in base64: nothing in it can be learnt, so the right weight of this domain is zero."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator

from olmix.core.seeds import generator

_BYTES_A_LINE = 57  # 76 characters


def noise() -> Iterator[str]:
    """An endless stream of documents of 4 to 12 lines; document i depends on i alone."""
    for i in itertools.count():
        draw = generator("sample-corpus", "junk", i)
        count = int(draw.integers(4, 13))
        yield "".join(base64.b64encode(draw.bytes(_BYTES_A_LINE)).decode() + "\n" for _ in range(count))
