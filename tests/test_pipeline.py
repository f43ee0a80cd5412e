"""What a person sees: dvc repro on a fresh project, and after each kind of change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.project import ENVIRONMENT, Project, documents, write_shards, write_task

CHAIN = ["swarm", "collapse", "train", "evaluate", "fit", "propose", "validate"]


def test_first_build_is_a_mixture_within_its_limits(accepted_template: Project) -> None:
    mixture = accepted_template.mixture()
    rows = mixture["domains"]
    assert sum(round(row["weight"] * 1e6) for row in rows.values()) == 10**6
    assert rows["junk"]["weight"] < 0.1
    assert mixture["certificate"]["gap"] <= 1e-9
    target = accepted_template.params["target"]
    for row in rows.values():
        assert row["weight"] * target["tokens"] <= target["repetition"] * row["tokens"] + 1e-6
        assert row["repetition"] == pytest.approx(row["weight"] * target["tokens"] / row["tokens"], abs=1e-3)
    runs = [accepted_template.json(p) for p in _names(accepted_template, "build/proxies/*.json")]
    assert len(runs) == 3 * (4 + 1)
    assert all(abs(sum(run["weights"].values()) - 1) < 1e-9 and run["tokens"] == 8_192 for run in runs)
    evaluations = [accepted_template.json(p) for p in _names(accepted_template, "build/evaluations/*.json")]
    assert all(score["bpb"] > 0 and score["bytes"] > 0 for e in evaluations for score in e["tasks"].values())
    validation = accepted_template.json("build/validation.json")
    assert set(validation) == {"proposal", "natural", "uniform"}
    assert validation["natural"]["gain_of_proposal"]["bpb"] > 0
    diagnostics = accepted_template.json("build/fit/diagnostics.json")
    assert {"loss", "spearman", "rmse"} <= set(diagnostics["tasks"]["math-task"])
    assert diagnostics["choice"]["law"] == diagnostics["law"] == mixture["trust"]["law"]
    assert mixture["trust"]["gain"]["over"] == "natural"
    doubts = mixture["trust"]["doubts"]
    said = f"Doubts about the prediction: {', '.join(doubts) or 'none'}"
    assert f"\n{said}\n" in accepted_template.olmix("show").out


def test_nothing_to_do_twice_and_after_a_comment(accepted: Project) -> None:
    before = accepted.outputs()
    assert accepted.repro().stages == []
    assert accepted.command("olmix", "plan", "--exit-code").code == 0
    params = accepted.root / "params.yaml"
    reordered = yaml.safe_load(params.read_text())
    reordered["domains"] = dict(reversed(reordered["domains"].items()))
    reordered["descriptions"] = {"code": "another description"}
    params.write_text("# a comment\n" + yaml.safe_dump(dict(reversed(reordered.items())), sort_keys=False))
    (accepted.root / "runtime.yaml").write_text("workers: 1\n")
    assert accepted.repro().stages == []
    assert accepted.outputs() == before


def test_accepting_reruns_plan_at_most_and_changes_no_byte(accepted_template: Project, tmp_path: Path) -> None:
    project = Project(accepted_template.root)
    accepted_file = project.mixture("accepted")
    assert accepted_file["dataset"] == project.mixture()["dataset"]
    assert accepted_file["measured"]["gain_over_natural"] > 0
    copy = project.copy(tmp_path / "copy")
    copy.write("mixtures/accepted.yaml", "domains: {}\n")
    copy.repro()
    before = {name: text for name, text in copy.outputs().items() if name != "mixtures/accepted.yaml"}
    copy.olmix("accept", "--anyway")
    assert copy.command("olmix", "plan", "--exit-code").code == 2
    assert set(copy.repro().stages) <= {"plan"}
    assert {name: text for name, text in copy.outputs().items() if name != "mixtures/accepted.yaml"} == before
    assert "already contains" in copy.olmix("accept", "--anyway").out
    assert copy.olmix("plan").out.startswith("No change since mixtures/accepted.yaml")


def test_accept_refuses_a_stale_pipeline(accepted: Project) -> None:
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    write_shards(accepted.root / "data/web", documents("web", version=5))
    ran = accepted.command("olmix", "accept")
    assert ran.code == 1
    assert ran.err.startswith("error: the pipeline is not up to date (")
    assert ran.err.rstrip().endswith("run `dvc repro` first")
    assert ran.err.count("\n") == 1


def test_a_revised_domain_runs_its_prepare_and_a_reduced_swarm(accepted: Project) -> None:
    old = accepted.weights("accepted")
    write_shards(accepted.root / "data/web", documents("web", version=1))
    plan = accepted.plan()
    (change,) = plan["changes"]
    assert (change["kind"], change["domains"], change["from"], change["changed"]) == ("revise", ["web"], ["web"], 1.0)
    assert (plan["runs"], plan["runs_without_reuse"], plan["validation_runs"]) == (9, 15, 8)
    assert set(plan["virtual"]["members"]) == {"code", "junk", "math"}
    assert accepted.command("olmix", "plan", "--exit-code").code == 2
    text = accepted.olmix("plan").out
    assert "  ~ web" in text
    assert "9 in the swarm (15 without reuse)" in text
    # The validation's 8 are on both sides: 17 of 23.
    assert (
        "1 revised; 17 proxy runs (9 in the swarm, up to 8 to validate), 26% fewer than without reuse; to run: " in text
    )
    ran = accepted.repro()
    assert ran.stages == ["prepare@web", "plan", *CHAIN]
    assert ran.done("train") == 9
    new = accepted.weights()
    frozen = {name: new[name] / old[name] for name in ("code", "math") if old[name] > 0.01}
    assert max(frozen.values()) == pytest.approx(min(frozen.values()), rel=1e-3)
    assert accepted.mixture()["trust"]["gain"]["over"] == "carried"
    assert "\nPredicted gain over the accepted mixture carried over " in accepted.olmix("show").out
    assert "data/web.dvc" in accepted.git("status", "--short")
    assert set(accepted.json("build/validation.json")) == {"proposal", "natural", "uniform", "carried"}
    diff = json.loads(accepted.olmix("diff", "--json").out)
    assert diff["domains"]["web"]["change"] == pytest.approx(new["web"] - old["web"])
    assert accepted.repro().stages == []


def test_the_virtual_set_holds_rows_from_all_over_its_members(accepted: Project) -> None:
    write_shards(accepted.root / "data/web", documents("web", version=1))
    accepted.expect("dvc", "repro", "collapse")
    virtual = np.load(accepted.root / "build/collapsed/@virtual.npy")
    drawn = {tuple(row) for row in virtual.tolist()}
    for name in ("code", "math"):
        sample = np.load(accepted.root / f"build/tokens/{name}.npy")
        rows = [tuple(sample[at : at + 33].tolist()) for at in range(0, len(sample) - 32, 32)]
        places = [place for place, row in enumerate(rows) if row in drawn]
        assert 10 < len(places) < 0.8 * len(rows), "some of the sample"
        assert 0.35 < np.mean(places) / len(rows) < 0.65, f"{name}: not a prefix"


def test_other_shards_run_one_prepare_and_nothing_else(accepted: Project) -> None:
    before = accepted.outputs()
    write_shards(accepted.root / "data/web", documents("web")[::-1], shards=5)
    assert accepted.plan()["changes"] == []
    ran = accepted.repro()
    assert ran.stages == ["prepare@web"]
    assert accepted.outputs() == before


def test_a_rename_trains_nothing(accepted: Project) -> None:
    accepted.dvc("move", "data/web", "data/webpages")
    accepted.declare(web=None, webpages="data/webpages")
    assert accepted.plan()["changes"] == [{"kind": "rename", "domains": ["webpages"], "from": ["web"]}]
    assert accepted.plan()["runs"] == 0
    ran = accepted.repro()
    assert ran.done("train") == ran.done("validate") == 0
    old, new = accepted.weights("accepted"), accepted.weights()
    assert new.pop("webpages") == old.pop("web")
    assert new == old
    assert not any("/web." in name for name in accepted.outputs())


def test_a_rename_before_anything_is_accepted_trains_nothing(accepted: Project) -> None:
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    accepted.repro()
    accepted.dvc("move", "data/web", "data/a-web")
    accepted.declare(web=None, **{"a-web": "data/a-web"})
    ran = accepted.repro()
    assert "train" in ran.stages
    assert ran.done("train") == ran.done("validate") == 0


def test_a_removal_trains_no_swarm_and_leaves_nothing_behind(accepted: Project) -> None:
    accepted.dvc("remove", "data/junk.dvc")
    accepted.declare(junk=None)
    plan = accepted.plan()
    assert (plan["changes"], plan["runs"]) == ([{"kind": "remove", "domains": ["junk"], "from": []}], 0)
    ran = accepted.repro()
    assert ran.done("train") == 0
    old, new = accepted.weights("accepted"), accepted.weights()
    assert set(new) == {"code", "math", "web"}
    rest = sum(old[name] for name in new)
    assert new == pytest.approx({name: old[name] / rest for name in new}, abs=2e-6)
    assert not any("junk" in name for name in accepted.outputs())
    accepted.olmix("accept", "--anyway")
    assert accepted.repro().stages == ["plan"]


def test_an_added_split_and_merged_domain_are_recomputed_with_reuse(accepted: Project) -> None:
    write_shards(accepted.root / "data/math2", documents("math", version=7))
    texts = documents("web")
    write_shards(accepted.root / "data/web-a", texts[:50])
    write_shards(accepted.root / "data/web-b", texts[50:])
    accepted.declare(web=None, **{n: f"data/{n}" for n in ("math2", "web-a", "web-b")})
    plan = accepted.plan()
    assert plan["changes"] == [
        {"kind": "add", "domains": ["math2"], "from": []},
        {"kind": "partition", "domains": ["web-a", "web-b"], "from": ["web"]},
    ]
    assert (plan["affected"], plan["runs"]) == (["math2", "web-a", "web-b"], 15)
    assert accepted.repro().done("train") == 15
    accepted.olmix("accept", "--anyway")
    write_shards(accepted.root / "data/math", documents("math") + documents("math", version=7))
    accepted.declare(math2=None)
    plan = accepted.plan()
    assert plan["changes"] == [{"kind": "merge", "domains": ["math"], "from": ["math", "math2"]}]
    assert accepted.expect("dvc", "repro", "train").done("train") == 9


def test_partial_and_no_reuse(accepted: Project) -> None:
    params = accepted.params
    params["reuse"] = {"mode": "full", "recompute": ["code"]}
    accepted.params = params
    write_shards(accepted.root / "data/web", documents("web", version=1))
    assert (accepted.plan()["affected"], accepted.plan()["runs"]) == (["code", "web"], 12)
    params["reuse"] = {"mode": "none", "recompute": []}
    accepted.params = params
    assert (accepted.plan()["virtual"], accepted.plan()["runs"]) == (None, 15)


def test_more_runs_keep_every_earlier_one(accepted: Project) -> None:
    params = accepted.params
    params["swarm"]["runs_per_domain"] = 4
    accepted.params = params
    assert accepted.expect("dvc", "repro", "train").done("train") == 5


def test_a_name_never_reaches_a_shell(accepted: Project) -> None:
    accepted.declare(**{"x; touch OWNED #": "data/web"})
    ran = accepted.command("dvc", "repro")
    assert ran.code != 0
    assert not (accepted.root / "OWNED").exists()
    assert "is not a name" in accepted.command("olmix", "plan").err


def test_diverged_runs_fail_the_stage_that_trained_them(accepted: Project) -> None:
    params = accepted.params
    params["proxy"]["learning_rate"] = 1.0e8
    accepted.params = params
    for _ in range(2):
        ran = accepted.command("dvc", "repro")
        assert ran.code != 0
        assert ran.stages[-1] == "train"
        assert "15 runs failed; 0 mixtures have a run, but a law needs 5: " in ran.err
        assert "lower proxy.learning_rate" in ran.err


def test_recomputing_a_domain_after_accepting_keeps_the_rest(accepted: Project) -> None:
    params = accepted.params
    params["reuse"] = {"mode": "full", "recompute": ["code"]}
    accepted.params = params
    plan = accepted.plan()
    assert (plan["changes"], plan["affected"], plan["runs"]) == ([], ["code"], 9)


def test_a_new_task_is_evaluated_and_nothing_is_trained(accepted: Project) -> None:
    write_task(accepted.root / "data/tasks/new-task.jsonl", documents("web", 10, version=50))
    params = accepted.params
    params["tasks"]["families"]["language"].append("new-task")
    accepted.params = params
    ran = accepted.repro()
    assert ran.stages == ["keys", "evaluate", "fit", "propose", "validate"]
    assert ran.done("evaluate") == 15
    evaluated = [len(accepted.json(path)["tasks"]) for path in (accepted.root / ".olmix/evaluations").iterdir()]
    assert evaluated.count(4) >= 15 + 2, "every run of the swarm and of the proposal has one more evaluation"


def test_a_second_clone_with_the_remote_runs_nothing(accepted: Project, tmp_path: Path) -> None:
    accepted.dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "remote"))
    accepted.dvc("push", "-q", "--run-cache")
    accepted.commit("remote")
    clone = Project(tmp_path / "clone")
    accepted.git("clone", "-q", str(accepted.root), str(clone.root))
    clone.dvc("pull", "-q")
    assert clone.repro().stages == []
    assert clone.outputs() == accepted.outputs()


def test_killed_in_the_middle_of_training_it_goes_on(accepted_template: Project, accepted: Project) -> None:
    undisturbed = accepted_template.outputs()
    for folder in ("build", ".olmix", ".dvc/cache"):
        subprocess.run(["rm", "-rf", str(accepted.root / folder)], check=True)
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    journal = accepted.root / ".olmix/runs"
    for wanted in (2, 6):
        process = subprocess.Popen(
            ["dvc", "repro"], cwd=accepted.root, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while len(_records(journal)) < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = len(_records(journal))
    assert kept >= 6
    ran = accepted.repro()
    assert ran.done("train") == 15 - kept
    assert not list(accepted.root.rglob(".olmix-tmp-*"))
    after = accepted.outputs()
    assert {n: t for n, t in after.items() if n != "mixtures/accepted.yaml"} == {
        n: t for n, t in undisturbed.items() if n != "mixtures/accepted.yaml"
    }


def _records(journal: Path) -> list[Path]:
    """Finished records, and not those that a killed writer left under a temporary name."""
    return [path for path in journal.glob("*.json") if not path.name.startswith(".")]


def _names(project: Project, pattern: str) -> list[str]:
    return [path.relative_to(project.root).as_posix() for path in sorted(project.root.glob(pattern))]
