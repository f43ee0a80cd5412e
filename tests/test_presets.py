"""Built-in groupings of metrics, and those of a user's own file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from olmix.errors import DataError
from olmix.tables.presets import preset, preset_names, preset_tasks, read_preset
from olmix.tables.swarm_results import SwarmTable, join
from olmix.tables.table import read_result_table
from tests.public_swarms import DROPPED, FOLDER, MMLU, needs_swarms

OLMES = preset("olmes-52")


def made_up(tasks: tuple[str, ...]) -> SwarmTable:
    bpb = 1 + np.random.default_rng(0).random((6, len(tasks)))
    return SwarmTable(tuple("abcdef"), ("x",), tasks, np.ones((6, 1)), bpb, "m.csv")


def write(folder: Path, content: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(content)
    return path


def test_olmes_has_the_tasks_of_the_paper() -> None:
    assert preset_names() == ("olmes-52",)
    assert {family: len(tasks) for family, tasks in OLMES.families.items()} == {"math": 7, "code": 19, "qa": 26}
    assert len(set(OLMES.tasks)) == 52
    assert len(OLMES.metrics) == len(set(OLMES.metrics)) == 105
    assert OLMES.drop == DROPPED


def test_mmlu_is_weighted_by_its_test_examples() -> None:
    for group, subjects in MMLU.items():
        assert set(OLMES.groups[f"mmlu_{group}"]) == {f"mmlu_{subject}:rc::olmes" for subject in subjects.split()}
    sums = {group: sum(members.values()) for group, members in OLMES.groups.items()}
    assert sums == {"mmlu_stem": 3153, "mmlu_humanities": 4705, "mmlu_social_sciences": 3077, "mmlu_other": 3107}
    assert sum(sums.values()) == 14042
    assert OLMES.groups["mmlu_humanities"]["mmlu_professional_law:rc::olmes"] == 1534


@needs_swarms
@pytest.mark.parametrize("name", ["dclm", "partition-pdfs"])
def test_olmes_fits_the_public_files(name: str) -> None:
    ratios, metrics = (read_result_table(FOLDER / name / f"{file}.csv") for file in ("ratios", "metrics"))
    table = join(ratios, metrics)
    made, aside = preset_tasks(table, OLMES)
    assert made.tasks == OLMES.tasks
    assert (made.bpb.shape, aside) == ((len(table.runs), 52), ())
    column = {task: table.bpb[:, j] for j, task in enumerate(table.tasks)}
    members = OLMES.groups["mmlu_other"]
    mean = sum(weight * column[metric] for metric, weight in members.items()) / sum(members.values())
    assert np.allclose(made.bpb[:, made.tasks.index("mmlu_other")], mean, rtol=1e-14)
    assert np.array_equal(made.bpb[:, made.tasks.index("lambada")], column["lambada"])


def test_a_preset_that_does_not_fit() -> None:
    metrics = (*OLMES.metrics, *OLMES.drop)
    with pytest.raises(DataError) as caught:
        preset_tasks(made_up(tuple(m for m in metrics if m not in ("lambada", "mmlu_virology:rc::olmes"))), OLMES)
    assert str(caught.value) == (
        "m.csv: preset olmes-52 does not fit: 2 of its 105 metrics are missing: lambada, mmlu_virology:rc::olmes; "
        "add them, or group the metrics with a preset of your own"
    )
    strange = made_up((*metrics, "runtime"))
    with pytest.raises(DataError) as caught:
        preset_tasks(strange, OLMES)
    assert str(caught.value) == (
        "m.csv: preset olmes-52 does not know 1 metrics: runtime; "
        "leave them out with --drop, or group the metrics with a preset of your own"
    )
    assert preset_tasks(strange, OLMES, drop=["runtime"])[0].tasks == OLMES.tasks
    with pytest.raises(DataError, match=r"no metric 'runtimes' \(dropped\); did you mean 'runtime'\?"):
        preset_tasks(strange, OLMES, drop=["runtimes"])


def test_metrics_that_a_preset_drops_may_be_absent_or_empty() -> None:
    assert preset_tasks(made_up(OLMES.metrics), OLMES)[0].tasks == OLMES.tasks
    table = made_up((*OLMES.metrics, *OLMES.drop))
    unused, used = table.bpb.copy(), table.bpb.copy()
    unused[2, -1] = np.nan
    used[2, 0] = np.nan
    assert preset_tasks(replace(table, bpb=unused), OLMES)[1] == ()
    assert [a.run for a in preset_tasks(replace(table, bpb=used), OLMES)[1]] == ["c"]


def test_a_task_may_be_dropped_from_a_preset() -> None:
    made, _ = preset_tasks(made_up(OLMES.metrics), OLMES, drop=["lambada", "mmlu_virology:rc::olmes"])
    assert made.tasks == tuple(task for task in OLMES.tasks if task != "lambada")


def test_a_preset_that_there_is_not() -> None:
    with pytest.raises(DataError, match=r"^preset 'olmes': no such preset; the built-in ones are olmes-52$"):
        preset("olmes")


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    mine = read_preset(write(tmp_path, "families: {web: [both, c]}\ngroups: {both: {a: 1, b: 3}}\ndrop: [d]\n"))
    assert (mine.name, mine.tasks, mine.metrics, mine.drop) == ("mine", ("both", "c"), ("a", "b", "c"), ("d",))
    table = made_up(("d", "c", "b", "a"))
    made, _ = preset_tasks(table, mine)
    assert made.tasks == ("both", "c")
    assert np.allclose(made.bpb, np.column_stack([(table.bpb[:, 3] + 3 * table.bpb[:, 2]) / 4, table.bpb[:, 1]]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[a]", "not a preset; write the mapping `families`, and `groups` and `drop` where needed"),
        ("groups: {g: {a: 1}}", "not a preset; write the mapping `families`, and `groups` and `drop` where needed"),
        ("families: {f: [a]}\nweight: 1", "unknown keys weight; the keys are drop, families, groups"),
        ("families: {f: a}", "families.f: not a list of names; put names that look like numbers in quotes"),
        ("families: {f: [1]}", "families.f: not a list of names; put names that look like numbers in quotes"),
        ("families: [a]", "families: not a mapping of names; put names that look like numbers in quotes"),
        ("families: {f: [g]}\ngroups: {g: [1]}", "groups.g: not a list of names; put names that look like"),
        ("families: {f: [g]}\ngroups: {g: {a: 0}}", "groups.g: a: weight 0 is not a finite number > 0"),
        ("families: {f: [g]}\ngroups: {g: {a: x}}", "groups.g: a: weight 'x' is not a finite number > 0"),
        ("families: {f: [b]}\ngroups: {g: {a: 1}}", "groups in no family: g; list each in one of the families"),
        ("families: {f: [a], h: [a]}", "listed twice: a; drop each metric, or keep it in one task of one family"),
        ("families: {f: [a]}\ndrop: [a]", "listed twice: a; drop each metric, or keep it in one task of one family"),
        ("families: {f: [g, a]}\ngroups: {g: {a: 1}}", "listed twice: a; drop each metric, or keep it in one task"),
    ],
)
def test_a_file_that_is_no_preset(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_preset(path)
    assert str(caught.value).startswith(f"{path}: {message}")
