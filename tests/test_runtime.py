"""runtime.yaml names an engine, and no engine, worker or device in it changes a byte of what is trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from olmix.config import runtime as runtime_module
from olmix.config.runtime import Runtime, load_runtime
from olmix.cores import cores
from olmix.errors import ConfigError
from olmix.runs.journal import Journal
from olmix.runs.local import LocalEngine
from olmix.runs.ray_cluster import RayEngine
from olmix.runs.slurm import SlurmEngine
from tests import project as project_module
from tests.project import HERE, Project
from tests.slurm import Cluster, slurm  # noqa: F401  # a fixture


def test_runtime_has_defaults_and_refuses_unknown_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_runtime(HERE) == Runtime()
    HERE.runtime.write_text("worker: 3\n")
    with pytest.raises(ConfigError, match=r"runtime\.yaml: worker: unknown key; did you mean workers\?"):
        load_runtime(HERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: 0\n", "workers: write auto, or a whole number"),
        ("device: nonsense\n", "device: write auto, cpu, cuda, or one GPU"),
    ],
)
def test_bad_runtime_is_one_line(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HERE.runtime.write_text(text)
    with pytest.raises(ConfigError, match=f"runtime.yaml: {message}") as error:
        load_runtime(HERE)
    assert "\n" not in str(error.value)
    HERE.runtime.write_text("# nothing set\n")
    assert load_runtime(HERE) == Runtime()


def opened(tmp_path: Path, **settings: object) -> Any:
    return Runtime.model_validate(settings).open_engine(Journal(tmp_path))


def test_local_processes_are_one_a_core(tmp_path: Path) -> None:
    local = opened(tmp_path)
    assert isinstance(local, LocalEngine)
    assert (local._workers, local._setup.device, local._setup.checkpoint_seconds) == (cores(), "cpu", 600.0)
    assert opened(tmp_path, workers=7)._workers == 7


def test_ray_is_given_its_settings(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    engine = opened(tmp_path, engine="ray", ray={"gpus": 1}, checkpoint_minutes=2)
    assert isinstance(engine, RayEngine)
    assert (engine._setup.device, engine._setup.checkpoint_seconds) == ("cuda", 120.0)


def test_slurm_is_given_its_settings(slurm: Cluster, tmp_path: Path) -> None:  # noqa: F811
    given = {"gpus": 1, "python": "python3", "sbatch": ["--account=lm"]}
    engine = opened(tmp_path, engine="slurm", slurm=given, device="cpu")
    assert isinstance(engine, SlurmEngine)
    settings = engine._settings
    assert (engine._setup.device, settings.sbatch, settings.python) == ("cpu", ("--account=lm",), "python3")


def test_gpus_are_shared_out_a_process_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.yaml: device: cuda, but there is no GPU here; set it to auto or"):
        opened(tmp_path, device="cuda")
    monkeypatch.setattr(runtime_module, "count_gpus", lambda: 4)
    engine = opened(tmp_path)
    assert (engine._workers, engine._gpus, engine._setup.device) == (4, 4, "cuda")
    one = opened(tmp_path, device="cuda:1", workers=1)
    assert (one._workers, one._gpus, one._setup.device) == (1, 0, "cuda:1")
    assert opened(tmp_path, device="cpu")._setup.device == "cpu"


@pytest.fixture
def untrained(accepted: Project) -> Project:
    """An accepted project of whose swarm four runs are to be trained again."""
    for key in sorted(path.stem for path in (accepted.root / "build/proxies").glob("*.json"))[:4]:
        (accepted.root / f".olmix/runs/{key}.json").unlink()
    for folder in (".dvc/cache/runs", "build/proxies"):
        shutil.rmtree(accepted.root / folder)
    return accepted


def test_slurm_trains_runs_to_the_same_bytes(
    slurm: Cluster,  # noqa: F811
    untrained: Project,
    accepted_template: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(project_module.ENVIRONMENT, "SLURM_CONF", str(slurm.config))
    untrained.write("runtime.yaml", "engine: slurm\nworkers: 4\n")
    assert untrained.expect("python", "stages/train.py").done("train") == 4
    assert proxies(untrained) == proxies(accepted_template)


def proxies(project: Project) -> dict[str, bytes]:
    return {name: content for name, content in project.outputs().items() if name.startswith("build/proxies/")}
