"""`olmix accept` takes no measured loser, offers what won, and changes nothing downstream."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from olmix.core.contenders import LABELS, contenders
from olmix.core.dataset import Dataset, Domain
from olmix.core.plan import EMPTY, Reuse, make_plan
from tests.project import Project


@pytest.fixture
def proposed(accepted: Project) -> Project:
    """A build whose proposal nobody has accepted."""
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    accepted.repro()
    return accepted


def let_natural_win(project: Project, by: tuple[float, float]) -> None:
    """Write a validation in which natural is better than the proposal, by so much at each seed."""
    path = project.root / "build/validation.json"
    validation = json.loads(path.read_text())
    best = validation["proposal"]["by_seed"]
    validation["natural"]["by_seed"] = [value - gain for value, gain in zip(best, by, strict=True)]
    validation["uniform"]["by_seed"] = [value + 0.01 for value in best]
    for mixture in validation.values():
        mixture["mean_bpb"] = sum(mixture["by_seed"]) / 2
    path.chmod(0o644)
    path.write_text(json.dumps(validation))
    project.dvc("commit", "-q", "-f", "validate")


def test_a_measured_loser_is_refused_and_the_winner_can_be_taken(proposed: Project) -> None:
    let_natural_win(proposed, (0.04, 0.03))
    before = proposed.outputs()
    ran = proposed.command("olmix", "accept")
    assert ran.code == 1
    assert ran.err == (
        "error: the proposal was measured 0.0350 ± 0.0050 bits per byte worse than the natural mixture: accept the "
        "natural mixture with `olmix accept --natural`, or the proposal with --anyway\n"
    )
    assert proposed.outputs() == before
    assert "now contains the natural mixture" in proposed.olmix("accept", "--natural").out
    accepted, plan = proposed.mixture("accepted"), proposed.json("build/plan.json")
    tokens = {name: domain["tokens"] for name, domain in plan["domains"].items()}
    assert proposed.weights("accepted") == pytest.approx(
        {name: count / sum(tokens.values()) for name, count in tokens.items()}, abs=1e-6
    )
    assert accepted["measured"]["gain_over_proposal"] == 0.035
    assert accepted["measured"]["gain_over_proposal_standard_error"] == 0.005
    assert accepted["dataset"] == plan["dataset"]["digest"]
    assert "predicted" not in accepted
    assert "trust" not in accepted
    assert proposed.repro().stages == ["plan"]
    after = {name: content for name, content in proposed.outputs().items() if name != "mixtures/accepted.yaml"}
    assert after == {name: content for name, content in before.items() if name != "mixtures/accepted.yaml"}
    assert "already contains the natural mixture" in proposed.olmix("accept", "--natural").out
    assert proposed.command("olmix", "accept", "--uniform").err.startswith(
        "error: the uniform mixture was measured 0.0"
    )
    proposed.olmix("accept", "--anyway")
    assert proposed.weights("accepted") == proposed.weights()
    assert proposed.mixture("accepted")["measured"]["gain_over_natural"] == -0.035


def test_a_difference_within_its_error_is_no_loss(proposed: Project) -> None:
    let_natural_win(proposed, (0.04, -0.03))
    assert "now contains the proposal" in proposed.olmix("accept").out


def test_what_was_never_measured_is_refused(proposed: Project) -> None:
    params = proposed.params
    params["validate"]["seeds"] = 0
    proposed.params = params
    assert proposed.repro().stages == ["keys", "validate"]
    ran = proposed.command("olmix", "accept")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("error: the proposal was not measured (validate.seeds is 0, or proxies are trained else")
    assert "measured" not in proposed.olmix("accept", "--anyway").out
    assert "measured" not in proposed.mixture("accepted")
    # Measured later, it is the same mixture, and the file can say so.
    proposed.repro()
    params["validate"]["seeds"] = 2
    proposed.params = params
    assert "not up to date" in proposed.command("olmix", "accept").err
    proposed.repro()
    proposed.olmix("accept", "--anyway")
    assert proposed.mixture("accepted")["measured"]["seeds"] == 2
    assert "already contains the proposal" in proposed.olmix("accept").out


def test_options_that_do_not_go(accepted: Project) -> None:
    assert "give only one of them" in accepted.command("olmix", "accept", "--natural", "--carried").err
    ran = accepted.command("olmix", "accept", "--carried")
    assert ran.err == "error: mixtures/accepted.yaml: has no mixture that can be carried over to this dataset\n"


def test_baselines_are_within_the_limits() -> None:
    dataset = Dataset(
        {name: Domain(k, tokens) for k, (name, tokens) in enumerate({"a": 800, "b": 150, "c": 50}.items())}
    )
    caps = {"a": 1.0, "b": 0.3, "c": 0.1}
    plan = make_plan(dataset, EMPTY, Reuse())
    mixtures = contenders(plan, {"a": 1.0, "b": 0.0, "c": 0.0}, caps)
    assert mixtures["natural"] == pytest.approx({"a": 0.8, "b": 0.15, "c": 0.05})
    assert mixtures["uniform"] == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
    said: list[str] = []
    assert "carried" not in contenders(replace(plan, carried={"c": 1.0}), {"a": 1.0}, caps, said.append)
    assert said == [
        f"{LABELS['carried']} cannot meet the repetition limits (its domains have too few tokens), so it is not "
        "measured"
    ]
