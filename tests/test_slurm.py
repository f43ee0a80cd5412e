"""The Slurm engine on a real Slurm, with real runs: what happens to jobs, drivers and controllers changes no result."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.data.tokensets import open_token_sets, write_tokens
from olmix.errors import ConfigError, DataError, OlmixError
from olmix.progress import Progress
from olmix.proxy.recipe import Recipe
from olmix.runs import slurm as engine_module
from olmix.runs.engine import Ending, Outcome, run_jobs
from olmix.runs.job import Setup
from olmix.runs.journal import Journal
from olmix.runs.local import LocalEngine
from olmix.runs.record import spec_for
from olmix.runs.slurm import SlurmEngine, SlurmSettings
from olmix.runs.training_job import TrainingJob
from tests.project import HERE
from tests.slurm import Cluster, slurm, why_not

__all__ = ["slurm"]

REPOSITORY = Path(__file__).parent.parent
RECIPE = Recipe(
    layers=1, heads=2, width=32, hidden=48, vocabulary=64, sequence_length=16, tokens=16 * 8 * 60, batch_size=8,
    learning_rate=1e-2,
)  # fmt: skip
LONG = dataclasses.replace(RECIPE, tokens=16 * 8 * 800)
SETTINGS = SlurmSettings(minutes=5)

DRIVER = """
from tests.test_slurm import SlurmSettings, drive, engine_module, jobs
engine_module.POLL_SECONDS = 0.3
drive(jobs(3), SlurmSettings(minutes=5, array=2))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, which is the working directory; its name is one that a shell would not take as it is."""
    from tests.test_training import markov  # torch, which a driver does not need

    root = tmp_path / "team's $mix"
    for name, seed in (("a", 0), ("b", 1)):
        write_tokens(root / f"tokens/{name}.npy", markov(seed))
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(engine_module, "POLL_SECONDS", 0.3)
    return root


def jobs(count: int, recipe: Recipe = RECIPE) -> list[TrainingJob]:
    """`count` runs, each of its own mixture and seed."""
    sets = open_token_sets(Path("tokens"), recipe.sequence_length)
    rows = [{"a": (k + 1) / (count + 1), "b": 1 - (k + 1) / (count + 1)} for k in range(count)]
    return [TrainingJob(spec_for(f"{k:03d}", row, sets, recipe, k)) for k, row in enumerate(rows)]


def drive(
    todo: Sequence[TrainingJob],
    settings: SlurmSettings = SETTINGS,
    workers: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    journal = Journal(HERE.state)
    return run_jobs(todo, journal, lambda: SlurmEngine(journal, Setup(), settings, workers), report)


def trained_here(todo: Sequence[TrainingJob]) -> dict[str, bytes]:
    """What the jobs leave in a journal of their own, in this process."""
    from olmix.proxy.training import single_thread

    single_thread()
    for job in todo:
        job.run(Journal(Path("local")), Setup(), lambda tokens: None)
    return entries(Path("local"))


def entries(folder: Path = Path(".olmix")) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "runs").iterdir())}


def submitted(cluster: Cluster) -> list[dict[str, str]]:
    """All jobs that were ever submitted from the working directory, as Slurm shows them."""
    shown = cluster.ask("scontrol", "show", "job", "--oneliner").splitlines()
    found = [dict(re.findall(r"(\S+?)=(.*?) *(?= [\w/:]+=|$)", line)) for line in shown]
    return [job for job in found if job.get("WorkDir") == str(Path.cwd())]


def number(job: dict[str, str]) -> str:
    return f"{job['ArrayJobId']}_{job['ArrayTaskId']}" if "ArrayJobId" in job else job["JobId"]


def wait(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def all_endings(engine: SlurmEngine, count: int, seconds: float = 60) -> list[Ending]:
    found: list[Ending] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += engine.endings(0.5)
    return found


def test_a_swarm_is_the_same_bytes_as_trained_here(slurm: Cluster, project: Path) -> None:
    todo, seen, running = jobs(6), [], []

    def report(progress: Progress) -> None:
        seen.append(progress)
        running.append(slurm.ask("squeue", "--noheader", "--format=%T %Z").count(f"RUNNING {project}\n"))

    settings = dataclasses.replace(SETTINGS, array=2, sbatch=("--comment='spring swarm'", "--nice=7"))
    outcome = drive(todo, settings, 3, report)
    assert outcome.done == 6
    local = Journal(Path("local"))
    run_jobs(todo, local, lambda: LocalEngine(local, Setup(), 2), lambda progress: None)
    assert entries() == entries(local.folder)
    assert max(running) == 3
    assert seen[-1].work == sum(job.tokens for job in todo)
    shown = submitted(slurm)
    assert {job["Comment"] for job in shown} == {"spring swarm"}
    assert {job["Nice"] for job in shown} == {"7"}
    arrays = [job.get("ArrayJobId", job["JobId"]) for job in shown]
    assert len(arrays) == 6
    assert max(arrays.count(array) for array in arrays) == 2
    assert [path.name for path in Path(".olmix/slurm").iterdir()] == ["lock"]


def test_jobs_that_slurm_ends_are_lost_and_trained_again(slurm: Cluster, project: Path) -> None:
    todo = jobs(2, LONG)
    with SlurmEngine(Journal(HERE.state), Setup(), SETTINGS) as engine:
        engine.start(todo)
        ids = [f"{submitted(slurm)[0]['ArrayJobId']}_{place}" for place in range(2)]
        waiting = {0: (), 1: ("--signal=USR2",)}  # as people cancel, and what comes before a time limit
        while waiting:
            for path in project.glob(".olmix/slurm/*/[0-9]*.tokens"):
                words = waiting.pop(int(path.stem), None)
                if words is not None:
                    slurm.ask("scancel", *words, ids[int(path.stem)])
        ended = {ending.key: ending for ending in all_endings(engine, 2)}
        assert [ended[job.key].how for job in todo] == ["lost", "lost"]
        # Asked to end by SIGTERM, it said so before Slurm did.
        asked = r"was told to stop \(preempted, cancelled, or near its time limit\)"
        for job, id_ in zip(todo, ids, strict=True):
            assert re.fullmatch(f"job {id_} {asked}", ended[job.key].reason)
        assert re.search(rf"{asked}; see .*/{ids[0]}_0_log.out|{ids[1]}_0_log.out", engine.advice)
        engine.start(todo)
        assert {ending.how for ending in all_endings(engine, 2)} == {"done"}
    assert entries() == trained_here(todo)


def test_a_job_that_is_gone_without_a_word_says_what_slurm_knows(slurm: Cluster, project: Path) -> None:
    python = [sys.executable, "-c", "import sys, time; time.sleep(1); sys.exit('no olmix \"here\"')"]
    with SlurmEngine(
        Journal(HERE.state), Setup(), dataclasses.replace(SETTINGS, python=shlex.join(python)), 1
    ) as engine:
        engine.start(jobs(2))
        array = submitted(slurm)[0]["ArrayJobId"]
        slurm.ask("scancel", f"{array}_1")
        reasons = [ending.reason for ending in all_endings(engine, 2)]
    assert sorted(reasons) == [
        f'job {array}_0 failed with exit code 1:0: no olmix "here"',
        f"job {array}_1 was cancelled before it started",
    ]


def test_a_run_that_diverges_twice_is_set_aside_and_named(slurm: Cluster, project: Path) -> None:
    good, bad = jobs(1)[0], jobs(2, dataclasses.replace(RECIPE, learning_rate=1e38, warmup=0.0))[1]
    outcome = drive([good, bad])
    assert set(outcome.results) == {good.key}
    assert list(outcome.failed) == [bad.key]
    assert re.match(r"loss (nan|inf) at step \d+ of 60; lower proxy.learning_rate", outcome.failed[bad.key])
    assert len(submitted(slurm)) == 3


def test_an_error_that_is_no_job_s_own_is_raised_and_says_what_goes_on(slurm: Cluster, project: Path) -> None:
    todo = jobs(2)
    shutil.copy(project / "tokens/a.npy", project / "tokens/b.npy")
    expected = r"tokens/b.npy: changed since the run was planned; run `dvc repro` again; 1 job continues in Slurm; .*"
    with pytest.raises(DataError, match=expected):
        drive(todo, workers=1, settings=dataclasses.replace(SETTINGS, minutes=1))


def test_drivers_that_are_killed_leave_jobs_that_the_next_one_takes_up(slurm: Cluster, project: Path) -> None:
    drivers = [subprocess.Popen([sys.executable, "-c", DRIVER], cwd=project) for _ in range(2)]
    wait(lambda: len(list(project.glob(".olmix/slurm/*/[0-9]*.tokens"))) >= 1)
    for driver in drivers:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    first = {number(job) for job in submitted(slurm)}
    outcome = drive(jobs(3))
    assert len(outcome.results) == 3
    assert {number(job) for job in submitted(slurm)} == first
    assert len(first) == 3
    assert entries() == trained_here(jobs(3))


def test_an_interrupt_says_what_goes_on_and_how_to_end_it(slurm: Cluster, project: Path) -> None:
    settings = SlurmSettings(partition="main", gpus=1, cpus=2, memory="100M", minutes=7)
    with SlurmEngine(Journal(HERE.state), Setup(), settings) as engine:
        engine.start(jobs(2, LONG))
        message = engine.interrupt()
    found = re.fullmatch(
        r"2 jobs continue in Slurm; `dvc repro` collects the results, `(scancel \d+)` cancels", message
    )
    assert found is not None
    shown = submitted(slurm)[0]
    assert (shown["Partition"], shown["NumCPUs"], shown["MinMemoryNode"]) == ("main", "2", "100M")
    assert (shown["TresPerNode"], shown["TimeLimit"]) == ("gres:gpu:1", "00:07:00")
    with SlurmEngine(Journal(HERE.state), Setup(), settings) as engine:
        engine.start(jobs(2, LONG))
        slurm.ask(*found[1].split())
        assert {ending.how for ending in all_endings(engine, 2)} == {"lost"}
        assert engine.interrupt() == ""


def test_slurm_s_own_reason_when_it_refuses(slurm: Cluster, project: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        drive(jobs(2), dataclasses.replace(SETTINGS, partition="nowhere"))
    assert str(raised.value) == (
        "runtime.yaml: slurm: Slurm rejected the jobs: invalid partition specified: nowhere; "
        "Batch job submission failed: Invalid partition name specified"
    )
    assert [path.name for path in Path(".olmix/slurm").iterdir()] == ["lock"]


def test_without_sbatch_or_submitit_a_line_says_what_to_do(
    tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(ConfigError, match=r"slurm needs submitit; run `pip install 'olmix\[slurm\]'`, or choose"):
            SlurmEngine(Journal(tmp_path), Setup(), SETTINGS)
    with monkeypatch.context() as patch:
        patch.setenv("SBATCH_JOB_NAME", "mine")
        with pytest.raises(ConfigError, match="SBATCH_JOB_NAME is set, and sbatch would use it"):
            SlurmEngine(Journal(tmp_path), Setup(), SETTINGS)
    with monkeypatch.context() as patch:
        patch.delenv("SLURM_CONF")
        with pytest.raises(ConfigError, match=r"squeue of Slurm finds no cluster here \(.*\); set SLURM_CONF"):
            SlurmEngine(Journal(tmp_path), Setup(), SETTINGS).start([])
    with pytest.raises(ConfigError, match="sbatch does not accept %"):
        SlurmEngine(Journal(tmp_path / "100%"), Setup(), SETTINGS)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"runtime.yaml: engine: slurm needs sbatch, which is not on the PATH; run"):
        SlurmEngine(Journal(tmp_path), Setup(), SETTINGS)


@pytest.fixture
def own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose controller can be stopped without anybody else waiting for it."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(tmp_path / "cluster")
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    cluster.start()
    yield cluster
    cluster.stop()


def test_a_controller_that_is_away_for_a_moment_loses_nothing(
    own_cluster: Cluster, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = jobs(1, LONG)
    with SlurmEngine(Journal(HERE.state), Setup(), SETTINGS) as engine:
        engine.start(todo)
        own_cluster.stop_controller()
        time.sleep(0.3)
        assert engine.endings(0.1) == []
        expected = r"Slurm has not answered for 0 minutes: squeue: .*; 1 job continues in Sl"
        with monkeypatch.context() as patch, pytest.raises(OlmixError, match=expected):
            patch.setattr(engine_module, "SILENCE_SECONDS", 1.0)
            engine.endings(20)
        own_cluster.start_controller()
        assert [ending.how for ending in all_endings(engine, 1)] == ["done"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": -1}, "slurm.gpus: -1 is below the minimum of 0"),
        ({"minutes": 0}, "slurm.minutes: 0 is below the minimum of 1"),
        ({"partition": "a\nrm -rf"}, "slurm.partition: 'a.nrm -rf' is not a partition name"),
        ({"memory": "8 GB"}, "slurm.memory: '8 GB' is not an amount of memory; write it as in 8G"),
        ({"python": "'"}, "slurm.python: .*: No closing quotation"),
        ({"python": ""}, "slurm.python: '' is not a command"),
        ({"sbatch": ("-A x",)}, "slurm.sbatch: '-A x' must be one line with one --option"),
        ({"sbatch": ("--comment=x --array=0-3",)}, "slurm.sbatch: .* must be one line with one --option"),
        ({"sbatch": ("--arr=1-4",)}, "slurm.sbatch: --arr is set by olmix"),
        ({"sbatch": ("--output=/etc/passwd",)}, "slurm.sbatch: --output is set by olmix"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^runtime.yaml: {message}"):
        dataclasses.replace(SETTINGS, **change).validate()  # type: ignore[arg-type]


@given(st.text(), st.text())
def test_no_setting_ends_its_line_of_the_batch_script(line: str, word: str) -> None:
    settings = SlurmSettings(partition=word, memory=word, sbatch=(f"--comment={line}",), python=word)
    try:
        settings.validate()
    except ConfigError:
        return
    assert len(f"{word}{line}{settings.command()}".splitlines()) <= 1
