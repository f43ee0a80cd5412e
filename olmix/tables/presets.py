"""Named groupings of metrics into tasks: data in files beside this module, or in a user's own.

A preset names every metric that it knows: those it drops, those it averages with a weight each, and, by family, the
tasks that come out. Nothing is grouped by how it is called, so a file that has other metrics does not fit, and is told
which. Gives up: patterns; 57 metrics are 57 lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmix.errors import DataError
from olmix.files import read_yaml
from olmix.tables.swarm_results import SwarmTable
from olmix.tables.table import first_few
from olmix.tables.tasks import SetAside, refuse_unknown, tasks_of

_FOLDER = Path(__file__).parent
_KEYS = ("drop", "families", "groups")
_QUOTES = "put names that look like numbers in quotes"


@dataclass(frozen=True)
class Preset:
    """groups {task: {metric: weight}}, metrics to drop, and families {family: tasks} that hold every task once."""

    name: str
    groups: Mapping[str, Mapping[str, float]]
    drop: tuple[str, ...]
    families: Mapping[str, tuple[str, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, family by family."""
        return tuple(task for tasks in self.families.values() for task in tasks)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that the tasks are made of."""
        return tuple(metric for task in self.tasks for metric in self.groups.get(task, {task: 1.0}))


def preset_names() -> tuple[str, ...]:
    """The built-in presets, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def preset(name: str) -> Preset:
    """A built-in preset; raises DataError, with their names, for one that there is not."""
    if name not in preset_names():
        raise DataError(f"no such preset; the built-in ones are {', '.join(preset_names())}", key=f"preset {name!r}")
    return read_preset(_FOLDER / f"{name}.yaml")


def read_preset(path: Path) -> Preset:
    """A preset of a YAML file with the keys `groups`, `drop` and `families`.

    Raises ConfigError for bad YAML, and DataError for an unknown key, a value of the wrong shape, a task in no family
    or in two, and a metric that is named twice.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not content.get("families"):
        raise DataError(
            "not a preset", file=path, way_out="write the mapping `families`, and `groups` and `drop` where needed"
        )
    unknown = sorted(str(key) for key in content if key not in _KEYS)
    if unknown:
        raise DataError(f"unknown keys {first_few(unknown)}; the keys are {', '.join(_KEYS)}", file=path)
    read = Preset(path.stem, _groups(content, path), _names(content.get("drop") or [], path, "drop"), {})
    families = _mapping(content["families"], path, "families")
    read = Preset(read.name, read.groups, read.drop, {f: _names(t, path, f"families.{f}") for f, t in families.items()})
    homeless = sorted(set(read.groups) - set(read.tasks))
    if homeless:
        raise DataError(
            f"groups in no family: {first_few(homeless)}", file=path, way_out="list each in one of the families"
        )
    named = [*read.metrics, *read.drop]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(
            f"listed twice: {first_few(twice)}",
            file=path,
            way_out="drop each metric, or keep it in one task of one family",
        )
    return read


def preset_tasks(
    table: SwarmTable, preset: Preset, drop: Sequence[str] = ()
) -> tuple[SwarmTable, tuple[SetAside, ...]]:
    """The swarm by the tasks of a preset without those in `drop`, as `tasks_of` makes them, in the order of families.

    A metric that the preset drops may be absent. Raises DataError for metrics that the preset needs and the swarm
    lacks, for those that the preset does not know, and what `tasks_of` raises.
    """
    for name in drop:
        refuse_unknown(table, name, "dropped")
    have, gone = set(table.tasks), {*preset.drop, *drop}
    absent = [name for name in preset.metrics if name not in have]
    strange = [name for name in table.tasks if name not in {*preset.metrics, *gone}]
    if absent:
        raise DataError(
            f"preset {preset.name} does not fit: {len(absent)} of its {len(preset.metrics)} metrics are missing: "
            f"{first_few(absent)}",
            file=table.source,
            way_out="add them, or group the metrics with a preset of your own",
        )
    if strange:
        raise DataError(
            f"preset {preset.name} does not know {len(strange)} metrics: {first_few(strange)}",
            file=table.source,
            way_out="leave them out with --drop, or group the metrics with a preset of your own",
        )
    made, aside = tasks_of(table, preset.groups, [name for name in table.tasks if name in gone])
    order = [made.tasks.index(task) for task in preset.tasks if task in made.tasks]
    return made.of_tasks(order), aside


def _groups(content: dict[Any, Any], path: Path) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for task, members in _mapping(content.get("groups") or {}, path, "groups").items():
        key = f"groups.{task}"
        # A list weighs its metrics equally, as --group does.
        groups[task] = (
            dict.fromkeys(_names(members, path, key), 1.0)
            if isinstance(members, list)
            else _mapping(members, path, key)
        )
        for metric, weight in groups[task].items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not (math.isfinite(weight) and weight > 0):
                raise DataError(f"{metric}: weight {weight!r} is not a finite number > 0", file=path, key=key)
    return groups


def _mapping(content: Any, path: Path, key: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DataError("not a mapping of names", file=path, key=key, way_out=_QUOTES)
    return content


def _names(content: Any, path: Path, key: str) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DataError("not a list of names", file=path, key=key, way_out=_QUOTES)
    return tuple(content)
