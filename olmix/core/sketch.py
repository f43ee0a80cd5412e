"""How much of a domain changed between two versions, and whether its text is distributed otherwise, from sketches.

A sketch holds the documents of lowest hash and how much text each has (bottom-k sampling: Cohen and Kaplan, PODC 2007).
The hash decides what is held, so two versions hold the same documents as far as they share them: below the lower of
their bounds both are complete, and what one has and the other has not is counted, not guessed. A sketch also holds how
often hashed n-grams occur in groups of these documents, again split by hash: groups of two versions are compared in
pairs, so a shift that all groups share is told from what sampling does to each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.digest import document_digest

# Documents of a sketch: a change of 1% of a domain is known to 0.3%.
DOCUMENTS = 1024
GROUPS, BUCKETS = 8, 128
_BITS = 48
_END = 1 << _BITS
# Knuth's multiplier: the golden ratio of 2^32.
_GOLDEN = np.uint32(2654435761)


@dataclass(frozen=True)
class Sketch:
    """The `hashes` (n,) of documents below `bound`, ascending, and the `sizes` (n,) of their text; `total` is that of
    the whole domain, in `unit`s (bytes, or tokens where documents are token ids). `profile` is the frequency of
    n-grams by group of documents and hash bucket, (GROUPS, BUCKETS), a row of zeros for a group without text. `sample`
    identifies the token sample that proxies read, where it is known."""

    unit: str
    total: int
    bound: int
    hashes: NDArray[np.uint64]
    sizes: NDArray[np.float32]
    profile: NDArray[np.float16]
    sample: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the sketch holds every document of the domain."""
        return self.bound == _END


def sketch(documents: Iterable[bytes], are_tokens: bool, total: int, complete: bool, most: int) -> Sketch:
    """The sketch of documents in the order of their hashes, of the first that hold `most` bytes at most.

    `complete` says that they are all documents of the domain, whose text has `total` bytes, or tokens.
    """
    held: dict[int, float] = {}
    counts = np.zeros((GROUPS, BUCKETS), dtype=np.int64)
    bound, size, last = _END, 0, -1
    group: dict[bytes, int] = {}

    def close() -> None:
        """Count the documents of one hash: copies of one text, but for a chance in 2^48."""
        if group:
            held[last] = float(sum(len(text) * copies for text, copies in group.items()) // (4 if are_tokens else 1))
            counts[last % GROUPS] += sum(_ngrams(text, are_tokens) * copies for text, copies in group.items())

    for document in documents:
        key = document_digest(document) >> (128 - _BITS)
        if key != last:
            close()
            group, last = {}, key
            if len(held) == DOCUMENTS or size >= most:
                bound = key
                break
        group[document] = group.get(document, 0) + 1
        size += len(document)
    else:
        close()
        if not complete:  # what follows the last document is unknown: it may have copies
            bound = last
            held.pop(last, None)
    sums = counts.sum(axis=1, keepdims=True)
    frequencies = np.divide(counts * BUCKETS, sums, out=np.zeros(counts.shape), where=sums > 0)
    return Sketch(
        "tokens" if are_tokens else "bytes",
        total,
        bound,
        np.array(list(held), dtype=np.uint64),
        np.array(list(held.values()), dtype=np.float32),
        frequencies.astype(np.float16),
    )


def _ngrams(document: bytes, are_tokens: bool) -> NDArray[np.int64]:
    """How many of a document's n-grams fall in each bucket: four bytes of text, or one token id."""
    if are_tokens:
        grams = np.frombuffer(document, "<u4").astype(np.uint32)
    else:
        text = np.frombuffer(document, np.uint8).astype(np.uint32)
        grams = text[:-3] | text[1:-2] << np.uint32(8) | text[2:-1] << np.uint32(16) | text[3:] << np.uint32(24)
    buckets = (grams * _GOLDEN) >> np.uint32(32 - BUCKETS.bit_length() + 1)
    return np.bincount(buckets, minlength=BUCKETS)


@dataclass(frozen=True)
class Drift:
    """What changed of a domain, as shares of its text, and how its n-grams moved.

    `new` is the share of the later version that the earlier has not, `gone` the share of the earlier that the later has
    not; each has its standard error. `shift` is the root mean square of the relative change of n-gram frequencies,
    with sampling noise taken out; a shift under twice its error cannot be told from none. Both are None where too few
    documents hold text. `same_sample` says that proxies read the very same tokens of both. Six decimals: other
    processors add in another order.
    """

    new: float
    new_error: float
    gone: float
    gone_error: float
    shift: float | None
    shift_error: float | None
    same_sample: bool = False

    @property
    def changed(self) -> float:
        """The larger of new and gone: the total variation distance between what the versions read of each document,
        in [0, 1]."""
        return max(self.new, self.gone)

    @property
    def error(self) -> float:
        """The standard error of `changed`."""
        return self.new_error if self.new >= self.gone else self.gone_error


def drift_between(old: Sketch, new: Sketch) -> Drift | None:
    """What changed from one version to the other; None where the sketches do not overlap or count other things."""
    if old.unit != new.unit:
        return None
    bound = min(old.bound, new.bound)
    then, now = (dict(zip(s.hashes.tolist(), s.sizes.tolist(), strict=True)) for s in (old, new))
    keys = sorted(key for key in then.keys() | now.keys() if key < bound)
    before = np.array([then.get(key, 0.0) for key in keys])
    after = np.array([now.get(key, 0.0) for key in keys])
    if not before.sum() or not after.sum():
        return None
    exact = old.complete and new.complete
    added, added_error = _share(np.maximum(after - before, 0), after, exact)
    lost, lost_error = _share(np.maximum(before - after, 0), before, exact)
    # A domain that grew by a tenth has so much new text at least, whatever the sketches hold of it.
    added, lost = max(added, 1 - old.total / new.total), max(lost, 1 - new.total / old.total)
    shift, shift_error = _shift(old.profile, new.profile)
    return Drift(
        new=round(added, 6),
        new_error=round(added_error, 6),
        gone=round(lost, 6),
        gone_error=round(lost_error, 6),
        shift=shift,
        shift_error=shift_error,
        same_sample=old.sample is not None and old.sample == new.sample,
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64], exact: bool) -> tuple[float, float]:
    """A ratio of sums over sampled documents, and its standard error (Cochran, Sampling Techniques, 6.4); at least that
    of one document, where none or all are part."""
    count, total = int(np.count_nonzero(whole)), float(whole.sum())
    share = float(part.sum()) / total
    if exact:
        return share, 0.0
    residuals = part - share * whole
    return share, max(math.sqrt(count / max(count - 1, 1) * float(residuals @ residuals)) / total, 1 / count)


def _shift(old: NDArray[np.float16], new: NDArray[np.float16]) -> tuple[float, float] | tuple[None, None]:
    """The shift of n-gram frequencies and its error, from groups in pairs: the differences of two groups have in common
    only what all documents have, so their product is free of sampling noise. Its error is a jackknife's over groups."""
    both = (old.sum(axis=1) > 0) & (new.sum(axis=1) > 0)
    a, b = old[both].astype(float), new[both].astype(float)
    if len(a) < 3:
        return None, None
    mean = (a + b).mean(axis=0) / 2
    scaled = (b - a) / np.sqrt(np.maximum(mean, 1e-3) * BUCKETS)
    products = scaled @ scaled.T

    def square(rows: NDArray[np.intp]) -> float:
        chosen = products[np.ix_(rows, rows)]
        return float(chosen.sum() - np.trace(chosen)) / (len(rows) * (len(rows) - 1))

    groups = np.arange(len(a))
    left_out = np.array([square(np.delete(groups, k)) for k in groups])
    shift = max(square(groups), 0.0)
    error = math.sqrt((len(a) - 1) * float(left_out.var()))
    return round(math.sqrt(shift), 6), round(math.sqrt(shift + error) - math.sqrt(shift), 6)
