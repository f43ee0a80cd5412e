"""What every stage's result depends on besides the files that it reads: its key, `build/keys/<stage>.json`.

The stage `keys` writes them all from params.yaml, and every other stage has its own as a dependency. DVC could list
parameters itself, and compares them rightly; but its run-cache leaves mapping keys called `size` or `nfiles` out,
at any depth, and then restores what another proxy size or another filter made. A file is compared by its content. So
a key also holds the version of what the stage computes, and values are as olmix understands them: `8M` is 8000000.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from olmix.config.params import DomainConfig, Params, SourceConfig, load_params
from olmix.errors import OlmixError, PipelineError
from olmix.files import canonical_json, read_json, read_yaml, write_bytes
from olmix.pipeline import stale_stages
from olmix.project import Project
from olmix.proxy.recipe import RECIPE_VERSION

STAGE = "keys"
AGAIN = f"run `dvc repro -f {STAGE}`, then `dvc repro`"
# Raise a stage's version when it writes something else for the same inputs. When a proxy or its evaluation computes
# something else, raise RECIPE_VERSION: runs and evaluations that exist are found by it, and by no stage's version.
VERSIONS = {
    "prepare": 2,
    "partition": 2,
    "plan": 2,
    "swarm": 1,
    "collapse": 1,
    "train": 1,
    "evaluate": 1,
    "fit": 2,
    "propose": 2,
    "validate": 1,
}
_PROXY = ("train", "evaluate", "validate")


def stage_keys(params: Params) -> dict[str, dict[str, Any]]:
    """The key of every stage, by the name that DVC gives the stage, as plain values."""
    proxy, external = params.proxy, params.proxy.external
    trained = proxy.model_dump(exclude={"external"})
    tasks = {"tasks": params.tasks.names, "end_of_document": params.tokenizer.end_of_document}
    weights = params.task_weights()
    target = asdict(params.target_settings())
    scale = {"simulated_target": params.target.tokens if params.swarm.simulate_repetition else None}
    values: dict[str, dict[str, Any]] = {
        **{f"prepare@{name}": _entry(params, config) for name, config in params.domains.items()},
        **{f"partition@{name}": _entry(params, config) for name, config in params.sources.items()},
        "plan": {"entries": params.entries, "reuse": asdict(params.reuse_settings())},
        "swarm": params.swarm.model_dump(exclude={"simulate_repetition"}),
        "collapse": {
            "sample": _budget(params),
            "sequence_length": proxy.sequence_length,
            "batch_size": proxy.batch_size,
            **scale,
        },
        "train": trained,
        "evaluate": {**tasks, "keep_weights": proxy.keep_weights},
        "fit": {"weights": weights, "settings": params.fit.model_dump()},
        "propose": {"weights": weights, "settings": params.fit.model_dump(), "target": target, "kl": params.solve.kl},
        "validate": {
            "seeds": params.validation_seeds(),
            "weights": weights,
            "proxy": trained,
            "target": target,
            **tasks,
            **scale,
        }
        if params.validation_seeds()
        else {"seeds": 0},
    }
    if external:  # nothing else of the section counts
        values |= {"collapse": {"external": True}, "train": {"external": True}}
        values["evaluate"] = {"external": True, "tasks": params.tasks.names}
    return {stage: _plain({"version": _version(stage), **value}) for stage, value in values.items()}


def _plain(key: dict[str, Any]) -> dict[str, Any]:
    """A key as its file holds it: lists for tuples."""
    plain: dict[str, Any] = orjson.loads(canonical_json(key))
    return plain


def _version(stage: str) -> str:
    kind = stage.partition("@")[0]
    return f"{VERSIONS[kind]}.{RECIPE_VERSION}" if kind in _PROXY else f"{VERSIONS[kind]}"


def _entry(params: Params, config: DomainConfig | SourceConfig) -> dict[str, Any]:
    apart = (
        {"partition_by": config.partition_by, "names": config.names}
        if isinstance(config, SourceConfig)
        else {"dtype": config.dtype, "source": config.source, "tokens": config.tokens}
    )
    return {
        "reading": asdict(config.reading()),
        **apart,
        "end_of_document": params.tokenizer.end_of_document,
        "sample": _budget(params),
    }


def _budget(params: Params) -> Any:
    """What the length of a token sample follows from; a multiple is one of the proxy's parameters."""
    if params.proxy.external:
        return "external"
    tokens = params.proxy.tokens
    return tokens if isinstance(tokens, int) else {"multiple": tokens, "size": params.proxy.size.model_dump()}


def write_keys(params: Params) -> None:
    """Write the key of every stage, and remove whatever else is there."""
    keys = stage_keys(params)
    for path in sorted(params.project.keys.glob("*")):
        if path.name not in {f"{stage}.json" for stage in keys}:
            path.unlink()
    for stage, key in keys.items():
        write_bytes(_path(params.project, stage), canonical_json(key))


def _path(project: Project, stage: str) -> Path:
    return project.keys / f"{stage}.json"


def params_for(project: Project, stage: str) -> Params:
    """params.yaml for a stage; raises ConfigError for a bad one, and PipelineError when the stage's key in
    `build/keys/` is not that of this params.yaml and this olmix."""
    params = load_params(project)
    key, path = stage_keys(params)[stage], _path(project, stage)
    known = _recorded(path)
    if known == key:
        return params
    if not known:
        raise PipelineError("missing or damaged", file=path, way_out=AGAIN)
    if known.get("version") == key["version"]:
        raise PipelineError("out of date for params.yaml", file=path, way_out=AGAIN)
    raise PipelineError(
        f"written by another version of olmix ({stage} {known.get('version')}; this one is {key['version']})",
        file=path,
        way_out=AGAIN,
    )


@dataclass(frozen=True)
class Stale:
    """Stages that are not up to date, sorted; those of them that no `dvc repro` would run by itself, because DVC holds
    `keys` for current, and whether that is because this olmix computes another version of them."""

    stages: tuple[str, ...]
    unseen: tuple[str, ...]
    upgraded: bool

    @property
    def advice(self) -> str:
        """Why no `dvc repro` would run the unseen stages, and what would; empty where all are seen."""
        if not self.unseen:
            return ""
        kinds = ", ".join(sorted({stage.partition("@")[0] for stage in self.unseen}))
        why = (
            f"this version of olmix computes {kinds} differently from the one that wrote build/"
            if self.upgraded
            else f"the keys in build/keys are out of date for {kinds}, which DVC cannot see (it happens after a merge)"
        )
        return f"{why}; to build again, {AGAIN}"


def stale(params: Params) -> Stale:
    """What of the pipeline is stale: by DVC's judgement, and by keys that `keys` has not written yet.

    Raises PipelineError when this is no DVC project, or its dvc.yaml is from before there were keys.
    """
    path = params.project.pipeline
    declared = read_yaml(path) if path.exists() else {}
    if not isinstance(declared, dict) or STAGE not in (declared.get("stages") or {}):
        raise PipelineError(f"no stage {STAGE!r}", file=path, way_out="run `olmix init --upgrade`")
    found = set(stale_stages(params.project.root))
    changed, upgraded = set(), False
    for stage, key in stage_keys(params).items():
        known = _recorded(_path(params.project, stage))
        if known != key:
            changed.add(stage)
            upgraded |= known.get("version", key["version"]) != key["version"]
    # By itself `keys` is nothing that anyone waits for.
    stages = (found | changed) - ({STAGE} if changed else set())
    unseen = () if STAGE in found else tuple(sorted(changed))
    return Stale(tuple(sorted(stages)), unseen, bool(unseen) and upgraded)


def _recorded(path: Path) -> dict[str, Any]:
    """A key as it was recorded; empty when it is missing or damaged."""
    try:
        content = read_json(path) if path.exists() else {}
    except OlmixError:
        return {}
    return content if isinstance(content, dict) else {}
