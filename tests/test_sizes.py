"""A size has about as many parameters as its name says."""

from __future__ import annotations

import dataclasses

import pytest

from olmix.proxy.recipe import Recipe
from olmix.proxy.sizes import SIZES, chinchilla_tokens

UNITS = {"k": 1_000, "m": 1_000_000}


def named(name: str) -> int:
    return int(name[:-1]) * UNITS[name[-1]]


def recipe(name: str, vocabulary: int) -> Recipe:
    return Recipe(
        **dataclasses.asdict(SIZES[name]),
        vocabulary=vocabulary,
        sequence_length=64,
        tokens=512,
        batch_size=8,
        learning_rate=1e-2,
    )


@pytest.mark.parametrize(
    ("name", "within"), [("1m", 0.25), ("15m", 0.02), ("30m", 0.02), ("60m", 0.05), ("190m", 0.01)]
)
def test_a_name_counts_parameters_without_the_input_embedding(name: str, within: float) -> None:
    counted = recipe(name, 100_000).parameters_without_embedding
    assert counted == SIZES[name].parameters(100_000)
    assert counted == pytest.approx(named(name), rel=within)


def test_the_smallest_is_named_for_its_layers() -> None:
    assert SIZES["100k"].parameters(vocabulary=0) == pytest.approx(100_000, rel=0.1)


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_one_that_a_recipe_can_have(name: str) -> None:
    whole = recipe(name, 1024)
    whole.validate()
    assert whole.size == SIZES[name]
    assert whole.parameters == whole.parameters_without_embedding + 1024 * SIZES[name].width
    assert whole.parameters_without_embedding == SIZES[name].parameters(vocabulary=0) + 1024 * SIZES[name].width


def test_feed_forward_widths_follow_the_rule() -> None:
    """1.5 times 8/3 of the width, rounded up to 256."""
    for name, size in SIZES.items():
        if name != "100k":
            assert size.hidden == -(-int(1.5 * int(8 * size.width / 3)) // 256) * 256


def test_chinchilla_is_twenty_tokens_a_parameter() -> None:
    assert chinchilla_tokens(30_000_000) == 600_000_000
    assert chinchilla_tokens(15_000_000, 0.5) == 150_000_000
    assert chinchilla_tokens(101, 5) == 10_100
