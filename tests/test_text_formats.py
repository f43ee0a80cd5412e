"""The same text in every format is the same documents; what is no document is one clear line with its place."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import orjson
import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.data import compressed, jsonl, parquet
from olmix.data.reading import Piece, Reading
from olmix.data.shards import Shard, list_shards
from olmix.data.text import pieces_of, read_text
from olmix.errors import DataError

TEXTS = [
    "plain",
    "",
    "δέλτα 数学 😀",
    'a "quote", a \\ and a / slash',
    "tab\tfeed\nreturn\r",
    "nul \0 and \x7f",
    "é" * 9000,
]
READING = Reading()


def write_jsonl(path: Path, rows: Sequence[object], dumps: Callable[[object], bytes] = orjson.dumps) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))


def lines(texts: Sequence[str]) -> bytes:
    return b"".join(orjson.dumps({"id": k, "text": text}) + b"\n" for k, text in enumerate(texts))


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # the same bytes, and test names, in every process


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def write_in(kind: str, folder: Path, texts: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pl.DataFrame({"id": range(len(texts)), "text": texts}).write_parquet(folder / "a.parquet", row_group_size=3)
    elif kind == "txt":
        for k, text in enumerate(texts):
            (folder / f"{k}.txt").write_bytes(text.encode())
    else:
        packed = {"jsonl": lines(texts), "jsonl.gz": gz(lines(texts)), "jsonl.zst": zstd(lines(texts))}[kind]
        (folder / f"a.{kind}").write_bytes(packed)


def documents_of(root: Path | str, reading: Reading = READING, size: int = 1 << 30) -> list[tuple[bytes, str | None]]:
    found: list[tuple[bytes, str | None]] = []
    for shard in list_shards(root, lambda _: True):
        for piece in pieces_of(shard, size):
            for documents, topics in read_text(piece, reading):
                found += zip(documents, topics or [None] * len(documents), strict=True)
    return found


def texts_of(root: Path | str, reading: Reading = READING, size: int = 1 << 30) -> Counter[str]:
    return Counter(document.decode() for document, _ in documents_of(root, reading, size))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt"])
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_every_format_holds_the_same_documents(
    tmp_path: Path, kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((compressed, "CHUNK"), (compressed, "PACKED"), (parquet, "ROWS")):
        monkeypatch.setattr(module, name, chunk)
    texts = [text for text in TEXTS * 3 if text or kind != "txt"]
    write_in(kind, tmp_path, texts)
    assert texts_of(tmp_path) == Counter(texts)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt"])
def test_a_url_is_read_as_a_folder_is(tmp_path: Path, kind: str) -> None:
    texts = [text for text in TEXTS if text]
    write_in(kind, tmp_path, texts)
    root = f"memory://texts-{kind.replace('.', '-')}"
    fsspec.filesystem("memory").put(f"{tmp_path}/", root, recursive=True)
    assert texts_of(root) == Counter(texts)
    assert texts_of(root, size=20) == Counter(texts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=8),
    st.sampled_from(["utf-8", "ascii", "crlf, no final end", "blank lines"]),
    st.integers(1, 200),
)
def test_any_json_and_any_split_give_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], style: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    dumped = [json.dumps({"n": [1, {"text": 2}], "text": t}, ensure_ascii=style == "ascii").encode() for t in texts]
    end = {"crlf, no final end": b"\r\n", "blank lines": b"\n\n \n"}.get(style, b"\n")
    path.write_bytes(end.join(dumped) + (b"" if style == "crlf, no final end" else end))
    assert texts_of(path.parent, size=size) == Counter(texts)


def test_nested_fields_filters_and_topics_are_the_same_in_jsonl_and_parquet(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"content": {"body": f"text {k} é"}, "meta": {"lang": ("en", "fr", None)[k % 3], "score": k % 4}, "kind": k % 2}
        for k in range(40)
    ]
    write_jsonl(tmp_path / "j/a.jsonl", [*rows, {"meta": {"lang": "xx"}, "kind": 0}, {"kind": 1}])
    (tmp_path / "p").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "p/a.parquet")
    reading = Reading(
        text="content.body", where=(("meta.lang", ("en", "fr")), ("meta.score", (1, 2))), partition_by="kind"
    )
    expected = Counter(
        (row["content"]["body"].encode(), str(row["kind"]))
        for row in rows
        if row["meta"]["lang"] in ("en", "fr") and row["meta"]["score"] in (1, 2)
    )
    assert expected
    assert Counter(documents_of(tmp_path / "j", reading)) == expected
    assert Counter(documents_of(tmp_path / "p", reading)) == expected


@pytest.mark.parametrize("kind", ["j", "p"])
def test_values_are_left_out_and_so_is_what_has_none(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [
        {"text": text, "topic": topic, "deep": {"n": n}}
        for text, topic, n in [
            ("a", "x", 1), ("b", None, 1), (None, "x", 1), ("", "x", 1), ("c", "low", 1), ("d", "x", None),
            ("e", "y", 2),
        ]
    ]  # fmt: skip
    (tmp_path / "p").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "p/a.parquet")
    write_jsonl(tmp_path / "j/a.jsonl", [*rows, {"text": "f", "deep": {"n": 1}}])
    reading = Reading(
        where_not=(("deep.n", (2, None)), ("text", ("", None)), ("topic", ("low", None))), partition_by="topic"
    )
    assert documents_of(tmp_path / kind, reading) == [(b"a", "x")]
    with pytest.raises(DataError, match="null, not text; leave such documents out with where_not"):
        documents_of(tmp_path / kind, Reading())


@pytest.mark.parametrize("meta", [True, 3, 2.5, "x", [{"lang": "en"}], None, {}, {"lang": True}])
def test_a_field_inside_of_what_is_no_object_is_missing(tmp_path: Path, meta: object) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "no", "meta": meta}, {"text": "yes é", "meta": {"lang": "en"}}])
    assert texts_of(tmp_path, Reading(where=(("meta.lang", ("en",)),))) == Counter(["yes é"])


def test_the_text_itself_can_be_asked_for_and_name_topics(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in ("a", "é", "b")])
    reading = Reading(where=(("text", ("a", "é")),), partition_by="text")
    assert Counter(documents_of(tmp_path, reading)) == Counter([(b"a", "a"), ("é".encode(), "é")])


@pytest.mark.parametrize("value", [1, True, "1"])
def test_a_value_fits_its_own_type_alone(tmp_path: Path, value: object) -> None:
    write_jsonl(tmp_path / "j/a.jsonl", [{"text": repr(v), "v": v} for v in (1, True, "1", None, 1.0)])
    assert texts_of(tmp_path / "j", Reading(where=(("v", (value,)),))) == Counter([repr(value)])  # type: ignore[arg-type]
    (tmp_path / "p").mkdir()
    pl.DataFrame({"text": ["x"], "v": [1]}).write_parquet(tmp_path / "p/a.parquet")
    found = texts_of(tmp_path / "p", Reading(where=(("v", (value,)),)))  # type: ignore[arg-type]
    assert found == Counter(["x"] if value == 1 and value is not True and value != "1" else [])


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Binary, pl.Enum(["a", "é"])])
def test_text_columns_of_every_kind(tmp_path: Path, kind: Any) -> None:
    pl.DataFrame({"text": pl.Series(["a", "é", "a"]).cast(kind)}).write_parquet(tmp_path / "a.parquet")
    assert texts_of(tmp_path) == Counter(["a", "a", "é"])


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


MANY = lines([f"{k} {zlib.crc32(str(k).encode())}" for k in range(3000)])


@pytest.mark.parametrize(
    ("name", "content", "reading", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', READING, r"a\.jsonl:2: not JSON: "),
        ("a.jsonl", b'{"text": "\xc3\xa9"}\n{"text": "\xff"}\n', READING, r"a\.jsonl:2: not JSON: .*UTF-8"),
        ("a.jsonl", b'{"text": "\xc3\xa9"}\n{"text": "\xc3\xa9\\ud800"}\n', READING, r"a\.jsonl:2: not JSON: "),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n', READING, r"a\.jsonl:1: not JSON: .*byte order mark"),
        (
            "a.jsonl",
            b'{"text": "\xc3\xa9"}\n{"text": ["\xc3\xa9"]}\n',
            READING,
            r"jsonl:2: field 'text' is list, not text",
        ),
        (
            "a.jsonl",
            b'{"text": null}\n',
            READING,
            r"jsonl:1: field 'text' is null, not text; leave such",
        ),
        ("a.jsonl", b'"text"\n', READING, r"a\.jsonl:1: not a JSON object; write one object per line"),
        (
            "a.jsonl",
            b'{"a": {"b": 1}}\n',
            Reading(text="a.c"),
            r"a\.jsonl:1: text: no field 'a\.c' \(fields: b\); name another",
        ),
        (
            "a.jsonl",
            b'{"a": "x"}\n',
            Reading(text="a.c"),
            r"a\.jsonl:1: text: no field 'a\.c' \(fields: a\); name another",
        ),
        (
            "a.jsonl",
            b'{"text": "x", "t": "a"}\n{"text": "y"}\n',
            Reading(partition_by="t"),
            r"a\.jsonl:2: no field 't' of partition_by \(fields: text\); leave such documents out with where_not: {t",
        ),
        (
            "a.jsonl",
            b'{"text": "x", "t": ""}\n',
            Reading(partition_by="t"),
            r"a\.jsonl:1: field 't' of partition_by has no value, which does not name a topic; leave such doc",
        ),
        ("a.jsonl", b'{"text": "x"}\n', Reading(dtype="uint16"), r"a\.jsonl: dtype: text has no dtype; remove it"),
        ("a.jsonl", b'{"text": "x", "t": 1.5}\n', Reading(partition_by="t"), r"a\.jsonl:1: field 't' .* has 1\.5"),
        (
            "a.jsonl",
            b'{"x": ' + b"[" * 99_999 + b"]" * 99_999 + b', "text": "a"}\n',
            READING,
            r"a\.jsonl:1: not JSON: ",
        ),
        (
            "a.jsonl",
            b'{"l": "en"}\n',
            Reading(where=(("l", ("en",)),)),
            r"a\.jsonl:1: text: no field 'text' \(fields: l\)",
        ),
        ("a.jsonl.gz", gz(MANY)[:-9], READING, r"a\.jsonl\.gz: truncated gzip: it ends after [\d,]+ bytes"),
        ("a.jsonl.gz", flip(gz(MANY), 9000), READING, r"a\.jsonl\.gz(: not valid gzip after|:\d+: )"),
        ("a.jsonl.gz", bytes(30_000), READING, r"a\.jsonl\.gz: not valid gzip after 0 bytes"),
        ("a.jsonl.gz", gz(b""), READING, r"a\.jsonl\.gz: no lines of text; remove it"),
        ("a.jsonl", b"\n \n\n", READING, r"a\.jsonl: no lines of text; remove it"),
        ("a.jsonl.gz", b"plain text", READING, r"a\.jsonl\.gz: not valid gzip after 0 bytes"),
        ("a.jsonl.gz", gz(MANY) + b"something else", READING, r"a\.jsonl\.gz: not valid gzip after 1"),
        ("a.jsonl.gz", gz(b'{"text": 1}\n'), READING, r"a\.jsonl\.gz:1: field 'text' is int"),
        ("a.jsonl.zst", zstd(MANY)[:-9], READING, r"a\.jsonl\.zst: truncated zstandard: it ends after [\d,]+ bytes"),
        ("a.jsonl.zst", flip(zstd(MANY), 9000), READING, r"a\.jsonl\.zst(: not valid zstandard after|:\d+: )"),
        ("a.jsonl.zst", b"plain text", READING, r"a\.jsonl\.zst: not valid zstandard after 0 bytes"),
        ("a.parquet", b"PAR1 and no more", READING, r"a\.parquet: not valid parquet: "),
        ("a.txt", b"caf\xe9", READING, r"a\.txt: not UTF-8 at byte 3; convert it first"),
        (
            "a.txt",
            b"x",
            Reading(partition_by="t"),
            r"a\.txt: a text file has no fields; remove where, w",
        ),
    ],
)
def test_what_is_no_document_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, reading: Reading, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        documents_of(tmp_path, reading)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "reading", "message"),
    [
        (
            {"body": ["x"], "id": [1]},
            READING,
            r"a\.parquet: text: no column 'text' \(columns: body, id\); name another",
        ),
        ({"text": [1]}, READING, r"a\.parquet: column 'text' is Int64, not text"),
        ({"text": ["x", None, "y"]}, READING, r"a\.parquet: row 2: column 'text' is null, not text"),
        ({"text": [b"x", b"\xff"]}, READING, r"a\.parquet: column 'text' is binary and not UTF-8"),
        (
            {"text": ["x"]},
            Reading(where=(("lang", ("en",)),)),
            r"a\.parquet: where: no column 'lang' .*; name another",
        ),
        ({"text": ["x"]}, Reading(partition_by="t"), r"a\.parquet: partition_by: no column 't' .*; name another"),
        (
            {"text": ["x"], "t": [0.5]},
            Reading(partition_by="t"),
            r"partition_by: column 't' is Float64, neither text nor integers",
        ),
        (
            {"text": ["x", "y"], "t": ["a", None]},
            Reading(partition_by="t"),
            r"a\.parquet: row 2: field 't' of partition_by has no value, which does not name a topic",
        ),
        ({"a": [{"b": "x"}]}, Reading(text="a.c"), r"a\.parquet: text: no column 'a\.c' \(columns: b\)"),
    ],
)
def test_a_table_that_does_not_fit_is_one_clear_line(
    tmp_path: Path, table: dict[str, list[object]], reading: Reading, message: str
) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message) as error:
        documents_of(tmp_path, reading)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["footer", "page"])
def test_a_damaged_parquet_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": [f"{k} {zlib.crc32(str(k).encode())}" for k in range(5000)]}).write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:-20] if where == "footer" else content[:60] + b"\xff" * 200 + content[260:])
    with pytest.raises(DataError, match=r"a\.parquet: not valid parquet: ") as error:
        documents_of(tmp_path)
    assert "\n" not in str(error.value)


def test_members_and_frames_follow_each_other(tmp_path: Path) -> None:
    half = len(MANY.splitlines()) // 2
    first, second = (b"\n".join(part) + b"\n" for part in (MANY.splitlines()[:half], MANY.splitlines()[half:]))
    for name, content in (
        ("gz/a.jsonl.gz", gz(first) + gz(second) + b"\0" * 100),
        ("zst/a.jsonl.zst", zstd(first) + zstd(second)),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
        assert sum(texts_of((tmp_path / name).parent).values()) == 3000


def test_the_line_of_an_error_is_the_shards_in_whatever_piece_it_lies(tmp_path: Path) -> None:
    good = [orjson.dumps({"text": f"line {k} é"}) for k in range(50)]
    good[37] = b'{"text": 1}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(good))
    for size in (20, 45, 100, 333, 10**6):
        with pytest.raises(DataError, match=r"a\.jsonl:38: field 'text' is int, not text"):
            documents_of(tmp_path, size=size)


def test_a_shard_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"{k}"} for k in range(100)])
    monkeypatch.setattr(compressed, "CHUNK", 100)
    (shard,) = list_shards(tmp_path, lambda _: True)
    assert isinstance(shard, Shard)
    batches = read_text(Piece(shard), READING)
    next(batches)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "more"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was read; nothing was recorded; run it again"):
        list(batches)


def test_only_text_is_unescaped() -> None:
    assert jsonl.unescape([b'"\\u00e9"', b'""', b'"\\ud83d\\ude00\\\\n"']) == ["é".encode(), b"", "😀\\n".encode()]
    for string in (b"7", b"null", b'["a"]', b'{"a": 1}'):
        with pytest.raises(jsonl._NoDocumentError):
            jsonl.unescape([b'"a"', string])
