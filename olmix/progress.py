"""How far long work has come: what the lower floors report and a person is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Items found done, finished now, and in all; and the work that this took, done now and to do now in all.

    Items are runs or shards, work is tokens or bytes. `note` is a line that a person should see.
    """

    found: int
    finished: int
    items: int
    work: int
    total_work: int
    note: str = ""

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.found + other.found,
            self.finished + other.finished,
            self.items + other.items,
            self.work + other.work,
            self.total_work + other.total_work,
        )


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody."""
