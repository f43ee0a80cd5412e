"""The documentation says what the code does: generated pages, printed outputs, links."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from olmix.artifacts.mixture_file import read_mixture, write_mixture
from olmix.core.limits import Target
from olmix.core.plan import Reuse, make_plan
from olmix.files import read_json, read_yaml
from olmix.stages.propose import propose
from scripts.docs import GENERATED
from scripts.files_reference import DIAGNOSTICS, FILES, MIXTURE, PLAN, VALIDATION, problems
from tests.project import REPOSITORY, Project
from tests.swarm_tables import Swarm
from tests.test_mixture_file import DATASET, EMPTY, laws

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_what_its_script_writes(name: str) -> None:
    assert (REPOSITORY / name).read_text() == GENERATED[name](), f"{name} is out of date; make docs writes it anew"


def test_the_fields_of_files_are_those_that_are_written(accepted_template: Project, tmp_path: Path) -> None:
    root = accepted_template.root
    swarm = Swarm(tmp_path, noise=0.03)  # so that an older one helps
    searched = swarm.fit("--law", "nearest") and read_yaml(tmp_path / "fit/mixture.yaml")
    swarm.metrics["r00"]["python"] = ""  # a run to set aside
    (tmp_path / "metrics.csv").unlink()
    older = swarm.older()
    off = pl.read_csv(tmp_path / older[1]).with_columns(pl.exclude("run") + 0.3)  # by a constant a task
    off.write_csv(tmp_path / older[1])
    swarm.fit("--law", "auto", "--replicates", "4", "--runs", "12", "--curve", "--also", *older)
    plan = make_plan(DATASET, EMPTY, Reuse())
    limited = propose(plan, laws(plan, [[0.0, 0.0, -9.0]]), {"t0": 1}, Target(1000, 1.7), 0.01)
    write_mixture(tmp_path / "limited.yaml", limited, "")
    mixture = read_mixture(root / "mixtures/accepted.yaml")
    write_mixture(tmp_path / "next.yaml", replace(mixture, base=mixture.mixture), "")
    found = {
        MIXTURE: {
            "a project's proposal": read_yaml(root / "mixtures/proposed.yaml"),
            "an accepted mixture": read_yaml(root / "mixtures/accepted.yaml"),
            "an accepted mixture that had one before": read_yaml(tmp_path / "next.yaml"),
            "a proposal at its limits": read_yaml(tmp_path / "limited.yaml"),
            "a mixture that was searched for": searched,
            "a mixture of olmix fit": read_yaml(tmp_path / "fit/mixture.yaml"),
        },
        PLAN: {"a first plan": read_json(root / "build/plan.json"), "a plan": read_json(GOLDEN / "plan.json")},
        VALIDATION: {"a validation": read_json(root / "build/validation.json")},
        DIAGNOSTICS: {
            "a project's diagnostics": read_json(root / "build/fit/diagnostics.json"),
            "the diagnostics of olmix fit": read_json(tmp_path / "fit/diagnostics.json"),
        },
    }
    assert set(found) == set(FILES)
    assert [line for file, contents in found.items() for line in problems(file, contents)] == []
