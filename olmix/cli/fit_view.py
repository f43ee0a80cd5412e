"""What `olmix fit` and `olmix sweep` print: the mixture, the fit, and one line for each question of trust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmix.artifacts.fit_report import cap_price
from olmix.cli.fit import Answer, FitReport
from olmix.fit.fitting import SwarmFit
from olmix.fit.selection import Choice, Curve
from olmix.fit.sweep import Cell, groups
from olmix.fit.trust import QUESTIONS, Interval, Trust
from olmix.terminal.table import bar, table

WORST, SETTINGS = 5, 3
ONE_PERCENT = 0.01


def fit_text(report: FitReport) -> str:
    """The whole report."""
    inputs, fit, answer = report.inputs, report.fit, report.answer
    blocks = ["\n".join(_head(report))]
    if fit.choice is not None:
        blocks.append(choice_text(fit.choice))
    if answer is not None:
        blocks += [_mixture_table(inputs.domains, answer), "\n".join(trust_lines(fit, answer.trust, inputs.columns))]
    else:
        blocks.append("No proposal: give the tokens of the domains with --priors.")
    if report.curves:
        blocks.append(curve_text(report.curves, len(fit.runs)))
    return "\n\n".join(blocks)


def _head(report: FitReport) -> list[str]:
    inputs, fit = report.inputs, report.fit
    k, n = len(inputs.table.runs), len(inputs.table.tasks)
    lines = [f"{k}{_older_runs(fit)} runs, {len(inputs.domains)} domains, {n} tasks of {inputs.table.source}"]
    if inputs.aside:
        lacking = ", ".join(f"{a.run} ({', '.join(a.missing[:2])})" for a in inputs.aside[:4])
        more = f" and {len(inputs.aside) - 4} more" if len(inputs.aside) > 4 else ""
        count = f"{len(inputs.aside)} run{'s' if len(inputs.aside) > 1 else ''}"
        lines.append(f"{count} excluded, missing a metric: {lacking}{more}")
    if len(fit.runs) < k:
        noise = float(np.nanmean(fit.repeats.noise))
        lines.append(
            f"{len(fit.runs)} distinct mixtures; repeated runs differ by {noise:.4f} BPB per task "
            f"(standard deviation, {int(fit.repeats.freedom.max())} degrees of freedom)"
        )
    for number, older in enumerate(fit.older, 1):
        alone, best = older.scores[0][2], max(score for _, _, score in older.scores)
        how = (
            f"each run has weight {older.weight:g}"
            if older.weight
            else "excluded, since it does not improve predictions"
        )
        how += ", with an offset per task" if older.offsets.any() else ""
        lines.append(
            f"older swarm {number}: {len(older.observations.mixtures)} runs, {how}; score on unseen runs "
            f"{alone:.3f} without it, {best:.3f} at best"
        )
    lines.append(f"law {fit.kind.name}: {fit.kind.summary}")
    lines.append("out of fold: " + score_line(fit))
    worst = np.argsort(np.nan_to_num(fit.scores.spearman, nan=-1.0), kind="stable")[:WORST]
    names = ", ".join(f"{inputs.table.tasks[j]} {fit.scores.spearman[j]:.2f}" for j in worst)
    lines.append(f"  least well predicted: {names}")
    return lines


def _older_runs(fit: SwarmFit) -> str:
    counted = sum(len(older.observations.mixtures) for older in fit.older if older.weight > 0)
    return f" + {counted} older" if counted else ""


def score_line(fit: SwarmFit) -> str:
    """How well unseen runs are predicted, in one line."""
    score = fit.scores
    return (
        f"Spearman {np.nanmean(score.spearman):.3f} (mean of tasks), {score.mean_spearman:.3f} (of the mean BPB); "
        f"RMSE {score.mean_rmse:.4f} BPB of the mean"
    )


def choice_text(choice: Choice) -> str:
    """How `auto` decided."""
    rows = [
        [
            a.name,
            f"{a.spearman:.3f}",
            f"{a.mean_spearman:.3f}",
            f"{a.score:.3f}",
            "chosen" if a.name == choice.best else "",
        ]
        for a in choice.assessments
    ]
    if choice.best == choice.reference:
        said = f"Chosen: {choice.best}, the reference; no other law predicts unseen runs better."
    else:
        said = (
            f"Chosen: {choice.best}, ahead of {choice.reference} by {choice.margin:.3f} ± {choice.standard_error:.3f}; "
            f"better in {choice.confidence:.0%} of resamples of the runs."
        )
    header = ["law", "Spearman, tasks", "of the mean", "score", ""]
    return f"{table(header, rows)}\n{said}"


def _mixture_table(domains: Sequence[str], answer: Answer) -> str:
    trust, mixture = answer.trust, answer.mixture
    weights = mixture.mixture.weights
    scale = max(weights.values(), default=1.0)
    rows = []
    for i, name in enumerate(domains):
        use = mixture.uses[name]
        repeated = "" if use.repetition is None else f"{use.repetition:.2f}"
        rows.append(
            [
                name,
                f"{weights[name]:.4f}",
                _range(trust, i),
                f"{answer.problem.reference[i]:.4f}",
                f"{trust.unconstrained.weights[i]:.4f}",
                repeated + (" cap" if use.capped else "    "),
                bar(weights[name], scale),
            ]
        )
    return table(["domain", "weight", "5 to 95%", "reference", "no caps", "repetition", ""], rows)


def _range(trust: Trust, i: int) -> str:
    if trust.weights_low is None or trust.weights_high is None:
        return ""
    return f"{trust.weights_low[i]:.3f}-{trust.weights_high[i]:.3f}"


def trust_lines(fit: SwarmFit, trust: Trust, domains: Sequence[str]) -> list[str]:
    """One line for each question."""
    mean = trust.mean_bpb
    predicted = f"predicted      {_value(mean['proposal'])}"
    if trust.gain is not None:
        predicted += f"; reference {_value(mean['baseline'])}; gain {_value(trust.gain)}{_between(trust.gain)}"
    doubts = trust.doubts(fit)
    raised = f"{len(doubts)} of {QUESTIONS} questions raise{'s a doubt' if len(doubts) == 1 else ' doubts'}"
    believe = f"{raised}: {', '.join(doubts)}" if doubts else "no doubts"
    lines = [f"believe it?    {believe}", predicted]
    if trust.moved is not None:
        lines.append(
            f"other runs     proposals of {len(fit.replicates)} resamples: median total variation {trust.moved:.3f}"
        )
    lines.append(f"other laws     {_laws(trust)}")
    lines.append(
        f"design         rank {fit.design.rank} of {len(domains)}; leverage {trust.leverage:.2f} (largest run: "
        f"{trust.largest_leverage:.2f})"
        + ("; BEYOND the runs" if trust.leverage > trust.largest_leverage else "")
        + (
            f"; {trust.unsupported:.4f} of the proposal OUTSIDE the directions that the runs vary"
            if trust.unsupported
            else ""
        )
    )
    never = [name for name, n in zip(domains, fit.observations.never_sampled, strict=True) if n]
    lines.append(
        f"never sampled  {', '.join(never) + ': their weights are a guess, without data' if never else 'none'}"
    )
    lines.append(f"nearest run    {trust.nearest_run}, total variation {trust.distance:.3f}")
    lines.append(f"mirage         {_mirage(trust)}")
    lines.append(
        f"without caps   {_value(mean['unconstrained'])}, total variation "
        f"{np.abs(trust.unconstrained.weights - trust.proposal.weights).sum() / 2:.3f}"
    )
    lines.append(f"caps           {_caps(trust, domains, never)}")
    certificate = trust.proposal.certificate
    searched = f"searched, {trust.proposal.steps:,} mixtures scored"
    lines.append(f"solver         {f'duality gap {certificate.shown_gap:.1e}' if certificate else searched}")
    return lines


def _laws(trust: Trust) -> str:
    said = []
    for law in trust.laws:
        gain = f"gain {law.gain:.4f}" if law.gain is not None else f"BPB {law.bpb:.4f}"
        where = f" (its own proposal at total variation {law.distance:.2f})" if law.distance is not None else ""
        said.append(f"{law.name} {gain}{where}")
    return "; ".join(said) or "none compared"


def _mirage(trust: Trust) -> str:
    if trust.best_run is None or not np.isfinite(trust.error):
        return "unknown: too few runs have every task"
    ahead = trust.best_bpb - trust.mean_bpb["proposal"].value
    best = f"the best run, {trust.best_run} ({trust.best_bpb:.4f})"
    if trust.mirage:
        return (
            f"ALARM: better than {best} by {ahead:.4f}, more than the out-of-fold error {trust.error:.4f}: "
            "train a proxy on it before you believe it" + _reference_too(trust)
        )
    side = "better" if ahead > 0 else "worse"
    return f"none: {side} than {best} by {abs(ahead):.4f}; out-of-fold error {trust.error:.4f}"


def _reference_too(trust: Trust) -> str:
    """Whether the prediction of the reference is as far ahead: then the swarm is short of good runs."""
    reference = trust.mean_bpb.get("baseline")
    return " (so is the reference)" if reference and reference.value < trust.best_bpb - trust.error else ""


def _caps(trust: Trust, domains: Sequence[str], never: Sequence[str]) -> str:
    """Which caps bind, and what one percent more tokens of each would gain: to first order, price x 1% of the cap."""
    gains = [
        (name, price * ONE_PERCENT * float(trust.proposal.weights[i]))
        for i, name in enumerate(domains)
        if (price := cap_price(trust, i)) is not None and trust.proposal.weights[i] > 0 and name not in never
    ]
    if not gains:
        searched = trust.proposal.certificate is None
        return "some bind; a search has no prices" if searched and trust.proposal.capped.any() else "none binds"
    gains.sort(key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{name} {gain:.1e} BPB" for name, gain in gains)
    return f"{len(gains)} {'bind' if len(gains) > 1 else 'binds'}; one percent more tokens would gain: {said}"


def _value(interval: Interval) -> str:
    error = f" ± {interval.standard_error:.4f}" if np.isfinite(interval.standard_error) else ""
    return f"{interval.value:.4f}{error}"


def _between(interval: Interval) -> str:
    return f" ({interval.low:.4f} to {interval.high:.4f})" if np.isfinite(interval.low) else ""


def curve_text(curves: Sequence[Curve], runs: int) -> str:
    """Held-out rank correlation of the mean BPB by number of runs, and what more runs would give."""
    sizes = [p.runs for p in curves[0].points]
    rows = [
        [c.name, *(f"{p.mean_spearman:.3f}±{p.mean_spearman_error:.3f}" for p in c.points), _more(c, runs)]
        for c in curves
    ]
    best = max(curves, key=lambda c: c.points[-1].mean_spearman)
    closing = ""
    if np.isfinite(best.rate):
        now, then = best.at(runs), best.at(2 * runs)
        closing = (
            f"\nTwice the runs ({2 * runs}) would take {best.name} from {now:.3f} to {then:.3f}, "
            "if the curve continues; noise may flatten it sooner."
        )
    head = "Learning curve: rank correlation of the mean BPB on held-out runs, by number of runs fitted"
    header = ["law", *map(str, sizes), f"extrapolated: {runs}, {2 * runs}, {4 * runs} runs"]
    return f"{head}\n{table(header, rows)}{closing}"


def _more(curve: Curve, runs: int) -> str:
    if not np.isfinite(curve.rate):
        return "too few points"
    return ", ".join(f"{curve.at(k * runs):.3f}" for k in (1, 2, 4))


def sweep_text(cells: Sequence[Cell], domains: Sequence[str]) -> str:
    """One line per mixture, with the settings that lead to it."""
    rows = []
    for group, members in groups(cells).items():
        cell, best = members[0], members[0].best
        shares = best.weights if best is not None else np.zeros(len(domains))
        top = sorted(zip(domains, shares, strict=False), key=lambda item: (-item[1], item[0]))[:3]
        rows.append(
            [
                letter(group),
                f"{cell.bpb:.4f}",
                f"{cell.divergence:.3f}",
                str(int(best.capped.sum()) if best is not None else 0),
                ", ".join(f"{name} {share:.2f}" for name, share in top),
                _settings(members),
            ]
        )
    lines = [table(["mixture", "BPB", "KL", "at cap", "largest shares", "lambda, repetition, target tokens"], rows)]
    infeasible = [cell for cell in cells if cell.best is None]
    if infeasible:
        lines.append(f"infeasible: too few tokens in the domains: {_settings(infeasible)}")
    lines.append(f"{len(cells)} settings, {len(rows)} mixtures (those within a total variation of 0.01 count as one).")
    return "\n".join(lines)


def _settings(cells: Sequence[Cell]) -> str:
    said = [f"({c.kl:g}, {c.repetition:g}, {short_count(c.tokens)})" for c in cells[:SETTINGS]]
    return " ".join(said) + (f" and {len(cells) - SETTINGS} more" if len(cells) > SETTINGS else "")


def short_count(tokens: int) -> str:
    """A count as people write it: 500B, 1.5T."""
    for letter_, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if tokens >= size:
            return f"{tokens / size:g}{letter_}"
    return str(tokens)


def letter(group: int) -> str:
    """A, B, ..., Z, AA, AB, ... for the groups 0, 1, ..."""
    name = ""
    group += 1
    while group:
        group, rest = divmod(group - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
