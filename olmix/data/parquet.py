"""Parquet: the columns that are asked for, in batches of rows, through polars.

A local file is read as its batches are asked for; one behind a URL is fetched as a whole first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import polars as pl

from olmix.data.jsonl import leave_out, no_topic, topic_name
from olmix.data.reading import Batch, Piece, Reading
from olmix.data.shards import Shard, is_remote

ROWS = 1024
_TEXT, _TOPIC, _ROW = "text", "topic", "row"


def read_parquet(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a parquet shard; raises DataError with shard and row for a row that is no document."""
    shard = piece.shard
    try:
        yield from _batches(shard, reading)
    except (pl.exceptions.PolarsError, OSError, RuntimeError) as error:
        raise shard.error(f"not valid parquet: {_first(error)}") from None
    except pl.exceptions.PanicException as error:  # polars panics at some damaged pages
        raise shard.error(f"not valid parquet: damaged ({_first(error)})") from None


def _batches(shard: Shard, reading: Reading) -> Iterator[Batch]:
    table = _open(shard)
    schema = table.collect_schema()
    text = _column(shard, schema, reading.text, "text")
    if _type(schema, reading.text) not in (pl.String, pl.Binary, pl.Categorical, pl.Enum):
        raise shard.error(f"column {reading.text!r} is {_type(schema, reading.text)}, not text")
    table = _filtered(table, shard, schema, reading)
    wanted = [text.alias(_TEXT)]
    if reading.partition_by is not None:
        topic = _column(shard, schema, reading.partition_by, "partition_by")
        kind = _type(schema, reading.partition_by)
        if not (kind in (pl.String, pl.Categorical, pl.Enum) or kind.is_integer()):
            raise shard.error(
                f"column {reading.partition_by!r} is {kind}, neither text nor integers", key="partition_by"
            )
        wanted.append(topic.cast(pl.String).alias(_TOPIC))
    for batch in table.select(wanted).collect_batches(chunk_size=ROWS):
        texts = batch[_TEXT]
        if texts.null_count():
            row = _first_row(shard, reading, text.is_null())
            raise shard.error(f"row {row}: column {reading.text!r} is null, not text", way_out=leave_out(reading.text))
        if texts.dtype == pl.Binary:
            _require_utf8(shard, reading, texts)
        topics = None
        if reading.partition_by is not None:
            topics = batch[_TOPIC].to_list()
            wrong = [name for name in dict.fromkeys(topics) if topic_name(name) is None]
            if wrong:
                there = (
                    _column(shard, schema, reading.partition_by, "partition_by")
                    .cast(pl.String)
                    .eq_missing(pl.lit(wrong[0]))
                )
                row = _first_row(shard, reading, there)
                raise no_topic(f"{shard.place}: row {row}", reading, wrong[0])
        yield Batch(texts.cast(pl.String).cast(pl.Binary).to_list(), topics)


def _open(shard: Shard) -> pl.LazyFrame:
    if not is_remote(shard.place):
        return pl.scan_parquet(shard.place, glob=False)
    with shard.open() as file:
        return pl.scan_parquet(io.BytesIO(file.read()))


def _column(shard: Shard, schema: pl.Schema, field: str, key: str) -> pl.Expr:
    """A column by its dotted name, which `key` of the entry gives; raises DataError when there is none."""
    head, *rest = field.split(".")
    kind: pl.DataType | None = schema.get(head)
    column = pl.col(head)
    there = list(schema)
    for name in rest:
        fields = {f.name: f.dtype for f in kind.fields} if isinstance(kind, pl.Struct) else {}
        there = list(fields) or there
        kind = fields.get(name)  # type: ignore[assignment]
        column = column.struct.field(name)
    if kind is None:
        raise shard.error(f"no column {field!r} (columns: {', '.join(there[:8])})", key=key, way_out="name another")
    return column


def _type(schema: pl.Schema, field: str) -> pl.DataType:
    head, *rest = field.split(".")
    kind = schema[head]
    for name in rest:
        kind = next(f.dtype for f in kind.fields if f.name == name)  # type: ignore[attr-defined]
    return kind


def _filtered(table: pl.LazyFrame, shard: Shard, schema: pl.Schema, reading: Reading) -> pl.LazyFrame:
    for field, values in reading.where:
        column = _column(shard, schema, field, "where")
        table = table.filter(_fits(column, _type(schema, field), values))
    for field, others in reading.where_not:
        column = _column(shard, schema, field, "where_not")
        missing = column.is_null() if None in others else pl.lit(False)
        table = table.filter(~(_fits(column, _type(schema, field), others) | missing))
    return table


def _fits(column: pl.Expr, kind: pl.DataType, values: tuple[object, ...]) -> pl.Expr:
    """Whether a column holds one of `values` of its own type; true is not 1."""
    same: list[object]
    if kind in (pl.String, pl.Categorical, pl.Enum):
        column, same = column.cast(pl.String), [v for v in values if isinstance(v, str)]
    elif kind == pl.Boolean:
        same = [v for v in values if isinstance(v, bool)]
    elif kind.is_integer():
        same = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    else:
        same = []
    tests = [column == value for value in same]
    return pl.any_horizontal(tests).fill_null(False) if tests else pl.lit(False)


def _first_row(shard: Shard, reading: Reading, wrong: pl.Expr) -> int:
    """The first row, from 1, that is read and of which `wrong` holds."""
    table = _open(shard).with_row_index(_ROW, 1)
    schema = table.collect_schema()
    table = _filtered(table, shard, schema, reading)
    return int(table.filter(wrong).select(pl.col(_ROW).first()).collect().item())


def _require_utf8(shard: Shard, reading: Reading, texts: pl.Series) -> None:
    try:
        texts.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise shard.error(f"column {reading.text!r} is binary and not UTF-8", way_out="convert it first") from None


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
