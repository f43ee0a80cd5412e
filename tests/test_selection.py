"""Which law `auto` takes, how sure it is, and the learning curve."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit.diagnostics import folds_of, scores
from olmix.fit.selection import Curve, assess, choose, combined, curve_sizes, learning_curve
from olmix.laws.base import LawKind
from olmix.laws.observations import Observations, observe
from olmix.laws.registry import LOG_LINEAR, law_kinds

EVEN = np.full(2, 0.5)


@dataclass(frozen=True)
class Linear:
    """f_j(p) = t_j . p, by weighted least squares: a law whose fit takes a tenth of a millisecond."""

    coefficients: NDArray[np.float64]

    def predict(self, mixtures):
        return np.asarray(mixtures) @ self.coefficients.T


def fit_linear(observations: Observations) -> Linear:
    roots = np.sqrt(observations.weights)
    tasks = [
        np.linalg.lstsq(observations.mixtures * roots[:, j : j + 1], observations.bpb[:, j] * roots[:, j], rcond=None)[
            0
        ]
        for j in range(observations.shape[2])
    ]
    return Linear(np.array(tasks))


LINEAR = LawKind("linear", "t . p", Linear, fit_linear, lambda m: m)


@dataclass(frozen=True)
class Guess:
    """A law that knows nothing: the BPB of a mixture is drawn from its first share."""

    tasks: int

    def predict(self, mixtures):
        x = np.asarray(mixtures)
        return np.stack([1 + np.modf(x[..., 0] * 1e4 * (j + 1))[0] for j in range(self.tasks)], axis=-1)


GUESS = LawKind("guess", "nothing", Guess, lambda o: Guess(o.shape[2]), lambda m: 0)


def linear_swarm(runs: int, noise: float, seed: int = 0, domains: int = 4, tasks: int = 2):
    """Mixtures, BPB and coefficients of a law that is linear."""
    g = generator("linear swarm", runs, seed)
    t = generator("linear law", domains, tasks, seed).uniform(0.5, 2.5, (tasks, domains))
    x = g.dirichlet(np.ones(domains), size=runs)
    return x, x @ t.T + noise * g.standard_normal((runs, tasks)), t


def names(runs: int) -> list[str]:
    return [f"run-{k}" for k in range(runs)]


def recording(kind: LawKind):
    """The law, and what it was fitted to and asked: pairs of mixtures."""
    log = []

    def fit(observations):
        law, asked = kind.fit(observations), []
        log.append((observations, asked))

        class Recorded:
            def predict(self, mixtures):
                asked.append(np.array(mixtures))
                return law.predict(mixtures)

        return Recorded()

    return replace(kind, fit=fit), log


def rows(mixtures) -> set[tuple[float, ...]]:
    return {tuple(row) for row in mixtures}


def test_a_choice_looks_at_nothing_but_the_runs_that_it_is_given():
    x, y, _ = linear_swarm(60, 0.05)
    given, beside = observe(x[:25], y[:25]), observe(x[25:35], y[25:35])
    kind, log = recording(LINEAR)
    choose({"linear": kind, "guess": GUESS}, "guess", given, names(25), EVEN, seed=0, beside=beside)
    assert len(log) == 15
    for trained, asked in log:
        assert len(asked) == 1
        assert rows(asked[0]) <= rows(x[:25])
        assert rows(x[25:35]) <= rows(trained.mixtures) <= rows(x[:35])
        # What is predicted was not trained on, and all else was.
        assert not rows(asked[0]) & rows(trained.mixtures)
        assert len(trained.mixtures) == 35 - len(asked[0])
    for repeat in (log[:5], log[5:10], log[10:]):
        assert sorted(rows(np.concatenate([asked[0] for _, asked in repeat]))) == sorted(rows(x[:25]))


@pytest.mark.parametrize("maker", [LOG_LINEAR, "diminishing"])
def test_the_law_that_made_the_data_is_chosen_when_the_noise_is_small(maker):
    g = generator("maker")
    x = g.dirichlet(np.ones(4), size=24)
    features = x if maker == LOG_LINEAR else -(x**0.6)
    # Coefficients of both signs make domains that do harm, which diminishing returns have no word for.
    t = g.normal(0, 0.8, (2, 4)) if maker == LOG_LINEAR else g.uniform(0, 1.5, (2, 4))
    y = 0.5 + np.exp(features @ t.T) + 0.003 * g.standard_normal((24, 2))
    kinds = law_kinds()
    for reference in (LOG_LINEAR, "diminishing"):
        choice = choose(
            {name: kinds[name] for name in (LOG_LINEAR, "diminishing")},
            reference,
            observe(x, y),
            names(24),
            EVEN,
            seed=0,
            repeats=1,
        )
        assert choice.best == maker
        assert choice.reference == reference
        assert choice.assessments[0].name == maker


def test_margin_and_confidence_grow_with_the_lead():
    x, y, _ = linear_swarm(30, 0.05)
    kinds = {"linear": LINEAR, "guess": GUESS}
    sure = choose(kinds, "guess", observe(x, y), names(30), EVEN, seed=0)
    first, second = sure.assessments
    assert (sure.best, first.name, second.name) == ("linear", "linear", "guess")
    assert sure.margin == pytest.approx(first.score - second.score)
    assert sure.margin > 0.5
    assert 0 < sure.standard_error < 0.5 * sure.margin
    assert sure.confidence == 1.0

    # Much noise: the lead is less, and so is the confidence.
    x, y, _ = linear_swarm(30, 1.5)
    y = np.maximum(y, 0.1)
    unsure = choose(kinds, "guess", observe(x, y), names(30), EVEN, seed=0)
    if unsure.best == "linear":
        assert 0 < unsure.margin < sure.margin
    assert unsure.standard_error > sure.standard_error or unsure.best == "guess"


def test_confidence_is_how_often_a_lead_comes_back():
    leads, kinds = [], {"linear": LINEAR, "guess": GUESS}
    for seed in range(25):
        x, y, _ = linear_swarm(12, 0.4, seed)
        choice = choose(kinds, "guess", observe(x, np.maximum(y, 0.1)), names(12), EVEN, seed=seed, repeats=1)
        if choice.best == "linear":
            leads.append((choice.margin / choice.standard_error, choice.confidence))
    ratio, confidence = np.array(leads).T
    assert len(leads) > 8
    # As a normal lead would: one standard error ahead in 84% of resamples.
    assert np.corrcoef(ratio, confidence)[0, 1] > 0.7
    assert (confidence[ratio > 2] > 0.9).all()
    assert (confidence[ratio < 0.5] < 0.85).all()
    assert ((confidence > 0) & (confidence <= 1)).all()


@pytest.mark.parametrize(("reference", "other"), [("a", "b"), ("b", "a")])
def test_the_reference_wins_ties(reference, other):
    x, y, _ = linear_swarm(20, 0.1)
    kinds = {name: replace(LINEAR, name=name) for name in (reference, other)}
    choice = choose(kinds, reference, observe(x, y), names(20), EVEN, seed=0)
    assert choice.best == reference
    assert (choice.margin, choice.standard_error, choice.confidence) == (0.0, 0.0, 1.0)
    assert [a.name for a in choice.assessments] == ["a", "b"]


def test_a_reference_that_is_ahead_stays():
    x, y, _ = linear_swarm(20, 0.1)
    asked = []
    choice = choose(
        {"linear": LINEAR, "guess": GUESS},
        "linear",
        observe(x, y),
        names(20),
        EVEN,
        seed=0,
        report=asked.append,
    )
    assert (choice.best, choice.confidence) == ("linear", 1.0)
    assert asked == ["guess", "linear"]


def test_an_assessment_is_the_score_of_what_was_held_out():
    x, y, _ = linear_swarm(20, 0.3)
    weights = np.array([0.2, 0.8])
    found = assess(LINEAR, observe(x, y), names(20), weights, seed=4, repeats=2)
    assert found.held_out.shape == (2, 20, 2)
    each = [scores(h, y, weights) for h in found.held_out]
    assert found.spearman == pytest.approx(np.mean([s.spearman for s in each]))
    assert found.mean_spearman == pytest.approx(np.mean([s.mean_spearman for s in each]))
    # At this noise some tasks are predicted worse than by a constant, which counts for more than 1 and less than 2.
    assert max(s.relative_error.max() for s in each) > 1
    error = np.mean([np.where(s.relative_error > 1, 2 - 1 / s.relative_error, s.relative_error) for s in each])
    assert found.score == pytest.approx((found.spearman + found.mean_spearman) / 2 - error / 4)
    # Other folds in every repeat and seed, the same for the same seed.
    assert not np.allclose(*found.held_out)
    assert (assess(LINEAR, observe(x, y), names(20), weights, seed=4, repeats=2).held_out == found.held_out).all()
    assert not np.allclose(
        assess(LINEAR, observe(x, y), names(20), weights, seed=5, repeats=2).held_out, found.held_out
    )


def test_neither_the_order_of_rows_nor_masked_runs_change_an_assessment():
    x, y, _ = linear_swarm(20, 0.3)
    order = generator("order").permutation(20)
    found = assess(LINEAR, observe(x, y), names(20), EVEN, seed=0)
    shuffled = assess(LINEAR, observe(x[order], y[order]), [names(20)[k] for k in order], EVEN, seed=0)
    assert shuffled.held_out == pytest.approx(found.held_out[:, order])
    assert shuffled.score == pytest.approx(found.score)
    seen = np.ones((20, 2))
    seen[4:7, 1] = 0
    one = assess(LINEAR, observe(x, np.where(seen > 0, y, 1e3), seen), names(20), EVEN, seed=0)
    two = assess(LINEAR, observe(x, np.where(seen > 0, y, 1e-3), seen), names(20), EVEN, seed=0)
    assert one.score == pytest.approx(two.score)


def test_the_score_is_of_ranks_and_of_the_error():
    _, y, _ = linear_swarm(20, 0.1)
    assert combined(scores(y, y)) == 1.0
    # In the right order, and a quarter of its error less; a quarter where it is no nearer than a constant.
    for off, counted in ((0.5, 0.5), (1.0, 1.0), (2.0, 1.5), (4.0, 1.75), (1e9, 2.0)):
        assert combined(scores(y + off * y.std(axis=0), y)) == pytest.approx(1 - 0.25 * counted)
    assert combined(scores(-y + 2 * y.mean(axis=0), y)) == pytest.approx(-1 - 0.25 * 1.5)
    assert -1.5 <= combined(scores(y[::-1], y)) <= 1


def test_of_two_laws_beyond_a_constant_the_nearer_one_scores_more_but_no_task_decides_alone():
    _, y, _ = linear_swarm(20, 0.1)
    spread = y.std(axis=0)
    worse = [combined(scores(y + off * spread, y)) for off in (0.9, 1.1, 1.5, 3.0, 10.0, 1000.0)]
    assert (np.diff(worse) < 0).all()
    # One of two tasks that is off a thousand times costs less than both at twice the spread of what was seen.
    alone = combined(scores(y + np.array([1000.0, 0]) * spread, y))
    assert alone > combined(scores(y + 2 * spread, y))
    # A hair beyond 1 costs a hair: the score has no step there.
    step = [combined(scores(y + off * spread, y)) for off in (1 - 1e-6, 1 + 1e-6)]
    assert step[0] - step[1] == pytest.approx(0.25 * 2e-6, rel=1e-3)


def test_what_has_no_rank_correlation_counts_as_none():
    x, y, _ = linear_swarm(20, 0.1)
    found = scores(y + 0.01 * x[:, :2], y)
    constant = y.copy()
    constant[:, 1] = 1.0
    half = scores(y + 0.01 * x[:, :2], constant)
    assert np.isnan(half.spearman[1])
    # Any error is infinitely more than the spread of what does not vary, and counts as much as an error can.
    assert half.relative_error[1] == np.inf
    error = (half.relative_error[0] + 2) / 2
    assert combined(half) == pytest.approx((half.spearman[0] / 2 + half.mean_spearman) / 2 - error / 4)
    assert combined(replace(found, mean_spearman=float("nan"))) == pytest.approx(
        found.spearman.mean() / 2 - found.relative_error.mean() / 4
    )


def test_few_runs_are_left_out_one_by_one():
    x, y, _ = linear_swarm(4, 0.01, domains=2)
    choice = choose({"linear": LINEAR}, "linear", observe(x, y), names(4), EVEN, seed=0)
    assert choice.best == "linear"
    assert np.isfinite(choice.assessments[0].held_out).all()
    with pytest.raises(SwarmError, match="cannot split 4 runs into 5 folds"):
        assess(LINEAR, observe(x, y), names(4), EVEN, seed=0)
    assert len(folds_of(names(4), 4, 0)[1]) == 4


def test_the_learning_curve_rises_on_a_clean_swarm():
    x, y, t = linear_swarm(80, 0.04, domains=6)
    curve = learning_curve(LINEAR, observe(x, y), names(80), EVEN, seed=0, splits=8)
    assert [p.runs for p in curve.points] == curve_sizes(80, 6)
    first, last = curve.points[0], curve.points[-1]
    assert last.spearman > first.spearman + 0.1
    assert last.mean_spearman > first.mean_spearman + 0.1
    assert curve.rate > 0.2
    assert all(p.spearman_error >= 0 and p.mean_spearman_error >= 0 for p in curve.points)
    # Near what was measured but for the first point, and at many more runs than were there.
    for point in curve.points[1:]:
        assert curve.at(point.runs) == pytest.approx(point.mean_spearman, abs=0.15)
    unseen, bpb, same = linear_swarm(640, 0.04, domains=6)
    assert (same == t).all()
    law = fit_linear(observe(unseen[:320], bpb[:320]))
    assert last.mean_spearman - 0.02 < curve.at(320) < 1
    assert curve.at(320) == pytest.approx(scores(law.predict(unseen[320:]), bpb[320:]).mean_spearman, abs=0.08)


def test_a_learning_curve_of_a_real_law_rises():
    g = generator("curve of a law")
    x = g.dirichlet(np.ones(4), size=30)
    # The mean BPB varies by more than twice its noise: else the ranks of six unseen runs are those of the noise.
    clean = 0.5 + np.exp(x @ g.normal(0, 1.5, (4, 2)))
    assert clean.mean(axis=1).std() > 2 * 0.05 / np.sqrt(2)
    y = clean + 0.05 * g.standard_normal((30, 2))
    curve = learning_curve(law_kinds()[LOG_LINEAR], observe(x, y), names(30), EVEN, seed=0, splits=2)
    assert curve.name == LOG_LINEAR
    assert curve.points[-1].mean_spearman > curve.points[0].mean_spearman
    assert curve.at(1000) > curve.at(10)


def test_a_curve_falls_by_a_power_of_the_runs():
    curve = Curve("law", (), 2.0, 0.5)
    assert [curve.at(n) for n in (4, 16, 400)] == pytest.approx([0.0, 0.5, 0.9])


def test_a_law_that_knows_nothing_promises_nothing():
    x, y, _ = linear_swarm(40, 0.1)
    curve = learning_curve(GUESS, observe(x, y), names(40), EVEN, seed=0)
    assert all(abs(p.mean_spearman) < 0.5 for p in curve.points)
    # Extrapolated it does not fall, and it cannot where fewer than three points are positive.
    assert np.isnan(curve.rate) or curve.at(1000) >= curve.at(10) - 1e-12


def test_a_perfect_law_has_no_gap_to_extrapolate():
    x, y, _ = linear_swarm(20, 0.0)
    curve = learning_curve(LINEAR, observe(x, y), names(20), EVEN, seed=0)
    assert [p.mean_spearman for p in curve.points[1:]] == pytest.approx([1.0] * (len(curve.points) - 1))
    assert np.isnan(curve.at(100))


def test_a_curve_trains_on_runs_that_it_does_not_test():
    x, y, _ = linear_swarm(24, 0.2)
    seen = np.ones((24, 2))
    seen[:20, 1] = 0
    kind, log = recording(LINEAR)
    curve = learning_curve(kind, observe(x, np.where(seen > 0, y, np.nan), seen), names(24), EVEN, seed=0)
    assert len(log) == 4 * len(curve.points)
    for trained, asked in log:
        assert not rows(trained.mixtures) & rows(asked[0])
        assert rows(trained.mixtures) | rows(asked[0]) == rows(x)
        # A task that no training run counts for is left out.
        assert (trained.weights.sum(axis=0) > 0).all()
    assert {trained.shape[2] for trained, _ in log} == {1, 2}


def test_the_splits_of_a_curve_go_by_ids():
    x, y, _ = linear_swarm(24, 0.2)
    order = generator("order").permutation(24)

    def trained(ids, rows_, seed=0):
        kind, log = recording(LINEAR)
        curve = learning_curve(kind, observe(x[rows_], y[rows_]), ids, EVEN, seed=seed)
        return [rows(observations.mixtures) for observations, _ in log], curve

    one, curve = trained(names(24), np.arange(24))
    two, shuffled = trained([names(24)[k] for k in order], order)
    assert two == one
    assert [p.mean_spearman for p in shuffled.points] == pytest.approx([p.mean_spearman for p in curve.points])
    assert [p.spearman_error for p in shuffled.points] == pytest.approx([p.spearman_error for p in curve.points])
    # Other names are other splits, and so is another seed; the splits of one size differ from one another.
    assert trained([f"other-{k}" for k in range(24)], np.arange(24))[0] != one
    assert trained(names(24), np.arange(24), seed=1)[0] != one
    assert len({frozenset(run_set) for run_set in one[:4]}) == 4
    # A larger size of a split holds the smaller one, so that a curve rises by what was added.
    for k in range(4):
        assert all(small < large for small, large in zip(one[k::4], one[k + 4 :: 4], strict=False))


def test_the_sizes_of_a_curve():
    assert curve_sizes(100, 20) == [10, 15, 23, 35, 53, 80]
    assert curve_sizes(8, 30) == [6]
    assert curve_sizes(60, 2)[0] == 4
    for runs in (8, 13, 50, 512):
        sizes = curve_sizes(runs, 10)
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == int(0.8 * runs)
    with pytest.raises(SwarmError, match="at least 8 runs, not 7"):
        curve_sizes(7, 3)
