"""Print the lowest versions that pyproject.toml allows, as pip constraints: `python scripts/lowest.py > lowest.txt`.

Those of what a user installs; the tools of the extra `dev` stay as new as they are. Raises ValueError for a requirement
without a lower bound.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)")


def lowest(text: str) -> list[str]:
    """`name==version` for every requirement of a pyproject.toml, sorted."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    named = {*project["dependencies"], *(line for extra in extras if extra != "dev" for line in extras[extra])}
    pins = []
    for line in sorted(named):
        if line.startswith(f"{project['name']}["):  # an extra that includes another one
            continue
        found = _REQUIREMENT.match(line)
        if found is None:
            raise ValueError(f"{line}: no lower bound")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


if __name__ == "__main__":
    print("\n".join(lowest(PYPROJECT.read_text())))
