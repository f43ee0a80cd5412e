"""`olmix plan`, for a person and for a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmix.artifacts.plan_file import change_to_json
from olmix.core.changes import ADD, DRIFT, MERGE, PARTITION, REMOVE, RENAME, REVISE, Change
from olmix.core.plan import Plan
from olmix.core.sketch import Drift

if TYPE_CHECKING:
    from olmix.cli.cost import Cost

_SIGNS = {ADD: "+", REMOVE: "-", REVISE: "~", DRIFT: "≈", RENAME: "=", PARTITION: "±", MERGE: "±"}
_VERBS = {
    ADD: "added",
    REMOVE: "removed",
    REVISE: "revised",
    DRIFT: "drifted",
    RENAME: "renamed",
    PARTITION: "partitioned",
    MERGE: "merged",
}


@dataclass(frozen=True)
class PlanView:
    """A plan and what is said about it.

    `caps` (None when there is no target), swarm runs with and without reuse, runs of the validation, stale stages (None
    when the pipeline was not asked), those that no dvc repro would run by itself and what to do about them, whether the
    accepted mixture is for this very dataset, whether the pipeline's own plan is the same already, whether the proxies
    are trained elsewhere, what runs cost (None where nothing is trained here, or a plan is made from files), the
    standard error of each domain's tokens where they are an estimate (None where it is unknown), and the file of the
    mixture that the plan starts from (None without one).
    """

    plan: Plan
    caps: Mapping[str, float] | None
    runs: int
    runs_without_reuse: int
    validation_runs: int
    stale: Sequence[str] | None = None
    unseen: Sequence[str] = ()
    advice: str = ""
    accepted: bool = False
    same_plan: bool = False
    external: bool = False
    cost: Cost | None = None
    token_errors: Mapping[str, int | None] = field(default_factory=dict)
    start: Path | None = None

    @property
    def something_to_do(self) -> bool:
        """Whether `dvc repro` would run a stage; from files alone, whether anything changed."""
        return bool(self.stale) if self.stale is not None else bool(self.plan.changes)

    @property
    def settled(self) -> bool:
        """The mixture for this dataset is accepted, and nothing behind the plan is stale: no run to announce."""
        behind = [
            stage
            for stage in self.stale or ()
            if stage not in ("plan", "keys")
            and not stage.startswith(("prepare@", "partition@"))
            and not stage.endswith(".dvc")
        ]
        return self.accepted and self.same_plan and not behind

    def to_json(self) -> dict[str, Any]:
        """`{changes, affected, virtual, runs, runs_without_reuse, ...}`."""
        plan, space = self.plan, self.plan.space
        virtual, runs = None, 0 if self.settled else self.runs
        if space.members:
            virtual = {
                "members": dict(space.members),
                "capacity": _finite(space.capacity(self.caps)) if self.caps else None,
                "share_before": self._share_before(),
            }
        return {
            "dataset": plan.dataset.digest,
            "changes": [] if self.accepted else [self._change(change) for change in plan.changes],
            "drifted": [
                {"domain": name, "changed": drift.changed, "error": drift.error, "kept": name in plan.drifted}
                for name, drift in sorted(plan.drifts.items())
            ],
            "affected": [] if self.settled else list(plan.affected),
            "virtual": virtual,
            "dimensions": 0 if self.settled else plan.dimensions,
            "runs": runs,
            "runs_without_reuse": self.runs_without_reuse,
            "validation_runs": 0 if self.settled else self.validation_runs,
            "external": self.external,
            "cost": self.cost.to_json(runs, self.runs_without_reuse, self.validation_runs) if self.cost else None,
            "duplicates": [list(names) for names in plan.duplicates],
            "token_errors": dict(self.token_errors),
            "stale": list(self.stale) if self.stale is not None else None,
            "unseen": list(self.unseen),
            "something_to_do": self.something_to_do,
        }

    def _change(self, change: Change) -> dict[str, Any]:
        drift = self.plan.drifts.get(change.domains[0]) if change.kind in (REVISE, DRIFT) else None
        return change_to_json(change) | ({"changed": drift.changed, **asdict(drift)} if drift else {})

    def _share_before(self) -> float:
        """The members' share of the base mixture together."""
        held = {c.domains[0]: c.origin[0] for c in self.plan.changes if c.kind == RENAME}
        weights = self.plan.base.weights
        return math.fsum(weights.get(held.get(name, name), 0.0) for name in self.plan.space.members)

    def to_text(self) -> str:
        """The plan as lines for a terminal."""
        return f"{self._plan_text()}\n{self.advice}".rstrip()

    def _plan_text(self) -> str:
        plan = self.plan
        if self.settled:
            todo = (
                f"To run: {', '.join(self.stale)}; no proxies"
                if self.stale
                else "Nothing to do: the pipeline is up to date"
            )
            return f"No change since {self.start}\n\n{todo}"
        lines = [self._heading(), ""]
        if not self.accepted:
            lines += self._change_lines()
        renamed = {name for change in plan.changes if change.kind == RENAME for name in change.domains}
        touched = {name for change in plan.changes for name in change.domains}
        unchanged = [name for name in plan.dataset.names if name not in touched]
        freed = sorted((set(plan.affected) & set(unchanged)) | (set(plan.affected) & renamed))
        lines.append(f"Affected: {', '.join(plan.affected) or 'none'}")
        if freed:
            lines.append(f"  recomputed though unchanged: {', '.join(freed)}")
        lines.append(self._virtual())
        lines.append(self._runs())
        done = self.stale is not None and not self.stale
        if self.cost is not None and self.runs + self.validation_runs and not done:
            lines += self.cost.to_text(self.runs, self.runs_without_reuse, self.validation_runs).splitlines()
        lines += ["", self._summary()]
        return "\n".join(lines)

    def _change_lines(self) -> list[str]:
        """What became of each domain, and an empty line."""
        plan = self.plan
        width = max((len(_subject(change)) for change in plan.changes), default=0)
        lines = [self._line(change, width) for change in plan.changes]
        touched = {name for change in plan.changes for name in change.domains}
        # Unchanged since the accepted mixture, but not since their weight was measured.
        earlier = sorted(plan.drifts.keys() - touched)
        lines += [f"  ≈ {name}  since its weight was measured: {_drift_text(plan.drifts[name])}" for name in earlier]
        unchanged = [name for name in plan.dataset.names if name not in touched]
        if unchanged:
            lines.append(f"  = {len(unchanged)} unchanged: {', '.join(unchanged)}")
        lines += [f"  ! the same documents under several names: {' = '.join(names)}" for names in plan.duplicates]
        return [*lines, ""]

    def _heading(self) -> str:
        if self.accepted:
            return f"No change of the data since {self.start}; its plan is built again"
        if not self.plan.base.domains:
            return "Plan for a first mixture" + (f" ({self.start} is empty)" if self.start else "")
        return f"Plan against {self.start}"

    def _line(self, change: Change, width: int) -> str:
        before = sum(self.plan.base.domains[n].tokens for n in _before(change))
        if change.kind == REMOVE:
            tokens = f"{before:,} tokens"
        else:
            tokens = ("" if change.kind == ADD else f"{before:,} -> ") + self._tokens(change.domains)
        line = f"  {_SIGNS[change.kind]} {_subject(change):<{width}}  {_VERBS[change.kind]}, {tokens}"
        drift = self.plan.drifts.get(change.domains[0]) if change.kind in (REVISE, DRIFT) else None
        return f"{line}\n    {_drift_text(drift)}" if drift else line

    def _tokens(self, names: Sequence[str]) -> str:
        """The tokens that domains hold together, and their standard error if any are estimated."""
        tokens = sum(self.plan.dataset.domains[name].tokens for name in names)
        errors = [self.token_errors[name] for name in names if name in self.token_errors]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return f"{tokens:,} tokens, an estimate of unknown error"
        return f"{tokens:,} ± {math.hypot(*known):,.0f} tokens" if known else f"{tokens:,} tokens"

    def _virtual(self) -> str:
        space = self.plan.space
        if not space.members:
            return "Virtual domain: none"
        text = f"Virtual domain: {len(space.members)} members, {self._share_before():.1%} of the accepted mixture"
        if self.caps:
            capacity = space.capacity(self.caps)
            scarcest = space.scarcest(self.caps)
            text += f"; may take up to {min(capacity, 1.0):.1%}"
            text += f", where {scarcest} hits its repetition limit" if capacity < 1 else ""
        return text

    def _runs(self) -> str:
        if self.external:
            return (
                f"Runs: {self.runs} to train elsewhere ({self.runs_without_reuse} without reuse); "
                "weights are written to build/ratios.csv, metrics go in external/"
            )
        already_trained = self._already_trained
        found = (
            "those in the journal or the cache need no training"
            if already_trained is None
            else f"{already_trained} of {self.runs} already trained"
        )
        return (
            f"Runs: {self.runs} in the swarm ({self.runs_without_reuse} without reuse), "
            f"{self.validation_runs} to validate the proposal" + (f"; {found}" if self.runs else "")
        )

    def _to_run(self) -> str:
        stages = self.stale or ()
        if {"plan", "swarm", "collapse", "train", "evaluate", "fit", "propose", "validate"} <= set(stages):
            return "everything"
        return ", ".join(stages) + ("" if "validate" in stages else " and what follows")

    @property
    def _already_trained(self) -> int | None:
        return self.cost.already_trained if self.cost is not None else None

    def _summary(self) -> str:
        counts = [
            f"{sum(change.kind == kind for change in self.plan.changes)} {verb}"
            for kind, verb in _VERBS.items()
            if any(change.kind == kind for change in self.plan.changes)
        ]
        changes = "no change of the data" if self.accepted else ", ".join(counts) or "no change"
        if self.stale is not None and not self.stale:
            return (
                f"Summary: {changes}; nothing to run: the pipeline is up to date; run `olmix accept` to accept the "
                "proposal"
            )
        # Runs that are trained elsewhere are there when their metrics are: when evaluate has seen them.
        needs = {"swarm", "evaluate"} if self.external else {"swarm", "collapse", "train"}
        if self.stale and self.same_plan and not needs & set(self.stale):
            return f"Summary: {changes}; no proxies for the swarm; to run: {self._to_run()}"
        # A validation costs the same with reuse and without.
        count, without = self.runs + self.validation_runs, self.runs_without_reuse + self.validation_runs
        parts = [f"{self._already_trained} already trained"] if self._already_trained else []
        if self.validation_runs:
            parts = [f"{self.runs} in the swarm, up to {self.validation_runs} to validate", *parts]
        what = "runs to train elsewhere" if self.external else "proxy runs"
        saved = f", {1 - count / without:.0%} fewer than without reuse" if count < without else ""
        runs = f"{count} {what}" + (f" ({'; '.join(parts)})" if parts else "") + saved
        stale = f"; to run: {self._to_run()}" if self.stale else ""
        return f"Summary: {changes}; {runs}{stale}"


def _drift_text(drift: Drift) -> str:
    """What changed of a domain since its weight was measured."""
    parts = [
        f"{drift.new:.1%} ± {drift.new_error:.1%} of its text is new, {drift.gone:.1%} ± {drift.gone_error:.1%} is gone"
    ]
    if drift.shift is not None and drift.shift_error is not None:
        how = "as before" if drift.shift < 2 * drift.shift_error else "differently"
        parts.append(f"distributed {how} (n-grams moved {drift.shift:.1%} ± {drift.shift_error:.1%})")
    if drift.same_sample:
        parts.append("proxies read the same tokens")
    return "; ".join(parts)


def _subject(change: Change) -> str:
    if change.origin and change.origin != change.domains:
        return f"{', '.join(change.origin)} -> {', '.join(change.domains)}"
    return ", ".join(change.domains)


def _before(change: Change) -> tuple[str, ...]:
    return change.domains if change.kind == REMOVE else change.origin


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
