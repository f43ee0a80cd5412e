"""Single-digit facts, in figures and in words, and one-line word problems with their answers.

Three formats, one a document, and the tasks ask for exactly these: a task whose format no domain holds is
pure noise. A line can be cut where its answer begins (`question_and_answer`). Facts repeat (there are
255); it is the documents that are held out, so the task measures whether the facts were learnt and not
whether they generalise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

from olmix.core.seeds import generator
from olmix.sample_corpus.stories import BOYS, GIRLS, words

_UNITS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
_WORDS = {"+": "plus", "-": "minus", "*": "times"}
_NAMES = tuple(itertools.chain(*zip(BOYS[:16], GIRLS[:16], strict=True)))
_COUNTED = words(
    "apples pears plums cookies marbles stickers pencils books coins shells stones cards balloons "
    "buttons eggs cups flowers leaves toys boxes"
)
_PROBLEMS = {
    "+": (
        "{name} has {a} {things} and finds {b} more.",
        "{name} has {a} {things} and buys {b} more.",
        "{name} has {a} {things}. {other} gives {name} {b} more.",
        "There are {a} {things} in the bag of {name}, and then {b} more go in.",
    ),
    "-": (
        "{name} has {a} {things} and loses {b}.",
        "{name} has {a} {things} and sells {b}.",
        "{name} has {a} {things}. {other} takes {b} of them.",
        "{name} has {a} {things} and gives {b} of them to {other}.",
    ),
    "*": (
        "{name} has {a} bags with {b} {things} in each.",
        "{name} buys {b} {things} every day for {a} days.",
    ),
}


def number_words(number: int) -> str:
    """`number` (0 to 99) in English."""
    if number < len(_UNITS):
        return _UNITS[number]
    tens, units = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[units]}" if units else "")


def _fact(draw: np.random.Generator) -> tuple[int, str, int, int]:
    operator = "+-*"[draw.integers(3)]
    a, b = (int(n) for n in draw.integers(0, 10, size=2))
    if operator == "-":
        a, b = max(a, b), min(a, b)
    return a, operator, b, {"+": a + b, "-": a - b, "*": a * b}[operator]


def _figures(draw: np.random.Generator) -> str:
    a, operator, b, answer = _fact(draw)
    return f"{a} {operator} {b} = {answer}"


def _words(draw: np.random.Generator) -> str:
    a, operator, b, answer = _fact(draw)
    return f"{number_words(a)} {_WORDS[operator]} {number_words(b)} is {number_words(answer)}"


def _problem(draw: np.random.Generator) -> str:
    a, operator, b, answer = _fact(draw)
    name, other = (str(n) for n in draw.choice(_NAMES, size=2, replace=False))
    things = _COUNTED[draw.integers(len(_COUNTED))]
    story = _PROBLEMS[operator][draw.integers(len(_PROBLEMS[operator]))]
    said = story.format(name=name, other=other, things=things, a=a, b=b)
    return f"{said} How many {things} does {name} have? {name} has {answer} {things}."


def exercises() -> Iterator[str]:
    """An endless stream of documents of 4 to 10 lines in one format; document i depends on i alone."""
    formats = (_figures, _figures, _words, _problem, _problem)
    for i in itertools.count():
        draw = generator("sample-corpus", "math", i)
        line = formats[i % len(formats)]
        yield "".join(line(draw) + "\n" for _ in range(int(draw.integers(4, 11))))


def is_word_problem(document: str) -> bool:
    """Whether a document of `exercises` holds word problems."""
    return "?" in document


def question_and_answer(line: str) -> tuple[str, str]:
    """Cut a line of `exercises` where its answer begins: `3 + 4 =` and ` 7`."""
    cut = re.search(r"(?<=[=?])(?= )|(?<=\bis)(?= )", line)
    if cut is None:
        raise ValueError(f"not an exercise: {line!r}")
    return line[: cut.start()], line[cut.start() :]
