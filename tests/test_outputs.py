"""Token sets, runs, laws and validation as the stages put them together."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.artifacts.evaluations import SwarmResults
from olmix.artifacts.law_file import laws_from_json, laws_to_json
from olmix.core.contenders import contenders, validation_size
from olmix.core.dataset import Dataset, Domain
from olmix.core.order import plan_order
from olmix.core.plan import EMPTY, Reuse, make_plan
from olmix.data.tokensets import draw_virtual, identity_of, open_token_sets, read_tokens, rows_of, write_tokens
from olmix.errors import DataError, SwarmError
from olmix.files import canonical_json
from olmix.fit.fitting import FitSettings
from olmix.laws.registry import law_kinds
from olmix.proxy.recipe import Recipe
from olmix.runs.record import RunSpec, spec_for
from olmix.stages.fit import fit_laws
from olmix.stages.validate import summarise, validation_specs

RECIPE = Recipe(
    layers=1, heads=2, width=8, hidden=8, vocabulary=300, sequence_length=8, tokens=640, batch_size=4,
    learning_rate=0.01,
)  # fmt: skip


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Token sets a, b, c of 100, 50 and 4 rows of 8."""
    for k, (name, rows) in enumerate((("a", 100), ("b", 50), ("c", 4))):
        tokens = np.arange(k * 1000, k * 1000 + rows * 8 + 1, dtype="<u2") % 299
        write_tokens(tmp_path / f"{name}.npy", tokens)
    return tmp_path


@given(st.integers(0, 60), st.integers(1, 9))
def test_rows_predict_every_token_but_the_first_once(length: int, sequence: int) -> None:
    tokens = np.arange(length, dtype=np.uint16)
    rows = rows_of(tokens, sequence)
    assert rows.shape == (max(0, length - 1) // sequence, sequence + 1)
    assert rows[:, 1:].ravel().tolist() == list(range(1, rows.shape[0] * sequence + 1))


def test_the_virtual_set_holds_its_members_in_their_exact_ratios(sets: Path) -> None:
    opened = open_token_sets(sets, 8)
    virtual = draw_virtual({"a": 0.5, "b": 0.3, "c": 0.2}, opened, 8, 80)
    assert virtual.shape == (80, 9)
    firsts = {name: {tuple(row) for row in rows_of(read_tokens(opened[name].path), 8).tolist()} for name in "abc"}
    counts = {name: sum(tuple(row) in firsts[name] for row in virtual.tolist()) for name in "abc"}
    assert counts == {"a": 40, "b": 24, "c": 16}
    renamed = {"x": opened["a"], "y": opened["b"], "z": opened["c"]}
    assert identity_of(draw_virtual({"z": 0.2, "y": 0.3, "x": 0.5}, renamed, 8, 80)) == identity_of(virtual)


@given(st.floats(0.02, 1.0), st.integers(0, 10**6))
def test_a_run_reads_members_through_the_virtual_set_as_it_reads_them_directly(share: float, seed: int) -> None:
    """By their ratios, rows from all over their samples, and none once more before all were read as often."""
    with TemporaryDirectory() as folder:
        lengths = {"long": 400, "short": 30, "tiny": 3}
        for k, (name, rows) in enumerate(lengths.items()):
            ids = k * 10_000 + np.arange(rows * 8 + 1)  # the first id of a row tells its member and its place
            write_tokens(Path(folder) / f"{name}.npy", ids.astype("<u4"))
        opened = open_token_sets(Path(folder), 8)
        ratios = {"long": 0.6, "short": 0.3, "tiny": 0.1}
        virtual = draw_virtual(ratios, opened, 8, 300)
    count = max(1, round(share * 300))
    _, rows = plan_order([count], [300], ["v"], seed, in_order=["v"])
    read = virtual[rows][:, 0].astype(int)
    for k, (name, available) in enumerate(lengths.items()):
        times = np.bincount(read[read // 10_000 == k] % 10_000 // 8, minlength=available)
        assert abs(times.sum() - count * ratios[name]) <= 6
        assert times.max() - times.min() <= 1


def test_a_set_that_is_too_short_or_no_set_is_one_clear_line(tmp_path: Path) -> None:
    write_tokens(tmp_path / "short.npy", np.arange(5, dtype="<u2"))
    with pytest.raises(DataError, match="domain short: 5 tokens are fewer than one sequence of 8; give it more text"):
        open_token_sets(tmp_path, 8)
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(DataError, match=r"short\.npy: not a token set"):
        read_tokens(tmp_path / "short.npy")
    np.save(tmp_path / "short.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"short\.npy: not a token set"):
        read_tokens(tmp_path / "short.npy")
    np.save(tmp_path / "short.npy", np.zeros(9))
    with pytest.raises(DataError, match="float64 is not a token set"):
        read_tokens(tmp_path / "short.npy")


def test_a_run_is_keyed_by_content_and_counts_alone(sets: Path, tmp_path: Path) -> None:
    opened = open_token_sets(sets, 8)
    spec = spec_for("0000", {"a": 0.55, "b": 0.45, "c": 0.0}, opened, RECIPE, 0)
    assert spec.counts == {"a": 44, "b": 36, "c": 0}
    assert spec.weights == {"a": 0.55, "b": 0.45, "c": 0.0}
    renamed = {"z": opened["a"], "k": opened["b"]}
    same = spec_for("another name", {"k": 0.45, "z": 0.55}, renamed, RECIPE, 0)
    assert same.key == spec.key
    halves = RunSpec("x", {"a": 20, "twin": 24, "b": 36}, {**opened, "twin": opened["a"]}, RECIPE, 0)
    assert halves.key == spec.key
    other = {
        spec_for("0000", {"a": 0.55, "b": 0.45}, opened, RECIPE, 1).key,
        spec_for("0000", {"a": 0.6, "b": 0.4}, opened, RECIPE, 0).key,
        spec_for("0000", {"a": 0.55, "c": 0.45}, opened, RECIPE, 0).key,
        RunSpec("x", spec.counts, opened, Recipe(**{**RECIPE.__dict__, "clip": 2.0}), 0).key,
    }
    assert len(other | {spec.key}) == 5


def results(runs: int, seed: int = 0) -> SwarmResults:
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(np.ones(3), runs)
    bpb = 1.0 + np.exp(weights @ np.array([[-1.0, 0.2], [0.5, -0.8], [0.1, 0.3]])) + draw.normal(0, 1e-3, (runs, 2))
    names = tuple(f"{i:04d}" for i in range(runs))
    return SwarmResults(names, ("a", "b", "c"), ("t0", "t1"), weights, bpb, np.array([8.0, 1.5]), frozenset(names))


EQUAL = {"t0": 1.0, "t1": 1.0}


def test_a_fit_recovers_a_law_and_says_how_well() -> None:
    swarm = results(12)
    fit = fit_laws(swarm, swarm.runs, EQUAL, FitSettings(replicates=5))
    assert fit.laws is not None
    assert len(fit.laws.fit.replicates) == 5
    np.testing.assert_allclose(fit.laws.fit.law.predict(swarm.weights), swarm.bpb, atol=0.01)
    assert fit.diagnostics["mean"]["spearman"] > 0.9
    assert fit.diagnostics["tasks"]["t0"]["spearman"] > 0.8
    assert fit.diagnostics["design"]["rank"] == 3


def test_a_fit_warns_of_tasks_that_nothing_taught() -> None:
    swarm = results(12)
    fit = fit_laws(swarm, swarm.runs, EQUAL, FitSettings(replicates=0))
    assert fit.diagnostics["unlearned_tasks"] == ["t1"]
    assert any("task t1: no run is much better than a model that knows nothing" in w for w in fit.warnings)


def test_missing_runs_are_named_and_too_few_refused() -> None:
    swarm = results(12)
    wanted = [f"{i:04d}" for i in range(14)]
    fit = fit_laws(swarm, wanted, EQUAL, FitSettings(replicates=0))
    assert fit.diagnostics["runs"] == {"used": 12, "missing": ["0012", "0013"]}
    assert fit.warnings[0] == "2 runs are missing (0012, 0013); fitted on the other 12"
    with pytest.raises(SwarmError, match=r"only 3 distinct of 14 runs for the 4 parameters of a law; missing: 0003"):
        fit_laws(results(3), wanted, EQUAL, FitSettings())


def test_a_plan_that_recomputes_nothing_has_no_law() -> None:
    fit = fit_laws(results(12), [], EQUAL, FitSettings())
    assert fit.laws is None
    assert fit.diagnostics["tasks"] == {}


def test_gains_are_paired_by_seed_and_weighted_by_task(sets: Path) -> None:
    dataset = Dataset({n: Domain(k, t) for k, (n, t) in enumerate((("a", 800), ("b", 400), ("c", 32)))})
    plan = make_plan(dataset, EMPTY, Reuse())
    mixtures = contenders(plan, {"a": 0.2, "b": 0.8, "c": 0.0}, dict.fromkeys("abc", 1.0))
    specs = validation_specs(mixtures, open_token_sets(sets, 8), RECIPE, 7, 2)
    assert {name: [run.seed for run in runs] for name, runs in specs.items()} == {
        name: [8, 9] for name in ("proposal", "natural", "uniform")
    }
    assert validation_size(plan, 2) == 6
    level = {"proposal": 1.0, "natural": 1.5, "uniform": 1.25}
    scores: dict[str, dict[str, Any]] = {
        run.key: {"t0": {"bpb": level[name] + 0.1 * run.seed}, "t1": {"bpb": 2 * level[name] + 0.1 * run.seed}}
        for name, runs in specs.items()
        for run in runs
    }
    summary = summarise(mixtures, specs, scores, {"t0": 3.0, "t1": 1.0})
    assert summary["proposal"]["mean_bpb"] == pytest.approx(1.25 + 0.85)
    assert summary["proposal"]["standard_error"] == pytest.approx(0.05)
    gain = summary["natural"]["gain_of_proposal"]
    assert gain["bpb"] == pytest.approx(0.5 * 1.25)
    assert gain["standard_error"] == pytest.approx(0.0, abs=1e-12)
    assert "gain_of_proposal" not in summary["proposal"]


@pytest.mark.parametrize("name", sorted(law_kinds()))
def test_a_law_of_any_kind_is_read_back_as_it_was(name: str) -> None:
    swarm = results(12)
    settings = FitSettings(law=name, replicates=2)
    laws = fit_laws(swarm, swarm.runs, EQUAL, settings).laws
    assert laws is not None
    back = laws_from_json(orjson.loads(canonical_json(laws_to_json(laws))), EQUAL, settings)
    assert (back.coordinates, back.tasks, back.fit.runs) == (laws.coordinates, laws.tasks, laws.fit.runs)
    for read, written in zip((back.fit.law, *back.fit.replicates), (laws.fit.law, *laws.fit.replicates), strict=True):
        assert (read.predict(swarm.weights) == written.predict(swarm.weights)).all()
    assert back.fit.scores.mean_rmse == laws.fit.scores.mean_rmse
