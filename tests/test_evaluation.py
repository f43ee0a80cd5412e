"""BPB is the plain one: every continuation token once, in bits over UTF-8 bytes, whatever the windows and
batches."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError, TrainingError
from olmix.proxy import loss
from olmix.proxy.evaluation import evaluate
from olmix.proxy.model import Weights, hidden_states, initialise
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import EncodedTask, Task, encode_task, load_task, read_task, untrained_bpb
from olmix.proxy.training import train
from olmix.runs.evaluation_job import keep_task
from olmix.runs.journal import Journal
from tests.project import REPOSITORY
from tests.test_loss import Largest

TOKENIZER = Tokenizer(Path(__file__).parent.parent / "tokenizers" / "bytes.json", "<|endoftext|>")
RECIPE = Recipe(
    layers=1,
    heads=2,
    width=16,
    hidden=16,
    vocabulary=TOKENIZER.vocabulary,
    sequence_length=16,
    tokens=256,
    batch_size=2,
    learning_rate=1e-2,
)
ITEMS = (
    ("", "one"),
    ("2 + 2 = ", "4"),
    ("naïve café: ", "çà et là, 日本"),
    ("", "longer than a window of sixteen tokens, by far, so that it slides"),
    ("a prompt that is itself longer than one window and then some: ", "end"),
    ("a prompt of a window ", "and a continuation that is longer than one window too"),
    ("fifteen bytes..", "x"),
)


def task(items: tuple[tuple[str, str], ...] = ITEMS) -> Task:
    return Task("sample", items, "digest")


def encoded(items: tuple[tuple[str, str], ...] = ITEMS, length: int = 16) -> EncodedTask:
    return encode_task(task(items), TOKENIZER, length)


def weights_of(seed: int = 0) -> Weights:
    return initialise(RECIPE, seed)


def naive_bits(weights: Weights, items: tuple[tuple[str, str], ...], length: int) -> float:
    """Bits of the continuations, an item and a window at a time in float64."""
    doubled = {name: weight.double() for name, weight in weights.items()}
    nats = []
    for prompt, continuation in items:
        prompt_ids, ids = (list(map(int, part)) for part in TOKENIZER.encode([prompt, continuation]))
        tokens = [TOKENIZER.end, *prompt_ids, *ids]
        target = 1 + len(prompt_ids)
        while target < len(tokens):
            begin = max(0, min(target - math.ceil(length / 2), len(tokens) - 1 - length))
            window = torch.tensor(tokens[begin : begin + length])
            scores = (hidden_states(doubled, RECIPE, window[None]) @ doubled["head"])[0].log_softmax(-1)
            stop = min(begin + length + 1, len(tokens))
            nats += [-float(scores[t - 1 - begin, tokens[t]]) for t in range(target, stop)]
            target = stop
    return math.fsum(nats) / math.log(2)


def test_it_equals_the_plain_computation() -> None:
    score = evaluate(weights_of(), RECIPE, encoded())
    assert score.bits == pytest.approx(naive_bits(weights_of(), ITEMS, 16), rel=1e-6)
    assert score.bytes == sum(len(continuation.encode()) for _, continuation in ITEMS)
    assert score.bpb == score.bits / score.bytes


def test_uniform_logits_give_log2_of_the_vocabulary() -> None:
    weights = weights_of() | {"head": torch.zeros(RECIPE.width, RECIPE.vocabulary)}
    score = evaluate(weights, RECIPE, encoded())
    # With one token a byte, BPB is log2(vocabulary).
    assert score.bpb == pytest.approx(math.log2(RECIPE.vocabulary), rel=1e-7)
    assert score.uniform_bpb == pytest.approx(math.log2(RECIPE.vocabulary), rel=1e-12)
    assert untrained_bpb(encoded(), 2 * RECIPE.vocabulary) == pytest.approx(1 + math.log2(RECIPE.vocabulary))


def test_a_model_that_knows_the_answer_pays_nothing_and_one_that_does_not_pays_its_odds() -> None:
    favourite = int(TOKENIZER.encode(["x"])[0][0])
    head = torch.zeros(RECIPE.width, RECIPE.vocabulary)
    # Hidden states are turned into a constant: a width of one's own sign pattern, gain 0 elsewhere.
    weights = weights_of() | {"embedding": torch.ones(RECIPE.vocabulary, RECIPE.width)}
    for name in weights:
        if name.endswith("attention.gain") or name.endswith("swiglu.gain"):
            weights[name] = torch.zeros(RECIPE.width)
    head[:, favourite] = math.log(RECIPE.vocabulary - 1) / RECIPE.width  # probability one half
    weights["head"] = head
    right, wrong = (evaluate(weights, RECIPE, encoded((("", text),))) for text in ("xxxx", "yyyy"))
    assert right.bpb == pytest.approx(1, rel=1e-5)
    assert wrong.bpb == pytest.approx(1 + math.log2(RECIPE.vocabulary - 1), rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_batches_and_the_order_of_items_hardly_matter(batch_tokens: int) -> None:
    expected = evaluate(weights_of(), RECIPE, encoded()).bits
    for items in (ITEMS, ITEMS[::-1]):
        score = evaluate(weights_of(), RECIPE, encoded(items), batch_tokens=batch_tokens)
        assert score.bits == pytest.approx(expected, rel=1e-6)


def test_logits_of_a_large_vocabulary_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluate(weights_of(), RECIPE, encoded()).bits
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 3 * RECIPE.vocabulary})
    with Largest() as seen:
        score = evaluate(weights_of(), RECIPE, encoded())
    assert score.bits == pytest.approx(expected, rel=1e-6)
    scored = encoded().scored
    assert RECIPE.width * RECIPE.vocabulary <= seen.elements < scored * RECIPE.vocabulary / 2


def test_training_after_an_evaluation_works() -> None:
    """What evaluation caches must be usable by autograd."""
    other = dataclasses.replace(RECIPE, sequence_length=14, tokens=28)
    evaluate(initialise(other, 0), other, encoded(length=14))
    train(other, [np.zeros((2, 15), dtype="<u2")], ["a"], [2], 0)


@given(st.integers(0, 90), st.integers(1, 90), st.integers(2, 33))
def test_every_continuation_token_is_scored_once_with_context(prompt: int, continuation: int, length: int) -> None:
    text = "".join(chr(33 + i % 90) for i in range(prompt + continuation))
    cut = encoded(((text[:prompt], text[prompt:]),), length)
    item = [TOKENIZER.end, *map(int, TOKENIZER.encode([text])[0])]
    scored = 0
    for row, count, first in zip(cut.rows, cut.lengths, cut.firsts, strict=True):
        place = 1 + prompt + scored  # of the window's first target in the item
        assert first + 1 >= min(place, length / 2)
        begin = place - 1 - first
        assert row[: count + 1].tolist() == item[begin : begin + count + 1]
        scored += int(count - first)
    assert scored == continuation == cut.scored
    assert cut.rows.shape == (len(cut.lengths), length + 1)
    assert cut.tokens <= 3 * (prompt + continuation)


def test_a_recipe_of_another_length_or_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match="encoded for sequences of 8"):
        evaluate(weights_of(), RECIPE, encoded(length=8))
    with pytest.raises(DataError, match="of a vocabulary of 100"):
        evaluate(weights_of(), dataclasses.replace(RECIPE, vocabulary=100), encoded())


def test_weights_that_are_no_numbers_are_refused() -> None:
    weights = weights_of()
    weights["head"][0, 0] = math.nan
    with pytest.raises(TrainingError, match="task sample: the loss is nan"):
        evaluate(weights, RECIPE, encoded())


def write(path: Path, *items: object) -> Path:
    path.write_bytes(b"\n".join(item if isinstance(item, bytes) else orjson.dumps(item) for item in items))
    return path


def test_a_tasks_digest_is_of_its_items_alone(tmp_path: Path) -> None:
    item, other = {"prompt": "é", "continuation": "b"}, {"prompt": "", "continuation": "éb"}
    plain = read_task(write(tmp_path / "a.jsonl", item, other))
    assert (plain.name, plain.items) == ("a", (("é", "b"), ("", "éb")))
    spaced = b'  {"continuation": "b",  "prompt": "\\u00e9"}\r'
    assert read_task(write(tmp_path / "b.jsonl", spaced, b"", other, b"")).digest == plain.digest
    assert read_task(write(tmp_path / "c.jsonl", other, item)).digest != plain.digest
    moved = {"prompt": "éb", "continuation": "b"}
    assert read_task(write(tmp_path / "d.jsonl", item)).digest != read_task(write(tmp_path / "e.jsonl", moved)).digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "a", "contin', "t.jsonl:2: not JSON"),
        (b'{"prompt": "\xff", "continuation": "a"}', "t.jsonl:2: not JSON"),
        (b'["a", "b"]', "t.jsonl:2: a list, not an item"),
        (b'{"continuation": "b"}', "t.jsonl:2: has the keys continuation; an item has"),
        (b'{"prompt": "a"}', "t.jsonl:2: has the keys prompt; an item has"),
        (b'{"prompt": "a", "continuation": "b", "id": 1}', "t.jsonl:2: has the keys prompt, continuation, id;"),
        (b'{"prompt": "a", "continuation": ""}', "t.jsonl:2: the continuation is empty"),
        (b'{"prompt": null, "continuation": "a"}', "t.jsonl:2: prompt and continuation must be text"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read_task(write(tmp_path / "t.jsonl", {"prompt": "", "continuation": "a"}, line))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file_and_no_items_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.jsonl: no such task"):
        read_task(tmp_path / "t.jsonl")
    with pytest.raises(DataError, match=r"t\.jsonl: no items"):
        read_task(write(tmp_path / "t.jsonl", b"", b"  "))


def test_a_task_file_is_what_it_is_called_or_is_written_anew(tmp_path: Path) -> None:
    tokenizer = Tokenizer(REPOSITORY / "tokenizers/bytes.json", "<|endoftext|>")
    tasks = [
        encode_task(Task(name, ((name, f" {name} more"),), f"{k}" * 32), tokenizer, 16)
        for k, name in enumerate(("one", "two"))
    ]
    journal = Journal(tmp_path)
    one, two = (keep_task(task, journal) for task in tasks)
    for kept, task in ((one, tasks[0]), (two, tasks[1])):
        loaded = load_task(kept.path)
        assert (loaded.name, loaded.digest, loaded.bytes) == (task.name, task.digest, task.bytes)
        assert np.array_equal(loaded.rows, task.rows)
    for damage in (two.path.read_bytes(), b"", one.path.read_bytes()[:-5]):
        one.path.write_bytes(damage)
        with pytest.raises(DataError, match="its content does not match its name"):
            load_task(one.path)
        assert keep_task(tasks[0], journal) == one
        assert load_task(one.path).name == "one"
