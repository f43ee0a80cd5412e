"""JSON lines: the fields that are asked for are decoded, the others are only skipped.

A line in ASCII is decoded to text, which is its bytes. Of any other line the text stays raw JSON: batches of such
strings are unescaped and checked to be UTF-8 at once, since a Python string of other letters is made and encoded again
at a third of that speed. What is not looked at: whether bytes of fields that nobody asked for are UTF-8.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import orjson
import polars as pl

from olmix.data.compressed import lines_of
from olmix.data.reading import Batch, Piece, Reading, Value
from olmix.data.shards import READ_SIZE
from olmix.errors import DataError


class _NoDocumentError(Exception):
    """A line holds no document."""


def read_jsonl(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a piece of a .jsonl shard, plain or compressed, in batches of a few hundred kilobytes.

    Raises DataError with shard and line for a line that is no document.
    """
    documents_in = _fields(reading) if reading.has_fields else _texts(reading)
    blank = piece.begin == 0 and piece.end is None
    with piece.shard.open() as file:
        for lines in lines_of(piece.shard, file, piece.begin, piece.end):
            blank = blank and not any(line.strip() for line in lines)
            try:
                batch = documents_in(lines)
            except _FAILURES:
                # An empty line ends many files, and is no document.
                full = [line for line in lines if line.strip()]
                try:
                    batch = documents_in(full)
                except _FAILURES:
                    raise _diagnose(piece, reading) from None
            yield batch
    if blank:
        raise piece.shard.error("no lines of text", way_out="remove it or write it again")


# msgspec goes as deep as Python's stack allows, also through fields that it skips.
_FAILURES = (msgspec.DecodeError, UnicodeDecodeError, pl.exceptions.PolarsError, _NoDocumentError, RecursionError)
_DocumentsIn = Callable[[Sequence[bytes]], Batch]


def _texts(reading: Reading) -> _DocumentsIn:
    """For shards of which every line is a document."""
    get = operator.attrgetter(_attribute(reading.text))
    decode_text = msgspec.json.Decoder(_struct({reading.text: str}, required=True)).decode
    decode_raw = msgspec.json.Decoder(_struct({reading.text: msgspec.Raw}, required=True)).decode

    def documents_in(lines: Sequence[bytes]) -> Batch:
        documents = [get(decode_text(line)).encode() for line in lines if line.isascii()]
        if len(documents) < len(lines):
            documents += unescape([bytes(get(decode_raw(line))) for line in lines if not line.isascii()])
        return Batch(documents)

    return documents_in


def _fields(reading: Reading) -> _DocumentsIn:
    """For shards of which a line is a document, of its topic, when its other fields fit."""
    others = [field for field, _ in (*reading.where, *reading.where_not)]
    others += [] if reading.partition_by is None else [reading.partition_by]
    decode = msgspec.json.Decoder(_struct({**dict.fromkeys(others, object), reading.text: msgspec.Raw}, False)).decode
    get = _getter(reading.text)

    def value_of(field: str) -> Callable[[Any], Any]:
        return (lambda row: _parsed(get(row))) if field == reading.text else _getter(field)

    filters = [*((*one, True) for one in reading.where), *((*one, False) for one in reading.where_not)]
    tests = [(value_of(field), values, kept) for field, values, kept in filters]
    topic_of = None if reading.partition_by is None else value_of(reading.partition_by)

    def documents_in(lines: Sequence[bytes]) -> Batch:
        rows = [decode(line) for line in lines]
        for value, values, kept in tests:
            rows = [row for row in rows if fits(value(row), values) is kept]
        texts = [get(row) for row in rows]
        if not all(isinstance(text, msgspec.Raw) for text in texts):
            raise _NoDocumentError
        topics = None if topic_of is None else [topic_name(topic_of(row)) for row in rows]
        if topics is not None and not all(topics):
            raise _NoDocumentError
        return Batch(unescape([bytes(text) for text in texts]), topics)  # type: ignore[arg-type]

    return documents_in


def _parsed(raw: Any) -> Any:
    """The value of the text's field, which rows hold as raw JSON."""
    return msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else None


def unescape(strings: Sequence[bytes]) -> list[bytes]:
    """Decode JSON strings, quotes included, to UTF-8; raises PolarsError or _NoDocumentError for an invalid one."""
    if not all(string.startswith(b'"') for string in strings):
        raise _NoDocumentError
    column = pl.Series(strings, dtype=pl.Binary).cast(pl.String)
    texts: list[bytes] = column.str.json_decode(pl.String).cast(pl.Binary).to_list()
    return texts


def _diagnose(piece: Piece, reading: Reading) -> DataError:
    """Why the first bad line of a piece is not a document; the piece is read again, slowly."""
    shard = piece.shard
    documents_in = _fields(reading) if reading.has_fields else _texts(reading)
    number = _lines_before(piece)
    with shard.open() as file:
        for lines in lines_of(shard, file, piece.begin, piece.end):
            for line in lines:
                number += 1
                try:
                    if line.strip():
                        documents_in([line])
                except _FAILURES:
                    return _problem(f"{shard.place}:{number}", line, reading)
    return shard.changed()


def _lines_before(piece: Piece) -> int:
    """Lines of the shard that belong to earlier pieces."""
    left, count, last = piece.begin, 0, b"\n"
    with piece.shard.open() as file:
        while left and (block := file.read(min(left, READ_SIZE))):
            left -= len(block)
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def fits(value: object, values: Sequence[Value | None]) -> bool:
    """Whether a field's value is one of `values`; true is not 1, and what is missing is None."""
    return any(value == other and type(value) is type(other) for other in values)


def topic_name(value: object) -> str | None:
    """The topic that a field's value names, or None when it names none."""
    if isinstance(value, str) and value:
        return value if value.isprintable() else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def leave_out(field: str | None) -> str:
    """What to do about documents without a value of `field`."""
    return f"leave such documents out with where_not: {{{field}: null}}, or write text there"


def no_topic(place: str, reading: Reading, value: object) -> DataError:
    """The error of a document at `place` without a topic."""
    what = "no value" if value in (None, "") else f"{value!r:.40}"
    field = reading.partition_by
    message = f"field {field!r} of partition_by has {what}, which does not name a topic"
    return DataError(message, file=place, way_out=leave_out(field))


def _attribute(field: str) -> str:
    """The path of a dotted field in the structs, whose fields are numbered: any name is a field of JSON."""
    return ".".join(f"field_{k}" for k in range(len(field.split("."))))


# Where an object is looked for and something else is found, the fields in it are missing.
_FLAT = bool | str | int | float | list[Any] | None


def _struct(wanted: dict[str, Any], required: bool, depth: int = 0) -> type[msgspec.Struct]:
    """A struct that decodes the dotted fields `wanted`, each to its type, and skips all others."""
    inner: dict[str, dict[str, Any]] = {}
    for field, kind in wanted.items():
        head, _, rest = field.partition(".")
        inner.setdefault(head, {})[rest] = kind
    fields: list[Any] = []
    names = {}
    for k, (head, below) in enumerate(inner.items()):
        nested = {rest: kind for rest, kind in below.items() if rest}
        below_it: Any = below.get("") if not nested else _struct(nested, required, depth + 1)
        # One field a level is enough for `_attribute`; several are told apart by `_getter`.
        name = f"field_{depth}" if required else f"field_{k}"
        names[name] = head
        fields.append((name, below_it) if required else (name, below_it | _FLAT if nested else below_it, None))
    return msgspec.defstruct("Row", fields, rename=names, namespace={"__names__": {h: n for n, h in names.items()}})


def _getter(field: str) -> Callable[[Any], Any]:
    """The value of a dotted field in a row, or None when it is missing."""
    path = field.split(".")

    def get(row: Any) -> Any:
        for name in path:
            if not isinstance(row, msgspec.Struct):
                return None
            row = getattr(row, type(row).__names__[name])  # type: ignore[attr-defined]
        return row

    return get


def _problem(place: str, line: bytes, reading: Reading) -> DataError:
    """Why a line is not a document."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return DataError(f"not JSON: {error}", file=place)
    if not isinstance(row, dict):
        way_out = f"write one object per line with the field {reading.text!r}"
        return DataError("not a JSON object", file=place, way_out=way_out)
    text, fields = _lookup(row, reading.text)
    if text is _MISSING:
        message = f"no field {reading.text!r} (fields: {fields})"
        return DataError(message, file=place, key="text", way_out="name another")
    if not isinstance(text, str):
        kind, hint = ("null", leave_out(reading.text)) if text is None else (type(text).__name__, None)
        return DataError(f"field {reading.text!r} is {kind}, not text", file=place, way_out=hint)
    return _topic_problem(place, row, reading)


def _topic_problem(place: str, row: dict[str, Any], reading: Reading) -> DataError:
    if reading.partition_by is not None:
        topic, fields = _lookup(row, reading.partition_by)
        if topic is _MISSING:
            message = f"no field {reading.partition_by!r} of partition_by (fields: {fields})"
            return DataError(message, file=place, way_out=leave_out(reading.partition_by))
        if topic_name(topic) is None:
            return no_topic(place, reading, topic)
    return DataError("not a document: a field or a number in it is not valid in JSON lines", file=place)


_MISSING = object()


def _lookup(row: dict[str, Any], field: str) -> tuple[Any, str]:
    """The value of a dotted field, or _MISSING and the fields that are there instead."""
    value: Any = row
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING, ", ".join(sorted(value if isinstance(value, dict) else row)[:8]) or "none"
        value = value[name]
    return value, ""
