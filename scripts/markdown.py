"""Markdown as far as checks need it: fenced blocks, links, and the anchors of headings as GitHub makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r" {0,3}(```+)(.*)")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|^ {0,3}\[[^\]]+\]:\s*(\S+)")
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*$")


@dataclass(frozen=True)
class Line:
    """A line of a page, by number from 1: prose, a fence, or what stands in a fenced block."""

    number: int
    text: str
    kind: str


def lines(text: str) -> Iterator[Line]:
    """The lines of a page, each of the kind `prose`, `fence` or `code`."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence:
            closes = match is not None and match[1].startswith(fence) and not match[2].strip()
            yield Line(number, line, "fence" if closes else "code")
            fence = "" if closes else fence
        else:
            yield Line(number, line, "prose" if match is None else "fence")
            fence = "" if match is None else match[1]


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line number and target of every link and image of a page."""
    for line in lines(text):
        if line.kind == "prose":
            for match in _LINK.finditer(re.sub(r"`[^`]*`", "", line.text)):
                yield line.number, match[1] or match[2]


def anchors(text: str) -> set[str]:
    """What a link may name behind #: of headings, a repeated one with -1, -2 behind it, and of ids in HTML."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for line in lines(text):
        match = _HEADING.fullmatch(line.text) if line.kind == "prose" else None
        if match is not None:
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            found.add(next(name for k in range(1000) if (name := f"{slug}-{k}" if k else slug) not in found))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Every relative link of a page that leads nowhere, with its line."""
    for number, target in links(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            yield f"{page}:{number}: {target}: no such file"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text()):
            yield f"{page}:{number}: {target}: no such heading"
