"""`olmix show` and `olmix diff` of one file: what they say of it, and what they leave out because the file lacks it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from olmix.artifacts.mixture_file import write_mixture
from olmix.core.dataset import Dataset, Domain
from olmix.core.limits import Target
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import Reuse, make_plan
from olmix.core.seeds import named_key
from olmix.stages.propose import HEADING, propose
from tests.swarm_tables import Swarm, olmix

DOMAINS = {
    "code": {"weight": 0.25, "tokens": 300, "digest": "c0de"},
    "web": {"weight": 0.75, "tokens": 700, "digest": "3eb"},
}


def shown(folder: Path, name: str, *words: str) -> str:
    ran = olmix(folder, "show", name, *words)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def by_hand(folder: Path, name: str = "mine.yaml", **sections: object) -> str:
    """A mixture file of weights, tokens and digests, with the sections that are given."""
    (folder / name).write_text(yaml.safe_dump({"domains": DOMAINS, **sections}))
    return name


# How it was found


@pytest.mark.parametrize("law", ["nearest", "square-root", "gaussian-process"])
def test_a_mixture_that_was_searched_for_has_no_certificate(tmp_path: Path, law: str) -> None:
    swarm = Swarm(tmp_path)
    swarm.fit("--law", law)
    scored = swarm.mixture().sections["certificate"]["searched"]
    out = shown(tmp_path, "fit/mixture.yaml")
    assert out.endswith(f"repetition limit 4; best of {scored:,} mixtures searched, no certificate\n")
    assert "gap" not in out


def test_a_mixture_that_was_solved_shows_its_gap(tmp_path: Path) -> None:
    Swarm(tmp_path).fit()
    assert shown(tmp_path, "fit/mixture.yaml").endswith("repetition limit 4; duality gap 1.0e-12\n")


def test_a_mixture_that_is_carried_over_claims_no_gap(tmp_path: Path) -> None:
    domains = {name: Domain(named_key(name), tokens) for name, tokens in (("a", 500), ("b", 300))}
    shares = {name: Share(0.5, domain.tokens, domain.digest) for name, domain in domains.items()}
    rest = Dataset({"a": domains["a"]})
    file = propose(make_plan(rest, Mixture(shares), Reuse()), None, {}, Target(1000, 4.0), 0.05)
    assert set(file.sections["certificate"]) == {"kl_to_natural"}
    write_mixture(tmp_path / "carried.yaml", file, HEADING)
    assert shown(tmp_path, "carried.yaml").endswith("; carried over, not solved for\n")


def test_a_mixture_by_hand_says_nothing_of_a_solver(tmp_path: Path) -> None:
    out = shown(tmp_path, by_hand(tmp_path))
    assert "gap" not in out
    assert "solved" not in out


# Its target


def test_without_a_target_there_is_neither_a_limit_nor_a_repetition(tmp_path: Path) -> None:
    Swarm(tmp_path).command("fit", "ratios.csv", "metrics.csv", "--priors", "priors.json", "--replicates", "0")
    out = shown(tmp_path, "fit/mixture.yaml")
    assert out.endswith("\nDuality gap 1.0e-12\n")
    assert "arget" not in out
    assert "0.00" not in out


def test_a_mixture_by_hand_shows_what_it_holds(tmp_path: Path) -> None:
    assert shown(tmp_path, by_hand(tmp_path)).splitlines()[2:] == [
        "domain  weight  natural  tokens  repetition",
        "code    0.2500   0.3000     300              ███████",
        "web     0.7500   0.7000     700              ████████████████████",
    ]
    out = shown(tmp_path, by_hand(tmp_path, target={"tokens": 1000, "repetition": 2}))
    assert out.endswith("\nTarget 1,000 tokens, repetition limit 2\n")


# What was measured


def test_a_file_that_records_its_measurement_shows_it(tmp_path: Path) -> None:
    """With the errors, and as files had it before those were recorded."""
    measured = {"seeds": 3, "bpb": 2.4, "gain_over_natural": 0.1, "gain_over_uniform": -0.05, "gain_over_carried": 0.0}
    assert shown(tmp_path, by_hand(tmp_path, measured=measured)).splitlines()[:5] == [
        "Measured, 3 fresh seeds: 2.4000 bits per byte",
        "  0.1000 better than the natural mixture (2.5000), +4.0%",
        "  0.0500 WORSE than the uniform mixture (2.3500), -2.1%",
        "  equal to the accepted mixture carried over: proxies read the same sequences",
        "",
    ]
    errors = {"standard_error": 0.01, "gain_over_natural_standard_error": 0.02}
    out = shown(tmp_path, by_hand(tmp_path, measured={**measured, "seeds": 1, **errors}))
    assert out.startswith(
        "Measured, 1 fresh seed: 2.4000 bits per byte ± 0.0100\n"
        "  0.1000 ± 0.0200 better than the natural mixture (2.5000), +4.0%\n"
    )
    content = json.loads(shown(tmp_path, "mine.yaml", "--json"))
    assert (content["measured"]["bpb"], content["validation"]) == (2.4, None)
    ran = olmix(tmp_path, "diff", by_hand(tmp_path, "other.yaml"), "mine.yaml")
    assert "\nMeasured, 1 fresh seed: 2.4000" in ran.out


@pytest.mark.parametrize("command", [["show", "mine.yaml"], ["diff", "mine.yaml", "mine.yaml"]])
def test_json_for_scripts_is_strict_where_a_number_is_not_finite(tmp_path: Path, command: list[str]) -> None:
    endless = {name: {**row, "repetition": float("inf")} for name, row in DOMAINS.items()}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"domains": endless}))
    ran = olmix(tmp_path, *command, "--json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads(ran.out, parse_constant=refuse)["domains"]["web"]
    assert [row[key] for key in row if key.startswith("repetition")] == [None] * (len(command) - 1)


def test_what_json_cannot_hold_is_one_line(tmp_path: Path) -> None:
    ran = olmix(tmp_path, "show", by_hand(tmp_path, notes={1: "a key that is no text"}), "--json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: --json: ")


def test_only_the_projects_own_proposal_is_still_to_be_measured(tmp_path: Path) -> None:
    (tmp_path / "mixtures").mkdir()
    by_hand(tmp_path, "mixtures/proposed.yaml")
    assert olmix(tmp_path, "show").out.startswith("Not measured yet: run `dvc repro`.\n")
    assert shown(tmp_path, "./mixtures/../mixtures/proposed.yaml").startswith("Not measured yet: run `dvc repro`.\n")
    assert shown(tmp_path, by_hand(tmp_path)).startswith("mine.yaml contains no measurement.\n")
    # A validation of nothing (validate.seeds: 0) is not one of every mixture.
    (tmp_path / "build").mkdir()
    (tmp_path / "build/validation.json").write_text("{}")
    assert shown(tmp_path, "mine.yaml").startswith("mine.yaml contains no measurement.\n")


def test_the_validation_of_the_working_tree_counts_before_what_a_file_records(tmp_path: Path) -> None:
    weights = {name: row["weight"] for name, row in DOMAINS.items()}
    proposal = {"mean_bpb": 1.5, "standard_error": None, "seeds": [1], "weights": weights, "tasks": {}}
    (tmp_path / "build").mkdir()
    (tmp_path / "build/validation.json").write_text(json.dumps({"proposal": proposal}))
    mine = by_hand(tmp_path, measured={"bpb": 2.5, "seeds": 3})
    assert shown(tmp_path, mine).startswith("Measured, 1 fresh seed: 1.5000 bits per byte\n")
    moved = {**proposal, "weights": {"code": 0.3, "web": 0.7}}
    (tmp_path / "build/validation.json").write_text(json.dumps({"proposal": moved}))
    assert shown(tmp_path, mine).startswith("Measured, 3 fresh seeds: 2.5000 bits per byte\n")


# Whether two predictions compare


def predicted(swarm: Swarm, a: str, b: str) -> tuple[str, bool]:
    """What `olmix diff` says of the predictions of two fits, without the numbers, and whether they compare."""
    names = f"{a}/mixture.yaml", f"{b}/mixture.yaml"
    content = json.loads(olmix(swarm.root, "diff", *names, "--json").out)["predicted"]
    (line,) = [line for line in olmix(swarm.root, "diff", *names).out.splitlines() if line.startswith("Predicted")]
    return re.sub(r"\d\.\d{4}", "#", line), content["comparable"]


OF_ONE_LAW = ("Predicted # -> # bits per byte", True)
OF_TWO_LAWS = (
    "Predicted # before and # after, bits per byte; from different laws, so the difference means nothing",
    False,
)


def test_predictions_of_one_law_compare_whatever_else_was_asked(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    swarm.fit("--law", "linear")
    swarm.fit("--law", "linear", "--lambda", "0.3", "--repetition", "5", "--out", "other")
    assert predicted(swarm, "fit", "other") == OF_ONE_LAW


@pytest.mark.parametrize(
    "words",
    [["--law", "bimix"], ["--runs", "20"], ["--weight", "python=3"], ["--drop", "python"], ["--config", "delta.yaml"]],
    ids=lambda words: words[0],
)
def test_predictions_of_two_laws_or_objectives_do_not(tmp_path: Path, words: list[str]) -> None:
    swarm = Swarm(tmp_path)
    swarm.write("delta.yaml", "delta: 0.001\n")
    swarm.fit("--law", "log-linear")
    swarm.fit("--law", "log-linear", *words, "--out", "other")
    assert predicted(swarm, "fit", "other") == OF_TWO_LAWS


def test_predictions_of_files_that_do_not_tell_their_law_do_not_compare(tmp_path: Path) -> None:
    section = {"proposal": {"bpb": 1.5, "standard_error": None}}
    by_hand(tmp_path, "a.yaml", predicted=section, dataset="ff")
    ran = olmix(tmp_path, "diff", "a.yaml", "a.yaml")
    assert "1.5000 before and 1.5000 after" in ran.out


# How far to believe it


def test_the_predicted_gain_and_the_doubts_stand_under_the_prediction(tmp_path: Path) -> None:
    trust = {
        "law": "linear", "mirage": False, "nearest_run": 0.1, "leverage": 0.2, "largest_leverage_of_a_run": 0.5,
        "moved_by_resampling": None, "other_laws": {},
    }  # fmt: skip
    gain = {"over": "natural", "bpb": 0.0551, "standard_error": 0.0122, "low": 0.045, "high": 0.066}
    law = "Law linear; nearest run at total variation 0.100; leverage 0.20 (largest run: 0.50)"
    for more, lines in (
        ({"gain": gain, "doubts": []}, [
            "Predicted gain over the natural mixture 0.0551 ± 0.0122 (0.0450 to 0.0660)", law,
            "Doubts about the prediction: none",
        ]),
        ({"gain": {"over": "carried", "bpb": 0.05, "standard_error": None, "low": None, "high": None},
          "doubts": ["the gain may be 0", "the proposal is outside the mixtures that were tried"]}, [
            "Predicted gain over the accepted mixture carried over 0.0500", law,
            "Doubts about the prediction: the gain may be 0, the proposal is outside the mixtures that were tried",
        ]),
        ({}, [law]),  # a file of before these were written
    ):  # fmt: skip
        out = shown(tmp_path, by_hand(tmp_path, trust={**trust, **more}))
        assert out.splitlines()[-len(lines) :] == lines
        assert ("oubt" in out) == (more != {})
