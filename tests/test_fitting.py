"""From runs to a law: repeats, older swarms, the choice, predictions out of fold, and refits on resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.fit import fitting
from olmix.fit.bootstrap import bootstrap, resamples
from olmix.fit.diagnostics import design_rank, out_of_fold, scores
from olmix.fit.fitting import FitSettings, fit_swarm, require_runs
from olmix.fit.joining import Older
from olmix.fit.selection import choose
from olmix.laws.huber import huber
from olmix.laws.observations import observe, stack
from olmix.laws.registry import AUTO, CHOOSABLE, LOG_LINEAR, law_kinds
from tests.test_selection import LINEAR, linear_swarm, names

EVEN = np.full(2, 0.5)
LAWS = (LOG_LINEAR, "diminishing")
REFERENCE = FitSettings(law=LOG_LINEAR, replicates=0)
QUICK = FitSettings(law="linear", replicates=4)  # a law that is fitted in a millisecond


def swarm(runs: int = 24, noise: float = 0.03, seed: int = 0):
    """Runs of a log-linear law over three domains, of two tasks."""
    g = generator("fitting", seed)
    t = g.normal(0, 0.6, (2, 3))
    x = g.dirichlet(np.ones(3), size=runs)
    return x, 0.5 + np.exp(x @ t.T) + noise * g.standard_normal((runs, 2))


def fitted(x, y, settings=QUICK, **kwargs):
    return fit_swarm(observe(x, y), names(len(x)), EVEN, settings, **kwargs)


# Refits on resamples


def unclipped(law, x):
    if hasattr(law, "coefficients"):
        return law.floor + np.exp(x @ law.coefficients.T)
    return law.floor + np.exp(law.level - x**law.exponent @ law.returns.T)


@pytest.mark.parametrize("name", LAWS)
def test_a_refit_is_the_fit_on_the_resample(name):
    kind = law_kinds()[name]
    x, y = swarm()
    observations = observe(x, y)
    laws = bootstrap(kind, observations, kind.fit(observations), 6, seed=3)
    for law, drawn in zip(laws, resamples(observations, 6, 3), strict=True):
        rows = np.repeat(np.arange(24), drawn.astype(int))
        # Its loss is that of the drawn runs, each as often as it was drawn.
        assert law.loss == pytest.approx(huber(unclipped(law, x[rows]) - y[rows], 0.02).mean(axis=0), rel=1e-9)
        alone = kind.fit(observe(x[rows], y[rows]))
        assert (law.loss <= 1.1 * alone.loss + 1e-6).all()
        assert np.abs(law.predict(x[rows]) - alone.predict(x[rows])).mean() < 5e-3
    assert np.std([law.predict(x) for law in laws], axis=0).mean() > 1e-3


@pytest.mark.parametrize("name", LAWS)
def test_a_refit_on_all_runs_once_is_the_fit(name):
    kind = law_kinds()[name]
    observations = observe(*swarm(), np.r_[np.ones(12), np.full(12, 2.0)])
    law = kind.fit(observations)
    (same,) = kind.refitted(observations, [np.ones(24)], law)
    assert same.loss == pytest.approx(law.loss, rel=1e-3)
    assert same.predict(observations.mixtures) == pytest.approx(law.predict(observations.mixtures), abs=2e-3)


def test_a_law_without_a_refit_of_its_own_is_fitted_afresh():
    x, y, _ = linear_swarm(15, 0.1)
    observations = observe(x, y)
    laws = bootstrap(LINEAR, observations, LINEAR.fit(observations), 5, seed=0)
    for law, drawn in zip(laws, resamples(observations, 5, 0), strict=True):
        rows = np.repeat(np.arange(15), drawn.astype(int))
        assert law.coefficients == pytest.approx(LINEAR.fit(observe(x[rows], y[rows])).coefficients)


def test_resamples_are_drawn_with_replacement_and_named():
    observations = observe(*swarm(40))
    drawn = resamples(observations, 200, 7)
    assert (np.sum(drawn, axis=1) == 40).all()
    # A run is left out of 36% of resamples.
    assert np.mean(np.array(drawn) == 0) == pytest.approx((1 - 1 / 40) ** 40, abs=0.02)
    assert (resamples(observations, 3, 7)[2] == drawn[2]).all()
    assert not (resamples(observations, 1, 8)[0] == drawn[0]).all()
    assert resamples(observations, 0, 7) == []


def test_a_resample_keeps_a_run_of_every_task():
    x, y = swarm(12)
    weights = np.ones((12, 2))
    weights[2:, 1] = 0
    observations = observe(x, y, weights)
    drawn = resamples(observations, 50, 0)
    assert len(drawn) == 50
    assert all((weights[:, 1] * factors).sum() > 0 for factors in drawn)
    # Those that were good at once are not drawn again.
    free = resamples(observe(x, y), 50, 0)
    same = [(a == b).all() for a, b in zip(drawn, free, strict=True)]
    assert same == [bool((weights[:, 1] * factors).sum() > 0) for factors in free]


def test_resamples_that_cannot_be_had_are_an_error(monkeypatch):
    x, y = swarm(12)
    weights = np.ones((12, 2))
    weights[1:, 1] = 0
    monkeypatch.setattr("olmix.fit.bootstrap.ATTEMPTS", 1)
    with pytest.raises(SwarmError, match="a task counts in too few runs to resample them"):
        resamples(observe(x, y, weights), 50, 0)


# A fitted swarm


@pytest.mark.parametrize("name", LAWS)
def test_what_a_fit_holds(name):
    x, y = swarm(20)
    found = fitted(x, y, FitSettings(law=name, replicates=3, seed=5))
    kind = law_kinds()[name]
    observations = observe(x, y)
    assert found.kind.name == name
    assert isinstance(found.law, kind.fitted)
    assert found.law.predict(x) == pytest.approx(kind.fit(observations).predict(x))
    assert found.held_out == pytest.approx(out_of_fold(kind.fit, observations, names(20), 5, 5))
    assert found.scores.mean_rmse == pytest.approx(scores(found.held_out, y, EVEN).mean_rmse)
    assert found.design == design_rank(x)
    assert found.runs == tuple(names(20))
    assert (found.choice, found.older) == (None, ())
    expected = bootstrap(kind, observations, found.law, 3, 5)
    for one, two in zip(found.replicates, expected, strict=True):
        assert one.predict(x) == pytest.approx(two.predict(x))


def test_settings_reach_the_law():
    x, y = swarm(20)
    usual = fitted(x, y, REFERENCE)
    assert usual.replicates == ()
    wide = fitted(x, y, replace(REFERENCE, delta=0.5))
    stiff = fitted(x, y, replace(REFERENCE, ridge=1e-1))
    assert (wide.law.loss > usual.law.loss).any()
    assert np.ptp(stiff.law.coefficients, axis=1).max() < np.ptp(usual.law.coefficients, axis=1).max()
    assert (fitted(x, y, replace(REFERENCE, seed=1)).held_out != usual.held_out).any()


def test_a_law_that_is_slow_to_fit_has_fewer_replicates():
    class Slow(FitSettings):
        def kinds(self):
            return {"slow": replace(LINEAR, name="slow", most_replicates=3)}

    x, y = swarm(20)
    said = []
    assert len(fitted(x, y, Slow(law="slow", replicates=9), report=said.append).replicates) == 3
    assert said[-1] == "bootstrap, 3 replicates"
    assert len(fitted(x, y, Slow(law="slow", replicates=2)).replicates) == 2


def test_neither_the_order_of_runs_nor_that_of_domains_matters():
    x, y = swarm(20)
    ids = names(20)
    rows, columns = generator("rows").permutation(20), np.array([2, 0, 1])
    one = fit_swarm(observe(x, y), ids, EVEN, REFERENCE)
    two = fit_swarm(observe(x[rows][:, columns], y[rows]), [ids[k] for k in rows], EVEN, REFERENCE)
    assert two.law.predict(x[:, columns]) == pytest.approx(one.law.predict(x), abs=1e-8)
    assert two.runs == tuple(ids[k] for k in rows)
    assert two.held_out == pytest.approx(one.held_out[rows], abs=1e-8)
    assert two.scores.spearman == pytest.approx(one.scores.spearman)


def test_repeats_are_merged_before_anything_else():
    x, y = swarm(16)
    again = np.r_[np.arange(16), [3, 3, 8]]
    ids = [f"run-{k:02d}" for k in range(19)]
    found = fit_swarm(observe(x[again], y[again] + np.r_[np.zeros(16), [0.3, 0.6, 0.1]][:, None]), ids, EVEN, QUICK)
    assert found.runs == tuple(ids[:16])
    assert found.newest.weights[:, 0].tolist() == [1, 1, 1, 3, 1, 1, 1, 1, 2, *[1] * 7]
    assert found.newest.bpb[3] == pytest.approx(y[3] + 0.3)
    assert found.held_out.shape == (16, 2)
    assert found.repeats.freedom.tolist() == [3, 3]


def test_the_law_is_chosen_unless_one_is_named():
    assert fitted(*swarm(), FitSettings(replicates=0)).choice is not None


def test_laws_that_take_too_much_for_so_many_domains_are_no_choice(monkeypatch):
    monkeypatch.setattr(fitting, "MOST_DENSE", 2)
    choice = fitted(*swarm(), FitSettings(replicates=0)).choice
    assert [assessed.name for assessed in choice.assessments] == ["linear"]


def test_auto_takes_the_law_that_predicts_unseen_runs_best():
    x, y = swarm(24, noise=0.002)
    said = []
    found = fitted(x, y, FitSettings(law=AUTO, replicates=0), report=said.append)
    assert found.choice is not None
    assert found.choice.reference == LOG_LINEAR
    assert found.kind.name == found.choice.best == found.choice.assessments[0].name
    assert {a.name for a in found.choice.assessments} == set(CHOOSABLE)
    assert said[: len(CHOOSABLE)] == [f"cross-validate {name}" for name in sorted(CHOOSABLE)]
    assert said[len(CHOOSABLE) :] == [f"fit {found.kind.name}", "cross-validate", "bootstrap, 0 replicates"]


def test_auto_asks_only_laws_that_have_enough_runs():
    x, y = swarm(24)
    wide = np.hstack([x, np.zeros((24, 5))])
    wide[:8, 3:] = generator("wide").dirichlet(np.ones(5), size=8)
    wide /= wide.sum(axis=1, keepdims=True)
    found = fitted(wide[:8], y[:8], FitSettings(law=AUTO, replicates=0))
    asked = {a.name for a in found.choice.assessments}
    # Eight runs over eight domains: log-linear asks for nine.
    assert asked == {name for name in CHOOSABLE if law_kinds()[name].least_runs(8) <= 8}
    assert LOG_LINEAR not in asked
    assert found.choice.reference == sorted(asked)[0]


def test_older_swarms_that_count_join_and_others_do_not():
    x, y, _ = linear_swarm(64, 0.1, seed=3)
    newest, same = observe(x[:24], y[:24]), observe(x[24:], y[24:])
    noise = observe(x[24:], y[24:][generator("scramble", 3).permutation(40)])
    said = []
    found = fit_swarm(newest, names(24), EVEN, QUICK, older=[same, noise], report=said.append)
    counted = [old.observations for old in found.older if old.weight > 0]
    assert [old.weight > 0 for old in found.older] == [True, False]
    assert found.newest.shape[0] == 24
    assert (found.observations.mixtures == stack([newest, *counted]).mixtures).all()
    assert found.law.predict(x) == pytest.approx(law_kinds()["linear"].fit(stack([newest, *counted])).predict(x))
    beside = out_of_fold(law_kinds()["linear"].fit, newest, names(24), 5, 0, stack(counted))
    assert found.held_out == pytest.approx(beside)
    assert said[:2] == ["join swarm 1 of 2", "join swarm 2 of 2"]


def test_few_runs_are_left_out_one_by_one():
    x, y = swarm(4)
    found = fitted(x, y, FitSettings(law="linear", replicates=2))
    assert np.isfinite(found.held_out).all()


def test_masked_runs_are_neither_fitted_nor_scored():
    x, y = swarm(20)
    weights = np.ones((20, 2))
    weights[5:9, 1] = 0
    one, two = (
        fit_swarm(observe(x, np.where(weights > 0, y, spoiled), weights), names(20), EVEN, QUICK)
        for spoiled in (np.nan, 50.0)
    )
    assert one.law.predict(x) == pytest.approx(two.law.predict(x))
    assert one.scores.mean_rmse == pytest.approx(two.scores.mean_rmse)
    assert one.scores.rmse[1] < 0.3


def test_errors_say_what_is_missing():
    x, y = swarm(12)

    def refused(runs, settings, **kwargs) -> str:
        with pytest.raises(SwarmError) as caught:
            fitted(x[:runs], y[:runs], settings, **kwargs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    unknown = refused(12, FitSettings(law="log-lin"))
    assert "no law 'log-lin'" in unknown
    assert all(name in unknown for name in (AUTO, *law_kinds()))
    assert "3 runs with distinct mixtures are too few for law log-linear, which needs 4 for 3" in refused(3, REFERENCE)
    assert "2 runs" in refused(2, FitSettings(law="diminishing"))
    assert "2 runs with distinct mixtures are too few for law auto" in refused(2, FitSettings(law=AUTO))
    # A mixture that was run thrice is one.
    same = np.r_[0, 0, 0, 1, 2]
    with pytest.raises(SwarmError, match="3 runs with distinct mixtures"):
        fitted(x[same], y[same], REFERENCE)
    with pytest.raises(SwarmError, match="run id a occurs 2 times"):
        fit_swarm(observe(x[:5], y[:5]), ["a", "a", "b", "c", "d"], EVEN, QUICK)


def test_runs_are_counted_over_all_swarms_and_sampled_domains():
    x, y = swarm(12)
    kinds = law_kinds()
    wide = np.hstack([x, np.zeros((12, 3))])
    few = observe(wide[:3], y[:3])
    with pytest.raises(SwarmError, match="which needs 4 for 3 sampled domains"):
        require_runs(LOG_LINEAR, kinds, few)
    require_runs(LOG_LINEAR, kinds, few, [observe(wide[3:5], y[3:5])])
    masked = replace(few, weights=np.vstack([few.weights[:2], np.zeros((1, 2))]))
    with pytest.raises(SwarmError, match="2 runs"):
        require_runs(LOG_LINEAR, kinds, masked)


def test_an_older_mixture_that_was_run_many_times_is_one():
    x, y = swarm(12)
    often = observe(x[[2] * 9], y[[2] * 9])
    with pytest.raises(SwarmError, match="3 runs with distinct mixtures are too few for law log-linear, which needs 4"):
        fitted(x[:2], y[:2], REFERENCE, older=[often])


def test_repeats_of_an_older_swarm_are_merged():
    x, y, _ = linear_swarm(40, 0.1, seed=3)
    again = np.r_[np.arange(12, 40), [20, 20, 30]]
    found = fitted(x[:12], y[:12], older=[observe(x[again], y[again])])
    (old,) = found.older
    assert old.weight > 0
    assert len(old.observations.mixtures) == 28
    counts = np.ones(28)
    counts[[20 - 12, 30 - 12]] = 3, 2
    assert old.observations.weights[:, 0] == pytest.approx(old.weight * counts)


@pytest.mark.parametrize("law", [LOG_LINEAR, "diminishing"])
def test_runs_are_counted_again_when_it_is_known_which_swarms_count(law, monkeypatch):
    x, y = swarm(12)
    least = law_kinds()[law].least_runs(3)

    def found(new, *weights):
        def joined(kind, newest, older, *args, **kwargs):
            return tuple(Older(o, w, np.zeros(2), ((w, False, 0.5),)) for o, w in zip(older, weights, strict=True))

        monkeypatch.setattr("olmix.fit.fitting.join", joined)
        older = [observe(x[6 + 3 * k : 9 + 3 * k], y[6 + 3 * k : 9 + 3 * k]) for k in range(len(weights))]
        return fitted(x[:new], y[:new], FitSettings(law=law, replicates=0), older=older)

    few = f"{least - 1} runs with distinct mixtures are too few for law {law}, which needs {least} for 3"
    for weights in ((0.0,), (0.0, 0.0)):
        with pytest.raises(SwarmError, match=few):
            found(least - 1, *weights)
    assert len(found(least - 1, 0.1).observations.mixtures) == least - 1 + 3
    assert len(found(least - 1, 0.0, 1.0).observations.mixtures) == least - 1 + 3
    assert len(found(least, 0.0).observations.mixtures) == least


def test_runs_of_a_swarm_that_is_left_out_do_not_count():
    g = generator("too few", 1)
    x = g.dirichlet(np.ones(5), size=45)
    y = 0.5 + np.exp(x @ g.normal(0, 0.8, (5, 2)))
    scrambled = observe(x[5:], y[5:][g.permutation(40)])
    # Five runs over five domains, of which log-linear asks for six; the forty old ones say nothing.
    with pytest.raises(SwarmError, match="5 runs with distinct mixtures are too few for law log-linear, which needs 6"):
        fitted(x[:5], y[:5], REFERENCE, older=[scrambled])


@pytest.mark.parametrize("maker", LAWS)
def test_a_shifted_older_swarm_does_not_decide_which_law_is_chosen(maker, monkeypatch):
    monkeypatch.setattr("olmix.fit.joining.REPEATS", 1)
    g = generator("shifted auto", maker[:3], 0)
    x = g.dirichlet(np.ones(4), size=60)
    features = x if maker == LOG_LINEAR else -(x**0.6)
    t = g.normal(0, 0.8, (2, 4)) if maker == LOG_LINEAR else g.uniform(0, 1.5, (2, 4))
    y = 0.5 + np.exp(features @ t.T) + 0.003 * g.standard_normal((60, 2))
    newest, older = observe(x[:20], y[:20]), observe(x[20:], y[20:] + 0.5)
    kinds = {name: law_kinds()[name] for name in CHOOSABLE}
    alone = choose(kinds, LOG_LINEAR, newest, names(20), EVEN, seed=0)
    found = fitted(x[:20], y[:20], FitSettings(law=AUTO, replicates=0), older=[older])
    assert found.choice.best == found.kind.name == alone.best == maker
    # It is not left out for that: it counts, and its shift is found.
    (old,) = found.older
    assert old.weight == 1
    assert old.offsets == pytest.approx([0.5, 0.5], abs=0.01)
    # Its runs were there when laws were compared.
    assert found.choice.assessments[0].held_out != pytest.approx(alone.assessments[0].held_out)
    if maker == LOG_LINEAR:
        # Taken as they are, the same runs make another law look best.
        assert choose(kinds, LOG_LINEAR, newest, names(20), EVEN, seed=0, beside=older).best != maker
