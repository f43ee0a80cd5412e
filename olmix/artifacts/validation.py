"""`build/validation.json`: the proposal and its baselines, trained with fresh seeds and measured.

`build/validation/` holds the journal's own files of the runs behind it: what a push must carry for a colleague not to
train them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.artifacts.proxies import keep_run
from olmix.core.contenders import PROPOSAL
from olmix.files import output_folder, read_json, write_json
from olmix.project import Project
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec

EVALUATED = "evaluations"  # the folder below of what was measured of them


def keep_runs(project: Project, specs: Sequence[RunSpec], journal: Journal, keep_weights: bool) -> None:
    """Copy the runs of the validation out of the journal, each once."""
    output_folder(project.validated, empty=not specs, why="Nothing is validated here.")
    for key in sorted({spec.key for spec in specs}):
        keep_run(key, journal, project.validated, keep_weights)


def write_validation(project: Project, summary: Mapping[str, Any]) -> None:
    """Write what `summarise` made; nothing of it where nothing was validated."""
    write_json(project.validation, summary)


def gain_of(validation: Mapping[str, Any], mixture: str, over: str) -> dict[str, Any]:
    """How much better `mixture` was measured than `over`, in BPB: the mean over seeds of the difference at the same
    seed, its standard error, and the gain relative to `over`."""
    before = np.array(validation[over]["by_seed"])
    gains = before - np.array(validation[mixture]["by_seed"])
    return {
        "bpb": float(gains.mean()),
        "standard_error": standard_error(gains),
        "relative": float(gains.mean() / before.mean()),
    }


def standard_error(values: NDArray[np.float64]) -> float | None:
    """The standard error of the mean of `values` (n,); None for one value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def read_validation(project: Project, weights: Mapping[str, float]) -> dict[str, Any] | None:
    """The validation, when it is there and is of the mixture `weights` (or empty); None otherwise."""
    return validation_of(read_json(project.validation), weights) if project.validation.exists() else None


def validation_of(validation: dict[str, Any], weights: Mapping[str, float]) -> dict[str, Any] | None:
    """A validation that was read, when it is of the mixture `weights` (or empty); None otherwise."""
    return validation if not validation or validation[PROPOSAL]["weights"] == dict(weights) else None
