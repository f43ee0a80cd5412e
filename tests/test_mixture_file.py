"""Mixture files: golden text, read back exactly, and one clear line for what is no mixture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from olmix.artifacts.law_file import Laws
from olmix.artifacts.mixture_file import MixtureFile, parse_mixture, read_mixture, render_mixture, write_mixture
from olmix.artifacts.proposal import mixture_file
from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import from_hex
from olmix.core.limits import Target
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import EMPTY, Plan, Reuse, make_plan
from olmix.core.seeds import named_key
from olmix.errors import InfeasibleError, MixtureError
from olmix.laws.loglinear import LogLinear
from olmix.laws.registry import law_kinds
from olmix.stages.propose import HEADING, propose
from tests.swarm_fits import swarm_fit

GOLDEN = Path(__file__).parent / "golden"
DATASET = Dataset(
    {name: Domain(named_key(name), tokens) for name, tokens in (("a", 500), ("b", 300), ("on", 200))}, "tok"
)
TARGET = Target(1000, 4.0)


def law(coefficients: list[list[float]]) -> LogLinear:
    t = np.array(coefficients)
    n = len(t)
    return LogLinear(np.full(n, 1.0), t, np.zeros(n), np.zeros(n), np.full(n, 9.0))


def laws(plan: Plan, coefficients: list[list[float]], replicates: int = 0) -> Laws:
    fitted = law(coefficients)
    shifted = [law((np.array(coefficients) + 0.01 * (r + 1)).tolist()) for r in range(replicates)]
    names = plan.space.names
    return Laws(
        names, tuple(f"t{j}" for j in range(len(coefficients))), swarm_fit(fitted, len(names), shifted), law_kinds()
    )


def test_a_proposal_is_golden_and_reads_back(tmp_path: Path) -> None:
    plan = make_plan(DATASET, EMPTY, Reuse())
    file = propose(
        plan, laws(plan, [[-1.0, 0.5, 0.2], [0.3, -2.0, 0.1]], 3), {"t0": 1, "t1": 1}, Target(1000, 1.7), 0.05
    )
    assert render_mixture(file, HEADING) == (GOLDEN / "proposed.yaml").read_text()
    write_mixture(tmp_path / "m.yaml", file, HEADING)
    back = read_mixture(tmp_path / "m.yaml")
    assert back.mixture == file.mixture
    assert back.dataset == DATASET.digest
    content = yaml.safe_load((tmp_path / "m.yaml").read_text())
    assert set(content["domains"]) == {"a", "b", "on"}
    assert content["predicted"]["proposal"]["bpb"] < content["predicted"]["natural"]["bpb"]
    assert content["certificate"]["gap"] <= 1e-9
    assert content["trust"]["gain"]["over"] == "natural"


def test_caps_hold_to_the_last_digit_and_are_marked() -> None:
    plan = make_plan(DATASET, EMPTY, Reuse())
    file = propose(plan, laws(plan, [[0.0, 0.0, -9.0]]), {"t0": 1}, Target(1000, 1.7), 0.01)
    rows = {name: (share.weight, file.uses[name].capped) for name, share in file.mixture.domains.items()}
    assert rows["on"] == (0.34, True)
    assert not rows["a"][1]
    assert file.sections["certificate"]["cap_prices"]["on"] > 0
    assert file.sections["predicted"]["unconstrained"]["bpb"] < file.sections["predicted"]["proposal"]["bpb"]


def test_weights_of_tasks_matter_by_their_proportions_alone() -> None:
    plan = make_plan(DATASET, EMPTY, Reuse())
    fitted = laws(plan, [[-1.0, 0.5, 0.2], [0.3, -2.0, 0.1]])
    one = propose(plan, fitted, {"t0": 1, "t1": 3}, TARGET, 0.05)
    assert propose(plan, fitted, {"t0": 10, "t1": 30}, TARGET, 0.05).mixture == one.mixture
    assert propose(plan, fitted, {"t0": 3, "t1": 1}, TARGET, 0.05).mixture != one.mixture


def test_a_proposal_names_the_law_and_objective_behind_its_prediction() -> None:
    plan = make_plan(DATASET, EMPTY, Reuse())
    fitted = laws(plan, [[-1.0, 0.5, 0.2], [0.3, -2.0, 0.1]])

    def fit(fitted: Laws, weights: dict[str, float], target: Target = TARGET) -> str:
        digest: str = propose(plan, fitted, weights, target, 0.05).sections["trust"]["fit"]
        return digest

    one = fit(fitted, {"t0": 1, "t1": 3})
    assert fit(fitted, {"t0": 2, "t1": 6}, Target(1000, 1.7)) == one
    assert fit(fitted, {"t0": 1, "t1": 1}) != one
    assert fit(laws(plan, [[-1.0, 0.5, 0.2], [0.3, -2.0, 0.2]]), {"t0": 1, "t1": 3}) != one


def base(weights: dict[str, float]) -> Mixture:
    return Mixture(
        {n: Share(w, DATASET.domains[n].tokens, DATASET.domains[n].digest) for n, w in weights.items()}, "tok"
    )


def test_a_reuse_proposal_keeps_frozen_ratios_and_the_scarcest_member_within_its_cap() -> None:
    new = Dataset({**DATASET.domains, "z": Domain(named_key("z"), 400)}, "tok")
    plan = make_plan(new, base({"a": 0.2, "b": 0.2, "on": 0.6}), Reuse())
    fitted = laws(plan, [[-3.0, 1.0]])
    file = propose(plan, fitted, {"t0": 1}, Target(1000, 2.0), 0.0)
    weights = file.mixture.weights
    assert weights["on"] == pytest.approx(0.4, abs=1e-6)
    assert weights["on"] <= 0.4
    assert weights["a"] == pytest.approx(weights["on"] / 3, abs=2e-6)
    # Its runs cannot tell what natural would give, but what doing nothing would: z has no weight in it.
    predicted, gain = file.sections["predicted"], file.sections["trust"]["gain"]
    assert set(predicted) == {"proposal", "carried", "unconstrained"}
    assert predicted["carried"]["bpb"] == pytest.approx(fitted.fit.law.predict(np.array([1.0, 0.0]))[0], abs=1e-6)
    assert gain["over"] == "carried"
    assert gain["bpb"] == pytest.approx(predicted["carried"]["bpb"] - predicted["proposal"]["bpb"], abs=2e-6)


def test_removal_alone_renormalises_and_moves_what_a_cap_forbids() -> None:
    rest = Dataset({name: DATASET.domains[name] for name in ("a", "on")}, "tok")
    plan = make_plan(rest, base({"a": 0.2, "b": 0.5, "on": 0.3}), Reuse())
    assert propose(plan, None, {}, TARGET, 0.05).mixture.weights == {"a": 0.4, "on": 0.6}
    capped = propose(plan, None, {}, Target(1000, 2.0), 0.05)
    assert capped.mixture.weights == {"a": 0.6, "on": 0.4}
    assert capped.uses["on"].capped
    with pytest.raises(InfeasibleError, match="2,000 tokens cannot be drawn"):
        propose(plan, None, {}, Target(2000, 2.0), 0.05)


def test_a_cap_is_filled_when_the_next_digit_has_no_room() -> None:
    weights = {"a": 0.5, "b": 0.299999, "on": 0.200001}
    caps = {"a": 0.500002, "b": 0.2999996, "on": 1.0}
    uses = mixture_file(DATASET, weights, caps, None, {}).uses
    assert {name: use.capped for name, use in uses.items()} == {"a": False, "b": True, "on": False}


def test_digests_that_look_like_numbers_survive_yaml() -> None:
    for text in ("1" * 32, "1e5" + "0" * 29, "0" * 32):
        file = MixtureFile(Mixture({"x": Share(1.0, 10, from_hex(text, "x"))}))
        rendered = render_mixture(file, "test")
        assert parse_mixture(yaml.safe_load(rendered), "test").mixture == file.mixture


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "old.yaml: not a mixture file: it has no mapping `domains`"),
        ({"domains": {"a": 0.5}}, "old.yaml: domains.a: not a line of weight, tokens and digest"),
        ({"domains": {"a": {"weight": 1.0}}}, "old.yaml: domains.a: digest, tokens missing"),
        ({"domains": {"a": {"weight": "x", "tokens": 1, "digest": "0"}}}, "domains.a: weight 'x' is not a number"),
        ({"domains": {"a": {"weight": 1.0, "tokens": 0, "digest": "0"}}}, "tokens 0 is not a positive whole number"),
        ({"domains": {"a": {"weight": 1.0, "tokens": 1, "digest": "g"}}}, "digest 'g' is not 128 bits"),
        ({"domains": {"a": {"weight": 0.9, "tokens": 1, "digest": "0"}}}, "old.yaml: the weights sum to 0.900000"),
        ({"domains": {"a": {"weight": -1.0, "tokens": 1, "digest": "0"}}}, "domain a: weight -1.0"),
        ({"domains": {"a": {"weight": math.nan, "tokens": 1, "digest": "0"}}}, "domain a: weight nan"),
        ({"domains": {}, "target": {"tokens": "1T", "repetition": 4}}, "old.yaml: target: write tokens and repetition"),
        ({"domains": {}, "target": 5}, "old.yaml: target: write tokens and repetition, each a number, or leave target"),
        ({"domains": {}, "measured": {"bpb": 2.4}}, "old.yaml: measured: write bpb and seeds, each a number"),
    ],
)
def test_what_is_no_mixture_is_one_clear_line(content: object, message: str) -> None:
    with pytest.raises(MixtureError) as error:
        parse_mixture(content, "old.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_with_weight_tokens_and_digest_alone_is_complete() -> None:
    content = {"domains": {"web:a": {"weight": 1.0, "tokens": 5, "digest": "ff"}}}
    assert parse_mixture(content, "x").accepted.mixture.weights == {"web:a": 1.0}
