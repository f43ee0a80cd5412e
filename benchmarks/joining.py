"""What an older swarm over fewer domains adds to the newest runs: `python benchmarks/joining.py`.

Reads the public swarm regmix-1m (512 runs over 17 domains; OLMIX_SWARMS, default ../shared/swarms), split by domain
support: the older swarm is the 69 runs that drew nothing from two domains, as if these had been added later; the newest
one is the first n of the others in the order of a seed, and the runs behind the largest n test. The law is fitted to
the newest runs alone and, as `olmix fit --also` does, joined with the older ones at the weight that cross-validation on
the newest chooses. Spearman's rank correlation on the test runs, the mean over tasks and that of the mean BPB, as means
over seeds; gains with their standard errors.

Then the same with older results that say nothing (shuffled between the runs) and that are off by half a BPB (another
tokeniser, say), at two sizes: neither may hurt. It does not measure an older swarm of other proxies or other data.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.core.seeds import generator
from olmix.fit.diagnostics import scores
from olmix.fit.joining import Older, join
from olmix.laws.base import Law, LawKind
from olmix.laws.observations import Observations, observe, stack
from olmix.laws.registry import law_kinds
from tests.public_swarms import load

ADDED = ("train_the_pile_pubmed_central", "train_the_pile_uspto_backgrounds")
LAWS = ("log-linear", "diminishing")
SIZES = (8, 12, 17, 34, 68, 136)
DISTURBED = (17, 68)
AS_IS, SCRAMBLED, SHIFTED = "as it is", "scrambled", "shifted by 0.5 BPB"
SHIFT = 0.5
TUNED = range(100, 110)
WANTED, WORST = 0.1, -0.01  # gain with n <= m new runs, and the most that may be lost with any


@dataclass(frozen=True)
class Split:
    """Older, newest and test runs of a seed, and the ids of the newest."""

    older: Observations
    newest: Observations
    test: Observations
    ids: list[str]


@dataclass(frozen=True)
class Outcome:
    """Rank correlations (per task, of the mean) of the newest alone and joined, and how the older swarm joined."""

    alone: tuple[float, float]
    joined: tuple[float, float]
    older: Older

    @property
    def gain(self) -> np.ndarray:
        """(per task, of the mean)."""
        return np.subtract(self.joined, self.alone)

    @property
    def taken(self) -> str:
        """The weight, with the mean offset where one was taken."""
        offset = self.older.offsets.mean()
        return f"{self.older.weight:g}" + (f" ({offset:+.2f})" if self.older.offsets.any() else "")


class Remembered:
    """A law's fit that fits the same observations once: the variants of a swarm share the folds without it."""

    def __init__(self, kind: LawKind) -> None:
        self._kind, self._known = kind, dict[tuple[bytes, ...], Law]()

    def kind(self) -> LawKind:
        """The law with this fit."""
        return replace(self._kind, fit=self.fit)

    def fit(self, observations: Observations) -> Law:
        """The fit, from memory where it is known."""
        key = tuple(array.tobytes() for array in (observations.mixtures, observations.bpb, observations.weights))
        if key not in self._known:
            self._known[key] = self._kind.fit(observations)
        return self._known[key]


def split(seed: int, size: int, older: str) -> Split:
    """The swarm split by the support of its runs, the older results as `older` says."""
    read = load("regmix-1m")
    whole = observe(read.mixtures, read.bpb)
    known = (whole.mixtures[:, [read.domains.index(name) for name in ADDED]] == 0).all(axis=1)
    order = generator("joining benchmark", seed).permutation(np.flatnonzero(~known))
    old = whole.rows(known)
    if older == SCRAMBLED:
        shuffled = generator("joining benchmark", "scrambled", seed).permutation(len(old.bpb))
        old = replace(old, bpb=old.bpb[shuffled])
    elif older == SHIFTED:
        old = replace(old, bpb=old.bpb + SHIFT)
    return Split(old, whole.rows(order[:size]), whole.rows(order[max(SIZES) :]), [read.ids[k] for k in order[:size]])


def outcome(kind: LawKind, runs: Split) -> Outcome:
    """The law without and with the older swarm."""
    tasks = runs.newest.shape[2]
    (older,) = join(kind, runs.newest, [runs.older], runs.ids, np.full(tasks, 1 / tasks), seed=0)
    together = stack([runs.newest, older.observations]) if older.weight > 0 else runs.newest
    laws = kind.fit(runs.newest), kind.fit(together)
    found = [scores(law.predict(runs.test.mixtures), runs.test.bpb) for law in laws]
    # A constant prediction orders nothing.
    alone, joined = ((float(np.nan_to_num(s.spearman).mean()), float(np.nan_to_num(s.mean_spearman))) for s in found)
    return Outcome(alone, joined, older)


def spread(values: np.ndarray) -> str:
    """Mean, signed, and standard error over seeds."""
    error = f" ±{values.std(ddof=1) / np.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{values.mean():+.3f}{error}"


def row(name: str, size: int, found: Sequence[Outcome]) -> list[str]:
    """The cells of one law and size."""
    alone, joined, gain = (np.array([getattr(o, what) for o in found]) for what in ("alone", "joined", "gain"))
    pairs = (" / ".join(f"{value:.3f}" for value in values.mean(axis=0)) for values in (alone, joined))
    return [name, str(size), *pairs, " / ".join(map(spread, gain.T)), ", ".join(o.taken for o in found)]


def main() -> None:
    """Measure, and print tables and conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3)), help="splits")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=SIZES, help="new runs")
    arguments = parser.parse_args()
    if set(arguments.seeds) & set(TUNED):
        parser.error(f"seeds {TUNED[0]} to {TUNED[-1]} are those that joining was settled on; choose others")
    console = Console(width=150, highlight=False)
    begin = time.process_time()
    domains = len(load("regmix-1m").domains)
    gains: dict[tuple[str, int], list[np.ndarray]] = {}
    tables = {
        older: Table(f"older swarm {older}", "new runs", "alone: per task / mean", "joined", "gain", "weight (offset)")
        for older in (AS_IS, SCRAMBLED, SHIFTED)
    }
    for name in LAWS:
        for size in arguments.sizes:
            found: dict[str, list[Outcome]] = {AS_IS: []}
            if size in DISTURBED:
                found |= {SCRAMBLED: [], SHIFTED: []}
            for seed in arguments.seeds:
                kind = Remembered(law_kinds()[name]).kind()
                for older, outcomes in found.items():
                    outcomes.append(outcome(kind, split(seed, size, older)))
            for older, outcomes in found.items():
                tables[older].add_row(*row(name, size, outcomes))
                gains.setdefault((older, size), []).append(np.mean([o.gain for o in outcomes], axis=0))
    for older, table in tables.items():
        console.print(table if table.row_count else f"older swarm {older}: measured at {DISTURBED} new runs")
    few = [gain for (older, size), all_laws in gains.items() if older == AS_IS and size <= domains for gain in all_laws]
    if few:
        verdict(console, f"least gain with up to {domains} new runs (m), wanted >= {WANTED}", np.min(few), WANTED)
    for older in tables:
        those = [gain for (kind_of, _), all_laws in gains.items() if kind_of == older for gain in all_laws]
        if those:
            verdict(console, f"least gain, older swarm {older}, wanted >= {WORST}", np.min(those), WORST)
    console.print(f"{time.process_time() - begin:.0f} CPU seconds, one core")


def verdict(console: Console, what: str, least: float, wanted: float) -> None:
    """One condition: the least over laws, sizes and both measures of a mean over seeds."""
    console.print(f"{what}: {least:+.3f}: {'reached' if least >= wanted else 'NOT REACHED'}")


if __name__ == "__main__":
    main()
