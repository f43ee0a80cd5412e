"""Reads the public swarms that tests and benchmarks need: `OLMIX_SWARMS`, or `../shared/swarms` beside the
checkout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("OLMIX_SWARMS", Path(__file__).resolve().parents[2] / "shared" / "swarms"))
ABSENT = f"no public swarms at {FOLDER}; set OLMIX_SWARMS"
needs_swarms = pytest.mark.skipif(not (FOLDER / "dclm" / "ratios.csv").exists(), reason=ABSENT)

LABELS = {"", "run", "name", "index"}
# Dropped by the publisher before proposing, which leaves 52 tasks.
DROPPED = (
    "qasper_yesno:rc::olmes",
    "sciriff_yesno:rc::olmes",
    "lab_bench_dbqa",
    "lab_bench_protocolqa",
    "medqa_en:rc::none",
)
# Mean Huber loss (delta 0.02) of the best of 300 L-BFGS starts, 77 CPU seconds a metric.
REFERENCE_LOSSES = {
    "arc_challenge:rc::olmes": 2.77348e-4,
    "drop:rc::gen2mc": 1.916107e-3,
    "medqa_en:rc::none": 7.72511e-4,
}
MMLU = {
    "stem": """
        abstract_algebra anatomy astronomy college_biology college_chemistry
        college_computer_science college_mathematics college_physics computer_security
        conceptual_physics electrical_engineering elementary_mathematics high_school_biology
        high_school_chemistry high_school_computer_science high_school_mathematics
        high_school_physics high_school_statistics machine_learning
    """,
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy
        prehistory professional_law world_religions
    """,
    "social_sciences": """
        econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy
    """,
    "other": """
        business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting
        professional_medicine virology
    """,
}


def swarms_folder() -> Path:
    """The folder of the public swarms; a test that calls this is skipped where there is none."""
    if not (FOLDER / "update-sequence.json").exists():
        pytest.skip(ABSENT)
    return FOLDER


@dataclass(frozen=True)
class PublicSwarm:
    """A swarm of K runs over m domains with n tasks: mixtures (K, m), bpb (K, n)."""

    ids: list[str]
    domains: list[str]
    tasks: list[str]
    mixtures: NDArray[np.float64]
    bpb: NDArray[np.float64]

    def without(self, tasks: Sequence[str]) -> PublicSwarm:
        """The swarm without some tasks."""
        kept = [j for j, task in enumerate(self.tasks) if task not in tasks]
        return replace(self, tasks=[self.tasks[j] for j in kept], bpb=self.bpb[:, kept])

    def with_mmlu_grouped(self) -> PublicSwarm:
        """The swarm with the 57 MMLU subjects averaged into their four groups, every subject weighing the
        same.
        """
        groups = {group: [f"mmlu_{s}:rc::olmes" for s in subjects.split()] for group, subjects in MMLU.items()}
        members = [name for names in groups.values() for name in names]
        assert sorted(members) == sorted(task for task in self.tasks if task.startswith("mmlu_"))
        means = [self.bpb[:, [self.tasks.index(name) for name in names]].mean(axis=1) for names in groups.values()]
        rest = self.without(members)
        return replace(
            rest,
            tasks=[*rest.tasks, *(f"mmlu_{group}" for group in groups)],
            bpb=np.column_stack([rest.bpb, *means]),
        )


def load(name: str) -> PublicSwarm:
    """The swarm `name`, its ratios and metrics joined on the run id."""
    ratios, metrics = (pl.read_csv(FOLDER / name / f"{file}.csv") for file in ("ratios", "metrics"))
    key = "run" if "run" in ratios.columns else "index"
    domains = [column for column in ratios.columns if column not in LABELS]
    tasks = [column for column in metrics.columns if column not in LABELS]
    joined = ratios.select(key, *domains).join(
        metrics.select(key, *tasks), on=key, how="inner", validate="1:1", maintain_order="left"
    )
    assert len(joined) == len(ratios) == len(metrics)
    return PublicSwarm(
        ids=[str(run) for run in joined[key]],
        domains=domains,
        tasks=tasks,
        mixtures=joined.select(domains).to_numpy().astype(np.float64),
        bpb=joined.select(tasks).to_numpy().astype(np.float64),
    )


def priors(swarm: PublicSwarm, name: str) -> dict[str, NDArray[np.float64]]:
    """`relative_sizes` and `token_counts` of priors.json in the order of the swarm's domains."""
    read = json.loads((FOLDER / name / "priors.json").read_text())
    return {key: np.array([values[d] for d in swarm.domains], dtype=np.float64) for key, values in read.items()}
