"""Write every generated file anew: `make docs`. A test fails where one is not what this writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from olmix.config.params import Params
from olmix.config.runtime import Runtime
from scripts import commands_reference, files_reference, known_files, params_reference, schemas

REPOSITORY = Path(__file__).parent.parent
GENERATED: dict[str, Callable[[], str]] = {
    "docs/params.md": params_reference.render,
    "docs/commands.md": commands_reference.render,
    "docs/files.md": files_reference.render,
    "olmix/template/known.json": known_files.render,
    "docs/schema/params.json": partial(schemas.render, Params, "params.yaml"),
    "docs/schema/runtime.json": partial(schemas.render, Runtime, "runtime.yaml"),
}

if __name__ == "__main__":
    for name, render in GENERATED.items():
        path = REPOSITORY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render())
