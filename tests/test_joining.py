"""An older swarm beside the newest: it counts where it helps, is left out where it harms, and loses its offset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from olmix.core.seeds import generator
from olmix.fit import joining as joining_module
from olmix.fit.diagnostics import scores
from olmix.fit.joining import FOLDS, REPEATS, WEIGHTS, join
from olmix.laws.observations import observe, stack
from olmix.laws.registry import LOG_LINEAR, law_kinds
from tests.public_swarms import load, needs_swarms
from tests.test_selection import LINEAR, fit_linear, names, recording, rows

EVEN = np.full(3, 1 / 3)
SHIFT = np.array([0.3, -0.1, 0.2])
OLD = 40


def swarms(seed: int, new: int, noise: float = 0.05, shift=0.0):
    """Newest and older runs of one linear law, and unseen runs of it without noise."""
    g = generator("joining", seed)
    t = g.uniform(0.7, 1.7, (3, 4))

    def drawn(runs, noise, shift=0.0):
        x = g.dirichlet(np.ones(4), size=runs)
        return x, x @ t.T + shift + noise * g.standard_normal((runs, 3))

    newest, older, unseen = drawn(new, noise), drawn(OLD, noise, shift), drawn(300, 0.0)
    return observe(*newest), observe(*older), unseen


def everything(newest, joined):
    return stack([newest, *(o.observations for o in joined if o.weight > 0)])


def held_out(fit, observations, unseen):
    """Rank correlations of the tasks and of the mean on unseen runs, and the error."""
    found = scores(fit(observations).predict(unseen[0]), unseen[1])
    return np.array([found.spearman.mean(), found.mean_spearman]), found.rmse.mean()


def linear_joined(seed, newest, older):
    return join(LINEAR, newest, older, names(len(newest.mixtures)), EVEN, seed=seed)


def test_an_older_swarm_of_the_same_law_helps_few_new_runs():
    gains = []
    for seed in range(8):
        newest, older, unseen = swarms(seed, 8, noise=0.1)
        (old,) = joined = linear_joined(seed, newest, [older])
        assert old.weight > 0
        alone, together = held_out(fit_linear, newest, unseen), held_out(fit_linear, everything(newest, joined), unseen)
        gains.append(together[0] - alone[0])
    # Of the tasks, of which there are three, in every swarm; of their mean, in most.
    assert (np.array(gains)[:, 0] > 0).all()
    assert np.mean(gains, axis=0).min() > 0.05


def test_a_scrambled_swarm_does_no_harm():
    losses, weights = [], []
    for seed in range(8):
        newest, older, unseen = swarms(seed, 16)
        order = generator("scramble", seed).permutation(OLD)
        (old,) = joined = linear_joined(seed, newest, [observe(older.mixtures, older.bpb[order])])
        weights.append(old.weight)
        alone, together = held_out(fit_linear, newest, unseen), held_out(fit_linear, everything(newest, joined), unseen)
        losses.append(alone[0] - together[0])
    assert np.mean(losses, axis=0).max() < 0.01
    assert np.max(losses) < 0.05
    assert np.mean(np.array(weights) == 0) >= 0.5
    assert max(weights) < 1


def test_a_shifted_swarm_loses_its_offset():
    left_out = 0
    for seed in range(6):
        newest, older, unseen = swarms(seed, 20, shift=SHIFT)
        (old,) = joined = linear_joined(seed, newest, [older])
        if old.weight == 0:  # five runs a domain are nearly enough, and what an old swarm adds may be luck
            left_out += 1
            continue
        assert old.offsets == pytest.approx(SHIFT, abs=0.06)
        # What stays of its runs is off by nothing, and predictions keep the newest swarm's level.
        assert old.observations.bpb == pytest.approx(older.bpb - old.offsets)
        assert held_out(fit_linear, everything(newest, joined), unseen)[1] < 0.05
    assert left_out <= 2


@pytest.mark.parametrize("name", [LOG_LINEAR, "diminishing"])
def test_the_laws_join_a_shifted_swarm(name, monkeypatch):
    monkeypatch.setattr(joining_module, "REPEATS", 1)
    g = generator("shifted", name)
    x, unseen = g.dirichlet(np.ones(3), size=36), g.dirichlet(np.ones(3), size=200)
    t = g.uniform(0.5, 3.0, (2, 3))

    def bpb(mixtures):
        return 0.5 + np.exp(mixtures @ t.T if name == LOG_LINEAR else -(mixtures**0.6) @ t.T)

    y = bpb(x) + 0.01 * g.standard_normal((36, 2))
    shift = np.array([0.4, -0.2])
    newest, older = observe(x[:10], y[:10]), observe(x[10:], y[10:] + shift)
    kind = law_kinds()[name]
    (old,) = joined = join(kind, newest, [older], names(10), np.full(2, 0.5), seed=0)
    assert old.weight > 0
    assert old.offsets == pytest.approx(shift, abs=0.05)
    truth = unseen, bpb(unseen)
    assert (
        held_out(kind.fit, everything(newest, joined), truth)[0] > held_out(kind.fit, newest, truth)[0] - 0.01
    ).all()


def test_what_was_tried_and_what_was_taken():
    newest, older, _ = swarms(3, 10)
    (old,) = linear_joined(0, newest, [older])
    assert old.scores[0][:2] == (0.0, False)
    assert [t[:2] for t in old.scores[1:4]] == [(w, False) for w in WEIGHTS]
    assert old.scores[4][1]
    assert max(t[2] for t in old.scores) == next(t[2] for t in old.scores if t[:2] == (old.weight, old.offsets.any()))
    assert (old.observations.weights == old.weight).all()
    assert (old.observations.mixtures == older.mixtures).all()
    (again,) = linear_joined(0, newest, [older])
    assert again.scores == old.scores


def test_a_swarm_left_out_keeps_its_runs_as_they_are():
    for seed in range(20):
        newest, older, _ = swarms(seed, 16)
        order = generator("scramble", seed).permutation(OLD)
        scrambled = observe(older.mixtures, older.bpb[order])
        (old,) = linear_joined(seed, newest, [scrambled])
        if old.weight == 0:
            assert (old.offsets == 0).all()
            assert (old.observations.bpb == scrambled.bpb).all()
            return
    pytest.fail("no scrambled swarm was left out")


def test_only_unseen_runs_of_the_newest_swarm_are_scored():
    newest, older, _ = swarms(0, 10)
    kind, log = recording(LINEAR)
    join(kind, newest, [older], names(10), EVEN, seed=0)
    cross_validated = [(trained, asked) for trained, asked in log if asked and len(asked[-1]) < 10]
    # Weight 0, three weights, and the best of them with an offset.
    assert len(cross_validated) >= 5 * FOLDS * REPEATS
    for trained, asked in cross_validated:
        tested = rows(asked[-1])
        assert tested <= rows(newest.mixtures)
        assert not tested & rows(trained.mixtures)
    assert any(rows(older.mixtures) <= rows(trained.mixtures) for trained, _ in cross_validated)


def test_swarms_are_settled_one_after_another():
    newest, older, _ = swarms(1, 8, noise=0.15)
    half = np.arange(OLD) < OLD // 2
    order = generator("scramble").permutation(OLD // 2)
    good, bad = older.rows(half), older.rows(~half)
    bad = observe(bad.mixtures, bad.bpb[order] + 1.0)
    asked = []
    first, second = join(LINEAR, newest, [good, bad], names(8), EVEN, seed=0, report=asked.append)
    assert first.weight > 0
    # What the second one has to beat is the newest swarm with the first.
    assert second.scores[0][2] == pytest.approx(max(t[2] for t in first.scores))
    assert asked == ["swarm 1 of 2", "swarm 2 of 2"]
    assert join(LINEAR, newest, [], names(8), EVEN, seed=0) == ()


def test_a_task_that_the_older_swarm_was_not_measured_on():
    newest, older, _ = swarms(2, 10)
    part = replace(older, weights=older.weights * np.array([1.0, 1.0, 0.0]))
    (old,) = join(LINEAR, newest, [part], names(10), EVEN, seed=0)
    assert old.offsets[2] == 0
    law = fit_linear(everything(newest, [old]))
    assert law.coefficients[2] == pytest.approx(fit_linear(newest).coefficients[2])


def test_an_offset_leaves_bpb_positive():
    newest, older, _ = swarms(4, 20)
    low = observe(newest.mixtures, newest.bpb * 0.01)
    for shift in (0.0, 2.0):
        far = observe(older.mixtures, older.bpb * 0.01 + shift)
        (old,) = join(LINEAR, low, [far], names(20), EVEN, seed=0)
        assert (old.observations.bpb > 0).all()


@needs_swarms
@pytest.mark.slow
def test_runs_on_fewer_domains_help_a_new_swarm_on_more(monkeypatch):
    monkeypatch.setattr(joining_module, "REPEATS", 1)
    public = load("regmix-1m")
    kind, tasks = law_kinds()[LOG_LINEAR], np.array([0, 6])
    added = [public.domains.index(f"train_the_pile_{name}") for name in ("pubmed_central", "uspto_backgrounds")]
    assert added == [3, 16]
    known = (public.mixtures[:, added] == 0).all(axis=1)
    order = generator("regmix", 100).permutation(np.flatnonzero(~known))
    new, unseen = order[:12], order[12:]
    observed = observe(public.mixtures, public.bpb[:, tasks])
    newest, older = observed.rows(new), observed.rows(known)
    assert older.never_sampled.nonzero()[0].tolist() == added
    joined = join(kind, newest, [older], [public.ids[k] for k in new], np.full(2, 0.5), seed=0)
    truth = public.mixtures[unseen], observed.bpb[unseen]
    alone, together = held_out(kind.fit, newest, truth)[0], held_out(kind.fit, everything(newest, joined), truth)[0]
    assert (together > alone + 0.1).all()
