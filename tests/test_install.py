"""What an installation holds: the base fits tables without torch and DVC, and what needs more says what to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from olmix.terminal.exits import PIPELINE
from scripts import release, try_wheel
from scripts.lowest import lowest
from tests.project import ENVIRONMENT, REPOSITORY

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Runs a command of olmix as if the modules that are named were not installed.
COMMAND_LINE = """
import json, sys

absent = set(json.loads(sys.argv.pop(1)))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from olmix.cli.main import main
main()
"""


def absent_modules() -> list[str]:
    """What is installed here and not by the base: it brings its dependencies, and theirs."""
    base = {"olmix"}
    waiting = [Requirement(line).name for line in PROJECT["dependencies"]]
    while waiting:
        name = _canonical(waiting.pop())
        if name not in base:
            base.add(name)
            required = map(Requirement, metadata.requires(name) or [])
            waiting += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    modules = metadata.packages_distributions().items()
    return [module for module, homes in modules if not base & set(map(_canonical, homes))]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def base_olmix(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of olmix in `folder` as the base install would."""
    command = [sys.executable, "-c", COMMAND_LINE, json.dumps(absent_modules()), *words]
    environment = ENVIRONMENT | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_base_install_fits_tables_and_reads_mixtures(tmp_path: Path) -> None:
    assert set(absent_modules()) >= PIPELINE
    try_wheel.write_tables(tmp_path)
    dataset = {name: {"digest": f"{k:032x}", "tokens": 10**9, "source": name} for k, name in enumerate("abc")}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    for words in ("--help", *((name, *rest) for name, rest in try_wheel.COMMANDS.items())):
        done = base_olmix(tmp_path, *([words] if isinstance(words, str) else words))
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert set(yaml.safe_load((tmp_path / "fit/mixture.yaml").read_text())["domains"]) == set(try_wheel.DOMAINS)
    assert "3 added" in base_olmix(tmp_path, "plan", "--dataset", "dataset.json").stdout


@pytest.mark.parametrize("command", ["plan", "scan", "check"])
def test_a_command_that_needs_the_pipeline_says_what_to_install(command: str, tmp_path: Path) -> None:
    done = base_olmix(tmp_path, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: \w+ is not installed; run `pip install 'olmix\[pipeline\]'`\n", done.stderr)


def test_another_missing_module_is_a_defect(tmp_path: Path) -> None:
    program = "from olmix.terminal.exits import run; run(lambda: __import__('olmix_elsewhere'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


def test_the_packages_that_exits_know_are_those_of_the_extra() -> None:
    unimported = {"ruamel.yaml.clib"}  # DVC runs without it, slower
    assert {Requirement(line).name for line in EXTRAS["pipeline"]} == PIPELINE | unimported


def test_make_install_takes_every_extra() -> None:
    (named,) = re.findall(r"-e '\.\[(.*)\]'", (REPOSITORY / "Makefile").read_text())
    assert sorted(named.split(",")) == sorted(EXTRAS)


def test_the_lowest_versions_are_those_that_a_user_may_have() -> None:
    pins = lowest((REPOSITORY / "pyproject.toml").read_text())
    for pin in map(Requirement, pins):
        (version,) = pin.specifier
        declared = [*PROJECT["dependencies"], *EXTRAS["pipeline"], *EXTRAS["ray"], *EXTRAS["slurm"]]
        for line in map(Requirement, declared):
            assert line.name != pin.name or version.version in line.specifier
    names = {Requirement(pin).name for pin in pins}
    assert {"numpy", "dvc", "torch", "ray", "sympy"} <= names
    assert not {"olmix", "pytest"} & names
    with pytest.raises(ValueError, match="click: no lower bound"):
        lowest('[project]\nname = "a"\ndependencies = ["click"]\n[project.optional-dependencies]\n')


def test_ci_tries_the_oldest_python_that_is_promised() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in jobs["test"]["strategy"]["matrix"]["python"]
    legs = {leg["dependencies"]: leg["python"] for leg in jobs["bounds"]["strategy"]["matrix"]["include"]}
    assert legs["lowest"] == oldest


@pytest.fixture
def unreleased(tmp_path: Path) -> Path:
    (tmp_path / "olmix").mkdir()
    (tmp_path / "olmix/__init__.py").write_text('"""olmix"""\n\n__version__ = "0.9.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n### Added\n- All of it.\n")
    return tmp_path


def test_a_release_sets_the_version_and_dates_the_changelog(unreleased: Path) -> None:
    release.release(unreleased, "0.9.0", "2026-01-31")
    head = "# Changelog\n\n## Unreleased\n\n## 0.9.0 - 2026-01-31\n\n### Added\n- All of it.\n"
    assert (unreleased / "CHANGELOG.md").read_text() == head
    (unreleased / "CHANGELOG.md").write_text(head.replace("Unreleased\n", "Unreleased\n\n### Fixed\n- A bit.\n"))
    release.release(unreleased, "0.10.0", "2026-02-01")
    assert (unreleased / "olmix/__init__.py").read_text().endswith('\n__version__ = "0.10.0"\n')
    assert re.findall("^## (.*)$", (unreleased / "CHANGELOG.md").read_text(), re.MULTILINE) == [
        "Unreleased",
        "0.10.0 - 2026-02-01",
        "0.9.0 - 2026-01-31",
    ]


@pytest.mark.parametrize(
    ("version", "reason"),
    [("0.10", "three numbers"), ("0.8.10", "lower than 0.9.0"), ("0.9.0", "has been released"), ("0.10.0", "nothing")],
)
def test_a_release_that_cannot_be_changes_nothing(version: str, reason: str, unreleased: Path) -> None:
    release.release(unreleased, "0.9.0", "2026-01-31")
    before = [path.read_bytes() for path in sorted(unreleased.rglob("*.*"))]
    with pytest.raises(ValueError, match=reason):
        release.release(unreleased, version, "2026-02-01")
    assert [path.read_bytes() for path in sorted(unreleased.rglob("*.*"))] == before


@pytest.mark.skipif("OLMIX_TRY_WHEEL" not in os.environ, reason="it installs half a gigabyte: OLMIX_TRY_WHEEL=1")
def test_the_wheel_in_a_clean_environment(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/try_wheel.py", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode == try_wheel.SKIPPED:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
