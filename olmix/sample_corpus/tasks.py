"""The nine tasks: what a proxy is asked, from texts that no training shard holds.

Text tasks are pieces of at most one window (60 tokens) with an empty prompt; BPB is measured on the
continuation. Short-answer tasks score a few bytes an item and get three times as many items: in trials
two of them made three quarters of the noise of the mean. Texts are taken round-robin over the documents,
so no document dominates.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from olmix.core.seeds import generator
from olmix.data.tokenizer import Tokenizer
from olmix.sample_corpus.arithmetic import is_word_problem, question_and_answer
from olmix.sample_corpus.documents import Domain
from olmix.sample_corpus.sources import help_topics, standard_library

WINDOW = 60  # tokens of prompt and continuation; a sequence of 64 also holds what closes a document
TEXT_ITEMS, ANSWER_ITEMS = 160, 512
_SHORTEST = 64  # characters of a piece of text
_LONGEST_OUTPUT = 36  # tokens of a doctest's output
_STARTS = re.compile(r"(?<=\n)(?=\S|    )|(?<=[.!?] )(?=\w)")  # lines and sentences
FAMILIES = {
    "code": ("py-held-out", "cpp-held-out", "stdlib"),
    "math": ("arithmetic", "word-problems", "doctest-outputs"),
    "prose": ("docs-held-out", "story-held-out", "pydoc-topics"),
}


@dataclass(frozen=True)
class Item:
    """One question: bits are counted on `continuation`, given `prompt` (which may be empty)."""

    prompt: str
    continuation: str


def _fitting(text: str, tokenizer: Tokenizer, window: int = WINDOW) -> str:
    """The longest start of `text` that has at most `window` tokens and ends where a word does."""
    head = text[: window * 8]
    tokens = tokenizer.encode([head])[0]
    if len(tokens) <= window:
        return head
    kept = tokenizer.decode(tokens[:window])
    return kept[: max(kept.rfind(" "), kept.rfind("\n") + 1)]


def _text_items(documents: Iterable[str], tokenizer: Tokenizer, count: int, name: str) -> list[Item]:
    """`count` pieces from lines or sentences drawn by a seed, one a document before any second one."""
    starts: list[tuple[str, Iterator[int]]] = []
    for i, document in enumerate(itertools.islice(documents, count)):
        found = [0, *(match.start() for match in _STARTS.finditer(document))]
        order = generator("sample-corpus", "task", name, i).permutation(len(found))
        starts.append((document, iter([found[j] for j in order])))
    pieces: dict[str, None] = {}  # a dictionary keeps order and drops what two documents share
    while starts and len(pieces) < count:
        left: list[tuple[str, Iterator[int]]] = []
        for document, positions in starts:
            position = next(positions, None)
            if position is None:
                continue
            left.append((document, positions))
            piece = _fitting(document[position:], tokenizer)
            if len(piece) >= _SHORTEST and len(pieces) < count:
                pieces[piece] = None
        starts = left
    return [Item("", piece) for piece in pieces]


def _answer_items(documents: Iterable[str], context: int) -> Iterator[Item]:
    """Every exercise of the documents, with the `context` lines before it as a prompt."""
    for document in documents:
        lines = document.splitlines()
        for i, line in enumerate(lines):
            question, answer = question_and_answer(line)
            before = "".join(f"{earlier}\n" for earlier in lines[max(0, i - context) : i])
            yield Item(before + question, answer + "\n")


def _output_items(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Item]:
    """Every short output of the sessions, after as many whole lines as a window has room for."""
    for document in documents:
        lines = document.splitlines()
        sources = [line.startswith((">>>", "...")) or not line for line in lines]
        for i in range(1, len(lines)):
            if sources[i] or not sources[i - 1] or not lines[i - 1]:
                continue
            end = next((j for j in range(i, len(lines)) if sources[j]), len(lines))
            answer = "\n".join(lines[i:end]) + "\n"
            room = WINDOW - len(tokenizer.encode([answer])[0])
            prompt = ""
            for line in reversed(lines[:i]):
                if len(tokenizer.encode([longer := f"{line}\n{prompt}"])[0]) > room:
                    break
                prompt = longer
            # What the last statement says must be in sight, or the output cannot be predicted.
            if room >= WINDOW - _LONGEST_OUTPUT and ">>>" in prompt:
                yield Item(prompt, answer)


def _mixed(items: Iterable[Item], count: int, name: str) -> list[Item]:
    """`count` distinct items in an order drawn from a seed."""
    distinct = list(dict.fromkeys(items))
    order = generator("sample-corpus", "task", name).permutation(len(distinct))[:count]
    return [distinct[i] for i in order]


def make_tasks(
    domains: Mapping[str, Domain],
    tokenizer: Tokenizer,
    text_items: int = TEXT_ITEMS,
    answer_items: int = ANSWER_ITEMS,
) -> dict[str, list[Item]]:
    """The items of every task (at most so many each), from held-out and from foreign documents."""
    held_out = ("py", "cpp", "docs", "story")
    texts: dict[str, Iterable[str]] = {f"{name}-held-out": domains[name].held_out for name in held_out}
    texts |= {"stdlib": standard_library(), "pydoc-topics": help_topics()}
    known = {text for domain in domains.values() for text in domain.train}
    made = {
        name: _text_items((text for text in documents if text not in known), tokenizer, text_items, name)
        for name, documents in texts.items()
    }
    exercises: Sequence[str] = domains["math"].held_out
    problems = _answer_items(filter(is_word_problem, exercises), context=0)
    facts = _answer_items(itertools.filterfalse(is_word_problem, exercises), context=3)
    made["word-problems"] = _mixed(problems, answer_items, "word-problems")
    made["arithmetic"] = _mixed(facts, answer_items, "arithmetic")
    made["doctest-outputs"] = _mixed(
        _output_items(domains["doctest"].held_out, tokenizer), answer_items, "doctest-outputs"
    )
    return {name: made[name] for family in FAMILIES.values() for name in family}
