"""Data and imports go one way: a floor imports only lower floors; heavy packages stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# From the ground up; a module may import what stands before it, and its own package.
ORDER = [
    "olmix.errors",
    "olmix.progress",
    "olmix.cores",
    "olmix.core",
    "olmix.solver",
    "olmix.laws",
    "olmix.fit",
    "olmix.files",
    "olmix.project",
    "olmix.tables",
    "olmix.data",
    "olmix.proxy",
    "olmix.runs",
    "olmix.artifacts",
    "olmix.pipeline",
    "olmix.config",
    "olmix.terminal",
    "olmix.stages",
    "olmix.sample_corpus",
    "olmix.cli",
    "stages",
]
MODULES = sorted([*(REPOSITORY / "olmix").rglob("*.py"), *(REPOSITORY / "stages").glob("*.py")])
HEAVY = {
    "torch": "olmix.proxy",
    "dvc": "olmix.pipeline.dvc_internals",
    "tokenizers": "olmix.data",
    "fsspec": "olmix.data.shards",
    "msgspec": "olmix.data.jsonl",
    "sqlite3": "olmix.data",
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    return next((k for k, name in enumerate(ORDER) if module == name or module.startswith(name + ".")), -1)


def imports(path: Path) -> set[str]:
    """Every module that is imported at run time (those for type checkers alone apart)."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_upwards(path: Path) -> None:
    module = name_of(path)
    if module == "olmix":
        return
    assert floor(module) >= 0, f"{module} stands on no floor"
    for imported in imports(path):
        if imported.startswith(("olmix.", "stages")):
            assert floor(imported) <= floor(module), f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_are_imported_in_one_place(path: Path) -> None:
    module = name_of(path)
    for imported in imports(path):
        home = HEAVY.get(imported.split(".")[0])
        if home is not None:
            assert module == home or module.startswith(home + "."), f"{module} imports {imported}; only {home} may"


@pytest.mark.parametrize("room", ["core", "solver", "laws", "fit"])
def test_the_mathematics_knows_neither_files_nor_processes(room: str) -> None:
    banned = {"pathlib", "os", "subprocess", "multiprocessing", "orjson", "yaml", "polars", "click", "rich"}
    for path in (REPOSITORY / "olmix" / room).glob("*.py"):
        assert not banned & {imported.split(".")[0] for imported in imports(path)}, path
        assert "print(" not in path.read_text(), path


def test_contributing_lists_the_floors_in_this_order() -> None:
    rows = re.findall(r"^\| `(.+?)` \|", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert [row.removesuffix("/").removesuffix(".py").replace("/", ".") for row in rows] == ORDER


def test_a_project_s_stage_relies_on_one_name() -> None:
    for path in (REPOSITORY / "stages").glob("*.py"):
        lines = path.read_text().split('"""\n')[-1].split("\n")
        script = ["", f"from olmix.stages.{path.stem} import main", "", 'if __name__ == "__main__":', "    main()", ""]
        assert lines == script, path


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import olmix", "torch dvc scipy pydantic"),
        ("import olmix.cli.main", "torch dvc scipy pydantic"),
        ("import olmix.config.params", "torch dvc scipy.linalg scipy.special polars"),
    ],
)
def test_importing_pulls_in_nothing_heavy(program: str, absent: str) -> None:
    check = f"{program}; import sys; print(sorted(set({absent.split()}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
