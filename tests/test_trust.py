"""What is said about a proposal: intervals, other laws, leverage, mirages, prices; and the proposal itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.errors import InfeasibleError
from olmix.fit.diagnostics import scores
from olmix.fit.fitting import FitSettings, fit_swarm
from olmix.fit.proposing import best_mixture
from olmix.fit.trust import Problem, examine
from olmix.laws.loglinear import LogLinear
from olmix.laws.nearest_run import NearestRun
from olmix.laws.observations import observe, stack
from olmix.laws.registry import LOG_LINEAR, law_kinds
from olmix.solver.certified import solve
from tests.swarm_fits import swarm_fit

EVEN = np.full(3, 1 / 3)
WEIGHTS = np.array([0.25, 0.75])


def law(domains: int = 3, tasks: int = 2, seed: int = 0) -> LogLinear:
    """Domains differ in every task, and nothing is clipped."""
    g = generator("trust", domains, tasks, seed)
    t = g.normal(0, 0.7, (tasks, domains))
    nothing = np.zeros(tasks)
    return LogLinear(g.uniform(0.3, 0.8, tasks), t, nothing, nothing, np.full(tasks, np.inf))


def problem(kl: float = 0.05, caps=None, baseline=EVEN, reference=EVEN) -> Problem:
    return Problem(WEIGHTS, reference, kl, np.ones(len(reference)) if caps is None else np.array(caps), baseline)


def with_error(fit, error: float):
    """The fit with another out-of-fold RMSE of the mean BPB."""
    return replace(fit, scores=replace(fit.scores, mean_rmse=error))


def noisy(runs: int = 30, noise: float = 0.03, seed: int = 0, domains: int = 3):
    """The law that made a swarm, and its runs."""
    truth = law(domains, seed=seed)
    g = generator("noisy", runs, seed)
    x = g.dirichlet(np.ones(domains), size=runs)
    return truth, observe(x, truth.predict(x) + noise * g.standard_normal((runs, 2)))


def ids(runs: int) -> list[str]:
    return [f"{k:03d}" for k in range(runs)]


# The proposal


@pytest.mark.parametrize("name", [LOG_LINEAR, "diminishing"])
def test_a_convex_law_is_solved_and_certified(name):
    _, observations = noisy()
    fitted = law_kinds()[name].fit(observations)
    arguments = {"reference": np.array([0.5, 0.3, 0.2]), "kl": 0.02, "caps": np.array([0.4, 0.9, 1.0])}
    best = best_mixture(fitted, task_weights=WEIGHTS, observed=observations.mixtures, **arguments)
    solution = solve(fitted.objective(WEIGHTS), **arguments)
    assert best.gap <= 1e-9
    assert (best.weights == solution.weights).all()
    assert best.certificate.gap == solution.gap
    assert (best.certificate.prices == solution.certificate.prices).all()
    assert (best.capped == solution.capped).all()
    assert best.objective == solution.objective
    assert best.predicted == pytest.approx(fitted.predict(best.weights))


def test_a_law_that_is_not_convex_is_searched():
    _, observations = noisy()
    nearest = NearestRun(observations.mixtures, observations.bpb, observations.weights)
    caps = np.array([0.5, 0.6, 1.0])
    best = best_mixture(
        nearest, task_weights=WEIGHTS, reference=EVEN, kl=0.0, caps=caps, observed=observations.mixtures
    )
    assert best.certificate is None
    assert best.gap == np.inf
    assert best.steps > len(observations.mixtures)
    assert best.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (best.weights <= caps).all()
    within = (observations.mixtures <= caps).all(axis=1)
    assert best.objective <= (observations.bpb[within] @ WEIGHTS).min() + 1e-12
    again = best_mixture(
        nearest, task_weights=WEIGHTS, reference=EVEN, kl=0.0, caps=caps, observed=observations.mixtures
    )
    assert (again.weights == best.weights).all()


@pytest.mark.parametrize("convex", [True, False])
def test_caps_without_room_are_an_error(convex):
    _, observations = noisy()
    fitted = law() if convex else NearestRun(observations.mixtures, observations.bpb, observations.weights)
    with pytest.raises(InfeasibleError, match=r"sum to 0\.9"):
        best_mixture(
            fitted, task_weights=WEIGHTS, reference=EVEN, kl=0.1, caps=np.full(3, 0.3), observed=observations.mixtures
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 5), st.sampled_from([0.01, 0.05, 0.5]))
def test_a_binding_cap_costs_what_a_little_more_of_it_wins(seed, domains, kl):
    g = generator("prices", seed)
    even = np.full(domains, 1 / domains)
    fit = swarm_fit(law(domains, seed=seed), domains)
    free = problem(kl, reference=even, baseline=None).best(fit.law, fit.newest.mixtures)
    caps = np.ones(domains)
    place = int(free.weights.argmax())
    caps[place] = free.weights[place] * g.uniform(0.3, 0.9)
    trust = examine(fit, problem(kl, caps, reference=even, baseline=None), {})
    assert trust.proposal.capped.tolist() == [i == place for i in range(domains)]

    def objective(cap):
        moved = caps.copy()
        moved[place] = cap
        return problem(kl, moved, reference=even).best(fit.law, fit.newest.mixtures).objective

    step = 1e-5 * caps[place]
    slope = (objective(caps[place] - step) - objective(caps[place] + step)) / (2 * step)
    assert trust.proposal.certificate.prices[place] == pytest.approx(slope, rel=1e-3)
    assert trust.proposal.certificate.prices[place] > 0
    assert (np.delete(trust.proposal.certificate.prices, place) == 0).all()


def test_the_unconstrained_proposal_stands_beside_the_constrained_one():
    fit = swarm_fit(law(), 3)
    observed = fit.newest.mixtures
    caps = np.full(3, 0.4)
    trust = examine(fit, problem(caps=caps), {})
    assert (trust.unconstrained.weights == problem().best(fit.law, observed).weights).all()
    assert trust.unconstrained.objective < trust.proposal.objective
    assert (trust.proposal.weights <= caps).all()
    assert trust.unconstrained.weights.max() > 0.4
    assert not trust.unconstrained.capped.any()
    for name, mixture in (
        ("proposal", trust.proposal.weights),
        ("unconstrained", trust.unconstrained.weights),
        ("baseline", EVEN),
    ):
        assert trust.mean_bpb[name].value == pytest.approx(fit.law.predict(mixture) @ WEIGHTS)
    loose = examine(fit, problem(caps=[2.0, 1.0, 5.0]), {})
    assert (loose.unconstrained.weights == loose.proposal.weights).all()


# Mirages


def test_the_alarm_rings_where_the_law_promises_more_than_any_run_showed():
    fit = swarm_fit(law(), 3)
    trust = examine(fit, problem(kl=0.0), {})
    # The best vertex lies beyond every run.
    lead = (fit.newest.bpb @ WEIGHTS).min() - trust.mean_bpb["proposal"].value
    assert lead > 0.01
    assert trust.mirage
    assert trust.best_bpb == pytest.approx((fit.newest.bpb @ WEIGHTS).min())
    assert trust.error == fit.scores.mean_rmse
    # It is the law's own error that the lead is held against.
    assert not examine(with_error(fit, lead + 1e-6), problem(kl=0.0), {}).mirage
    assert examine(with_error(fit, lead - 1e-6), problem(kl=0.0), {}).mirage
    # A proposal that stays near the reference promises no more than was seen.
    assert not examine(fit, problem(kl=10.0), {}).mirage


def test_a_fitted_swarm_that_reaches_its_optimum_is_no_mirage_and_a_spoiled_law_is():
    _, observations = noisy()
    vertices = observe(
        np.vstack([observations.mixtures, np.eye(3)]),
        np.vstack([observations.bpb, law().predict(np.eye(3))]),
    )
    fit = fit_swarm(vertices, ids(33), WEIGHTS, FitSettings(LOG_LINEAR, replicates=0))
    trust = examine(fit, problem(kl=0.0), {})
    assert not trust.mirage
    worst = observations.bpb.min()
    spoiled = replace(fit, law=replace(fit.law, floor=fit.law.floor - 0.9 * worst, lower=np.zeros(2)))
    assert examine(spoiled, problem(kl=0.0), {}).mirage


def test_without_a_run_of_all_tasks_there_is_nothing_to_beat():
    fit = swarm_fit(law(), 3)
    weights = np.ones((24, 2))
    weights[:12, 0] = weights[12:, 1] = 0
    masked = replace(fit.repeats, observations=observe(fit.newest.mixtures, fit.newest.bpb, weights))
    found = scores(fit.held_out, fit.newest.bpb, WEIGHTS, weights)
    trust = examine(replace(fit, repeats=masked, scores=found), problem(kl=0.0), {})
    assert trust.best_run is None
    assert trust.best_bpb == np.inf
    assert not trust.mirage


def test_the_best_run_has_every_task_that_weighs():
    fit = swarm_fit(law(), 3)
    asked = replace(problem(), task_weights=np.array([0.99, 0.01]))
    first = int(fit.newest.bpb[:, 0].argmin())
    assert examine(fit, asked, {}).best_run == fit.runs[first]
    weights = np.ones((24, 2))
    weights[first, 1] = 0
    newest = observe(fit.newest.mixtures, fit.newest.bpb, weights)
    masked = replace(fit, repeats=replace(fit.repeats, observations=newest))
    # What stands where nothing was measured would make it the best still.
    means = newest.bpb @ asked.task_weights
    assert means.argmin() == first
    second = int(np.argsort(means)[1])
    trust = examine(masked, asked, {})
    assert (trust.best_run, trust.best_bpb) == (fit.runs[second], pytest.approx(means[second]))
    alone = replace(problem(), task_weights=np.array([1.0, 0.0]))
    assert examine(masked, alone, {}).best_run == fit.runs[first]


# Uncertainty


def test_the_gain_is_baseline_less_proposal_with_its_interval():
    _, observations = noisy()
    fit = fit_swarm(observations, ids(30), WEIGHTS, FitSettings(LOG_LINEAR, replicates=20))
    trust = examine(fit, problem(), {})
    assert trust.gain is not None
    gains = [
        replicate.predict(EVEN) @ WEIGHTS - replicate.predict(trust.proposal.weights) @ WEIGHTS
        for replicate in fit.replicates
    ]
    assert trust.gain.value == pytest.approx(trust.mean_bpb["baseline"].value - trust.mean_bpb["proposal"].value)
    assert trust.gain.standard_error == pytest.approx(np.std(gains, ddof=1))
    expected = trust.gain.value + np.quantile(gains, [0.05, 0.95]) - np.median(gains)
    assert (trust.gain.low, trust.gain.high) == pytest.approx(expected)
    # The same mixture cannot gain on itself, in no replicate.
    none = examine(fit, problem(baseline=trust.proposal.weights), {}).gain
    assert none is not None
    assert (none.value, none.standard_error, none.low, none.high) == (0, 0, 0, 0)
    assert examine(fit, problem(baseline=None), {}).gain is None
    assert set(examine(fit, problem(baseline=None), {}).mean_bpb) == {"proposal", "unconstrained"}


def test_the_interval_of_the_gain_mostly_contains_the_estimate_and_the_truth():
    estimates, truths = [], []
    for seed in range(12):
        truth, observations = noisy(seed=seed)
        fit = fit_swarm(observations, ids(30), WEIGHTS, FitSettings(LOG_LINEAR, replicates=25))
        trust = examine(fit, problem(), {})
        assert trust.gain is not None
        real = (truth.predict(EVEN) - truth.predict(trust.proposal.weights)) @ WEIGHTS
        width = trust.gain.high - trust.gain.low
        assert 0 < width < 0.3
        estimates.append(trust.gain.low <= trust.gain.value <= trust.gain.high)
        # 25 replicates say little about a 5th percentile, so with a quarter of its width to spare.
        truths.append(trust.gain.low - width / 4 <= real <= trust.gain.high + width / 4)
    assert np.mean(estimates) >= 0.8
    assert np.mean(truths) >= 0.7


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-2.0, 2.0), st.sampled_from([0.4, 1.0]))
def test_an_estimate_lies_within_its_own_interval(seed, steeper, cap):
    """However far the replicates, which see fewer distinct runs, are shifted all together."""
    truth = law(seed=seed)
    g = generator("shifted replicates", seed)
    replicates = [
        replace(truth, coefficients=truth.coefficients * np.exp(steeper) + g.normal(0, 0.05, (2, 3))) for _ in range(9)
    ]
    trust = examine(swarm_fit(truth, 3, replicates), problem(caps=np.full(3, cap)), {})
    for interval in (trust.gain, *trust.mean_bpb.values()):
        assert interval.low <= interval.value <= interval.high
    weights = trust.proposal.weights
    assert (trust.weights_low <= weights).all()
    assert (weights <= trust.weights_high).all()
    assert (trust.weights_low >= 0).all()
    assert (trust.weights_high <= cap).all()


def test_the_proposals_of_replicates_surround_the_proposal():
    _, observations = noisy()
    fit = fit_swarm(observations, ids(30), WEIGHTS, FitSettings(LOG_LINEAR, replicates=20))
    caps = np.array([0.45, 1.0, 1.0])
    trust = examine(fit, problem(caps=caps), {})
    own = np.stack([problem(caps=caps).best(one, observations.mixtures).weights for one in fit.replicates])
    low, high = trust.proposal.weights + np.quantile(own, [0.05, 0.95], axis=0) - np.median(own, axis=0)
    assert trust.weights_low == pytest.approx(np.maximum(low, 0))
    assert trust.weights_high == pytest.approx(np.minimum(high, caps))
    assert (trust.weights_high <= caps).all()
    assert trust.moved == pytest.approx(np.median(np.abs(own - trust.proposal.weights).sum(axis=1) / 2))
    assert 0 < trust.moved < 0.3
    # More noise moves it more.
    _, loud = noisy(noise=0.15)
    far = examine(fit_swarm(loud, ids(30), WEIGHTS, FitSettings(LOG_LINEAR, replicates=20)), problem(caps=caps), {})
    assert far.moved > trust.moved


@pytest.mark.parametrize("replicates", [0, 1])
def test_without_replicates_there_is_no_interval(replicates):
    fit = swarm_fit(law(), 3, replicates=[law(seed=1)] * replicates)
    trust = examine(fit, problem(), {})
    assert trust.gain is not None
    assert np.isfinite(trust.gain.value)
    assert np.isnan([trust.gain.standard_error, trust.gain.low, trust.gain.high]).all()
    assert (trust.weights_low, trust.weights_high, trust.moved) == (None, None, None)


def test_a_law_that_is_searched_is_not_searched_for_every_replicate():
    _, observations = noisy()
    nearest = NearestRun(observations.mixtures, observations.bpb, observations.weights)
    fit = replace(swarm_fit(law(), 3), law=nearest, replicates=(nearest,) * 3)
    trust = examine(fit, problem(), {})
    assert (trust.moved, trust.weights_low, trust.proposal.certificate) == (None, None, None)
    assert trust.gain is not None
    assert trust.gain.low == trust.gain.high == trust.gain.value


# Other laws, and how far the swarm reaches


def test_other_laws_have_their_word():
    _, observations = noisy()
    fit = fit_swarm(observations, ids(30), WEIGHTS, FitSettings(LOG_LINEAR, replicates=0))
    kinds = {name: law_kinds()[name] for name in (LOG_LINEAR, "nearest", "diminishing")}
    asked = []
    trust = examine(fit, problem(), kinds, report=asked.append)
    assert [other.name for other in trust.laws] == ["diminishing", "nearest"]
    assert asked == ["solve", "solve the replicates", "ask diminishing", "ask nearest"]
    for other in trust.laws:
        own = kinds[other.name].fit(observations)
        assert other.bpb == pytest.approx(own.predict(trust.proposal.weights) @ WEIGHTS)
        assert other.gain == pytest.approx(own.predict(EVEN) @ WEIGHTS - other.bpb)
    diminishing, nearest = trust.laws
    best = problem().best(kinds["diminishing"].fit(observations), observations.mixtures).weights
    assert diminishing.distance == pytest.approx(np.abs(best - trust.proposal.weights).sum() / 2)
    assert nearest.distance is None
    assert all(other.gain is None for other in examine(fit, problem(baseline=None), kinds).laws)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 5))
def test_the_leverage_of_a_run_is_at_most_one(seed, domains):
    fit = swarm_fit(law(domains, seed=seed), domains)
    even = np.full(domains, 1 / domains)
    trust = examine(fit, problem(kl=0.05, reference=even, baseline=None), {})
    x = fit.newest.mixtures
    hat = x @ np.linalg.solve(x.T @ x, x.T)
    assert trust.largest_leverage == pytest.approx(np.diag(hat).max())
    assert trust.largest_leverage <= 1 + 1e-9
    q = trust.proposal.weights
    assert trust.leverage == pytest.approx(q @ np.linalg.solve(x.T @ x, q))
    assert trust.leverage > 0
    # More runs than domains, and all of them of their own: nothing is outside of what they span, rounding apart.
    assert trust.unsupported == 0


def test_leverage_is_more_where_the_swarm_does_not_reach():
    x = 0.9 * EVEN + 0.1 * generator("narrow").dirichlet(np.ones(3), size=24)
    truth = law()
    fit = fit_swarm(observe(x, truth.predict(x)), ids(24), WEIGHTS, FitSettings(LOG_LINEAR, replicates=0))
    near, far = (examine(fit, problem(kl=kl), {}) for kl in (10.0, 0.0))
    assert near.leverage < near.largest_leverage
    assert far.leverage > 1
    assert far.distance > near.distance
    row = int(np.abs(x - far.proposal.weights).sum(axis=1).argmin())
    assert far.nearest_run == fit.runs[row]
    assert far.distance == pytest.approx(np.abs(x[row] - far.proposal.weights).sum() / 2)


def never_sampled_fit(name: str):
    """A swarm of which the fourth domain is in no run."""
    _, observations = noisy()
    x = np.hstack([observations.mixtures, np.zeros((30, 1))])
    return fit_swarm(observe(x, observations.bpb), ids(30), WEIGHTS, FitSettings(law=name, replicates=8))


@pytest.mark.parametrize("name", [LOG_LINEAR, "diminishing"])
def test_a_domain_that_no_run_has_is_neither_dropped_nor_maxed(name):
    fit = never_sampled_fit(name)
    assert fit.observations.never_sampled.tolist() == [False, False, False, True]
    reference = np.array([0.3, 0.3, 0.3, 0.1])
    trust = examine(fit, problem(kl=0.2, reference=reference, baseline=reference), {})
    pull = trust.proposal.weights / reference
    assert pull[:3].min() < pull[3] < pull[:3].max()
    if name == LOG_LINEAR:
        # It pulls as the average run does, in every replicate too, so that no noise of its own moves it.
        average = fit.observations.mixtures.mean(axis=0)[:3]
        assert np.log(pull[3]) == pytest.approx(average @ np.log(pull[:3]), abs=1e-6)
    assert trust.weights_low[3] > 0.2 * trust.proposal.weights[3]
    assert trust.weights_high[3] < 3 * trust.proposal.weights[3]


def test_a_domain_that_no_run_has_is_beyond_the_reach_of_the_swarm():
    fit = never_sampled_fit(LOG_LINEAR)
    reference = np.array([0.01, 0.01, 0.01, 0.97])
    trust = examine(fit, problem(kl=10.0, reference=reference, baseline=None), {})
    q = trust.proposal.weights
    assert q[3] > 0.9
    # All of its share and nothing else; the leverage is that of the rest, and cannot tell.
    assert trust.unsupported == pytest.approx(q[3])
    x = fit.newest.mixtures[:, :3]
    assert trust.leverage == pytest.approx(q[:3] @ np.linalg.solve(x.T @ x, q[:3]))
    assert trust.leverage < 1


def test_two_domains_that_always_come_together_support_no_other_proportion():
    _, observations = noisy()
    x = np.hstack([observations.mixtures[:, :2], observations.mixtures[:, 2:] / 2, observations.mixtures[:, 2:] / 2])
    fit = fit_swarm(observe(x, observations.bpb), ids(30), WEIGHTS, FitSettings(law="linear", replicates=0))
    even = np.full(4, 0.25)
    together = examine(fit, problem(kl=10.0, reference=even, baseline=None), {})
    assert together.unsupported == pytest.approx(abs(together.proposal.weights[2] - together.proposal.weights[3]))
    apart = examine(fit, problem(kl=10.0, caps=[1, 1, 1, 0.05], reference=even, baseline=None), {})
    q = apart.proposal.weights
    assert q[2] > q[3] + 0.1
    # What is beside their plane is half of the difference, once on each of them.
    assert apart.unsupported == pytest.approx(q[2] - q[3])


def test_runs_of_an_older_swarm_support_as_well():
    fit = never_sampled_fit(LOG_LINEAR)
    reference = np.array([0.1, 0.1, 0.1, 0.7])
    asked = problem(kl=10.0, reference=reference, baseline=None)
    assert examine(fit, asked, {}).unsupported > 0.5
    g = generator("older support")
    older = observe(g.dirichlet(np.ones(4), size=6), g.uniform(1.0, 2.0, (6, 2)))
    joined = replace(fit, observations=stack([fit.observations, older]))
    assert examine(joined, asked, {}).unsupported == 0
