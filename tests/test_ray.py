"""The Ray engine on real Rays: what comes home is what the local engine leaves, whoever dies on the way.

The cluster's nodes have a temporary folder of their own, and tasks work below it: what they read, they were sent.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import olmix
from olmix.core.seeds import generator
from olmix.data.tokenizer import Tokenizer
from olmix.data.tokensets import TokenSet, identity_of, write_tokens
from olmix.errors import ConfigError, DataError, OlmixError, TrainingError
from olmix.files import read_json, write_bytes, write_json
from olmix.progress import Progress
from olmix.proxy.recipe import RECIPE_VERSION, Recipe
from olmix.proxy.tasks import Task, encode_task
from olmix.runs import ray_cluster, ray_connection, ray_node
from olmix.runs.engine import Engine, Interrupted, Outcome, run_jobs
from olmix.runs.evaluation_job import EvaluationJob, keep_task
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.local import LocalEngine
from olmix.runs.ray_cluster import RayEngine, RaySettings
from olmix.runs.record import spec_for
from olmix.runs.sharing import Candidate, Entry
from olmix.runs.training_job import TrainingJob
from tests.project import HERE, REPOSITORY

pytest.importorskip("ray", reason="Ray is not installed (pip install 'olmix[ray]')")

TOKENIZER = Tokenizer(REPOSITORY / "tokenizers" / "bytes.json", "<|endoftext|>")
RECIPE = Recipe(
    layers=1, heads=2, width=16, hidden=16, vocabulary=TOKENIZER.vocabulary, sequence_length=16, tokens=16 * 4 * 40,
    batch_size=4, learning_rate=1e-2,
)  # fmt: skip
SETUP = Setup()
# Ray would put a token into the home folder of whoever runs the tests.
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Cluster:
    """A Ray that runs already, and the temporary folder of its node."""

    address: str
    folder: Path

    def engine(self, **options: Any) -> Callable[[], RayEngine]:
        """What opens an engine on this cluster."""
        settings = RaySettings(self.address, **options)
        return lambda: RayEngine(Journal(HERE.state), SETUP, settings, 2)

    def left(self) -> list[str]:
        """What the node still holds of jobs."""
        return [path.name for path in self.folder.glob("olmix-ray-*/*/*")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for a Ray: its sockets lie there, and their names must not be long."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OPEN.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        root = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        (root / "node").mkdir()
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", f"--port={(port := free_port())}", f"--temp-dir={root}/ray"),
            *("--include-dashboard=false", "--object-store-memory=150000000", "--disable-usage-stats"),
        ]
        environment = {**os.environ, "TMPDIR": str(root / "node"), "PYTHONPATH": str(REPOSITORY)}
        with (root / "log").open("wb") as log:
            head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while "Ray runtime started" not in (root / "log").read_text():
                assert head.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
                time.sleep(0.1)
            yield Cluster(f"127.0.0.1:{port}", root / "node")
        finally:
            head.terminate()
            head.wait(30)
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def training_jobs(count: int = 6) -> list[TrainingJob]:
    """Runs over two token sets, which are written into the project."""
    sets = {}
    for name in ("a", "b"):
        tokens = generator("test ray", name).integers(0, 200, size=4000).astype("<u2")
        write_tokens(Path(f"build/{name}.npy"), tokens)
        sets[name] = TokenSet(name, Path(f"build/{name}.npy"), identity_of(tokens), 249)
    shares = np.linspace(0, 1, count)
    return [
        TrainingJob(spec_for(f"{k}", {"a": share, "b": 1 - share}, sets, RECIPE, k)) for k, share in enumerate(shares)
    ]


def evaluation_jobs(runs: Sequence[TrainingJob]) -> list[EvaluationJob]:
    """Two tasks for every run, in the journal."""
    journal = Journal(HERE.state)
    files = tuple(
        keep_task(
            encode_task(Task(name, (("2 + 2 = ", "4"), ("", name * 9)), f"digest {name}"), TOKENIZER, 16), journal
        )
        for name in ("sums", "words")
    )
    return [EvaluationJob(run.key, journal.weights_path(run.key), RECIPE, files) for run in runs]


def locally() -> Engine:
    return LocalEngine(Journal(HERE.state), SETUP, 2)


def done(jobs: Sequence[Job], open_engine: Callable[[], Engine]) -> tuple[Outcome, list[Progress]]:
    seen: list[Progress] = []
    return run_jobs(jobs, Journal(HERE.state), open_engine, seen.append), seen


def entries(folder: Path = Path()) -> dict[str, bytes]:
    """The journal's files."""
    paths = [path for path in sorted((folder / ".olmix").rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Plain:
    """Writes what it saw to the journal, after what `trouble` says, in a folder that outlives it."""

    key: str
    outside: Path
    trouble: str = ""
    inputs: tuple[Path, ...] = ()
    tokens: int = 10
    stores: bool = False

    @property
    def name(self) -> str:
        return f"job {self.key}"

    @property
    def entry(self) -> Entry:
        return Entry(self.name, "input", b"", ())

    def moved(self, old: Path, new: Path) -> Plain:
        return replace(self, inputs=tuple(new / path.relative_to(old) for path in self.inputs))

    def find(self, journal: Journal) -> dict[str, Any] | None:
        path = journal.record_path(self.key)
        return read_json(path) if path.exists() else None

    @property
    def sought(self) -> tuple[Entry, ...]:
        return ()

    def adopt(self, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
        assert not found

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        with (self.outside / f"tries-{self.key}").open("a") as tries:
            tries.write("x")
        (self.outside / f"pid-{self.key}").write_text(f"{os.getpid()}")
        if self.trouble == "die once" and self.tries() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "fail":
            raise TrainingError("loss nan at step 3")
        if self.trouble == "bad data":
            raise DataError("a.npy: changed since the run was planned")
        if self.trouble == "defect":
            raise ZeroDivisionError("division by nought")
        if self.trouble == "sleep" or (self.trouble == "sleep once" and self.tries() == 1):
            time.sleep(120)
        progress(self.tokens)
        seen = {path.name: path.read_text() for path in self.inputs}
        write_json(journal.record_path(self.key), {"folder": str(journal.folder), "seen": seen, "device": setup.device})

    def tries(self) -> int:
        return len((self.outside / f"tries-{self.key}").read_text())


@dataclass(frozen=True)
class KilledOnce(TrainingJob):
    """Is killed after half of its steps when it is tried first, and notes what it reads each time."""

    outside: Path = Path()

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        note = self.outside / f"tokens-{self.key}"
        first = not note.exists()

        def watched(tokens: int) -> None:
            progress(tokens)
            with note.open("a") as file:
                file.write(f"{tokens}\n")
            if first and len(note.read_text().splitlines()) == RECIPE.steps // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        super().run(journal, replace(setup, checkpoint_seconds=0.0), watched)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_swarm_and_its_evaluations_are_those_of_the_local_engine(
    cluster: Cluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = training_jobs()
    # One of the runs dies half-way and goes on from its checkpoint.
    victim = KilledOnce(runs[2].spec, outside=tmp_path)
    outcome, seen = done([*runs[:2], victim, *runs[3:]], cluster.engine())
    assert outcome.done == 6
    assert outcome.failed == {}
    read = list(map(int, (tmp_path / f"tokens-{victim.key}").read_text().split()))
    assert RECIPE.steps <= len(read) <= RECIPE.steps + 1  # the step at which it died had no checkpoint yet
    assert seen[-1].finished == 6
    # What was measured already is neither measured again nor lost.
    evaluations = evaluation_jobs(runs[:3])
    known = {evaluations[0].tasks[0].identity: {"bpb": 1.5, "bytes": 1, "uniform": 8.0}}
    Journal(HERE.state).store_evaluations(runs[0].key, known)
    outcome, seen = done(evaluations, cluster.engine())
    assert outcome.done == 3
    assert outcome.results[runs[0].key]["sums"]["bpb"] == 1.5
    assert outcome.results[runs[1].key]["sums"]["bpb"] > 2
    assert seen[-1] == Progress(0, 3, 3, 3 * evaluations[0].tokens, 3 * evaluations[0].tokens)
    assert cluster.left() == []
    # A second start finds all, and needs no engine for it.
    again, _ = done([*runs, *evaluations[3:]], lambda: pytest.fail("there is nothing to do"))
    assert again.in_journal == 6

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done(training_jobs(), locally)
    Journal(HERE.state).store_evaluations(runs[0].key, known)
    done(evaluation_jobs(runs[:3]), locally)
    assert list(entries()) == list(entries(project))
    assert entries() == entries(project)


def test_dead_workers_failing_jobs_and_jobs_files(cluster: Cluster, project: Path, tmp_path: Path) -> None:
    text = HERE.root / "build/deep/text"
    write_bytes(text, b"sent")
    reading, also = Plain("reading", tmp_path, inputs=(text,)), Plain("also", tmp_path, inputs=(text,))
    victim, bad = Plain("victim", tmp_path, "die once"), Plain("bad", tmp_path, "fail")
    outcome, seen = done([reading, victim, bad, also], cluster.engine(cpus=0.5))
    assert outcome.failed == {"bad": "loss nan at step 3"}
    assert bad.tries() == 2
    assert victim.tries() == 2
    assert set(outcome.results) == {"reading", "victim", "also"}
    assert seen[-1] == Progress(0, 3, 4, 30, 40)
    for job in (reading, also):
        result = outcome.results[job.key]
        assert result["seen"] == {"text": "sent"}
        assert Path(result["folder"]).is_relative_to(cluster.folder)
        assert not Path(result["folder"]).exists()
    assert cluster.left() == []


def test_an_error_that_is_no_run_s_own_is_raised_as_it_was(
    cluster: Cluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.engine()() as engine:

        def does(job: Plain) -> None:
            engine.start([job])
            while not engine.endings(1.0):
                pass

        does(Plain("good", tmp_path))
        with pytest.raises(DataError, match=r"^a.npy: changed since the run was planned$"):
            does(Plain("x", tmp_path, "bad data"))
        with pytest.raises(ZeroDivisionError, match="division by nought"):
            does(Plain("x", tmp_path, "defect"))
        with pytest.raises(DataError, match=r"gone: no such file, but a run reads it; run `dvc repro` again$"):
            does(Plain("x", tmp_path, inputs=(HERE.root / "gone",)))
        for outside in (Path("/etc/hostname"), HERE.root / "../x"):
            with pytest.raises(DataError, match="is outside the project"):
                does(Plain("x", tmp_path, inputs=(outside,)))
        there = f"{olmix.__version__} with recipe {RECIPE_VERSION}"
        assert there == ray_cluster.VERSION
        monkeypatch.setattr(ray_cluster, "VERSION", f"{olmix.__version__} with recipe 0")
        with pytest.raises(
            ConfigError, match=rf"has olmix {there}, but this project has .* recipe 0; install the same"
        ):
            does(Plain("x", tmp_path))
    assert [path.name for path in Path(".olmix/runs").iterdir()] == ["good.json"]


def test_an_interrupt_ends_what_runs_and_keeps_what_is_finished(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.finished == 1 and (tmp_path / "pid-long").exists():
            raise KeyboardInterrupt

    long, short = Plain("long", tmp_path, "sleep"), Plain("short", tmp_path)
    with pytest.raises(Interrupted) as raised:
        run_jobs([long, short], Journal(HERE.state), cluster.engine(), interrupt)
    assert str(raised.value) == ""
    wait_until(lambda: not is_alive(int((tmp_path / "pid-long").read_text())))
    assert short.find(Journal(HERE.state)) is not None
    assert long.find(Journal(HERE.state)) is None


def test_a_cluster_without_room_is_named(
    cluster: Cluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ROOM_SECONDS", 0.5)
    with pytest.raises(TrainingError, match=r"no node for a run of 1 CPUs and 1 GPUs .its nodes: 2 CPUs and 0 GPUs"):
        done([Plain("x", tmp_path)], cluster.engine(gpus=1))


SCRIPT = """
import sys
from pathlib import Path
from olmix.runs.engine import run_jobs
from olmix.runs.job import Setup
from olmix.runs.journal import Journal
from olmix.runs.ray_cluster import RayEngine, RaySettings
from tests.project import HERE
from tests.test_ray import Plain

outside, trouble = Path(sys.argv[1]), sys.argv[2]
open_engine = lambda: RayEngine(Journal(HERE.state), Setup(), RaySettings(), None)
jobs = [Plain("x", outside, trouble), Plain("y", outside)]
run_jobs(jobs, Journal(HERE.state), open_engine, lambda progress: None)
"""


def script(tmp_path: Path, short: Path, trouble: str) -> subprocess.Popen[str]:
    """A driver with a Ray of its own."""
    environment = {
        **os.environ,
        **OPEN,
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(tmp_path),
        "RAY_TMPDIR": str(short),
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), trouble],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    """Processes below `pid`, the Ray that it started among them."""
    found = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return found + [below for child in found for below in children(child)]


def test_a_ray_of_one_s_own_is_quiet_and_gone_with_its_engine(project: Path, tmp_path: Path, short: Path) -> None:
    out, err = script(tmp_path, short, "").communicate(timeout=60)
    assert (out, err) == ("", "")
    assert len(list(Path(".olmix/runs").glob("*.json"))) == 2
    wait_until(lambda: not is_alive(int((tmp_path / "pid-x").read_text())))
    assert list(tmp_path.glob("olmix-ray-*/*/*")) == []


def test_runs_end_with_a_driver_that_is_killed(project: Path, tmp_path: Path, short: Path) -> None:
    driver = script(tmp_path, short, "sleep")
    wait_until((tmp_path / "pid-x").exists, 60)
    started = children(driver.pid)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not is_alive(int((tmp_path / "pid-x").read_text())))
    for left in filter(is_alive, started):  # its Ray would take a minute
        os.kill(left, signal.SIGKILL)


def test_an_address_without_a_ray_is_named_on_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_connection, "HEALTH_SECONDS", 3.0)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        for address, reason in (
            (f"127.0.0.1:{mute.getsockname()[1]}", "no Ray answered within 3 s"),
            (f"127.0.0.1:{free_port()}", "Connection refused"),
            ("nonsense", "not an address; write auto or host:port"),
            ("host:port", "not an address; write auto or host:port"),
            ("ray://host:10001", "not an address; write auto or host:port"),
        ):
            with pytest.raises(ConfigError) as raised, RayEngine(Journal(HERE.state), SETUP, RaySettings(address)):
                pass
            assert str(raised.value) == f"runtime.yaml: ray.address: no Ray at {address}: {reason}"


def test_settings_that_ray_has_not_are_refused() -> None:
    for settings in ({"cpus": 0.0}, {"cpus": float("nan")}, {"gpus": 1.5}, {"gpus": -1.0}):
        with pytest.raises(ConfigError, match=f"runtime.yaml: ray.{next(iter(settings))}: "):
            RaySettings(**settings)
    for device, gpus in (("cuda", 0), ("cuda:1", 1)):
        with pytest.raises(ConfigError, match="write device: cuda"):
            RayEngine(Journal(HERE.state), Setup(device), RaySettings(gpus=gpus))


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray .*pip install 'olmix\[ray\]'"):
        RayEngine(Journal(HERE.state), SETUP, RaySettings())


def test_folders_of_dead_workers_go_with_the_next_job_and_checkpoints_stay_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    with ray_node._work_folder() as (first, journal):
        write_bytes(journal.checkpoint_path("run"), b"half-way")
        write_bytes(journal.checkpoint_path("forgotten"), b"half-way")
        os.utime(journal.checkpoint_path("forgotten"), (0, 0))
        left = first.parent / f"job-{dead.pid}-left"
        write_bytes(left / ".olmix/runs/run.json", b"of a worker that was killed")
        with ray_node._work_folder() as (second, again):
            assert first != second
            assert first.exists()
            assert again.checkpoint_path("run").read_bytes() == b"half-way"
            assert not again.checkpoint_path("forgotten").exists()
    assert [path.name for path in tmp_path.glob("*/*")] == ["checkpoints"]


def test_a_node_s_folder_that_is_another_user_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"olmix-ray-{os.getuid()}-{platform.node()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(OlmixError, match="belongs to another user"), ray_node._work_folder():
        pass
