"""Every leaf of params.yaml: `dvc repro` after a change gives what a build from nothing gives.

DVC runs a stage when a file that it depends on has changed, and else takes its outputs as they are, or from its
run-cache. So for every leaf a build from nothing with another value is compared with the one before, stage by stage:
where no dependency differs, no output may. And for a leaf of each kind, those whose keys DVC's run-cache overlooks
among them, `dvc repro` itself is run with a warm cache (OLMIX_LEAVES=all: for every leaf, which takes ten minutes).
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from olmix.config.params import COSMETIC
from olmix.core.seeds import generator
from olmix.files import read_yaml
from tests.project import HERE, Project, documents, run_stage, write_task

# Another value for every leaf; with it, how far a build can go: to a stage, or (None) nowhere. Where users can choose
# keys there are those that DVC's run-cache leaves out of mappings: size and nfiles.
OTHERS: dict[tuple[Any, ...], Any] = {
    ("domains", "code", "path"): "data/code2",
    ("domains", "code", "format"): "jsonl",
    ("domains", "code", "text"): "body",
    ("domains", "code", "where", "size", 0): "large",
    ("domains", "code", "where_not", "nfiles", 0): "2",
    ("domains", "ids", "path"): "data/ids2",
    ("domains", "ids", "dtype"): ("uint32", None),
    ("domains", "ids", "source"): "elsewhere",
    ("domains", "ids", "tokens"): 40_000,
    ("sources", "web", "path"): "data/code",
    ("sources", "web", "text"): "body",
    ("sources", "web", "where", "size", 0): "large",
    ("sources", "web", "partition_by"): "nfiles",
    ("sources", "web", "names", "size"): "huge",
    ("descriptions", "ids"): "other words",
    ("tokenizer", "path"): "data/other.json",
    ("tokenizer", "end_of_document"): 1,
    ("tasks", "path"): "data/tasks2",
    ("tasks", "families", "size", 0): "new-task",
    ("tasks", "families", "other", 0): "new-task",
    ("objective", "weights", "size"): 9,
    ("objective", "weights", "other"): 0,
    ("target", "tokens"): 30_000,
    ("target", "repetition"): 3,
    ("reuse", "mode"): "none",
    ("reuse", "recompute"): ["code"],
    ("reuse", "tolerance"): 0.5,
    ("reuse", "drift_by"): "distribution",
    ("reuse", "keep"): {"code": "0123456789ab"},
    ("swarm", "runs_per_domain"): 3,
    ("swarm", "seed"): 1,
    ("swarm", "concentration", 0): 2,
    ("swarm", "concentration", 1): 9,
    ("swarm", "floor"): 0.02,
    ("swarm", "topic_minimum"): 0.2,
    ("swarm", "repeats"): 2,
    ("swarm", "simulate_repetition"): True,
    ("proxy", "external"): (True, "train"),
    ("proxy", "size", "layers"): 2,
    ("proxy", "size", "heads"): 4,
    ("proxy", "size", "width"): 24,
    ("proxy", "size", "hidden"): 24,
    ("proxy", "sequence_length"): 24,
    ("proxy", "tokens"): 512,
    ("proxy", "batch_size"): 8,
    ("proxy", "learning_rate"): 0.01,
    ("proxy", "warmup"): 0.2,
    ("proxy", "final_fraction"): 0.5,
    ("proxy", "weight_decay"): 0.5,
    ("proxy", "beta1"): 0.5,
    ("proxy", "beta2"): 0.5,
    ("proxy", "clip"): 0.1,
    ("proxy", "seed"): 5,
    ("proxy", "keep_weights"): False,
    ("fit", "law"): "linear",
    ("fit", "delta"): 0.001,
    ("fit", "ridge"): 0.1,
    ("fit", "folds"): 3,
    ("fit", "replicates"): 3,
    ("fit", "seed"): 1,
    ("solve", "kl"): 0.5,
    ("validate", "seeds"): 2,
}
# Leaves for which `dvc repro` is run.
REPRODUCED = [
    ("domains", "code", "where", "size", 0),
    ("objective", "weights", "size"),
    ("sources", "web", "names", "size"),
    ("proxy", "size", "width"),
    ("descriptions", "ids"),
    ("solve", "kl"),
]
# Leaves whose other value comes to the same: what a file is called, what is read from its name.
SAME = {("domains", "code", "format"), ("tokenizer", "path")}
STAGES = ("plan", "swarm", "collapse", "train", "evaluate", "fit", "propose", "validate")
PARTS = 3


def write_documents(folder: Path, version: int) -> None:
    """JSON lines with two texts and three fields each."""
    folder.mkdir(parents=True)
    texts = zip(documents("code", 90, version), documents("web", 90, version), strict=True)
    rows = [
        {
            "text": a,
            "body": b,
            "size": ("small", "large")[k % 3 == 0],
            "nfiles": str(k % 4),
            "topic": ("size", "b")[k % 2],
        }
        for k, (a, b) in enumerate(texts)
    ]
    (folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_ids(folder: Path, version: int) -> None:
    """Raw token ids, documents of 50."""
    folder.mkdir(parents=True)
    ids = generator("leaves", version).integers(1, 99, size=6_000)
    ids[::50] = 0
    (folder / "part.npy").write_bytes(ids.astype("<u2").tobytes())


@pytest.fixture
def built(built_once: Callable[..., Project]) -> Project:
    """A project with every kind of leaf, built and accepted."""
    return built_once("leaves", build)


def build(root: Path) -> Project:
    """Build it."""
    project = Project.create(root)
    data = project.root / "data"
    shutil.rmtree(data)
    for version, name in enumerate(("", "2")):
        write_documents(data / f"code{name}", version)
        write_ids(data / f"ids{name}", version)
        for task in ("code", "web", "new"):
            kind = "math" if task == "new" else task
            write_task(data / f"tasks{name}" / f"{task}-task.jsonl", documents(kind, 6, 99 + version))
    write_documents(data / "web", 3)
    project.write("runtime.yaml", "workers: 1\n")
    shutil.copy(project.root / "tokenizers/bytes.json", data / "other.json")
    content = project.params
    content["domains"] = {
        "code": {
            "path": "data/code", "format": None, "text": "text", "where": {"size": ["small"]},
            "where_not": {"nfiles": ["1"]},
        },
        "ids": {"path": "data/ids", "dtype": "uint16", "source": "lab", "tokens": 50_000},
    }  # fmt: skip
    content["sources"] = {
        "web": {
            "path": "data/web", "text": "text", "where": {"size": ["small"]}, "partition_by": "topic",
            "names": {"size": "big"},
        }
    }  # fmt: skip
    content["descriptions"] = {"ids": "some words"}
    content["tasks"]["families"] = {"size": ["code-task"], "other": ["web-task"]}
    content["objective"]["weights"] = {"size": 1, "other": 1}
    content["tokenizer"]["end_of_document"] = 0
    content["target"] = {"tokens": 20_000, "repetition": 4}
    content["swarm"] |= {"runs_per_domain": 2, "floor": 0.01}
    content["proxy"] |= {
        "size": {"layers": 1, "heads": 2, "width": 16, "hidden": 16}, "sequence_length": 16, "tokens": 1_024,
        "batch_size": 4,
    }  # fmt: skip
    content["fit"] |= {"law": "log-linear", "folds": 2, "replicates": 2}
    content["validate"]["seeds"] = 1
    project.params = content
    project.repro()
    project.olmix("accept", "--anyway")
    project.repro()
    return project


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all leaves; an empty container is a leaf."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, child in children for leaf in leaves(child, (*path, key))]
    return iter(inner or [path])


def with_other(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The same content with another value at one leaf."""
    changed = copy.deepcopy(content)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def from_nothing(project: Project, root: Path, last: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    """What the stages make of a project's inputs alone: no DVC, no cache, no journal."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("build", ".olmix", ".dvc", ".git", "*.dvc"))
    with monkeypatch.context() as patch:
        patch.chdir(root)
        for stage in stages_of(Project(root)):
            patch.setenv("DVC_STAGE", stage)
            run_stage("prepare" if "@" in stage else stage, HERE)
            if stage == last:
                break
    return Project(root)


def stages_of(project: Project) -> dict[str, tuple[list[str], list[str]]]:
    """Dependencies and outputs of every stage, as dvc.yaml and params.yaml name them, in an order that works."""
    params = project.params
    stages: dict[str, tuple[list[str], list[str]]] = {}
    for name, stage in read_yaml(project.root / "dvc.yaml")["stages"].items():
        section = {"${domains}": "domains", "${sources}": "sources"}.get(stage.get("foreach"))
        for key, item in params[section].items() if section else [("", {})]:
            said = {"${key}": key, "${item.path}": item.get("path", "")}
            said |= {f"${{{part}.path}}": params[part]["path"] for part in ("tokenizer", "tasks")}

            def named(entries: list[Any], said: Mapping[str, str] = said) -> list[str]:
                paths = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
                for mark, value in said.items():
                    paths = [path.replace(mark, value) for path in paths]
                return paths

            body = stage.get("do", stage)
            outputs = named([*body.get("outs", []), *body.get("metrics", [])])
            stages[f"{name}@{key}" if section else name] = named(body.get("deps", [])), outputs
    return stages


def files(project: Project, paths: Sequence[str]) -> dict[str, bytes]:
    """The content of every file at or below `paths`."""
    roots = [project.root / path for path in paths]
    found = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {str(file.relative_to(project.root)): file.read_bytes() for file in found if file.is_file()}


def test_the_leaves_are_all_there(built: Project) -> None:
    assert set(leaves(built.params)) == OTHERS.keys()


@pytest.mark.parametrize("part", range(PARTS))
def test_what_a_stage_depends_on_is_all_that_it_depends_on(
    built: Project, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = built.copy(tmp_path / "project")
    before = from_nothing(project, tmp_path / "before", STAGES[-1], monkeypatch)
    assert before.outputs() == project.outputs(), "with DVC and without it"
    original, graph = project.params, stages_of(project)
    for path, other in list(OTHERS.items())[part::PARTS]:
        name = ".".join(map(str, path))
        value, last = other if isinstance(other, tuple) else (other, STAGES[-1])
        if last is None:
            continue
        project.params = with_other(original, path, value)
        after = from_nothing(project, tmp_path / name, last, monkeypatch)
        for stage, (dependencies, outputs) in stages_of(after).items():
            if stage != "keys" and (dependencies, outputs) == graph.get(stage):
                same = files(after, dependencies) == files(before, dependencies)
                assert not same or files(after, outputs) == files(before, outputs), f"{name}: {stage} would not run"
            if stage == last:
                break
        if path not in SAME and path[0] not in COSMETIC:
            assert after.outputs() != before.outputs(), f"{name}: another value, and the same result"
        shutil.rmtree(after.root)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_changed_leaf_is_built_as_from_nothing(
    built: Project, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = built.copy(tmp_path / "project")
    original = project.params
    chosen = list(OTHERS) if os.environ.get("OLMIX_LEAVES") == "all" else REPRODUCED
    for path in chosen[part::PARTS]:
        name, other = ".".join(map(str, path)), OTHERS[path]
        value, last = other if isinstance(other, tuple) else (other, STAGES[-1])
        project.params = with_other(original, path, value)
        if last is None:
            assert project.command("dvc", "repro").err.count("error: data/ids/part.npy") == 1, name
            continue
        project.expect("dvc", "repro", last)
        expected = from_nothing(project, tmp_path / name, last, monkeypatch).outputs()
        found = {file: content for file, content in project.outputs().items() if file in expected or last == STAGES[-1]}
        assert found.keys() == expected.keys(), name
        assert [file for file in expected if found[file] != expected[file]] == [], name
        shutil.rmtree(tmp_path / name)


def test_no_leaf_of_runtime_is_read_by_a_stage(accepted_template: Project) -> None:
    assert "runtime" not in (accepted_template.root / "dvc.lock").read_text()
