"""A job: a unit of work whose result goes into the journal, whichever worker runs it, and wherever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from olmix.runs.journal import Journal
from olmix.runs.sharing import Candidate, Entry


@dataclass(frozen=True)
class Setup:
    """How a worker runs jobs: the device (`cpu`, `cuda`, `cuda:1`), and the seconds between two checkpoints of a run.
    Neither can change a run's key."""

    device: str = "cpu"
    checkpoint_seconds: float = 600.0


class Job(Protocol):
    """A unit of work whose result goes into the journal."""

    @property
    def key(self) -> str:
        """Identifies the result; equal keys are done once."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def tokens(self) -> int:
        """Its cost, in tokens that a model reads."""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that it reads: a worker elsewhere is sent them."""

    def moved(self, old: Path, new: Path) -> Self:
        """The same job where its files lie below `new` instead of `old`; ValueError when one lies elsewhere."""

    @property
    def entry(self) -> Entry:
        """Its result's entry in a shared cache."""

    @property
    def sought(self) -> tuple[Entry, ...]:
        """The entries to look for in a shared cache when the journal has no result."""

    @property
    def stores(self) -> bool:
        """Whether its result goes into the shared cache as soon as it is done."""

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """The result, when the journal holds it."""

    def adopt(self, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
        """Copy a shared cache's candidates into the journal, if they are this job's and undamaged."""

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        """Put the result into the journal, calling `progress` with tokens done since the last call."""
