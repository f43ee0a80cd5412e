"""Tokenisers: any tokenizer.json, bytes, or ids alone; encoding as a stream gives what encoding alone gives."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.data import tokenizer as tokenizer_module
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from tests.project import REPOSITORY

BYTES, IDS = REPOSITORY / "tokenizers/bytes.json", REPOSITORY / "tokenizers/ids.json"
END = "<|endoftext|>"


def test_the_digest_is_of_the_content_and_the_closing_token(tmp_path: Path) -> None:
    digest = Tokenizer(BYTES, END).digest
    assert digest == "3bc24d4fd966ad3d6686933406653d68"
    content = orjson.loads(BYTES.read_bytes())
    (tmp_path / "moved.json").write_bytes(orjson.dumps(dict(reversed(content.items())), option=orjson.OPT_INDENT_2))
    assert Tokenizer(tmp_path / "moved.json", END).digest == digest
    assert Tokenizer(BYTES, 256).digest != digest
    content["model"]["vocab"]["more"] = 256 + 1
    (tmp_path / "more.json").write_bytes(orjson.dumps(content))
    assert Tokenizer(tmp_path / "more.json", END).digest != digest


def test_ids_alone_have_an_end_and_read_no_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(IDS, 50256)
    assert (tokenizer.vocabulary, tokenizer.end, tokenizer.dtype, tokenizer.reads_text) == (50257, 50256, "<u2", False)
    assert Tokenizer(IDS, 0).digest != tokenizer.digest
    for use in (lambda: tokenizer.encode(["x"]), lambda: next(tokenizer.encode_stream([b"x"]))):
        with pytest.raises(DataError, match=r"ids\.json: has only ids, so it cannot tokenise text; use token arrays"):
            use()
    with pytest.raises(DataError, match="cannot tokenise text"):
        tokenizer.decode(np.array([1], "<u2"))
    (tmp_path / "wide.json").write_text('{"kind": "token ids", "vocabulary": 100000}')
    assert Tokenizer(tmp_path / "wide.json", 0).dtype == "<u4"


@pytest.mark.parametrize(
    ("content", "end", "message"),
    [
        ('{"kind": "token ids"}', 0, r'write only \{"kind": "token ids", "vocabulary": N\}'),
        ('{"kind": "token ids", "vocabulary": 10, "x": 1}', 0, r"with N a whole number from 2 to 2\^32"),
        ('{"kind": "token ids", "vocabulary": true}', 0, "N a whole number"),
        ('{"kind": "token ids", "vocabulary": 1}', 0, "N a whole number"),
        ('{"kind": "token ids", "vocabulary": 10}', 10, "no id 10 among its 10; set params.yaml: tokenizer.end_of_doc"),
        ('{"kind": "token ids", "vocabulary": 10}', -1, "no id -1 among its 10"),
        (
            '{"kind": "token ids", "vocabulary": 10}',
            END,
            "has only ids, so tokenizer.end_of_document must be an id, not ",
        ),
        ("[1]", END, "not a Hugging Face tokenizer.json"),
        ("{", END, "not a Hugging Face tokenizer.json"),
        (BYTES.read_text(), "<no>", "no token '<no>'; set params.yaml: tokenizer.end_of_document"),
        (BYTES.read_text(), 300, "no id 300 among its 257"),
    ],
)
def test_a_file_that_is_no_tokeniser_is_one_clear_line(
    tmp_path: Path, content: str, end: str | int, message: str
) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        Tokenizer(tmp_path / "t.json", end)
    assert "\n" not in str(error.value)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=12), st.sampled_from([1, 16, 1 << 20]))
def test_a_stream_is_encoded_as_its_texts_are(texts: list[str], size: int) -> None:
    tokenizer = Tokenizer(BYTES, END)
    before, tokenizer_module.BATCH_BYTES = tokenizer_module.BATCH_BYTES, size
    try:
        found = list(tokenizer.encode_stream(text.encode() for text in texts))
    finally:
        tokenizer_module.BATCH_BYTES = before
    expected = tokenizer.encode(texts)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]
    assert all(ids.dtype == tokenizer.dtype for ids in found)


def test_a_stream_that_is_left_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "BATCH_BYTES", 10)
    before = threading.active_count()
    stream = Tokenizer(BYTES, END).encode_stream(b"some text" for _ in range(1000))
    next(stream)
    assert threading.active_count() > before
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_in_the_texts_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def texts():  # type: ignore[no-untyped-def]
        yield b"fine"
        raise DataError("a shard is gone")

    monkeypatch.setattr(tokenizer_module, "BATCH_BYTES", 1)
    with pytest.raises(DataError, match="a shard is gone"):
        list(Tokenizer(BYTES, END).encode_stream(texts()))
