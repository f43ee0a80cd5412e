"""Named random streams.

Every draw in olmix comes from a Philox generator whose key is a hash of *names* ("swarm", 0, "web"), never from
a shared stream: adding a domain, a run or a worker therefore changes no draw of any other.
"""

from __future__ import annotations

import numpy as np
import xxhash


def named_key(*names: str | int) -> int:
    """A 128-bit integer that identifies the sequence `names`, the same on every machine."""
    return xxhash.xxh3_128_intdigest("\x1f".join(map(str, names)).encode())


def generator(*names: str | int) -> np.random.Generator:
    """A Philox generator (counter-based, platform-independent) keyed by `names`."""
    return np.random.Generator(np.random.Philox(key=named_key(*names)))
