"""What counts as a shard, and which format it has: by name, as declared, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from olmix.data.shards import KINDS, list_shards
from olmix.errors import DataError


def allow(path: Path) -> bool:
    return True


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.jsonl", "deep/b.ndjson"], "jsonl"),
        (["a.jsonl.gz", "b.json.gz"], "jsonl.gz"),
        (["a.json.zst", "b.jsonl.zstd"], "jsonl.zst"),
        (["a.parquet"], "parquet"),
        (["a.txt"], "txt"),
        (["part-0-00000.npy", "part-0-00000.csv.gz"], "npy"),
        (["a.bin", "a.idx"], "megatron"),
        (["0.ds", "0.ds.index", "0.ds.metadata"], "datatrove"),
    ],
)
def test_the_format_is_told_by_the_names(tmp_path: Path, names: list[str], kind: str) -> None:
    shards = list_shards(put(tmp_path, *names), allow)
    assert {shard.kind for shard in shards} == {KINDS[kind]}
    assert [shard.name for shard in shards] == sorted(name for name in names if name.endswith(KINDS[kind].suffixes))


@pytest.mark.parametrize(
    ("names", "declared", "message"),
    [
        (["a.jsonl", "b.parquet"], None, r"jsonl and parquet shards in one domain; use one format per domain"),
        (["a.jsonl", "a.jsonl.gz"], None, r"jsonl and jsonl\.gz shards in one domain"),
        (["a.npy", "b.bin", "b.idx"], None, r"megatron and npy shards in one domain"),
        (["a.jsonl", "README.md"], None, r"README\.md: not a \.jsonl or \.ndjson shard, as the others of this domain"),
        (["a.xyz"], None, r"a\.xyz: format: not a shard; give the domain \.jsonl, "),
        (["a.bin"], None, r"a\.bin: no a\.idx beside it; copy it there"),
        (["a.bin", "a.idx", "b.idx"], None, r"b\.idx: no \.bin beside it; copy it there, or remove this index"),
        (["b.idx"], None, r"b\.idx: no \.bin beside it; copy it there"),
        (["a.ds", "a.ds.metadata"], None, r"a\.ds: no a\.ds\.index beside it"),
        (["a.jsonl", "b.parquet"], "jsonl", r"b\.parquet: format: jsonl, but this shard is not"),
        (["a.jsonl"], "csv", r"no format 'csv'; choose from jsonl, "),
        ([".hidden", ".git/config"], None, r"no shards; put \.jsonl"),
        (["a\nb.jsonl"], None, r"a name with unprintable characters; rename the file"),
    ],
)
def test_what_is_no_domain_is_one_clear_line(
    tmp_path: Path, names: list[str], declared: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        list_shards(put(tmp_path, *names), allow, declared)
    assert "\n" not in str(error.value)


def test_what_spark_leaves_beside_shards_is_no_shard(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "_SUCCESS", "_committed_1", "_temporary/0/_task", "_b.parquet")
    assert [shard.name for shard in list_shards(tmp_path, allow)] == ["_b.parquet", "a.parquet"]


def test_a_declared_format_needs_no_suffix(tmp_path: Path) -> None:
    shards = list_shards(put(tmp_path, "part-00000", "part-00001"), allow, "jsonl")
    assert [shard.name for shard in shards] == ["part-00000", "part-00001"]
    with pytest.raises(DataError, match=r"part-00000: format: not a shard"):
        list_shards(tmp_path, allow)


@pytest.mark.parametrize(
    "name", ["-rf.jsonl", "a b.jsonl", "a=b.jsonl", "$(touch x).jsonl", "раr.jsonl", "n" * 240 + ".jsonl"]
)
def test_hostile_names_are_names_and_nothing_else(tmp_path: Path, name: str) -> None:
    (shard,) = list_shards(put(tmp_path, name), allow)
    assert shard.name == name
    with shard.open() as file:
        assert file.read() == b"x"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_stamps_tell_what_changed_and_hold_the_index(tmp_path: Path) -> None:
    put(tmp_path, "a.bin", "a.idx", "b.bin", "b.idx")
    before = {shard.name: shard.stamp for shard in list_shards(tmp_path, allow)}
    (tmp_path / "a.idx").write_bytes(b"yy")
    after = list_shards(tmp_path, allow)
    assert {shard.name for shard in after if shard.stamp != before[shard.name]} == {"a.bin"}
    (tmp_path / "a.idx").write_bytes(b"zzz")
    with pytest.raises(DataError, match=r"a\.bin: changed while it was read; nothing was recorded"):
        after[0].require_unchanged()
    after[1].require_unchanged()
    (tmp_path / "b.bin").unlink()
    with pytest.raises(DataError, match=r"b\.bin: changed while it was read"):
        after[1].require_unchanged()


def test_a_url_lists_as_a_folder_does() -> None:
    system = fsspec.filesystem("memory")
    for name in ("b.jsonl", "deep/a.jsonl", ".hidden/c.jsonl"):
        system.pipe_file(f"/listing/{name}", b"{}")
    shards = list_shards("memory://listing", allow)
    assert [(shard.name, shard.place, shard.size) for shard in shards] == [
        ("b.jsonl", "memory://listing/b.jsonl", 2),
        ("deep/a.jsonl", "memory://listing/deep/a.jsonl", 2),
    ]
    shards[0].require_unchanged()
    with shards[1].open() as file:
        assert file.read() == b"{}"
    system.pipe_file("/listing/b.jsonl", b"{ }")
    with pytest.raises(DataError, match="changed while it was read"):
        shards[0].require_unchanged()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere", r"memory://nowhere: no files; check the root and your credentials"),
        ("nosuch://bucket/x", r"nosuch://bucket/x: cannot be opened: "),
        ("gopher://x", r"gopher://x: cannot be opened: "),
    ],
)
def test_a_root_that_cannot_be_had_is_one_clear_line(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        list_shards(url, allow)
    assert "\n" not in str(error.value)


def test_links(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "s.jsonl")
    put(tmp_path / "a", "x.jsonl")
    (tmp_path / "a/l.jsonl").symlink_to(tmp_path / "elsewhere/s.jsonl")
    assert [shard.name for shard in list_shards(tmp_path / "a", allow)] == ["l.jsonl", "x.jsonl"]
    (tmp_path / "a/out.jsonl").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"out\.jsonl: a link to a file outside the project"):
        list_shards(tmp_path / "a", lambda target: target.is_relative_to(tmp_path.resolve()))
