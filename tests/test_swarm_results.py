"""Swarms of results: joined by id, cut to some runs, and made into tasks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.errors import DataError
from olmix.tables.swarm_results import SwarmTable, join, only, subset
from olmix.tables.table import ResultTable, read_result_table
from olmix.tables.tasks import SetAside, tasks_of


def table(path: str, rows: dict[str, list[float]], columns: str, id_column: str = "run") -> ResultTable:
    values = np.array(list(rows.values()), dtype=np.float64)
    return ResultTable(Path(path), id_column, tuple(rows), tuple(columns), values, np.arange(float(len(rows))))


def ratios(rows: dict[str, list[float]] | None = None) -> ResultTable:
    return table("r.csv", rows or {"one": [1, 0], "two": [0.5, 0.5], "three": [0, 1]}, "xy")


def metrics(rows: dict[str, list[float]] | None = None, columns: str = "abc") -> ResultTable:
    return table("m.csv", rows or {"three": [7, 8, 9], "one": [1, 2, 3], "two": [4, 5, 6]}, columns, "run_id")


def swarm(bpb: list[list[float]]) -> SwarmTable:
    """Runs r0, r1, .. over two domains, tasks a, b, .."""
    values = np.array(bpb, dtype=np.float64)
    k, n = values.shape
    share = np.linspace(0, 1, k)
    tasks = tuple("abcdefgh"[:n])
    runs = tuple(f"r{i}" for i in range(k))
    return SwarmTable(runs, ("x", "y"), tasks, np.column_stack([share, 1 - share]), values, "m.csv")


def refuses(message: str) -> pytest.RaisesExc[DataError]:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def test_rows_are_joined_by_id() -> None:
    joined = join(ratios(), metrics())
    assert joined.runs == ("one", "two", "three")
    assert (joined.domains, joined.tasks) == (("x", "y"), ("a", "b", "c"))
    assert joined.mixtures.tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert joined.bpb.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_the_order_of_rows_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, one: list[int], two: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("swarm")

    def result(first: list[int], second: list[int]) -> SwarmTable:
        (folder / "r.csv").write_text("run,x,y\n" + "".join(f"r{k},{k / 8},{1 - k / 8}\n" for k in first))
        (folder / "m.csv").write_text("run_id,a,b\n" + "".join(f"r{k},{1 + k / 3},{2 - k / 9}\n" for k in second))
        joined = join(read_result_table(folder / "r.csv"), read_result_table(folder / "m.csv"))
        return tasks_of(subset(joined, runs=4, seed=3), {"g": {"a": 1, "b": 2}})[0]

    plain, shuffled = result(list(range(6)), list(range(6))), result(one, two)
    assert plain.runs == shuffled.runs
    assert np.array_equal(plain.mixtures, shuffled.mixtures)
    assert np.array_equal(plain.bpb, shuffled.bpb)


def test_ids_on_one_side_only() -> None:
    rows: dict[str, list[float]] = {"one": [1, 2, 3], "three": [1, 2, 3], "four": [1, 2, 3], "five": [1, 2, 3]}
    with refuses(
        "r.csv, m.csv: runs joined by 'run' and 'run_id': 1 only in r.csv (two); 2 only in m.csv (four, five); "
        "remove these rows, or add the missing ones to the other file"
    ):
        join(ratios(), metrics(rows))
    with pytest.raises(DataError, match=r"'run_id': 1 only in m\.csv \(four\); remove"):
        join(ratios({"one": [1, 0], "three": [0, 1], "five": [1, 0]}), metrics(rows))


def test_rows_close_to_1_are_divided_by_their_sum() -> None:
    joined = join(ratios({"one": [0.5, 0.505], "two": [0.2, 0.795], "three": [0.3, 0.7]}), metrics())
    assert np.allclose(joined.mixtures.sum(axis=1), 1, rtol=0, atol=1e-15)
    assert joined.mixtures[0, 0] == pytest.approx(0.5 / 1.005, rel=1e-15)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            [0.5, 0.4],
            "r.csv: run 'two': weights sum to 0.9, not to 1 within 0.01; "
            "add the missing domains, remove columns that are not domains, and check that this is the file of ratios",
        ),
        ([1.25, -0.25], "r.csv: run 'two', domain 'y': weight -0.25; weights must be >= 0"),
        (
            [1, np.nan],
            "r.csv: run 'two', domain 'y': no weight; write 0 for a domain that a run does not read",
        ),
    ],
)
def test_weights_that_are_no_mixture(row: list[float], message: str) -> None:
    with refuses(message):
        join(ratios({"one": [1, 0], "two": row, "three": [0, 1]}), metrics())


def test_swapped_files_are_told_by_their_sums() -> None:
    losses = table("m.csv", {"one": [2.5, 2], "two": [3, 3], "three": [4, 0.995]}, "ab")
    with pytest.raises(DataError, match=r"m\.csv: run 'two': weights sum to 6, .* \(and 2 more like it\); .* ratios$"):
        join(losses, ratios())


def test_bpb_is_positive_where_it_is_used() -> None:
    rows: dict[str, list[float]] = {"one": [1, 2, 3], "two": [1, np.nan, 3], "three": [1, 0, 3]}
    with refuses(
        "m.csv: run 'three', metric 'b': 0 is not a BPB, which is > 0; leave the metric out with --drop, "
        "or the cell empty"
    ):
        join(ratios(), metrics(rows))
    assert join(ratios(), metrics(rows), unused=["b"]).bpb[2].tolist() == [1, 0, 3]


def test_subset_is_that_of_scikit_learn() -> None:
    # What train_test_split(range(127), train_size=8, random_state=0) trains on, and of 10 with 4 and seed 7.
    assert [int(run[1:]) for run in subset(swarm([[1]] * 127), runs=8, seed=0).runs] == [
        9,
        44,
        47,
        64,
        67,
        103,
        117,
        122,
    ]
    assert subset(swarm([[1]] * 10), runs=4, seed=7).runs == ("r3", "r4", "r6", "r7")
    split = pytest.importorskip("sklearn.model_selection").train_test_split
    for total, runs, seed in [(127, 64, 0), (127, 64, 1), (64, 44, 100), (512, 1, 5), (10, 9, 2**32 - 1)]:
        whole = swarm([[k + 1.0] for k in range(total)])
        train, _ = split(np.arange(total), train_size=runs, random_state=seed)
        chosen = subset(whole, runs=runs, seed=seed)
        assert chosen.runs == tuple(f"r{k}" for k in sorted(train))
        assert chosen.bpb[:, 0].tolist() == [k + 1.0 for k in sorted(train)]
        assert np.array_equal(chosen.mixtures, whole.mixtures[np.sort(train)])


def test_subset_of_all_runs_is_the_swarm() -> None:
    assert subset(swarm([[1]] * 5), runs=5, seed=3).runs == ("r0", "r1", "r2", "r3", "r4")


@pytest.mark.parametrize(
    ("runs", "seed", "message"),
    [
        (4, 0, "m.csv: cannot choose 4 of 3 runs; choose from 1 to 3"),
        (0, 0, "m.csv: cannot choose 0 of 3 runs; choose from 1 to 3"),
        (2, -1, "m.csv: seed -1 is out of range; choose one from 0 to 4294967295"),
    ],
)
def test_subsets_that_cannot_be(runs: int, seed: int, message: str) -> None:
    with refuses(message):
        subset(swarm([[1]] * 3), runs=runs, seed=seed)


def test_only_some_runs() -> None:
    whole = swarm([[1], [2], [3], [4]])
    chosen = only(whole, ["r3", "r1"])
    assert chosen.runs == ("r1", "r3")
    assert chosen.bpb.tolist() == [[2], [4]]
    with refuses("ids.txt: 2 of 3 ids are not in m.csv: 'r9', '1'; remove them, or use ids of its runs, such as 'r0'"):
        only(whole, ["r9", "r1", "1"], "ids.txt")
    with refuses("ids.txt: no ids; give at least one run"):
        only(whole, [], "ids.txt")


def test_groups_are_weighted_means_and_the_rest_is_kept() -> None:
    whole = swarm([[1, 2, 3, 4], [5, 1, 4, 8]])
    made, aside = tasks_of(whole, {"g": {"d": 3, "b": 1}}, drop=["c"])
    assert (made.tasks, aside) == (("a", "g"), ())
    assert made.bpb.tolist() == [[1, (3 * 4 + 2) / 4], [5, (3 * 8 + 1) / 4]]
    assert tasks_of(whole)[0].tasks == ("a", "b", "c", "d")
    # A metric that is dropped leaves its group, and a group may have the name of a metric in it.
    assert tasks_of(whole, {"b": {"d": 3, "b": 1}}, drop=["d", "c"])[0].bpb.tolist() == [[1, 2], [5, 1]]


def test_a_missing_metric_counts_only_where_it_is_used() -> None:
    nan = np.nan
    whole = swarm([[1, 2, 3, nan], [2, nan, 4, 1], [3, 4, nan, 2], [4, 3, 2, nan]])
    assert [a.run for a in tasks_of(whole, drop=["b", "c", "d"])[1]] == []
    made, aside = tasks_of(whole, {"g": {"b": 1, "c": 1}}, drop=["d"])
    assert made.runs == ("r0", "r3")
    assert aside == (SetAside("r1", ("b",)), SetAside("r2", ("c",)))
    assert np.array_equal(made.mixtures, whole.mixtures[[0, 3]])
    assert made.bpb.tolist() == [[1, 2.5], [4, 2.5]]
    with refuses(
        "m.csv: none of 4 runs has all 4 metrics that are used; "
        "'d' is missing in 2; fill it in, or leave it out with --drop"
    ):
        tasks_of(whole)


def test_constant_metrics() -> None:
    whole = swarm([[1, 2, 0.5], [2, 2, 0.5], [3, 2 + 1e-13, 0.5]])
    with refuses(
        "m.csv: metrics with the same value in all 3 runs, which teach a law nothing: 'b' (2), 'c' (0.5); "
        "leave them out with --drop"
    ):
        tasks_of(whole)
    with pytest.raises(DataError, match=r"same value in all 3 runs, .*: 'b' \(2\); leave"):
        tasks_of(whole, {"g": {"a": 1, "b": 1}}, drop=["c"])
    assert tasks_of(whole, drop=["b", "c"])[0].tasks == ("a",)
    # A run that is set aside does not make a metric vary.
    with pytest.raises(DataError, match=r"same value in all 2 runs, .*: 'b'"):
        tasks_of(swarm([[1, 2], [2, 2], [np.nan, 3]]))


@pytest.mark.parametrize(
    ("groups", "drop", "message"),
    [
        ({}, ["alpa"], "m.csv: no metric 'alpa' (dropped); did you mean 'alpha'?"),
        ({}, ["zz"], "m.csv: no metric 'zz' (dropped); the metrics are alpha, beta, gamma"),
        ({"g": {"bet": 1}}, [], "m.csv: no metric 'bet' (in group 'g'); did you mean 'beta'?"),
        ({"g": {"beta": 0}}, [], "m.csv: group 'g': 'beta' has weight 0; weights must be > 0"),
        ({"g": {"beta": np.nan}}, [], "m.csv: group 'g': 'beta' has weight nan; weights must be > 0"),
        (
            {"g": {"beta": 1}, "h": {"beta": 1}},
            [],
            "m.csv: metric 'beta' is in groups 'g' and 'h'; keep it in one",
        ),
        (
            {"g": {"beta": 1}},
            ["beta"],
            "m.csv: group 'g': all of its metrics are dropped; keep one, or remove the group",
        ),
        (
            {"alpha": {"beta": 1}},
            [],
            "m.csv: group 'alpha' has the name of a metric outside it; rename the group",
        ),
        ({}, ["alpha", "beta", "gamma"], "m.csv: all 3 metrics are dropped; keep at least one"),
    ],
)
def test_groups_and_drops_that_cannot_be(groups: dict[str, dict[str, float]], drop: list[str], message: str) -> None:
    whole = join(ratios(), metrics())
    named = SwarmTable(whole.runs, whole.domains, ("alpha", "beta", "gamma"), whole.mixtures, whole.bpb, "m.csv")
    with refuses(message):
        tasks_of(named, groups, drop)
