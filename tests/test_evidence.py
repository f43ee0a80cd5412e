from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.fit.diagnostics import scores
from olmix.laws import evidence
from olmix.laws.base import ConvexLaw
from olmix.laws.evidence import fit_linear_evidence, fit_process_evidence, fit_root_evidence
from olmix.laws.observations import observe
from olmix.solver.certified import solve
from tests.public_swarms import load, needs_swarms

FITS = [fit_linear_evidence, fit_root_evidence, fit_process_evidence]
every_law = pytest.mark.parametrize("fit", FITS)


def synthetic(runs, domains, tasks, seed=0, noise=0.01):
    """Sparse mixtures and BPB with diminishing returns, masked here and there."""
    g = generator("laws", runs, domains, tasks, seed)
    x = g.dirichlet(np.ones(domains), size=runs)
    x[x < 0.3 / domains] = 0
    x /= x.sum(axis=1, keepdims=True)
    y = np.exp(g.normal(0, 0.3, tasks) - np.sqrt(x) @ g.uniform(0, 0.6, (domains, tasks)))
    return x, y * np.exp(noise * g.standard_normal(y.shape)), g


def split(name, runs, seed):
    """Observations of some runs of a public swarm, and the mixtures and BPB of the others."""
    swarm = load(name)
    swarm = swarm if name == "regmix-1m" else swarm.with_mmlu_grouped()
    order = generator("tuning split", name, seed).permutation(len(swarm.ids))
    train, test = order[:runs], order[runs:]
    return observe(swarm.mixtures[train], swarm.bpb[train]), swarm.mixtures[test], swarm.bpb[test]


def unseen_spearman(fit, name, runs, seeds=(100, 101, 102, 103)):
    """Mean Spearman with unseen runs, of the tasks and of their mean."""
    found = []
    for seed in seeds:
        observations, mixtures, bpb = split(name, runs, seed)
        got = scores(fit(observations).predict(mixtures), bpb)
        found.append((np.nanmean(got.spearman), got.mean_spearman))
    return np.mean(found, axis=0)


def require_sane(fit, runs, domains=7):
    """Finite, within ten standard deviations of the runs, at mixtures of every kind, and at random weights."""
    x, y, g = synthetic(runs, domains, 3, seed=1)
    weights = g.uniform(0, 2, y.shape) * (g.random(y.shape) < 0.8)
    weights[:2] = 1
    everywhere = np.vstack([np.eye(domains), g.dirichlet(np.full(domains, 0.2), size=50)])
    for observations in (observe(x, y), observe(x, y, weights)):
        predicted = fit(observations).predict(everywhere)
        seen = observations.shares
        mean = (seen * observations.bpb).sum(axis=0)
        deviation = np.sqrt((seen * (observations.bpb - mean) ** 2).sum(axis=0))
        assert np.isfinite(predicted).all()
        assert (np.abs(predicted - mean) <= 10 * deviation + 1e-9).all()


def require_sane_on(fit, name, runs):
    observations, mixtures, _ = split(name, runs, seed=105)
    predicted = fit(observations).predict(np.vstack([mixtures, np.eye(mixtures.shape[1])]))
    assert np.isfinite(predicted).all()
    assert (np.abs(predicted - observations.bpb.mean(axis=0)) <= 10 * observations.bpb.std(axis=0) + 1e-9).all()


def require_masked_is_absent(fit, tolerance=1e-9):
    """A run that is masked for a task is a run that the task never had, whatever its BPB and domains."""
    x, y, _ = synthetic(24, 5, 3, seed=2)
    x[np.arange(24) != 7, 4] = 0
    x /= x.sum(axis=1, keepdims=True)
    weights = np.ones(y.shape)
    weights[[3, 11], 1] = 0
    weights[7] = 0
    spoiled = np.where(weights > 0, y, np.nan)
    masked = fit(observe(x, spoiled, weights)).predict(x)
    for task in range(3):
        rows = weights[:, task] > 0
        alone = fit(observe(x[rows], y[rows, task : task + 1])).predict(x)
        assert masked[:, task] == pytest.approx(alone[:, 0], abs=tolerance)


def require_weights_are_repetitions(fit, tolerance=1e-9):
    x, y, g = synthetic(24, 5, 3, seed=3)
    counts = g.integers(0, 4, 24)
    weighted = fit(observe(x, y, counts)).predict(x)
    repeated = fit(observe(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0))).predict(x)
    assert weighted == pytest.approx(repeated, abs=tolerance)


def require_order_of_runs_is_nothing(fit, tolerance=1e-9):
    x, y, g = synthetic(24, 5, 3, seed=4)
    order = g.permutation(24)
    assert fit(observe(x[order], y[order])).predict(x) == pytest.approx(fit(observe(x, y)).predict(x), abs=tolerance)


def require_permuting_domains_permutes(fit, seed, domains, tolerance=1e-7):
    x, y, g = synthetic(20, domains, 2, seed)
    order = g.permutation(domains)
    permuted = fit(observe(x[:, order], y)).predict(x[:, order])
    assert permuted == pytest.approx(fit(observe(x, y)).predict(x), abs=tolerance)


def require_convex_objective(fit):
    """Value, gradient and curvature agree, the value is convex and the mean of the tasks, and it can be solved."""
    x, y, g = synthetic(40, 5, 3, seed=5)
    law = fit(observe(x, y))
    assert isinstance(law, ConvexLaw)
    weights, step = np.array([2.0, 0.0, 6.0]), 1e-5
    objective = law.objective(weights)
    for q in g.dirichlet(np.full(5, 3.0), size=4):
        assert objective.value(q) == pytest.approx(law.predict(q) @ [0.25, 0, 0.75])
        for i, unit in enumerate(np.eye(5)):
            slope = (objective.value(q + step * unit) - objective.value(q - step * unit)) / (2 * step)
            bend = (objective.gradient(q + step * unit) - objective.gradient(q - step * unit)) / (2 * step)
            assert objective.gradient(q)[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)
            assert objective.curvature(q).times(unit) == pytest.approx(bend, rel=1e-5, abs=1e-7)
    for a, b in zip(g.dirichlet(np.full(5, 0.3), size=50), g.dirichlet(np.full(5, 0.3), size=50), strict=True):
        values = np.array([objective.value(a + t * (b - a)) for t in np.linspace(0, 1, 9)])
        assert (values[:-2] - 2 * values[1:-1] + values[2:] >= -1e-12).all()
    for kl in (0.05, 0.0):
        solution = solve(objective, reference=np.full(5, 0.2), kl=kl, caps=np.full(5, 0.6))
        assert solution.gap <= 1e-9
        assert solution.objective <= objective.value(np.full(5, 0.2)) + 1e-12


@every_law
def test_masked_runs_are_absent(fit):
    require_masked_is_absent(fit)


@every_law
def test_a_weight_is_a_repetition_at_a_given_noise(fit, monkeypatch):
    monkeypatch.setattr(evidence, "RATIOS", np.array([1e-3]))
    monkeypatch.setattr(evidence, "LENGTHSCALES", (1.0,))
    require_weights_are_repetitions(fit)


@every_law
def test_a_repeated_run_moves_little_by_its_evidence_of_no_noise(fit):
    x, y, _ = synthetic(40, 5, 3, seed=6, noise=0.03)
    twice = fit(observe(np.vstack([x, x[:1]]), np.vstack([y, y[:1]])))
    weighted = fit(observe(x, y, np.where(np.arange(40) == 0, 2.0, 1.0)))
    assert np.abs(twice.predict(x) - weighted.predict(x)).max() < 0.1 * y.std()


@every_law
def test_only_ratios_of_weights_matter(fit):
    x, y, g = synthetic(24, 5, 3, seed=7)
    weights = g.uniform(0.5, 2, y.shape)
    assert fit(observe(x, y, 7 * weights)).predict(x) == pytest.approx(fit(observe(x, y, weights)).predict(x), abs=1e-9)


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
def test_degenerate_runs_are_predicted_as_their_mean(fit):
    x, y, _ = synthetic(6, 4, 2)
    y[:, 1] = 1.25
    assert fit(observe(x, y)).predict(np.eye(4))[:, 1] == pytest.approx([1.25] * 4)
    same = fit(observe(np.tile(x[:1], (3, 1)), y[:3]))
    assert same.predict(x[:1])[0] == pytest.approx(np.exp(np.log(y[:3]).mean(axis=0)), rel=1e-6)
    one = np.ones(y.shape)
    one[1:, 0] = 0
    assert fit(observe(x, y, one)).predict(x)[:, 0] == pytest.approx(y[[0] * 6, 0])


@every_law
def test_noise_is_told_from_signal(fit):
    x, y, _ = synthetic(120, 4, 2, noise=0.0)
    noise = 0.1 * generator("noise").standard_normal(y.shape)
    clean, noisy = (np.log(fit(observe(x, seen)).predict(x)) for seen in (y, y * np.exp(noise)))
    # A law that took the noise for signal would follow all 0.1 of it.
    assert np.sqrt(((noisy - clean) ** 2).mean(axis=0)) == pytest.approx([0.0, 0.0], abs=0.03)
    assert (((clean - np.log(y)) ** 2).mean(axis=0) < 0.5 * np.log(y).var(axis=0)).all()


def test_the_lengthscale_is_the_one_of_the_largest_evidence():
    g = generator("lengthscale")
    x = g.dirichlet(np.ones(2), size=60)
    wavy, straight = np.exp(0.3 * np.sin(12 * np.sqrt(x[:, 0]))), np.exp(-np.sqrt(x[:, 0]))
    law = fit_process_evidence(observe(x, np.column_stack([straight, wavy, straight])))
    assert law.lengthscale[1] == evidence.LENGTHSCALES[0]
    assert (law.lengthscale[[0, 2]] > law.lengthscale[1]).all()
    assert law.predict(x)[:, 1] == pytest.approx(wavy, rel=0.02)


@every_law
def test_a_heavier_run_is_met_more_closely(fit):
    x, y, _ = synthetic(30, 4, 1, noise=0.1)
    far = int(np.abs(fit(observe(x, y)).predict(x) - y).argmax())
    heavy = fit(observe(x, y, np.where(np.arange(30) == far, 50.0, 1.0)))
    assert np.abs(heavy.predict(x) - y)[far] < 0.5 * np.abs(fit(observe(x, y)).predict(x) - y)[far]


def test_the_linear_law_is_convex():
    require_convex_objective(fit_linear_evidence)


def test_the_linear_law_is_the_ridge_solution_of_the_largest_marginal_likelihood():
    x, y, _ = synthetic(30, 4, 2, noise=0.05)
    law = fit_linear_evidence(observe(x, y))
    contrasts = np.linalg.svd(np.ones((1, 30)))[2][1:]  # between runs: they know no intercept
    kernel = contrasts @ x @ x.T @ contrasts.T
    ratios = evidence.RATIOS * np.trace(kernel)
    for task in range(2):
        logs = np.log(y[:, task])
        z = contrasts @ logs

        def likelihood(ratio, z=z):
            """By the density itself, at the variance that is best for this ratio of noise to prior."""
            covariance = kernel + ratio * np.eye(29)
            return -(np.linalg.slogdet(covariance)[1] + 29 * np.log(z @ np.linalg.solve(covariance, z))) / 2

        ratio = max(ratios, key=likelihood)
        assert ratios[0] < ratio < ratios[-1]
        centred = x - x.mean(axis=0)
        ridge = np.linalg.solve(centred.T @ centred + ratio * np.eye(4), centred.T @ (logs - logs.mean()))
        assert law.coefficients[task] == pytest.approx(ridge, abs=1e-9)
        assert law.intercept[task] == pytest.approx(logs.mean() - x.mean(axis=0) @ ridge)


@every_law
def test_a_never_sampled_domain_is_an_average_one(fit):
    x, y, _ = synthetic(40, 4, 3, noise=0.02)
    wide = np.insert(x, 2, 0.0, axis=1)
    narrow, law = fit(observe(x, y)), fit(observe(wide, y))
    assert law.predict(wide) == pytest.approx(narrow.predict(x), abs=1e-9)
    pure = narrow.predict(np.eye(4))
    unknown = law.predict(np.eye(5)[2])
    assert (unknown > pure.min(axis=0)).all()
    assert (unknown < pure.max(axis=0)).all()


@every_law
def test_shapes_of_predictions(fit):
    x, y, _ = synthetic(20, 3, 2)
    law = fit(observe(x, y))
    many = law.predict(np.full((2, 4, 3), 1 / 3))
    assert many.shape == (2, 4, 2)
    assert law.predict(np.full(3, 1 / 3)) == pytest.approx(many[1, 2])


@needs_swarms
@every_law
@pytest.mark.parametrize(("name", "runs"), [("dclm", 24), ("dclm", 25), ("dclm", 72), ("partition-pdfs", 22),
                                            ("regmix-1m", 17), ("regmix-1m", 51)])  # fmt: skip
def test_predictions_are_sane_on_public_swarms(fit, name, runs):
    require_sane_on(fit, name, runs)


# Measured on these four splits: .681 / .760, .811 / .927, .806 / .918; the log-linear law has .73 / .85 on others.
@needs_swarms
@pytest.mark.parametrize(
    ("fit", "tasks", "mean"),
    [(fit_linear_evidence, 0.66, 0.73), (fit_root_evidence, 0.8, 0.91), (fit_process_evidence, 0.79, 0.9)],
)
def test_unseen_runs_are_ordered(fit, tasks, mean):
    spearman = unseen_spearman(fit, "dclm", 48)
    assert spearman[0] > tasks
    assert spearman[1] > mean
