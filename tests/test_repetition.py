"""Simulated repetition: a proxy repeats a domain as often as the target will, whatever the mixture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.artifacts.collapsed import coarse_domains, token_sets, write_collapsed
from olmix.core.dataset import Dataset, Domain
from olmix.core.plan import EMPTY, Plan, Reuse, make_plan
from olmix.core.repetition import Scale
from olmix.data.tokensets import draw_rows, draw_virtual, open_token_sets, read_tokens, rows_of, write_tokens
from olmix.proxy.recipe import Recipe
from olmix.runs.record import published, spec_for
from tests.project import HERE, Project

LENGTH = 8
RECIPE = Recipe(
    layers=1, heads=2, width=8, hidden=8, vocabulary=300, sequence_length=LENGTH, tokens=16_000, batch_size=4,
    learning_rate=1e-3,
)  # fmt: skip


COUNTS = st.integers(10**4, 10**13)


@given(COUNTS, st.integers(10**4, 10**9), COUNTS, st.floats(1e-6, 1), st.integers(8, 4096))
def test_repetition_is_the_target_s_for_every_share(
    tokens: int, run: int, target: int, share: float, length: int
) -> None:
    scale = Scale(run, target, length)
    in_proxy = share * run / (scale.sequences(tokens) * length)
    assert in_proxy == pytest.approx(share * target / tokens)
    assert scale.rows(tokens) >= 1
    assert abs(scale.rows(tokens) - scale.sequences(tokens)) <= 0.5 or scale.rows(tokens) == 1


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Three prepared domains of 20,000, 4,000 and 200 tokens; a target of 160,000 is ten runs."""
    monkeypatch.chdir(tmp_path)
    sizes = {"big": 20_000, "mid": 4_000, "small": 200}
    for k, (name, size) in enumerate(sizes.items()):
        tokens = np.random.default_rng(k).integers(0, 300, size).astype("<u2")
        write_tokens(HERE.tokens / f"{name}.npy", tokens)
    return make_plan(Dataset({n: Domain(k + 1, s, None) for k, (n, s) in enumerate(sizes.items())}), EMPTY, Reuse())


SCALE = Scale(RECIPE.sequences * LENGTH, 160_000, LENGTH)


def test_records_show_the_repetition_of_the_target(plan: Plan) -> None:
    reasons = write_collapsed(HERE, plan, LENGTH, RECIPE.sequences, SCALE)
    sets = open_token_sets(HERE.collapsed, LENGTH)
    assert {name: each.rows for name, each in sets.items()} == {"big": 250, "mid": 50, "small": 2}
    weights = {"big": 0.5, "mid": 0.3, "small": 0.2}
    spec = spec_for("0000", weights, sets, RECIPE, 0)
    curves = {sets[name].identity: [] for name in weights}
    record = published(spec, ["0000"], {"set_curves": curves}, {})
    for name, tokens in (("big", 20_000), ("mid", 4_000)):
        assert record["repetition"][name] == pytest.approx(weights[name] * 160_000 / tokens, rel=0.01)
    # 2.5 sequences are not whole ones, and olmix says so.
    assert set(reasons) == {"small"}
    assert reasons["small"] == "its share is 2.5 sequences, rounded to 2"
    write_collapsed(HERE, plan, LENGTH, RECIPE.sequences, None)
    assert open_token_sets(HERE.collapsed, LENGTH)["mid"].rows == 499


def test_the_part_is_of_all_the_sample_and_the_sample_stays(plan: Plan) -> None:
    sets = token_sets(HERE, plan, LENGTH, SCALE)
    whole = rows_of(read_tokens(HERE.tokens / "big.npy"), LENGTH)
    part = rows_of(read_tokens(sets["big"].path), LENGTH)
    places = [int(np.flatnonzero((whole == row).all(axis=1))[0]) for row in part]
    assert len(set(places)) == 250
    assert np.abs(np.histogram(places, 5, (0, len(whole)))[0] - 50).max() < 20, "rows from every fifth of the sample"
    assert len(read_tokens(HERE.tokens / "big.npy")) == 20_000
    assert sets["big"].identity != token_sets(HERE, plan, LENGTH, None)["big"].identity


def test_a_smaller_part_is_of_the_larger_and_a_part_of_all_rows_the_whole() -> None:
    tokens = np.arange(8 * 50 + 1 + 6, dtype="<u2")
    assert draw_rows(tokens, "a", 50, 8) is tokens
    assert draw_rows(tokens, "a", 90, 8) is tokens
    larger, smaller = ({tuple(row) for row in draw_rows(tokens, "a", rows, 8).tolist()} for rows in (40, 7))
    assert len(smaller) == 7
    assert smaller < larger


def test_members_of_the_virtual_domain_repeat_as_the_target_s_do(plan: Plan) -> None:
    sets = token_sets(HERE, plan, LENGTH, SCALE)
    drawn = draw_virtual({"big": 0.5, "mid": 0.5}, sets, LENGTH, RECIPE.sequences)
    mid = rows_of(read_tokens(sets["mid"].path), LENGTH)
    times = [int((drawn == row).all(axis=1).sum()) for row in mid]
    # The whole virtual domain is half of mid: 80,000 of the target's tokens from 4,000, 20 times each.
    assert set(times) == {20}


def test_a_domain_whose_shards_are_only_a_sample_of_it_is_named(plan: Plan) -> None:
    domains = {**plan.dataset.domains, "mid": replace(plan.dataset.domains["mid"], tokens=100_000)}
    declared = replace(plan, dataset=Dataset(domains))
    sets = token_sets(HERE, declared, LENGTH, SCALE)
    assert coarse_domains(declared, sets, SCALE)["mid"] == "its share is 1250 sequences, but its shards have only 499"


def test_the_pipeline_simulates_and_repeats(tmp_path: Path) -> None:
    """A first build with both switched on: the records say so, and the fit averages the repeats of a mixture."""
    project = Project.create(tmp_path / "project")
    content = project.params
    content["swarm"] |= {"simulate_repetition": True, "repeats": 2, "runs_per_domain": 2}
    project.params = content
    plan = project.plan()
    assert (plan["runs"], plan["runs_without_reuse"]) == (20, 20)
    ran = project.expect("dvc", "repro", "fit")
    assert ran.done("train") == 20
    records = [project.json(f"build/proxies/{path.name}") for path in (project.root / "build/proxies").glob("*.json")]
    tokens = {name: project.json(f"build/manifests/{name}.json")["tokens"] for name in ("code", "web")}
    for record in records:
        for name in set(tokens) & set(record["repetition"]):
            target = record["weights"][name] * 60_000 / tokens[name]
            assert record["repetition"][name] == pytest.approx(target, rel=0.02)
    by_name = {record["run"]: record for record in records}
    assert by_name["0000"]["weights"] == by_name["0000-r1"]["weights"]
    assert by_name["0000"]["seed"] == 0
    assert by_name["0000-r1"]["seed"] == by_name["0001-r1"]["seed"] != 0
    assert len(project.json("build/fit/law.json")["mixtures"]) == 10
    assert project.json("build/fit/diagnostics.json")["runs"] == {"used": 20, "missing": []}
