"""`olmix fit`: from tables of a swarm, whoever trained it, to a law, a mixture, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from olmix.artifacts.fit_report import curve_values, fit_digest, fit_values, trust_values
from olmix.artifacts.mixture_file import MixtureFile, write_mixture
from olmix.artifacts.proposal import certificate_section, mixture_file, predicted_section
from olmix.config.fit_options import FitOptions
from olmix.core.arrays import Array
from olmix.core.dataset import Dataset, Domain
from olmix.core.limits import Target
from olmix.core.mixture import kl_divergence
from olmix.core.quantise import quantise_within
from olmix.core.seeds import named_key
from olmix.errors import ConfigError, InfeasibleError
from olmix.files import write_json
from olmix.fit.fitting import SwarmFit, fit_swarm, require_runs
from olmix.fit.selection import Curve, curve_sizes, learning_curve
from olmix.fit.trust import Problem, Trust, examine
from olmix.laws.base import LawKind
from olmix.laws.observations import Observations, observe
from olmix.laws.registry import CHOOSABLE
from olmix.laws.repeats import merge_repeats
from olmix.tables.older import align, bpb_of, masked, refuse_shared, renamed
from olmix.tables.presets import preset, preset_names, preset_tasks, read_preset
from olmix.tables.priors import aligned, read_priors
from olmix.tables.swarm_results import SwarmTable, join, only, subset
from olmix.tables.table import first_few, read_ids, read_result_table
from olmix.tables.tasks import Groups, SetAside, tasks_of

HEADING = (
    "What `olmix fit` proposes for tables of a swarm. The digests name domains and their tokens: no content was read."
)

STEPS = 10**6  # of a mixture file

Report = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """The problem to solve, over all columns, and the tokens (m,) of the newest swarm's domains."""

    problem: Problem
    tokens: Array


@dataclass(frozen=True)
class Inputs:
    """Everything that was read and checked, before anything is fitted.

    `columns` are the newest swarm's domains, then those that only older swarms have; wanted is None without priors.
    """

    options: FitOptions
    table: SwarmTable
    aside: tuple[SetAside, ...]
    columns: tuple[str, ...]
    newest: Observations
    older: tuple[Observations, ...]
    task_weights: Array
    families: Mapping[str, tuple[str, ...]]
    wanted: Wanted | None

    @property
    def domains(self) -> tuple[str, ...]:
        """The newest swarm's domains."""
        return self.table.domains


@dataclass(frozen=True)
class Answer:
    """A proposal: the problem it solves, what is known about it, and its file."""

    problem: Problem
    trust: Trust
    mixture: MixtureFile


@dataclass(frozen=True)
class FitReport:
    """What `olmix fit` found: the fit, the answer (None without priors), and learning curves when asked for."""

    inputs: Inputs
    fit: SwarmFit
    answer: Answer | None
    curves: tuple[Curve, ...]

    def to_json(self) -> dict[str, Any]:
        """`diagnostics.json`."""
        inputs = self.inputs
        values = {
            **fit_values(self.fit, inputs.table.tasks, inputs.columns),
            "runs": {
                "used": len(inputs.table.runs),
                "set_aside": [{"run": a.run, "missing": list(a.missing)} for a in inputs.aside],
            },
            "task_weights": dict(zip(inputs.table.tasks, inputs.task_weights.tolist(), strict=True)),
        }
        if self.answer is not None:
            values["proposal"] = trust_values(self.answer.trust, inputs.columns)
            values["proposal"]["doubts"] = list(self.answer.trust.doubts(self.fit))
        if self.curves:
            values["curves"] = curve_values(self.curves)
        return values


def read_inputs(options: FitOptions) -> Inputs:
    """Read and check all files of `options`; raises DataError, ConfigError, SwarmError or InfeasibleError, one line."""
    groups, families, table, aside = _newest(options)
    used = {metric for task in table.tasks for metric in groups.get(task, {task: 1.0})}
    others = [_older(swarm.ratios, swarm.metrics, swarm.domains, used) for swarm in options.also]
    for other, swarm in zip(others, options.also, strict=True):
        refuse_shared(table, other, str(swarm.ratios))
    joined = align(table, others)
    mask = {} if options.mask is None else _mask(options.mask, table, read_result_table(options.ratios).ids)
    newest = _observed(joined.mixtures[0], masked(table.bpb, table.runs, table.tasks, mask), partial=False)
    older = [
        _observed(x, bpb_of(other, table.tasks, groups), partial=True)
        for x, other in zip(joined.mixtures[1:], others, strict=True)
    ]
    weights = _task_weights(options.weights, table.tasks, families)
    inputs = Inputs(
        options,
        table,
        aside,
        joined.domains,
        newest,
        tuple(older),
        weights,
        families,
        None,
    )
    require_runs(options.law, options.settings().kinds(), newest, older)
    if options.curve:
        curve_sizes(len(merge_repeats(newest, table.runs).ids), len(table.domains))
    return inputs if options.priors is None else _with_priors(inputs, options.priors)


def fit_tables(inputs: Inputs, report: Report = lambda what: None) -> FitReport:
    """Fit, choose, propose and examine; `report` is called with what begins."""
    settings = inputs.options.settings()
    fit = fit_swarm(inputs.newest, inputs.table.runs, inputs.task_weights, settings, older=inputs.older, report=report)
    kinds = settings.kinds()
    answer = None
    if inputs.wanted is not None:
        others = {name: kinds[name] for name in CHOOSABLE}
        trust = examine(fit, inputs.wanted.problem, others, report=report)
        answer = Answer(inputs.wanted.problem, trust, _mixture(inputs, inputs.wanted, fit, trust))
    curves = _curves(inputs, fit, {name: kinds[name] for name in {*CHOOSABLE, fit.kind.name}}, report)
    return FitReport(inputs, fit, answer, curves)


def write_report(report: FitReport) -> list[Path]:
    """Write mixture.yaml and diagnostics.json to the output folder; returns what was written."""
    out = report.inputs.options.out
    written = [out / "diagnostics.json"]
    write_json(written[0], report.to_json())
    if report.answer is not None:
        written.insert(0, out / "mixture.yaml")
        write_mixture(written[0], report.answer.mixture, HEADING)
    return written


def _newest(options: FitOptions) -> tuple[Groups, Mapping[str, tuple[str, ...]], SwarmTable, tuple[SetAside, ...]]:
    """Groups, families, the newest swarm by tasks, and the runs that lack a used metric."""
    chosen = None
    unused = set(options.drop)
    if options.preset is not None:
        built_in = options.preset in preset_names() or not Path(options.preset).suffix
        chosen = preset(options.preset) if built_in else read_preset(Path(options.preset))
        unused |= set(chosen.drop)
    table = join(read_result_table(options.ratios), read_result_table(options.metrics), unused)
    if options.runs is not None:
        table = subset(table, runs=options.runs, seed=options.seed)
    if options.ids is not None:
        table = only(table, read_ids(options.ids), str(options.ids))
    if chosen is not None:
        table, aside = preset_tasks(table, chosen, options.drop)
        return chosen.groups, chosen.families, table, aside
    table, aside = tasks_of(table, options.groups, options.drop)
    return options.groups, {}, table, aside


def _older(ratios: Path, metrics: Path, names: Mapping[str, str], used: set[str]) -> SwarmTable:
    read = read_result_table(metrics)
    return renamed(join(read_result_table(ratios), read, set(read.columns) - used), names)


def _observed(mixtures: Array, bpb: Array, *, partial: bool) -> Observations:
    """Observations where a BPB that is missing, or no BPB, counts for nothing."""
    return observe(mixtures, bpb, np.where(np.isfinite(bpb) & (bpb > 0), 1.0, 0.0), partial=partial)


def _mask(path: Path, swarm: SwarmTable, known: Sequence[str]) -> dict[str, dict[str, float]]:
    table = read_result_table(path)
    nowhere = sorted(set(table.ids) - set(known))
    if nowhere:
        raise ConfigError(
            f"masks {first_few(nowhere)}, which {swarm.source} does not have", file=path, way_out="use ids of its runs"
        )
    strange = [name for name in table.columns if name not in swarm.tasks]
    if strange:
        raise ConfigError(f"masks {first_few(strange)}, not a task; the tasks are {first_few(swarm.tasks)}", file=path)
    if not np.isin(table.values, (0.0, 1.0)).all():
        raise ConfigError(
            "not only 0 and 1", file=path, way_out="write 1 where a run counts for a task and 0 where it does not"
        )
    rows = dict(zip(table.ids, table.values, strict=True))
    unused = [
        task for j, task in enumerate(table.columns) if all(run in rows and rows[run][j] == 0 for run in swarm.runs)
    ]
    if unused:
        raise ConfigError(
            f"masks every run of {first_few(unused)}", file=path, way_out="leave the task out with --drop"
        )
    return {run: dict(zip(table.columns, row.tolist(), strict=True)) for run, row in rows.items()}


def _task_weights(
    weights: Mapping[str, float], tasks: tuple[str, ...], families: Mapping[str, tuple[str, ...]]
) -> Array:
    """The weight of every task, its own or its family's, divided by their sum."""
    unknown = sorted(set(weights) - set(tasks) - set(families))
    if unknown:
        known = f"the tasks are {first_few(tasks)}" + (f", the families {', '.join(families)}" if families else "")
        raise ConfigError(f"{first_few(unknown)}: no such task; {known}", key="weights")
    home = {task: family for family, members in families.items() for task in members}
    values = np.array([weights.get(task, weights.get(home.get(task, ""), 1.0)) for task in tasks])
    if values.sum() <= 0:
        raise ConfigError("all tasks have weight 0", key="weights", way_out="give one of them a weight above 0")
    return np.asarray(values / values.sum())


def _with_priors(inputs: Inputs, path: Path) -> Inputs:
    """The inputs with the problem that the priors and limits make; raises InfeasibleError before anything is fitted."""
    options, domains = inputs.options, inputs.domains
    reference, tokens = aligned(read_priors(path), domains)
    if tokens is None:
        raise ConfigError(
            "missing; a mixture file contains the number of tokens of each domain", file=path, key="token_counts"
        )
    if options.reference == "natural":
        reference = tokens / tokens.sum()
    elif options.reference == "uniform":
        reference = np.full(len(domains), 1 / len(domains))
    whole = np.ones(len(inputs.columns))
    whole[: len(domains)] = reference
    baseline = np.zeros(len(inputs.columns))
    baseline[: len(domains)] = reference
    caps = caps_of(tokens, len(inputs.columns), options.target_tokens, options.repetition)
    if not _room(caps):
        raise _infeasible(options, tokens, float(caps.sum()))
    return replace(inputs, wanted=Wanted(Problem(inputs.task_weights, whole, options.kl, caps, baseline), tokens))


def caps_of(tokens: Array, columns: int, target_tokens: int | None, repetition: float) -> Array:
    """The caps of all columns: k N / R, none without a target, and 0 for what only older swarms know."""
    caps = np.zeros(columns)
    caps[: len(tokens)] = 1.0
    if target_tokens is not None:
        caps[: len(tokens)] = np.minimum(repetition * tokens / target_tokens, 1.0)
    return caps


def _room(caps: Array) -> bool:
    """Whether a mixture in steps of 1e-6, as files carry it, meets the caps; a hair is left for rounding."""
    return bool(np.floor(caps * STEPS + 1e-6).sum() >= STEPS)


def _infeasible(options: FitOptions, tokens: Array, reach: float) -> InfeasibleError:
    target, held = int(options.target_tokens or 0), int(tokens.sum())
    enough = np.ceil(1000 * target / held) / 1000
    while not _room(caps_of(tokens, len(tokens), target, enough)):
        enough += 0.001
    return InfeasibleError(
        f"{target:,} tokens cannot be drawn with repetition {options.repetition:g}: the domains have only "
        f"{100 * reach:.4g}% of them ({round((1 - reach) * target):,} tokens short)",
        file=options.priors,
        way_out=f"raise --repetition to {enough:.10g} or lower --target-tokens",
    )


def _mixture(inputs: Inputs, wanted: Wanted, fit: SwarmFit, trust: Trust) -> MixtureFile:
    """The mixture file of a proposal, over the newest swarm's domains."""
    options, names = inputs.options, inputs.domains
    tokens = [int(n) for n in wanted.tokens]
    dataset = Dataset({name: Domain(named_key("declared", name, n), n) for name, n in zip(names, tokens, strict=True)})
    caps = dict(zip(names, wanted.problem.caps[: len(names)].tolist(), strict=True))
    rounded = quantise_within(trust.proposal.weights[: len(names)], [caps[name] for name in names])
    mixture = dict(zip(names, rounded.tolist(), strict=True))
    reference = dict(zip(names, wanted.problem.reference[: len(names)].tolist(), strict=True))
    sections: dict[str, Any] = {
        "predicted": predicted_section(trust, baseline="reference"),
        "certificate": {
            **certificate_section(trust, options.kl),
            "kl_to_reference": round(kl_divergence(mixture, reference), 6),
        },
        "law": fit.kind.name,
        "fit": fit_digest(fit, inputs.table.tasks, inputs.task_weights),
        "reference": {name: round(share, 6) for name, share in sorted(reference.items())},
    }
    target = None
    if options.target_tokens is not None:
        target = Target(options.target_tokens, options.repetition)
        sections["target"] = {"tokens": target.tokens, "repetition": target.repetition}
    return mixture_file(dataset, mixture, caps, target, sections)


def _curves(inputs: Inputs, fit: SwarmFit, kinds: Mapping[str, LawKind], report: Report) -> tuple[Curve, ...]:
    if not inputs.options.curve:
        return ()
    curves = []
    for name in sorted(kinds):
        report(f"learning curve of {name}")
        curves.append(learning_curve(kinds[name], fit.newest, fit.runs, inputs.task_weights, seed=inputs.options.seed))
    return tuple(curves)
