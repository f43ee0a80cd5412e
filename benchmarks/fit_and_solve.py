"""Seconds, losses and certificates of the fit and the solver on one core: `python benchmarks/fit_and_solve.py`.

Reads the public swarms at OLMIX_SWARMS (default: ../shared/swarms). The reference is the published code, which fits one
metric at a time from 300 random starts with L-BFGS: 77 CPU seconds a metric, measured on one core.

"Everything on one core" is `olmix fit` from tables to proposal and diagnostics (reading, choice of the law, fit,
cross-validation, 60 bootstrap replicates, trust) without plots, files written and the learning curves of --curve.
Seconds are medians; CPU seconds stand beside them, since other work on a machine moves the first more.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.cli.fit import fit_tables, read_inputs
from olmix.config.fit_options import FitOptions
from olmix.core.seeds import generator
from olmix.fit.bootstrap import bootstrap
from olmix.fit.diagnostics import out_of_fold, scores
from olmix.laws.loglinear import LogLinear, loglinear
from olmix.laws.observations import observe
from olmix.laws.registry import AUTO, LOG_LINEAR, law_kinds
from olmix.solver.certified import Solution, solve
from tests.public_swarms import DROPPED, FOLDER, REFERENCE_LOSSES, load
from tests.test_solver import proposal_distance

PUBLISHED_SECONDS = 77.0
FOLDS, REPLICATES = 5, 60
# What `report` says at the beginning of a step, and the step.
STEPS = {
    "cross-validate ": "choose",
    "fit ": "fit",
    "cross-validate": "out of fold",
    "bootstrap": "bootstrap",
    "solve": "examine",
    "ask ": "examine",
}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


class StepClock:
    """Seconds of the steps of a fit, told what begins."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS.values(), 0.0)
        self._step: str | None = None
        self._since = time.perf_counter()

    def __call__(self, what: str) -> None:
        """End the step so far, and begin that of `what`."""
        now = time.perf_counter()
        if self._step is not None:
            self.seconds[self._step] += now - self._since
        self._since, self._step = now, next((step for word, step in STEPS.items() if what.startswith(word)), None)


def fits(console: Console) -> None:
    """Seconds and scores of three swarms, and the losses on dclm."""
    table = Table(
        "swarm",
        "runs x domains x tasks",
        "fit, s",
        "bootstrap, ms a replicate",
        "mean loss",
        "median, mean Spearman out of fold",
    )
    kind = law_kinds()[LOG_LINEAR]
    for name in ("partition-pdfs", "regmix-1m", "dclm"):
        swarm = load(name) if name == "regmix-1m" else load(name).with_mmlu_grouped()
        runs = observe(swarm.mixtures, swarm.bpb)
        law = loglinear(runs)
        fit = seconds(functools.partial(loglinear, runs), 7)
        replicate = seconds(functools.partial(bootstrap, kind, runs, law, 10, 0), 3) / 10
        held_out = scores(out_of_fold(kind.fit, runs, swarm.ids, FOLDS, 0), swarm.bpb)
        table.add_row(
            name,
            " x ".join(map(str, runs.shape)),
            f"{fit:.3f}",
            f"{1000 * replicate:.0f}",
            f"{law.loss.mean():.4e}",
            f"{np.nanmedian(held_out.spearman):.3f}, {held_out.mean_spearman:.3f}",
        )
    console.print(table)

    # What is left of the loop is dclm.
    losses = Table("metric of dclm", "mean Huber loss", "of the published code's")
    for task, reference in REFERENCE_LOSSES.items():
        loss = law.loss[swarm.tasks.index(task)]
        losses.add_row(task, f"{loss:.6e}", f"{loss / reference:.6f}")
    console.print(losses)
    ratio = PUBLISHED_SECONDS * len(swarm.tasks) / fit
    console.print(f"{len(swarm.tasks)} metrics: {fit:.3f} s, {ratio:,.0f} times less than 77 s a metric")


def everything(console: Console) -> None:
    """`olmix fit` on dclm as the 52 tasks of the preset, for the log-linear law and for the choice among laws."""
    steps = (f"{step}, s" for step in StepClock().seconds)
    table = Table("olmix fit, one core", "all, s", "CPU s", *steps, "gap", "law")
    for name in (LOG_LINEAR, AUTO):
        options = FitOptions(
            ratios=FOLDER / "dclm" / "ratios.csv",
            metrics=FOLDER / "dclm" / "metrics.csv",
            priors=FOLDER / "dclm" / "priors.json",
            preset="olmes-52",
            target_tokens=10**12,
            law=name,
            replicates=REPLICATES,
        )
        spent: list[list[float]] = []
        for _ in range(3):
            begin, cpu, clock = time.perf_counter(), time.process_time(), StepClock()
            found = fit_tables(read_inputs(options), clock)
            clock("end")
            spent.append([time.perf_counter() - begin, time.process_time() - cpu, *clock.seconds.values()])
        assert found.answer is not None
        assert len(found.inputs.table.tasks) == 52
        assert len(found.fit.replicates) == REPLICATES
        gap = found.answer.trust.proposal.gap
        cells = [f"{value:.1f}" for value in np.median(spent, axis=0)]
        table.add_row(f"--law {name}", *cells, f"{gap:.1e}", found.fit.kind.name)
    console.print(table)
    console.print(
        f"127 runs x 24 domains x 52 tasks, {REPLICATES} replicates, medians of 3; the rest of all is reading"
    )


def solves(console: Console) -> None:
    """Milliseconds and gaps of random laws."""
    table = Table("domains x tasks", "KL", "ms", "steps", "gap", "at their cap")
    for domains, tasks in ((24, 52), (64, 52), (1000, 200)):
        g = generator("benchmark", domains)
        nothing = np.zeros(tasks)
        law = LogLinear(g.uniform(0.1, 1, tasks), 2 * g.normal(size=(tasks, domains)), nothing, nothing, nothing + 1e9)
        reference = g.dirichlet(np.full(domains, 0.7)) + 1e-6
        caps = 4 * reference * g.uniform(0.3, 2, domains)
        for kl in (0.05, 0.0):

            def run(law: LogLinear = law, r: np.ndarray = reference, u: np.ndarray = caps, kl: float = kl) -> Solution:
                return solve(law.objective(), reference=r, kl=kl, caps=u)

            answer, took = run(), seconds(run, 15)
            table.add_row(
                f"{domains} x {tasks}",
                f"{kl}",
                f"{1000 * took:.1f}",
                str(answer.steps),
                f"{answer.gap:.1e}",
                str(int(answer.capped.sum())),
            )
    console.print(table)


def reproduction(console: Console) -> None:
    """How far the published proposal is, and how far from controls."""
    table = Table("proposal of step 0", "L1 from the published mixture")
    table.add_row("as published: 64 runs of seed 0, KL 0.05", f"{proposal_distance():.3f}")
    for seed in (1, 2, 3):
        table.add_row(f"control: seed {seed}", f"{proposal_distance(seed=seed):.3f}")
    table.add_row("control: all 127 runs", f"{proposal_distance(runs=127):.3f}")
    table.add_row("control: KL 0.1", f"{proposal_distance(kl=0.1):.3f}")
    table.add_row("control: KL 0.025", f"{proposal_distance(kl=0.025):.3f}")
    table.add_row("control: token counts as reference", f"{proposal_distance(reference='token_counts'):.3f}")
    console.print(table)
    console.print(f"all after dropping {len(DROPPED)} metrics and averaging MMLU into 4 groups: 52 tasks")


if __name__ == "__main__":
    printer = Console(width=130)
    fits(printer)
    everything(printer)
    solves(printer)
    reproduction(printer)
