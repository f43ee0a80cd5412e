"""The speed of the last swarm that was trained here, which the next plan tells hours by."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

from olmix.errors import OlmixError
from olmix.files import read_json, write_json
from olmix.runs.engine import Outcome
from olmix.runs.training_job import TrainingJob


def remember_speed(path: Path, jobs: Sequence[TrainingJob], outcome: Outcome, seconds: float, place: str) -> None:
    """Note in `path` the FLOP/s of a swarm that was trained at `place`."""
    flops = sum({job.key: job.spec.recipe.flops for job in jobs if job.key in outcome.done_keys}.values())
    if flops and seconds > 0:
        with contextlib.suppress(OlmixError):  # a full disk is said where it matters
            write_json(path, {**speeds(path), place: flops / seconds})


def speeds(path: Path) -> dict[str, float]:
    """FLOP/s by place, as `path` has them."""
    try:
        content = read_json(path) if path.exists() else {}
    except OlmixError:
        return {}  # a note, no evidence: a damaged one is written anew
    known = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in known if isinstance(value, float) and 0 < value < math.inf}
