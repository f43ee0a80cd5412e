"""Printed output in README.md and docs/: run its commands again and write the blocks anew, `make docs-output`.

A comment on a line of its own says what the fenced block below it is:

    <!-- output: PROJECT: COMMAND -->   what COMMAND prints to standard output in PROJECT
    <!-- run: PROJECT -->               commands that are run in PROJECT, from the block that shows them
    <!-- run: PROJECT: COMMAND -->      a command that is run out of sight; no block belongs to it
    <!-- words: NAME NAME -->           output that no command here prints; only its words are checked

On each page, projects are made when they are first named, and what is marked happens in them in the order of the page.
`small/second` is another copy of `small`. In a block, lines `$ COMMAND` stay, and a line `...` leaves lines out.

A test compares blocks with what is printed now, by everything but numbers that depend on the machine (`masked`).
Where a project is not at hand, scripts/words.py still finds what olmix does not say any more.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.markdown import lines as lines_of
from tests.project import ENVIRONMENT, REPOSITORY, Project
from tests.public_swarms import FOLDER as SWARMS
from tests.swarm_tables import Swarm

DEMO = "OLMIX_DEMO"  # a clone in which `make demo` ran
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")))
ELSEWHERE = (".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__")
ELIDED = "..."

_MARKER = re.compile(r"<!-- (output|run|words)(?:: (.+?))? -->")


class OutputError(Exception):
    """A marker that cannot be followed, with page and line."""


@dataclass(frozen=True)
class Block:
    """What a marker says: its kind, project, command (or names, of `words`), and the block below it, `lines` from the
    0-based line `first` on; none of a command out of sight."""

    page: str
    number: int
    kind: str
    project: str
    command: str
    first: int
    lines: tuple[str, ...]

    @property
    def place(self) -> str:
        """Page and line of the marker."""
        return f"{self.page}:{self.number}"


# Projects


def _tables(root: Path) -> Path:
    root.mkdir(parents=True)
    Swarm(root).write_tables()
    return root


# How each project is made in a folder; `demo` and `dclm` are copies of what is there.
PROJECTS: dict[str, Callable[[Path], Path]] = {
    "small": lambda root: Project.create_accepted(root).root,
    "new": lambda root: Project.create(root).root,
    "tables": _tables,
    "demo": lambda root: Path(
        shutil.copytree(os.environ[DEMO], root, symlinks=True, ignore=shutil.ignore_patterns(*ELSEWHERE))
    ),
    "dclm": lambda root: Path(shutil.copytree(SWARMS / "dclm", root)),
}


def at_hand(project: str) -> bool:
    """Whether a project can be made here."""
    kind = project.partition("/")[0]
    return (kind != "demo" or DEMO in os.environ) and (kind != "dclm" or (SWARMS / "dclm").exists())


class Session:
    """The projects of a page, made in `folder` when they are first named; `ready` are projects to copy instead."""

    def __init__(self, folder: Path, ready: Mapping[str, Path] | None = None) -> None:
        self.folder = folder
        self.ready = ready or {}
        self.roots: dict[str, Path] = {}

    def root(self, project: str) -> Path:
        """Where a project lies."""
        kind, root = project.partition("/")[0], self.folder / project.replace("/", "-")
        if project not in self.roots:
            if kind in self.ready:
                shutil.copytree(self.ready[kind], root, symlinks=True)
            else:
                PROJECTS[kind](root)
            self.roots[project] = root
        return self.roots[project]

    def run(self, block: Block) -> str:
        """What a command prints to standard output; raises OutputError when a `run` fails."""
        command = block.command or "\n".join(block.lines)
        ran = subprocess.run(  # noqa: S603
            ["bash", "-euo", "pipefail", "-c", command],  # noqa: S607
            cwd=self.root(block.project), env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if block.kind == "run" and ran.returncode:
            raise OutputError(f"{block.place}: {command}: ended with {ran.returncode}: {ran.stderr[-2000:]}")
        return ran.stdout


# Pages


def blocks(text: str, page: str) -> Iterator[Block]:
    """What is marked on a page, in its order; raises OutputError for a marker that is no marker."""
    lines = list(lines_of(text))
    for line in lines:
        if line.kind != "prose" or not line.text.startswith(("<!-- output", "<!-- run", "<!-- words")):
            continue
        match = _MARKER.fullmatch(line.text)
        kind, rest = (match[1], match[2] or "") if match else ("", "")
        project, _, command = rest.partition(": ") if kind != "words" else ("", "", rest)
        if not kind or (kind == "output" and not command):
            raise OutputError(f"{page}:{line.number}: not a marker; scripts/outputs.py says how they are written")
        if kind != "words" and project.partition("/")[0] not in PROJECTS:
            raise OutputError(f"{page}:{line.number}: no project {project!r}; there are {', '.join(PROJECTS)}")
        first, content = line.number + 1, []
        if kind != "run" or not command:
            if first > len(lines) or lines[first - 1].kind != "fence":
                raise OutputError(f"{page}:{line.number}: no fenced block on the next line")
            for below in lines[first:]:
                if below.kind != "code":
                    break
                content.append(below.text)
        yield Block(page, line.number, kind, project, command, first, tuple(content))


def outputs(text: str, page: str, session: Session) -> Iterator[tuple[Block, tuple[str, ...]]]:
    """Each block of output of a page whose project is at hand, and its lines as they would be now."""
    for block in blocks(text, page):
        if block.kind != "words" and at_hand(block.project):
            printed = session.run(block)
            if block.kind == "output":
                yield block, _shown(block, printed)


def rewritten(text: str, page: str, session: Session) -> str:
    """A page with its blocks of output written anew."""
    lines = text.splitlines()
    for block, now in sorted(outputs(text, page, session), key=lambda pair: -pair[0].first):
        lines[block.first : block.first + len(block.lines)] = now
    return "\n".join(lines) + "\n"


def _shown(block: Block, printed: str) -> tuple[str, ...]:
    """The lines of a block around what was printed: its `$ COMMAND`, and left out what the block leaves out."""
    count = next((k for k, line in enumerate(block.lines) if not line.startswith("$ ")), len(block.lines))
    prompt, old, new = block.lines[:count], block.lines[count:], [line.rstrip() for line in printed.splitlines()]
    parts: list[list[str]] = [[]]
    for line in old:
        if line == ELIDED:
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return (*prompt, *new)
    first, *middle, last = parts
    shown = [*new[: len(first)], ELIDED]
    for part in middle:
        masks = [masked(line) for line in new]
        if not part or masked(part[0]) not in masks:
            raise OutputError(f"{block.place}: {block.command} does not print {part[:1]}; write the block by hand")
        start = masks.index(masked(part[0]))
        shown += [*new[start : start + len(part)], ELIDED]
    return (*prompt, *shown, *new[len(new) - len(last) :])


# Comparing

_BARS = re.compile(r"\s+[+-]?█+(?=\s|$)|\s[+-]$")
_DIGEST = re.compile(r"(?<![\w.])(?=[a-f]*\d)[0-9a-f]{8,}(?!\w)")
_TIME = re.compile(r"(?<![\w.])\d[\d,.]* (?:ms|s|min|h)\b")
_SPEED = re.compile(r"(?<![\w.])\d[\d,.]* [kMGTPE]?FLOP")
_NUMBER = re.compile(r"(?<![\w.,])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?")


def masked(line: str) -> str:
    """A line without what depends on the machine: times, speeds, digests, bars, spaces between columns, and all
    numbers but whole ones below a thousand, which count runs, seeds and domains."""
    line = _DIGEST.sub("#", _BARS.sub(" ", line))
    line = _SPEED.sub("# FLOP", _TIME.sub("# T", line))
    line = _NUMBER.sub(lambda match: match[0] if match[0].isdecimal() and len(match[0]) < 4 else "#", line)
    return " ".join(line.split())


def difference(block: Block, now: Sequence[str]) -> str:
    """What a block says otherwise than is printed now, as a diff of lines; empty when they are the same but for masked
    numbers."""
    before, after = [masked(line) for line in block.lines], [masked(line) for line in now]
    if before == after:
        return ""
    told = [f"{block.place}: `{block.command}` prints otherwise now; make docs-output writes the block anew"]
    for tag, i, j, k, n in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            told += [f"  {block.page}:{block.first + 1 + at}: - {block.lines[at]}" for at in range(i, j)]
            told += [f"  + {line}" for line in now[k:n]]
    return "\n".join(told)


def main() -> None:
    """Write the blocks of all pages anew, and say which could not be."""
    for page in PAGES:
        path = REPOSITORY / page
        text = path.read_text()
        absent = sorted({block.project for block in blocks(text, page) if block.project and not at_hand(block.project)})
        if absent:
            print(f"{page}: left as they are: blocks of {', '.join(absent)} ({DEMO} names a clone after make demo)")
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(rewritten(text, page, Session(Path(folder))))


if __name__ == "__main__":
    try:
        main()
    except OutputError as error:
        sys.exit(f"error: {error}")
