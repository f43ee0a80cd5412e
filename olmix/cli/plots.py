"""Plots of a fit and of a sweep, as PNG files: where people would rather look than read.

Drawn with matplotlib's file backend, without a date or a version inside, so that the same fit is the same picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from olmix.cli.fit_view import letter, short_count
from olmix.files import write_bytes
from olmix.fit.selection import Curve
from olmix.fit.sweep import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from olmix.cli.fit import Answer, FitReport

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def draw_fit(report: FitReport, folder: Path) -> list[Path]:
    """mixture.png, out-of-fold.png, and curve.png where a curve was asked for; returns what was written."""
    written = [_saved(_out_of_fold(report), folder / "out-of-fold.png")]
    if report.answer is not None:
        written.insert(0, _saved(_mixture(report, report.answer), folder / "mixture.png"))
    if report.curves:
        written.append(_saved(_curve(report.curves), folder / "curve.png"))
    return written


def draw_sweep(cells: Sequence[Cell], domains: Sequence[str], path: Path) -> Path:
    """One stacked bar a mixture of the sweep, in the order of their letters."""
    firsts: dict[int, Cell] = {}
    for cell in cells:
        if cell.group is not None:
            firsts.setdefault(cell.group, cell)
    figure = _figure(max(6.0, 0.6 * len(firsts) + 3), 5.0)
    axes = figure.subplots()
    bottom = np.zeros(len(firsts))
    weights = np.array([c.best.weights[: len(domains)] for c in firsts.values() if c.best is not None])
    for k, i in enumerate(np.argsort(-weights.mean(axis=0), kind="stable") if firsts else ()):
        label = domains[i] if k < len(COLOURS) else None
        colour = COLOURS[k] if k < len(COLOURS) else "#eeeeee"
        axes.bar(range(len(firsts)), weights[:, i], bottom=bottom, color=colour, edgecolor="white", label=label)
        bottom += weights[:, i]
    names = [f"{letter(g)}\nλ {c.kl:g}\nk {c.repetition:g}\n{short_count(c.tokens)}" for g, c in firsts.items()]
    axes.set_xticks(range(len(firsts)), names, fontsize=7)
    axes.set_ylabel("share")
    axes.set_title("Mixtures of the sweep, each with its first settings")
    if firsts:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _saved(figure, path)


def _mixture(report: FitReport, answer: Answer) -> Figure:
    names, problem, trust = report.inputs.domains, answer.problem, answer.trust
    m = len(names)
    weights, reference, caps = trust.proposal.weights[:m], problem.reference[:m], problem.caps[:m]
    order = np.argsort(weights, kind="stable")
    figure = _figure(8.0, 1.5 + 0.3 * m)
    axes = figure.subplots()
    place = np.arange(m)
    axes.barh(place, weights[order], color=COLOURS[0], label="proposal")
    if trust.weights_low is not None and trust.weights_high is not None:
        low, high = trust.weights_low[:m][order], trust.weights_high[:m][order]
        axes.hlines(place, low, high, color="black", linewidth=1, label="5 to 95% of resamples")
    axes.plot(reference[order], place, "o", color=COLOURS[1], markersize=4, label="reference")
    axes.plot(trust.unconstrained.weights[:m][order], place, "x", color=COLOURS[2], markersize=5, label="without caps")
    limited = caps[order] < 1
    if limited.any():
        shown = np.minimum(caps[order], 1.1 * max(weights.max(), reference.max()))
        axes.plot(shown[limited], place[limited], "|", color=COLOURS[5], markersize=10, label="cap (or beyond)")
    axes.set_yticks(place, [names[i] for i in order], fontsize=8)
    axes.set_xlabel("share of tokens")
    axes.legend(fontsize=8, loc="lower right")
    axes.set_title(f"Proposal of the {report.fit.kind.name} law")
    return figure


def _out_of_fold(report: FitReport) -> Figure:
    fit, weights = report.fit, report.inputs.task_weights
    whole = (fit.newest.weights[:, weights > 0] > 0).all(axis=1) & np.isfinite(fit.held_out).all(axis=1)
    observed, predicted = fit.newest.bpb[whole] @ weights, fit.held_out[whole] @ weights
    figure = _figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    left.scatter(observed, predicted, s=12, color=COLOURS[0])
    if len(observed):
        ends = [min(observed.min(), predicted.min()), max(observed.max(), predicted.max())]
        left.plot(ends, ends, color="#888888", linewidth=1)
    left.set_xlabel("observed mean BPB")
    left.set_ylabel("predicted out of fold")
    left.set_title(f"Spearman {fit.scores.mean_spearman:.3f}, RMSE {fit.scores.mean_rmse:.4f}")
    right.hist(fit.scores.spearman[np.isfinite(fit.scores.spearman)], bins=20, range=(-1, 1), color=COLOURS[0])
    right.set_xlabel("Spearman per task, out of fold")
    right.set_ylabel("tasks")
    return figure


def _curve(curves: Sequence[Curve]) -> Figure:
    figure = _figure(7.0, 4.0)
    axes = figure.subplots()
    for k, curve in enumerate(curves):
        colour = COLOURS[k % len(COLOURS)]
        runs = [p.runs for p in curve.points]
        values = [p.mean_spearman for p in curve.points]
        errors = [p.mean_spearman_error for p in curve.points]
        axes.errorbar(runs, values, yerr=errors, color=colour, marker="o", markersize=3, label=curve.name)
        if np.isfinite(curve.rate):
            ahead = np.geomspace(runs[0], 4 * runs[-1], 50)
            axes.plot(ahead, [curve.at(n) for n in ahead], color=colour, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("runs fitted")
    axes.set_ylabel("Spearman of the mean BPB, held out")
    axes.legend(fontsize=8)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _saved(figure: Figure, path: Path) -> Path:
    memory = io.BytesIO()
    figure.savefig(memory, format="png", metadata={"Software": None})
    write_bytes(path, memory.getvalue())
    return path
