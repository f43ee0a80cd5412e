"""olmix/template/known.json: every version of the files that `olmix init --upgrade` may replace, by digest.

A file that holds none of them was edited. Versions are only ever added: today's are, to those that are there.
"""

from __future__ import annotations

import json

from olmix.cli.init import TEMPLATE, file_digest, managed_files
from olmix.files import read_json


def render() -> str:
    """The text of known.json."""
    known: dict[str, list[str]] = read_json(TEMPLATE / "known.json")
    for name, content in managed_files().items():
        known[name] = sorted({*known.get(name, []), file_digest(content)})
    return json.dumps(dict(sorted(known.items())), indent=1) + "\n"
