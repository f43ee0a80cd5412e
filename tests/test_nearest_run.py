from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.laws.base import ConvexLaw
from olmix.laws.nearest_run import fit_nearest
from olmix.laws.observations import observe
from tests.public_swarms import needs_swarms
from tests.test_evidence import (
    require_masked_is_absent,
    require_order_of_runs_is_nothing,
    require_permuting_domains_permutes,
    require_sane,
    require_sane_on,
    require_weights_are_repetitions,
    synthetic,
    unseen_spearman,
)


def test_the_nearest_run_is_the_prediction():
    x, y, g = synthetic(30, 5, 3)
    law = fit_nearest(observe(x, y))
    assert law.predict(x) == pytest.approx(y)
    for q in g.dirichlet(np.ones(5), size=40):
        assert (law.predict(q) == y[np.abs(x - q).sum(axis=1).argmin()]).all()


def test_ties_are_averaged_by_weight():
    x = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.0, 0.0, 1.0]])
    y = np.array([[1.0], [2.0], [3.0], [9.0]])
    law = fit_nearest(observe(x, y, np.array([1.0, 3.0, 1.0, 1.0])))
    assert law.predict(x[0]) == pytest.approx([1.75])
    assert law.predict(np.array([0.3, 0.3, 0.4])) == pytest.approx([(1 + 6 + 3) / 5])
    assert law.predict(x[3]) == pytest.approx([9.0])


def test_distances_that_differ_by_rounding_tie():
    x = np.array(list(permutations([0.1, 0.2, 0.7])))
    y = np.arange(1.0, 7.0)[:, None]
    assert fit_nearest(observe(x, y)).predict(np.full(3, 1 / 3)) == pytest.approx([3.5])


def test_a_masked_run_is_passed_over():
    x, y, _ = synthetic(10, 4, 2)
    weights = np.ones(y.shape)
    weights[4, 1] = 0
    predicted = fit_nearest(observe(x, y, weights)).predict(x[4])
    others = np.arange(10) != 4
    assert predicted[0] == y[4, 0]
    assert predicted[1] == y[others, 1][np.abs(x[others] - x[4]).sum(axis=1).argmin()]
    require_masked_is_absent(fit_nearest)


def test_a_weight_is_a_repetition():
    require_weights_are_repetitions(fit_nearest)


def test_the_order_of_runs_is_nothing():
    require_order_of_runs_is_nothing(fit_nearest)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), domains=st.integers(2, 6))
def test_permuting_domains_permutes(seed, domains):
    require_permuting_domains_permutes(fit_nearest, seed, domains)


@pytest.mark.parametrize("runs", [2, 7, 21])
def test_predictions_are_sane_at_any_number_of_runs(runs):
    require_sane(fit_nearest, runs)


def test_shapes_of_predictions():
    x, y, _ = synthetic(20, 3, 2)
    law = fit_nearest(observe(x, y))
    assert law.predict(np.full((2, 4, 3), 1 / 3)).shape == (2, 4, 2)
    assert law.predict(x[0]).shape == (2,)
    assert not isinstance(law, ConvexLaw)


@needs_swarms
@pytest.mark.parametrize(("name", "runs"), [("dclm", 24), ("partition-pdfs", 22), ("regmix-1m", 51)])
def test_predictions_are_sane_on_public_swarms(name, runs):
    require_sane_on(fit_nearest, name, runs)


@needs_swarms
def test_unseen_runs_are_ordered_somewhat():
    """Measured on these four splits: .567 / .650."""
    spearman = unseen_spearman(fit_nearest, "dclm", 48)
    assert spearman[0] > 0.54
    assert spearman[1] > 0.6
