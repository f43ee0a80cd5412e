"""The law with diminishing returns and the fit that it shares with the log-linear one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit.diagnostics import scores
from olmix.laws import exponential as exponential_module
from olmix.laws.base import ConvexLaw
from olmix.laws.diminishing import EXPONENT, Diminishing, diminishing, refit_diminishing
from olmix.laws.exponential import exponential
from olmix.laws.huber import huber
from olmix.laws.loglinear import loglinear
from olmix.laws.observations import observe
from olmix.laws.registry import LOG_LINEAR, law_kinds
from olmix.solver.certified import solve
from tests.public_swarms import load, needs_swarms


def made(domains: int, tasks: int, seed: int = 0, useless: int = 0) -> Diminishing:
    """A law whose first `useless` domains teach nothing."""
    g = generator("diminishing", domains, tasks, seed)
    returns = g.uniform(0.1, 1.5, (tasks, domains))
    returns[:, :useless] = 0
    nothing, everything = np.zeros(tasks), np.full(tasks, np.inf)
    return Diminishing(
        g.uniform(0.3, 1.0, tasks), g.normal(0.5, 0.2, tasks), returns, EXPONENT, nothing, nothing, everything
    )


def swarm(law: Diminishing, runs: int, noise: float = 0.0, seed: int = 0):
    g = generator("diminishing swarm", runs, seed)
    x = g.dirichlet(np.ones(law.returns.shape[1]), size=runs)
    return x, law.predict(x) + noise * g.standard_normal((runs, len(law.floor)))


def test_is_the_formula():
    law = made(3, 2)
    p = np.array([0.2, 0.8, 0.0])
    for j in range(2):
        taught = sum(law.returns[j, i] * p[i] ** 0.6 for i in range(3))
        assert law.predict(p)[j] == pytest.approx(law.floor[j] + np.exp(law.level[j] - taught))
    assert law.predict(np.full((2, 4, 3), 1 / 3)).shape == (2, 4, 2)


@pytest.mark.parametrize("useless", [0, 2])
def test_recovers_the_law_that_made_the_data(useless):
    truth = made(5, 3, useless=useless)
    x, y = swarm(truth, 40)
    unseen, bpb = swarm(truth, 200, seed=1)
    law = diminishing(observe(x, y), ridge=1e-9)
    assert law.loss.max() < 1e-10
    assert np.abs(law.predict(unseen) - bpb).max() < 1e-3
    assert law.returns == pytest.approx(truth.returns, abs=0.01)
    assert law.floor == pytest.approx(truth.floor, abs=0.01)
    # The usual ridge trades returns against the floor, which predictions hardly feel.
    usual = diminishing(observe(x, y))
    assert usual.loss.max() < 1e-6
    assert np.abs(usual.predict(unseen) - bpb).mean() < 2e-3


def test_needs_fewer_runs_than_the_log_linear_law_where_returns_diminish():
    truth = made(6, 2)
    unseen, bpb = swarm(truth, 200, seed=1)
    x, y = swarm(truth, 9, noise=0.01)
    rank = {fit: scores(fit(observe(x, y)).predict(unseen), bpb).mean_spearman for fit in (diminishing, loglinear)}
    assert rank[diminishing] > rank[loglinear] + 0.03


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(4, 30))
def test_no_domain_does_harm_whatever_the_data(seed, domains, runs):
    g = generator("harm", seed)
    x = g.dirichlet(np.ones(domains), size=runs)
    y = np.exp(x @ g.normal(0, 1.0, (domains, 2)) + 0.1 * g.standard_normal((runs, 2)))
    law = diminishing(observe(x, y))
    assert (law.returns >= 0).all()
    assert (law.floor >= 0).all()
    assert np.isfinite(law.level).all()
    residual = law.floor + np.exp(law.level - x**EXPONENT @ law.returns.T) - y
    assert law.loss == pytest.approx(huber(residual, 0.02).mean(axis=0), rel=1e-9)


def test_a_fit_is_never_worse_than_a_constant():
    for seed in range(20):
        g = generator("constant", seed)
        x = g.dirichlet(np.ones(4), size=8)
        y = 0.5 + np.exp(x @ g.normal(0, 0.5, (4, 2)) + 0.1 * g.standard_normal((8, 2)))
        constant = huber(y - np.median(y, axis=0), 0.02).mean(axis=0)
        assert (diminishing(observe(x, y)).loss <= 1.001 * constant).all()


def test_is_a_local_minimum_of_loss_and_ridge():
    x, y = swarm(made(4, 2), 40, noise=0.03)
    ridge = 1e-4
    law = diminishing(observe(x, y), ridge=ridge)

    def cost(floor, level, returns):
        loss = huber(floor + np.exp(level - x**EXPONENT @ returns.T) - y, 0.02).mean(axis=0)
        return loss + ridge / 2 * (returns**2).sum(axis=1)

    least = cost(law.floor, law.level, law.returns)
    g = generator("directions")
    for size in (1e-2, 1e-3):
        for _ in range(100):
            floor = np.maximum(law.floor + size * g.standard_normal(2), 0)
            level = law.level + size * g.standard_normal(2)
            returns = np.maximum(law.returns + size * g.standard_normal((2, 4)), 0)
            assert (cost(floor, level, returns) >= least * (1 - 1e-5)).all()


def test_a_stronger_ridge_gives_lower_returns():
    x, y = swarm(made(4, 2), 30, noise=0.03)
    sums = [diminishing(observe(x, y), ridge=ridge).returns.sum() for ridge in (1e-6, 1e-3, 1e-1)]
    assert sums[0] > sums[1] > sums[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 4))
def test_gradient_and_hessian_are_those_of_the_objective(seed, domains, tasks):
    law = made(domains, tasks, seed, useless=1)
    g = generator("derivatives", seed)
    weights = g.uniform(0, 1, tasks) + 0.1
    objective = law.objective(weights)
    q = 0.02 + (1 - 0.02 * domains) * g.dirichlet(np.ones(domains))
    assert objective.value(q) == pytest.approx(law.predict(q) @ weights / weights.sum())
    assert objective.predict(q) == pytest.approx(law.predict(q))
    step = 1e-6
    curvature = objective.curvature(q)
    for i, e in enumerate(np.eye(domains)):
        slope = (objective.value(q + step * e) - objective.value(q - step * e)) / (2 * step)
        bend = (objective.gradient(q + step * e) - objective.gradient(q - step * e)) / (2 * step)
        assert objective.gradient(q)[i] == pytest.approx(slope, rel=1e-6, abs=1e-8)
        assert curvature.times(e) == pytest.approx(bend, rel=1e-5, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_is_convex_along_segments(seed, domains):
    objective = made(domains, 3, seed).objective()
    g = generator("segment", seed)
    # Sparse mixtures too: the slope at a share of 0 is infinite.
    ends = g.dirichlet(np.full(domains, 0.3), size=2)
    ends[ends < 0.05] = 0
    ends /= ends.sum(axis=1, keepdims=True)
    along = np.linspace(0, 1, 21)
    values = np.array([objective.value(ends[0] + t * (ends[1] - ends[0])) for t in along])
    assert (values[1:-1] <= (values[:-2] + values[2:]) / 2 + 1e-12).all()
    curvature = objective.curvature(ends[0])
    assert (curvature.diagonal >= 0).all()
    assert np.isfinite(objective.gradient(ends[0])).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 6),
    st.integers(0, 6),
    st.sampled_from([0.0, 1e-3, 0.05]),
    st.sampled_from([None, 1.2, 3.0]),
)
def test_the_best_mixture_is_certified(seed, domains, useless, kl, room):
    law = made(domains, 3, seed, useless=min(useless, domains))
    g = generator("certified", seed)
    reference = g.dirichlet(np.full(domains, 2.0)) + 1e-4
    caps = np.ones(domains) if room is None else room * g.dirichlet(np.full(domains, 5.0))
    if np.minimum(caps, 1).sum() < 1:
        caps = caps + 1 - np.minimum(caps, 1).sum()
    solution = solve(law.objective(), reference=reference, kl=kl, caps=caps)
    assert solution.gap <= 1e-9
    assert (solution.weights <= caps).all()

    def regularised(q):
        held = q > 0
        return law.objective().value(q) + kl * q[held] @ np.log(q[held] / reference[held])

    assert solution.objective == pytest.approx(regularised(solution.weights), abs=1e-12)
    others = g.dirichlet(np.ones(domains), size=300)
    others = others[(others <= caps).all(axis=1)]
    # Close by as well: between the answer and each of them.
    for q in [*others, *(solution.weights + 0.01 * (others - solution.weights))]:
        assert regularised(q) >= solution.objective - 1e-9


def test_a_domain_without_returns_gets_nothing_but_what_the_reference_asks():
    law = made(4, 3, useless=1)
    even = np.full(4, 0.25)
    alone = solve(law.objective(), reference=even, kl=0.0, caps=np.ones(4))
    assert alone.weights[0] < 1e-9
    assert solve(law.objective(), reference=even, kl=0.05, caps=np.ones(4)).weights[0] > 1e-5
    # With caps that leave no other room it has to.
    forced = solve(law.objective(), reference=even, kl=0.0, caps=np.array([1.0, 0.2, 0.3, 0.1]))
    assert forced.weights == pytest.approx([0.4, 0.2, 0.3, 0.1])


def test_a_never_sampled_domain_teaches_at_an_even_share_what_the_average_run_teaches_a_domain():
    x, y = swarm(made(4, 3), 40, noise=0.02)
    wide = np.insert(x, 2, 0.0, axis=1)
    narrow, law = diminishing(observe(x, y)), diminishing(observe(wide, y))
    sampled = [0, 1, 3, 4]
    assert law.returns[:, sampled] == pytest.approx(narrow.returns, abs=1e-12)
    average = narrow.returns @ x.mean(axis=0) ** EXPONENT
    assert law.returns[:, 2] * (1 / 5) ** EXPONENT == pytest.approx(average / 5)


def test_predictions_are_clipped_to_what_the_runs_support():
    x, y = swarm(made(3, 2), 20)
    observations = observe(x, y)
    law = diminishing(observations)
    assert law.lower == pytest.approx(observations.bounds(0.02)[0])
    assert law.upper == pytest.approx(observations.bounds(0.02)[1])
    wild = Diminishing(law.floor, np.array([1e4, -1e4]), law.returns, EXPONENT, law.loss, law.lower, law.upper)
    assert wild.predict(np.eye(3))[:, 0].tolist() == [law.upper[0]] * 3
    assert (wild.predict(np.eye(3))[:, 1] == np.maximum(law.floor, law.lower)[1]).all()


def test_a_fitted_law_is_convex_whatever_the_data():
    for seed in range(10):
        g = generator("fitted and convex", seed)
        x = g.dirichlet(np.ones(4), size=12)
        y = np.exp(x @ g.normal(0, 1.0, (4, 2)) + 0.1 * g.standard_normal((12, 2)))  # some domains do harm
        law = diminishing(observe(x, y))
        assert isinstance(law, ConvexLaw)
        one, other = g.dirichlet(np.ones(4), size=(2, 50))
        for task in np.eye(2):
            value = law.objective(task).value
            for p, q in zip(one, other, strict=True):
                assert value((p + q) / 2) <= (value(p) + value(q)) / 2 + 1e-12


def test_a_fitted_law_is_read_only():
    x, y = swarm(made(3, 2), 20)
    law = diminishing(observe(x, y))
    with pytest.raises(ValueError, match="read-only"):
        law.returns[0, 0] = 1
    with pytest.raises(SwarmError, match="task weights"):
        law.objective(np.array([1.0, -1.0]))
    twice = diminishing(observe(x, y))
    assert (twice.returns == law.returns).all()


@pytest.mark.parametrize("name", [LOG_LINEAR, "diminishing"])
def test_batches_change_nothing(name, monkeypatch):
    kind = law_kinds()[name]
    x, y = swarm(made(3, 4), 20, noise=0.02)
    observations = observe(x, y)
    factors = list(generator("factors").integers(0, 3, (5, 20)).astype(float))
    law = kind.fit(observations)
    refits = kind.refitted(observations, factors, law)
    monkeypatch.setattr(exponential_module, "BATCH_BYTES", 1)
    small = kind.fit(observations)
    assert small.predict(x) == pytest.approx(law.predict(x), abs=1e-8)
    for one, two in zip(kind.refitted(observations, factors, small), refits, strict=True):
        assert one.predict(x) == pytest.approx(two.predict(x), abs=1e-6)


def test_more_starts_are_never_worse():
    # Far more noise than delta, so that there are several optima.
    x, y = swarm(made(5, 6), 12, noise=0.15)
    one, six = (loglinear(observe(x, y), starts=starts).loss for starts in (1, 6))
    assert (six <= one * (1 + 1e-6) + 1e-9).all()
    assert (loglinear(observe(x, y), starts=0).loss == one).all()
    assert (loglinear(observe(x, y), starts=99).loss == six).all()


def test_an_overflowing_exponential_is_infinite_and_silent():
    with np.errstate(all="raise"):
        assert exponential(np.ones(1), np.array([[1e4]]), np.ones(1)).tolist() == [np.inf]


def test_a_refit_keeps_the_bounds_and_is_near():
    x, y = swarm(made(4, 2), 40, noise=0.02)
    observations = observe(x, y)
    law = diminishing(observations)
    (same,) = refit_diminishing(observations, [np.ones(40)], law)
    assert same.predict(x) == pytest.approx(law.predict(x), abs=1e-3)
    assert same.loss == pytest.approx(law.loss, rel=1e-3)
    assert same.lower.tolist() == law.lower.tolist()
    assert same.upper.tolist() == law.upper.tolist()


@needs_swarms
def test_half_the_runs_are_enough_on_a_public_swarm():
    public = load("dclm")
    tasks = np.arange(0, len(public.tasks), 9)
    order = generator("split", 100).permutation(len(public.ids))
    train, test = order[:24], order[24:]
    observations = observe(public.mixtures[train], public.bpb[np.ix_(train, tasks)])
    unseen, bpb = public.mixtures[test], public.bpb[np.ix_(test, tasks)]
    few = scores(diminishing(observations).predict(unseen), bpb)
    plain = scores(loglinear(observations).predict(unseen), bpb)
    assert few.mean_spearman > plain.mean_spearman + 0.05
    assert few.spearman.mean() > plain.spearman.mean() + 0.1
