"""A swarm that is trained elsewhere: its runs, the metrics that come back, and the pipeline around them."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from olmix.artifacts.evaluations import read_results
from olmix.artifacts.external import read_metrics, run_ids, write_external_evaluations, write_ratios
from olmix.artifacts.mixture_file import MixtureFile
from olmix.cli.plan_view import PlanView
from olmix.cli.revisions import Named
from olmix.cli.show import mixture_text
from olmix.config.fields import check
from olmix.config.params import Params
from olmix.core.dataset import Dataset, Domain
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import EMPTY, Reuse, make_plan
from olmix.core.seeds import named_key
from olmix.core.swarm import Sampling, Swarm, make_swarm
from olmix.errors import ConfigError, DataError, SwarmError
from olmix.files import read_json
from tests.project import HERE, REPOSITORY, Project, documents, write_shards

TOKENS = {"code": 200, "math": 100, "web": 400}
TASKS = ("HumanEval.v1", "arc_challenge:rc::olmes")
# What a task loses by a share of a domain: the law that the made-up metrics follow.
SLOPES = {
    "HumanEval.v1": {"code": -2.0, "junk": 0.4, "math": -0.3, "web": 0.0},
    "arc_challenge:rc::olmes": {"code": 0.0, "junk": 0.6, "math": -1.0, "web": -1.5},
}


def dataset(names: Mapping[str, str] | None = None, **revised: str) -> Dataset:
    """The three domains, under other names or with other content where that is said."""
    return Dataset(
        {
            (names or {}).get(n, n): Domain(named_key("doc", n, revised.get(n, "")), count)
            for n, count in TOKENS.items()
        },
        "tok",
    )


def first_swarm(version: Dataset) -> Swarm:
    return make_swarm(make_plan(version, EMPTY, Reuse()), 3, Sampling())


def reuse_swarm() -> Swarm:
    """The swarm after `web` was revised: code and math are frozen at 1 to 3."""
    shares = {
        n: Share(w, TOKENS[n], dataset().domains[n].digest) for n, w in (("code", 0.1), ("math", 0.3), ("web", 0.6))
    }
    return make_swarm(make_plan(dataset(web="v2"), Mixture(shares, "tok"), Reuse()), 3, Sampling())


def bpb(weights: Mapping[str, float]) -> dict[str, float]:
    return {
        task: 0.5 + math.exp(math.fsum(slopes[n] * w for n, w in weights.items())) for task, slopes in SLOPES.items()
    }


def write_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        writer = csv.DictWriter(file, ["run", *SLOPES, "mean loss"], restval="")
        writer.writeheader()
        writer.writerows(rows)


def measured(ratios: Path) -> list[dict[str, Any]]:
    """Metrics of every run of a ratios.csv, as a team's own training would give them."""
    with ratios.open() as file:
        return [
            {"run": row.pop("run"), **bpb({name: float(weight) for name, weight in row.items()})}
            for row in csv.DictReader(file)
        ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- ids and ratios


@given(st.permutations(["a", "b", "c"]))
def test_an_id_is_of_content_and_weights_not_of_names(names: list[str]) -> None:
    renamed = first_swarm(dataset(dict(zip(TOKENS, names, strict=True))))
    assert run_ids(renamed) == run_ids(first_swarm(dataset()))


@pytest.mark.parametrize("domain", list(TOKENS))
def test_another_version_of_any_domain_shares_no_id(domain: str) -> None:
    before = first_swarm(dataset())
    after = first_swarm(dataset(**{domain: "v2"}))
    assert not set(run_ids(before).values()) & set(run_ids(after).values())
    # Even if the very same mixtures were drawn.
    same = replace(after, weights=before.weights)
    assert not set(run_ids(before).values()) & set(run_ids(same).values())


def test_an_id_changes_with_the_last_digit_of_a_weight() -> None:
    swarm = first_swarm(dataset())
    weights = swarm.weights.copy()
    weights[0, 0] = np.nextafter(weights[0, 0], 1)
    before, after = run_ids(swarm), run_ids(replace(swarm, weights=weights))
    assert [run for run in before if before[run] != after[run]] == ["0000"]
    assert all(run == f"{name}-{run[5:]}" and len(run) == 13 for name, run in before.items())


def test_ratios_are_of_real_domains_and_exact(here: Path) -> None:
    swarm = reuse_swarm()
    assert swarm.space.names == ("@virtual", "web")
    write_ratios(HERE, swarm)
    rows = list(csv.DictReader(HERE.ratios.open()))
    assert list(rows[0]) == ["run", "code", "math", "web"]
    assert [row["run"] for row in rows] == list(run_ids(swarm).values())
    for row, weights in zip(rows, swarm.weights, strict=True):
        assert {n: float(row[n]) for n in TOKENS} == swarm.space.expand(weights)
        assert math.fsum(float(row[n]) for n in TOKENS) == pytest.approx(1, abs=1e-12)
        assert float(row["math"]) == pytest.approx(3 * float(row["code"]))


def test_a_plan_that_recomputes_nothing_asks_for_nothing(here: Path) -> None:
    shares = {n: Share(1 / 3, TOKENS[n], domain.digest) for n, domain in dataset().domains.items()}
    swarm = make_swarm(make_plan(dataset(), Mixture(shares, "tok"), Reuse()), 3, Sampling())
    write_ratios(HERE, swarm)
    assert HERE.ratios.read_text() == "run,code,math,web\n"
    write_metrics(HERE.external[0], [{"run": "0000-00000000", **bpb({})}])
    metrics = read_metrics(HERE, swarm, TASKS)
    assert metrics.warnings == []
    write_external_evaluations(HERE, swarm, metrics)
    assert [path.name for path in Path("build/evaluations").iterdir()] == ["EMPTY"]


# --- metrics


def test_a_missing_file_says_what_to_train_and_where_it_goes(here: Path) -> None:
    swarm = first_swarm(dataset())
    ids = list(run_ids(swarm).values())
    with pytest.raises(SwarmError) as error:
        write_external_evaluations(HERE, swarm, read_metrics(HERE, swarm, TASKS))
    message = str(error.value)
    assert message.startswith(
        f"external/metrics.csv: no such file: 12 of 12 runs to train elsewhere are missing: {ids[0]}, {ids[1]}, "
    )
    assert f"{ids[4]} and 7 more; add a row for each (weights in build/ratios.csv)" in message


def test_metrics_are_matched_by_id_whatever_their_order(here: Path) -> None:
    swarm = first_swarm(dataset())
    write_ratios(HERE, swarm)
    write_metrics(HERE.external[0], measured(HERE.ratios)[::-1])
    metrics = read_metrics(HERE, swarm, TASKS)
    assert (metrics.missing, metrics.incomplete, metrics.extra, metrics.warnings) == ((), (), (), [])
    write_external_evaluations(HERE, swarm, metrics)
    results = read_results(HERE, swarm.space.names, TASKS)
    assert results.runs == swarm.runs
    np.testing.assert_array_equal(results.weights, swarm.weights)
    expected = [[bpb(swarm.space.expand(row))[task] for task in TASKS] for row in swarm.weights]
    np.testing.assert_allclose(results.bpb, expected, rtol=1e-12)
    assert np.isnan(results.uniform).all()
    ids = run_ids(swarm)
    file = read_json(Path(f"build/evaluations/{ids['0003']}.json"))
    assert (file["run"], file["runs"]) == ("0003", ["0003"])


def test_of_a_reuse_swarm_the_fit_gets_the_coordinates(here: Path) -> None:
    swarm = reuse_swarm()
    write_ratios(HERE, swarm)
    write_metrics(HERE.external[0], measured(HERE.ratios))
    write_external_evaluations(HERE, swarm, read_metrics(HERE, swarm, TASKS))
    np.testing.assert_array_equal(read_results(HERE, swarm.space.names, TASKS).weights, swarm.weights)


def test_missing_and_extra_ids_are_counted_and_named(here: Path) -> None:
    swarm = first_swarm(dataset())
    write_ratios(HERE, swarm)
    rows = measured(HERE.ratios)
    gone = [row["run"] for row in (rows.pop(7), rows.pop(2))]
    write_metrics(HERE.external[0], [*rows, {**rows[0], "run": "0002-0ld0ne00"}])
    metrics = read_metrics(HERE, swarm, TASKS)
    assert metrics.extra == ("0002-0ld0ne00",)
    assert metrics.warnings == [
        "external/metrics.csv: 1 id is not in this swarm, perhaps from an earlier one: 0002-0ld0ne00"
    ]
    with pytest.raises(SwarmError, match=f"metrics.csv: 2 of 12 runs .* missing: {gone[1]}, {gone[0]}; add a row"):
        write_external_evaluations(HERE, swarm, metrics)
    assert not Path("build/evaluations").exists()


def test_a_run_without_a_task_is_set_aside_until_too_few_are_left(here: Path) -> None:
    swarm = first_swarm(dataset())
    write_ratios(HERE, swarm)
    rows = measured(HERE.ratios)
    rows[4][TASKS[0]] = ""
    write_metrics(HERE.external[0], rows)
    metrics = read_metrics(HERE, swarm, TASKS)
    assert metrics.warnings == [f"external/metrics.csv: 1 run excluded, missing a task: {rows[4]['run']}"]
    write_external_evaluations(HERE, swarm, metrics)
    assert read_results(HERE, swarm.space.names, TASKS).runs == tuple(run for run in swarm.runs if run != "0004")
    # The column that it lacks is of no account once nobody wants that task.
    assert read_metrics(HERE, swarm, TASKS[1:]).incomplete == ()
    for row in rows[3:]:
        row[TASKS[0]] = "nan"
    write_metrics(HERE.external[0], rows)
    with pytest.raises(SwarmError, match=r"3 of 12 runs have every task, too few for the 4 parameters of a law"):
        write_external_evaluations(HERE, swarm, read_metrics(HERE, swarm, TASKS))


def test_parquet_does_as_well_but_not_beside_csv(here: Path) -> None:
    import polars as pl

    swarm = first_swarm(dataset())
    write_ratios(HERE, swarm)
    HERE.external[1].parent.mkdir()
    pl.DataFrame(measured(HERE.ratios)).rename({"run": "run_id"}).write_parquet(HERE.external[1])
    assert len(read_metrics(HERE, swarm, TASKS).scores) == 12
    write_metrics(HERE.external[0], measured(HERE.ratios))
    with pytest.raises(DataError, match=r"metrics\.csv and external/metrics\.parquet: two files of metrics"):
        read_metrics(HERE, swarm, TASKS)


def test_what_is_no_metric_is_named(here: Path) -> None:
    swarm = first_swarm(dataset())
    write_ratios(HERE, swarm)
    rows = measured(HERE.ratios)
    write_metrics(HERE.external[0], rows)
    with pytest.raises(
        DataError, match=r"no column for task 'arc_chalenge:rc::olmes' of .*; did you mean arc_challenge"
    ):
        read_metrics(HERE, swarm, ["arc_chalenge:rc::olmes"])
    with pytest.raises(DataError, match=r"no column for task 'x' of params\.yaml; the columns are HumanEval\.v1, arc_"):
        read_metrics(HERE, swarm, ["x"])
    rows[1][TASKS[1]] = -0.5
    write_metrics(HERE.external[0], rows)
    with pytest.raises(DataError, match=f"run {rows[1]['run']}, column 'arc_challenge:rc::olmes': -0.5 is not a BPB"):
        read_metrics(HERE, swarm, TASKS)


# --- params.yaml and what is shown


def params(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / HERE.params).read_text())
    for section, values in changes.items():
        content[section] = {**content[section], **values} if isinstance(values, dict) else values
    return content


def test_external_written_as_the_value_of_proxy_says_what_to_write() -> None:
    with pytest.raises(ConfigError) as error:
        check(HERE.params, params(proxy="external"), Params)
    assert str(error.value) == (
        "params.yaml: proxy: external is a key of proxy; write `external: true` there, beside the other keys"
    )


def test_external_decides_samples_and_validation() -> None:
    here, elsewhere = (check(HERE.params, params(proxy={"external": value}), Params) for value in (False, True))
    assert (here.sample_tokens(300), here.validation_seeds()) == (160_001, 3)
    assert (elsewhere.sample_tokens(300), elsewhere.validation_seeds()) == (1_000_000, 0)
    assert elsewhere.recipe(300) == here.recipe(300)


def test_tasks_are_named_as_suites_name_them_and_domains_stay_strict() -> None:
    tasks = {"families": {"code": ["HumanEval.v1"], "qa": ["arc_challenge:rc::olmes"]}}
    parsed = check(HERE.params, params(tasks=tasks, objective={"weights": {"arc_challenge:rc::olmes": 2}}), Params)
    assert parsed.task_weights() == {"HumanEval.v1": 1, "arc_challenge:rc::olmes": 2}
    for name in ("../up", ".hidden", "a/b", "a b", "x" * 129, ""):
        with pytest.raises(ConfigError, match="is not the name of a task; use at most 128 of A-Z"):
            check(HERE.params, params(tasks={"families": {"qa": [name]}}), Params)
    for name in ("Web", "dclm:web", "a.b"):
        with pytest.raises(ConfigError, match="is not a name; use at most 64 of a-z"):
            check(HERE.params, params(domains={name: {"path": "x"}}), Params)


def test_a_plan_speaks_of_runs_to_train_elsewhere() -> None:
    view = PlanView(make_plan(dataset(), EMPTY, Reuse()), None, 12, 12, 0, stale=["plan"], external=True)
    text = view.to_text()
    assert "Runs: 12 to train elsewhere (12 without reuse); weights are written to build/ratios.csv" in text
    assert "Summary: 3 added; 12 runs to train elsewhere; to run: plan and what follows" in text
    assert "prox" not in text
    assert view.to_json() == {**replace(view, external=False).to_json(), "external": True}
    waiting = replace(view, stale=["evaluate", "fit"], same_plan=True)
    assert "12 runs to train elsewhere; to run: evaluate, fit" in waiting.to_text()
    assert "no proxies for the swarm" in replace(waiting, stale=["fit"]).to_text()


def test_show_says_why_nothing_was_measured(here: Path) -> None:
    cases = {
        "Not measured: proxies are trained elsewhere (proxy.external).": ({"external": True}, 3),
        "Not measured: validate.seeds is 0.": ({"external": False}, 0),
        "Not measured yet: run `dvc repro`.": ({"external": False}, 3),
    }
    for line, (proxy, seeds) in cases.items():
        HERE.params.write_text(yaml.safe_dump(params(proxy=proxy, validate={"seeds": seeds})))
        proposal = Named(MixtureFile(Mixture({})), str(HERE.proposed), None, HERE)
        assert mixture_text(proposal, {}, {}).startswith(f"{line}\n")


# --- the pipeline


def test_the_pipeline_stops_for_metrics_and_goes_on_with_them(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    content = project.params
    content["proxy"]["external"] = True
    content["tasks"] = {"path": "external", "families": {"code": [TASKS[0]], "qa": [TASKS[1]]}}
    content["objective"]["weights"] = {TASKS[1]: 2}
    project.params = content
    shutil.rmtree(project.root / "data/tasks")  # a team that measures elsewhere has no texts of tasks here
    (project.root / "data/tasks.dvc").unlink()
    ratios, metrics = project.root / HERE.ratios, project.root / HERE.external[0]

    ran = project.command("dvc", "repro")
    assert ran.code != 0
    assert ran.stages[-4:] == ["swarm", "collapse", "train", "evaluate"]
    assert "external/metrics.csv: no such file: 15 of 15 runs to train elsewhere are missing: 0000-" in ran.err
    for folder in ("collapsed", "proxies"):
        files = list((project.root / "build" / folder).iterdir())
        assert [path.name for path in files] == ["EMPTY"]
        assert "proxy.external is true" in files[0].read_text()
    rows = list(csv.DictReader(ratios.open()))
    assert list(rows[0]) == ["run", "code", "junk", "math", "web"]
    for row in rows:
        assert math.fsum(float(row[name]) for name in ("code", "junk", "math", "web")) == pytest.approx(1, abs=1e-12)

    done = measured(ratios)
    write_metrics(metrics, [*done[:6], *done[7:], {**done[0], "run": "0099-deadbeef"}])
    ran = project.command("dvc", "repro")
    assert (ran.code != 0, ran.stages) == (True, ["evaluate"])
    assert "1 id is not in this swarm, perhaps from an earlier one: 0099-deadbeef" in ran.err
    assert f"1 of 15 runs to train elsewhere is missing: {done[6]['run']}; add a row" in ran.err

    done[6][TASKS[0]] = ""
    write_metrics(metrics, done)
    ran = project.repro()
    assert ran.stages == ["evaluate", "fit", "propose", "validate"]
    assert f"1 run excluded, missing a task: {done[6]['run']}" in ran.err
    runs = project.json("build/fit/diagnostics.json")["runs"]
    assert (runs["used"], runs["missing"]) == (14, ["0006"])
    assert project.json("build/fit/diagnostics.json")["unlearned_tasks"] == []
    assert project.json("build/validation.json") == {}
    weights = project.weights()
    assert weights["junk"] < 0.05 < weights["web"]
    assert project.olmix("show").out.startswith("Not measured: proxies are trained elsewhere (proxy.external).\n")
    project.olmix("accept", "--anyway")

    write_shards(project.root / "data/web", documents("web", version=1))
    plan = project.plan()
    assert (plan["external"], plan["runs"], plan["runs_without_reuse"], plan["validation_runs"]) == (True, 9, 15, 0)
    ran = project.command("dvc", "repro")
    assert (ran.code != 0, ran.stages[-1]) == (True, "evaluate")
    assert "9 of 9 runs to train elsewhere are missing" in ran.err
    assert f"15 ids are not in this swarm, perhaps from an earlier one: {done[0]['run']}, " in ran.err
    rows = list(csv.DictReader(ratios.open()))
    assert list(rows[0]) == ["run", "code", "junk", "math", "web"]
    assert not {row["run"] for row in rows} & {row["run"] for row in done}
