"""What a plan costs: floating-point operations, hours at a known speed, and the runs that are already trained."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from olmix.artifacts.collapsed import token_sets
from olmix.config.params import Params
from olmix.config.runtime import Runtime
from olmix.core.plan import Plan
from olmix.core.virtual import VIRTUAL
from olmix.data.manifest import sample_path
from olmix.data.tokensets import TokenSet, draw_virtual, identity_of
from olmix.pipeline import RunCache
from olmix.project import Project
from olmix.proxy.recipe import Recipe
from olmix.runs.jobs import training_jobs
from olmix.runs.journal import Journal
from olmix.runs.record import swarm_specs
from olmix.runs.speed import speeds

# Token sets of more bytes than this are not read just to count the runs that are already trained.
READ_AT_MOST = 4 << 30


@dataclass(frozen=True)
class Cost:
    """Training FLOPs of one run, attention and head included; FLOP/s of all workers together (None where unknown), and
    whether that is the last swarm's speed; and runs of the swarm that the journal or the local cache holds (None when
    counting them would mean reading too much, or the tokens are missing)."""

    flops: int
    flops_per_second: float | None = None
    of_last_swarm: bool = False
    already_trained: int | None = None

    def hours(self, runs: int) -> float | None:
        """Hours that `runs` runs take."""
        return runs * self.flops / self.flops_per_second / 3600 if self.flops_per_second else None

    def to_json(self, runs: int, runs_without_reuse: int, validation_runs: int) -> dict[str, Any]:
        """FLOPs and hours of the swarm, of one without reuse, and of the validation."""
        counts = {"swarm": runs, "without_reuse": runs_without_reuse, "validation": validation_runs}
        return {
            "flops_per_run": self.flops,
            "flops": {name: count * self.flops for name, count in counts.items()},
            "flops_per_second": self.flops_per_second,
            "hours": {name: self.hours(count) for name, count in counts.items()},
            "runs_already_trained": self.already_trained,
        }

    def to_text(self, runs: int, runs_without_reuse: int, validation_runs: int) -> str:
        """One line for a terminal."""
        left = runs - (self.already_trained or 0)
        flops = (
            f"Compute: {_flops(left * self.flops)} to train the swarm ({_flops(runs_without_reuse * self.flops)} "
            f"without reuse), up to {_flops(validation_runs * self.flops)} to validate"
        )
        if not self.flops_per_second:
            return flops
        hours = " + ".join(_duration(self.hours(count) or 0.0) for count in (left, validation_runs))
        without = _duration(self.hours(runs_without_reuse) or 0.0)
        whose = "the last swarm's speed" if self.of_last_swarm else "runtime.yaml's speed"
        return f"{flops}\nTime: {hours} (swarm without reuse {without}), at {_flops(self.flops_per_second)}/s, {whose}"


def _flops(count: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if count < 1000 or unit == "Z":
            return f"{count:.3g} {unit}FLOP"
        count /= 1000
    raise AssertionError


def _duration(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{hours:.1f} h"


def cost_of(project: Project, runtime: Runtime, recipe: Recipe, already_trained: int | None) -> Cost:
    """The cost of a plan's runs at the speed that runtime.yaml gives, or the last swarm showed."""
    if runtime.flops_per_second is not None:
        return Cost(recipe.flops, float(runtime.flops_per_second), False, already_trained)
    speed = speeds(project.speeds).get(runtime.place)
    return Cost(recipe.flops, speed, speed is not None, already_trained)


def runs_already_trained(params: Params, plan: Plan, recipe: Recipe, planned: Collection[str]) -> int | None:
    """How many runs of the plan's swarm the journal or the local run-cache holds; None where a sample is missing, or
    all are too large to read for a plan.

    `planned` are the domains whose `build/tokens/` is not what it will be, and of which `olmix plan` made a sample.
    """
    project, scale = params.project, params.scale(recipe)
    journal = Journal(project.state)
    places = {name: project.planned / "tokens" if name in planned else project.tokens for name in plan.dataset.names}
    files = [sample_path(place, name) for name, place in places.items()]
    if not all(path.exists() for path in files):
        return None
    if sum(path.stat().st_size for path in files) > READ_AT_MOST:
        return None
    sets = token_sets(project, plan, recipe.sequence_length, scale, planned)
    if plan.space.members:
        drawn = draw_virtual(plan.space.members, sets, recipe.sequence_length, recipe.sequences)
        sets[VIRTUAL] = TokenSet(VIRTUAL, project.tokens, identity_of(drawn), len(drawn), in_order=True)
    swarm = params.swarm_of(plan)
    specs = swarm_specs(swarm, sets, recipe, params.proxy.seed)
    paths, tokenizer = params.task_paths(), params.load_tokenizer()
    jobs = {job.key: job for job in training_jobs(specs, params.proxy.keep_weights, paths, tokenizer, journal)}
    missing = {key: job for key, job in jobs.items() if job.find(journal) is None}
    held = RunCache(project.root, lambda _: None).held([entry for job in missing.values() for entry in job.sought])
    gone = {key for key, job in missing.items() if not held.issuperset(job.sought)}
    return sum(spec.key not in gone for spec in specs)
