"""What olmix can say: the words of its string literals, against those of the output that the documentation shows.

It takes no run, so it holds for every block: a message that is worded anew makes a test fail wherever a page still has
the old words. Gives up: what is between two values is looked up by itself, and may be put together of several literals.
Of 174 literals behind the output on the pages, 99 were missed there when each was taken out alone; the others are short
and said elsewhere too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache

from olmix.data.shards import KINDS
from olmix.files import read_yaml
from olmix.laws.registry import law_kinds
from scripts.outputs import ELIDED, Block
from tests.project import DOMAINS, REPOSITORY
from tests.swarm_tables import DOMAINS as TABLES
from tests.swarm_tables import TASKS

_TOKEN = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*|[^\w\s]")
# Values: amounts of work, what is in quotes, paths and keys, options, and what has a digit or a low line in it.
_VALUE = re.compile(
    r"[+-]?[\d.,]*\d [kMGTPE]?FLOP\b|(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\"|\S*\w[/@=]\S*|\S*/\w\S*|\S*\w:+\w\S*"
    r"|[\w.-]*\w\.\w[\w.:-]*|--\w[\w-]*|[+-]?[\w:-]*[\d_][\w:,.-]*|[█#{}<>|\[\]]"
)
_DVC = re.compile(
    r"Stage '|Running stage '|> |Updating lock|Verifying|'data/.*' didn't change|Use `dvc|To track the ch|Data and pipe"
    r"|ERROR: failed to repr|\d+ files? (?:pushed|fetched|added)"
)
# A line of olmix is put together of few literals where no value stands between them.
MOST_CUTS = 5


@cache
def said() -> str:
    """What olmix says, a line each piece of a string literal that no value interrupts, tokens between spaces.

    Literals of a single word, such as keys of mappings, have a bar behind them: whole sentences could be put together
    of them, so few are allowed in one.
    """
    found = set()
    for path in sorted((REPOSITORY / "olmix").rglob("*.py")):
        tree = ast.parse(path.read_text())
        ignored = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored:
                end = "|" if node.value.isalpha() and node.value != "s" and id(node) not in parts else ""
                lines = node.value.split("\n")
                found |= {f" {' '.join(tokens)} {end}" for line in lines for _, tokens in _pieces(line)}
    return "\n".join(["", *sorted(found), ""])


@cache
def can_say(tokens: tuple[str, ...], cuts: int = 0) -> bool:
    """Whether tokens are a part of a piece, or of a few, each cut off where its piece ends and the next begins;
    a literal of a single word counts as two cuts."""
    start, pieces = "\n" if cuts else "", said()
    if f"{start} {' '.join(tokens)} " in pieces:
        return True
    heads = [k for k in range(1, len(tokens)) if f"{start} {' '.join(tokens[:k])} \n" in pieces]
    if any(can_say(tokens[k:], cuts + 1) for k in heads if cuts < MOST_CUTS):
        return True
    return cuts + 1 < MOST_CUTS and f"\n {tokens[0]} |" in pieces and can_say(tokens[1:], cuts + 2)


def unsaid(block: Block, names: Sequence[str]) -> Iterator[str]:
    """What a block says and olmix cannot, each with its line; `names` are what users call things."""
    if block.kind == "run" or (block.kind == "output" and not re.search(r"\bolmix\b|\bdvc repro\b", block.command)):
        return
    own = {*names, *(block.command.split() if block.kind == "words" else ())}
    longest_first = sorted((re.escape(name) for name in own), key=len, reverse=True)
    users = re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])" if own else "$.")
    for number, line in enumerate(block.lines, block.first + 1):
        if line.startswith("$ ") or line == ELIDED or _DVC.match(line):
            continue
        for text, tokens in _pieces(users.sub("#", line)):
            begun = (tokens[0][:1].lower() + tokens[0][1:], *tokens[1:])  # as olmix begins a line with a message
            if not (can_say(tokens) or (begun != tokens and can_say(begun, MOST_CUTS - 1))):
                yield f"{block.page}:{number}: olmix does not say {text!r} any more: {line.strip()}"


def _pieces(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The texts of a line between its values, or between the columns of a table, and their tokens; the s of a
    plural is one by itself, as f-strings have it."""
    for piece in re.split(rf"{_VALUE.pattern}|\s{{2,}}", text):
        tokens = _TOKEN.findall(re.sub(r"(?<=[A-Za-z]{2})s\b", " s", piece))
        if tokens:
            yield piece.strip(), tuple(tokens)


def names_on(text: str) -> list[str]:
    """What is a name on a page: of laws, formats and stages, in the projects that output is made in, and what the page
    itself declares as `NAME: {`."""
    sample = read_yaml(REPOSITORY / "params.yaml")
    tasks = [task for family in sample["tasks"]["families"].values() for task in family]
    names = [*sample["domains"], *sample["descriptions"].values(), *tasks, *DOMAINS, "sentences", *TABLES, *TASKS]
    names += [*law_kinds(), *KINDS, *(path.stem for path in (REPOSITORY / "stages").glob("*.py"))]
    return [*names, *re.findall(r"^\W*([\w-]+): *\{", text, re.MULTILINE)]
