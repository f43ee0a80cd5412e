"""Runs of one mixture: merged into one row of as much weight, with the noise that they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.fit.diagnostics import folds_of, out_of_fold
from olmix.laws.loglinear import loglinear
from olmix.laws.observations import observe
from olmix.laws.registry import LOG_LINEAR, law_kinds
from olmix.laws.repeats import merge_repeats


def repeated(counts, noise: float, tasks: int = 2, seed: int = 0):
    """`counts` runs of every mixture, shuffled: mixtures, BPB, ids, and which mixture each run is of."""
    g = generator("repeats", len(counts), seed)
    distinct = g.dirichlet(np.ones(3), size=len(counts))
    of = g.permutation(np.repeat(np.arange(len(counts)), counts))
    truth = 0.5 + np.exp(distinct @ g.normal(0, 0.5, (3, tasks)))
    y = truth[of] + noise * g.standard_normal((len(of), tasks))
    return distinct[of], y, [f"r{k:03d}" for k in range(len(of))], of


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_rows_are_averages_that_weigh_their_count(seed, counts):
    x, y, ids, of = repeated(counts, 0.1, seed=seed)
    merged = merge_repeats(observe(x, y), ids)
    assert len(merged.ids) == len(counts)
    assert sorted(merged.counts.tolist()) == sorted(counts)
    for row, mixture in enumerate(merged.observations.mixtures):
        runs = np.flatnonzero((x == mixture).all(axis=1))
        assert (of[runs] == of[runs[0]]).all()
        assert merged.observations.bpb[row] == pytest.approx(y[runs].mean(axis=0))
        assert merged.observations.weights[row].tolist() == [len(runs)] * 2
        assert merged.counts[row] == len(runs)
        assert merged.ids[row] == ids[runs[0]]
    # In the order in which mixtures come first.
    assert list(merged.ids) == sorted(merged.ids)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_order_of_rows_changes_their_order_alone(seed, shuffle):
    x, y, ids, _ = repeated([3, 1, 2, 2], 0.1, seed=seed)
    order = generator("shuffle", shuffle).permutation(len(ids))
    one = merge_repeats(observe(x, y), ids)
    two = merge_repeats(observe(x[order], y[order]), [ids[k] for k in order])
    place = [two.ids.index(name) for name in one.ids]
    assert two.observations.bpb[place] == pytest.approx(one.observations.bpb)
    assert two.observations.weights[place].tolist() == one.observations.weights.tolist()
    assert two.noise == pytest.approx(one.noise)


def test_the_noise_of_repeats_is_estimated():
    noise = np.array([0.02, 0.05])
    x, y, ids, _ = repeated([3] * 200, noise)
    merged = merge_repeats(observe(x, y), ids)
    assert merged.freedom.tolist() == [400.0, 400.0]
    # A standard deviation of 400 degrees of freedom is known to 3.5%.
    assert merged.noise == pytest.approx(noise, rel=0.1)
    # Unbiased in the squares, however few repeats a mixture has.
    squares = [
        merge_repeats(observe(x, y), ids).noise ** 2
        for x, y, ids, _ in (repeated([2, 1, 3], 0.1, seed=seed) for seed in range(300))
    ]
    assert np.mean(squares) == pytest.approx(0.01, rel=0.12)


def test_without_repeats_nothing_is_known_of_the_noise():
    x, y, ids, _ = repeated([1] * 5, 0.1)
    merged = merge_repeats(observe(x, y), ids)
    assert np.isnan(merged.noise).all()
    assert merged.freedom.tolist() == [0.0, 0.0]
    assert (merged.observations.bpb == y).all()
    assert (merged.observations.mixtures == x).all()
    assert merged.ids == tuple(ids)


def test_masked_repeats_neither_weigh_nor_count():
    x = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    y = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, np.nan], [2.0, 7.0]])
    weights = np.isfinite(y).astype(float)
    merged = merge_repeats(observe(x, np.where(weights > 0, y, 99.0), weights), ["d", "c", "b", "a"])
    assert merged.observations.bpb.tolist() == [[2.0, 5.0], [2.0, 7.0]]
    assert merged.observations.weights.tolist() == [[2.0, 1.0], [1.0, 1.0]]
    assert merged.ids == ("b", "a")
    assert merged.counts.tolist() == [3.0, 1.0]
    assert merged.freedom.tolist() == [1.0, 0.0]
    assert merged.noise[0] == pytest.approx(np.std([1, 3], ddof=1))
    assert np.isnan(merged.noise[1])


def test_a_mixture_masked_for_one_task_everywhere_stays_masked():
    x = np.array([[1.0, 0], [1, 0], [0, 1]])
    merged = merge_repeats(observe(x, np.ones((3, 2)), np.array([[1, 0], [1, 0], [1, 1.0]])), ["a", "b", "c"])
    assert merged.observations.weights.tolist() == [[2.0, 0.0], [1.0, 1.0]]
    assert np.isfinite(merged.observations.bpb).all()


def test_the_unit_of_weights_does_not_change_the_noise():
    x, y, ids, _ = repeated([3] * 20, 0.1)
    one = merge_repeats(observe(x, y), ids).noise
    assert merge_repeats(observe(x, y, np.full(60, 0.25)), ids).noise == pytest.approx(one)
    # Nor does what mixtures weigh among one another: the noise of each is that of its runs.
    of_mixture = generator("weights").uniform(0.1, 5.0, 60)[np.unique(x, axis=0, return_inverse=True)[1].ravel()]
    uneven = merge_repeats(observe(x, y, of_mixture), ids)
    assert uneven.noise == pytest.approx(one)
    assert uneven.freedom.tolist() == [40.0, 40.0]


def test_a_part_that_lacks_a_task_is_merged_too():
    x = np.array([[1.0, 0], [1, 0], [0, 1]])
    part = observe(
        x, np.array([[1.0, np.nan], [3.0, np.nan], [5.0, np.nan]]), np.tile([1.0, 0.0], (3, 1)), partial=True
    )
    merged = merge_repeats(part, ["a", "b", "c"])
    assert merged.observations.bpb[:, 0].tolist() == [2.0, 5.0]
    assert merged.observations.weights.tolist() == [[2.0, 0.0], [1.0, 0.0]]
    assert merged.noise[0] == pytest.approx(np.std([1, 3], ddof=1))
    assert np.isnan(merged.noise[1])


def test_the_same_to_nine_decimals():
    near = np.array([[0.5, 0.5], [0.5 + 2e-11, 0.5 - 2e-11], [0.5 + 1e-6, 0.5 - 1e-6], [-0.0, 1], [0.0, 1]])
    merged = merge_repeats(observe(near, np.ones((5, 1))), list("abcde"))
    assert merged.counts.tolist() == [2.0, 1.0, 2.0]
    assert merged.observations.mixtures[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", [LOG_LINEAR, "diminishing"])
def test_merging_hardly_moves_a_law(name):
    x, y, ids, _ = repeated([3] * 15, 0.005)
    fit = law_kinds()[name].fit
    whole, merged = fit(observe(x, y)), fit(merge_repeats(observe(x, y), ids).observations)
    assert merged.predict(x) == pytest.approx(whole.predict(x), abs=2e-3)


def test_a_mixture_of_many_runs_outweighs_one_of_a_single_run():
    counts = [12, *[1] * 8]
    x, y, ids, of = repeated(counts, 0.01)
    y[of == 0] += 0.05
    merged = merge_repeats(observe(x, y), ids)
    row = int(np.argmax(merged.counts))
    off = {}
    for name, weights in (("counted", merged.observations.weights), ("once", None)):
        law = loglinear(observe(merged.observations.mixtures, merged.observations.bpb, weights))
        off[name] = np.abs(law.predict(merged.observations.mixtures[row]) - merged.observations.bpb[row])
    assert (off["counted"] < off["once"]).all()


def test_folds_never_split_repeats():
    x, y, ids, _ = repeated([1, 2, 3, 4] * 3, 0.02)
    merged = merge_repeats(observe(x, y), ids)
    _, fold = folds_of(merged.ids, 4, 0)
    assert len(fold) == 12
    trained = []

    def fit(observations):
        trained.append({tuple(row) for row in observations.mixtures})
        return loglinear(observations)

    out_of_fold(fit, merged.observations, merged.ids, 4, 0)
    for k, seen in enumerate(trained):
        tested = {tuple(row) for row in merged.observations.mixtures[fold == k]}
        assert len(tested) == 3
        assert not seen & tested
        # Any run of a tested mixture, whatever its id.
        assert not seen & {tuple(row) for row in x if tuple(row) in tested}
