"""What the nearest run showed: the law that assumes nothing, and that any other law has to beat.

A mixture gets the BPB of the run at the least total variation; runs that tie (repeated runs among them) are averaged.
Gives up: everything between the runs, and any proposal but a run that was made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.laws.observations import Observations

TIE = 1e-9  # distances are sums of m rounded differences


@dataclass(frozen=True)
class NearestRun:
    """Runs as a law of n tasks over m domains, in BPB.

    mixtures (K, m); bpb (K, n); weights (K, n), 0 where a run is masked.
    """

    mixtures: Array
    bpb: Array
    weights: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m): the weighted mean of the nearest runs that count for the task."""
        x = np.asarray(mixtures, dtype=np.float64)
        points = x.reshape(-1, x.shape[-1])
        distance = np.zeros((len(points), len(self.mixtures)))
        for i in range(points.shape[1]):  # a domain at a time: all at once would hold points x runs x domains numbers
            distance += np.abs(points[:, i, None] - self.mixtures[:, i]) / 2
        predicted = np.empty((len(points), self.bpb.shape[1]))
        counts, group = np.unique(self.weights > 0, axis=1, return_inverse=True)
        for g, counted in enumerate(counts.T):
            tasks = group == g
            to_counted = distance[:, counted]
            tied = to_counted <= to_counted.min(axis=1, keepdims=True) + TIE
            weights, bpb = self.weights[np.ix_(counted, tasks)], self.bpb[np.ix_(counted, tasks)]
            predicted[:, tasks] = (tied @ (weights * bpb)) / (tied @ weights)
        return predicted.reshape(*x.shape[:-1], predicted.shape[1])


def fit_nearest(observations: Observations) -> NearestRun:
    """The runs themselves; predictions lie within what was observed, so nothing has to be clipped."""
    return NearestRun(observations.mixtures, observations.bpb, observations.weights)
