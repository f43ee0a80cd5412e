"""Progress of a command that takes seconds: what it is doing now, on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.status import Status


class Steps:
    """A context manager that is called with what begins."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._status: Status | None = None

    def __enter__(self) -> Steps:
        console = Console(file=sys.stderr)
        if console.is_terminal:
            self._status = console.status(self._command)
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, what: str) -> None:
        if self._status is not None:
            self._status.update(f"{self._command}: {what}")
