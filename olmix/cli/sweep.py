"""`olmix sweep`: how the proposal moves with lambda, the repetition limit and the target tokens."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from olmix.artifacts.law_file import read_laws
from olmix.artifacts.plan_file import read_plan
from olmix.cli.fit import caps_of, read_inputs
from olmix.config.fields import parse_count
from olmix.config.fit_options import FitOptions
from olmix.config.params import load_params
from olmix.core.arrays import Array
from olmix.core.limits import domain_caps
from olmix.errors import ConfigError, PipelineError
from olmix.fit.fitting import SwarmFit, fit_swarm
from olmix.fit.sweep import Cell, sweep
from olmix.fit.trust import Problem
from olmix.project import Project
from olmix.stages.propose import problem_of

LARGEST = 2**63
TINY = sys.float_info.min
LAMBDAS = (0.01, 0.02, 0.05, 0.1, 0.2)
REPETITIONS = (1.0, 2.0, 4.0, 8.0)
# Targets around the one that is named, as factors.
AROUND = (0.25, 1.0, 4.0)

Report = Callable[[str], None]
Ready = Callable[[Report], "Sweep"]


@dataclass(frozen=True)
class Sweep:
    """The cells and the names of their weights."""

    cells: tuple[Cell, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """What is swept; targets None for a quarter, once and four times the target that is named."""

    kls: Sequence[float] = LAMBDAS
    repetitions: Sequence[float] = REPETITIONS
    targets: Sequence[int] | None = None

    def around(self, target: int | None) -> Sequence[int]:
        """The targets, given the one that is named."""
        if self.targets:
            return self.targets
        if target is None:
            raise ConfigError(
                "missing", key="target tokens", way_out="give --targets, or --target-tokens to sweep around"
            )
        targets = tuple(max(1, round(factor * target)) for factor in AROUND)
        if targets[-1] >= LARGEST:
            raise ConfigError(f"{targets[-1]:,} is beyond 2^63", key="target tokens", way_out="give --targets")
        return targets


def grid_of(lambdas: str | None, repetitions: str | None, targets: str | None) -> Grid:
    """The grid of three comma-separated lists; raises ConfigError for what is no positive number."""
    return Grid(
        LAMBDAS if lambdas is None else _numbers(lambdas, "--lambdas", 0.0),
        REPETITIONS if repetitions is None else _numbers(repetitions, "--repetitions", TINY),
        None if targets is None else [_target(item) for item in targets.split(",")],
    )


def _target(text: str) -> int:
    try:
        tokens = parse_count(text)
    except ConfigError as error:
        raise error.at(key="--targets") from None
    if not 0 < tokens < LARGEST:
        raise ConfigError(f"{text} must be a number of tokens from 1 to 2^63", key="--targets")
    return tokens


def _numbers(text: str, option: str, least: float) -> list[float]:
    numbers = []
    for item in text.split(","):
        try:
            number = float(item)
        except ValueError:
            raise ConfigError(
                f"{item!r} is not a number", key=option, way_out="write numbers separated by commas"
            ) from None
        if not (math.isfinite(number) and number >= least):
            raise ConfigError(f"{item} must be a finite number {'>= 0' if least == 0 else '> 0'}", key=option)
        numbers.append(number)
    return numbers


def ready_tables(options: FitOptions, grid: Grid) -> Ready:
    """Read and check tables; what is returned fits them as `olmix fit` does, without its bootstrap, and sweeps."""
    settings = options.model_copy(update={"replicates": 0, "target_tokens": None}).settings()
    targets = grid.around(options.target_tokens)
    inputs = read_inputs(options.model_copy(update={"target_tokens": None}))
    if inputs.wanted is None:
        raise ConfigError(
            "missing; a sweep needs the tokens of the domains", key="priors", way_out="give them with --priors FILE"
        )
    wanted = inputs.wanted

    def caps(target: int, repetition: float) -> Array:
        return caps_of(wanted.tokens, len(inputs.columns), target, repetition)

    def run(report: Report) -> Sweep:
        fit = fit_swarm(
            inputs.newest, inputs.table.runs, inputs.task_weights, settings, older=inputs.older, report=report
        )
        return Sweep(_solved(fit, wanted.problem, caps, grid, targets, report), inputs.domains)

    return run


def _solved(
    fit: SwarmFit,
    problem: Problem,
    caps: Callable[[int, float], Array],
    grid: Grid,
    targets: Sequence[int],
    report: Report,
) -> tuple[Cell, ...]:
    return sweep(
        fit.law,
        problem,
        caps,
        fit.newest.mixtures,
        kls=grid.kls,
        repetitions=grid.repetitions,
        targets=targets,
        report=lambda done, total: report(f"solve {done} of {total}"),
    )


def ready_project(project: Project, grid: Grid) -> Ready:
    """What sweeps with the laws of a project, in the coordinates of its plan.

    Raises PipelineError where nothing is recomputed, or nothing has been fitted yet.
    """
    params = load_params(project)
    if not project.laws.exists():
        raise PipelineError("no laws yet", file=project.laws, way_out="run `dvc repro`, or give RATIOS and METRICS")
    plan = read_plan(project)
    if not plan.affected:
        raise PipelineError("nothing is recomputed, so there is no law to sweep with", file=project.plan)
    weights, target = params.task_weights(), params.target_settings()
    laws = read_laws(project, weights, params.fit_settings())
    whole = np.ones(len(laws.coordinates))

    def caps(tokens: int, repetition: float) -> Array:
        return plan.space.caps(domain_caps(plan.dataset, tokens, repetition))

    problem = problem_of(plan, laws, weights, whole, params.solve.kl)
    targets = grid.around(target.tokens)
    return lambda report: Sweep(_solved(laws.fit, problem, caps, grid, targets, report), laws.coordinates)
