"""Finished runs in DVC's run-cache: stored, pushed, found on a clone; and every trouble that a cache can have."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.pipeline import NO_REMOTE, RunCache, stores
from olmix.pipeline.dvc_internals import entry_value
from olmix.pipeline.entry_files import InvalidEntryError, Output, entry_file, key_of, read_entry_file
from olmix.pipeline.parallel import call_in_parallel
from olmix.pipeline.stores import file_md5
from olmix.runs.sharing import Candidate, Entry
from tests.project import ENVIRONMENT, REPOSITORY
from tests.s3 import CREDENTIALS, Endpoint, free_port, s3

__all__ = ["s3"]


class Clone:
    """A git and DVC repository, and what its run-cache said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []

    def run(self, *words: str) -> None:
        environment = ENVIRONMENT | CREDENTIALS
        done = subprocess.run(words, check=False, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    def remote(self, url: str, **options: str) -> None:
        lines = ["[core]", "    remote = team", "['remote \"team\"']", f"    url = {url}"]
        lines += [f"    {name} = {value}" for name, value in options.items()]
        (self.root / ".dvc/config").write_text("\n".join(lines) + "\n")

    def cache(self, patience: float = 20.0) -> RunCache:
        self.said = []
        return RunCache(self.root, self.said.append, patience)

    def find(self, entries: Sequence[Entry], patience: float = 20.0) -> dict[Entry, list[Candidate]]:
        return self.cache(patience).find(entries)

    def write(self, entry: Entry, version: int = 0) -> None:
        for path in entry.outputs:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(content(entry, path, version))

    def store(self, entries: Sequence[Entry], version: int = 0) -> None:
        for entry in entries:
            self.write(entry, version)
        self.cache().store(entries)
        assert self.said == []

    def push(self) -> None:
        self.run("dvc", "add", "-q", "build")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "runs")
        self.run("dvc", "push", "-q", "--run-cache")

    def clone(self, root: Path) -> Clone:
        self.run("git", "clone", "-q", str(self.root), str(root))
        return Clone(root)

    def kept(self) -> list[str]:
        """Names of all files in the local cache."""
        return names(self.root / ".dvc/cache")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def content(entry: Entry, path: str, version: int = 0) -> bytes:
    return f"{entry.command} left {path}, version {version}\n".encode() * 50


def an_entry(name: str) -> Entry:
    """A run's entry; its files lie where a push takes them from."""
    outputs = (f"build/{name}.safetensors", f"build/{name}.json")
    return Entry(f"olmix train {name}", f".olmix/inputs/{name}.json", f'{{"run": "{name}"}}'.encode(), outputs)


def right(entry: Entry, candidate: Candidate, version: int = 0) -> bool:
    """Whether a candidate holds the files that the entry left."""
    return {path: file.read_bytes() for path, file in candidate.items()} == {
        path: content(entry, path, version) for path in entry.outputs
    }


def object_of(folder: Path, entry: Entry, path: str) -> Path:
    md5 = hashlib.md5(content(entry, path)).hexdigest()
    return folder / "files/md5" / md5[:2] / md5[2:]


def entry_paths(folder: Path, entry: Entry) -> list[Path]:
    key = key_of(entry)
    return sorted((folder / "runs" / key[:2] / key).iterdir())


ONE, TWO, OTHER = an_entry("one"), an_entry("two"), an_entry("other")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    here = Path.cwd()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    yield
    os.chdir(here)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    empty = Clone(tmp_path_factory.mktemp("repository") / "empty")
    empty.root.mkdir()
    empty.run("git", "init", "-q", "-b", "main")
    empty.run("dvc", "init", "-q")
    return empty


@pytest.fixture
def project(template: Clone, tmp_path: Path) -> Clone:
    """A repository of one's own, without a remote."""
    shutil.copytree(template.root, tmp_path / "project")
    return Clone(tmp_path / "project")


@pytest.fixture(scope="module")
def published(template: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository whose runs were pushed to a folder, for all tests: do not change it."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(template.root, folder / "project")
    origin = Clone(folder / "project")
    origin.remote(str(folder / "remote"))
    here = Path.cwd()
    origin.store([ONE, TWO, OTHER])
    os.chdir(here)
    origin.push()
    return origin


@pytest.fixture
def colleague(published: Clone, tmp_path: Path) -> tuple[Clone, Path]:
    """A fresh clone, and a remote of its own to do harm to."""
    clone = published.clone(tmp_path / "clone")
    shutil.copytree(published.root.parent / "remote", tmp_path / "remote")
    clone.remote(str(tmp_path / "remote"))
    return clone, tmp_path / "remote"


# What it is for


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_clone_finds_what_was_pushed(
    kind: str, project: Clone, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "s3":
        endpoint: Endpoint = request.getfixturevalue("s3")
        project.remote(f"{endpoint.bucket('round-trip')}/team", endpointurl=endpoint.url)
    else:
        project.remote(str(tmp_path / "remote"))
    project.store([ONE, TWO])
    project.push()
    clone = project.clone(tmp_path / "clone")
    cache = clone.cache()
    assert cache.held([ONE, TWO]) == set()
    capfd.readouterr()
    found = cache.find([ONE, TWO, an_entry("never trained")])
    assert set(found) == {ONE, TWO}
    for entry, candidates in found.items():
        assert len(candidates) == 1
        assert right(entry, candidates[0])
        assert all(file.is_relative_to(clone.root) for file in candidates[0].values())
    assert cache.held([ONE, TWO]) == {ONE, TWO}
    assert capfd.readouterr() == ("", ""), "DVC's own messages and bars"
    assert clone.said == []
    clone.remote("s3://nowhere", endpointurl="http://127.0.0.1:1")
    assert set(clone.find([ONE, TWO])) == {ONE, TWO}, "found here: the remote is not asked"
    assert clone.said == []


def test_what_others_pushed_since_the_last_look_is_found(project: Clone, tmp_path: Path, s3: Endpoint) -> None:
    project.remote(s3.bucket("later"), endpointurl=s3.url)
    project.store([ONE])
    project.run("dvc", "push", "-q", "--run-cache")  # half a push: no stage has the files, which stay behind
    project.run("git", "commit", "-q", "-a", "-m", "remote")
    clone = project.clone(tmp_path / "clone")
    cache = clone.cache()
    assert cache.find([ONE]) == {}
    assert "lacks the files of 1 of 1 runs" in clone.said[0]
    project.store([ONE], version=1)
    project.push()
    os.chdir(clone.root)
    assert [right(ONE, found, 1) for found in cache.find([ONE])[ONE]] == [True]


def test_only_what_is_wanted_is_fetched(colleague: tuple[Clone, Path]) -> None:
    clone, remote = colleague
    assert set(clone.find([ONE])) == {ONE}
    objects = [object_of(remote, ONE, path).name for path in ONE.outputs]
    assert clone.kept() == sorted([*objects, *(path.name for path in entry_paths(remote, ONE))])


def test_the_same_work_with_two_outcomes_is_two_candidates(project: Clone, tmp_path: Path) -> None:
    project.remote(str(tmp_path / "remote"))
    for version in (0, 1):
        project.store([ONE], version)
        project.push()
    clone = project.clone(tmp_path / "clone")
    for found in (clone.find([ONE])[ONE], clone.find([ONE])[ONE], project.find([ONE])[ONE]):
        assert len(found) == 2
        assert {version for version in (0, 1) for each in found if right(ONE, each, version)} == {0, 1}
    in_order = [[file.name for file in each.values()] for each in clone.find([ONE])[ONE]]
    assert in_order == [[file.name for file in each.values()] for each in project.find([ONE])[ONE]]


@pytest.mark.parametrize(
    "other",
    [replace(ONE, command="olmix train"), replace(ONE, input=b"{}"), replace(ONE, input_path="in")],
    ids=["command", "input", "input path"],
)
def test_other_work_is_not_found(other: Entry, project: Clone) -> None:
    project.store([ONE])
    assert project.cache().held([ONE, other]) == {ONE}
    assert project.find([ONE, other]).keys() == {ONE}


def test_storing_again_changes_nothing(project: Clone) -> None:
    def written() -> dict[Path, tuple[int, ...]]:
        stats = {path: path.stat() for path in (project.root / ".dvc/cache").rglob("*")}  # reading changes times, too
        return {path: (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

    project.store([ONE, TWO])
    before = written()
    project.store([TWO, ONE])
    assert written() == before
    assert all(path.stat().st_mode & 0o222 == 0 for path in before if "files" in path.parts and path.is_file())


def test_only_what_changed_is_stored_again_and_large_files_are_not_read_for_that(
    project: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.store([ONE, TWO])
    weights, record = (project.root / path for path in ONE.outputs)
    weights.write_bytes(b"w" * 100_000)
    assert project.cache().store([ONE, TWO])
    assert len(entry_paths(project.root / ".dvc/cache", ONE)) == 2
    read: list[Path] = []
    monkeypatch.setattr(stores, "file_md5", lambda path: read.append(path) or file_md5(path))
    assert project.cache().store([ONE, TWO])
    assert weights not in read
    assert record in read
    record.write_bytes(record.read_bytes()[::-1])
    assert project.cache().store([ONE, TWO])
    assert len(entry_paths(project.root / ".dvc/cache", ONE)) == 3
    assert project.said == []


# What DVC makes of it


def test_dvc_has_the_same_names_and_restores_the_files(project: Clone) -> None:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage, create_stage

    project.store([ONE])
    ours = {path.relative_to(project.root): path.read_bytes() for path in entry_paths(project.root / ".dvc/cache", ONE)}
    (project.root / ONE.input_path).parent.mkdir(parents=True)
    (project.root / ONE.input_path).write_bytes(ONE.input)
    with contextlib.chdir(project.root), Repo() as repo:
        what = {"cmd": ONE.command, "deps": [ONE.input_path], "outs": list(ONE.outputs)}
        stage = create_stage(PipelineStage, repo=repo, path="dvc.yaml", **what)
        for path in ONE.outputs:
            (project.root / path).unlink()
        with repo.lock:
            repo.stage_cache.restore(stage)
        for path in ONE.outputs:
            assert (project.root / path).read_bytes() == content(ONE, path)
        shutil.rmtree(project.root / ".dvc/cache")
        with repo.lock:
            stage.save()
            stage.commit()
            repo.stage_cache.save(stage)
    theirs = [path.relative_to(project.root) for path in entry_paths(project.root / ".dvc/cache", ONE)]
    assert theirs == list(ours)
    assert right(ONE, project.find([ONE])[ONE][0]), "and what DVC stored is found"


WORDS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
DIGEST = st.text("0123456789abcdef", min_size=32, max_size=32)
# One letter e among digits: a number to some readers of YAML.
NUMBERLIKE = st.builds(lambda head, tail: f"{head}e{tail}".zfill(32), st.integers(0, 9**9), st.integers(0, 9**9))


@st.composite
def _files(draw: st.DrawFn) -> tuple[Entry, dict[str, Output]]:
    paths = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    stored = st.builds(Output, st.one_of(DIGEST, NUMBERLIKE), st.integers(0, 10**12))
    entry = Entry(draw(WORDS), draw(WORDS), draw(st.binary(max_size=20)), tuple(paths))
    return entry, {path: draw(stored) for path in paths}


@given(_files())
def test_an_entry_file_reads_as_it_was_written_by_us_and_by_dvc(drawn: tuple[Entry, dict[str, Output]]) -> None:
    from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
    from dvc.utils.serialize import loads_yaml

    entry, outputs = drawn
    written = entry_file(entry, outputs)
    read = read_entry_file(written.content, entry, written.value)
    assert read == written
    assert read.outputs == outputs
    theirs = COMPILED_LOCK_FILE_STAGE_SCHEMA(loads_yaml(written.content.decode()))
    assert {out["path"]: (out["md5"], out["size"]) for out in theirs["outs"]} == {
        path: (out.md5, out.size) for path, out in outputs.items()
    }
    assert entry_value(theirs) == written.value


@given(_files(), st.data())
def test_an_entry_file_that_was_cut_off_or_changed_is_refused(
    drawn: tuple[Entry, dict[str, Output]], data: st.DataObject
) -> None:
    entry, outputs = drawn
    written = entry_file(entry, outputs)
    last = written.content.rindex(b"}")
    with pytest.raises(InvalidEntryError):
        read_entry_file(written.content[: data.draw(st.integers(0, last))], entry, written.value)
    place, byte = data.draw(st.integers(0, last)), data.draw(st.sampled_from(b"0123456789abcdef{\x00"))
    changed = written.content[:place] + bytes([byte]) + written.content[place + 1 :]
    try:
        read = read_entry_file(changed, entry, written.value)
    except InvalidEntryError:
        return
    assert {path: out.md5 for path, out in read.outputs.items()} == {path: out.md5 for path, out in outputs.items()}


# What may be wrong with the files


def test_a_damaged_object_here_is_refused_and_stored_anew(project: Clone, caplog: pytest.LogCaptureFixture) -> None:
    project.store([ONE, TWO])
    damaged = object_of(project.root / ".dvc/cache", ONE, ONE.outputs[0])
    right_bytes = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(right_bytes[:-1] + b"?")
    damaged.chmod(0o444)  # DVC trusts a write-protected object without a look
    with caplog.at_level(logging.DEBUG, "olmix"):
        assert project.find([ONE, TWO]).keys() == {TWO}
    assert "damaged" in caplog.text
    project.store([ONE])
    assert damaged.read_bytes() == right_bytes
    assert project.find([ONE, TWO]).keys() == {ONE, TWO}


def test_an_object_that_was_cut_off_is_not_held_and_is_stored_anew(project: Clone) -> None:
    project.store([ONE])
    damaged = object_of(project.root / ".dvc/cache", ONE, ONE.outputs[0])
    damaged.chmod(0o644)
    damaged.write_bytes(b"")
    assert project.cache().held([ONE]) == set()
    project.store([ONE])
    assert project.find([ONE]).keys() == {ONE}


def test_objects_that_were_collected_as_garbage_come_back(colleague: tuple[Clone, Path]) -> None:
    clone, remote = colleague
    clone.find([ONE])
    shutil.rmtree(clone.root / ".dvc/cache/files")
    shutil.rmtree(remote / "runs")  # the entry is here; the remote has the objects
    assert right(ONE, clone.find([ONE])[ONE][0])


@pytest.mark.parametrize("harm", ["missing", "cut off", "other bytes"])
def test_a_remote_without_the_object_or_with_a_wrong_one(
    harm: str, colleague: tuple[Clone, Path], caplog: pytest.LogCaptureFixture
) -> None:
    clone, remote = colleague
    victim = object_of(remote, ONE, ONE.outputs[1])
    true = victim.read_bytes()
    victim.chmod(0o644)
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(true[:100] if harm == "cut off" else true[:-1] + b"?")
    cache = clone.cache()
    with caplog.at_level(logging.DEBUG, "olmix"):
        for _ in range(2):
            assert cache.find([ONE, TWO]).keys() == {TWO}
    assert clone.said == [
        "DVC remote 'team' lacks the files of 1 of 2 runs that it lists, or has damaged ones; "
        "these are trained here (`dvc push` only pushes current outputs)"
    ]
    assert ("is missing" if harm == "missing" else "is damaged") in caplog.text
    assert not object_of(clone.root / ".dvc/cache", ONE, ONE.outputs[1]).exists()
    assert not any(name.startswith(".olmix-tmp-") for name in clone.kept())
    clone.store([ONE])
    assert right(ONE, clone.find([ONE])[ONE][0])


BAD_ENTRIES = {
    "no YAML": b"\xff\xfe\x00: [",
    "empty": b"",
    "a list": b"- 1\n",
    "no outputs": b"cmd: x\n",
    "outputs that are text": b"cmd: x\nouts: [a, b]\n",
    "a folder's MD5": b"outs: [{path: build/one.json, md5: 0.dir}, {path: build/one.safetensors, md5: 0.dir}]\n",
    "copies of copies": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nouts: []\n",
    "far too large": b"cmd: " + b"x" * 100_000,
    "a key that is a list": b"? [a]\n: 1\nouts: []\n",
    "holds itself": b"a: &a [*a]\nouts: [{path: build/one.json, md5: '%s'}, {path: build/one.safetensors, md5: '%s'}]\n"
    % (b"0" * 32, b"0" * 32),
}


@pytest.mark.parametrize("place", ["here", "remote"])
@pytest.mark.parametrize("bad", BAD_ENTRIES)
def test_an_entry_file_that_is_none_is_refused(
    bad: str, place: str, colleague: tuple[Clone, Path], caplog: pytest.LogCaptureFixture
) -> None:
    clone, remote = colleague
    clone.find([ONE])
    folder = clone.root / ".dvc/cache" if place == "here" else remote
    shutil.rmtree((remote if place == "here" else clone.root / ".dvc/cache") / "runs")
    entry_paths(folder, ONE)[0].write_bytes(BAD_ENTRIES[bad])
    with caplog.at_level(logging.DEBUG, "olmix"):
        assert clone.find([ONE]) == {}
    assert "is rejected" in caplog.text
    assert clone.said == []
    clone.store([ONE])
    assert right(ONE, clone.find([ONE])[ONE][0])


@pytest.mark.parametrize("other", [TWO, replace(ONE, command="olmix train"), replace(ONE, input=b"{}")])
def test_an_entry_of_other_work_under_this_name_is_refused(other: Entry, colleague: tuple[Clone, Path]) -> None:
    clone, remote = colleague
    outputs = {path: Output(hashlib.md5(content(ONE, path)).hexdigest(), None) for path in other.outputs}
    theirs = entry_file(other, outputs)
    ours = entry_paths(remote, ONE)[0]
    ours.with_name(theirs.value).write_bytes(theirs.content)
    ours.unlink()
    assert clone.find([ONE]) == {}


def test_a_file_that_is_not_there_keeps_no_other_from_being_stored(project: Clone) -> None:
    project.write(TWO)
    cache = project.cache()
    cache.store([ONE, TWO, OTHER])
    assert cache.held([ONE, TWO, OTHER]) == {TWO}
    assert len(project.said) == 1
    assert project.said[0].startswith("build/one.safetensors cannot be read: ")


# What may be wrong with DVC, the remote and the disk: one line, and work goes on


def _one_line(said: Sequence[str], *parts: str) -> None:
    assert len(said) == 1, said
    assert "\n" not in said[0]
    assert all(part in said[0] for part in parts), said
    assert "runs are trained" in said[0]


def test_no_dvc_project(tmp_path: Path) -> None:
    place = Clone(tmp_path)
    place.write(ONE)
    cache = place.cache()
    for _ in range(2):
        cache.store([ONE])
        assert cache.find([ONE]) == {}
        assert cache.held([ONE]) == set()
    _one_line(place.said, "no DVC project here", "`dvc init`")


def test_no_remote_is_said_only_when_there_was_something_to_look_for(project: Clone) -> None:
    project.store([ONE])
    cache = project.cache()
    assert cache.find([]) == {}
    assert cache.held([ONE, TWO]) == {ONE}
    assert cache.find([ONE]).keys() == {ONE}
    assert project.said == []
    for _ in range(2):
        assert cache.find([ONE, TWO]).keys() == {ONE}
    _one_line(project.said, "no default DVC remote", "`dvc remote add -d`")
    later: list[str] = []
    assert RunCache(project.root, later.append, quiet=[NO_REMOTE]).find([TWO]) == {}
    assert later == []


@pytest.mark.parametrize(
    ("url", "options", "part"),
    [
        ("http://127.0.0.1:1/x", {}, "HTTP remotes have no run-cache"),
        ("s3://bucket/x", {"version_aware": "true"}, "versioned remotes have no run-cache"),
        pytest.param(
            "gs://bucket/x",
            {},
            "the default DVC remote cannot be opened",
            marks=pytest.mark.skipif(importlib.util.find_spec("dvc_gs") is not None, reason="dvc-gs is installed"),
        ),
    ],
)
def test_remotes_that_cannot_be_asked(url: str, options: dict[str, str], part: str, project: Clone) -> None:
    project.remote(url, **options)
    project.store([ONE])
    assert project.find([ONE, TWO]).keys() == {ONE}
    _one_line(project.said, part)


def test_nobody_listens(project: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    project.remote("s3://bucket/x", endpointurl=f"http://127.0.0.1:{free_port()}")
    project.store([ONE])
    cache = project.cache()
    assert cache.find([ONE, TWO, OTHER]).keys() == {ONE}
    _one_line(project.said, "'team' cannot be read", "Could not connect")


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_nobody_answers(project: Clone, black_hole: str) -> None:
    project.remote("s3://bucket/x", endpointurl=black_hole)
    began = time.monotonic()
    assert project.find([ONE, TWO], patience=1.5) == {}
    assert time.monotonic() - began < 6
    _one_line(project.said, "no answer in 1.5 s")


def test_a_process_ends_while_the_remote_is_silent(project: Clone, black_hole: str) -> None:
    project.remote("s3://bucket/x", endpointurl=black_hole)
    began = time.monotonic()
    done = _elsewhere(project, "cache.find(entries)")
    assert time.monotonic() - began < 15
    assert done.stderr == "", "nothing but our line"
    _one_line(done.stdout.splitlines(), "no answer in 2 s")


def test_no_permission(project: Clone, tmp_path: Path, s3: Endpoint) -> None:
    project.remote(s3.bucket("forbidden"), endpointurl=s3.url)
    project.store([ONE])
    project.push()
    clone = project.clone(tmp_path / "clone")
    s3.check_credentials(0)
    try:
        assert clone.find([ONE]) == {}
    finally:
        s3.check_credentials(float("inf"))
    _one_line(clone.said, "'team' cannot be read")
    assert clone.find([ONE]).keys() == {ONE}


def test_a_remote_that_dies_between_entry_and_object(
    colleague: tuple[Clone, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, remote = colleague
    victim = object_of(remote, ONE, ONE.outputs[0])
    victim.unlink()
    victim.mkdir()  # neither absent nor a file
    monkeypatch.setattr("olmix.pipeline.run_cache._THREADS", 1)  # one after another: TWO's files come first
    assert clone.find([TWO, ONE]).keys() == {TWO}
    _one_line(clone.said, "'team' cannot be read")


@pytest.mark.parametrize("work", ["cache.store(entries)", "cache.find(entries)"])
def test_a_full_disk(work: str, colleague: tuple[Clone, Path]) -> None:
    clone, _ = colleague
    for entry in (ONE, TWO):
        clone.write(entry)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    done = _elsewhere(clone, f"cache.held(entries); {limit}; {work}")
    assert done.stderr == ""
    _one_line(done.stdout.splitlines(), "DVC's cache on this machine cannot be used", "File too large")
    assert clone.cache().held([ONE, TWO]) == set()
    assert not any(name.startswith(".olmix-tmp-") for name in clone.kept())


@pytest.mark.parametrize("work", ["store", "find"])
def test_a_cache_that_cannot_be_written(work: str, colleague: tuple[Clone, Path]) -> None:
    clone, _ = colleague
    clone.write(ONE)
    folder = clone.root / ".dvc/cache"
    folder.mkdir(exist_ok=True)
    (folder / "files").write_text("")  # not even root can make a folder of it
    cache = clone.cache()
    for _ in range(2):
        assert not getattr(cache, work)([ONE])
    _one_line(clone.said, "DVC's cache on this machine cannot be used", "Not a directory")


@pytest.mark.parametrize("config", ["[core\n", "['remote \"team\"']\n    url = nonsense://bucket\n"])
def test_a_broken_configuration(config: str, project: Clone) -> None:
    (project.root / ".dvc/config").write_text(config)
    project.write(ONE)
    cache = project.cache()
    cache.store([ONE])
    assert cache.find([ONE]) == {}
    _one_line(project.said, "DVC cannot open this project")


@pytest.mark.parametrize("broken", ["dvc.stage.cache._get_cache_hash", "dvc.repo.Repo", "dvc.fs.get_cloud_fs"])
def test_another_dvc_whose_internals_are_missing(
    broken: str, colleague: tuple[Clone, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, _ = colleague
    clone.write(ONE)
    monkeypatch.delattr(broken)
    cache = clone.cache()
    for _ in range(2):
        cache.store([ONE])
        cache.find([ONE, TWO])
    _one_line(clone.said, broken.rsplit(".", 1)[1])


def test_another_dvc_whose_internals_differ(colleague: tuple[Clone, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clone, _ = colleague
    clone.write(ONE)
    monkeypatch.setattr("dvc.stage.cache._get_cache_hash", lambda form, key, salt: "")
    cache = clone.cache()
    cache.store([ONE])
    assert cache.find([ONE]) == {}
    _one_line(clone.said, "the run-cache of DVC 3.", "TypeError", "install `dvc>=3.66,<4`")


# Many at once


def _elsewhere(clone: Clone, work: str) -> subprocess.CompletedProcess[str]:
    """Work with the run-cache in a process of its own, which prints the warnings."""
    program = (
        "from pathlib import Path\nfrom olmix.pipeline import RunCache\nfrom tests.test_run_cache import ONE, TWO\n"
        f"entries = [ONE, TWO]\ncache = RunCache(Path(), print, patience=2.0)\n{work.replace('; ', chr(10))}\n"
    )
    command = [sys.executable, "-c", program]
    environment = ENVIRONMENT | CREDENTIALS | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, check=False, cwd=clone.root, env=environment, capture_output=True, text=True, timeout=60
    )


def _store_many(root: Path, entries: Sequence[Entry], start: Any, said: Any) -> None:
    cache = RunCache(root, said.put)
    cache.held(entries)  # DVC is imported and open
    start.wait()
    for _ in range(5):
        cache.store(entries)
        if cache.held(entries) != set(entries):
            said.put("not all are held")


def test_processes_that_store_the_same_at_once(project: Clone) -> None:
    entries = [an_entry(f"run-{k}") for k in range(20)]
    for entry in entries:
        project.write(entry)
    context = multiprocessing.get_context("spawn")
    start, said = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_store_many, args=(project.root, entries, start, said)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert said.empty()
    found = project.find(entries)
    assert all(len(found[entry]) == 1 and right(entry, found[entry][0]) for entry in entries)
    assert len(project.kept()) == 3 * len(entries), "no temporary files are left"


def test_only_old_leftovers_are_swept(project: Clone) -> None:
    project.store([ONE])
    old, new = (project.root / ".dvc/cache" / f".olmix-tmp-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half a file")
    os.utime(old, (0, 0))
    project.store([TWO])
    assert not old.exists()
    assert new.exists()


def test_patience_is_with_silence_and_not_with_slowness() -> None:
    def slow(steps: int, heard: Callable[[], None]) -> int:
        for _ in range(steps):
            time.sleep(0.1)
            heard()
        return steps

    assert list(call_in_parallel(slow, [12], 2, patience=0.5)) == [(12, 12)]
    assert sorted(call_in_parallel(slow, range(4), 2, patience=0.5)) == [(k, k) for k in range(4)]

    def silent(seconds: float, _: Callable[[], None]) -> None:
        time.sleep(seconds)

    calls = call_in_parallel(silent, [0.0, 3.0], 2, patience=0.5)
    assert next(calls) == (0.0, None)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.5 s"):
        next(calls)
    assert time.monotonic() - began < 2


def test_a_remote_that_was_given_up_is_asked_nothing_more() -> None:
    asked: list[int] = []
    threads: set[threading.Thread] = set()
    released = threading.Event()

    def hang(question: int, _: Callable[[], None]) -> None:
        asked.append(question)
        threads.add(threading.current_thread())
        released.wait(30)

    with pytest.raises(TimeoutError):
        next(call_in_parallel(hang, range(9), 2, patience=0.5))
    released.set()  # the remote answers again, too late
    for thread in threads:
        thread.join(30)
    assert 1 <= len(asked) <= 2, "what hung, and nothing of what was waiting"
