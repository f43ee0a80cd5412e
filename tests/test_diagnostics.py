from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit.diagnostics import design_rank, folds_of, nearest, out_of_fold, scores
from olmix.laws.loglinear import loglinear
from olmix.laws.observations import observe
from tests.public_swarms import DROPPED, load, needs_swarms


class Remembers:
    """A law that predicts 1 for the mixtures it has seen and 0 for others."""

    def __init__(self, observations):
        self.seen = {tuple(row) for row in observations.mixtures}
        self.tasks = observations.bpb.shape[1]

    def predict(self, mixtures):
        return np.array([[float(tuple(row) in self.seen)] * self.tasks for row in mixtures])


def test_no_run_is_predicted_by_a_law_that_saw_it():
    x = generator("x").dirichlet(np.ones(3), size=17)
    ids = [str(i) for i in range(17)]
    assert (out_of_fold(Remembers, observe(x, np.ones((17, 2))), ids, 5, 0) == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 40), st.integers(2, 5), st.integers(0, 10))
def test_folds_are_balanced_and_follow_the_ids(runs, folds, seed):
    ids = [f"run-{i}" for i in range(runs)]
    _, fold = folds_of(ids, folds, seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    shuffled = generator("shuffle", seed).permutation(runs)
    _, other = folds_of([ids[i] for i in shuffled], folds, seed)
    assert (other == fold[shuffled]).all()


def test_out_of_fold_does_not_depend_on_the_row_order():
    g = generator("rows")
    x = g.dirichlet(np.ones(3), size=30)
    y = 0.5 + np.exp(x @ g.normal(size=(3, 2))) + 0.02 * g.standard_normal((30, 2))
    ids = [f"run-{i}" for i in range(30)]
    order = g.permutation(30)
    first = out_of_fold(loglinear, observe(x, y), ids, 5, 1)
    second = out_of_fold(loglinear, observe(x[order], y[order]), [ids[i] for i in order], 5, 1)
    assert (second == first[order]).all()
    assert not (folds_of(ids, 5, 1)[1] == folds_of(ids, 5, 2)[1]).all()


def test_fold_errors():
    with pytest.raises(SwarmError, match="run id a occurs 2 times"):
        folds_of(["a", "b", "a"], 2, 0)
    with pytest.raises(SwarmError, match="cannot split 3 runs into 5 folds"):
        folds_of(["a", "b", "c"], 5, 0)
    with pytest.raises(SwarmError, match="do not match"):
        out_of_fold(Remembers, observe(np.ones((3, 1)), np.ones((3, 1))), ["a"], 2, 0)


def test_scores_agree_with_scipy_ties_included():
    g = generator("scores")
    predicted, observed = g.integers(0, 6, (25, 3)).astype(float), g.normal(size=(25, 3))
    weights = np.array([1.0, 2.0, 5.0])
    result = scores(predicted, observed, weights)
    for j in range(3):
        assert result.spearman[j] == pytest.approx(stats.spearmanr(predicted[:, j], observed[:, j])[0])
        assert result.pearson[j] == pytest.approx(stats.pearsonr(predicted[:, j], observed[:, j])[0])
    assert result.rmse == pytest.approx(np.sqrt(((predicted - observed) ** 2).mean(axis=0)))
    mean = (predicted @ weights / 8, observed @ weights / 8)
    assert result.mean_spearman == pytest.approx(stats.spearmanr(*mean)[0])
    assert result.mean_pearson == pytest.approx(stats.pearsonr(*mean)[0])
    assert result.mean_rmse == pytest.approx(math.sqrt(((mean[0] - mean[1]) ** 2).mean()))


def test_masked_runs_are_not_scored():
    g = generator("masked scores")
    predicted, observed = g.normal(size=(20, 3)), g.normal(size=(20, 3))
    seen = np.ones((20, 3))
    seen[:5, 1] = 0
    seen[7, 0] = 0
    whole = np.setdiff1d(np.arange(5, 20), [7])
    predicted[5, 2] = np.nan
    result = scores(predicted, np.where(seen > 0, observed, 1e9), seen=seen)
    assert result.rmse[1] == pytest.approx(np.sqrt(((predicted - observed)[5:, 1] ** 2).mean()))
    kept = np.setdiff1d(whole, [5])
    means = predicted[kept].mean(axis=1), observed[kept].mean(axis=1)
    assert result.mean_spearman == pytest.approx(stats.spearmanr(*means)[0])


def test_a_constant_task_has_no_correlation():
    observed = np.column_stack([np.full(5, 0.1), np.arange(5.0)])
    result = scores(np.column_stack([np.arange(5.0)] * 2), observed)
    assert math.isnan(result.spearman[0])
    assert math.isnan(result.pearson[0])
    assert result.spearman[1] == 1


def test_design_rank():
    assert design_rank(np.eye(3)).rank == 3
    assert design_rank(np.eye(3)).condition == pytest.approx(1)
    tied = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    assert design_rank(tied).rank == 2
    assert design_rank(tied).condition == math.inf
    assert design_rank(np.eye(3)[:2]).condition == math.inf


def test_nearest():
    row, distance = nearest(np.array([0.5, 0.5, 0.0]), np.array([[1.0, 0.0, 0.0], [0.4, 0.5, 0.1]]))
    assert row == 1
    assert distance == pytest.approx(0.1)


@needs_swarms
def test_out_of_fold_ranks_the_public_swarm():
    swarm = load("dclm").with_mmlu_grouped().without(DROPPED)
    result = scores(out_of_fold(loglinear, observe(swarm.mixtures, swarm.bpb), swarm.ids, 5, 0), swarm.bpb)
    assert result.mean_spearman > 0.9
    assert np.mean(result.spearman) > 0.8
    assert design_rank(swarm.mixtures).rank == 24
