"""What olmix uses of DVC is listed in one module, and the installed DVC has all of it."""

from __future__ import annotations

import ast
import importlib
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from olmix.pipeline import dvc_internals
from tests.project import REPOSITORY

HOME = Path(dvc_internals.__file__)
LISTED = re.findall(r"^    ([\w.]+)$", dvc_internals.__doc__ or "", re.MULTILINE)


def imported(path: Path) -> set[str]:
    """Names that a module imports from DVC's packages."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0].startswith("dvc")}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What listed names begin with: modules of DVC, an open project, its stages, the file system of a remote."""
    from dvc.fs import get_cloud_fs
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

    folder = tmp_path_factory.mktemp("project")
    repo = Repo.init(str(folder), no_scm=True)
    kind, settings, _ = get_cloud_fs(repo.config, url=str(folder))
    return {"repo": repo, "stage": Stage, "out": Output, "remote": kind(**settings)}


def test_one_module_imports_dvc() -> None:
    assert [path for path in sorted((REPOSITORY / "olmix").rglob("*.py")) if imported(path)] == [HOME]


def test_what_is_imported_is_listed() -> None:
    assert imported(HOME) == {name for name in LISTED if name.startswith("dvc.")}


@pytest.mark.parametrize("name", LISTED)
def test_the_installed_dvc_has_it(name: str, roots: dict[str, Any]) -> None:
    first, rest = name.split(".", 1)
    if first in roots:
        attrgetter(rest)(roots[first])
    else:
        module, _, attribute = name.rpartition(".")
        getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", [name for name in LISTED if not name.startswith("dvc.")])
def test_it_is_still_in_use(name: str) -> None:
    assert f".{name.rpartition('.')[2]}" in HOME.read_text().split('"""', 2)[2], f"{name} is used no more: unlist it"
