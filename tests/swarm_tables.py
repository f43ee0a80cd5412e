"""A small swarm as the files that `olmix fit` and `olmix sweep` read, and both commands run in this process.

Its tasks follow the log-linear law, so that a fit is good and quick; tests change cells before they write the files.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from olmix.artifacts.mixture_file import MixtureFile, read_mixture
from olmix.cli import main as cli
from olmix.core.seeds import generator

DOMAINS = ("books", "code", "math", "web")
TASKS = ("algebra", "python", "reading")
# At the target and repetition 4 the cap of math is 0.2222222222: no multiple of 10^-6.
TOKENS = {"books": 4_000_000_000, "code": 3_000_000_000, "math": 1_111_111_111, "web": 20_000_000_000}
SHARES = {"books": 0.2, "code": 0.2, "math": 0.1, "web": 0.5}
RUNS = 24
TARGET = 20_000_000_000
CAPS = {name: min(1.0, 4 * tokens / TARGET) for name, tokens in TOKENS.items()}
CONSTANT = 0.5
COEFFICIENTS = np.array([[0.1, 0.2, -1.5, -0.2], [0.2, -1.4, -0.3, 0.1], [-0.9, 0.3, 0.2, -0.6]])

# What diagnostics.json says of a task.
TASK_KEYS = frozenset(("loss", "coefficient_norm", "spearman", "pearson", "rmse", "noise", "lowest_bpb", "highest_bpb"))

Cells = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Ran:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def olmix(folder: Path, *words: str) -> Ran:
    """Run a command of the console script in `folder`; a warning of numpy or matplotlib is an error."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["olmix", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", UserWarning)
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def succeeds(folder: Path, *words: str, plots: bool = False) -> Ran:
    """A command that must succeed; without the plots of a fit, which take half of its time, unless they are wanted."""
    with contextlib.nullcontext() if plots else mock.patch("olmix.cli.plots.draw_fit", return_value=[]):
        ran = olmix(folder, *words)
    assert ran.code == 0, ran.err
    return ran


def rows(prefix: str, columns: Sequence[str], values: np.ndarray, decimals: int) -> Cells:
    """Cells by run, {prefix}00, {prefix}01, ..., and column."""
    return {
        f"{prefix}{k:02d}": {name: f"{value:.{decimals}f}" for name, value in zip(columns, row, strict=True)}
        for k, row in enumerate(values)
    }


def text(cells: Cells, order: Sequence[str] | None = None, id_column: str = "run") -> str:
    """A CSV file of the runs in `order`."""
    columns = list(next(iter(cells.values())))
    lines = [",".join([run, *(cells[run][name] for name in columns)]) for run in order or list(cells)]
    return "\n".join([",".join([id_column, *columns]), *lines]) + "\n"


def bpb(mixtures: np.ndarray) -> np.ndarray:
    """What the law of this swarm says, (K, 3)."""
    return np.asarray(CONSTANT + np.exp(mixtures @ COEFFICIENTS.T))


class Swarm:
    """A folder with ratios.csv, metrics.csv and priors.json."""

    def __init__(self, root: Path, noise: float = 0.003) -> None:
        self.root = root
        draw = generator("swarm tables")
        mixtures = np.round(draw.dirichlet([2.0, 2.0, 1.0, 4.0], size=RUNS), 9)
        measured = bpb(mixtures) + draw.normal(0, noise, (RUNS, len(TASKS)))
        self.ratios = rows("r", DOMAINS, mixtures, 9)
        self.metrics = rows("r", TASKS, measured, 12)
        self.priors: dict[str, Any] = {"relative_sizes": dict(SHARES), "token_counts": dict(TOKENS)}

    def older(self) -> tuple[str, str]:
        """An older swarm that knew `forum` and no `math`, in two files; its names are returned."""
        draw = generator("older swarm tables")
        mixtures = np.round(draw.dirichlet([2.0, 2.0, 1.0, 4.0], size=18), 9)
        measured = bpb(mixtures * [1, 1, 0, 1]) + draw.normal(0, 0.003, (18, len(TASKS)))
        self.write("old-ratios.csv", text(rows("old", ("books", "code", "forum", "web"), mixtures, 9)))
        self.write("old-metrics.csv", text(rows("old", TASKS, measured, 12)))
        return "old-ratios.csv", "old-metrics.csv"

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the folder."""
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def write_tables(self) -> None:
        """Write the three files as they are now, those that are there already apart."""
        made = {
            "ratios.csv": lambda: text(self.ratios),
            "metrics.csv": lambda: text(self.metrics),
            "priors.json": lambda: json.dumps(self.priors),
        }
        for name, content in made.items():
            if not (self.root / name).exists():
                self.write(name, content())

    def fit(self, *words: str, plots: bool = False) -> Ran:
        """`olmix fit` of the log-linear law for 20B tokens without replicates, which must succeed."""
        return self.command(*FIT, *words, plots=plots)

    def sweep(self, *words: str, plots: bool = False) -> Ran:
        """`olmix sweep` around 20B tokens, which must succeed."""
        return self.command(*SWEEP, *words, plots=plots)

    def command(self, *words: str, plots: bool = False) -> Ran:
        """A command that must succeed."""
        self.write_tables()
        return succeeds(self.root, *words, plots=plots)

    def refused(self, *words: str, command: Sequence[str] = ()) -> str:
        """What a command says that must fail with one line, write nothing, and never begin to fit."""
        self.write_tables()
        before = self.files()
        with (
            mock.patch("olmix.cli.fit.fit_swarm", _fitted),
            mock.patch("olmix.cli.sweep.fit_swarm", _fitted),
        ):
            ran = olmix(self.root, *(command or FIT), *words)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1
        assert self.files() == before
        return ran.err.removeprefix("error: ").removesuffix("\n")

    def files(self) -> dict[str, bytes]:
        """Every file of the folder."""
        return {
            p.relative_to(self.root).as_posix(): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()
        }

    def outputs(self, out: str = "fit") -> dict[str, bytes]:
        """Every file that a command wrote."""
        folder = f"{out}/"
        return {name.removeprefix(folder): c for name, c in self.files().items() if name.startswith(folder)}

    def mixture(self, out: str = "fit") -> MixtureFile:
        """The proposal, read back."""
        return read_mixture(self.root / out / "mixture.yaml")

    def weights(self, out: str = "fit") -> dict[str, float]:
        """Weights of the proposal by domain."""
        return dict(self.mixture(out).mixture.weights)

    def diagnostics(self, out: str = "fit") -> Any:
        """diagnostics.json."""
        return json.loads((self.root / out / "diagnostics.json").read_text())


def another(swarm: Swarm, name: str) -> Swarm:
    """The same swarm in a folder of its own inside the other's."""
    (swarm.root / name).mkdir()
    return Swarm(swarm.root / name)


TABLES = ("ratios.csv", "metrics.csv", "--priors", "priors.json", "--target-tokens", "20B")
LAW = ("--law", "log-linear")  # which made the runs; a law that is named after it counts instead
FIT = ("fit", *TABLES, *LAW, "--replicates", "0")
SWEEP = ("sweep", *TABLES, *LAW)


def _fitted(*_: object, **__: object) -> Callable[[], None]:
    raise AssertionError("a fit began before the input was refused")
