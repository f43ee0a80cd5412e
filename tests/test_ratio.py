"""The ratio estimator: its error is that of the formula, and as large as its estimates are off."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.core.ratio import Ratio
from olmix.core.seeds import generator

PAIR = st.tuples(st.integers(1, 10**9), st.integers(0, 10**9))


def of(pairs: Iterable[tuple[int, int]]) -> Ratio:
    ratio = Ratio()
    for x, y in pairs:
        ratio.add(x, y)
    return ratio


@given(st.lists(PAIR, min_size=2, max_size=30), st.integers(0, 100))
def test_running_sums_give_what_the_formula_gives(pairs: list[tuple[int, int]], others: int) -> None:
    x, y = np.array(pairs, dtype=float).T
    n, size = len(pairs), len(pairs) + others
    slope = y.sum() / x.sum()
    error = np.sqrt((1 - n / size) * np.sum((y - slope * x) ** 2) / (n * (n - 1))) / x.mean()
    assert of(pairs).total(10**6) == pytest.approx(10**6 * slope, abs=0.51)
    assert of(pairs).error(10**6, size) == pytest.approx(10**6 * error, rel=1e-6, abs=0.51)


@pytest.mark.parametrize("n", [100, 400])
def test_the_error_is_how_far_estimates_are_off(n: int) -> None:
    draw = generator("ratio", n)
    x = np.ceil(draw.lognormal(6, 0.7, size=600)).astype(int)
    y = np.ceil(x / draw.uniform(2, 6, size=600)).astype(int)
    scores = []
    for _ in range(400):
        chosen = draw.permutation(600)[:n]
        ratio = of(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
        error = ratio.error(int(x.sum()), 600)
        assert error is not None
        scores.append((ratio.total(int(x.sum())) - y.sum()) / error)
    assert np.sqrt(np.mean(np.square(scores))) == pytest.approx(1, abs=0.15)


def test_a_whole_population_has_no_error_and_a_single_pair_an_unknown_one() -> None:
    assert of([(3, 1), (5, 4)]).error(8, 2) == 0
    assert of([(3, 1), (5, 4)]).total(8) == 5
    assert of([(3, 1)]).error(8, 2) is None
