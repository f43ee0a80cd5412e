"""params.yaml: the models that check it, and what the lower floors are given from them.

Every field carries its own documentation; docs/params.md is generated from it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from olmix.config.fields import Count, Finite, Name, Section, TaskName, check, count
from olmix.core.dataset import Dataset
from olmix.core.limits import Target, domain_caps
from olmix.core.plan import Accepted, Plan, Reuse, make_plan
from olmix.core.repetition import Scale
from olmix.core.sketch import Sketch
from olmix.core.swarm import Sampling, Swarm, make_swarm
from olmix.data.reading import Reading
from olmix.data.sample import ESTIMATED_FROM
from olmix.data.shards import KINDS
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import ConfigError, OlmixError
from olmix.files import read_yaml
from olmix.fit.fitting import FitSettings
from olmix.laws.registry import AUTO, law_kinds
from olmix.project import Project
from olmix.proxy.recipe import Recipe
from olmix.proxy.sizes import SIZES, Size, chinchilla_tokens

# The keys of what the core calls by names of its own.
_SETTINGS = {
    "target": "target",
    "recompute": "reuse.recompute",
    "reuse": "reuse",
    "runs": "swarm.runs_per_domain",
    "floor": "swarm.floor",
    "topic_minimum": "swarm.topic_minimum",
}
# Leaves of params.yaml that no stage reads.
COSMETIC = ("descriptions",)

_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)x")
LARGEST_MULTIPLE = 10_000
# The recipe's budget, and the sizes that it is for (Olmix: 15M parameters or more at 5 times Chinchilla).
MULTIPLE, REAL = 5.0, ("15m", "30m", "60m", "190m")


def _format(value: object) -> object:
    if value is not None and value not in KINDS:
        raise ValueError(f"no such format; the formats are {', '.join(KINDS)}")
    return value


def _values(value: object) -> object:
    """The values of a field to read: one, or a list."""
    values = value if isinstance(value, list) else [value]
    if not values or any(not isinstance(item, str | int | bool) for item in values):
        raise ValueError("write a string, a whole number, true or false, or a list of them")
    return values


def _others(value: object) -> object:
    """The values of a field to leave out, null for a missing one: one, or a list."""
    values = value if isinstance(value, list) else [value]
    if not values or any(item is not None and not isinstance(item, str | int | bool) for item in values):
        raise ValueError("write a string, a whole number, true, false or null, or a list of them")
    return values


_Value = TypeVar("_Value", str | int | bool, str | int | bool | None)


def _ordered(where: dict[str, list[_Value]]) -> tuple[tuple[str, tuple[_Value, ...]], ...]:
    """Fields and values in an order of their own, none twice: another order in params.yaml is the same filter."""
    named = {name: {(type(v).__name__, str(v)): v for v in values} for name, values in where.items()}  # true is not 1
    return tuple((name, tuple(named[name][key] for key in sorted(named[name]))) for name in sorted(named))


class ShardsConfig(Section):
    """A folder of shards and how documents are read from them."""

    path: str
    """Folder of the shards, relative to the project; or of the manifest.yaml that `olmix scan` wrote for shards
    outside the project."""
    format: Annotated[str | None, BeforeValidator(_format)] = None
    """jsonl, jsonl.gz, jsonl.zst, parquet, txt, npy, megatron or datatrove; by default, found from the files' names."""
    text: str = "text"
    """Field with a document's text, in formats that have fields; `content.body` for a nested one."""
    where: dict[str, Annotated[list[str | int | bool], BeforeValidator(_values)]] = Field(default_factory=dict)
    """Fields and the values to read, such as {language: en, quality: [high, medium]}: a document is
    read if all of them match."""
    where_not: dict[str, Annotated[list[str | int | bool | None], BeforeValidator(_others)]] = Field(
        default_factory=dict
    )
    """Fields and the values to leave out, null for a missing one, such as {topic: null, text: [null,
    ""]}."""

    def reading(self) -> Reading:
        """How documents are read."""
        where, where_not = _ordered(self.where), _ordered(self.where_not)
        return Reading(format=self.format, text=self.text, where=where, where_not=where_not)


class DomainConfig(ShardsConfig):
    """A domain: a folder of shards."""

    dtype: Literal["uint16", "uint32"] | None = None
    """Type of the ids in token arrays whose files do not give it (raw .npy, .ds)."""
    source: str | None = None
    """Domains that name the same source are sampled as its topics: sparsely, and against each other."""
    tokens: Count | None = None
    """Tokens of the whole domain, if the shards are only a sample of it; by default, counted or estimated."""


class SourceConfig(ShardsConfig):
    """Shards with documents of several domains, told apart by a field."""

    partition_by: str
    """Field that names a document's topic. The topic `Art` of the source `web` is the domain `web-art`."""
    names: dict[str, Name] = Field(default_factory=dict)
    """Other names for topics, such as {C#: c-sharp}: the domain is then `web-c-sharp`."""


class TokenizerConfig(Section):
    """The tokeniser, for proxies and for counting tokens."""

    path: str
    """A Hugging Face tokenizer.json; tokenizers/bytes.json makes every byte a token, and tokenizers/ids.json is for
    corpora that are already token ids."""
    end_of_document: Annotated[str | int, Field(union_mode="left_to_right")]
    """The token that ends a document, or its id."""


class TasksConfig(Section):
    """The held-out text that proxies are measured on."""

    path: str
    """Folder with a file <task>.jsonl for each task: one JSON object with `prompt` and `continuation` per line."""
    families: dict[Name, list[TaskName]] = Field(min_length=1)
    """Tasks by family; a task belongs to one. The name of a task may also contain capitals, `:` and `.`."""

    @model_validator(mode="after")
    def _distinct(self) -> TasksConfig:
        names = self.names
        if not names:
            raise ValueError("no tasks; list at least one")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: listed twice; a task belongs to one family")
        return self

    @property
    def names(self) -> list[str]:
        """All tasks, sorted."""
        return sorted(task for tasks in self.families.values() for task in tasks)


class ObjectiveConfig(Section):
    """What the mixture is chosen to lower: the weighted mean of the tasks' BPB."""

    weights: dict[TaskName, Annotated[Finite, Field(ge=0)]] = Field(default_factory=dict)
    """Weight of a task, or of each task of a family; 1 if not given. Only their proportions matter."""


class TargetConfig(Section):
    """The training run that you choose the mixture for."""

    tokens: Count
    """R, the tokens of the target run."""
    repetition: Annotated[Finite, Field(gt=0)] = 4.0
    """k, how often the target run may read a domain: its share is at most k N / R."""


class ReuseConfig(Section):
    """Mixture reuse."""

    mode: Literal["full", "none"] = "full"
    """`full` keeps the accepted proportions of unchanged domains; `none` recomputes every domain."""
    recompute: list[Name] = Field(default_factory=list)
    """Unchanged domains to recompute anyway (partial reuse)."""
    tolerance: Annotated[Finite, Field(ge=0, lt=1)] = 0.02
    """A domain that changed by at most this since its weight was measured keeps its weight; 0 recomputes on any
    change."""
    drift_by: Literal["documents", "distribution"] = "documents"
    """What `tolerance` bounds: `documents`, the share of the domain's text that is new, or that is gone; or
    `distribution`, the shift of its n-gram frequencies, to which documents dropped at random do not count."""
    keep: dict[Name, Annotated[str, Field(pattern="^[0-9a-f]{8,32}$")]] = Field(default_factory=dict)
    """Domains that keep their weight whatever changed, each with the first digits of its digest, so that the next
    change counts again. `olmix plan --keep` prints the line to write."""


class SwarmConfig(Section):
    """How the swarm's mixtures are sampled."""

    runs_per_domain: Annotated[int, Field(gt=0, le=1_000)] = 3
    """c in K = c (m + 1) runs for m coordinates."""
    seed: int = 0
    """Seed of the sampling; another seed is another swarm."""
    concentration: Annotated[
        tuple[Annotated[Finite, Field(gt=0)], Annotated[Finite, Field(gt=0)]], Field(strict=False)
    ] = (1.0, 16.0)
    """Range of the Dirichlet concentration around the natural distribution; low values vary more."""
    floor: Annotated[Finite, Field(ge=0, lt=1)] = 1e-4
    """Least share of a source in any run; 0.01 calibrates small swarms better."""
    topic_minimum: Annotated[Finite, Field(ge=0, lt=1)] = 0.05
    """A topic that would get less of its source than this is left out of that run."""
    repeats: Annotated[int, Field(gt=0)] = 1
    """Runs per mixture, each with its own seed: they show the noise of a run and average it out."""
    simulate_repetition: bool = False
    """true: cut each domain so that a proxy repeats it as often as the target run will."""

    @model_validator(mode="after")
    def _ordered(self) -> SwarmConfig:
        if self.concentration[0] > self.concentration[1]:
            raise ValueError("concentration: the first bound must not be above the second")
        return self


class SizeConfig(Section):
    """Dimensions of a proxy that has no name."""

    layers: Annotated[int, Field(gt=0)]
    """Transformer layers."""
    heads: Annotated[int, Field(gt=0)]
    """Attention heads."""
    width: Annotated[int, Field(gt=0)]
    """Model dimension."""
    hidden: Annotated[int, Field(gt=0)]
    """Dimension of the SwiGLU layer."""


def _size(value: object) -> object:
    """The dimensions that a name stands for; a mapping as it is."""
    if isinstance(value, str) and value in SIZES:
        return asdict(SIZES[value])
    if not isinstance(value, dict | SizeConfig):
        raise ValueError(f"no such size; the sizes are {', '.join(SIZES)}, or write {{layers, heads, width, hidden}}")
    return value


def _budget(value: object) -> object:
    """A count above 0, a multiple such as 5x, or auto."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "auto":
            return text
        match = _MULTIPLE.fullmatch(text)
        if match is not None:
            if not 0 < float(match[1]) <= LARGEST_MULTIPLE:
                raise ValueError(f"write a multiple above 0, up to {LARGEST_MULTIPLE:,}, such as 5x")
            return text
    try:
        tokens = count(value)
    except ValueError:
        tokens = None
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 < tokens < 2**63:
        raise ValueError("write a whole number above 0, such as 200k, a multiple, such as 5x, or auto")
    return tokens


class ProxyConfig(Section):
    """The proxy: a decoder-only transformer and how it is trained."""

    external: bool = False
    """true: the swarm is trained elsewhere; `dvc repro` writes build/ratios.csv and waits for external/metrics.csv."""

    size: Annotated[SizeConfig, BeforeValidator(_size)]
    """100k (as in the sample), 1m, 15m (for real work), 30m, 60m or 190m, or {layers, heads, width, hidden}."""
    sequence_length: Annotated[int, Field(gt=1)]
    """Tokens per sequence."""
    tokens: Annotated[int | str, BeforeValidator(_budget)]
    """Tokens of a run, rounded down to whole batches: a count, a multiple such as 5x of 20 tokens per parameter, or
    auto, which is 5x for 15m and up."""
    batch_size: Annotated[int, Field(gt=0)]
    """Sequences per step."""
    learning_rate: Annotated[Finite, Field(gt=0)]
    """Peak learning rate of AdamW."""
    warmup: Annotated[Finite, Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps during which the learning rate rises."""
    final_fraction: Annotated[Finite, Field(ge=0, le=1)] = 0.1
    """Learning rate at the end of the cosine, as a fraction of the peak."""
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.1
    """Weight decay of the matrices."""
    beta1: Annotated[Finite, Field(ge=0, lt=1)] = 0.9
    """AdamW's first decay rate."""
    beta2: Annotated[Finite, Field(ge=0, lt=1)] = 0.95
    """AdamW's second decay rate."""
    clip: Annotated[Finite, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of initialisation and data order, the same for all runs of a swarm, so that only their mixtures differ."""
    keep_weights: bool = True
    """false: drop a run's weights once it is evaluated, if they are too big to keep; tasks that are added later cannot
    be evaluated on it."""

    @property
    def shape(self) -> Size:
        """The model's size."""
        return Size(**self.size.model_dump())

    def budget(self, vocabulary: int) -> int:
        """Tokens of a run; parameters are counted without the input embedding."""
        if isinstance(self.tokens, int):
            return self.tokens
        multiple = MULTIPLE if self.tokens == "auto" else float(self.tokens[:-1])
        return chinchilla_tokens(self.shape.parameters(vocabulary), multiple)

    @model_validator(mode="after")
    def _auto(self) -> ProxyConfig:
        if self.tokens == "auto" and self.shape not in [SIZES[name] for name in REAL]:
            raise ValueError(f"tokens: auto is for {', '.join(REAL)}; write a count, or a multiple such as 5x")
        return self


def _law(value: object) -> object:
    names = [AUTO, *sorted(law_kinds())]
    if value not in names:
        raise ValueError(f"no such law; the laws are {', '.join(names)}")
    return value


class FitConfig(Section):
    """The law; one is fitted per task."""

    law: Annotated[str, BeforeValidator(_law)] = AUTO
    """`auto` takes the law that predicts unseen runs best, by cross-validation; log-linear is the reference."""
    delta: Annotated[Finite, Field(gt=0)] = 0.02
    """Residual, in BPB, at which the Huber loss turns from squared to linear."""
    ridge: Annotated[Finite, Field(ge=0)] = 1e-8
    """Ridge on the coefficients' deviation from their mean; so small that it only makes the optimum unique."""
    folds: Annotated[int, Field(gt=1)] = 5
    """Folds of the cross-validation behind the diagnostics."""
    replicates: Annotated[int, Field(ge=0)] = 60
    """Bootstrap replicates over runs, for the uncertainty; 0 switches it off."""
    seed: int = 0
    """Seed of folds and bootstrap."""


class SolveConfig(Section):
    """The optimisation."""

    kl: Annotated[Finite, Field(ge=0)] = 0.05
    """lambda, the weight of KL(mixture || natural)."""


class ValidateConfig(Section):
    """Measuring the proposal by training it."""

    seeds: Annotated[int, Field(ge=0)] = 3
    """Fresh seeds to train the proposal and its baselines with; 0 switches validation off."""


class Params(Section):
    """params.yaml."""

    domains: dict[Name, DomainConfig] = Field(default_factory=dict)
    """The domains, by name."""
    sources: dict[Name, SourceConfig]
    """Shards with several domains each, by the name of the source: every topic is a domain."""
    descriptions: dict[Name, str] = Field(default_factory=dict)
    """Names for people; cosmetic, changes re-run nothing."""
    tokenizer: TokenizerConfig
    tasks: TasksConfig
    objective: ObjectiveConfig
    target: TargetConfig
    reuse: ReuseConfig
    swarm: SwarmConfig
    proxy: ProxyConfig
    fit: FitConfig
    solve: SolveConfig
    validation: ValidateConfig = Field(alias="validate")
    _project: Project = PrivateAttr(default_factory=Project)

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        twice = sorted(set(self.domains) & set(self.sources))
        if twice:
            raise ValueError(f"sources: {', '.join(twice)}: a domain has that name; rename one of them")
        if not self.sources and len(self.domains) < 2:
            only = f"only {next(iter(self.domains))}" if self.domains else "none"
            raise ValueError(f"domains: {only}; a mixture needs at least two")
        known = {*self.tasks.names, *self.tasks.families}
        unknown = sorted(set(self.objective.weights) - known)
        if unknown:
            raise ValueError(f"objective.weights: {', '.join(unknown)}: neither a task nor a family of tasks.families")
        if not any(self.task_weights().values()):
            raise ValueError("objective.weights: all tasks have weight 0; give one of them a weight above 0")
        return self

    @property
    def project(self) -> Project:
        """The project that this is the params.yaml of."""
        return self._project

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Errors that the block raises about a setting name its key here."""
        try:
            yield
        except OlmixError as error:
            key = _SETTINGS.get(error.key or "")
            if error.file is not None or key is None:
                raise
            error.file, error.key = self.project.params, key
            raise

    def plan(
        self, dataset: Dataset, accepted: Accepted, sketches: Mapping[int, Sketch], reuse: Reuse | None = None
    ) -> Plan:
        """The plan from what is accepted, under `reuse` or else the settings here; raises as `make_plan` does."""
        reuse = reuse or self.reuse_settings()
        with self.named_in_errors():
            return make_plan(dataset, accepted.base_for(dataset, reuse), accepted.reuse_for(dataset, reuse), sketches)

    def swarm_of(self, plan: Plan) -> Swarm:
        """The swarm of a plan, under `swarm`; raises as `sample_swarm` does."""
        with self.named_in_errors():
            return make_swarm(plan, self.swarm.runs_per_domain, self.sampling(), self.swarm.repeats)

    def task_weights(self) -> dict[str, float]:
        """The weight of every task: its own, else its family's, else 1."""
        weights = self.objective.weights
        return {
            task: weights.get(task, weights.get(family, 1.0))
            for family, tasks in sorted(self.tasks.families.items())
            for task in sorted(tasks)
        }

    @property
    def entries(self) -> list[str]:
        """Names of the entries that documents are read for, sorted: domains, and sources that hold several."""
        return sorted([*self.domains, *self.sources])

    def data_folders(self) -> list[Path]:
        """The folders of all entries, and that of the tasks."""
        return [*(self.entry(name, None).folder for name in self.entries), self.project.root / self.tasks.path]

    def entry(self, name: str, tokenizer: Tokenizer | None) -> DomainSource:
        """How to read the entry `name`; without a tokeniser, its text alone.

        Raises ConfigError for an unknown entry or a path that leaves the project.
        """
        config = self.domains.get(name) or self.sources.get(name)
        if config is None:
            raise ConfigError(
                f"no domain {name!r}; the domains are {', '.join(self.entries)}", file="params.yaml", key="domains"
            )
        section = "domains" if name in self.domains else "sources"
        folder = self.project.inside(config.path, f"{section}.{name}.path")
        reading = config.reading()
        if tokenizer is not None:
            reading = replace(reading, vocabulary=tokenizer.vocabulary, end=tokenizer.end)
        if isinstance(config, SourceConfig):
            return DomainSource(
                name, folder, replace(reading, partition_by=config.partition_by), source=name, names=config.names
            )
        return DomainSource(name, folder, replace(reading, dtype=config.dtype), config.source, config.tokens)

    def tokenizer_path(self) -> Path:
        """The tokenizer.json, inside the project."""
        return self.project.inside(self.tokenizer.path, "tokenizer.path")

    def task_path(self, task: str) -> Path:
        """The file of a task, inside the project."""
        return self.project.inside(self.tasks.path, "tasks.path") / f"{task}.jsonl"

    def task_paths(self) -> list[Path]:
        """The files of all tasks, in the order of their names."""
        return [self.task_path(task) for task in self.tasks.names]

    def recipe(self, vocabulary: int) -> Recipe:
        """The proxy's recipe for a vocabulary; raises ConfigError when its numbers do not fit each other."""
        training = self.proxy.model_dump(exclude={"seed", "external", "keep_weights", "size", "tokens"})
        recipe = Recipe(
            vocabulary=vocabulary, tokens=self.proxy.budget(vocabulary), **asdict(self.proxy.shape), **training
        )
        recipe.validate()
        return recipe

    def sample_tokens(self, vocabulary: int) -> int:
        """The most tokens that `prepare` keeps of a domain."""
        # A run reads at most all of its tokens from one domain, and the last one only as a target. A sample that no
        # proxy reads serves the estimates alone.
        return ESTIMATED_FROM if self.proxy.external else self.proxy.budget(vocabulary) + 1

    def scale(self, recipe: Recipe) -> Scale | None:
        """How much of a domain a proxy is shown: None without simulated repetition, when it is shown everything."""
        if not self.swarm.simulate_repetition:
            return None
        return Scale(recipe.sequences * recipe.sequence_length, self.target.tokens, recipe.sequence_length)

    def validation_seeds(self) -> int:
        """Fresh seeds that the proposal and its baselines are trained with: none when proxies are trained elsewhere."""
        return 0 if self.proxy.external else self.validation.seeds

    def load_tokenizer(self) -> Tokenizer:
        """The tokeniser; raises DataError when it cannot be read."""
        return Tokenizer(self.tokenizer_path(), self.tokenizer.end_of_document)

    def fit_settings(self) -> FitSettings:
        """The settings of the fit."""
        return FitSettings(**self.fit.model_dump())

    def target_settings(self) -> Target:
        """The target training run."""
        return Target(self.target.tokens, self.target.repetition)

    def caps(self, dataset: Dataset) -> dict[str, float]:
        """The largest share that the limits leave each domain."""
        return domain_caps(dataset, self.target.tokens, self.target.repetition)

    def reuse_settings(self) -> Reuse:
        """The reuse settings of the plan."""
        reuse = self.reuse
        keep = tuple(sorted(reuse.keep.items()))
        return Reuse(reuse.mode, tuple(reuse.recompute), reuse.tolerance, reuse.drift_by, keep)

    def sampling(self) -> Sampling:
        """The sampling settings of the swarm."""
        swarm = self.swarm
        return Sampling(swarm.seed, swarm.concentration, swarm.floor, swarm.topic_minimum)


def load_params(project: Project) -> Params:
    """Read and check params.yaml of a project; raises ConfigError, one line."""
    params = check(project.params, read_yaml(project.params, dvc_reads_it=True), Params)
    params._project = project
    return params
