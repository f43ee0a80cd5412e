from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.errors import InfeasibleError, SolverError, SwarmError
from olmix.laws.loglinear import LogLinear
from olmix.solver.certified import Solution, solve
from olmix.solver.projection import kl_projection, least_vertex
from olmix.solver.search import search, transferred, within

# BPB; the largest of 400 random problems of `convex` was 1.2e-10.
GAP = 1e-8


def convex(domains: int, tasks: int, seed: int, scale: float = 1.0) -> LogLinear:
    g = generator("law", domains, tasks, seed)
    nothing = np.zeros(tasks)
    return LogLinear(g.uniform(0.1, 1, tasks), scale * g.normal(size=(tasks, domains)), nothing, nothing, nothing + 1e9)


def setting(domains: int, seed: int, tightness: float) -> tuple[np.ndarray, np.ndarray]:
    """A reference, not normalised, and caps; the smaller the tightness (> 1), the more of them bind."""
    g = generator("setting", domains, seed)
    reference = g.dirichlet(np.full(domains, 0.7)) * 1.7 + 1e-6
    share = g.uniform(0.2, 1.0, domains)
    return reference, tightness * share / share.sum()


def runs(domains: int, count: int, seed: int) -> np.ndarray:
    """Mixtures as a sparse swarm has them, with zeros."""
    drawn = generator("runs", domains, seed).dirichlet(np.full(domains, 0.5), size=count)
    drawn[drawn < 0.03] = 0.0
    return drawn / drawn.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Nearest:
    """The BPB of the nearest run: a law of steps, without a slope anywhere."""

    mixtures: np.ndarray
    bpb: np.ndarray

    def predict(self, mixtures):
        distance = np.abs(np.asarray(mixtures)[..., None, :] - self.mixtures).sum(axis=-1)
        return self.bpb[np.argmin(distance, axis=-1)]


@dataclass(frozen=True)
class Bumps:
    """Three wells, the deepest of them narrow."""

    centres = np.array([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.15, 0.15, 0.7]])
    depths, widths = np.array([0.5, 0.6, 1.0]), np.array([0.4, 0.4, 0.08])

    def predict(self, mixtures):
        square = ((np.asarray(mixtures)[..., None, :] - self.centres) ** 2).sum(axis=-1)
        wells = self.depths * np.exp(-square / (2 * self.widths**2))
        return 2 - np.stack([wells.sum(axis=-1), wells[..., 0]], axis=-1)


def objective(law, weights, reference, kl, q):
    """Written anew: the weighted mean of single predictions and the KL term, 0 where a weight is."""
    positive = q > 0
    entropy = float(q[positive] @ np.log(q[positive] / reference[positive]))
    return float(np.average(law.predict(q), weights=weights)) + kl * entropy


def check(found: Solution, law, *, task_weights, reference, kl, caps):
    q = found.weights
    assert (q >= 0).all()
    assert (q <= caps).all()
    assert abs(q.sum() - 1) <= 1e-12
    assert (found.capped == ((q == caps) & (caps < 1))).all()
    assert found.objective == pytest.approx(objective(law, task_weights, reference, kl, q), abs=1e-12)
    assert (found.predicted == law.predict(q[None])[0]).all()


@settings(max_examples=40, deadline=None)
@given(
    domains=st.integers(2, 12),
    tasks=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    tightness=st.floats(1.0001, 20),
    kl=st.sampled_from([0.0, 1e-3, 0.05, 0.5]),
    scale=st.sampled_from([0.3, 1.0, 6.0]),
)
def test_a_convex_law_is_brought_to_the_certified_optimum(*, domains, tasks, seed, tightness, kl, scale):
    law = convex(domains, tasks, seed, scale)
    reference, caps = setting(domains, seed, tightness)
    weights = generator("tasks", seed).uniform(0.1, 3, tasks)
    known = {"reference": reference, "kl": kl, "caps": caps}
    found = search(law, task_weights=weights, observed=runs(domains, 3, seed), seed=seed, **known)
    check(found, law, task_weights=weights, **known)
    best = solve(law.objective(weights), **known)
    assert -1e-9 <= found.objective - best.objective <= GAP


@pytest.mark.parametrize(("kl", "tightness"), [(0.0, 1.5), (0.0, 50.0), (0.05, 1.5), (0.05, 50.0)])
def test_so_it_is_at_36_domains_and_no_law_is_asked_row_by_row(kl, tightness):
    law = convex(36, 20, 1, 3.0)
    reference, caps = setting(36, 1, tightness)
    sizes = []

    class Counted:
        def predict(self, mixtures):
            sizes.append(len(mixtures))
            return law.predict(mixtures)

    known = {"reference": reference, "kl": kl, "caps": caps}
    found = search(Counted(), task_weights=None, observed=runs(36, 72, 0), seed=0, **known)
    best = solve(law.objective(), **known)
    assert -1e-9 <= found.objective - best.objective <= GAP
    if kl:
        assert found.weights == pytest.approx(best.weights, abs=1e-4)
    assert found.steps == sum(sizes) <= 200_000
    assert max(sizes) <= 1024
    assert np.mean(sizes) > 25


@settings(max_examples=25, deadline=None)
@given(
    domains=st.integers(2, 8),
    seed=st.integers(0, 10**6),
    tightness=st.floats(1.01, 8),
    kl=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_no_run_that_meets_the_caps_is_better_however_spiky_the_law(domains, seed, tightness, kl):
    g = generator("spikes", seed)
    reference, caps = setting(domains, seed, tightness)
    observed = runs(domains, 12, seed)
    # Near twins of another BPB: cells as small as the search's own tolerances.
    observed = np.concatenate(
        [observed, within(observed[:4] * (1 + 1e-5 * g.normal(size=(4, domains))), *free(domains))]
    )
    law = Nearest(observed, g.uniform(1, 3, (len(observed), 2)))
    known = {"task_weights": np.array([1.0, 3.0]), "reference": reference, "kl": kl, "caps": caps}
    found = search(law, observed=observed, seed=0, **known)
    check(found, law, **known)
    # Those that do not meet the caps count as what is nearest to them.
    candidates = [q if (q <= caps).all() else within(q[None], caps, reference / reference.sum())[0] for q in observed]
    arguments = [known[key] for key in ("task_weights", "reference", "kl")]
    assert found.objective <= min(objective(law, *arguments, q) for q in candidates) + 1e-12


def free(domains: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(domains), np.full(domains, 1 / domains)


def test_a_spike_no_wider_than_a_run_is_found_at_that_run():
    observed = runs(6, 30, 0)

    class Spike:
        def predict(self, mixtures):
            return np.where(np.abs(mixtures - observed[17]).sum(axis=-1) < 1e-9, 1.0, 2.0)[..., None]

    caps = np.maximum(observed[17], 0.3)
    found = search(Spike(), task_weights=None, reference=np.ones(6), kl=0.0, caps=caps, observed=observed, seed=0)
    assert (found.weights == observed[17]).all()
    # A run that breaks a cap stands for what is nearest to it.
    beyond = observed.copy()
    tight = np.full(6, 0.9)
    beyond[17] = [0.95, 0.05, 0, 0, 0, 0]
    observed[17] = within(beyond[17:18], tight, np.ones(6))[0]
    near = search(Spike(), task_weights=None, reference=np.ones(6), kl=0.0, caps=tight, observed=beyond, seed=0)
    assert (near.weights == [0.9, observed[17, 1], 0, 0, 0, 0]).all()
    # Without that run nothing tells of it.
    other = search(Spike(), task_weights=None, reference=np.ones(6), kl=0.0, caps=caps, observed=observed[:17], seed=0)
    assert other.objective == 2.0


@pytest.mark.parametrize("kl", [0.0, 0.02])
@pytest.mark.parametrize("caps", [[1.0, 1.0, 1.0], [0.5, 0.6, 0.4], [0.9, 0.9, 0.0]])
def test_the_deepest_of_several_wells_is_found_without_a_run_near_it(kl, caps):
    law, reference, caps = Bumps(), np.array([0.6, 0.3, 0.1]), np.array(caps)
    observed = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    weights = np.array([3.0, 1.0])
    known = {"task_weights": weights, "reference": reference, "kl": kl, "caps": caps}
    found = search(law, observed=observed, seed=0, **known)
    check(found, law, **known)
    side = np.arange(401) / 400
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    grid = np.column_stack([grid, 1 - grid.sum(axis=1)])
    grid = grid[(grid >= 0).all(axis=1) & (grid <= caps).all(axis=1)]
    entropy = np.sum(grid * np.log(np.where(grid > 0, grid, 1) / reference), axis=1)
    least = (np.average(law.predict(grid), weights=weights, axis=1) + kl * entropy).min()
    # The grid is coarser than the search: better than it by what its mesh can miss, never worse.
    assert least - 2e-3 <= found.objective <= least + 1e-12


def test_a_run_at_the_rim_of_a_deep_well_is_followed_down_although_draws_elsewhere_are_better():
    deep, broad = np.full(12, 0.02), np.full(12, 0.02)
    deep[0] = broad[11] = 0.78

    class Wells:
        def predict(self, mixtures):
            narrow, wide = (((mixtures - centre) ** 2).sum(axis=-1) for centre in (deep, broad))
            return (3 - np.exp(-narrow / (2 * 0.02**2)) - 0.5 * np.exp(-wide / (2 * 0.3**2)))[..., None]

    rim = deep.copy()
    rim[[0, 5]] += [-0.03, 0.03]
    known = {"task_weights": None, "reference": broad, "kl": 0.0, "caps": np.ones(12)}
    found = search(Wells(), observed=np.stack([np.full(12, 1 / 12), rim]), seed=0, **known)
    assert found.weights == pytest.approx(deep, abs=1e-3)


def test_a_domain_that_no_run_has_comes_in_when_the_law_wants_it():
    class Root:
        def predict(self, mixtures):
            return (2 - np.sqrt(mixtures) @ np.array([0.1, 0.2, 1.0]))[..., None]

    observed = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    found = search(Root(), task_weights=None, reference=np.ones(3), kl=0.0, caps=np.ones(3), observed=observed, seed=0)
    # The optimum of a . sqrt(q) on the simplex is q ~ a^2, and its value |a|.
    assert found.objective == pytest.approx(2 - np.sqrt(1.05), abs=1e-9)
    assert found.weights == pytest.approx(np.array([0.01, 0.04, 1.0]) / 1.05, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(domains=st.integers(1, 10), seed=st.integers(0, 10**6), kind=st.sampled_from(["one", "barely", "zeros", "inf"]))
def test_caps_hold_bit_for_bit(domains, seed, kind):
    g = generator("caps", seed)
    reference, caps = setting(domains, seed, 1.0)
    if kind == "barely":
        caps = caps * (1 + 10.0 ** -g.uniform(2, 11))
    elif kind != "one":
        closed = g.permutation(domains)[: domains // 2]
        caps[closed] = 0.0
        caps = 1.5 * caps / caps.sum()
        caps[closed] = 0.0 if kind == "zeros" else np.inf
    law = Nearest(runs(domains, 6, seed), g.uniform(1, 2, (6, 3)))
    known = {"task_weights": None, "reference": reference, "kl": 0.05, "caps": caps}
    found = search(law, observed=runs(domains, 9, seed + 1), seed=0, **known)
    check(found, law, **known)
    if kind == "one":
        assert (found.weights == np.minimum(caps, 1)).all()
        assert found.steps == 1


def test_a_law_of_stairs_is_gone_down_to_the_last_one_and_fills_caps_to_the_last_bit():
    filled = 0
    for seed in range(20):
        reference, caps = setting(6, seed, 3.0)
        slope = generator("slope", seed).uniform(0, 1, 6)

        class Stairs:
            def predict(self, mixtures, slope=slope):
                return np.ceil(200 * mixtures @ slope)[..., None] / 200

        flat = within(np.ones((1, 6)), caps, np.ones(6))
        found = search(Stairs(), task_weights=None, reference=reference, kl=0.0, caps=caps, observed=flat, seed=0)
        # A linear law would be least at a vertex; a stair may reach a little farther than its value says.
        assert found.objective <= least_vertex(slope, caps) @ slope + 1 / 200 + 1e-12
        assert (found.weights <= caps).all()
        reached = np.abs(found.weights - caps) < 1e-13
        assert found.capped[reached].all()
        filled += int(reached.sum())
    assert filled >= 20


def test_caps_that_leave_nothing_and_bad_arguments():
    law = convex(3, 2, 0)
    good = {"task_weights": None, "reference": np.ones(3), "kl": 0.05, "caps": np.ones(3), "observed": runs(3, 4, 0)}
    for bad in (
        {"caps": np.full(3, 0.3)},
        {"caps": np.array([0.5, -1, 1])},
        {"reference": np.zeros(3)},
        {"kl": np.nan},
    ):
        changed = {**good, **bad}
        with pytest.raises((InfeasibleError, SolverError)) as here:
            search(law, seed=0, **changed)
        with pytest.raises(type(here.value)) as there:
            solve(law.objective(), **{key: changed[key] for key in ("reference", "kl", "caps")})
        assert str(here.value) == str(there.value)
    with pytest.raises(SwarmError, match=r"runs \(runs, 3\)"):
        search(law, seed=0, **{**good, "observed": runs(4, 4, 0)})
    with pytest.raises(SwarmError, match="run 1 has an invalid mixture"):
        search(law, seed=0, **{**good, "observed": np.array([[1.0, 0, 0], [2, -1, 0]])})
    with pytest.raises(SwarmError, match="task weights"):
        search(law, seed=0, **{**good, "task_weights": np.ones(3)})
    wild = LogLinear(np.full(2, np.nan), law.coefficients, law.loss, law.lower, law.upper)
    with pytest.raises(SolverError, match="not finite"):
        search(wild, seed=0, **good)


def test_the_same_for_a_seed_whatever_the_order_of_the_runs():
    observed = runs(7, 40, 3)
    g = generator("bpb", 0)
    law = Nearest(observed, g.uniform(1, 3, (40, 4)))
    known = {"task_weights": None, "reference": np.ones(7), "kl": 0.05, "caps": np.full(7, 0.4)}
    one = search(law, observed=observed, seed=5, **known)
    shuffled = np.concatenate([observed, observed[:3]])[g.permutation(43)]
    for other in (search(law, observed=observed, seed=5, **known), search(law, observed=shuffled, seed=5, **known)):
        assert other.weights.tobytes() == one.weights.tobytes()
        assert (other.objective, other.steps) == (one.objective, one.steps)
    assert search(law, observed=observed, seed=6, **known).steps != one.steps


def test_runs_whose_weights_are_rounded_and_no_runs_at_all():
    law = convex(4, 3, 0)
    known = {"task_weights": None, "reference": np.ones(4), "kl": 0.05, "caps": np.full(4, 0.5)}
    best = solve(law.objective(), reference=np.ones(4), kl=0.05, caps=np.full(4, 0.5)).objective
    for observed in (np.array([[0.333, 0.333, 0.333, 0.0]]), np.empty((0, 4)), np.array([[1.0, 0.0, 0.0, 0.0]])):
        found = search(law, observed=observed, seed=0, **known)
        check(found, law, **known)
        assert found.objective == pytest.approx(best, abs=GAP)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6), st.floats(1.0001, 30))
def test_within_is_the_kl_projection_of_every_row(domains, seed, tightness):
    reference, caps = setting(domains, seed, tightness)
    caps = np.minimum(caps, 1.0)
    rows = generator("rows", seed).gamma(0.3, size=(5, domains)) + 1e-9
    found = within(rows, caps, reference)
    assert (found <= caps).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-13)
    for row, q in zip(rows, found, strict=True):
        # Caps that it would just reach, but for the first: rounding takes it beyond none of them.
        reached = q + 0.1 * (np.arange(domains) == 0)
        assert (within(row[None], np.minimum(reached, 1.0), reference)[0] <= reached).all()
        assert q == pytest.approx(kl_projection(np.log(row), caps)[0], abs=1e-12)


def test_within_gives_what_the_caps_leave_over_to_the_absent_domains_as_the_reference_shares_it():
    caps = np.array([0.3, 0.2, 1.0, 1.0, 0.0])
    reference = np.array([0.1, 0.1, 0.2, 0.3, 0.3])
    found = within(
        np.array([[5.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [0, 0, 1.0, 1.0, 0]]), caps, reference
    )
    assert found[0] == pytest.approx([0.3, 0.2, 0.2, 0.3, 0.0])
    assert found[1] == pytest.approx(np.array([1, 1, 2, 3, 0]) / 7)
    assert found[2].tolist() == [0.0, 0.0, 0.5, 0.5, 0.0]


@pytest.mark.parametrize("step", [1e-6, 0.1, 1.0])
def test_a_transfer_keeps_the_sum_and_fills_a_cap_to_the_last_bit(step):
    g = generator("transfers", 0)
    caps = g.uniform(0.2, 0.6, 9)
    rows = within(g.dirichlet(np.ones(9), size=5000), caps, np.ones(9))
    gives = g.integers(9, size=5000)
    takes = (gives + g.integers(1, 9, size=5000)) % 9
    before, after = rows.copy(), transferred(rows, gives, takes, step, caps)
    assert (rows == before).all()
    assert (after >= 0).all()
    assert (after <= caps).all()
    assert after.sum(axis=1) == pytest.approx(np.ones(5000), abs=1e-14)
    all_rows = np.arange(5000)
    wanted = np.minimum(np.minimum(step, before[all_rows, gives]), caps[takes] - before[all_rows, takes])
    change = np.zeros_like(rows)
    change[all_rows, gives], change[all_rows, takes] = -wanted, wanted
    assert after - before == pytest.approx(change, abs=1e-15)
    full = wanted == caps[takes] - before[all_rows, takes]
    assert (after[all_rows, takes] == caps[takes])[full].all()
    assert step < 1 or full.sum() > 100


@dataclass(frozen=True)
class Process:
    """Gaussian processes of several tasks with a length each, fitted to a few runs."""

    mixtures: np.ndarray
    lengths: np.ndarray
    shares: np.ndarray

    def predict(self, mixtures):
        square = (mixtures**2).sum(-1)[:, None] + (self.mixtures**2).sum(-1) - 2 * mixtures @ self.mixtures.T
        return np.stack(
            [2 + np.exp(-square * s) @ a for s, a in zip(self.lengths, self.shares.T, strict=True)], axis=-1
        )


def test_a_smooth_law_that_is_not_convex_ends_where_no_small_move_helps():
    observed, g = runs(8, 30, 0), generator("process", 0)
    law = Process(observed, g.uniform(0.5, 6, 5), g.normal(size=(30, 5)))
    reference, caps = setting(8, 0, 2.0)
    known = {"task_weights": None, "reference": reference, "kl": 0.05, "caps": caps}
    found = search(law, observed=observed, seed=0, **known)
    for a in range(8):
        for b in range(8):
            for step in (1e-1, 1e-2, 1e-3, 1e-4):
                q = found.weights.copy()
                q[a], q[b] = q[a] - step, q[b] + step
                if (q >= 0).all() and (q <= caps).all():
                    value = law.predict(q[None]).mean() + 0.05 * float(q[q > 0] @ np.log(q[q > 0] / reference[q > 0]))
                    assert value >= found.objective - 1e-9
    others = [search(law, observed=observed, seed=s, **known).objective for s in range(1, 4)]
    assert others == pytest.approx([found.objective] * 3, abs=1e-6)
