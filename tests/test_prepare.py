"""Shards, digests and the canonical sample: the same documents are the same bytes, whatever files they lie in."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.digest import MODULUS
from olmix.core.seeds import generator
from olmix.data import jsonl, parallel
from olmix.data import memory as memory_module
from olmix.data import sample as sample_module
from olmix.data import scan as scan_module
from olmix.data import shards as shards_module
from olmix.data.content import Content
from olmix.data.documents import scan_entry
from olmix.data.manifest import manifest_is_current, prepare
from olmix.data.parallel import Readers, read_concurrently
from olmix.data.reading import Piece, Reading
from olmix.data.shards import list_shards
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.progress import Progress, Report, silent
from tests.token_arrays import write_raw
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

BYTES = Path(__file__).parent.parent / "tokenizers" / "bytes.json"
END = "<|endoftext|>"


def allow(path: Path) -> bool:
    return True


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(BYTES, END)


def write_jsonl(path: Path, documents: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps({"text": text, "id": k}) + b"\n" for k, text in enumerate(documents)))


def prepared(folder: Path, tokenizer: Tokenizer, limit: int = 10**6, **more: object) -> tuple[dict[str, object], bytes]:
    """The manifest and the sample of a folder, as a domain of its own."""
    root = folder.parent
    places = (root / "manifests", root / "tokens", root / "scan")
    with Readers(2) as readers:
        (manifest,) = prepare(source_of(folder, **more), tokenizer, limit, allow, readers, silent, *places).values()
    return manifest, np.load(root / f"tokens/{folder.name}.npy").tobytes()


def source_of(folder: Path, **more: object) -> DomainSource:
    return DomainSource(folder.name, folder, **more)  # type: ignore[arg-type]


def scanned(folder: Path) -> Content:
    (content,) = scan_entry(source_of(folder), 10**6, allow, Readers(1), silent, folder.parent / "scan").values()
    return content


DOCUMENTS = ["alpha beta", "gamma", "", "δέλτα 数学", "alpha beta", "line\nbreak", "x" * 3000]


def test_resharding_reordering_and_renaming_change_no_byte(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_jsonl(tmp_path / "one/part-00.jsonl", DOCUMENTS)
    write_jsonl(tmp_path / "two/deep/z.jsonl", DOCUMENTS[4:][::-1])
    write_jsonl(tmp_path / "two/a.jsonl", DOCUMENTS[:4])
    for k, text in enumerate(DOCUMENTS):
        if text:  # an empty .txt file is an empty shard
            (tmp_path / "three").mkdir(exist_ok=True)
            (tmp_path / f"three/{k}.txt").write_text(text)
    one = prepared(tmp_path / "one", tokenizer)
    assert prepared(tmp_path / "two", tokenizer) == one
    assert one[0]["documents"] == len(DOCUMENTS)
    assert one[0]["bytes"] == sum(len(text.encode()) for text in DOCUMENTS)
    assert one[0]["tokens"] == sum(len(text.encode()) + 1 for text in DOCUMENTS)
    write_jsonl(tmp_path / "four/p.jsonl", [text for text in DOCUMENTS if text])
    assert prepared(tmp_path / "three", tokenizer) == prepared(tmp_path / "four", tokenizer)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="abcdé\n ", max_size=20), min_size=1, max_size=12), st.randoms())
def test_digest_is_of_the_bag_and_multiplicity_counts(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], random: object
) -> None:
    root = tmp_path_factory.mktemp("bag")
    shuffled = list(documents)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    contents = []
    for name, texts in (("a", documents), ("b", shuffled), ("c", [*documents, documents[0]])):
        write_jsonl(root / name / "s.jsonl", texts)
        contents.append(scanned(root / name))
    assert contents[0] == contents[1]
    assert contents[0].digest != contents[2].digest


def test_sample_is_the_lowest_hashes_and_changes_little(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 20_000)
    documents = [f"document {k} " + "word " * (k % 7) for k in range(3000)]
    write_jsonl(tmp_path / "a/s.jsonl", documents)
    write_jsonl(tmp_path / "b/s.jsonl", documents[:-30])
    limit = 20_000
    whole, full = prepared(tmp_path / "a", tokenizer)
    assert whole["tokens_are"] == "exact"
    manifest, small = prepared(tmp_path / "a", tokenizer, limit)
    assert small == full[: len(small)]
    assert len(small) == limit * 2
    assert manifest["tokens_are"] == "estimate"
    assert abs(manifest["tokens"] / whole["tokens"] - 1) < 0.02  # type: ignore[operator]
    _, after = prepared(tmp_path / "b", tokenizer, limit)
    ends = [set(np.frombuffer(s, "<u2").tobytes().split(np.array([256], "<u2").tobytes())) for s in (small, after)]
    assert len(ends[0] & ends[1]) / len(ends[0]) > 0.95


def test_a_count_is_the_same_estimate_whatever_the_sample(tmp_path: Path, tokenizer: Tokenizer) -> None:
    draw = generator("documents of many lengths")
    lengths = np.ceil(draw.lognormal(7, 1, size=900)).astype(int).tolist()
    documents = [f"{k} " + "né数x"[k % 4] * length for k, length in enumerate(lengths)]
    write_jsonl(tmp_path / "a/s.jsonl", documents)
    true = sum(len(text.encode()) + 1 for text in documents)
    small, middle, large = (prepared(tmp_path / "a", tokenizer, limit) for limit in (20_000, 160_000, 1_200_000))
    assert (len(small[1]), len(middle[1]), len(large[1])) == (40_000, 320_000, 2_400_000)
    assert large[1].startswith(middle[1]) and middle[1].startswith(small[1])
    for what in ("tokens", "tokens_are", "tokens_error", "tokens_per_document"):
        assert small[0][what] == middle[0][what] == large[0][what]
    assert (small[0]["tokens_are"], small[0]["documents"]) == ("estimate", 900)
    error = small[0]["tokens_error"]
    assert 0 < abs(small[0]["tokens"] - true) < 3 * error < true / 1000  # type: ignore[operator]
    everything, _ = prepared(tmp_path / "a", tokenizer, 10**7)
    assert (everything["tokens"], everything["tokens_are"]) == (true, "exact")
    assert "tokens_error" not in everything
    declared = [prepared(tmp_path / "a", tokenizer, limit, declared_tokens=7)[0] for limit in (20_000, 160_000)]
    assert declared[0]["tokens_per_document"] == declared[1]["tokens_per_document"]


def test_bytes_of_token_arrays_are_the_same_estimate_whatever_the_sample(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 2_000)
    texts = [f"{k} " + "x" * (k * 7 % 40) for k in range(200)]
    write_raw(tmp_path / "a/s.npy", [list(text.encode()) for text in texts], tokenizer.end)
    reading, size = Reading(dtype="uint16", end=tokenizer.end), sum(map(len, texts))
    small, large = (prepared(tmp_path / "a", tokenizer, limit, reading=reading)[0] for limit in (500, 3_000))
    assert small["bytes"] == large["bytes"] != size
    assert abs(small["bytes"] - size) < 3 * small["bytes_error"]  # type: ignore[operator]
    assert (small["tokens"], small["tokens_are"], small["bytes_are"]) == (size + 200, "exact", "estimate")


def test_text_with_many_bytes_a_token_still_fills_the_sample(tmp_path: Path) -> None:
    backend = Backend(models.WordLevel({"[UNK]": 0, END: 1}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "words.json"))
    tokenizer = Tokenizer(tmp_path / "words.json", END)
    write_jsonl(tmp_path / "a/s.jsonl", [f"{'w' * 400}{k} {'v' * 400}" for k in range(400)])
    manifest, sample = prepared(tmp_path / "a", tokenizer, 300)
    assert len(sample) == 600
    assert manifest["tokens"] == 1200


def test_an_unchanged_shard_is_not_read_again(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        write_jsonl(tmp_path / f"a/{k}.jsonl", [f"{k} {j}" for j in range(5)])
    first, read = scanned(tmp_path / "a"), spy_on_reading(monkeypatch)
    assert scanned(tmp_path / "a") == first
    assert read == []
    write_jsonl(tmp_path / "a/2.jsonl", ["changed"])
    changed = scanned(tmp_path / "a")
    assert read == ["2.jsonl"]
    assert changed.digest != first.digest
    manifest, sample = prepared(tmp_path / "a", tokenizer)
    assert read == ["2.jsonl"], "the sample needs no shard that was read before"
    write_jsonl(tmp_path / "b/s.jsonl", ["changed", *(f"{k} {j}" for k in (0, 1, 3) for j in range(5))])
    assert (manifest, sample) == prepared(tmp_path / "b", tokenizer)
    (tmp_path / "scan/a.sqlite").write_text("{damaged")
    assert scanned(tmp_path / "a") == changed
    assert len(read) == 6


def spy_on_reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are read from now on."""
    read: list[str] = []
    original = scan_module.read_piece

    def spy(piece: Piece, reading: Reading) -> object:
        read.append(piece.shard.name)
        return original(piece, reading)

    monkeypatch.setattr(scan_module, "read_piece", spy)
    return read


def test_another_sample_or_tokeniser_reads_no_shard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", [f"document {k}" for k in range(200)])
    small = prepared(tmp_path / "a", Tokenizer(BYTES, END), 100)
    read = spy_on_reading(monkeypatch)
    large = prepared(tmp_path / "a", Tokenizer(BYTES, END), 1000)
    backend = Backend(models.WordLevel({"[UNK]": 0, END: 1}, "[UNK]"))
    backend.save(str(tmp_path / "words.json"))
    words, _ = prepared(tmp_path / "a", Tokenizer(tmp_path / "words.json", END), 100)
    assert read == []
    assert large[1].startswith(small[1])
    assert words["digest"] == small[0]["digest"]
    assert words["tokenizer"] != small[0]["tokenizer"]


def test_a_sample_that_needs_more_than_was_kept_reads_again(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "LEAST", 1000)
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 100)
    documents = [f"document {k} " + "word " * 10 for k in range(500)]
    write_jsonl(tmp_path / "a/s.jsonl", documents)
    write_jsonl(tmp_path / "b/s.jsonl", documents)
    prepared(tmp_path / "a", tokenizer, 100)
    read = spy_on_reading(monkeypatch)
    again = prepared(tmp_path / "a", tokenizer, 20_000)
    assert read == ["s.jsonl"]
    assert again == prepared(tmp_path / "b", tokenizer, 20_000)
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 5_000)
    write_jsonl(tmp_path / "c/s.jsonl", documents)
    prepared(tmp_path / "c", tokenizer, 100)
    assert read[2:] == ["s.jsonl"], "enough is kept for the estimate too"


def test_processes_find_what_one_process_finds(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        write_jsonl(tmp_path / f"a/{k}.jsonl", [f"{k} {j} " + "text " * 50 for j in range(400)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    alone = prepared(tmp_path / "a", tokenizer, 10_000)
    monkeypatch.setattr(parallel, "ALONE", 0)
    monkeypatch.setattr(parallel, "PIECE", 40_000)
    assert prepared(tmp_path / "b", tokenizer, 10_000) == alone
    assert not [path for path in (tmp_path / "scan").iterdir() if path.is_dir()]


def test_domains_read_together_share_processes_and_are_what_each_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(5):
        write_jsonl(tmp_path / f"d{k}/s.jsonl", [f"{k} {j} " + "text " * 50 for j in range(200)])
    alone = [scanned(tmp_path / f"d{k}") for k in range(5)]
    monkeypatch.setattr(parallel, "ALONE", 100_000)
    said: list[Progress] = []
    pools = []

    def look(k: int, readers: Readers, report: Report) -> Content:
        (content,) = scan_entry(
            source_of(tmp_path / f"d{k}"), 10**6, allow, readers, report, tmp_path / "anew"
        ).values()
        pools.append(readers._pool)
        return content

    assert read_concurrently(look, range(5), 2, said.append) == alone
    assert pools[-1] is not None and len(set(pools) - {None}) == 1
    size = sum(path.stat().st_size for path in tmp_path.glob("d*/s.jsonl"))
    assert said[-1] == Progress(0, 5, 5, size, size)


def test_the_first_error_of_domains_read_together_ends_all(tmp_path: Path) -> None:
    begun = []

    def look(k: int, readers: Readers, report: Report) -> None:
        begun.append(k)
        if k == 1:
            raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        read_concurrently(look, range(500), 2, silent)
    assert len(begun) < 500


def test_a_piece_with_many_documents_hands_them_over_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", [f"{k} é" for k in range(100)])
    (shard,) = list_shards(tmp_path / "a", allow)
    at_once = scan_module.scan_piece(Piece(shard), Reading(), {}, MODULUS, str(tmp_path))
    monkeypatch.setattr(scan_module, "RETURNED", 1)
    found = scan_module.scan_piece(Piece(shard), Reading(), {}, MODULUS, str(tmp_path))
    assert found.files and not found.kept
    assert list(found.documents()) == list(at_once.documents())
    assert not any(Path(name).exists() for name in found.files)


def test_a_disk_that_fills_or_fails_is_one_clear_line(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", DOCUMENTS)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match=r"a\.reading: cannot be written: No space left"),
    ):
        patch.setattr(scan_module, "RETURNED", 1)
        patch.setattr(scan_module.tempfile, "mkstemp", full)
        prepared(tmp_path / "a", tokenizer)
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"s\.jsonl: cannot be read: Stale file handle"):
        patch.setattr(jsonl, "lines_of", stale)
        prepared(tmp_path / "a", tokenizer)
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"a: cannot be listed: No space left"):
        patch.setattr(shards_module.os, "scandir", full)
        prepared(tmp_path / "a", tokenizer)
    assert not (tmp_path / "manifests").exists()
    prepared(tmp_path / "a", tokenizer)


def test_a_damaged_memory_is_read_again_and_changes_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", DOCUMENTS)
    before = prepared(tmp_path / "a", tokenizer)
    memory = tmp_path / "scan/a.sqlite"
    assert b"gamma" in memory.read_bytes()
    memory.write_bytes(memory.read_bytes().replace(b"gamma", b"gam\xffa"))
    assert prepared(tmp_path / "a", tokenizer, 10**5) == before
    assert b"gamma" in memory.read_bytes()


def test_a_scan_that_is_cut_off_goes_on_behind_the_shards_it_finished(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        write_jsonl(tmp_path / f"a/{k}.jsonl", [f"{k} {j}" for j in range(5)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a/2.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"a/2\.jsonl:1: not JSON"):
        scanned(tmp_path / "a")
    write_jsonl(tmp_path / "a/2.jsonl", [f"2 {j}" for j in range(5)])
    read = spy_on_reading(monkeypatch)
    assert prepared(tmp_path / "a", tokenizer) == prepared(tmp_path / "b", tokenizer)
    assert read[:2] == ["2.jsonl", "3.jsonl"]


def test_clocks_do_not_matter(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", DOCUMENTS)
    before = prepared(tmp_path / "a", tokenizer)
    for moment in (0, 2**33, -(10**9)):
        os.utime(tmp_path / "a/s.jsonl", (moment, moment))
        assert prepared(tmp_path / "a", tokenizer) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.jsonl", b'{"text": "fine"}\n{"text": \n', r"s\.jsonl:2: not JSON"),
        (
            "s.jsonl",
            b'{"text": "fine"}\n\n{"body": "x", "id": 1}\n',
            r"s\.jsonl:3: domains\.a\.text: no field 'text' \(fields: body, id\)",
        ),
        ("s.jsonl", b'{"text": 7}\n', r"s\.jsonl:1: field 'text' is int, not text"),
        ("s.jsonl", b"[1]\n", r"s\.jsonl:1: not a JSON object"),
        ("s.jsonl", b'{"text": "\xff"}\n', r"s\.jsonl:1: not JSON"),
        ("s.jsonl", b"", r"s\.jsonl: empty shard"),
        ("s.txt", b"caf\xe9", r"s\.txt: not UTF-8 at byte 3"),
        ("s.csv", b"a,b", r"s\.csv: domains\.a\.format: not a shard; give the domain \.jsonl, "),
        ("s.jsonl", b'{"text": ""}\n', r"1 documents without any text"),
    ],
)
def test_bad_shards_are_one_clear_line(
    tmp_path: Path, tokenizer: Tokenizer, name: str, content: bytes, message: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        prepared(tmp_path / "a", tokenizer)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "manifests").exists()


def test_no_shards_mixed_formats_and_links_outside(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_shards(tmp_path / "none", allow)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.hidden").write_text("x")
    with pytest.raises(DataError, match=r"a: no shards; put \.jsonl, .* or \.ds files there"):
        list_shards(tmp_path / "a", allow)
    (tmp_path / "a/x.txt").write_text("x")
    (tmp_path / "a/y.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"jsonl and txt shards in one domain"):
        list_shards(tmp_path / "a", allow)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.txt").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="outside the project"):
        list_shards(tmp_path / "b", lambda path: path.is_relative_to(tmp_path.resolve()))


def test_a_domain_of_one_document_repeated_is_read_in_linear_time(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", ["the same line again and again"] * 60_000)
    manifest, sample = prepared(tmp_path / "a", tokenizer, 2_000)
    assert (manifest["documents"], len(sample)) == (60_000, 4_000)


def test_links_to_folders_and_to_nowhere_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "shared/s.jsonl", ["x"])
    write_jsonl(tmp_path / "a/s.jsonl", ["y"])
    (tmp_path / "a/more").symlink_to(tmp_path / "shared")
    with pytest.raises(DataError, match="more: links to folders are not followed"):
        list_shards(tmp_path / "a", allow)
    (tmp_path / "a/more").unlink()
    (tmp_path / "a/gone.jsonl").symlink_to(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"gone\.jsonl: a broken link"):
        list_shards(tmp_path / "a", allow)


def test_a_manifest_is_current_for_its_own_content_alone(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a/s.jsonl", ["some text"] * 10)
    source = source_of(tmp_path / "a")
    manifest, _ = prepared(tmp_path / "a", tokenizer, 50)
    content = scanned(tmp_path / "a")
    assert manifest_is_current(manifest, source, content, tokenizer, 50)
    assert not manifest_is_current(manifest, source, content, tokenizer, 60)
    assert not manifest_is_current(manifest, source_of(tmp_path / "a", source="s"), content, tokenizer, 50)
    assert not manifest_is_current(manifest, source_of(tmp_path / "a", declared_tokens=9), content, tokenizer, 50)
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 50)
    estimated, _ = prepared(tmp_path / "a", tokenizer, 50)
    assert manifest_is_current(estimated, source, content, tokenizer, 50)
    assert estimated.pop("tokens_error") == 0, "documents of one length"
    assert not manifest_is_current(estimated, source, content, tokenizer, 50), "an older olmix's"
    write_jsonl(tmp_path / "a/s.jsonl", ["other text"] * 10)
    assert not manifest_is_current(manifest, source, scanned(tmp_path / "a"), tokenizer, 50)


def test_memory_does_not_grow_with_the_domain(tmp_path: Path, tokenizer: Tokenizer) -> None:
    document = "word " * 400
    for name, count in (("small", 2_000), ("large", 40_000)):
        write_jsonl(tmp_path / name / "s.jsonl", [f"{k} {document}" for k in range(count)])
    prepared(tmp_path / "small", tokenizer, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared(tmp_path / "large", tokenizer, 20_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, f"{grown} kB more for 76 MB more of text"
