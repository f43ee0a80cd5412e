from __future__ import annotations

import sys

import numpy as np
import pytest

from olmix.errors import SwarmError
from olmix.laws import boosting
from olmix.laws.base import ConvexLaw
from olmix.laws.boosting import fit_boosted
from olmix.laws.observations import observe
from tests.public_swarms import needs_swarms
from tests.test_evidence import (
    require_masked_is_absent,
    require_order_of_runs_is_nothing,
    require_sane,
    require_sane_on,
    synthetic,
    unseen_spearman,
)


def test_without_lightgbm_the_error_says_what_to_install(monkeypatch):
    x, y, _ = synthetic(10, 3, 1)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(SwarmError, match=r"pip install 'olmix\[lightgbm\]'"):
        fit_boosted(observe(x, y))


class TestWithLightGBM:
    @pytest.fixture(autouse=True)
    def _lightgbm(self):
        pytest.importorskip("lightgbm")

    def test_masked_runs_are_absent(self):
        require_masked_is_absent(fit_boosted)

    def test_a_weight_is_a_repetition(self):
        # Two splits that part the runs alike tie, and rounding decides which is taken; where there are runs, that is
        # nothing but rounding again.
        for seed in (3, 13, 23):
            x, y, g = synthetic(24, 5, 3, seed)
            counts = g.integers(0, 4, 24)
            weighted = fit_boosted(observe(x, y, counts)).predict(x)
            repeated = fit_boosted(observe(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0))).predict(x)
            assert np.abs(weighted - repeated)[counts > 0].max() < 5e-4

    def test_the_order_of_runs_is_nothing(self):
        require_order_of_runs_is_nothing(fit_boosted)

    def test_the_same_runs_give_the_same_models(self):
        x, y, _ = synthetic(20, 4, 2)
        models = fit_boosted(observe(x, y)).models
        assert models == fit_boosted(observe(x, y)).models
        assert all(isinstance(model, str) for model in models)

    @pytest.mark.parametrize("runs", [2, 3, 7, 8, 21])
    def test_predictions_are_sane_at_any_number_of_runs(self, runs):
        require_sane(fit_boosted, runs)

    def test_degenerate_runs_are_predicted_as_their_mean(self):
        x, y, _ = synthetic(6, 4, 2)
        y[:, 1] = 1.25
        one = np.ones(y.shape)
        one[1:, 0] = 0
        predicted = fit_boosted(observe(x, y, one)).predict(x)
        assert predicted[:, 1] == pytest.approx([1.25] * 6)
        assert predicted[:, 0] == pytest.approx(y[[0] * 6, 0])

    def test_a_step_is_learned(self):
        x, y, _ = synthetic(60, 4, 1)
        y[:, 0] = np.where(x[:, 1] > 0.3, 0.5, 1.5)
        assert fit_boosted(observe(x, y)).predict(x)[:, 0] == pytest.approx(y[:, 0], rel=0.02)

    def test_it_is_not_a_convex_law(self):
        x, y, _ = synthetic(10, 3, 1)
        assert not isinstance(fit_boosted(observe(x, y)), ConvexLaw)

    def test_shapes_of_predictions(self):
        x, y, _ = synthetic(20, 3, 2)
        law = fit_boosted(observe(x, y))
        many = law.predict(np.full((2, 4, 3), 1 / 3))
        assert many.shape == (2, 4, 2)
        assert law.predict(np.full(3, 1 / 3)) == pytest.approx(many[1, 2])
        assert law.predict(np.empty((0, 3))).shape == (0, 2)

    @needs_swarms
    @pytest.mark.parametrize(("name", "runs"), [("partition-pdfs", 22), ("regmix-1m", 51)])
    def test_predictions_are_sane_on_public_swarms(self, name, runs, monkeypatch):
        monkeypatch.setattr(boosting, "ROUNDS", 100)
        require_sane_on(fit_boosted, name, runs)

    @needs_swarms
    def test_unseen_runs_are_ordered(self):
        """Measured on these two splits: .816 / .959."""
        spearman = unseen_spearman(fit_boosted, "dclm", 48, seeds=(100, 101))
        assert spearman[0] > 0.79
        assert spearman[1] > 0.93
