"""A table of swarm results, one row a run: the ratios or the metrics of AI2's, RegMix's or a team's own swarm.

Everything is read as text first, and this module parses the numbers: an id such as `0055` stays what it is, and a
cell that is no number is named by its line. Rows are put into an order of their own, so that the order in which a
file holds them never matters. Gives up: speed on tables of many million cells, and other separators than commas.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import DataError

ID_COLUMNS = ("run", "run_id", "index")
# Not data; pandas writes the index of a frame under the empty name and `__index_level_0__`, and reads the first back as
# `Unnamed: 0`, which becomes `Unnamed: 0.1` when a file went through it twice.
LABELS = ("", "run", "run_id", "name", "index", "__index_level_0__")
_PANDAS_INDEX = re.compile(r"Unnamed: [0-9.]+")
MISSING = ("", "nan", "na", "null")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST = 40  # characters of a cell that a message repeats
_NAMED = 5  # names that a message lists before it only counts


@dataclass(frozen=True)
class ResultTable:
    """K runs in ascending `order`: ids (K,) as text, values (K, c) with nan where a cell is empty.

    order (K,) is the column `index` where it holds a number for every run, else the rank of the id in natural order.
    """

    path: Path
    id_column: str
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    values: Array
    order: Array


def read_result_table(path: Path) -> ResultTable:
    """Read a .csv or .parquet file; raises DataError with file, line, column and value for what it cannot use.

    The id is the column `run`, else `run_id`, else `index`; `name` and the indices that pandas writes are no data.
    """
    read = _read(path)
    id_column, ids = _ids(read)
    columns = [name for name in read.names if name not in LABELS and not _PANDAS_INDEX.fullmatch(name)]
    if not columns:
        raise DataError(
            f"no columns besides {', '.join(map(repr, read.names))}",
            file=path,
            way_out="add a column for each domain or metric",
        )
    values = np.column_stack([read.numbers(name) for name in columns])
    order = _order(read, ids)
    rows = sorted(range(len(ids)), key=lambda k: (order[k], natural(ids[k])))
    return ResultTable(path, id_column, tuple(ids[k] for k in rows), tuple(columns), values[rows], order[rows])


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a file in the file's order: the id column of a .csv or .parquet file, else one id per line.

    Raises DataError for a file that is empty or cannot be read, and for a repeated id.
    """
    if path.suffix.lower() in _READERS:
        return tuple(_ids(_read(path))[1])
    lines = [line.strip() for line in _text(path).splitlines()]
    numbers = [k for k, line in enumerate(lines, 1) if line]
    if not numbers:
        raise DataError("no ids", file=path, way_out="write one run id per line")
    ids = [lines[k - 1] for k in numbers]
    _refuse_repeats(path, ids, numbers)
    return tuple(ids)


def natural(text: str) -> tuple[list[str | int], str]:
    """A sort key under which digits compare as numbers: r2 before r10, and 02 after 2."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split("([0-9]+)", text))], text


def first_few(names: Iterable[str]) -> str:
    """Names for a message: the first five, then how many more."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


@dataclass(frozen=True)
class _Cells:
    """What a file holds, column by column: text, or numbers where the format stores them as such."""

    path: Path
    names: list[str]
    columns: list[Sequence[str] | Array]
    lines: Sequence[int]  # of every row, in the file

    def place(self, row: int) -> str:
        """Where a row is: its line in a CSV file, its number in Parquet."""
        return f"{'row' if self.path.suffix.lower() == '.parquet' else 'line'} {self.lines[row]}"

    def column(self, name: str) -> Sequence[str] | Array:
        return self.columns[self.names.index(name)]

    def numbers(self, name: str) -> Array:
        """A column as numbers, nan where it is empty; raises DataError for text and for what is not finite."""
        cells = self.column(name)
        found = cells if isinstance(cells, np.ndarray) else [_number(cell) for cell in cells]
        for row, value in enumerate(found):
            if value is None or math.isinf(value):
                said = "is not a number" if value is None else "is not finite"
                raise DataError(
                    f"{self.place(row)}, column {name!r}: {str(cells[row])[:_LONGEST]!r} {said}",
                    file=self.path,
                    way_out="correct it, leave the cell empty, or remove the column",
                )
        return np.array(found, dtype=np.float64)


def _number(cell: str) -> float | None:
    """A cell as a number: nan when it is empty or a word for that, None when it is text."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    if _NUMBER.fullmatch(text):
        return float(text)
    return math.inf if text.lower().lstrip("+-") in ("inf", "infinity") else None


def _ids(read: _Cells) -> tuple[str, list[str]]:
    """The id column's name and its cells; raises DataError when there is none, or an id is empty or repeated."""
    name = next((column for column in ID_COLUMNS if column in read.names), None)
    if name is None:
        raise DataError(
            f"no id column among {first_few(map(repr, read.names))}",
            file=read.path,
            way_out="name it run, run_id or index",
        )
    cells = read.column(name)
    if isinstance(cells, np.ndarray):
        raise DataError(
            f"column {name!r} has floating-point numbers", file=read.path, way_out="store ids as text or integers"
        )
    ids = [cell.strip() for cell in cells]
    if "" in ids:
        raise DataError(
            f"{read.place(ids.index(''))}: the id in column {name!r} is empty",
            file=read.path,
            way_out="give every run an id of its own",
        )
    _refuse_repeats(read.path, ids, read.lines)
    return name, ids


def _refuse_repeats(path: Path, ids: Sequence[str], lines: Sequence[int]) -> None:
    first: dict[str, int] = {}
    repeats = []
    for run, line in zip(ids, lines, strict=True):
        if first.setdefault(run, line) != line:
            repeats.append(f"{run!r} at {first[run]} and {line}")
    if repeats:
        raise DataError(f"duplicate ids: {first_few(repeats)}", file=path, way_out="keep one row per run")


def _order(read: _Cells, ids: Sequence[str]) -> Array:
    """The index column where it is complete and numeric, else the rank of the id in natural order; (K,)."""
    if "index" in read.names:
        cells = read.column("index")
        found = cells if isinstance(cells, np.ndarray) else [_number(cell) for cell in cells]
        if all(value is not None and math.isfinite(value) for value in found):
            return np.array(found, dtype=np.float64)
    rank = {run: k for k, run in enumerate(sorted(ids, key=natural))}
    return np.array([rank[run] for run in ids], dtype=np.float64)


def _read(path: Path) -> _Cells:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"tables must be .csv or .parquet files, not {path.suffix!r}", file=path, way_out="convert it")
    read = reader(path)
    twice = sorted({name for name in read.names if read.names.count(name) > 1})
    if twice:
        raise DataError(
            f"duplicate column names: {first_few(map(repr, twice))}", file=path, way_out="rename or remove one"
        )
    if not len(read.lines):
        raise DataError("column names but no rows", file=path, way_out="add one row per run")
    return read


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file", file=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start} is not UTF-8", file=path, way_out="save the file as UTF-8") from None


def _read_csv(path: Path) -> _Cells:
    """The standard library's reader: it tells lines, and a row of too few cells, which polars would fill up."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    at: list[int] = []
    begun = 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                at.append(begun)
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"line {begun}: not valid CSV: {error}", file=path, way_out="correct its quotes") from None
    if not rows:
        raise DataError("an empty file", file=path, way_out="write the column names on the first line")
    names = [name.strip() for name in rows[0]]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise DataError(
            f"line {at[0]}: columns must be separated by commas", file=path, way_out="save the file with commas"
        )
    for row, line in zip(rows, at, strict=True):
        if len(row) != len(names):
            raise DataError(
                f"line {line}: {len(row)} cells under {len(names)} column names",
                file=path,
                way_out="check that the file is complete",
            )
    columns: list[Sequence[str] | Array] = list(zip(*rows[1:], strict=True))
    return _Cells(path, names, columns, at[1:])


def _read_parquet(path: Path) -> _Cells:
    import polars as pl

    try:
        frame = pl.read_parquet(path, hive_partitioning=False, glob=False)
        columns: list[Sequence[str] | Array] = [
            column.cast(pl.Float64).to_numpy()  # null becomes nan
            if column.dtype.is_float()
            else column.cast(pl.String).fill_null("").to_list()
            for column in frame.iter_columns()
        ]
    except FileNotFoundError:
        raise DataError("no such file", file=path) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"not a Parquet file of text and numbers: {reason}", file=path) from None
    return _Cells(path, [name.strip() for name in frame.columns], columns, range(1, len(frame) + 1))


_READERS = {".csv": _read_csv, ".parquet": _read_parquet}
