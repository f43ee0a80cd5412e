from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from olmix.core.seeds import generator
from olmix.laws import power
from olmix.laws.observations import observe
from olmix.laws.power import AutoScale, BiMix, fit_autoscale, fit_bimix
from tests.public_swarms import needs_swarms
from tests.test_evidence import (
    require_convex_objective,
    require_masked_is_absent,
    require_order_of_runs_is_nothing,
    require_permuting_domains_permutes,
    require_sane,
    require_sane_on,
    require_weights_are_repetitions,
    synthetic,
    unseen_spearman,
)

every_law = pytest.mark.parametrize("fit", [fit_bimix, fit_autoscale])


@pytest.fixture
def nothing_to_choose(monkeypatch):
    """One exponent, shift and ridge, so that equal problems have equal solutions."""
    for name, values in (("EXPONENTS", (1.0,)), ("SHIFTS", (0.03,)), ("RIDGES", (0.01,))):
        monkeypatch.setattr(power, name, values)


@every_law
def test_masked_runs_are_absent(fit):
    require_masked_is_absent(fit)


@every_law
@pytest.mark.usefixtures("nothing_to_choose")
def test_a_weight_is_a_repetition_at_given_exponents(fit):
    require_weights_are_repetitions(fit)


@every_law
def test_the_order_of_runs_is_nothing(fit):
    require_order_of_runs_is_nothing(fit)


@every_law
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), domains=st.integers(2, 6))
def test_permuting_domains_permutes(fit, seed, domains):
    require_permuting_domains_permutes(fit, seed, domains)


@every_law
@pytest.mark.parametrize("runs", [2, 3, 7, 8, 21])
def test_predictions_are_sane_at_any_number_of_runs(fit, runs):
    require_sane(fit, runs)


@every_law
def test_convex_objective(fit):
    require_convex_objective(fit)


def test_curvature_of_bimix_is_diagonal():
    x, y, _ = synthetic(30, 5, 3)
    assert fit_bimix(observe(x, y)).objective().curvature(np.full(5, 0.2)).factor.shape == (0, 5)


@every_law
def test_degenerate_runs_are_predicted_as_their_mean(fit):
    x, y, _ = synthetic(6, 4, 2)
    y[:, 1] = 1.25
    assert fit(observe(x, y)).predict(np.eye(4))[:, 1] == pytest.approx([1.25] * 4)
    one = np.ones(y.shape)
    one[1:, 0] = 0
    assert fit(observe(x, y, one)).predict(x)[:, 0] == pytest.approx(y[[0] * 6, 0])


def test_bimix_recovers_its_own_law():
    g = generator("bimix")
    x = g.dirichlet(np.ones(4), size=60)
    amplitudes = g.uniform(0, 0.1, (3, 4))
    truth = BiMix(np.full(3, 0.5), amplitudes, np.full(3, 1.0), np.full(3, 0.03), np.zeros(3), np.full(3, 99.0))
    law = fit_bimix(observe(x, truth.predict(x)))
    assert law.exponent.tolist() == [1.0] * 3
    assert law.shift.tolist() == [0.03] * 3
    unseen = g.dirichlet(np.ones(4), size=60)
    assert law.predict(unseen) == pytest.approx(truth.predict(unseen), rel=0.1)


def test_autoscale_recovers_its_own_law():
    g = generator("autoscale")
    x = g.dirichlet(np.ones(4), size=60)
    exponents = g.uniform(0, 0.3, (3, 2, 4)) * (g.random((3, 2, 4)) < 0.5)
    truth = AutoScale(np.zeros(3), exponents, np.array([0.003, 0.3]), np.zeros(3), np.full(3, 99.0))
    law = fit_autoscale(observe(x, truth.predict(x)))
    assert law.predict(x) == pytest.approx(truth.predict(x), rel=0.1)
    by_hand = np.exp(-sum(exponents[1, s] @ np.log(x[0] + n) for s, n in enumerate((0.003, 0.3))))
    assert truth.predict(x[0])[1] == pytest.approx(by_hand)


@every_law
def test_no_domain_harms_by_more_than_the_tokens_it_takes(fit):
    x, y, _ = synthetic(30, 5, 3)
    y[:, 0] += x[:, 2]
    law = fit(observe(x, y))
    signs = law.amplitudes if isinstance(law, BiMix) else law.exponents
    assert (signs >= 0).all()
    assert (signs > 0).any()
    before, added = np.array([0.4, 0.3, 0.1, 0.1, 0.0]), np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    assert (law.objective().gradient(before) <= 0).all()
    assert (law.predict(added) <= law.predict(before)).all()


@every_law
def test_a_never_sampled_domain_is_an_average_one(fit):
    x, y, _ = synthetic(40, 4, 3, noise=0.02)
    wide = np.insert(x, 2, 0.0, axis=1)
    narrow, law = fit(observe(x, y)), fit(observe(wide, y))
    assert law.predict(wide) == pytest.approx(narrow.predict(x), abs=1e-9)
    here, there = (law.amplitudes, narrow.amplitudes) if fit is fit_bimix else (law.exponents, narrow.exponents)
    assert here[..., 2] == pytest.approx(there.mean(axis=-1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 12), rows=st.integers(1, 15))
def test_least_squares_with_signs_is_exact(seed, size, rows):
    g = generator("nnls", seed)
    features, targets = g.standard_normal((rows, size)), g.standard_normal((4, rows))
    gram = features.T @ features + 1e-3 * np.eye(size)
    found, inverse = power._nonnegative(gram, targets @ features)
    stacked = np.vstack([features, np.sqrt(1e-3) * np.eye(size)])
    for j in range(4):
        exact = nnls(stacked, np.append(targets[j], np.zeros(size)))[0]
        assert found[j] == pytest.approx(exact, abs=1e-8)
        free = exact > 0
        assert inverse[j][np.ix_(free, free)] @ gram[np.ix_(free, free)] == pytest.approx(np.eye(free.sum()), abs=1e-7)


@pytest.mark.usefixtures("nothing_to_choose")
def test_the_error_is_that_of_fits_without_the_run(monkeypatch):
    g = generator("leave one out")
    # All slopes point the way of their signs, so that no fit meets them and the formula is exact.
    features = g.uniform(size=(20, 3))
    targets = (features @ [1.0, 2.0, 3.0] + 0.01 * g.standard_normal(20))[:, None]
    weights = g.uniform(0.5, 2, 20)
    runs = power._Runs(features, targets, weights / weights.sum())
    _, _, error = runs.fitted(features, targets)
    centred = features - runs.shares @ features
    penalty = 0.01 * np.trace(centred.T @ (runs.shares[:, None] * centred)) / 3
    expected = 0.0
    for k in range(20):
        w = np.where(np.arange(20) == k, 0, runs.shares)
        x, y = features - w @ features / w.sum(), targets[:, 0] - w @ targets[:, 0] / w.sum()
        slope = np.linalg.solve(x.T @ (w[:, None] * x) + penalty * np.eye(3), x.T @ (w * y))
        expected += runs.shares[k] * (y[k] - x[k] @ slope) ** 2
    assert error[0] == pytest.approx(expected)


@every_law
def test_shapes_of_predictions(fit):
    x, y, _ = synthetic(20, 3, 2)
    law = fit(observe(x, y))
    many = law.predict(np.full((2, 4, 3), 1 / 3))
    assert many.shape == (2, 4, 2)
    assert law.predict(np.full(3, 1 / 3)) == pytest.approx(many[1, 2])


@needs_swarms
@every_law
@pytest.mark.parametrize(
    ("name", "runs"), [("dclm", 24), ("dclm", 25), ("dclm", 72), ("partition-pdfs", 22), ("regmix-1m", 17)]
)
def test_predictions_are_sane_on_public_swarms(fit, name, runs):
    require_sane_on(fit, name, runs)


# Measured on these four splits: .813 / .940 and .822 / .944.
@needs_swarms
@pytest.mark.parametrize(("fit", "tasks", "mean"), [(fit_bimix, 0.79, 0.92), (fit_autoscale, 0.8, 0.925)])
def test_unseen_runs_are_ordered(fit, tasks, mean):
    spearman = unseen_spearman(fit, "dclm", 48)
    assert spearman[0] > tasks
    assert spearman[1] > mean
