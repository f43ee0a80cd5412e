"""The laws that a user can name."""

from __future__ import annotations

import functools

from olmix.laws.base import LawKind
from olmix.laws.boosting import BoostedTrees, fit_boosted
from olmix.laws.diminishing import Diminishing, diminishing, refit_diminishing
from olmix.laws.evidence import (
    LinearEvidence,
    ProcessEvidence,
    RootEvidence,
    fit_linear_evidence,
    fit_process_evidence,
    fit_root_evidence,
)
from olmix.laws.exponential import HUBER_DELTA
from olmix.laws.loglinear import RIDGE, LogLinear, loglinear, refit_loglinear
from olmix.laws.nearest_run import NearestRun, fit_nearest
from olmix.laws.power import AutoScale, BiMix, fit_autoscale, fit_bimix

LOG_LINEAR = "log-linear"
AUTO = "auto"
# What `auto` chooses from: the convex laws, whose proposals are certified. To offer the square-root law and the
# Gaussian process too made no choice better on splits of the public swarms.
CHOOSABLE = (LOG_LINEAR, "diminishing", "linear", "bimix", "autoscale")
# Laws that need few runs are shrunk towards a mean, so that any number of them is enough to say something.
FEW = 4


def law_kinds(delta: float = HUBER_DELTA, ridge: float = RIDGE) -> dict[str, LawKind]:
    """Every law by its name; `delta` (BPB) is the Huber width of those that have one, `ridge` that of log-linear."""
    kinds = (
        LawKind(
            LOG_LINEAR,
            "c + exp(t . p), the law of Olmix and the reference",
            LogLinear,
            functools.partial(loglinear, delta=delta, ridge=ridge),
            lambda m: m + 1,
            functools.partial(refit_loglinear, delta=delta, ridge=ridge),
            dense=True,
        ),
        LawKind(
            "diminishing",
            "c + exp(b - sum a_i p_i^0.6) with a >= 0: needs about half as many runs if no domain does harm",
            Diminishing,
            functools.partial(diminishing, delta=delta),
            lambda m: m,
            functools.partial(refit_diminishing, delta=delta),
            dense=True,
        ),
        LawKind(
            "linear",
            "exp(c + b . p) with coefficients shrunk by empirical Bayes: noisy swarms of few runs",
            LinearEvidence,
            fit_linear_evidence,
            lambda m: FEW,
        ),
        LawKind(
            "square-root",
            "exp(c + b . sqrt(p)) with coefficients shrunk by empirical Bayes; not convex",
            RootEvidence,
            fit_root_evidence,
            lambda m: FEW,
        ),
        LawKind(
            "gaussian-process",
            "a Gaussian process over sqrt(p), lengthscale and noise by marginal likelihood; not convex",
            ProcessEvidence,
            fit_process_evidence,
            lambda m: FEW,
        ),
        LawKind(
            "bimix",
            "c + sum a_i (p_i + e)^-s with a >= 0, after BiMix: power laws of the domains' shares, added",
            BiMix,
            fit_bimix,
            lambda m: FEW,
            dense=True,
        ),
        LawKind(
            "autoscale",
            "a product of power laws of shifted shares, after AutoScale",
            AutoScale,
            fit_autoscale,
            lambda m: FEW,
            dense=True,
        ),
        LawKind(
            "lightgbm",
            "gradient-boosted trees, as in RegMix (`pip install 'olmix[lightgbm]'`); not convex",
            BoostedTrees,
            fit_boosted,
            lambda m: FEW,
            most_replicates=4,
        ),
        LawKind(
            "nearest",
            "what the nearest run showed: proposes near the best feasible run; not convex",
            NearestRun,
            fit_nearest,
            lambda m: FEW,
        ),
    )
    return {kind.name: kind for kind in kinds}
