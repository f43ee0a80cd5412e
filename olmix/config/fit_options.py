"""Options of `olmix fit` and `olmix sweep`, from the command line, a YAML file, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from olmix.config.fields import Count, Finite, check
from olmix.errors import ConfigError
from olmix.files import read_yaml
from olmix.fit.fitting import FitSettings
from olmix.tables.table import read_result_table

COMMAND = Path("olmix fit")  # what errors name as the place of a mistake on the command line


def _members(value: object) -> object:
    """A list of metrics weighs them equally."""
    return dict.fromkeys(value, 1.0) if isinstance(value, list) else value


Weight = Annotated[Finite, Field(ge=0)]
Members = Annotated[dict[str, Annotated[Finite, Field(gt=0)]], BeforeValidator(_members), Field(min_length=1)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Flag:
    """How the command line names a key and its value, where that is not `--key` and its type."""

    name: str
    metavar: str | None = None


class OlderSwarm(_Options):
    """An older swarm that joins the fit."""

    ratios: Path
    """Its mixtures."""
    metrics: Path
    """Its results."""
    domains: Annotated[dict[str, str], Flag("also-domain", "OLD=NEW")] = Field(default_factory=dict)
    """New name of a domain of the older swarms, where the newest swarm has another."""


class FitOptions(_Options):
    """Options of a fit: the keys of the YAML file, and their help on the command line."""

    ratios: Path
    """CSV or parquet with one row per run: an id (run or run_id) and the weight of every domain."""
    metrics: Path
    """CSV or parquet with one row per run: the same ids and the BPB of every metric."""
    priors: Path | None = None
    """JSON or YAML: {relative_sizes, token_counts}, or tokens by domain; without it, nothing is proposed."""
    reference: Literal["priors", "natural", "uniform"] = "priors"
    """What the KL term pulls towards: relative_sizes if the priors give them, the token counts, or equal shares."""
    law: str = FitSettings.law
    """auto, or the name of a law (a wrong name lists them)."""
    kl: Weight = Field(default=0.05, alias="lambda")
    """Weight of the KL term, in BPB."""
    target_tokens: Annotated[Count | None, Flag("target-tokens", "N")] = None
    """Tokens of the target run, such as 1T; without it, no domain has a cap."""
    repetition: Annotated[Finite, Field(gt=0)] = 4.0
    """How often the target run may read a domain."""
    preset: str | None = None
    """Task preset: olmes-52, or a YAML file of your own."""
    groups: Annotated[dict[str, Members], Flag("group", "TASK=A,B")] = Field(default_factory=dict)
    """Make one task of the mean of these metrics."""
    weights: Annotated[dict[str, Weight], Flag("weight", "TASK=W")] = Field(default_factory=dict)
    """Weight of a task, or of each task of a preset's family; 1 unless given."""
    drop: Annotated[list[str], Flag("drop", "METRIC")] = Field(default_factory=list)
    """Leave this metric out."""
    runs: Annotated[int, Field(gt=0)] | None = None
    """Use this many runs, chosen as scikit-learn's train_test_split(train_size=RUNS, random_state=SEED) does."""
    ids: Path | None = None
    """Use only the runs in this file, one id per line."""
    mask: Path | None = None
    """Table of runs and tasks, with 0 where a run does not count for a task."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = FitSettings.seed
    """Seed for --runs, the folds and the bootstrap."""
    also: Annotated[list[OlderSwarm], Flag("also", "RATIOS METRICS")] = Field(default_factory=list)
    """An older swarm that joins the fit."""
    folds: Annotated[int, Field(gt=1)] = FitSettings.folds
    """Folds of the cross-validation."""
    replicates: Annotated[int, Field(ge=0)] = FitSettings.replicates
    """Bootstrap replicates."""
    delta: Annotated[Finite, Field(gt=0)] = FitSettings.delta
    """Width of the Huber loss, in BPB."""
    ridge: Annotated[Finite, Field(ge=0)] = FitSettings.ridge
    """Ridge of the log-linear law."""
    curve: bool = False
    """Also draw the learning curve of every law that auto chooses from."""
    out: Path = Path("fit")
    """Folder for mixture.yaml, diagnostics.json and plots."""

    @model_validator(mode="after")
    def _consistent(self) -> FitOptions:
        if self.priors is None and (self.target_tokens is not None or self.reference != "priors"):
            raise ValueError("priors: missing; target tokens and a reference need the tokens of the domains")
        if self.preset and self.groups:
            raise ValueError("preset and groups: give only one of them; a preset of your own can have groups")
        if self.runs is not None and self.ids is not None:
            raise ValueError("runs and ids: give only one of them")
        return self

    def settings(self) -> FitSettings:
        """The settings of the fit."""
        return FitSettings(self.law, self.delta, self.ridge, self.folds, self.replicates, self.seed)


def read_options(file: Path | None, given: Mapping[str, Any]) -> FitOptions:
    """The options of a YAML file, under those `given` on the command line; raises ConfigError, one line."""
    content = read_yaml(file) if file is not None else {}
    if not isinstance(content, dict):
        raise ConfigError(f"contains {type(content).__name__}, not a mapping of options", file=file)
    merged = {**content, **given}
    for key in ("ratios", "metrics") if file is None else ():
        if key not in merged:
            raise ConfigError(
                "missing", key=key, way_out="give both files, as `olmix fit RATIOS METRICS`, or name them in --config"
            )
    try:
        return check(COMMAND, merged, FitOptions)
    except ConfigError as error:
        if file is not None and (error.key or "").split(".")[0] not in given:
            error.file = file
        raise


def older_swarms(files: Sequence[tuple[Path, Path]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Older swarms as options; each gets the `names` of domains that its ratios hold."""
    if not names:
        return [{"ratios": ratios, "metrics": metrics} for ratios, metrics in files]
    known = [set(read_result_table(ratios).columns) for ratios, _ in files]
    strange = sorted(set(names) - set().union(*known))
    if strange:
        raise ConfigError(f"{', '.join(strange)}: no older swarm has such a domain", key="--also-domain")
    return [
        {"ratios": ratios, "metrics": metrics, "domains": {old: new for old, new in names.items() if old in columns}}
        for (ratios, metrics), columns in zip(files, known, strict=True)
    ]
