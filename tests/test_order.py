"""The data order is a plan: exact counts, whole epochs, and nothing that depends on names or positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.core.order import even_order, plan_order
from olmix.errors import TrainingError

Sets = list[tuple[str, int, int]]  # identity, rows, count

sets = st.lists(
    st.tuples(st.text("0123456789abcdef", min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 40)),
    min_size=1,
    max_size=6,
    unique_by=lambda s: s[0],
)


def read(chosen: Sequence[tuple[str, int, int]], seed: int) -> list[tuple[str, int]]:
    """The sequences of a run as (identity, row), in order."""
    identities, rows, counts = zip(*chosen, strict=True)
    labels, walked = plan_order(counts, rows, identities, seed)
    return [(identities[label], int(row)) for label, row in zip(labels, walked, strict=True)]


@given(sets, st.integers(0, 2**40))
def test_counts_are_exact_and_an_epoch_visits_every_row_once(chosen: Sets, seed: int) -> None:
    sequence = read(chosen, seed)
    for identity, rows, count in chosen:
        walk = [row for name, row in sequence if name == identity]
        assert len(walk) == count
        for begin in range(0, count, rows):
            epoch = walk[begin : begin + rows]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(rows))


@given(sets, st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_the_order_of_the_sets_changes_nothing(chosen: Sets, seed: int, random: object) -> None:
    shuffled = list(chosen)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert read(shuffled, seed) == read(chosen, seed)


@given(sets, st.integers(0, 100), st.integers(0, 40))
def test_a_set_is_walked_the_same_whatever_else_is_read(chosen: Sets, seed: int, more: int) -> None:
    (identity, rows, count), *others = chosen
    alone = [row for _, row in read([(identity, rows, count)], seed)]
    with_others = [row for name, row in read([(identity, rows, count + more), *others], seed) if name == identity]
    assert with_others[:count] == alone


@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 20), st.integers(0, 100))
def test_one_content_under_two_names_is_read_as_one(rows: int, first: int, second: int, seed: int) -> None:
    other = ("f", 5, 7)
    joined = read([("a", rows, first + second), other], seed)
    assert read([("a", rows, first), other, ("a", rows, second)], seed) == joined


def test_epochs_and_seeds_are_permuted_differently() -> None:
    walk = [row for _, row in read([("a", 50, 100)], 0)]
    assert walk[:50] != walk[50:]
    assert walk != [row for _, row in read([("a", 50, 100)], 1)]


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**40))
def test_a_set_that_is_read_in_order_gives_its_first_rows_from_some_place_on(rows: int, count: int, seed: int) -> None:
    count = min(count, rows)
    _, walked = plan_order([count], [rows], ["a"], seed, in_order=["a"])
    assert sorted(walked) == list(range(count))
    assert ((np.diff(walked) == 1) | (np.diff(walked) == 1 - count)).all()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_members_come_as_often_as_they_should(counts: list[int]) -> None:
    order = even_order(counts, [f"m{k}" for k in range(len(counts))])
    assert np.bincount(order, minlength=len(counts)).tolist() == counts


def test_members_keep_their_ratios_and_batches_differ_as_if_drawn_at_random() -> None:
    ratios = np.array([0.5, 0.3, 0.2])
    order = even_order((5_000 * ratios).astype(int).tolist(), ["a", "b", "c"])
    for n in range(0, 5_001, 50):
        assert np.abs(np.bincount(order[:n], minlength=3) - n * ratios).max() <= 12
    in_batches = (order.reshape(-1, 10) == 0).sum(axis=1)
    assert in_batches.var() == pytest.approx(10 * 0.5 * 0.5, rel=0.2)


def test_many_small_members_do_not_all_come_at_once() -> None:
    order = even_order([1] * 200 + [200], [f"m{k}" for k in range(201)])
    assert np.abs(np.histogram(np.flatnonzero(order < 200), 4, (0, 400))[0] - 50).max() < 25


def test_labels_are_mixed() -> None:
    labels, _ = plan_order([500, 500], [10, 10], ["a", "b"], 0)
    halves = np.bincount(labels[:500])
    assert np.all(np.abs(halves - 250) < 60)


def test_the_order_of_a_seed_is_pinned() -> None:
    """Another order is another result: change it and raise RECIPE_VERSION."""
    assert read([("a", 3, 4), ("b", 2, 2)], 0) == [("a", 1), ("a", 0), ("b", 0), ("a", 2), ("b", 1), ("a", 1)]


def test_a_set_without_rows_cannot_be_read() -> None:
    assert read([("a", 0, 0), ("b", 1, 1)], 0) == [("b", 0)]
    with pytest.raises(TrainingError, match="cannot read 3 sequences, it has 0"):
        plan_order([3], [0], ["a"], 0)
