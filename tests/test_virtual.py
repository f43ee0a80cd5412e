"""Collapse and expand: exact linear maps between real and collapsed mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.core.dataset import Dataset, Domain
from olmix.core.limits import cap_proportionally, domain_caps, require_feasible
from olmix.core.mixture import kl_divergence, total_variation
from olmix.core.virtual import VIRTUAL, CollapsedSpace
from olmix.errors import InfeasibleError, MixtureError

shares = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6)


def normalised(values: list[float]) -> list[float]:
    return [value / math.fsum(values) for value in values]


@st.composite
def spaces(draw: st.DrawFn) -> tuple[CollapsedSpace, np.ndarray, dict[str, float]]:
    """A space, a point of it, and a natural distribution of the real domains."""
    ratios = normalised(draw(shares))
    affected = tuple(f"new{i}" for i in range(draw(st.integers(1, 4))))
    space = CollapsedSpace({f"old{i}": r for i, r in enumerate(ratios)}, affected)
    names = [*space.members, *affected]
    natural = normalised(draw(st.lists(st.floats(0.01, 1.0), min_size=len(names), max_size=len(names))))
    point = normalised(draw(st.lists(st.floats(0.01, 1.0), min_size=1 + len(affected), max_size=1 + len(affected))))
    return space, np.array(point), dict(zip(names, natural, strict=True))


@given(spaces())
def test_expand_then_collapse_is_the_identity(
    case: tuple[CollapsedSpace, np.ndarray, dict[str, float]],
) -> None:
    space, point, _ = case
    expanded = space.expand(point)
    assert math.isclose(math.fsum(expanded.values()), 1.0, abs_tol=1e-12)
    np.testing.assert_allclose(space.collapse(expanded), point, atol=1e-12)


@given(spaces())
def test_effective_reference_gives_the_kl_of_the_expanded_mixture(
    case: tuple[CollapsedSpace, np.ndarray, dict[str, float]],
) -> None:
    space, point, natural = case
    collapsed = float(np.sum(point * np.log(point / space.reference(natural))))
    assert math.isclose(collapsed, kl_divergence(space.expand(point), natural), abs_tol=1e-10)


@given(spaces(), st.lists(st.floats(0.001, 2.0), min_size=10, max_size=10))
def test_capacity_is_the_largest_share_that_keeps_every_member_within_its_cap(
    case: tuple[CollapsedSpace, np.ndarray, dict[str, float]], limits: list[float]
) -> None:
    space, point, natural = case
    caps = dict(zip(natural, limits, strict=False))
    capacity = space.capacity(caps)
    at_capacity = space.expand([capacity, *point[1:]])
    tightest = max(at_capacity[name] / caps[name] for name in space.members)
    assert math.isclose(tightest, 1.0, rel_tol=1e-9)
    assert math.isclose(at_capacity[space.scarcest(caps)], caps[space.scarcest(caps)], rel_tol=1e-9)


def test_frozen_ratios_must_sum_to_one() -> None:
    with pytest.raises(MixtureError, match="do not sum to 1"):
        CollapsedSpace({"a": 0.5, "b": 0.4}, ("c",))


def test_a_member_with_ratio_zero_stays_at_zero_and_sets_no_capacity() -> None:
    space = CollapsedSpace({"a": 1.0, "junk": 0.0}, ("c",))
    assert space.capacity({"a": 0.8, "junk": 0.0, "c": 1.0}) == 0.8
    assert space.expand([0.5, 0.5]) == {"a": 0.5, "c": 0.5, "junk": 0.0}
    assert space.names == (VIRTUAL, "c")


DATASET = Dataset({"a": Domain(1, 100), "b": Domain(2, 300), "c": Domain(3, 600)})


def test_caps_are_repetition_times_tokens_over_target() -> None:
    assert domain_caps(DATASET, 2000, 4) == {"a": 0.2, "b": 0.6, "c": 1.0}


def test_infeasible_limits_name_the_shortfall_and_the_ways_out() -> None:
    space = CollapsedSpace({}, DATASET.names)
    with pytest.raises(InfeasibleError) as error:
        require_feasible(DATASET, space, domain_caps(DATASET, 5000, 4), 5000, 4)
    assert "at most 4,000 (1,000 too few)" in str(error.value)
    assert "raise the repetition limit to 5 or lower the target to 4,000 tokens" in str(error.value)
    require_feasible(DATASET, space, domain_caps(DATASET, 4000, 4), 4000, 4)


def test_infeasible_virtual_domain_names_its_scarcest_member() -> None:
    space = CollapsedSpace({"a": 0.9, "c": 0.1}, ("b",))
    with pytest.raises(InfeasibleError, match=r"a \(100 tokens\) is the scarcest; recompute it too"):
        require_feasible(DATASET, space, domain_caps(DATASET, 2000, 4), 2000, 4)


@given(shares, st.data())
def test_capping_in_proportion_keeps_the_ratios_of_what_is_not_capped(values: list[float], data: st.DataObject) -> None:
    weights = np.array(normalised(values))
    caps = np.array(data.draw(st.lists(st.floats(0.05, 1.0), min_size=len(weights), max_size=len(weights))))
    if caps.sum() < 1:
        with pytest.raises(InfeasibleError):
            cap_proportionally(weights, caps)
        return
    capped = cap_proportionally(weights, caps)
    assert math.isclose(capped.sum(), 1.0, abs_tol=1e-9)
    assert (capped <= caps + 1e-12).all()
    free = capped < caps - 1e-9
    scales = capped[free] / weights[free]
    assert np.ptp(scales) < 1e-9 if free.any() else True
    assert (capped[~free] <= weights[~free] * (scales.max() if free.any() else np.inf) + 1e-9).all()


def test_a_mixture_within_its_caps_is_untouched() -> None:
    weights = np.array([0.25, 0.25, 0.5])
    assert cap_proportionally(weights, np.ones(3)).tolist() == weights.tolist()


@given(shares, shares)
def test_total_variation_is_a_distance(a: list[float], b: list[float]) -> None:
    p = {f"d{i}": v for i, v in enumerate(normalised(a))}
    q = {f"d{i}": v for i, v in enumerate(normalised(b))}
    assert total_variation(p, p) == 0
    assert math.isclose(total_variation(p, q), total_variation(q, p), abs_tol=1e-12)
    assert 0 <= total_variation(p, q) <= 1 + 1e-12
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1
