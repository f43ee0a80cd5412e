"""From the runs of a swarm to a law and what is known about it: repeats merged, older swarms joined, the law chosen by
cross-validation where that is wanted, its replicates and its predictions out of fold.

Everything that fits a swarm goes through here, the pipeline as well as a table that somebody else produced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import SwarmError
from olmix.fit.bootstrap import bootstrap
from olmix.fit.diagnostics import DesignRank, Scores, design_rank, out_of_fold, scores
from olmix.fit.joining import Older, join
from olmix.fit.selection import Choice, choose
from olmix.laws.base import Law, LawKind
from olmix.laws.exponential import HUBER_DELTA
from olmix.laws.loglinear import RIDGE
from olmix.laws.observations import Observations, stack
from olmix.laws.registry import AUTO, CHOOSABLE, LOG_LINEAR, law_kinds
from olmix.laws.repeats import SAME_DECIMALS, Repeats, merge_repeats

# Beyond so many domains `auto` leaves laws out that take gigabytes and hours for them.
MOST_DENSE = 2_000
JOINER = "autoscale"  # weighs older swarms before a law is chosen


@dataclass(frozen=True)
class FitSettings:
    """The law by name, or `auto`; Huber delta (BPB) and ridge of the log-linear law; folds of the cross-validation,
    bootstrap replicates, and the seed of both.
    """

    law: str = AUTO
    delta: float = HUBER_DELTA
    ridge: float = RIDGE
    folds: int = 5
    replicates: int = 60
    seed: int = 0

    def kinds(self) -> dict[str, LawKind]:
        """Every law under these settings."""
        return law_kinds(self.delta, self.ridge)


@dataclass(frozen=True)
class SwarmFit:
    """A law fitted to a swarm.

    observations: all that it was fitted to, the newest swarm's distinct mixtures first; repeats: what merging them
    found; held_out (K', n): BPB of the newest swarm's mixtures as predicted out of fold, and their scores; choice: how
    `auto` decided; older: how the older swarms joined.
    """

    kind: LawKind
    law: Law
    replicates: tuple[Law, ...]
    observations: Observations
    repeats: Repeats
    held_out: Array
    scores: Scores
    design: DesignRank
    choice: Choice | None
    older: tuple[Older, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of the newest swarm's distinct mixtures."""
        return self.repeats.ids

    @property
    def newest(self) -> Observations:
        """The newest swarm alone."""
        return self.repeats.observations


def fit_swarm(
    observations: Observations,
    ids: Sequence[str],
    task_weights: Array,
    settings: FitSettings,
    *,
    older: Sequence[Observations] = (),
    report: Callable[[str], None] = lambda what: None,
) -> SwarmFit:
    """Fit a swarm: observations (K, m), (K, n), ids (K,), task_weights (n,); `older` over the same domains and tasks.

    `report` is called with what begins. Raises SwarmError for an unknown law and for fewer distinct mixtures than the
    law asks for.
    """
    kinds = settings.kinds()
    repeats = merge_repeats(observations, ids)
    newest = repeats.observations
    older = [merge_repeats(o, [str(k) for k in range(len(o.mixtures))]).observations for o in older]
    require_runs(settings.law, kinds, newest, older)

    def joined_by(kind: LawKind) -> tuple[Older, ...]:
        return join(
            kind,
            newest,
            older,
            repeats.ids,
            task_weights,
            seed=settings.seed,
            report=lambda what: report(f"join {what}"),
        )

    choice = None
    if settings.law == AUTO:
        # Weighed by a law that needs few runs: taken as they are, old runs that are off would decide the choice.
        weighed = [o.observations for o in joined_by(kinds[JOINER]) if o.weight > 0]
        usable = {name: kinds[name] for name in CHOOSABLE if _choosable(kinds[name], newest, weighed)}
        reference = LOG_LINEAR if LOG_LINEAR in usable else sorted(usable)[0]
        choice = choose(
            usable,
            reference,
            newest,
            repeats.ids,
            task_weights,
            seed=settings.seed,
            folds=settings.folds,
            beside=stack(weighed) if weighed else None,
            report=lambda name: report(f"cross-validate {name}"),
        )
    kind = kinds[choice.best if choice else settings.law]
    joined = joined_by(kind)
    counted = _counted(joined)
    # An older swarm that does not help counts for nothing here either.
    require_runs(kind.name, kinds, newest, [o.observations for o in joined if o.weight > 0])
    everything = newest if counted is None else stack([newest, counted])
    report(f"fit {kind.name}")
    law = kind.fit(everything)
    report("cross-validate")
    held_out = out_of_fold(
        kind.fit,
        newest,
        repeats.ids,
        min(settings.folds, len(repeats.ids)),
        settings.seed,
        counted,
    )
    wanted = settings.replicates if kind.most_replicates is None else min(settings.replicates, kind.most_replicates)
    report(f"bootstrap, {wanted} replicates")
    replicates = bootstrap(kind, everything, law, wanted, settings.seed)
    return SwarmFit(
        kind,
        law,
        tuple(replicates),
        everything,
        repeats,
        held_out,
        scores(held_out, newest.bpb, task_weights, newest.weights),
        design_rank(everything.mixtures[everything.counted]),
        choice,
        joined,
    )


def _counted(joined: Sequence[Older]) -> Observations | None:
    """The runs of older swarms that count, None where none does."""
    counted = [o.observations for o in joined if o.weight > 0]
    return stack(counted) if counted else None


def require_runs(law: str, kinds: dict[str, LawKind], newest: Observations, older: Sequence[Observations] = ()) -> None:
    """Raise SwarmError for a law that is unknown or that asks for more distinct mixtures than there are."""
    if law != AUTO and law not in kinds:
        raise SwarmError(f"no law {law!r}; the laws are {', '.join([AUTO, *sorted(kinds)])}")
    names = [law] if law != AUTO else list(CHOOSABLE)
    if any(_enough(kinds[name], newest, older) for name in names):
        return
    least = min(kinds[name].least_runs(_sampled(newest, older)) for name in names)
    raise SwarmError(
        f"{_rows(newest, older)} runs with distinct mixtures are too few for law {law}, which needs {least} for "
        f"{_sampled(newest, older)} sampled domains",
        way_out="train more, or choose another law",
    )


def _enough(kind: LawKind, newest: Observations, older: Sequence[Observations]) -> bool:
    return _rows(newest, older) >= kind.least_runs(_sampled(newest, older))


def _choosable(kind: LawKind, newest: Observations, older: Sequence[Observations]) -> bool:
    return _enough(kind, newest, older) and not (kind.dense and _sampled(newest, older) > MOST_DENSE)


def _rows(newest: Observations, older: Sequence[Observations]) -> int:
    """Distinct mixtures that count."""
    mixtures = np.concatenate([o.mixtures[o.counted] for o in (newest, *older)])
    return len(np.unique(np.round(mixtures, SAME_DECIMALS), axis=0))


def _sampled(newest: Observations, older: Sequence[Observations]) -> int:
    return int((~functools.reduce(np.logical_and, [o.never_sampled for o in (newest, *older)])).sum())
