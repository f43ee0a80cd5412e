"""Tasks of token ids score as the text that they are, and token arrays make a whole project without a tokeniser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.proxy.tasks import encode_task, load_task, read_task, task_to_bytes
from tests.project import REPOSITORY, Project, documents
from tests.token_arrays import write_datatrove, write_megatron, write_raw

BYTES, IDS = REPOSITORY / "tokenizers/bytes.json", REPOSITORY / "tokenizers/ids.json"
TEXT = [("", "one"), ("2 + 2 = ", "4"), ("naïve ", "çà et là, 日本 and longer than a window")]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids_of(text: str) -> list[int]:
    tokens: list[int] = Tokenizer(BYTES, 256).encode([text])[0].tolist()
    return tokens


def as_ids(prompt: str, continuation: str) -> dict[str, object]:
    size = len(continuation.encode())
    return {"prompt": ids_of(prompt), "continuation": ids_of(continuation), "bytes": size}


def test_a_task_of_ids_is_the_task_of_its_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(BYTES, 256)
    text = read_task(write(tmp_path / "t.jsonl", *({"prompt": p, "continuation": c} for p, c in TEXT)))
    ids = read_task(write(tmp_path / "i.jsonl", *(as_ids(p, c) for p, c in TEXT)))
    a, b = encode_task(text, tokenizer, 16), encode_task(ids, tokenizer, 16)
    assert (a.bytes, a.scored, a.tokens) == (b.bytes, b.scored, b.tokens)
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.firsts, b.firsts)
    assert ids.digest != text.digest
    assert ids.digest != read_task(write(tmp_path / "j.jsonl", *(as_ids(p, c) for p, c in TEXT[:2]))).digest
    content = task_to_bytes(b)
    import xxhash

    path = tmp_path / f"{xxhash.xxh3_128_hexdigest(content)}"
    path.write_bytes(content)
    assert load_task(path).digest == ids.digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([as_ids("a", "b"), {"prompt": "a", "continuation": "b"}], r"t\.jsonl:2: text and token ids in one task"),
        (
            [{"prompt": "a", "continuation": [1], "bytes": 1}],
            r"t\.jsonl:1: with `bytes`, prompt and continuation must be lists of",
        ),
        (
            [{"prompt": [1.0], "continuation": [1], "bytes": 1}],
            r"t\.jsonl:1: with `bytes`, prompt and continuation must be lists",
        ),
        (
            [{"prompt": [], "continuation": [-1], "bytes": 1}],
            r"t\.jsonl:1: with `bytes`, prompt and continuation must be lists",
        ),
        ([{"prompt": [], "continuation": [], "bytes": 1}], r"t\.jsonl:1: the continuation is empty"),
        (
            [{"prompt": [], "continuation": [1], "bytes": 0}],
            r"t\.jsonl:1: bytes is 0, not a number above 0; write the number",
        ),
    ],
)
def test_a_bad_item_is_one_clear_line(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_task(write(tmp_path / "t.jsonl", *rows))


def test_ids_beyond_the_vocabulary_and_text_without_a_tokeniser(tmp_path: Path) -> None:
    task = read_task(write(tmp_path / "t.jsonl", {"prompt": [1], "continuation": [257], "bytes": 1}))
    with pytest.raises(DataError, match=r"task t: item 1: token id 257 is outside the vocabulary of 257"):
        encode_task(task, Tokenizer(BYTES, 256), 16)
    text = read_task(write(tmp_path / "t.jsonl", {"prompt": "a", "continuation": "b"}))
    with pytest.raises(DataError, match=r"task t: has text, but .*ids\.json cannot tokenise text; write token ids"):
        encode_task(text, Tokenizer(IDS, 0), 16)


def test_a_project_of_token_arrays_without_a_tokeniser(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    (project.root / "tokenizers/ids.json").write_text('{"kind": "token ids", "vocabulary": 257}')
    params = project.params
    params["tokenizer"] = {"path": "tokenizers/ids.json", "end_of_document": 256}
    params["domains"]["web"]["dtype"] = "uint16"
    params["target"]["tokens"], params["validate"]["seeds"] = 30_000, 0
    writers = {"web": (write_raw, "w.npy"), "code": (write_megatron, "c.bin"), "math": (write_datatrove, "m.ds")}
    params["domains"].pop("junk")
    project.params = params
    for name, (writer, file) in writers.items():
        shutil.rmtree(project.root / f"data/{name}")
        writer(project.root / f"data/{name}/{file}", [ids_of(text) for text in documents(name)], 256)
        rows = [as_ids(text[:20], text[20:]) for text in documents(name, 20, version=99)]
        write(project.root / f"data/tasks/{name}-task.jsonl", *rows)
    project.dvc("remove", "-q", "data/junk.dvc")
    project.repro()
    manifest = project.json("build/manifests/web.json")
    expected = sum(len(text.encode()) + 1 for text in documents("web"))
    assert (manifest["tokens"], manifest["tokens_are"], manifest["documents"]) == (expected, "exact", 120)
    assert (manifest["bytes"], manifest["bytes_are"]) == (None, "unknown")
    assert manifest["tokens_per_document"] == round(expected / 120, 3)
    assert set(project.weights()) == {"web", "code", "math"}
    before = project.weights()
    params["tokenizer"] = {"path": "tokenizers/bytes.json", "end_of_document": 256}
    project.params = params
    project.repro()
    after = project.json("build/manifests/web.json")
    assert after["digest"] == manifest["digest"]
    assert (after["bytes"], after["bytes_are"]) == (expected - 120, "estimate")
    assert after["tokenizer"] != manifest["tokenizer"]
    assert project.weights() == before, "the same ids"
