"""Weights become whole units that sum exactly."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.core.quantise import largest_remainder, quantise, quantise_within
from olmix.errors import InfeasibleError, MixtureError

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9, allow_nan=False)), min_size=1, max_size=60).filter(any)


@given(weights, st.integers(0, 10**7))
def test_counts_sum_and_stay_within_a_unit_of_their_quota(values: list[float], total: int) -> None:
    counts = largest_remainder(values, total)
    quotas = np.array(values) / np.sum(values) * total
    assert counts.sum() == total
    assert np.all(np.abs(counts - quotas) < 1 + 1e-6)
    assert np.all(counts[np.array(values) == 0] == 0)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30, unique=True), st.integers(0, 10**5))
def test_more_weight_never_gets_less(values: list[int], total: int) -> None:
    counts = largest_remainder(values, total)
    assert np.all(np.diff(counts[np.argsort(values)]) >= 0)


@given(weights, st.integers(-30, 30))
def test_only_proportions_matter(values: list[float], exponent: int) -> None:
    scaled = (np.array(values) * 2.0**exponent).tolist()
    assert largest_remainder(values, 1000).tolist() == largest_remainder(scaled, 1000).tolist()


def test_equal_fractions_go_to_the_lower_index() -> None:
    assert largest_remainder([1, 1, 1], 2).tolist() == [1, 1, 0]
    assert largest_remainder([1, 0, 1, 2], 2).tolist() == [1, 0, 0, 1]


@given(weights)
def test_quantised_weights_are_a_mixture_in_whole_units(values: list[float]) -> None:
    quantised = quantise(values)
    units = np.rint(quantised * 10**6).astype(int)
    assert units.sum() == 10**6
    assert np.array_equal(units / 10**6, quantised)
    assert np.array_equal(quantise(quantised), quantised)


def test_decimals_set_the_unit() -> None:
    assert quantise([1, 2], decimals=1).tolist() == [0.3, 0.7]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, -0.1], [float("nan"), 1.0], [float("inf")], []])
def test_impossible_weights_are_refused(values: list[float]) -> None:
    with pytest.raises(MixtureError):
        largest_remainder(values, 10)


@given(weights, st.data())
def test_caps_hold_after_rounding(values: list[float], data: st.DataObject) -> None:
    caps = np.array([data.draw(st.floats(0, 1)) for _ in values])
    shares = np.array(values) / np.sum(values)
    room = np.floor(caps[shares > 0] * 10**6 + 1e-6).sum()
    if room < 10**6:
        with pytest.raises(InfeasibleError):
            quantise_within(shares, caps)
        return
    quantised = quantise_within(shares, caps)
    assert np.rint(quantised * 10**6).sum() == 10**6
    assert np.all(quantised <= caps + 1e-12)


def test_what_a_cap_has_no_room_for_goes_where_the_rounding_took_most() -> None:
    # Of 10 units 0.45 is rounded up, which its cap forbids; 0.34 has then lost 0.4 of a unit, and 0.21 only 0.1.
    rows = [(0.45, 0.45, 0.4), (0.34, 1.0, 0.4), (0.21, 1.0, 0.2)]
    for shares, caps, expected in (zip(*order, strict=True) for order in permutations(rows)):
        assert quantise_within(shares, caps, decimals=1).tolist() == list(expected)
