"""How a program of olmix ends: exit codes, and one line for a user's mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from olmix.errors import OlmixError
from olmix.project import Project

OK, ERROR, SOMETHING_TO_DO, INTERRUPTED = 0, 1, 2, 130
# Packages of the extra `pipeline`, as they are imported: whoever only fits tables has none of them.
PIPELINE = frozenset({"dvc", "fsspec", "isal", "msgspec", "safetensors", "tokenizers", "torch", "zstandard"})


def run(
    main: Callable[[], int | None], kept: str = "what was finished is in the journal; `dvc repro` continues from there"
) -> None:
    """Call `main` and exit: its own code, 1 after the line of an OlmixError or of a missing extra, 130 when
    interrupted.

    `kept` says what an interrupt does not lose.
    """
    try:
        code = main() or OK
        sys.stdout.flush()
    except OlmixError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ERROR
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PIPELINE:
            raise
        print(
            f"error: {package} is not installed; run `pip install 'olmix[pipeline]'`",
            file=sys.stderr,
        )
        code = ERROR
    except KeyboardInterrupt as interrupt:
        goes_on = "".join(f"; {part}" for part in interrupt.args if part)
        print(f"interrupted; {kept}{goes_on}", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
        code = OK
    sys.exit(code)


def run_stage(stage: Callable[[Project], None]) -> None:
    """Run a stage in the working directory, which DVC sets to the project's root, and exit."""
    run(lambda: stage(Project()))
