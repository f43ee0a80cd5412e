"""Gradient-boosted trees of log BPB, one ensemble a task, by LightGBM: RegMix's regressor (arXiv 2407.01492) with
settings for tens of runs instead of hundreds.

Trees of 4 leaves, which hold interactions of two or three domains; leaves may be as small as one run and are shrunk by
an L2 term of one run, which orders unseen runs better than 5 runs a leaf on all public swarms (2 splits each). Every
weight has its bin, rows and columns are not sampled, and there is one thread: the model is a function of the runs and
not of their order. Of two domains that part the runs alike the first is taken. Gives up: slopes, since a tree is
constant between its thresholds, so that a best mixture can only be searched for; and the space beyond the runs, where
it stays at the outermost leaf.

LightGBM is an optional extra and is imported only here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import SwarmError
from olmix.laws.observations import Observations

ROUNDS = 300
SETTINGS = {
    "objective": "regression", "num_leaves": 4, "learning_rate": 0.05, "lambda_l2": 1.0,
    # Weights decide how large a leaf is, so that weight 2 is a run seen twice; rows, which LightGBM estimates, do not.
    "min_sum_hessian_in_leaf": 1.0, "min_data_in_leaf": 0,
    # A bin for every weight that was drawn.
    "max_bin": 4095, "min_data_in_bin": 1, "feature_pre_filter": False,
    "deterministic": True, "force_col_wise": True, "num_threads": 1, "seed": 0, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True)
class BoostedTrees:
    """Ensembles of n tasks over m domains, of log BPB; not convex and without a gradient.

    models (n,): each in LightGBM's text format; lower and upper (n,): the range of predictions, in BPB.
    """

    models: tuple[str, ...]
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]; raises SwarmError without LightGBM."""
        lightgbm = _lightgbm()
        x = np.asarray(mixtures, dtype=np.float64)
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
        logs = np.empty((len(rows), len(self.models)))
        if len(rows):
            for j, model in enumerate(self.models):
                logs[:, j] = lightgbm.Booster(model_str=model).predict(rows, num_threads=1)
        return np.clip(np.exp(logs), self.lower, self.upper).reshape(*x.shape[:-1], len(self.models))


def fit_boosted(observations: Observations) -> BoostedTrees:
    """An ensemble for every task, on the runs that count for it; weights are runs, so their unit matters.

    Raises SwarmError without LightGBM. A domain that no run samples splits no tree.
    """
    lightgbm = _lightgbm()
    models = [""] * observations.shape[2]
    for group in observations.groups():
        weights = observations.weights[:, group[0]]
        rows = np.flatnonzero(weights > 0)
        logs = np.log(observations.bpb[np.ix_(rows, group)])
        data = lightgbm.Dataset(
            np.ascontiguousarray(observations.mixtures[rows]), label=logs[:, 0], weight=weights[rows], params=SETTINGS
        ).construct()
        for column, task in enumerate(group):
            booster = lightgbm.train(SETTINGS, data.set_label(logs[:, column]), num_boost_round=ROUNDS)
            models[task] = booster.model_to_string()
    return BoostedTrees(tuple(models), *observations.bounds())


def _lightgbm() -> ModuleType:
    try:
        import lightgbm
    except ImportError as error:
        raise SwarmError(
            "the boosted law needs LightGBM, which is not installed", way_out="run `pip install 'olmix[lightgbm]'`"
        ) from error
    module: ModuleType = lightgbm
    return module
