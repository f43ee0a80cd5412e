"""`olmix show` and `olmix diff` of one file: what they say of it, and what they leave out because the file lacks it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from olmix.core.dataset import Dataset, Domain
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import Reuse, make_plan
from olmix.core.seeds import named_key
from olmix.outputs.mixture_file import write_mixture
from olmix.outputs.proposal import HEADING, Target, propose
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
    assert out.endswith(f"repetition limit 4; searched for among {scored:,} mixtures, no certificate\n")
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
    assert shown(tmp_path, "carried.yaml").endswith("; nothing was solved: the accepted mixture is carried over\n")


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
        "code    0.2500              300              ███████",
        "web     0.7500              700              ████████████████████",
    ]
    out = shown(tmp_path, by_hand(tmp_path, target={"tokens": 1000, "repetition": 2}))
    assert out.endswith("\nTarget 1,000 tokens, repetition limit 2\n")
