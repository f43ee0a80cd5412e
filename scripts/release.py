"""Set the version and date the changelog: `python scripts/release.py 0.2.0`. CONTRIBUTING.md says what follows."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
UNRELEASED = "## Unreleased\n"
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


def release(root: Path, version: str, day: str) -> None:
    """Write `version` into olmix/__init__.py, and what was unreleased in CHANGELOG.md under it and `day`.

    Raises ValueError, before anything is written, for a version that is not three numbers, is lower than the one that
    is there or has been released, and for a changelog in which nothing is unreleased.
    """
    module, changelog = root / "olmix/__init__.py", root / "CHANGELOG.md"
    code, text = module.read_text(), changelog.read_text()
    found = _VERSION.search(code)
    if found is None:
        raise ValueError(f"{module}: no __version__")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{version}: write a version as three numbers, such as 0.2.0")
    if _numbers(version) < _numbers(found[1]):
        raise ValueError(f"{version} is lower than {found[1]}")
    if f"\n## {version} - " in text:
        raise ValueError(f"{changelog}: {version} has been released")
    before, heading, after = text.partition(UNRELEASED)
    if not heading or not after.partition("\n## ")[0].strip():
        raise ValueError(f"{changelog}: nothing under {UNRELEASED.strip()!r}")
    module.write_text(_VERSION.sub(f'__version__ = "{version}"', code))
    changelog.write_text(f"{before}{heading}\n## {version} - {day}\n{after}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python scripts/release.py VERSION")
    try:
        release(REPOSITORY, sys.argv[1], f"{datetime.now(UTC):%Y-%m-%d}")
    except ValueError as error:
        sys.exit(f"error: {error}")
