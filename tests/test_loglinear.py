from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit.bootstrap import bootstrap
from olmix.laws import huber as huber_module
from olmix.laws.huber import huber
from olmix.laws.loglinear import LogLinear, fit_loglinear
from olmix.laws.observations import observe
from olmix.laws.registry import LOG_LINEAR, law_kinds
from tests.public_swarms import REFERENCE_LOSSES, load, needs_swarms


def synthetic(runs: int, domains: int, tasks: int, seed: int = 0, noise: float = 0.0):
    """Mixtures, BPB and the law that made them."""
    g = generator("synthetic", runs, domains, tasks, seed)
    x = g.dirichlet(np.ones(domains), size=runs)
    floor, t = g.uniform(0.3, 1.0, tasks), g.normal(0, 0.5, (tasks, domains))
    y = floor + np.exp(x @ t.T) + noise * g.standard_normal((runs, tasks))
    return x, y, floor, t


def test_recovers_the_law_that_made_the_data():
    x, y, *_ = synthetic(60, 5, 4)
    law = fit_loglinear(x, y)
    unseen, truth, *_ = synthetic(60, 5, 4)
    assert law.loss.max() < 1e-7
    assert np.abs(law.predict(unseen) - truth).max() < 2e-3


def test_loss_is_the_mean_huber_loss_of_the_predictions():
    x, y, *_ = synthetic(40, 4, 3, noise=0.05)
    law = fit_loglinear(x, y)
    residual = law.floor + np.exp(x @ law.coefficients.T) - y
    assert law.loss == pytest.approx(huber(residual, 0.02).mean(axis=0), rel=1e-9)


def test_huber_is_quadratic_inside_and_linear_outside():
    assert huber(np.array([0.01, -0.02, 0.05]), 0.02) == pytest.approx([5e-5, 2e-4, 0.02 * 0.04])


def test_an_outlier_hardly_moves_the_law():
    x, y, *_ = synthetic(60, 5, 1)
    spoiled = y.copy()
    spoiled[7] += 3.0
    law = fit_loglinear(x, spoiled)
    others = np.arange(60) != 7
    assert np.abs(law.predict(x) - y)[others].max() < 0.02


def test_is_a_local_minimum_of_the_loss():
    x, y, *_ = synthetic(40, 4, 2, noise=0.03)
    law = fit_loglinear(x, y, ridge=0.0)
    g = generator("directions")
    for size in (1e-2, 1e-3):
        for _ in range(50):
            t = law.coefficients + size * g.standard_normal(law.coefficients.shape)
            c = np.maximum(law.floor + size * g.standard_normal(2), 0)
            moved = huber(c + np.exp(x @ t.T) - y, 0.02).mean(axis=0)
            assert (moved >= law.loss * (1 - 1e-5)).all()


@pytest.mark.parametrize(("runs", "domains", "tasks"), [(9, 2, 1), (24, 7, 9), (6, 6, 2), (7, 6, 2), (2, 1, 1)])
def test_tiny_swarms(runs, domains, tasks):
    x, y, *_ = synthetic(runs, domains, tasks, noise=0.02)
    law = fit_loglinear(x, y)
    assert (law.floor >= 0).all()
    assert np.isfinite(law.coefficients).all()
    assert (law.loss <= huber(y - np.median(y, axis=0), 0.02).mean(axis=0) + 1e-9).all()


def test_a_constant_task_is_predicted_as_constant():
    x, y, *_ = synthetic(20, 3, 2)
    y[:, 1] = 1.25
    law = fit_loglinear(x, y)
    assert law.predict(np.eye(3))[:, 1] == pytest.approx([1.25] * 3, abs=1e-3)


def test_predictions_are_clipped_to_the_observed_range_widened_by_its_length():
    x, y, *_ = synthetic(20, 3, 1)
    law = fit_loglinear(x, y)
    length = np.ptp(y)
    assert law.upper[0] == pytest.approx(y.max() + length)
    assert law.lower[0] == pytest.approx(max(0.0, y.min() - length))
    wild = LogLinear(law.floor, np.array([[1e4, -1e4, 0.0]]), law.loss, law.lower, law.upper)
    assert wild.predict(np.eye(3))[:2, 0].tolist() == [law.upper[0], max(law.lower[0], law.floor[0])]
    assert law.predict(np.full((2, 4, 3), 1 / 3)).shape == (2, 4, 1)


def test_a_never_sampled_domain_predicts_the_average_run():
    x, y, *_ = synthetic(40, 4, 3, noise=0.02)
    wide = np.insert(x, 2, 0.0, axis=1)
    assert observe(wide, y).never_sampled.tolist() == [False, False, True, False, False]
    narrow, law = fit_loglinear(x, y), fit_loglinear(wide, y)
    assert law.coefficients[:, [0, 1, 3, 4]] == pytest.approx(narrow.coefficients, abs=1e-12)
    assert law.coefficients[:, 2] == pytest.approx(narrow.coefficients @ x.mean(axis=0))


def test_run_weights_are_repetitions():
    x, y, *_ = synthetic(30, 3, 2, noise=0.03)
    counts = generator("counts").integers(0, 4, 30)
    repeated = fit_loglinear(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0))
    weighted = fit_loglinear(x, y, weights=counts.astype(float))
    assert weighted.predict(x) == pytest.approx(repeated.predict(x), abs=1e-5)
    assert fit_loglinear(x, y, weights=7.0 * counts).loss == pytest.approx(weighted.loss, rel=1e-9)


def test_is_deterministic_and_independent_of_the_other_tasks():
    x, y, *_ = synthetic(40, 5, 6, noise=0.02)
    one, two = fit_loglinear(x, y), fit_loglinear(x, y)
    assert (one.coefficients == two.coefficients).all()
    alone = fit_loglinear(x, y[:, 3:4])
    assert alone.loss[0] == pytest.approx(one.loss[3], rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_permuting_domains_permutes_coefficients(seed, domains):
    x, y, *_ = synthetic(30, domains, 2, seed)
    order = generator("order", seed).permutation(domains)
    law, permuted = fit_loglinear(x, y), fit_loglinear(x[:, order], y)
    # Up to which optimum is met first: compare what the laws say.
    assert permuted.loss == pytest.approx(law.loss, abs=1e-6)
    assert permuted.predict(x[:, order]) == pytest.approx(law.predict(x), abs=5e-3)


def test_large_designs_form_each_hessian_on_its_own(monkeypatch):
    x, y, *_ = synthetic(30, 4, 3, noise=0.02)
    packed = fit_loglinear(x, y)
    monkeypatch.setattr(huber_module, "PAIRS_BYTES", 0)
    assert fit_loglinear(x, y).loss == pytest.approx(packed.loss, rel=1e-5)


def test_errors_say_what_is_wrong():
    x, y, *_ = synthetic(12, 4, 2)
    spoiled = y.copy()
    spoiled[3, 1] = np.nan
    with pytest.raises(SwarmError, match="run 3, task 1 is nan"):
        fit_loglinear(x, spoiled)
    spoiled[3, 1] = -1
    with pytest.raises(SwarmError, match="run 3, task 1 is -1"):
        fit_loglinear(x, spoiled)
    with pytest.raises(SwarmError, match="3 runs cannot fit the law of 4 sampled domains"):
        fit_loglinear(x[:3], y[:3])
    assert np.isfinite(fit_loglinear(x[:3], y[:3], allow_underdetermined=True).coefficients).all()
    with pytest.raises(SwarmError, match="sum to 1"):
        fit_loglinear(x * 0.9, y)
    with pytest.raises(SwarmError, match="12 finite numbers"):
        fit_loglinear(x, y, weights=np.ones(3))
    with pytest.raises(SwarmError, match="task weights"):
        fit_loglinear(x, y).objective(np.array([1.0, -1.0]))


def test_the_objective_is_the_weighted_mean_with_its_derivatives():
    x, y, *_ = synthetic(30, 4, 3)
    law = fit_loglinear(x, y)
    objective = law.objective(np.array([2.0, 0.0, 6.0]))
    q, step = np.full(4, 0.25), 1e-6
    unclipped = law.floor + np.exp(law.coefficients @ q)
    assert objective.value(q) == pytest.approx(unclipped @ [0.25, 0, 0.75])
    for i in range(4):
        up, down = q + step * np.eye(4)[i], q - step * np.eye(4)[i]
        slope = (objective.value(up) - objective.value(down)) / (2 * step)
        bend = (objective.gradient(up) - objective.gradient(down)) / (2 * step)
        assert objective.gradient(q)[i] == pytest.approx(slope, abs=1e-8)
        assert objective.curvature(q).times(np.eye(4)[i]) == pytest.approx(bend, abs=1e-8)


def test_bootstrap_replicates_are_named_and_spread_around_the_fit():
    x, y, *_ = synthetic(60, 4, 3, noise=0.03)
    law = fit_loglinear(x, y)
    kind = law_kinds()[LOG_LINEAR]
    laws = bootstrap(kind, observe(x, y), law, 12, seed=5)
    again = bootstrap(kind, observe(x, y), law, 3, seed=5)
    assert np.abs(laws[2].coefficients - again[2].coefficients).max() < 1e-3
    spread = np.std([b.predict(x) for b in laws], axis=0)
    assert 1e-4 < spread.mean() < 0.05
    assert np.abs(np.mean([b.predict(x) for b in laws], axis=0) - law.predict(x)).max() < 0.1


def test_a_replicate_is_the_fit_on_its_resample():
    x, y, *_ = synthetic(60, 4, 3, noise=0.03)
    (replicate,) = bootstrap(law_kinds()[LOG_LINEAR], observe(x, y), fit_loglinear(x, y), 1, seed=5)
    drawn = generator("bootstrap", 5, 0).integers(60, size=60)
    refit = fit_loglinear(x[drawn], y[drawn])
    residual = replicate.floor + np.exp(x @ replicate.coefficients.T) - y
    assert replicate.loss == pytest.approx(huber(residual, 0.02)[drawn].mean(axis=0), rel=1e-9)
    # It starts from the fit on all runs and may end in another optimum than a refit.
    assert (replicate.loss <= 1.1 * refit.loss).all()
    assert np.abs(replicate.predict(x) - refit.predict(x)).mean() < 5e-3


@needs_swarms
def test_dclm_losses_are_at_least_as_low_as_the_publishers():
    swarm = load("dclm").with_mmlu_grouped()
    law = fit_loglinear(swarm.mixtures, swarm.bpb)
    assert law.loss.shape == (57,)
    for task, reference in REFERENCE_LOSSES.items():
        assert law.loss[swarm.tasks.index(task)] <= 1.0001 * reference
