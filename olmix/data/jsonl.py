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
from olmix.data.shards import READ_SIZE, Shard
from olmix.errors import DataError

BATCH = 1 << 20


def read_jsonl(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a piece of a .jsonl shard, plain or compressed, in batches of about BATCH bytes.

    Raises DataError with shard and line for a line that is no document.
    """
    read = _read_all if reading.where or reading.partition_by else _read_text
    with piece.shard.open() as file:
        yield from read(_Lines(piece, file), reading)


class _Lines:
    """The lines of a piece, counted so that an error names its line in the shard."""

    def __init__(self, piece: Piece, file: Any) -> None:
        self.piece = piece
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        if self.piece.end is None:
            yield from lines_of(self.piece.shard, self._file)
            return
        at, end = self.piece.begin, self.piece.end
        if at:
            # The line in which the piece begins belongs to the piece before, unless it begins just here.
            self._file.seek(at - 1)
            at += len(self._file.readline()) - 1
        while at < end and (line := self._file.readline()):
            at += len(line)
            yield line

    def problem(self, number: int, line: bytes, text: str) -> DataError:
        """What is wrong with a line, the `number`-th of the piece."""
        return DataError(_problem(self.piece.shard, number + self._before(), line, text))

    def _before(self) -> int:
        """Lines of the shard that belong to earlier pieces."""
        begin, count, last = self.piece.begin, 0, b""
        if not begin:
            return 0
        with self.piece.shard.open() as file:
            while begin and (block := file.read(min(begin, READ_SIZE))):
                begin -= len(block)
                count, last = count + block.count(b"\n"), block
        return count + (not last.endswith(b"\n"))


class _Raw:
    """Texts as raw JSON strings, with the lines that they came from."""

    def __init__(self, lines: _Lines, text: str) -> None:
        self._lines = lines
        self._text = text
        self._rows: list[tuple[int, bytes]] = []
        self._strings: list[bytes] = []
        self.size = 0

    def add(self, number: int, line: bytes, string: bytes) -> None:
        if string[:1] != b'"':
            raise self._lines.problem(number, line, self._text)
        self._rows.append((number, line))
        self._strings.append(string)
        self.size += len(string)

    def take(self) -> list[bytes]:
        """The texts in UTF-8, in their order."""
        try:
            texts = unescape(self._strings)
        except (pl.exceptions.PolarsError, TypeError):
            number, line = next(row for row, s in zip(self._rows, self._strings, strict=True) if not _is_text(s))
            raise self._lines.problem(number, line, self._text) from None
        self._rows, self._strings, self.size = [], [], 0
        return texts


def unescape(strings: Sequence[bytes]) -> list[bytes]:
    """JSON strings, quotes included, as UTF-8; raises PolarsError when one of them is none."""
    if not strings:
        return []
    column = pl.Series(strings, dtype=pl.Binary).cast(pl.String)
    texts: list[bytes] = column.str.json_decode(pl.String).cast(pl.Binary).to_list()
    return texts


def _is_text(string: bytes) -> bool:
    try:
        msgspec.json.decode(string, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _read_text(lines: _Lines, reading: Reading) -> Iterator[Batch]:
    """Every line is a document."""
    get = operator.attrgetter(_attribute(reading.text))
    decode_text = msgspec.json.Decoder(_struct({reading.text: str}, required=True)).decode
    decode_raw = msgspec.json.Decoder(_struct({reading.text: msgspec.Raw}, required=True)).decode
    raw = _Raw(lines, reading.text)
    documents: list[bytes] = []
    size = 0
    for number, line in enumerate(lines, 1):
        try:
            if line.isascii():
                document = get(decode_text(line)).encode()
                documents.append(document)
                size += len(document)
            else:
                raw.add(number, line, bytes(get(decode_raw(line))))
        except (msgspec.DecodeError, UnicodeDecodeError):
            if line.strip():  # an empty line ends many files, and is no document
                raise lines.problem(number, line, reading.text) from None
        if size > BATCH:
            yield Batch(documents)
            documents, size = [], 0
        if raw.size > BATCH:
            yield Batch(raw.take())
    yield Batch(documents + raw.take())


def _read_all(lines: _Lines, reading: Reading) -> Iterator[Batch]:
    """A line is a document of its topic when its other fields fit."""
    wanted: dict[str, type] = dict.fromkeys((field for field, _ in reading.where), object)
    if reading.partition_by is not None:
        wanted[reading.partition_by] = object
    decode = msgspec.json.Decoder(_struct({**wanted, reading.text: msgspec.Raw}, required=False)).decode
    get = _getter(reading.text)
    tests = [(_getter(field), values) for field, values in reading.where]
    topic_of = None if reading.partition_by is None else _getter(reading.partition_by)
    raw = _Raw(lines, reading.text)
    topics: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise lines.problem(number, line, reading.text) from None
        if not all(fits(value(row), values) for value, values in tests):
            continue
        string = get(row)
        raw.add(number, line, b"" if string is None else bytes(string))
        if topic_of is not None:
            topic = topic_name(topic_of(row))
            if topic is None:
                where = f"{lines.piece.shard.place}:{number + lines._before()}"
                raise DataError(f"{where}: {no_topic(reading, topic_of(row))}")
            topics.append(topic)
        if raw.size > BATCH:
            yield Batch(raw.take(), topics if topic_of else None)
            topics = []
    yield Batch(raw.take(), topics if topic_of else None)


def fits(value: object, values: Sequence[Value]) -> bool:
    """Whether a field's value is one of `values`; true is not 1, and what is missing fits nothing."""
    return any(value == other and type(value) is type(other) for other in values)


def topic_name(value: object) -> str | None:
    """The topic that a field's value names, or None when it names none."""
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def no_topic(reading: Reading, value: object) -> str:
    """What to say of a document without a topic."""
    found = "no value" if value in (None, "") else f"{value!r:.40}"
    return (
        f"field {reading.partition_by!r} of partition_by holds {found}, which names no topic; leave such documents out "
        "with `where`, or write text there"
    )


def _attribute(field: str) -> str:
    """The path of a dotted field in the structs, whose fields are numbered: any name is a field of JSON."""
    return ".".join(f"field_{k}" for k in range(len(field.split("."))))


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
        fields.append((name, below_it) if required else (name, below_it | None if nested else below_it, None))
    return msgspec.defstruct("Row", fields, rename=names, namespace={"__names__": {h: n for n, h in names.items()}})


def _getter(field: str) -> Callable[[Any], Any]:
    """The value of a dotted field in a row, or None when it is missing."""
    path = field.split(".")

    def get(row: Any) -> Any:
        for name in path:
            if row is None:
                return None
            row = getattr(row, type(row).__names__[name])
        return row

    return get


def _problem(shard: Shard, number: int, line: bytes, text: str) -> str:
    """What keeps a line from being a document, in one line."""
    where = f"{shard.place}:{number}"
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"{where}: not JSON: {error}"
    if not isinstance(row, dict):
        return f"{where}: not a JSON object; write one object a line with the field {text!r}"
    value: Any = row
    for name in text.split("."):
        if not isinstance(value, dict) or name not in value:
            fields = ", ".join(sorted(value if isinstance(value, dict) else row)[:8]) or "none"
            return f"{where}: no field {text!r} (fields: {fields}); set params.yaml: domains.<name>.text"
        value = value[name]
    if not isinstance(value, str):
        return f"{where}: field {text!r} is {type(value).__name__}, not text"
    return f"{where}: cannot be read as a document: its fields have other types than in other lines, or numbers too big"
