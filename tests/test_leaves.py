"""Every leaf of params.yaml re-runs something, or stands on the declared cosmetic list; runtime.yaml never does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from olmix.faces.config import COSMETIC
from tests.project import DOMAINS, Project

# The stages that read each section; a leaf of it makes at least one of them stale, and no other.
READERS = {
    "domains": {"prepare", "plan"},
    "sources": {"partition", "plan"},
    "tokenizer": {"prepare", "collapse", "train", "evaluate", "validate"},
    "tasks": {"evaluate", "fit", "propose", "validate"},
    "objective": {"fit", "propose", "validate"},
    "target": {"collapse", "propose", "validate"},
    "reuse": {"plan"},
    "swarm": {"swarm", "collapse", "validate"},
    "proxy": {"prepare", "collapse", "train", "evaluate", "validate"},
    "fit": {"fit", "propose"},
    "solve": {"propose"},
    "validate": {"validate"},
}
PREPARE = {f"prepare@{name}" for name in DOMAINS}
EXACT = {
    "domains.web.path": {"prepare@web", "plan"},
    "sources": {"partition@x", "plan"},
    "swarm.seed": {"swarm"},
    "swarm.repeats": {"swarm"},
    "swarm.simulate_repetition": {"swarm", "collapse", "validate"},
    "target.repetition": {"propose"},
    "proxy.learning_rate": {"train", "validate"},
    "proxy.keep_weights": {"train", "evaluate", "validate"},
    "proxy.size.layers": {*PREPARE, "collapse", "train", "validate"},
    "proxy.external": {*PREPARE, "collapse", "train", "evaluate", "validate"},
    "proxy.sequence_length": {"collapse", "train", "validate"},
    "validate.seeds": {"validate"},
    "objective.weights.reasoning": {"fit", "propose", "validate"},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all leaves; an empty container is a leaf."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, child in children for leaf in leaves(child, (*path, key))]
    return iter(inner or [path])


def flip(content: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """The same content with one leaf changed to another value of its kind."""
    changed = copy.deepcopy(content)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    value = holder[path[-1]]
    if isinstance(value, bool):
        holder[path[-1]] = not value
    elif isinstance(value, int | float):
        holder[path[-1]] = value * 2 + 1
    elif isinstance(value, str):
        holder[path[-1]] = value + "x"
    elif path == ("sources",):
        holder[path[-1]] = {"x": {"path": "data/web", "partition_by": "x"}}
    else:
        holder[path[-1]] = {"x": 1} if isinstance(value, dict) else ["x"]
    return changed


def test_every_leaf_is_read_by_the_stages_that_should(accepted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    project = accepted
    original = project.params
    text = (project.root / "params.yaml").read_text()
    monkeypatch.chdir(project.root)
    seen = set()
    try:
        with Repo(str(project.root)) as repo:
            assert repo.status() == {}
        for path in leaves(original):
            project.params = flip(original, path)
            name = ".".join(map(str, path))
            # A path that names nothing is missing data: DVC says so by an error or a deleted dependency.
            with Repo(str(project.root)) as repo:
                stale = {stage for stage in repo.status() if not stage.endswith(".dvc")}
            if path[0] in COSMETIC:
                assert stale == set(), name
                continue
            kinds = {stage.split("@")[0] for stage in stale}
            assert kinds, f"{name}: nothing re-runs, and it is not cosmetic"
            assert kinds <= READERS[path[0]], f"{name}: {sorted(stale)}"
            if name in EXACT:
                assert stale == EXACT[name], name
                seen.add(name)
    finally:
        project.write("params.yaml", text)
    assert seen == set(EXACT)


def test_no_leaf_of_runtime_is_read_by_a_stage(accepted_template: Project) -> None:
    assert "runtime" not in (accepted_template.root / "dvc.lock").read_text()
