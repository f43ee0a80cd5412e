"""Tables of results: what is read, in which order, and what is refused, by its line."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.errors import DataError
from olmix.tables.table import ResultTable, first_few, natural, read_ids, read_result_table
from tests.public_swarms import FOLDER, load, needs_swarms

PLAIN = "run,name,index,a,b\nr1,x,0,0.25,0.75\nr2,x,1,1,0\nr3,x,2,0,1\n"


def read(folder: Path, content: str | bytes, name: str = "ratios.csv") -> ResultTable:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_result_table(path)


def refused(folder: Path, content: str | bytes, name: str = "ratios.csv") -> str:
    """The message, without the folder."""
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


def same(one: ResultTable, two: ResultTable) -> bool:
    return (
        (one.ids, one.columns) == (two.ids, two.columns)
        and np.array_equal(one.values, two.values, equal_nan=True)
        and np.array_equal(one.order, two.order)
    )


def test_a_plain_file(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN)
    assert (table.path, table.id_column) == (tmp_path / "ratios.csv", "run")
    assert (table.ids, table.columns) == (("r1", "r2", "r3"), ("a", "b"))
    assert table.values.tolist() == [[0.25, 0.75], [1, 0], [0, 1]]
    assert table.order.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("header", "id_column"),
    [("run,run_id,index", "run"), (",run_id,index", "run_id"), ("Unnamed: 0,name,index", "index")],
)
def test_the_id_is_run_else_run_id_else_index(tmp_path: Path, header: str, id_column: str) -> None:
    table = read(tmp_path, f"{header},Unnamed: 0.1,a\n7,8,9,5,1\n")
    assert table.id_column == id_column
    assert table.ids == (dict(zip(header.split(","), "789", strict=True))[id_column],)
    assert table.columns == ("a",)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.rstrip("\n").encode(),
        (PLAIN + "\n\n").encode(),
        PLAIN.replace(",", ", ").replace(" x", ' "x, y"').encode(),
        PLAIN.replace("r2", '"r2"').replace("name", '"name"').replace("0.25", '"0.25"').encode(),
        PLAIN.replace(",x,", ',"a name, with a comma, a ""quote"" and\na line",').encode(),
        PLAIN.replace(",x,", ",\u2028 is no end of a line,").encode(),
        PLAIN.replace("0.25", "+2.5E-1").replace("0.75", ".75").encode(),
    ],
    ids=["bom", "crlf", "cr", "bom-crlf", "no-end", "blank-lines", "spaces", "quotes", "long-name", "u2028", "signs"],
)
def test_the_same_table_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    assert same(read(tmp_path, content), read(tmp_path, PLAIN))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.booleans())
def test_the_order_of_rows_never_matters(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], index: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = [f"run-{k},{k * 10},{k / 8}" for k in (1, 2, 3, 10, 20)]
    header = "run,index,a\n" if index else "run,other,a\n"
    table, other = (read(folder, header + "\n".join(lines[k] for k in order)) for order in (range(5), rows))
    assert same(table, other)
    assert table.ids == ("run-1", "run-2", "run-3", "run-10", "run-20")
    assert table.order.tolist() == ([10, 20, 30, 100, 200] if index else [0, 1, 2, 3, 4])


def test_the_index_sets_the_order_where_it_is_complete_and_numeric(tmp_path: Path) -> None:
    def ids(*indices: str) -> tuple[str, ...]:
        return read(
            tmp_path, "run,index,a\n" + "".join(f"{r},{i},1\n" for r, i in zip("abc", indices, strict=True))
        ).ids

    assert ids("10", "9", "8") == ("c", "b", "a")
    assert ids("2", "1", "1") == ("b", "c", "a")
    assert ids("10", "", "8") == ids("10", "x", "8") == ids("10", "inf", "8") == ("a", "b", "c")


def test_ids_stay_text(tmp_path: Path) -> None:
    table = read(tmp_path, "run,a\n0055,1\n55,2\n1e3,3\n7.0,4\nnan,5\n")
    assert table.ids == ("1e3", "7.0", "0055", "55", "nan")
    assert table.values[:, 0].tolist() == [3, 4, 1, 2, 5]
    assert sorted(["r10", "r2", "r02", "a"], key=natural) == ["a", "r02", "r2", "r10"]


def test_empty_cells_are_nan(tmp_path: Path) -> None:
    table = read(tmp_path, "run,a,b,c,d,e\n1,, ,NaN,NA,null\n2,1,1,1,1,1\n")
    assert np.isnan(table.values).tolist() == [[True] * 5, [False] * 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "ratios.csv: an empty file; write the column names on the first line"),
        ("\n\n", "ratios.csv: an empty file; write the column names on the first line"),
        ("run,a,b\n", "ratios.csv: column names but no rows; add one row per run"),
        ("id,a\n1,2\n", "ratios.csv: no id column among 'id', 'a'; name it run, run_id or index"),
        ("run;a\n1;2\n", "ratios.csv: line 1: columns must be separated by commas; save the file with commas"),
        ("run,name\n1,x\n", "ratios.csv: no columns besides 'run', 'name'; add a column for each domain or metric"),
        ("run,a,b,a\n1,2,3,4\n", "ratios.csv: duplicate column names: 'a'; rename or remove one"),
        ("run,a\n1,2\n\n1,3\n", "ratios.csv: duplicate ids: '1' at 2 and 4; keep one row per run"),
        ("run,a\n1,2\n ,3\n", "ratios.csv: line 3: the id in column 'run' is empty; give every run an id of its own"),
        ("run,a,b\n1,2\n", "ratios.csv: line 2: 2 cells under 3 column names; check that the file is complete"),
        ("run,a\n1,2,3\n", "ratios.csv: line 2: 3 cells under 2 column names; check that the file is complete"),
        ('run,a\n1,2\n3,"4\n', "ratios.csv: line 3: not valid CSV: unexpected end of data; correct its quotes"),
        (b"run,a\n\xe9,2\n", "ratios.csv: byte 6 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert refused(tmp_path, content) == message


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("crashed", "'crashed' is not a number"),
        ("1_000", "'1_000' is not a number"),
        ('"0,5"', "'0,5' is not a number"),
        ("x" * 99, f"'{'x' * 40}' is not a number"),
        ("-inf", "'-inf' is not finite"),
        ("Infinity", "'Infinity' is not finite"),
        ("1e999", "'1e999' is not finite"),
    ],
)
def test_a_cell_that_is_no_number(tmp_path: Path, cell: str, said: str) -> None:
    message = refused(tmp_path, f'run,name,loss\n1,"two\nlines",1.0\n2,x,{cell}\n', "metrics.csv")
    assert message == (
        f"metrics.csv: line 4, column 'loss': {said}; correct it, leave the cell empty, or remove the column"
    )


def test_many_repeats_are_counted(tmp_path: Path) -> None:
    rows = [f"{k},1\n" for k in range(8)]
    message = refused(tmp_path, "run,a\n" + "".join(rows * 2))
    assert message.endswith("'4' at 6 and 14 and 3 more; keep one row per run")
    assert first_few("abc") == "a, b, c"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(DataError, match=r"no such file$"):
            read_result_table(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: cannot be read: Is a directory$"):
        read_result_table(tmp_path / "folder.csv")
    assert refused(tmp_path, "x", "results.xlsx") == (
        "results.xlsx: tables must be .csv or .parquet files, not '.xlsx'; convert it"
    )
    assert refused(tmp_path, "not parquet", "results.parquet").startswith(
        "results.parquet: not a Parquet file of text and numbers: "
    )


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "__index_level_0__": [0, 1, 2],
            "run": ["010", "9", "8"],
            "name": ["x", None, "x"],
            "index": [2, 1, 0],
            "a": [0.1, None, math.nan],
            "b": [1, 0, 5],
            "c": ["1e-3", "", " 7"],
            "d": [None, None, None],
        }
    )
    frame.write_parquet(tmp_path / "metrics.parquet")
    frame.drop("__index_level_0__").write_csv(tmp_path / "metrics.csv")
    table = read_result_table(tmp_path / "metrics.parquet")
    assert table.ids == ("8", "9", "010")
    assert table.columns == ("a", "b", "c", "d")
    assert same(table, read_result_table(tmp_path / "metrics.csv"))
    assert table.values[2, 0] == 0.1


def test_parquet_ids_may_be_integers_but_no_floats(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"index": [10, 9], "a": [1.0, 2.0]}).write_parquet(path)
    assert read_result_table(path).ids == ("9", "10")
    pl.DataFrame({"index": [10.0, 9.0], "a": [1.0, 2.0]}).write_parquet(path)
    with pytest.raises(DataError, match=r"column 'index' has floating-point numbers; store ids as text or integers$"):
        read_result_table(path)


@pytest.mark.parametrize(
    ("column", "said"),
    [([1.0, math.inf], "'inf' is not finite"), (["1", "no"], "'no' is not a number"), ([True, False], "'true' is not")],
)
def test_a_parquet_cell_that_is_no_number(tmp_path: Path, column: list[object], said: str) -> None:
    pl.DataFrame({"run": ["a", "b"], "x": column}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"t\.parquet: row [12], column 'x': {said}"):
        read_result_table(tmp_path / "t.parquet")


def test_ids_of_a_file(tmp_path: Path) -> None:
    lines, table = tmp_path / "ids.txt", tmp_path / "ids.csv"
    lines.write_bytes(b"\xef\xbb\xbf0055\r\n\r\n 12 \r\n")
    table.write_text("name,run\nx,0055\nx,12\n")
    assert read_ids(lines) == read_ids(table) == ("0055", "12")
    lines.write_text("a\n\nb\na\n")
    with pytest.raises(DataError, match=r"ids\.txt: duplicate ids: 'a' at 1 and 4; keep one row"):
        read_ids(lines)
    lines.write_text("\n")
    with pytest.raises(DataError, match=r"ids\.txt: no ids; write one run id per line$"):
        read_ids(lines)
    table.write_text("0055\n12\n")
    with pytest.raises(DataError, match="no id column among '0055'"):
        read_ids(table)


def test_importing_the_reader_does_not_import_polars() -> None:
    check = "import olmix.tables.table, sys; print('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "False\n"


@needs_swarms
@pytest.mark.parametrize("name", ["dclm", "partition-pdfs", "regmix-1m"])
def test_public_files(name: str, tmp_path: Path) -> None:
    swarm = load(name)
    ratios, metrics = (read_result_table(FOLDER / name / f"{file}.csv") for file in ("ratios", "metrics"))
    assert ratios.ids == metrics.ids == tuple(swarm.ids)
    assert (ratios.columns, metrics.columns) == (tuple(swarm.domains), tuple(swarm.tasks))
    assert np.array_equal(ratios.values, swarm.mixtures)
    assert np.array_equal(metrics.values, swarm.bpb)
    with (FOLDER / name / "metrics.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *sorted(rows, reverse=True)])
    assert same(read_result_table(tmp_path / "metrics.csv"), metrics)
