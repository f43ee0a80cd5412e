"""Seconds, losses and certificates of the fit and the solver on one core: `python
benchmarks/fit_and_solve.py`.

Reads the public swarms at OLMIX_SWARMS (default: ../shared/swarms). The reference is the published code,
which fits one metric at a time from 300 random starts with L-BFGS: 77 CPU seconds a metric, measured on one
core.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.core.diagnostics import out_of_fold, scores
from olmix.core.loglinear import LogLinear, bootstrap_loglinear, fit_loglinear
from olmix.core.seeds import generator
from olmix.core.solver import Solution, solve
from tests.public_swarms import DROPPED, REFERENCE_LOSSES, load
from tests.test_solver import proposal_distance

PUBLISHED_SECONDS = 77.0


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def fits(console: Console) -> None:
    table = Table(
        "swarm",
        "runs x domains x tasks",
        "fit, s",
        "bootstrap, ms a replicate",
        "mean loss",
        "median, mean Spearman",
    )
    for name in ("dclm", "partition-pdfs", "regmix-1m"):
        swarm = load(name) if name == "regmix-1m" else load(name).with_mmlu_grouped()
        x, y = swarm.mixtures, swarm.bpb
        law = fit_loglinear(x, y)
        fit = seconds(lambda x=x, y=y: fit_loglinear(x, y), 7)
        replicate = seconds(lambda x=x, y=y, law=law: bootstrap_loglinear(x, y, 10, 0, law=law), 3) / 10
        held_out = scores(out_of_fold(fit_loglinear, x, y, seed=0, ids=swarm.ids), y)
        table.add_row(
            name,
            f"{x.shape[0]} x {x.shape[1]} x {y.shape[1]}",
            f"{fit:.3f}",
            f"{1000 * replicate:.0f}",
            f"{law.loss.mean():.4e}",
            f"{np.nanmedian(held_out.spearman):.3f}, {held_out.mean_spearman:.3f}",
        )
        if name == "dclm":
            dclm, dclm_law, dclm_seconds = swarm, law, fit
    console.print(table)

    losses = Table("metric of dclm", "mean Huber loss", "of the published code's")
    for task, reference in REFERENCE_LOSSES.items():
        loss = dclm_law.loss[dclm.tasks.index(task)]
        losses.add_row(task, f"{loss:.6e}", f"{loss / reference:.6f}")
    console.print(losses)
    ratio = PUBLISHED_SECONDS * len(dclm.tasks) / dclm_seconds
    console.print(f"{len(dclm.tasks)} metrics: {dclm_seconds:.3f} s, {ratio:,.0f} times less than 77 s a metric")


def solves(console: Console) -> None:
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
                str(answer.iterations),
                f"{answer.gap:.1e}",
                str(int(answer.capped.sum())),
            )
    console.print(table)


def reproduction(console: Console) -> None:
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
    solves(printer)
    reproduction(printer)
