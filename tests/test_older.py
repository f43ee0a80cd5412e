"""An older swarm in the newest one's terms: domains by name or map, metrics by task, what is missing as nan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.cli.fit import read_inputs
from olmix.config.fit_options import FitOptions
from olmix.core.seeds import generator
from olmix.errors import DataError
from olmix.tables.older import align, bpb_of, masked, renamed
from olmix.tables.swarm_results import SwarmTable

NAMES = ("code", "web", "math", "wiki", "law")


def table(domains, tasks=("a", "b"), runs: int = 3, source: str = "swarm") -> SwarmTable:
    g = generator("older", *domains, *tasks, runs)
    return SwarmTable(
        tuple(f"{source}-{k}" for k in range(runs)),
        tuple(domains),
        tuple(tasks),
        g.dirichlet(np.ones(len(domains)), size=runs),
        g.uniform(0.5, 2.0, (runs, len(tasks))),
        source,
    )


def refused(call) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), min_size=1, max_size=4))
def test_every_share_is_found_under_its_name(swarms):
    tables = [table(domains, source=f"s{k}") for k, domains in enumerate(swarms)]
    newest, older = tables[0], tables[1:]
    if not all(set(t.domains) & set(newest.domains) for t in older):
        with pytest.raises(DataError):
            align(newest, older)
        return
    aligned = align(newest, older)
    known = {name for t in tables for name in t.domains}
    # The newest swarm's stand first, in its order: caps and proposals are cut there.
    assert aligned.domains[: len(newest.domains)] == newest.domains
    assert list(aligned.domains[len(newest.domains) :]) == sorted(known - set(newest.domains))
    for t, mixtures in zip(tables, aligned.mixtures, strict=True):
        assert mixtures.shape == (3, len(known))
        assert mixtures.sum(axis=1) == pytest.approx(np.ones(3))
        for column, name in enumerate(aligned.domains):
            expected = t.mixtures[:, t.domains.index(name)] if name in t.domains else np.zeros(3)
            assert (mixtures[:, column] == expected).all()


def test_two_older_swarms_share_a_domain_that_was_removed():
    newest, first, second = table(["web", "code"]), table(["code", "law"]), table(["law", "web"])
    aligned = align(newest, [first, second])
    assert aligned.domains == ("web", "code", "law")
    assert (aligned.mixtures[0][:, 2] == 0).all()
    assert (aligned.mixtures[1][:, 2] == first.mixtures[:, 1]).all()
    assert (aligned.mixtures[2][:, 2] == second.mixtures[:, 0]).all()


def test_a_swarm_of_other_domains_is_refused():
    message = refused(lambda: align(table(["web"], source="new.csv"), [table(["law", "wiki"], source="old.csv")]))
    assert message.startswith("old.csv: shares no domain with new.csv")
    assert "law" in message
    assert "web" in message


def test_a_map_renames_domains():
    old = table(["code", "web"], source="old.csv")
    assert renamed(old, {"code": "code-2024"}).domains == ("code-2024", "web")
    assert renamed(old, {"code": "web", "web": "code"}).domains == ("web", "code")
    assert renamed(old, {}).domains == old.domains
    kept = renamed(old, {"code": "code-2024"})
    assert (kept.mixtures == old.mixtures).all()
    assert (kept.runs, kept.tasks, kept.source) == (old.runs, old.tasks, old.source)
    # A revised domain that kept its name is a column of its own when the map says so.
    assert align(table(["code", "web"]), [kept]).domains == ("code", "web", "code-2024")
    message = refused(lambda: renamed(old, {"cod": "code"}))
    assert message.startswith("old.csv")
    assert "cod" in message
    assert "two domains would be called web" in refused(lambda: renamed(old, {"code": "web"}))


def test_tasks_are_metrics_or_groups_of_them():
    old = table(["web"], tasks=("a", "b", "c"))
    groups = {"both": {"a": 1.0, "c": 3.0}, "gone": {"a": 1.0, "z": 1.0}}
    bpb = bpb_of(old, ["b", "both", "gone", "z"], groups)
    assert (bpb[:, 0] == old.bpb[:, 1]).all()
    assert bpb[:, 1] == pytest.approx((old.bpb[:, 0] + 3 * old.bpb[:, 2]) / 4)
    # A group is not the mean of the part that was measured.
    assert np.isnan(bpb[:, 2:]).all()


def test_a_run_that_lacks_a_metric_lacks_its_group():
    old = table(["web"], tasks=("a", "b"))
    old.bpb[1, 0] = np.nan
    bpb = bpb_of(old, ["both", "b"], {"both": {"a": 1.0, "b": 1.0}})
    assert np.isnan(bpb).tolist() == [[False, False], [True, False], [False, False]]


def test_a_swarm_that_measured_none_of_the_tasks_is_refused():
    message = refused(lambda: bpb_of(table(["web"], tasks=("x",), source="old.csv"), ["a", "b"], {}))
    assert message == "old.csv: was measured on none of the 2 tasks: it has x; the tasks are a, b"


def test_a_mask_hides_what_a_run_could_not_have_learned():
    bpb = np.arange(1.0, 7).reshape(3, 2)
    hidden = masked(
        bpb, ["r1", "r2", "r3"], ["a", "b"], {"r1": {"a": 0.0, "b": 1.0}, "r3": {"b": 0.0}, "r9": {"a": 0.0}}
    )
    assert np.isnan(hidden).tolist() == [[True, False], [False, False], [False, True]]
    assert hidden[~np.isnan(hidden)].tolist() == [2, 3, 4, 5]
    assert (masked(bpb, ["r1", "r2", "r3"], ["a", "b"], {}) == bpb).all()


def write_swarm(folder: Path, name: str, swarm: SwarmTable) -> dict[str, Path]:
    paths = {kind: folder / f"{name}-{kind}.csv" for kind in ("ratios", "metrics")}
    for kind, columns, values in (
        ("ratios", swarm.domains, swarm.mixtures),
        ("metrics", swarm.tasks, swarm.bpb),
    ):
        lines = [",".join(("run", *columns))]
        lines += [",".join((run, *map(repr, row.tolist()))) for run, row in zip(swarm.runs, values, strict=True)]
        paths[kind].write_text("\n".join(lines) + "\n")
    return paths


def test_older_swarms_are_read_beside_the_newest(tmp_path):
    new = write_swarm(tmp_path, "new", table(["web", "code"], runs=6, source="new"))
    old_table = table(["code", "law"], runs=4, source="old")
    old_table.bpb[2, 0] = np.nan
    write_swarm(tmp_path, "old", old_table)
    text = (tmp_path / "old-metrics.csv").read_text().replace("nan", "")
    (tmp_path / "old-metrics.csv").write_text(text)
    also = {"ratios": tmp_path / "old-ratios.csv", "metrics": tmp_path / "old-metrics.csv"}
    inputs = read_inputs(FitOptions.model_validate({**new, "also": [also]}))
    assert inputs.columns == ("web", "code", "law")
    assert inputs.domains == ("web", "code")
    (older,) = inputs.older
    assert older.mixtures[:, 1] == pytest.approx(old_table.mixtures[:, 0])
    assert older.weights.tolist() == [[1, 1], [1, 1], [0, 1], [1, 1]]


def test_an_older_swarm_that_lacks_a_metric_is_masked_there(tmp_path):
    new = write_swarm(tmp_path, "new", table(["web", "code"], runs=6, source="new"))
    old = write_swarm(tmp_path, "old", table(["web", "code"], tasks=("a",), runs=4, source="old"))
    inputs = read_inputs(FitOptions.model_validate({**new, "also": [old]}))
    assert inputs.older[0].weights[:, 0].tolist() == [1] * 4
    assert inputs.older[0].weights[:, 1].tolist() == [0] * 4


def test_a_mask_is_of_the_newest_swarm_alone(tmp_path):
    # Runs are named by count, so that those of both swarms bear the same names.
    new = write_swarm(tmp_path, "new", table(["web", "code"], runs=6, source="run"))
    old = write_swarm(tmp_path, "old", table(["web", "law"], runs=4, source="run"))
    mask = tmp_path / "mask.csv"
    mask.write_text("run,a,b\nrun-1,0,1\nrun-3,0,0\n")
    inputs = read_inputs(FitOptions.model_validate({**new, "also": [old], "mask": mask}))
    assert inputs.newest.weights.tolist() == [[1, 1], [0, 1], [1, 1], [0, 0], [1, 1], [1, 1]]
    assert inputs.older[0].weights.tolist() == [[1, 1]] * 4
