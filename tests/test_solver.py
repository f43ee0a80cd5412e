from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from olmix.core.seeds import generator
from olmix.errors import InfeasibleError, SolverError, SwarmError
from olmix.fit.fitting import FitSettings, fit_swarm
from olmix.laws.loglinear import LogLinear, fit_loglinear
from olmix.laws.observations import Observations
from olmix.laws.registry import LOG_LINEAR
from olmix.solver.certified import solve
from olmix.solver.objective import Curvature
from olmix.solver.projection import kl_projection, least_vertex
from tests.public_swarms import DROPPED, FOLDER, load, needs_swarms, priors


def law(domains: int, tasks: int, seed: int = 0, scale: float = 1.0) -> LogLinear:
    g = generator("law", domains, tasks, seed)
    nothing = np.zeros(tasks)
    return LogLinear(g.uniform(0.1, 1, tasks), scale * g.normal(size=(tasks, domains)), nothing, nothing, nothing + 1e9)


def setting(domains: int, seed: int, tightness: float) -> tuple[np.ndarray, np.ndarray]:
    """A reference, not normalised, and caps; the smaller the tightness (> 1), the more of them bind."""
    g = generator("setting", domains, seed)
    reference = g.dirichlet(np.full(domains, 0.7)) * 1.7 + 1e-6
    share = g.uniform(0.2, 1.0, domains)
    return reference, tightness * share / share.sum()


def regularised(objective, reference, kl, q):
    positive = q > 0
    return objective.value(q) + kl * float(q[positive] @ np.log(q[positive] / reference[positive]))


def check(solution, objective, *, reference, kl, caps):
    """Feasible, certified, and stationary: no multiplier has the wrong sign."""
    q = solution.weights
    assert abs(q.sum() - 1) <= 1e-12
    assert (q >= 0).all()
    assert (q <= caps).all()
    assert solution.gap <= 1e-9
    assert solution.objective == pytest.approx(regularised(objective, reference, kl, q), abs=1e-14)
    assert (solution.capped == ((q == caps) & (caps < 1))).all()
    gradient = objective.gradient(q)
    if kl:
        with np.errstate(divide="ignore"):
            gradient = gradient + kl * (np.log(q / reference) + 1)
    free = ~solution.capped & (q > 1e-6)
    level = gradient[free].mean() if free.any() else gradient[q > 0].max()
    assert np.abs(gradient[free] - level).max(initial=0) < 1e-4
    assert (gradient[solution.capped & (q > 0)] <= level + 1e-4).all()
    assert (gradient[(q == 0) & (caps > 0)] >= level - 1e-4).all() or kl > 0
    assert (solution.certificate.prices[~solution.capped] == 0).all()
    assert (solution.certificate.prices >= 0).all()


@pytest.mark.parametrize("kl", [0.0, 1e-4, 0.05, 1.0])
@pytest.mark.parametrize("tightness", [1.05, 2.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_general_solver(kl, tightness, seed):
    objective = law(6, 9, seed).objective()
    reference, caps = setting(6, seed, tightness)
    solution = solve(objective, reference=reference, kl=kl, caps=caps)
    check(solution, objective, reference=reference, kl=kl, caps=caps)
    upper = np.minimum(caps, 1)
    start = upper / upper.sum()
    other = minimize(
        lambda q: regularised(objective, reference, kl, np.maximum(q, 1e-300)),
        start,
        method="SLSQP",
        bounds=[(0, u) for u in upper],
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert solution.objective <= other.fun + 1e-8
    if other.success:
        assert solution.objective == pytest.approx(other.fun, abs=1e-5)


@settings(max_examples=120, deadline=None)
@given(
    domains=st.integers(2, 30),
    tasks=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    tightness=st.floats(1.0001, 40),
    kl=st.sampled_from([0.0, 1e-6, 1e-3, 0.01, 0.05, 0.5]),
    scale=st.sampled_from([0.1, 1.0, 6.0]),
)
def test_every_problem_is_certified(*, domains, tasks, seed, tightness, kl, scale):
    objective = law(domains, tasks, seed, scale).objective()
    reference, caps = setting(domains, seed, tightness)
    check(
        solve(objective, reference=reference, kl=kl, caps=caps),
        objective,
        reference=reference,
        kl=kl,
        caps=caps,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.05]))
def test_permuting_domains_permutes_the_answer(domains, seed, kl):
    base = law(domains, 15, seed)
    reference, caps = setting(domains, seed, 2.0)
    order = generator("order", seed).permutation(domains)
    moved = LogLinear(base.floor, base.coefficients[:, order], base.loss, base.lower, base.upper)
    one = solve(base.objective(), reference=reference, kl=kl, caps=caps)
    two = solve(moved.objective(), reference=reference[order], kl=kl, caps=caps[order])
    assert two.weights == pytest.approx(one.weights[order], abs=1e-7 if kl else 1e-4)
    assert two.objective == pytest.approx(one.objective, abs=1e-10)


def test_no_law_gives_the_kl_projection_of_the_reference():
    flat = LogLinear(np.ones(1), np.zeros((1, 3)), np.zeros(1), np.zeros(1), np.full(1, 9.0))
    reference = np.array([6.0, 3.0, 1.0])
    free = solve(flat.objective(), reference=reference, kl=0.3, caps=np.ones(3))
    assert free.weights == pytest.approx([0.6, 0.3, 0.1], abs=1e-12)
    capped = solve(flat.objective(), reference=reference, kl=0.3, caps=np.array([0.5, 2.0, 2.0]))
    assert capped.weights == pytest.approx([0.5, 0.375, 0.125], abs=1e-12)
    assert capped.weights[0] == 0.5
    assert capped.capped.tolist() == [True, False, False]
    assert capped.certificate.prices[0] == pytest.approx(0.3 * (np.log(0.375 / 3) - np.log(0.5 / 6)))


def test_the_scale_of_the_reference_changes_no_weight_and_that_of_task_weights_nothing():
    base = law(5, 4)
    reference, caps = setting(5, 0, 3.0)
    one = solve(base.objective(), reference=reference, kl=0.05, caps=caps)
    two = solve(base.objective(), reference=100 * reference, kl=0.05, caps=caps)
    three = solve(base.objective(np.full(4, 7.0)), reference=reference, kl=0.05, caps=caps)
    assert two.weights == pytest.approx(one.weights, abs=1e-9)
    assert two.objective == pytest.approx(one.objective - 0.05 * np.log(100))
    assert three.objective == pytest.approx(one.objective, abs=1e-14)


def test_a_shadow_price_is_the_slope_of_the_objective_in_the_cap():
    objective = law(6, 9, 3).objective()
    reference, caps = setting(6, 3, 1.5)
    solution = solve(objective, reference=reference, kl=0.05, caps=caps)
    binding = int(np.argmax(solution.certificate.prices))
    assert solution.certificate.prices[binding] > 0.01
    raised = caps.copy()
    raised[binding] += 1e-5
    better = solve(objective, reference=reference, kl=0.05, caps=raised)
    slope = (solution.objective - better.objective) / 1e-5
    assert slope == pytest.approx(solution.certificate.prices[binding], rel=1e-3)


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_edges_of_the_caps(kl):
    objective = law(4, 6).objective()
    reference = np.array([0.4, 0.3, 0.2, 0.1])
    # A cap of 0 is a weight of 0.
    solution = solve(objective, reference=reference, kl=kl, caps=np.array([0.0, 1.0, 5.0, np.inf]))
    assert solution.weights[0] == 0.0
    assert solution.capped.tolist() == [True, False, False, False]
    if kl:
        assert solution.certificate.prices[0] == np.inf
    # Caps that sum to 1 leave one mixture, bit for bit.
    caps = np.array([0.1, 0.2, 0.3, 0.4])
    only = solve(objective, reference=reference, kl=kl, caps=caps)
    assert (only.weights == caps).all()
    assert only.gap <= 1e-9
    # Barely more.
    barely = {"reference": reference, "kl": kl, "caps": caps * (1 + 1e-9)}
    check(solve(objective, **barely), objective, **barely)
    with pytest.raises(InfeasibleError, match=r"0\.2 of the mixture"):
        solve(objective, reference=reference, kl=kl, caps=caps * 0.8)
    with pytest.raises(InfeasibleError):
        solve(objective, reference=reference, kl=kl, caps=np.zeros(4))


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_one_domain(kl):
    solution = solve(law(1, 3).objective(), reference=np.array([0.2]), kl=kl, caps=np.array([1.0]))
    assert solution.weights.tolist() == [1.0]
    assert solution.capped.tolist() == [False]
    two = solve(law(2, 3).objective(), reference=np.array([0.2, 0.8]), kl=kl, caps=np.array([0.0, 7.0]))
    assert two.weights.tolist() == [0.0, 1.0]


def test_bad_arguments():
    objective = law(2, 2).objective()
    good = {"reference": np.ones(2), "kl": 0.05, "caps": np.ones(2)}
    for bad in (
        {"reference": np.array([1.0, 0.0])},
        {"reference": np.ones(3)},
        {"kl": -1.0},
        {"kl": float("nan")},
        {"caps": np.array([1.0, np.nan])},
        {"caps": np.array([1.0, -0.1])},
    ):
        with pytest.raises(SolverError):
            solve(objective, **{**good, **bad})


def test_a_law_that_overflows_is_an_error_not_an_answer():
    wild = LogLinear(np.zeros(1), np.full((1, 2), 1e4), np.zeros(1), np.zeros(1), np.ones(1))
    with pytest.raises(SolverError):
        solve(wild.objective(), reference=np.ones(2), kl=0.05, caps=np.ones(2))


def test_coefficients_as_wild_as_sparse_swarms_give():
    base = law(24, 52, 1, scale=40.0)
    reference, caps = setting(24, 1, 4.0)
    for kl in (0.0, 0.05):
        solution = solve(base.objective(), reference=reference, kl=kl, caps=caps)
        assert solution.gap <= 1e-9


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_a_hundred_tasks_on_thousands_of_domains(kl):
    objective = law(4000, 50).objective()
    reference, caps = setting(4000, 0, 4.0)
    solution = solve(objective, reference=reference, kl=kl, caps=caps)
    assert solution.gap <= 1e-9
    assert solution.capped.sum() > 10


class Diminishing:
    """1 + exp(-sum a q^s): a convex law whose Hessian has a diagonal."""

    def __init__(self, a, s=0.6):
        self.a, self.s = a, s

    def value(self, q):
        return 1 + float(np.exp(-self.a @ q**self.s))

    def gradient(self, q):
        return -self.a * self.s * q ** (self.s - 1) * np.exp(-self.a @ q**self.s)

    def curvature(self, q):
        level = np.exp(-self.a @ q**self.s)
        slope = self.a * self.s * q ** (self.s - 1)
        return Curvature(np.sqrt(level) * slope[None, :], level * slope * (1 - self.s) / q)

    def predict(self, q):
        return np.array([self.value(q)])


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_another_convex_law_fits_the_protocol(kl):
    objective = Diminishing(np.array([2.0, 1.0, 0.5, 0.1]))
    reference, caps = np.full(4, 0.25), np.array([0.4, 1.0, 1.0, 1.0])
    check(
        solve(objective, reference=reference, kl=kl, caps=caps),
        objective,
        reference=reference,
        kl=kl,
        caps=caps,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6), st.floats(1.0001, 30))
def test_kl_projection_meets_its_conditions(domains, seed, tightness):
    v, caps = setting(domains, seed, tightness)
    q, log_q, capped = kl_projection(np.log(v), caps)
    assert log_q == pytest.approx(np.log(q), abs=1e-12)
    assert (q[capped] == caps[capped]).all()
    assert q.sum() == pytest.approx(1, abs=1e-12)
    ratio = q / v
    assert (q <= caps * (1 + 1e-14)).all()
    if not capped.all():
        assert ratio[~capped] == pytest.approx(ratio[~capped][0])
        assert (ratio[capped] <= ratio[~capped].max() * (1 + 1e-12)).all()


def test_kl_projection_takes_many_mixtures_at_once_and_weights_beyond_floating_point():
    log_weights = np.array([[0.0, -3000.0, -3001.0, -1.0], [0.0, 0.0, -np.inf, -np.inf], [2.0, -np.inf, 1.0, 5.0]])
    q, log_q, capped = kl_projection(log_weights, np.array([0.5, np.inf, 1.0, 0.0]))
    share = 1 / (1 + np.exp(-1))
    assert q == pytest.approx(np.array([[0.5, share / 2, (1 - share) / 2, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0]]))
    assert log_q[0, 1] - log_q[0, 2] == pytest.approx(1)
    assert capped.tolist() == [[True, False, False, True], [True, False, False, True], [True, False, False, True]]
    alone = [kl_projection(row, np.array([0.5, np.inf, 1.0, 0.0]))[0] for row in log_weights]
    assert (np.stack(alone) == q).all()


def test_least_vertex_fills_caps_in_the_order_of_the_gradient():
    vertex = least_vertex(np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.3, 0.4]))
    assert vertex == pytest.approx([0.3, 0.3, 0.4])


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (0, 4)])
def test_curvature_inverse(shape):
    g = generator("curvature", *shape)
    curvature = Curvature(g.normal(size=shape), g.uniform(0, 2, shape[1]))
    softness = g.uniform(0.01, 5, shape[1])
    softness[1] = 0.0
    right = g.normal(size=(shape[1], 2))
    dense = curvature.factor.T @ curvature.factor + np.diag(curvature.diagonal)
    moving = softness > 0
    expected = np.zeros_like(right)
    inner = (dense + np.diag(1 / np.where(moving, softness, 1)))[np.ix_(moving, moving)]
    expected[moving] = np.linalg.solve(inner, right[moving])
    assert curvature.inverse(softness, right) == pytest.approx(expected, abs=1e-10)
    assert curvature.times(right[:, 0]) == pytest.approx(dense @ right[:, 0])


def proposal_distance(seed: int = 0, runs: int = 64, kl: float = 0.05, reference: str = "relative_sizes") -> float:
    """L1 from the published mixture of step 0 to the one proposed from `runs` of the public runs."""
    swarm = load("dclm").with_mmlu_grouped().without(DROPPED)
    prior = priors(swarm, "dclm")
    total = len(swarm.ids)
    # Which rows scikit-learn's train_test_split(train_size=runs, random_state=seed) trains on.
    rows = np.random.RandomState(seed).permutation(total)[total - runs :]
    fitted = fit_loglinear(swarm.mixtures[rows], swarm.bpb[rows])
    caps = 4 * prior["token_counts"] / 1e12
    center = prior[reference] / prior[reference].sum()
    solution = solve(fitted.objective(), reference=center, kl=kl, caps=caps)
    step = json.loads((FOLDER / "update-sequence.json").read_text())[0]
    published = np.array([step["published_mixture"][f"dclm:{domain}"] for domain in swarm.domains])
    return float(np.abs(solution.weights - published).sum())


@needs_swarms
@pytest.mark.slow
def test_reproduces_the_published_proposal_and_no_control_does():
    distance = proposal_distance()
    assert distance <= 0.10
    controls = [proposal_distance(seed=s) for s in (1, 2, 3)]
    controls += [proposal_distance(runs=127), proposal_distance(kl=0.1), proposal_distance(kl=0.025)]
    controls += [proposal_distance(reference="token_counts")]
    assert min(controls) > distance


def test_ten_thousand_domains_are_solved_in_bounded_memory() -> None:
    domains, objective = 10_000, law(10_000, 20, scale=3.0).objective()
    reference, caps = setting(domains, 0, 3.0)
    tracemalloc.start()
    try:
        solution = solve(objective, reference=reference, kl=0.05, caps=caps)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    check(solution, objective, reference=reference, kl=0.05, caps=caps)
    assert peak < 100e6, "a matrix of domains by domains alone would be 800 MB"


@pytest.mark.slow
def test_a_thousand_runs_of_ten_thousand_domains_are_refused_before_they_are_fitted() -> None:
    g = generator("large", 1)
    mixtures = g.dirichlet(np.full(10_000, 0.01), size=1000)
    observed = Observations(mixtures, g.uniform(1, 2, (1000, 2)), np.ones((1000, 2)))
    tracemalloc.start()
    try:
        with pytest.raises(
            SwarmError, match=r"1000 runs with distinct mixtures are too few for law log-linear, which needs"
        ):
            fit_swarm(observed, [f"{k}" for k in range(1000)], np.ones(2), FitSettings(LOG_LINEAR))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e9
