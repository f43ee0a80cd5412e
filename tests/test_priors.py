"""Priors of domains: two shapes of file, and domains that only one side knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from olmix.errors import DataError
from olmix.tables.priors import Priors, aligned, read_priors
from tests.public_swarms import FOLDER, load, needs_swarms, priors


def read(folder: Path, content: object, name: str = "priors.json") -> Priors:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_priors(path)


def refused(folder: Path, content: object, name: str = "priors.json") -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    return str(caught.value).replace(f"{folder}/", "")


def test_both_sections(tmp_path: Path) -> None:
    both = read(tmp_path, {"relative_sizes": {"b": 3, "a": 1}, "token_counts": {"a": 10, "b": 2e9}})
    assert (both.reference, both.tokens) == ({"b": 0.75, "a": 0.25}, {"a": 10, "b": 2_000_000_000})
    reference, tokens = aligned(both, ["a", "b"])
    assert reference.tolist() == [0.25, 0.75]
    assert tokens is not None
    assert tokens.tolist() == [10, 2e9]


def test_the_reference_is_natural_where_none_is_given(tmp_path: Path) -> None:
    for content in ({"token_counts": {"b": 30, "a": 10}}, {"b": 30, "a": 10}):
        flat = read(tmp_path, content)
        assert flat.reference is None
        reference, tokens = aligned(flat, ["a", "b"])
        assert reference.tolist() == [0.25, 0.75]
        assert tokens is not None
        assert tokens.tolist() == [10, 30]


def test_sizes_alone_give_no_tokens(tmp_path: Path) -> None:
    reference, tokens = aligned(read(tmp_path, {"relative_sizes": {"a": 1, "b": 1}}), ["b", "a"])
    assert (reference.tolist(), tokens) == ([0.5, 0.5], None)


def test_yaml_and_json_are_the_same(tmp_path: Path) -> None:
    content = "relative_sizes:\n  s:x: 0.5\n  s:y: 0.5\ntoken_counts: {'s:x': 1000, 's:y': 1.0e+9}\n"
    yaml = read(tmp_path, content, "priors.yml")
    assert yaml.reference == {"s:x": 0.5, "s:y": 0.5}
    assert yaml.tokens == {"s:x": 1000, "s:y": 10**9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "priors.json: not priors; write {relative_sizes, token_counts}, or the tokens of each domain"),
        ({}, "priors.json: not priors; write {relative_sizes, token_counts}, or the tokens of each domain"),
        ({"relative_size": {"a": 1}}, "priors.json: unknown key 'relative_size'; did you mean 'relative_sizes'?"),
        (
            {"token_counts": {"a": 1}, "weights": {"a": 1}},
            "priors.json: unknown key 'weights'; the keys are relative_sizes and token_counts",
        ),
        ({"token_counts": 7}, "priors.json: token_counts: not a mapping of domains; write a line `domain: number` for"),
        (
            {"token_counts": {}},
            "priors.json: token_counts: not a mapping of domains; write a line `domain: number` for",
        ),
        ({"a": 1, "b": 1.5}, "priors.json: b: tokens 1.5 is not a whole number > 0; correct or remove it"),
        ({"a": 0}, "priors.json: a: tokens 0 is not a whole number > 0; correct or remove it"),
        ({"a": True}, "priors.json: a: tokens True is not a whole number > 0; correct or remove it"),
        (
            {"token_counts": {"a": "1T"}},
            "priors.json: token_counts: a: tokens '1T' is not a whole number > 0; correct or remove it",
        ),
        (
            {"relative_sizes": {"a": 1, "b": 0}},
            "priors.json: relative_sizes: b: share 0 is not a finite number > 0; correct or remove it",
        ),
        (
            {"relative_sizes": {"a": None}},
            "priors.json: relative_sizes: a: share None is not a finite number > 0; correct or remove it",
        ),
        ('{"a": 1, "b": 2, "a": 3}', "priors.json: listed twice: a; keep one line per domain"),
        ("{", "priors.json: not JSON: "),
    ],
)
def test_files_that_are_no_priors(tmp_path: Path, content: object, message: str) -> None:
    assert refused(tmp_path, content).startswith(message)


def test_yaml_that_is_no_priors(tmp_path: Path) -> None:
    assert refused(tmp_path, "relative_sizes: {a: .inf}", "p.yaml") == (
        "p.yaml: relative_sizes: a: share inf is not a finite number > 0; correct or remove it"
    )
    assert (
        refused(tmp_path, "a: .nan", "p.yaml")
        == "p.yaml: a: tokens nan is not a whole number > 0; correct or remove it"
    )
    assert refused(tmp_path, "1: 2", "p.yaml") == "p.yaml: domain 1 is not text; put it in quotes"
    assert refused(tmp_path, "a: 1", "p.toml") == (
        "p.toml: priors must be a .json, .yaml or .yml file, not '.toml'; convert it"
    )
    with pytest.raises(DataError, match=r"none\.json: no such file$"):
        read_priors(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        (["a"], "1 are not in the swarm (b); list exactly the 1 domains of the swarm"),
        (["a", "b", "c"], "1 of the swarm are missing (c); list exactly the 3 domains of the swarm"),
        (
            ["a", "B"],
            "1 are not in the swarm (b); 1 of the swarm are missing (B); list exactly the 2 domains of the swarm",
        ),
    ],
)
def test_domains_of_one_side_only(domains: list[str], said: str) -> None:
    for priors_, section in [
        (Priors({"a": 0.5, "b": 0.5}, None, "p.json"), "relative_sizes"),
        (Priors(None, {"a": 1, "b": 2}, "p.json"), "token_counts"),
        (Priors(dict.fromkeys(domains, 1.0), {"a": 1, "b": 2}, "p.json"), "token_counts"),
    ]:
        with pytest.raises(DataError) as caught:
            aligned(priors_, domains)
        assert str(caught.value) == f"p.json: {section}: domains: {said}"


def test_priors_that_say_nothing() -> None:
    with pytest.raises(
        DataError, match=r"^priors: has neither relative_sizes nor token_counts; write at least one of them$"
    ):
        aligned(Priors(None, None), ["a"])


@needs_swarms
@pytest.mark.parametrize("name", ["dclm", "partition-pdfs"])
def test_public_priors(name: str) -> None:
    swarm = load(name)
    reference, tokens = aligned(read_priors(FOLDER / name / "priors.json"), swarm.domains)
    published = priors(swarm, name)
    assert np.allclose(reference, published["relative_sizes"] / published["relative_sizes"].sum(), rtol=1e-14)
    assert tokens is not None
    assert np.array_equal(tokens, published["token_counts"])
