"""`olmix plan` says what the swarm costs, and how many of its runs are already trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from olmix.cli.cost import Cost, cost_of
from olmix.config.runtime import Runtime
from olmix.proxy.recipe import Recipe
from olmix.runs.engine import Outcome
from olmix.runs.record import RunSpec
from olmix.runs.speed import remember_speed
from olmix.runs.training_job import TrainingJob
from tests.project import HERE, Project, documents, write_shards

RECIPE = Recipe(
    layers=1, heads=2, width=8, hidden=8, vocabulary=300, sequence_length=8, tokens=640, batch_size=4,
    learning_rate=0.01,
)  # fmt: skip


def test_the_cost_is_of_the_runs_that_are_left() -> None:
    cost = Cost(10**15, 1e12, True, already_trained=4)
    assert cost.to_text(10, 30, 6) == (
        "Compute: 6 PFLOP to train the swarm (30 PFLOP without reuse), up to 6 PFLOP to validate\n"
        "Time: 1.7 h + 1.7 h (swarm without reuse 8.3 h), at 1 TFLOP/s, the last swarm's speed"
    )
    assert cost.to_json(10, 30, 6) == {
        "flops_per_run": 10**15,
        "flops": {"swarm": 10**16, "without_reuse": 3 * 10**16, "validation": 6 * 10**15},
        "flops_per_second": 1e12,
        "hours": {"swarm": pytest.approx(1e4 / 3600), "without_reuse": pytest.approx(3e4 / 3600),
                  "validation": pytest.approx(6e3 / 3600)},
        "runs_already_trained": 4,
    }  # fmt: skip
    unknown = Cost(10**6)
    assert unknown.to_text(3, 9, 0) == (
        "Compute: 3 MFLOP to train the swarm (9 MFLOP without reuse), up to 0 FLOP to validate"
    )
    assert unknown.hours(3) is None


def test_speed_is_runtime_s_or_that_of_the_last_swarm_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = [TrainingJob(RunSpec(f"{k}", {}, {}, RECIPE, k)) for k in range(4)]
    here = Runtime()
    assert cost_of(HERE, here, RECIPE, None).flops_per_second is None
    # Two of four were found, so that two have taken the time.
    remember_speed(HERE.speeds, jobs, Outcome(done_keys=frozenset(job.key for job in jobs[:2])), 4.0, here.place)
    assert cost_of(HERE, here, RECIPE, None) == Cost(RECIPE.flops, RECIPE.flops / 2, True, None)
    remember_speed(HERE.speeds, jobs, Outcome(), 1.0, here.place)
    assert cost_of(HERE, here, RECIPE, None).flops_per_second == RECIPE.flops / 2
    assert cost_of(HERE, Runtime(engine="slurm"), RECIPE, None).flops_per_second is None
    stated = Runtime.model_validate({"flops_per_second": "250T"})
    assert cost_of(HERE, stated, RECIPE, 3) == Cost(RECIPE.flops, 2.5e14, False, 3)
    place = "local, device auto, workers auto"
    for damaged in ("[", "5", "[]", *(f'{{"{place}": {value}}}' for value in ("null", '"fast"', "-5.0", "0.0"))):
        HERE.speeds.write_text(damaged)
        assert cost_of(HERE, here, RECIPE, None).flops_per_second is None
    remember_speed(HERE.speeds, jobs[:1], Outcome(done_keys=frozenset([jobs[0].key])), 1.0, here.place)
    assert cost_of(HERE, here, RECIPE, None).flops_per_second == RECIPE.flops


def test_runs_that_are_already_trained_are_counted_before_anything_is_prepared(accepted: Project) -> None:
    project = accepted
    params = project.params
    params["swarm"]["runs_per_domain"] = 4
    project.params = params
    params["reuse"]["mode"] = "none"
    project.params = params
    plan = project.plan()
    assert (plan["runs"], plan["cost"]["runs_already_trained"]) == (20, 15)
    assert plan["cost"]["hours"]["swarm"] > 0
    text = project.olmix("plan").out
    assert "15 of 20 already trained" in text
    assert "Compute: " in text and "the last swarm's speed" in text
    # Without a journal the local run-cache has them; without either nobody has.
    shutil.rmtree(project.root / ".olmix/runs")
    assert project.plan()["cost"]["runs_already_trained"] == 15
    shutil.rmtree(project.root / ".dvc/cache/runs")
    assert project.plan()["cost"]["runs_already_trained"] == 0

    # A change that has not been prepared yet: its sample is made in memory, and its runs are those of the real swarm.
    params["reuse"]["mode"] = "full"
    params["swarm"]["runs_per_domain"] = 3
    project.params = params
    write_shards(project.root / "data/web", documents("web", 120, 1))
    assert project.plan()["cost"]["runs_already_trained"] == 0
    project.expect("dvc", "repro", "train")
    project.git("stash", "-q")  # the same change again, on outputs of the state before it
    shutil.rmtree(project.root / "build/tokens")
    project.dvc("checkout", "-q")
    write_shards(project.root / "data/web", documents("web", 120, 1))
    assert project.plan()["cost"]["runs_already_trained"] == 9
    # Tokens that are not there cannot be counted on.
    shutil.rmtree(project.root / "build/tokens")
    assert project.plan()["cost"]["runs_already_trained"] is None
    assert "those in the journal or the cache need no training" in project.olmix("plan").out
