"""A run's key and its record.

The key is a digest of what decides the result: the token sets with their sequence counts, the recipe, the seed, and
the declared version of the training code. It names no domain, path, host, engine, device or task: a renamed domain, a
colleague's machine and a new task all find the runs that exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
import xxhash

from olmix.core.quantise import largest_remainder
from olmix.core.seeds import named_key
from olmix.core.swarm import Swarm
from olmix.data.tokensets import TokenSet
from olmix.proxy.recipe import RECIPE_VERSION, Recipe

INPUTS = ("version", "recipe", "seed", "counts", "in_order")


@dataclass(frozen=True)
class RunSpec:
    """A run to train: its name in its swarm, sequences of each token set by name, recipe and seed."""

    name: str
    counts: Mapping[str, int]
    sets: Mapping[str, TokenSet]
    recipe: Recipe
    seed: int

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the token sets that the run reads, by identity: their order in everything that is computed."""
        names = [name for name, count in self.counts.items() if count]
        return tuple(sorted(names, key=lambda name: (self.sets[name].identity, name)))

    @property
    def content(self) -> bytes:
        """All that decides the result, as canonical bytes."""
        return content_of(self.inputs)

    @property
    def inputs(self) -> dict[str, Any]:
        """All that decides the result, as the run's record holds it."""
        counts: dict[str, int] = {}
        for name in self.used:  # one content under two names is read as one
            identity = self.sets[name].identity
            counts[identity] = counts.get(identity, 0) + self.counts[name]
        inputs = {"version": RECIPE_VERSION, "recipe": asdict(self.recipe), "seed": self.seed, "counts": counts}
        return {**inputs, "in_order": self.in_order} if self.in_order else inputs

    @property
    def in_order(self) -> list[str]:
        """Identities of the token sets whose first rows the run reads as they lie."""
        return sorted(self.sets[name].identity for name in self.used if self.sets[name].in_order)

    @property
    def key(self) -> str:
        """32 hexadecimal digits; equal keys are equal results."""
        return xxhash.xxh3_128_hexdigest(self.content)

    @property
    def weights(self) -> dict[str, float]:
        """Realised weights: counts of sequences over their sum."""
        total = sum(self.counts.values())
        return {name: count / total for name, count in sorted(self.counts.items())}


def content_of(record: Mapping[str, Any]) -> bytes:
    """What a run was made from, out of its record, as the canonical bytes that its key is the digest of."""
    return orjson.dumps({name: record[name] for name in INPUTS if name in record}, option=orjson.OPT_SORT_KEYS)


def spec_for(
    name: str, weights: Mapping[str, float], sets: Mapping[str, TokenSet], recipe: Recipe, seed: int
) -> RunSpec:
    """The run that realises `weights` best in whole sequences (largest remainder)."""
    names = sorted(weights, key=lambda n: (sets[n].identity, n))
    counts = largest_remainder(np.array([weights[n] for n in names]), recipe.sequences)
    return RunSpec(name, dict(sorted(zip(names, counts.tolist(), strict=True))), sets, recipe, seed)


def repeat_seed(seed: int, repeat: int) -> int:
    """The seed of a mixture's run: the swarm's own for its first run, another for each repeat of it."""
    return seed if not repeat else named_key("swarm", "repeat", seed, repeat) % 2**31


def swarm_specs(swarm: Swarm, sets: Mapping[str, TokenSet], recipe: Recipe, seed: int) -> list[RunSpec]:
    """The runs of every mixture of the swarm."""
    return [
        spec_for(run, weights, sets, recipe, repeat_seed(seed, repeat))
        for (run, weights), repeat in zip(swarm.rows().items(), swarm.repeats, strict=True)
    ]


def published(
    spec: RunSpec, names: Sequence[str], record: Mapping[str, Any], expanded: Mapping[str, Any]
) -> dict[str, Any]:
    """The record in `build/proxies/`: the journal's `record` under the names that this pipeline uses.

    `expanded` are the real domains behind the mixture with their weights and digests: the run is evidence while they
    are unchanged. `runs` are all runs of the swarm that come to the same sequences, and `run` is the first of them.
    """
    repetition = {name: spec.counts[name] / spec.sets[name].rows for name in sorted(spec.used)}
    curves = record["set_curves"]
    named = {name: curves[spec.sets[name].identity] for name in sorted(spec.used)}
    return {
        **{name: value for name, value in record.items() if name not in ("set_curves", "counts")},
        "domain_curves": named,
        "run": spec.name,
        "runs": list(names),
        "weights": spec.weights,
        "repetition": repetition,
        "domains": expanded,
    }
