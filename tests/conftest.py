"""Fixtures that several test modules use."""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import warm
from tests.project import Project
from tests.s3 import s3  # noqa: F401  # a fixture

# Machines differ, and others use them: no test fails because it took long.
settings.register_profile("olmix", deadline=None)
settings.load_profile("olmix")

# Seconds that the tests of a module take together, roughly, where they are many: what takes long comes first, dealt to
# the test processes, which take shares of a row of tests and steal what others have not begun.
LONG = {
    "test_pipeline": 280, "test_leaves": 250, "test_sharing": 250, "test_ray": 95, "test_run_cache": 95,
    "test_keys": 90, "test_slurm": 90, "test_versions": 80, "test_engine": 70, "test_fit_command": 60,
    "test_init": 50, "test_scan_command": 45, "test_accept": 35, "test_token_tasks": 30, "test_sweep_command": 25,
}  # fmt: skip
# Modules that `make quick` leaves out; it also leaves out each test of a project that must be built first.
SLOW = LONG.keys() | {
    "test_arithmetic", "test_benchmarks_of_training", "test_boosting", "test_check", "test_checkpoint", "test_cli",
    "test_cost", "test_evaluation", "test_external", "test_fit_options", "test_fitting", "test_install", "test_loss",
    "test_memory", "test_model", "test_outputs", "test_prepare", "test_project", "test_repetition", "test_runtime",
    "test_sample_corpus", "test_search", "test_show", "test_status", "test_training", "test_trust",
}  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the slow modules where none of their tests will run: that alone takes ten seconds."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in SLOW else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests, and give every test process a share of about the same time, its long tests first."""
    for item in items:
        if item.path.stem in SLOW or "built_once" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    count = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    if not config.option.markexpr and any(item.path.stem in LONG for item in items):
        warm.start()
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path.stem, []).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(count)]
    seconds = [0] * count
    for module in sorted(modules.keys() & LONG.keys(), key=lambda name: (-LONG[name], name)):
        least = seconds.index(min(seconds))
        shares[least] += modules[module]
        seconds[least] += LONG[module]
    others = [item for module, tests in modules.items() if module not in LONG for item in tests]
    even = -(-len(items) // count)
    for share in shares[1:]:  # one process builds the template, and the others have something else to do meanwhile
        share.sort(key=lambda item: "accepted_template" in getattr(item, "fixturenames", ()))
    for share in shares:
        room = max(0, even - len(share))
        share.extend(others[:room])
        del others[:room]
    items[:] = [item for share in shares for item in share] + others


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training flushes denormal numbers, in all of a process: the next test has them again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that all test processes of this run see; pytest-xdist need not be there."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def built_once(shared_folder: Path) -> Callable[..., Project]:
    """Build a project once for all test processes: by its name and a function of the folder to make it in."""

    def of(name: str, build: Callable[[Path], Project]) -> Project:
        ready = shared_folder / name / "ready"
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                build(shared_folder / name / "project")
                ready.touch()
        return Project(shared_folder / name / "project")

    return of


@pytest.fixture(scope="session")
def accepted_template(built_once: Callable[..., Project]) -> Project:
    """A project that was built, accepted and committed; copy it before changing it."""
    return built_once("template", Project.create_accepted)


@pytest.fixture
def accepted(accepted_template: Project, tmp_path: Path) -> Iterator[Project]:
    """An accepted project of one's own."""
    yield accepted_template.copy(tmp_path / "project")
    shutil.rmtree(tmp_path / "project", ignore_errors=True)
