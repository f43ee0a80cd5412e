"""How well each law, and `auto`, orders runs that it has not seen: `python benchmarks/laws.py`.

Reads the public swarms at OLMIX_SWARMS (default: ../shared/swarms). A split of a seed orders the runs of a swarm; the
first so many train, and the runs behind the largest training set test, the same ones for every size, so that sizes
compare. Spearman's rank correlation, the mean over tasks and that of the mean BPB, as means over seeds with their
standard errors (of splits of one swarm, whose runs overlap: less than the error over swarms). `auto` chooses as
`olmix fit` does, by cross-validation inside the training runs. Then the two conditions that the laws were built to,
and whether every prediction is within the range that the training runs support.

Laws and the choice between them were settled on splits of the seeds 100 to 109, which this refuses; on the same swarms,
as there are no others.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.core.seeds import generator
from olmix.fit.diagnostics import scores
from olmix.fit.selection import choose
from olmix.laws.observations import Observations, observe
from olmix.laws.registry import AUTO, CHOOSABLE, LOG_LINEAR, law_kinds
from olmix.laws.repeats import merge_repeats
from tests.public_swarms import load

LAWS = (*CHOOSABLE, "square-root", "gaussian-process")
SIMPLE = ("linear", "square-root")
TUNED = range(100, 110)
FARTHEST = 10.0  # standard deviations of the training runs that a prediction may be from their mean
WORST = -0.02  # the most that auto may lose


@dataclass(frozen=True)
class Public:
    """A public swarm, the training sizes, and those of about twice and three times its number of domains."""

    name: str
    sizes: tuple[int, ...]
    judged: tuple[int, ...]

    def read(self) -> tuple[Observations, list[str]]:
        """Its runs and their ids, the MMLU subjects averaged into their groups."""
        read = load(self.name) if self.name == "regmix-1m" else load(self.name).with_mmlu_grouped()
        return observe(read.mixtures, read.bpb), read.ids


SWARMS = (
    Public("dclm", (24, 43, 48, 72), (48, 72)),
    Public("partition-pdfs", (22, 44), (44,)),  # 64 runs: three times 22 domains are more
    Public("regmix-1m", (17, 34, 51), (34, 51)),
)
FEWER, MORE = 43, 72  # condition (a), on dclm

# Of a swarm, law and size: (per task, of the mean) for each seed.
Measured = dict[tuple[str, str, int], list[tuple[float, float]]]


@dataclass
class Results:
    """What was measured, what auto chose, the farthest prediction in standard deviations, and whether all are finite.

    The deviation is from the training runs' mean, in their standard deviations, task by task.
    """

    spearman: Measured
    chosen: dict[tuple[str, int], Counter[str]]
    farthest: float = 0.0
    finite: bool = True

    def of(self, swarm: str, law: str, size: int) -> np.ndarray:
        """(seeds, 2)."""
        return np.array(self.spearman[swarm, law, size])


def split(swarm: Public, seed: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """The runs that may train, in order, and those that test."""
    order = generator("laws benchmark", swarm.name, seed).permutation(runs)
    return order[: max(swarm.sizes)], order[max(swarm.sizes) :]


def chosen(train: Observations, ids: Sequence[str]) -> str:
    """The law that `olmix fit --law auto` takes."""
    merged = merge_repeats(train, ids)
    kinds, sampled = law_kinds(), int((~train.never_sampled).sum())
    usable = {name: kinds[name] for name in CHOOSABLE if len(merged.ids) >= kinds[name].least_runs(sampled)}
    reference = LOG_LINEAR if LOG_LINEAR in usable else sorted(usable)[0]
    weights = np.full(train.shape[2], 1 / train.shape[2])
    return choose(usable, reference, merged.observations, merged.ids, weights, seed=0).best


def measure(swarm: Public, seed: int, results: Results) -> None:
    """All laws at all sizes on one split."""
    whole, ids = swarm.read()
    may, tested = split(swarm, seed, len(ids))
    test, kinds = whole.rows(tested), law_kinds()
    for size in swarm.sizes:
        train = whole.rows(may[:size])
        found = {}
        for name in LAWS:
            predicted = kinds[name].fit(train).predict(test.mixtures)
            away = np.abs(predicted - train.bpb.mean(axis=0)) / train.bpb.std(axis=0)
            results.farthest = max(results.farthest, float(away.max()))
            results.finite &= bool(np.isfinite(predicted).all())
            score = scores(predicted, test.bpb)
            # A constant prediction orders nothing.
            found[name] = float(np.nan_to_num(score.spearman).mean()), float(np.nan_to_num(score.mean_spearman))
        auto = chosen(train, [ids[k] for k in may[:size]])
        results.chosen[swarm.name, size][auto] += 1
        found[AUTO] = found[auto]
        for name, value in found.items():
            results.spearman[swarm.name, name, size].append(value)


def spread(values: np.ndarray, sign: str = "") -> str:
    """Mean and standard error over seeds."""
    error = f" ±{values.std(ddof=1) / np.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{error}"


def show(console: Console, swarm: Public, results: Results) -> None:
    """A table of one swarm: a row a law, best figures bold."""
    table = Table(swarm.name, *(f"{size} runs: per task / mean" for size in swarm.sizes))
    names = [*LAWS, AUTO]
    means = {size: [results.of(swarm.name, name, size).mean(axis=0) for name in names] for size in swarm.sizes}
    for i, name in enumerate(names):
        if name == AUTO:
            table.add_section()
        cells = []
        for size in swarm.sizes:
            best = np.max(means[size][:-1], axis=0)
            texts = [spread(column) for column in results.of(swarm.name, name, size).T]
            marked = zip(texts, means[size][i] >= best, strict=True)
            cells.append(" / ".join(f"[bold]{text}[/]" if is_best else text for text, is_best in marked))
        table.add_row(name, *cells)
    counts = (results.chosen[swarm.name, size].most_common() for size in swarm.sizes)
    table.add_row("  which took", *(", ".join(f"{name} {count}" for name, count in taken) for taken in counts))
    console.print(table)


def line(what: str, ahead: np.ndarray, least: float) -> str:
    """A condition and whether it holds: differences (seeds, 2) per task and of the mean."""
    reached = "reached" if (ahead.mean(axis=0) > least).all() else "NOT REACHED"
    tasks, mean = (spread(column, "+") for column in ahead.T)
    return f"{what}: per task {tasks}, mean {mean}: {reached}"


def conditions(console: Console, swarms: Sequence[Public], results: Results) -> None:
    """The two conditions, in plain lines."""
    if any(swarm.name == "dclm" for swarm in swarms):
        ahead = results.of("dclm", AUTO, FEWER) - results.of("dclm", LOG_LINEAR, MORE)
        console.print(f"(a) fewer runs ({FEWER} = {FEWER / MORE:.1f} x {MORE}), wanted: at least as good (0)")
        console.print(line(f"    dclm, auto at {FEWER} - log-linear at {MORE}", ahead, 0.0))
    console.print(f"(b) auto never costs much, wanted: > {WORST} (more is better)")
    for swarm in swarms:
        for size in swarm.judged:
            auto = results.of(swarm.name, AUTO, size)
            simple = [results.of(swarm.name, name, size) for name in SIMPLE]
            # The better of the two by its mean over seeds, for each measure by itself.
            better = np.stack([max((s[:, k] for s in simple), key=np.mean) for k in range(2)], axis=1)
            where = f"    {swarm.name} {size}, auto"
            console.print(line(f"{where} - log-linear", auto - results.of(swarm.name, LOG_LINEAR, size), WORST))
            console.print(line(f"{where} - better of {' and '.join(SIMPLE)}", auto - better, WORST))


def main() -> None:
    """Measure, and print tables and conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="splits")
    parser.add_argument("--quick", action="store_true", help="the quickest swarm, on the first of the seeds")
    arguments = parser.parse_args()
    if set(arguments.seeds) & set(TUNED):
        parser.error(f"seeds {TUNED[0]} to {TUNED[-1]} are those that the laws were settled on; choose others")
    seeds, swarms = (arguments.seeds[:1], SWARMS[-1:]) if arguments.quick else (arguments.seeds, SWARMS)
    console = Console(width=150, highlight=False)
    begin = time.process_time()
    results = Results(defaultdict(list), defaultdict(Counter))
    console.print(
        f"splits of the seeds {', '.join(map(str, seeds))}; laws and choice were settled on the seeds "
        f"{TUNED[0]} to {TUNED[-1]}, none of which is used here"
    )
    for swarm in swarms:
        for seed in seeds:
            measure(swarm, seed, results)
        show(console, swarm, results)
    conditions(console, swarms, results)
    within = results.finite and results.farthest <= FARTHEST + 1e-9
    console.print(
        f"farthest of all predictions: {results.farthest:.2f} standard deviations from the mean (limit {FARTHEST:g}), "
        f"{'all finite' if results.finite else 'SOME NOT FINITE'}: {'reached' if within else 'NOT REACHED'}"
    )
    console.print(f"{time.process_time() - begin:.0f} CPU seconds, one core")


if __name__ == "__main__":
    main()
