"""What changed between two versions is told from digests alone."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.changes import SEARCH_LIMIT, Change, Comparison, compare
from olmix.core.digest import MODULUS, total
from olmix.core.seeds import named_key

A, B, C, D, E = (named_key("content", letter) for letter in "abcde")
# Digests are sums of hashes: numbers that a tool likes (0, 1, 2) are no digests, and sum to each other.
digests = st.lists(st.integers(0, 10**6), min_size=2, max_size=12, unique=True).map(
    lambda values: [named_key("digest", value) for value in values]
)


def kinds(comparison: Comparison) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(change.kind, change.domains, change.origin) for change in comparison.changes]


def test_nothing_changed() -> None:
    comparison = compare({"a": A, "b": B}, {"b": B, "a": A})
    assert comparison.changes == ()
    assert comparison.unchanged == {"a": "a", "b": "b"}


def test_add_remove_revise() -> None:
    comparison = compare({"a": A, "b": B, "c": C}, {"a": A, "b": D, "e": E})
    assert kinds(comparison) == [("revise", ("b",), ("b",)), ("remove", ("c",), ()), ("add", ("e",), ())]
    assert comparison.unchanged == {"a": "a"}


def test_rename_keeps_the_old_name_as_evidence() -> None:
    comparison = compare({"a": A, "b": B}, {"a": A, "z": B})
    assert kinds(comparison) == [("rename", ("z",), ("b",))]
    assert comparison.unchanged == {"a": "a", "z": "b"}


def test_swapped_names_are_two_renames() -> None:
    comparison = compare({"a": A, "b": B}, {"a": B, "b": A})
    assert comparison.unchanged == {"a": "b", "b": "a"}
    assert [change.kind for change in comparison.changes] == ["rename", "rename"]


def test_a_copy_beside_the_original_is_an_addition() -> None:
    comparison = compare({"a": A}, {"a": A, "copy": A})
    assert kinds(comparison) == [("add", ("copy",), ())]


def test_partition_under_new_names_and_under_the_old_one() -> None:
    assert kinds(compare({"pdf": total([A, B])}, {"x": A, "y": B})) == [("partition", ("x", "y"), ("pdf",))]
    assert kinds(compare({"pdf": total([A, B])}, {"pdf": A, "y": B})) == [("partition", ("pdf", "y"), ("pdf",))]


def test_merge_into_a_new_name_and_into_an_old_one() -> None:
    assert kinds(compare({"x": A, "y": B, "z": C}, {"xy": total([A, B]), "z": C})) == [("merge", ("xy",), ("x", "y"))]
    assert kinds(compare({"x": A, "y": B}, {"x": total([A, B]), "w": C})) == [
        ("add", ("w",), ()),
        ("merge", ("x",), ("x", "y")),
    ]


def test_partition_is_found_among_other_changes_by_source_prefix_or_search() -> None:
    others = {f"new{i}": named_key("new", i) for i in range(6)}
    old = {"pdf": total([A, B, C])}
    for names in (("s1", "s2", "s3"), ("pdf-1", "pdf-2", "pdf-3"), ("k", "l", "m")):
        new = {**others, **dict(zip(names, (A, B, C), strict=True))}
        sources = {name: ("s" if name in names and names[0] == "s1" else None) for name in new}
        changes = compare(old, new, sources).changes
        assert Change("partition", tuple(sorted(names)), ("pdf",)) in changes
        assert sum(change.kind == "add" for change in changes) == 6


def test_two_partitions_at_once() -> None:
    comparison = compare({"p": total([A, B]), "q": total([C, D])}, {"a": A, "b": B, "c": C, "d": D})
    assert kinds(comparison) == [("partition", ("a", "b"), ("p",)), ("partition", ("c", "d"), ("q",))]


def test_digests_that_add_up_in_half_of_their_bits_are_no_partition() -> None:
    old = {"pdf": total([A, B])}
    false = (A + B - C + 2**64) % MODULUS  # C + false has the low 64 bits of A + B
    changes = compare(old, {"c": C, "d": D, "false": false}).changes
    assert {change.kind for change in changes} == {"add", "remove"}
    # Nor does such a pair hide the right one, wherever it stands.
    for names in permutations("klmn"):
        new = dict(zip(names, (A, B, C, false), strict=True))
        assert Change("partition", tuple(sorted(names[:2])), ("pdf",)) in compare(old, new).changes


def test_search_limit_is_reached_in_bounded_time_and_gives_up_above_it() -> None:
    names = {f"n{i:02d}": named_key("many", i) for i in range(SEARCH_LIMIT)}
    hidden = sorted(names)[3::5]
    old = {"whole": total(names[name] for name in hidden)}
    assert Change("partition", tuple(hidden), ("whole",)) in compare(old, names).changes
    more = {**names, "zz": named_key("one", "more")}
    assert all(change.kind in {"add", "remove"} for change in compare(old, more).changes)


@settings(max_examples=60, deadline=None)
@given(digests, st.data())
def test_any_partition_is_recognised_and_any_merge_is_its_mirror(values: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from(range(len(values))), min_size=2, unique=True))
    new = {f"d{i}": value for i, value in enumerate(values)}
    old = {f"d{i}": value for i, value in enumerate(values) if i not in parts}
    old["whole"] = total(values[i] for i in parts)
    names = tuple(sorted(f"d{i}" for i in parts))
    assert Change("partition", names, ("whole",)) in compare(old, new).changes
    assert Change("merge", ("whole",), names) in compare(new, old).changes
