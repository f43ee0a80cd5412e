"""Variants are independent of K, of names and of order; the design has full rank; sources are dense, topics sparse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.swarm import Sampling, SwarmDomain, sample_swarm
from olmix.errors import ConfigError, SwarmError


def domains(shares: list[float], sources: list[str | None] | None = None) -> list[SwarmDomain]:
    total = sum(shares)
    return [
        SwarmDomain(f"d{i}", f"digest-{i}", share / total, sources[i] if sources else None)
        for i, share in enumerate(shares)
    ]


SEVEN = domains([30, 20, 18, 11, 10, 8, 3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-5, 1.0), min_size=2, max_size=12), st.integers(0, 5))
def test_mixtures_are_on_the_simplex_and_identify_every_domain(shares: list[float], seed: int) -> None:
    weights = sample_swarm(domains(shares), len(shares) + 1, Sampling(seed))
    units = np.rint(weights * 1e6).astype(int)
    np.testing.assert_allclose(weights, units / 1e6, rtol=0, atol=1e-12)
    assert (units.sum(axis=1) == 10**6).all()
    assert (weights > 0).all()
    assert np.linalg.matrix_rank(weights) == len(shares)


@given(st.integers(8, 20), st.integers(0, 12))
def test_more_runs_keep_every_earlier_one(runs: int, more: int) -> None:
    few, many = sample_swarm(SEVEN, runs, Sampling()), sample_swarm(SEVEN, runs + more, Sampling())
    assert (many[:runs] == few).all()


@given(st.permutations(range(7)))
def test_neither_order_nor_names_matter(order: list[int]) -> None:
    renamed = [SwarmDomain(f"z{9 - i}", SEVEN[i].identity, SEVEN[i].share) for i in order]
    assert (sample_swarm(renamed, 12, Sampling()) == sample_swarm(SEVEN, 12, Sampling())[:, order]).all()


def test_another_seed_is_another_swarm() -> None:
    assert not np.allclose(sample_swarm(SEVEN, 10, Sampling(0)), sample_swarm(SEVEN, 10, Sampling(1)))


def test_even_a_tiny_domain_is_sampled_where_a_law_can_learn() -> None:
    tiny = domains([1.0, 1.0, 1e-5])
    weights = sample_swarm(tiny, 12, Sampling())
    assert weights[:, 2].max() > 0.05
    assert np.median(weights[:, 2]) < 0.01


def test_the_centre_is_natural_and_the_floor_holds() -> None:
    weights = sample_swarm(SEVEN, 700, Sampling(concentration=(16.0, 16.0), floor=0.01))
    assert weights.min() >= 0.01 - 1e-6
    natural = np.array([d.share for d in SEVEN])
    expected = 0.01 + 0.93 * (16 * natural + 1 / 7) / 17
    np.testing.assert_allclose(weights.mean(axis=0), expected, atol=0.015)


def test_topics_are_sparse_within_their_source_and_sources_dense() -> None:
    topics = domains([1.0] * 12 + [6.0], ["web"] * 12 + [None])
    weights = sample_swarm(topics, 39, Sampling())
    web = weights[:, :12]
    shares = web / web.sum(axis=1, keepdims=True)
    assert (shares[shares > 0] >= 0.05 - 1e-4).all()
    assert (web == 0).mean() > 0.3
    assert (weights[:, 12] > 0).all()
    assert ((web > 0).sum(axis=0) >= 3).all()
    assert np.linalg.matrix_rank(weights) == 13


def test_a_small_domain_beside_the_virtual_one_is_not_drawn_twice_at_the_floor() -> None:
    pair = domains([0.97, 0.03])
    for seed in range(12):
        weights = sample_swarm(pair, 9, Sampling(seed, floor=0.01))
        gaps = np.abs(weights[:, None] - weights[None]).sum(axis=2)[np.triu_indices(9, 1)]
        assert gaps.min() >= 2e-3, seed
        assert (sample_swarm(pair, 6, Sampling(seed, floor=0.01)) == weights[:6]).all()


def test_the_same_content_under_two_names_is_still_identified() -> None:
    twins = [*SEVEN, SwarmDomain("twin", SEVEN[0].identity, SEVEN[0].share)]
    assert np.linalg.matrix_rank(sample_swarm(twins, 9, Sampling())) == 8


def test_what_cannot_be_sampled_is_said_before_any_training() -> None:
    with pytest.raises(SwarmError, match="5 runs cannot identify 7 domains"):
        sample_swarm(SEVEN, 5, Sampling())
    with pytest.raises(ConfigError, match=r"floor: 0\.1 for each of 7 sources.*lower it to 0\.071429"):
        sample_swarm(SEVEN, 8, Sampling(floor=0.1))
    with pytest.raises(SwarmError, match=r"none of 200 draws gives topic d\d a share of 0\.99"):
        sample_swarm(domains([1.0] * 6, ["s"] * 6), 8, Sampling(topic_minimum=0.99))
