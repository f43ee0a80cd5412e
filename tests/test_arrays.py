"""Token arrays: the same documents in every layout and width are the same documents, and damage is one clear line."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.data import arrays
from olmix.data.arrays import read_header, read_tokens_of
from olmix.data.memory import Memory
from olmix.data.parallel import Readers
from olmix.data.reading import Piece, Reading
from olmix.data.scan import scan
from olmix.data.shards import Shard, list_shards
from olmix.errors import DataError
from olmix.progress import Progress
from tests.token_arrays import Documents, write_datatrove, write_megatron, write_npy, write_raw

END = 999
READING = Reading(dtype=None, vocabulary=1000, end=END)
U2, U4 = Reading(dtype="uint16", vocabulary=1000, end=END), Reading(dtype="uint32", vocabulary=1000, end=END)
LAYOUTS: dict[str, tuple[Callable[[Path, Documents], None], str, Reading]] = {
    "raw uint16": (lambda path, docs: write_raw(path, docs, END), "a.npy", U2),
    "raw uint32": (lambda path, docs: write_raw(path, docs, END, "<u4"), "a.npy", U4),
    "npy": (lambda path, docs: write_npy(path, docs, END), "a.npy", READING),
    "npy, declared": (lambda path, docs: write_npy(path, docs, END, ">u2"), "a.npy", U2),
    "npy, big-endian": (lambda path, docs: write_npy(path, docs, END, ">i8"), "a.npy", READING),
    "megatron": (lambda path, docs: write_megatron(path, docs, END), "a.bin", READING),
    "megatron, open": (lambda path, docs: write_megatron(path, docs, None, "<i4"), "a.bin", READING),
    "megatron, cut": (lambda path, docs: write_megatron(path, docs, END, "<i8", 2), "a.bin", READING),
    "megatron, cut and open": (lambda path, docs: write_megatron(path, docs, None, "<u2", 2), "a.bin", READING),
    "datatrove": (lambda path, docs: write_datatrove(path, docs, END), "a.ds", READING),
    "datatrove, open": (lambda path, docs: write_datatrove(path, docs, None, "<u4"), "a.ds", U4),
}


def only(folder: Path | str) -> Shard:
    (shard,) = list_shards(folder, lambda _: True)
    return shard


def documents_of(shard: Shard, reading: Reading) -> list[bytes]:
    return [document for batch in read_tokens_of(Piece(shard), reading) for document in batch.documents]


def as_bytes(documents: Documents) -> Counter[bytes]:
    return Counter(np.array(ids, "<u4").tobytes() for ids in documents)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, END - 1), max_size=9), min_size=1, max_size=9).filter(any),
    st.sampled_from([1, 3, 1000]),
)
def test_every_layout_holds_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], chunk: int
) -> None:
    root = tmp_path_factory.mktemp("layouts")
    before, arrays.CHUNK = arrays.CHUNK, chunk
    try:
        for name, (write, file, reading) in LAYOUTS.items():
            write(root / name / file, documents)
            shard = only(root / name)
            assert Counter(documents_of(shard, reading)) == as_bytes(documents), name
            closing = 0 if name.endswith("open") else len(documents)
            assert read_header(shard, reading).ids == sum(map(len, documents)) + closing
    finally:
        arrays.CHUNK = before


def test_empty_documents_and_an_open_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.npy").write_bytes(np.array([END, 1, 2, END, END, 3], "<u2").tobytes())
    found = documents_of(only(tmp_path / "a"), U2)
    assert Counter(found) == as_bytes([[], [1, 2], [], [3]])
    assert read_header(only(tmp_path / "a"), U2).ids == 6


@pytest.mark.parametrize("name", ["megatron", "megatron, cut", "datatrove"])
def test_one_closing_id_is_taken_off_and_no_more(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, file, reading = LAYOUTS[name]
    documents = [[1, END], [], [END, END], [2, 3]]
    write(tmp_path / file, documents)
    for chunk in (1, 2, 1000):
        monkeypatch.setattr(arrays, "CHUNK", chunk)
        assert Counter(documents_of(only(tmp_path), reading)) == as_bytes(documents)
    unknown = Reading(vocabulary=1000)
    closed = [[*ids, END] for ids in documents]
    assert Counter(documents_of(only(tmp_path), unknown)) == as_bytes(closed)


def test_counting_reads_no_ids(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", [[60000]], END)
    assert read_header(only(tmp_path), U2).ids == 2


def test_a_real_npy_is_told_from_a_raw_one(tmp_path: Path) -> None:
    write_npy(tmp_path / "real/a.npy", [[1, 2]], END, "<u2")
    write_raw(tmp_path / "raw/a.npy", [[1, 2]], END)
    assert read_header(only(tmp_path / "real"), U2) == (3, True)
    assert read_header(only(tmp_path / "raw"), U2) == (3, False)


@pytest.mark.parametrize(
    ("real", "raw", "note"),
    [
        (2, 0, "a-0.npy: has a numpy header, which was used; so do 2 of 2 .npy shards"),
        (
            1,
            2,
            "a-0.npy: has a numpy header, which was used; so do 1 of 3 .npy shards; 2 others ",
        ),
        (0, 2, ""),
    ],
)
def test_who_gives_a_real_npy_is_told_so(tmp_path: Path, real: int, raw: int, note: str) -> None:
    for k in range(real):
        write_npy(tmp_path / f"d/a-{k}.npy", [[1, k]], END, "<u2")
    for k in range(raw):
        write_raw(tmp_path / f"d/b-{k}.npy", [[1, k]], END)
    said: list[Progress] = []
    shards = list_shards(tmp_path / "d", lambda _: True)
    for _ in range(2):
        with Memory(tmp_path / "m.sqlite", "U2", 0) as memory:
            scan(shards, U2, memory, Readers(1), said.append)
    notes = [progress.note for progress in said if progress.note]
    assert len(notes) == bool(note)
    assert all(f"{tmp_path}/d/{note}" in told for told in notes)


def test_tokens_do_not_depend_on_whether_a_file_closes_its_documents(tmp_path: Path) -> None:
    found = {}
    for name, (write, file, reading) in LAYOUTS.items():
        write(tmp_path / name / file, DOCS)
        with Memory(tmp_path / f"{name}.sqlite", "way", 0) as memory:
            found[name] = scan(list_shards(tmp_path / name, lambda _: True), reading, memory, Readers(1)).content[""]
    assert set(found.values()) == {found["npy"]}
    assert (found["npy"].documents, found["npy"].tokens) == (2, 7)


def test_another_dtype_is_other_documents(tmp_path: Path) -> None:
    write_raw(tmp_path / "a/a.npy", [[1, 2, 3]], 0, "<u2")
    narrow = Reading(dtype="uint16", end=0)
    wide = Reading(dtype="uint32", end=0)
    assert documents_of(only(tmp_path / "a"), narrow) != documents_of(only(tmp_path / "a"), wide)
    kind = only(tmp_path / "a").kind
    assert narrow.digest(kind) != wide.digest(kind)


@pytest.mark.parametrize("name", ["raw uint16", "megatron", "datatrove"])
def test_a_url_is_read_as_a_folder_is(tmp_path: Path, name: str) -> None:
    write, file, reading = LAYOUTS[name]
    write(tmp_path / file, [[1, 2], [3]])
    root = f"memory://arrays-{name.replace(' ', '-')}"
    fsspec.filesystem("memory").put(f"{tmp_path}/", root, recursive=True)
    assert Counter(documents_of(only(root), reading)) == as_bytes([[1, 2], [3]])


class Failing(io.BytesIO):
    """A connection that breaks when it is read."""

    def read(self, *_: object) -> NoReturn:
        raise ConnectionError("the store hung up\nat 12:00")

    readinto = read


def test_a_connection_that_breaks_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, attribute in (("raw uint16", "open"), ("datatrove", "open"), ("megatron", "open_index")):
        write, file, reading = LAYOUTS[name]
        write(tmp_path / name / file, DOCS)
        with monkeypatch.context() as patch:
            patch.setattr(Shard, attribute, lambda _: Failing(bytes(14)))
            with pytest.raises(DataError, match="cannot be read: the store hung up; try again") as error:
                documents_of(only(tmp_path / name), reading)
        assert "\n" not in str(error.value)


def npy(path: Path, header: str) -> None:
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(8))


def change(path: Path, at: int, new: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + new + content[at + len(new) :])


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DOCS = [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("layout", "damage", "reading", "message"),
    [
        ("raw uint16", None, READING, r"a\.npy: dtype: raw token ids without a header; set it to uint16"),
        (
            "raw uint32",
            lambda p: write_raw(p, [list(range(70))], END, "<u4"),
            U2,
            r"a\.npy: dtype: every second id is 0, as in 32",
        ),
        ("raw uint16", lambda p: cut(p, 9), U2, r"a\.npy: 9 bytes are not a whole number of uint16 ids: truncated"),
        (
            "raw uint16",
            lambda p: change(p, 4, b"\xff\xff"),
            U2,
            r"a\.npy: token id 65535 at position 2 \(byte 4\) is outside the vocabulary of 1,000; is the dtype",
        ),
        ("raw uint16", None, Reading(dtype="uint16"), r"a\.npy: no end-of-document id is known; set params\.yaml"),
        (
            "npy",
            lambda p: cut(p, p.stat().st_size - 3),
            READING,
            r"a\.npy: truncated or damaged: its header says 7 ids",
        ),
        ("npy", lambda p: np.save(p, np.zeros((2, 2), "<u2")), READING, r"a\.npy: 2-dimensional uint16 is not a token"),
        ("npy", lambda p: np.save(p, np.zeros(4)), READING, r"a\.npy: 1-dimensional float64 is not a token array"),
        (
            "npy",
            lambda p: np.save(p, np.array([{}], object), allow_pickle=True),
            READING,
            r"1-dimensional object is no",
        ),
        ("npy", lambda p: cut(p, 20), READING, r"a\.npy: not a valid npy header: "),
        # The parser of numpy's header has an error of its own for each of these.
        ("npy", lambda p: npy(p, "{'descr': ("), READING, r"a\.npy: not a valid npy header: .*; write it again"),
        ("npy", lambda p: npy(p, "-" * 9000 + "1"), READING, r"a\.npy: not a valid npy header: "),
        ("npy", lambda p: npy(p, "1+" * 4000 + "1"), READING, r"a\.npy: not a valid npy header: "),
        (
            "npy",
            lambda p: change(p, 6, b"\3"),
            READING,
            r"a\.npy: not a valid npy header: version 3, but only versions 1",
        ),
        ("npy", None, U2, r"a\.npy: dtype: uint16, but the shard's header says uint32; remove"),
        (
            "npy, big-endian",
            lambda p: np.save(p, np.array([1, -1])),
            READING,
            r"token id -1 at position 1 \(byte 136\)",
        ),
        (
            "npy",
            lambda p: np.save(p, np.array([1, 2**32])),
            Reading(end=END),
            r"token id 4294967296 at position 1 \(byte 136\) is outside the vocabulary of 4,294,967,296",
        ),
        ("megatron", lambda p: cut(p, 8), READING, r"a\.bin: truncated: 8 of 14 bytes, according to its index"),
        (
            "megatron",
            lambda p: p.write_bytes(bytes(20)),
            READING,
            r"a\.bin: 20 bytes instead of 14, according to its index",
        ),
        ("megatron", lambda p: change(p.with_suffix(".idx"), 0, b"X"), READING, r"a\.idx: not Megatron's index"),
        ("megatron", lambda p: cut(p.with_suffix(".idx"), 20), READING, r"a\.idx: truncated: 20 bytes"),
        (
            "megatron",
            lambda p: cut(p.with_suffix(".idx"), 60),
            READING,
            r"a\.idx: truncated or damaged: 60 bytes, but 2 sequences with 3",
        ),
        ("megatron", lambda p: change(p.with_suffix(".idx"), 9, b"\2"), READING, r"a\.idx: version 2 of Megatron's"),
        (
            "megatron",
            lambda p: change(p.with_suffix(".idx"), 17, b"\7"),
            READING,
            r"dtype code 7 \(float32\) is not a type",
        ),
        ("megatron", lambda p: change(p.with_suffix(".idx"), 17, b"\x63"), READING, r"dtype code 99 \(unknown\)"),
        (
            "megatron",
            lambda p: change(p.with_suffix(".idx"), 34, b"\5"),
            READING,
            r"a\.idx: damaged: the pointers do not match",
        ),
        (
            "megatron",
            lambda p: change(p.with_suffix(".idx"), p.with_suffix(".idx").stat().st_size - 8, struct.pack("<q", 1)),
            READING,
            r"a\.idx: damaged: the document index does not run from 0 to 2",
        ),
        ("megatron", None, U4, r"a\.bin: dtype: uint32, but the shard's header says uint16"),
        (
            "datatrove",
            lambda p: cut(p, 8),
            READING,
            r"a\.ds: truncated: 8 of 14 bytes, according to its index: damaged, or the wrong",
        ),
        (
            "datatrove",
            lambda p: p.write_bytes(bytes(16)),
            READING,
            r"a\.ds: 16 bytes instead of 14, according to its ind",
        ),
        (
            "datatrove",
            None,
            U4,
            r"a\.ds: truncated: 14 of 28 bytes, according to its index: damaged, or the wrong dtype",
        ),
        (
            "datatrove",
            lambda p: cut(p.with_name("a.ds.index"), 11),
            READING,
            r"a\.ds\.index: probably truncated: 11 bytes are not a whole",
        ),
        (
            "datatrove",
            lambda p: p.with_name("a.ds.index").write_bytes(struct.pack("<QQQ", 2**52, 2**63 + 2**30, 7)),
            READING,
            r"a\.ds\.index: damaged: the document ends are not ascending",
        ),
        (
            "datatrove",
            lambda p: p.with_name("a.ds.index").write_bytes(struct.pack("<QQ", 7, 4)),
            READING,
            r"a\.ds\.index: damaged: the document ends are not ascending",
        ),
        ("raw uint16", None, Reading(where=(("lang", ("en",)),)), r"token arrays have no fields; remove where"),
    ],
)
def test_damage_is_one_clear_line(
    tmp_path: Path, layout: str, damage: Callable[[Path], object] | None, reading: Reading, message: str
) -> None:
    write, file, _ = LAYOUTS[layout]
    write(tmp_path / file, DOCS)
    if damage is not None:
        damage(tmp_path / file)
    with pytest.raises(DataError, match=message) as error:
        documents_of(only(tmp_path), reading)
    assert "\n" not in str(error.value)


def test_an_array_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", DOCS, END)
    shard = only(tmp_path)
    batches = read_tokens_of(Piece(shard), U2)
    next(batches)
    write_raw(tmp_path / "a.npy", DOCS[::-1], END)
    with pytest.raises(DataError, match=r"a\.npy: changed while it was read; nothing was recorded"):
        list(batches)
