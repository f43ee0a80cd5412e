"""What a law is fitted to: a masked run is an absent one, weight 2 is a run seen twice, and no order matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit.proposing import best_mixture
from olmix.laws.observations import observe, stack
from olmix.laws.registry import LOG_LINEAR, law_kinds

LAWS = (LOG_LINEAR, "diminishing")
RUNS, DOMAINS, TASKS = 24, 4, 2


def swarm(seed: int = 0, noise: float = 0.03, runs: int = RUNS, domains: int = DOMAINS):
    """Mixtures and noisy BPB of a log-linear law in which every domain helps some task."""
    g = generator("observations", seed, runs, domains)
    x = g.dirichlet(np.ones(domains), size=runs)
    t = g.normal(0, 0.6, (TASKS, domains))
    return x, 0.5 + np.exp(x @ t.T) + noise * g.standard_normal((runs, TASKS))


def proposal(law, domains: int = DOMAINS, caps=None):
    caps = np.ones(domains) if caps is None else caps
    return best_mixture(
        law,
        task_weights=np.array([0.3, 0.7]),
        reference=np.full(domains, 1 / domains),
        kl=0.05,
        caps=caps,
        observed=np.full((1, domains), 1 / domains),
    ).weights


def same_law(one, two, points, tolerance: float = 1e-8) -> bool:
    """Whether two laws predict the same BPB and propose the same mixture, but for where Newton stopped."""
    predicted = np.abs(one.predict(points) - two.predict(points)).max()
    proposed = np.abs(proposal(one, points.shape[1]) - proposal(two, points.shape[1])).max()
    return bool(predicted < tolerance and proposed < 100 * tolerance)


@pytest.mark.parametrize("name", LAWS)
def test_a_masked_run_is_an_absent_one(name):
    fit = law_kinds()[name].fit
    x, y = swarm()
    weights = np.ones((RUNS, TASKS))
    weights[3:8] = 0
    weights[10:14, 1] = 0
    spoiled = np.where(weights > 0, y, np.nan)
    law = fit(observe(x, spoiled, weights))
    for j in range(TASKS):
        kept = weights[:, j] > 0
        alone = fit(observe(x[kept], y[kept, j : j + 1]))
        assert law.predict(x)[:, j] == pytest.approx(alone.predict(x)[:, 0], abs=1e-8)
        assert law.loss[j] == pytest.approx(alone.loss[0], rel=1e-8)
        assert (law.lower[j], law.upper[j]) == pytest.approx((alone.lower[0], alone.upper[0]))
    whole = np.r_[0:3, 8:RUNS]
    assert same_law(law, fit(observe(x[whole], spoiled[whole], weights[whole])), x)


@pytest.mark.parametrize("name", LAWS)
def test_a_domain_that_one_task_never_saw_is_neutral_for_it(name):
    fit = law_kinds()[name].fit
    x, y = swarm()
    x[:16, 3] = 0
    x /= x.sum(axis=1, keepdims=True)
    weights = np.ones((RUNS, TASKS))
    weights[16:, 1] = 0
    observed, part = observe(x, y, weights), observe(x[:16], y[:16, 1:])
    both, alone = fit(observed), fit(part)
    share = np.array([0.2, 0.2, 0.2, 0.4])
    assert both.predict(share)[1] == pytest.approx(alone.predict(share)[0], abs=1e-3)
    # In every replicate of the bootstrap too.
    factors = generator("factors").integers(1, 4, RUNS).astype(float)
    (both,) = law_kinds()[name].refitted(observed, [factors], both)
    (alone,) = law_kinds()[name].refitted(part, [factors[:16]], alone)
    assert both.predict(share)[1] == pytest.approx(alone.predict(share)[0], abs=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_weight_two_is_a_run_seen_twice(name):
    fit = law_kinds()[name].fit
    x, y = swarm(1)
    counts = generator("counts").integers(0, 4, RUNS)
    weighted = observe(x, y, counts.astype(float))
    repeated = observe(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0))
    assert same_law(fit(weighted), fit(repeated), x)
    assert np.stack(weighted.bounds()) == pytest.approx(np.stack(repeated.bounds()))
    # The unit of weights is none.
    assert same_law(fit(weighted), fit(weighted.weighted(np.full(RUNS, 7.0))), x)
    assert not same_law(fit(weighted), fit(observe(x, y)), x)


@pytest.mark.parametrize("name", LAWS)
def test_neither_the_order_of_runs_nor_that_of_domains_matters(name):
    fit = law_kinds()[name].fit
    x, y = swarm(2)
    law = fit(observe(x, y))
    rows, columns = generator("rows").permutation(RUNS), generator("columns").permutation(DOMAINS)
    assert same_law(law, fit(observe(x[rows], y[rows])), x)
    permuted = fit(observe(x[:, columns], y))
    # The starts of a law with bounds come from a few rounds of coordinate descent, which go in the order of columns.
    tolerance = 1e-6 if name == "diminishing" else 1e-8
    assert permuted.predict(x[:, columns]) == pytest.approx(law.predict(x), abs=tolerance)
    caps = np.array([0.3, 1.0, 0.2, 0.9])
    moved = proposal(permuted, caps=caps[columns])
    assert moved == pytest.approx(proposal(law, caps=caps)[columns], abs=1e-6)
    assert (moved <= caps[columns]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_a_task_has_unseen_domains_and_an_average_of_its_own(seed, runs):
    g = generator("unseen", seed)
    x = g.dirichlet(np.full(4, 0.5), size=runs)
    x[g.uniform(size=x.shape) < 0.5] = 0
    x[:, 0] += 1 - x.sum(axis=1)
    weights = g.integers(0, 3, (runs, 3)).astype(float)
    weights[g.integers(runs)] = 1
    observed = observe(x, np.ones((runs, 3)), weights)
    for j in range(3):
        runs_of_task = np.repeat(x, weights[:, j].astype(int), axis=0)
        assert observed.unseen[j].tolist() == (runs_of_task == 0).all(axis=0).tolist()
        assert observed.average[j] == pytest.approx(runs_of_task.mean(axis=0))
    # Unseen by every task is never sampled.
    assert observed.unseen.all(axis=0).tolist() == observed.never_sampled.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 150), st.sampled_from([0.0, 0.02, 3.0]), st.booleans())
def test_bounds_are_never_negative_nor_far_from_the_mean(seed, runs, margin, outlier):
    g = generator("bounds", seed)
    x, y = np.full((runs, 2), 0.5), g.lognormal(0, 1, (runs, 3))
    weights = g.integers(0, 3, (runs, 3)).astype(float)
    weights[0] = 1
    if outlier:
        y[-1] = 1e3
    observed = observe(x, y, weights)
    low, high = observed.bounds(margin)
    assert (low >= 0).all()
    for j in range(3):
        values = np.repeat(y[:, j], weights[:, j].astype(int))
        reach = 9 * values.std()
        assert values.mean() - reach - 1e-9 <= low[j] <= high[j] <= values.mean() + reach + 1e-9
        length = max(np.ptp(values), margin)
        assert low[j] == pytest.approx(max(values.min() - length, values.mean() - reach, 0))
        assert high[j] == pytest.approx(min(values.max() + length, values.mean() + reach))


def test_bounds_widen_the_observed_range_by_its_length():
    observed = observe(np.full((3, 1), 1.0), np.array([[2.0], [2.5], [3.0]]))
    assert observed.bounds() == (pytest.approx([1.0]), pytest.approx([4.0]))
    assert observed.bounds(1.5) == (pytest.approx([0.5]), pytest.approx([4.5]))
    assert observed.bounds(2.5)[0] == [0.0]
    masked = observe(np.full((4, 1), 1.0), np.array([[2.0], [2.5], [3.0], [9.0]]), np.array([1, 1, 1, 0.0]))
    assert masked.bounds() == (pytest.approx([1.0]), pytest.approx([4.0]))


def test_one_outlier_among_many_runs_is_held_to_nine_standard_deviations():
    y = np.ones((400, 1))
    y[7] = 5.0
    _, high = observe(np.ones((400, 1)), y).bounds()
    assert high == pytest.approx(y.mean() + 9 * y.std())
    assert high < 5.0


def test_what_counts():
    x = np.array([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 1]])
    weights = np.array([[1.0, 2], [1, 0], [2, 2], [0, 0]])
    y = np.array([[1.0, 2], [3, np.nan], [5, 6], [np.nan, -1]])
    observed = observe(x, y, weights)
    assert observed.shape == (4, 3, 2)
    assert observed.counted.tolist() == [True, True, True, False]
    assert observed.never_sampled.tolist() == [False, False, True]
    assert observed.shares.sum(axis=0) == pytest.approx([1, 1])
    assert observed.shares[:, 0] == pytest.approx([0.25, 0.25, 0.5, 0])
    # Where nothing counts stands the weighted mean of what does.
    assert observed.bpb[3] == pytest.approx([(1 + 3 + 10) / 4, 4])
    assert observed.bpb[1, 1] == pytest.approx(4)
    part = observed.rows(np.array([0, 1]))
    assert part.bpb[1].tolist() == [3, 2]
    assert observed.weighted(np.array([2.0, 0, 1, 1])).weights[:, 0].tolist() == [2, 0, 2, 0]
    assert observed.tasks(np.array([1])).bpb[:, 0].tolist() == observed.bpb[:, 1].tolist()
    with pytest.raises(SwarmError, match="task 1 has no run"):
        observed.rows(np.array([1]))
    with pytest.raises(SwarmError, match="task 0 has no run"):
        observed.weighted(np.zeros(4))


def test_stacked_observations_stand_in_their_order():
    x, y = swarm()
    one, two = observe(x[:5], y[:5]), observe(x[5:], y[5:], np.full(RUNS - 5, 0.5))
    whole = stack([one, two])
    assert (whole.mixtures == x).all()
    assert (whole.bpb == y).all()
    assert whole.weights[:, 0].tolist() == [1.0] * 5 + [0.5] * (RUNS - 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_groups_part_the_tasks_by_their_weights(seed, tasks):
    g = generator("groups", seed)
    weights = g.integers(0, 2, (3, tasks)).astype(float)
    weights[0] = 1
    groups = observe(np.full((3, 2), 0.5), np.ones((3, tasks)), weights).groups()
    assert sorted(np.concatenate(groups).tolist()) == list(range(tasks))
    columns = [{tuple(weights[:, j]) for j in group} for group in groups]
    assert all(len(column) == 1 for column in columns)
    assert len(set.union(*columns)) == len(groups)


def test_a_part_may_lack_a_task():
    x, y = swarm()
    weights = np.tile([1.0, 0.0], (5, 1))
    part = observe(x[:5], np.where(weights > 0, y[:5], np.nan), weights, partial=True)
    # What stands where nothing was measured is a BPB like any other, so that every law can take its logarithm.
    assert (part.bpb[:, 1] > 0).all()
    assert (part.bpb[:, 0] == y[:5, 0]).all()
    assert part.counted.all()
    assert part.unseen.tolist() == [[False] * 4, [True] * 4]
    whole = stack([observe(x[5:], y[5:]), part])
    alone = np.arange(RUNS) >= 5
    for name in LAWS:
        law = law_kinds()[name].fit(whole)
        assert law.predict(x)[:, 1] == pytest.approx(
            law_kinds()[name].fit(observe(x[alone], y[alone, 1:])).predict(x)[:, 0], abs=1e-8
        )
    with pytest.raises(SwarmError, match="task 1 has no run"):
        observe(x[:5], y[:5], weights)
    with pytest.raises(SwarmError, match="task 1 has no run"):
        part.rows(np.arange(3))
    # Nothing else is forgiven.
    with pytest.raises(SwarmError, match="run 2, task 0 is nan"):
        observe(x[:5], np.where(np.arange(5)[:, None] == 2, np.nan, y[:5]), weights, partial=True)
    with pytest.raises(SwarmError, match="run 0 has an invalid mixture"):
        observe(2 * x[:5], y[:5], weights, partial=True)


def test_observations_are_a_copy():
    x, y = swarm()
    w = np.ones((RUNS, TASKS))
    observed = observe(x, y, w)
    x[0], y[0], w[0] = 0, -1, 9
    assert (observed.mixtures[0] > 0).all()
    assert (observed.bpb[0] > 0).all()
    assert (observed.weights[0] == 1).all()


def test_errors_name_the_run():
    x, y = swarm()

    def refused(mixtures, bpb, weights=None) -> str:
        with pytest.raises(SwarmError) as caught:
            observe(mixtures, bpb, weights)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def spoil(values, row, column, value):
        spoiled = values.copy()
        spoiled[row, column] = value
        return spoiled

    assert "(24, 4) and (23, 2)" in refused(x, y[:23])
    assert "(0, 4)" in refused(x[:0], y[:0])
    assert "run 3, task 1 is nan" in refused(x, spoil(y, 3, 1, np.nan))
    assert "run 4, task 0 is 0" in refused(x, spoil(y, 4, 0, 0.0))
    assert "run 5, column 2 is nan" in refused(spoil(x, 5, 2, np.nan), y)
    assert "run 6" in refused(spoil(x, 6, 0, 0.9), y)
    assert "task 1 has no run" in refused(x, y, np.tile([1.0, 0.0], (RUNS, 1)))
    for weights in (np.ones(3), -np.ones(RUNS), np.full((RUNS, TASKS), np.inf), np.ones((RUNS, 3))):
        assert "24 finite numbers >= 0" in refused(x, y, weights)
    # Three decimals, as files carry them, are near enough.
    assert (observe(x * 0.995, y).mixtures == x * 0.995).all()


def test_a_negative_weight_names_its_run():
    x, y = swarm()
    x[7, :2] = -0.25, x[7, 0] + x[7, 1] + 0.25
    with pytest.raises(SwarmError, match="run 7"):
        observe(x, y)
