"""What is known of the domains beside the swarm: how many tokens each holds, and what the mixture is pulled towards.

Two shapes of file, JSON or YAML: AI2's {relative_sizes, token_counts}, or tokens alone, {domain: tokens}. The domains
of a file must be those of the swarm; a domain that only one of them knows is never guessed.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import DataError
from olmix.files import read_json, read_yaml
from olmix.tables.table import first_few

SECTIONS = ("relative_sizes", "token_counts")


@dataclass(frozen=True)
class Priors:
    """Reference distribution, shares that sum to 1, and tokens of each domain, None where the file says nothing."""

    reference: dict[str, float] | None
    tokens: dict[str, int] | None
    source: str = "priors"


def read_priors(path: Path) -> Priors:
    """Read a .json, .yaml or .yml file; raises DataError (ConfigError for bad YAML) with file, domain and value."""
    if path.suffix.lower() == ".json":
        content = read_json(path)
        json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: _refuse_repeats(path, pairs))
    elif path.suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(path)
    else:
        raise DataError(
            f"priors must be a .json, .yaml or .yml file, not {path.suffix!r}", file=path, way_out="convert it"
        )
    if not isinstance(content, dict) or not content:
        raise DataError(
            "not priors", file=path, way_out="write {relative_sizes, token_counts}, or the tokens of each domain"
        )
    if not any(key in SECTIONS or isinstance(value, dict | None) for key, value in content.items()):
        return Priors(None, _tokens(content, path), str(path))
    for key in content:
        if key not in SECTIONS:
            close = difflib.get_close_matches(str(key), SECTIONS, n=1)
            way = f"did you mean {close[0]!r}?" if close else f"the keys are {' and '.join(SECTIONS)}"
            raise DataError(f"unknown key {key!r}; {way}", file=path)
    sizes, counts = (content.get(section) for section in SECTIONS)
    return Priors(
        None if sizes is None else _reference(_section(sizes, path, SECTIONS[0]), path, SECTIONS[0]),
        None if counts is None else _tokens(_section(counts, path, SECTIONS[1]), path, SECTIONS[1]),
        str(path),
    )


def aligned(priors: Priors, domains: Sequence[str]) -> tuple[Array, Array | None]:
    """Reference (m,), sum 1, and tokens (m,), None where there are none, in the order of the swarm's domains.

    The reference is natural (tokens / their sum) where the file gives none. Raises DataError naming domains that only
    the priors or only the swarm has.
    """
    for section, values in zip(SECTIONS, (priors.reference, priors.tokens), strict=True):
        if values is not None:
            _refuse_strangers(values, domains, priors.source, section)
    tokens = None if priors.tokens is None else np.array([priors.tokens[d] for d in domains], dtype=np.float64)
    if priors.reference is not None:
        return np.array([priors.reference[d] for d in domains]), tokens
    if tokens is None:
        raise DataError(
            f"has neither {' nor '.join(SECTIONS)}", file=priors.source, way_out="write at least one of them"
        )
    return tokens / tokens.sum(), tokens


def _refuse_repeats(path: Path, pairs: list[tuple[str, Any]]) -> None:
    """Raise DataError for a repeated key: orjson would silently keep the last."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"listed twice: {first_few(twice)}", file=path, way_out="keep one line per domain")


def _refuse_strangers(values: Mapping[str, object], domains: Sequence[str], source: str, section: str) -> None:
    strange = [d for d in values if d not in set(domains)]
    absent = [d for d in domains if d not in values]
    sides = [f"{len(strange)} are not in the swarm ({first_few(strange)})"] if strange else []
    sides += [f"{len(absent)} of the swarm are missing ({first_few(absent)})"] if absent else []
    if sides:
        raise DataError(
            f"domains: {'; '.join(sides)}",
            file=source,
            key=section,
            way_out=f"list exactly the {len(domains)} domains of the swarm",
        )


def _section(content: Any, path: Path, key: str) -> dict[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise DataError(
            "not a mapping of domains", file=path, key=key, way_out="write a line `domain: number` for each"
        )
    return content


def _reference(content: dict[Any, Any], path: Path, section: str) -> dict[str, float]:
    """Shares, positive and finite, divided by their sum."""
    for domain, value in content.items():
        if not _is_number(value) or not (math.isfinite(value) and value > 0):
            raise DataError(
                f"{domain}: share {value!r} is not a finite number > 0",
                file=path,
                key=section,
                way_out="correct or remove it",
            )
    total = math.fsum(content.values())
    return {_domain(domain, path, section): value / total for domain, value in content.items()}


def _tokens(content: dict[Any, Any], path: Path, section: str | None = None) -> dict[str, int]:
    """Positive whole numbers of tokens; 2.0e9 is one."""
    for domain, value in content.items():
        if not _is_number(value) or not (math.isfinite(value) and value == int(value) and value > 0):
            raise DataError(
                f"{domain}: tokens {value!r} is not a whole number > 0",
                file=path,
                key=section,
                way_out="correct or remove it",
            )
    return {_domain(domain, path, section): int(value) for domain, value in content.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _domain(name: object, path: Path, section: str | None) -> str:
    if not isinstance(name, str):
        raise DataError(f"domain {name!r} is not text", file=path, key=section, way_out="put it in quotes")
    return name
