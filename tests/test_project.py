"""A project is where it is told to be: in the working directory, elsewhere, or beside another in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import DOMAINS, Project, run_stage


def test_a_command_works_from_elsewhere_as_it_does_inside(accepted: Project) -> None:
    elsewhere = Project(accepted.root.parent)
    folder = str(accepted.root.relative_to(elsewhere.root))
    accepted.write("natural.yaml", (accepted.root / "mixtures/accepted.yaml").read_text())
    for words in (
        ["plan", "--json"],
        ["show", "HEAD"],
        ["show", "natural.yaml"],
        ["diff", "--json"],
        ["check"],
        ["sweep", "--lambdas", "0.05", "--repetitions", "2,4", "--targets", "40k"],
        ["accept", "--anyway"],
    ):
        inside, outside = accepted.olmix(*words), elsewhere.olmix("-C", folder, *words)
        assert outside.out.replace(f"{folder}/", "") == inside.out, words
    assert sorted(path.name for path in elsewhere.root.iterdir()) == [folder], "nothing is left outside the project"
    # What is to run is named as it is inside, too.
    params = accepted.params
    params["solve"]["kl"] = 0.1
    accepted.params = params
    assert elsewhere.olmix("-C", folder, "plan", "--json").out == accepted.olmix("plan", "--json").out
    ran = elsewhere.command("olmix", "-C", "nowhere", "plan")
    assert (ran.code, ran.err.strip()) == (
        1,
        "error: nowhere: no such folder",
    )


def test_two_projects_in_one_process(accepted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = accepted.copy(tmp_path / "other")
    params = other.params
    params["solve"]["kl"] = 2.0
    other.params = params
    built = accepted.outputs()
    other.repro()
    rebuilt = other.outputs()
    assert built["mixtures/proposed.yaml"] != rebuilt["mixtures/proposed.yaml"]
    for project in (accepted, other):
        for path in project.outputs():
            if path not in ("mixtures/accepted.yaml", "mixtures/sketches.jsonl"):
                (project.root / path).unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for stage in ("keys", "prepare", "plan", "swarm", "collapse", "train", "evaluate", "fit", "propose", "validate"):
        for name in DOMAINS if stage == "prepare" else [""]:
            monkeypatch.setenv("DVC_STAGE", f"prepare@{name}")
            for project in (accepted, other):
                run_stage(stage, project.places)
    assert accepted.outputs() == built
    assert other.outputs() == rebuilt
    assert not any((tmp_path / "elsewhere").iterdir())
