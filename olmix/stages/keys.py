"""keys: what every other stage's result depends on besides the files that it reads."""

from __future__ import annotations

from olmix.config.keys import write_keys
from olmix.config.params import load_params
from olmix.project import Project
from olmix.terminal.exits import run_stage


def keys(project: Project) -> None:
    """Write the key of every stage."""
    write_keys(load_params(project))


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(keys)
