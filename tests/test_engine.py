"""The engine and the journal survive what happens to long work: dead workers, failing jobs, interrupts, full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from olmix import files
from olmix.data.tokensets import TokenSet
from olmix.errors import DataError, OlmixError, TrainingError
from olmix.files import read_json, write_bytes, write_json
from olmix.progress import Progress
from olmix.proxy.recipe import Recipe
from olmix.runs.engine import Ending, run_jobs
from olmix.runs.job import Setup
from olmix.runs.journal import Journal, evaluations_from_bytes, evaluations_to_bytes
from olmix.runs.local import LocalEngine
from olmix.runs.record import RunSpec
from olmix.runs.sharing import Candidate, Entry
from olmix.runs.training_job import TrainingJob
from olmix.terminal.progress import ProgressDisplay
from tests.project import ENVIRONMENT, Project


@dataclass(frozen=True)
class Job:
    """Writes its key to the journal, after what `trouble` says: die (once or always), or fail."""

    key: str
    trouble: str = ""
    stores: bool = True

    @property
    def inputs(self) -> tuple[Path, ...]:
        return ()

    @property
    def entry(self) -> Entry:
        return Entry(f"job {self.key}", f"{self.key}.in", self.key.encode(), (f"runs/{self.key}.json",))

    @property
    def sought(self) -> tuple[Entry, ...]:
        return (self.entry,)

    def adopt(self, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
        for candidate in found.get(self.entry, ()):
            write_bytes(journal.folder / "runs" / f"{self.key}.json", candidate[self.entry.outputs[0]].read_bytes())

    @property
    def name(self) -> str:
        return f"job {self.key}"

    @property
    def tokens(self) -> int:
        return 10

    def find(self, journal: Journal) -> dict[str, Any] | None:
        path = journal.folder / "runs" / f"{self.key}.json"
        return read_json(path) if path.exists() else None

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        with (journal.folder / f"tries-{self.key}").open("a") as tries:
            tries.write("x")
        if self.trouble == "die" or (self.trouble == "die once" and self.tries(journal) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "fail":
            raise TrainingError("loss nan at step 3")
        progress(self.tokens)
        write_json(journal.folder / "runs" / f"{self.key}.json", {"key": self.key})

    def tries(self, journal: Journal) -> int:
        return len((journal.folder / f"tries-{self.key}").read_text())


@dataclass
class Memory:
    """A shared cache of a few files that remembers what it was asked and given, in order; it `fails` so many times."""

    files: dict[str, Path] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    given: list[list[str]] = field(default_factory=list)
    fails: int = 0

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        self.asked.append([entry.command for entry in entries])
        return {e: [{e.outputs[0]: self.files[e.command]}] for e in entries if e.command in self.files}

    def store(self, entries: Sequence[Entry]) -> bool:
        self.given.append([entry.command for entry in entries])
        self.fails -= 1
        return self.fails < 0


def local(journal: Journal) -> Callable[[], LocalEngine]:
    return lambda: LocalEngine(journal, Setup(), 2)


def run(tmp_path: Path, jobs: list[Job], shared: Memory | None = None) -> tuple[Any, list[Progress], Journal]:
    seen: list[Progress] = []
    journal = Journal(tmp_path)
    return run_jobs(jobs, journal, local(journal), seen.append, shared), seen, journal


def test_jobs_are_done_once_and_found_again(tmp_path: Path) -> None:
    jobs = [Job(f"{k}") for k in range(5)] + [Job("3")]
    outcome, seen, _ = run(tmp_path, jobs)
    assert outcome.done == 5
    assert set(outcome.results) == {"0", "1", "2", "3", "4"}
    assert seen[-1] == Progress(0, 5, 5, 50, 50)
    again, seen, journal = run(tmp_path, [*jobs, Job("new")])
    assert again.done == 1
    assert seen[-1].found == 5
    assert jobs[0].tries(journal) == 1


def test_a_worker_that_dies_takes_no_other_job_with_it(tmp_path: Path) -> None:
    jobs = [Job("victim", "die once"), *(Job(f"{k}") for k in range(6))]
    outcome, _, journal = run(tmp_path, jobs)
    assert len(outcome.results) == 7
    assert outcome.failed == {}
    assert jobs[0].tries(journal) == 2


def test_a_job_that_fails_twice_is_set_aside_and_named(tmp_path: Path) -> None:
    bad = Job("bad", "fail")
    outcome, _, journal = run(tmp_path, [bad, Job("good")])
    assert outcome.failed == {"bad": "loss nan at step 3"}
    assert set(outcome.results) == {"good"}
    assert bad.tries(journal) == 2


def test_workers_that_keep_dying_stop_the_stage_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"died 3 times without finishing a job; jobs left: 1; lower runtime.yaml"):
        run(tmp_path, [Job("poison", "die")])


class Scripted:
    """An engine whose jobs end as `script` says, a list of keys and endings at a time."""

    patience = 3
    advice = "do something"

    def __init__(self, journal: Journal, *script: Sequence[tuple[str, Literal["done", "lost"]]]) -> None:
        self.journal = journal
        self.script = list(script)

    def start(self, jobs: Sequence[object]) -> None: ...

    def endings(self, seconds: float) -> list[Ending]:
        for key, how in (now := self.script.pop(0)):
            if how == "done":
                write_json(self.journal.folder / "runs" / f"{key}.json", {"key": key})
        return [Ending(key, how) for key, how in now]

    def tokens(self) -> int:
        return 0

    def interrupt(self) -> str:
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_losses_count_only_while_nothing_else_is_done(tmp_path: Path) -> None:
    journal, jobs = Journal(tmp_path), [Job("unlucky"), Job("a"), Job("b")]
    lost: list[Sequence[tuple[str, Literal["done", "lost"]]]] = [[("unlucky", "lost")]] * 2
    engine = Scripted(journal, *lost, [("a", "done")], *lost, [("b", "done")], *lost, [("unlucky", "done")])
    assert set(run_jobs(jobs, journal, lambda: engine, lambda _: None).results) == {"unlucky", "a", "b"}
    assert engine.script == []
    again = Scripted(Journal(tmp_path / "again"), [("a", "done")], *lost, *lost)
    with pytest.raises(TrainingError, match=r"died 3 times without finishing a job; jobs left: 1; do something"):
        run_jobs(jobs, again.journal, lambda: again, lambda _: None)


def test_what_the_shared_cache_holds_is_not_done_and_what_is_done_goes_into_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text('{"key": "a"}')
    (tmp_path / "broken.json").write_text("{half")
    shared = Memory({"job a": tmp_path / "theirs.json"})
    jobs = [Job("a"), Job("b"), Job("here"), Job("secret", stores=False)]
    run(tmp_path, [Job("here")])
    outcome, _, journal = run(tmp_path, jobs, shared)
    assert (outcome.in_journal, outcome.in_cache, outcome.done) == (1, 1, 2)
    assert set(outcome.results) == {"a", "b", "here", "secret"}
    assert shared.asked == [["job a", "job b", "job secret"]]
    assert not (journal.folder / "tries-a").exists()
    # As soon as it is done, and at the end what the journal held: it may never have been stored.
    assert shared.given == [["job b"], ["job here"]]


def test_what_could_not_be_stored_at_once_is_stored_at_the_end(tmp_path: Path) -> None:
    shared = Memory(fails=1)
    run(tmp_path, [Job("a")], shared)
    assert shared.given == [["job a"], ["job a"]]


def test_an_interrupted_driver_stores_what_was_finished_and_says_what_goes_on(tmp_path: Path) -> None:
    shared, journal = Memory(), Journal(tmp_path)

    def interrupt(progress: Progress) -> None:
        if progress.finished:
            raise KeyboardInterrupt

    class Cluster(LocalEngine):
        def interrupt(self) -> str:
            super().interrupt()
            return "2 jobs go on"

    with pytest.raises(KeyboardInterrupt, match="2 jobs go on"):
        run_jobs([Job(f"{k}") for k in range(30)], journal, lambda: Cluster(journal, Setup(), 2), interrupt, shared)
    assert 0 < len(shared.given[0]) < 30


def test_what_must_not_be_done_is_refused_before_anything_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def refuse(jobs: Sequence[Job], journal: Journal) -> None:
        raise DataError(f"refused: {', '.join(job.key for job in jobs)}")

    run(tmp_path, [Job("0")])
    with pytest.raises(DataError, match="refused: 1, 2"):
        run_jobs([Job(f"{k}") for k in range(3)], journal, local(journal), print, check=refuse)
    assert not (tmp_path / "tries-1").exists()


def test_an_entry_whose_weights_are_not_its_own_is_trained_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write_bytes(journal.weights_path("k"), b"weights")
    journal.finish_run("k", {"seed": 1})
    assert journal.find_run("k") is not None
    assert journal.find_run("other") is None
    journal.weights_path("k").write_bytes(b"weightz")
    assert journal.find_run("k") is None
    write_bytes(journal.weights_path("k"), b"weights")
    foreign = read_json(tmp_path / "runs/k.json")
    write_json(tmp_path / "runs/k.json", {**foreign, "key": "another"})
    assert journal.find_run("k") is None
    (tmp_path / "runs/k.json").write_text("{half")
    assert journal.find_run("k") is None


def test_an_evaluation_that_was_edited_is_measured_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    score = {"bpb": 2.5, "bytes": 100, "uniform": 4.0}
    journal.store_evaluations("run", {"task": score})
    journal.store_evaluations("run", {"another": score})
    assert journal.find_evaluations("run") == {"task": score, "another": score}
    path = journal.evaluations_path("run")
    written = path.read_bytes()
    for damaged in (written.replace(b"2.5", b"0.1"), written[:-9], b"5", b"[]", b'{"run": "run"}'):
        path.write_bytes(damaged)
        assert journal.find_evaluations("run") == {}
    assert evaluations_from_bytes("run", evaluations_to_bytes("foreign", {"task": score})) == {}
    for impossible in ({}, {**score, "bpb": -5.0}, {**score, "bpb": None}, {**score, "bytes": "many"}):
        content = evaluations_to_bytes("run", {"task": impossible, "good": score})
        assert evaluations_from_bytes("run", content) == {"good": score}


def test_a_record_of_another_recipe_under_this_key_is_no_result(tmp_path: Path) -> None:
    journal, job = Journal(tmp_path), TrainingJob(RUN)
    write_bytes(journal.weights_path(RUN.key), b"weights")
    journal.finish_run(RUN.key, RECORD)
    assert job.find(journal) is not None
    for part in ({"recipe": {**RECORD["recipe"], "layers": 2}}, {"seed": 1}, {"counts": {}}, {"set_curves": {}}):
        journal.finish_run(RUN.key, {**RECORD, **part})
        assert job.find(journal) is None, part
    for name in RECORD:
        journal.finish_run(RUN.key, {key: value for key, value in RECORD.items() if key != name})
        assert job.find(journal) is None, name


def test_a_pool_that_breaks_while_jobs_are_given_out_loses_them_and_is_made_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with LocalEngine(journal, Setup(), 2) as engine:
        engine.start([Job("dies", "die once")])
        while not (tmp_path / "tries-dies").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # the pool has noticed, and nobody has asked it yet
        engine.start([Job("late")])
        endings = {ending.key: ending.how for ending in engine.endings(5)}
        assert endings == {"dies": "lost", "late": "lost"}
        engine.start([Job("late")])
        assert [ending.how for ending in engine.endings(30)] == ["done"]


def test_a_stage_whose_dvc_is_gone_knows_it_through_any_shell(tmp_path: Path) -> None:
    """dash stays between DVC and the stage when DVC is killed."""
    stage = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from olmix.runs.starter import starter\n"
        "before = starter(); print(len(before), os.getppid(), flush=True)\n"
        "while starter() == before: time.sleep(0.05)\n"
        "open(sys.argv[2], 'w').write('gone')"
    )
    told = tmp_path / "told"
    (tmp_path / "stage.py").write_text(stage)
    driver = (
        "import subprocess, sys, time; p = subprocess.Popen(['/bin/sh', '-c', sys.argv[1] + '; true'], "
        "stdout=subprocess.PIPE, text=True); print(p.stdout.readline(), p.pid, flush=True); time.sleep(60)"
    )
    command = f"{sys.executable} {tmp_path / 'stage.py'} {Path.cwd()} {told}"
    process = subprocess.Popen(
        [sys.executable, "-c", driver, command], env={**ENVIRONMENT, "DVC_STAGE": "train"}, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().split()[0] == "2"
    process.kill()
    deadline = time.monotonic() + 20
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told.read_text() == "gone"


RUN = RunSpec(
    "0000", {"a": 80}, {"a": TokenSet("a", Path("a.npy"), "f" * 32, 9)}, Recipe(1, 2, 8, 8, 300, 8, 640, 4, 0.01), 0
)
RECORD = {**RUN.inputs, "tokens": 640, "curve": [], "set_curves": {"f" * 32: []}}
SCORE = {"bpb": 1.0, "bytes": 5, "uniform": 4.0}


def test_a_run_whose_weights_were_dropped_stands_on_its_evaluations(tmp_path: Path) -> None:
    journal, keeping = Journal(tmp_path), TrainingJob(RUN)
    dropping = TrainingJob(RUN, keep_weights=False, tasks=frozenset(["one", "two"]))
    write_bytes(journal.weights_path(RUN.key), b"weights")
    journal.finish_run(RUN.key, RECORD)
    assert keeping.find(journal) == dropping.find(journal) is not None
    journal.drop_weights(RUN.key)
    assert keeping.find(journal) is None
    for task, stands in (("one", False), ("two", True)):
        assert dropping.find(journal) is None
        journal.store_evaluations(RUN.key, {task: SCORE})
        assert (dropping.find(journal) is not None) is stands
    write_bytes(journal.weights_path(RUN.key), b"another's")
    assert dropping.find(journal) is None


def test_the_first_candidate_that_is_whole_is_adopted(tmp_path: Path) -> None:
    job, theirs, ours = TrainingJob(RUN), Journal(tmp_path / "theirs"), Journal(tmp_path / "ours")
    write_bytes(theirs.weights_path(RUN.key), b"weights")
    theirs.finish_run(RUN.key, RECORD)
    write_bytes(tmp_path / "damaged", b"weight")
    record, weights = job.entry.outputs
    whole = {record: theirs.record_path(RUN.key), weights: theirs.weights_path(RUN.key)}
    job.adopt(ours, {job.entry: [{**whole, weights: tmp_path / "damaged"}]})
    assert job.find(ours) is None
    job.adopt(ours, {job.entry: [{**whole, weights: tmp_path / "damaged"}, whole]})
    assert job.find(ours) == theirs.find_run(RUN.key)
    assert ours.weights_path(RUN.key).read_bytes() == b"weights"


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mixture.yaml"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OlmixError, match=r"mixture.yaml: cannot be written: No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = files._host()
    (tmp_path / f"runs/.olmix-tmp-{here}-{dead.pid}-x.json").write_text("half")
    (tmp_path / f"runs/.olmix-tmp-{here}-1-x.json").write_text("being written")
    (tmp_path / "runs/.olmix-tmp-elsewhere-1-y.json").write_text("being written on another machine")
    old = tmp_path / f"runs/.olmix-tmp-elsewhere-{dead.pid}-x.json"
    old.write_text("half, long ago")
    os.utime(old, (1e9, 1e9))
    Journal(tmp_path).sweep()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f".olmix-tmp-{here}-1-x.json",
        ".olmix-tmp-elsewhere-1-y.json",
    }


def test_an_interrupt_is_answered_and_finished_runs_are_kept(accepted: Project) -> None:
    subprocess.run(["rm", "-rf", ".olmix/runs", ".dvc/cache/runs", "build/proxies"], cwd=accepted.root, check=True)
    process = subprocess.Popen(
        ["python", "stages/train.py"], cwd=accepted.root, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    journal = accepted.root / ".olmix/runs"
    deadline = time.monotonic() + 60
    while len(list(journal.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; what was finished is in the journal; `dvc repro` continues from there"
    assert "Traceback" not in err
    kept = len(list(journal.glob("*.json")))
    assert 3 <= kept < 15
    ran = accepted.expect("python", "stages/train.py")
    assert ran.done("train") == 15 - kept


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 12.0, 13.0])
    monkeypatch.setattr("olmix.terminal.progress.time.monotonic", lambda: next(clock))
    with ProgressDisplay("train") as display:
        for tokens in (100, 1200, 1300):
            display(Progress(2, 1, 10, tokens, 2400))
    assert capsys.readouterr().err == "train: 3/10 runs, 100 tokens/s, 12 s left\n"
