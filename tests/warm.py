"""Commands of a test's project as forks of one process that has imported everything, instead of new processes.

A `dvc repro` starts a dozen Pythons, and each imports for a second or two what it then uses for a tenth of one. Here
`dvc` and `olmix`, the stages that DVC runs and the fork server of the local engine are forks: they do the same in the
same order, with the same folder, environment and output. What this does not show is that a process can start: tests
that kill and all that start processes themselves start real ones. OLMIX_COLD=1 makes every command a real one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
COLD = bool(os.environ.get("OLMIX_COLD"))
_FORKS = multiprocessing.get_context("forkserver")


def start() -> None:
    """Let the server start and import while the first tests run."""
    if not COLD:
        _FORKS.set_forkserver_preload(["tests.warm_imports"])
        forkserver.ensure_running()


def runs(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a command is one of those that are forked, and is found where this environment's programs are."""
    modules_as_here = environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    as_installed = environment["PATH"].split(os.pathsep)[0] == str(BIN) and modules_as_here
    return not COLD and as_installed and (words[0] in ("dvc", "olmix") or _is_stage(words))


def run(words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with the text of both outputs."""
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        process = _FORKS.Process(target=_command, args=(list(words), cwd, dict(environment), out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _is_stage(words: Sequence[str]) -> bool:
    return len(words) == 2 and words[0] == "python" and words[1].startswith("stages/")


def _command(words: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """A command in a process of its own."""
    for descriptor, path in enumerate((Path(os.devnull), out, err)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    util.spawnv_passfds = _fork_server
    if words[0] == "dvc":
        importlib.import_module("dvc.stage.run").subprocess = _Subprocess
    sys.exit(_program(words, cwd, environment))


def _program(words: list[str], cwd: Path, environment: Mapping[str, str]) -> Any:
    gc.freeze()  # what the process before it has open is its own to close
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "python":
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")
        return 0
    sys.argv = words
    return importlib.import_module({"dvc": "dvc.cli", "olmix": "olmix.cli.main"}[words[0]]).main()


class _Subprocess:
    """What `dvc.stage.run` uses of `subprocess`."""

    check_output = subprocess.check_output

    @staticmethod
    def Popen(words: Sequence[str], **settings: Any) -> Any:  # noqa: N802
        """Start the shell that DVC asks for, or do in a fork what it would start."""
        command = shlex.split(words[-1])
        if _is_stage(command) and runs(command, settings["env"]):
            return _Fork(lambda: _program(command, settings["cwd"], settings["env"]))
        return subprocess.Popen(words, **settings)


class _Fork:
    """A function in a fork of this process, with what `dvc.stage.run` uses of a `Popen`."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        if not self._process:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _end(do)

    def communicate(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


def _end(do: Callable[[], Any]) -> None:
    """Do something as all that this process does, and end as Python ends."""
    code: Any = 1
    try:
        code = do()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]
        util._exit_function()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _fork_server(path: str, words: Sequence[str], descriptors: Iterable[int]) -> int:
    """As `multiprocessing.util.spawnv_passfds`: run Python code that uses the `descriptors`."""
    passed = set(descriptors)
    process = os.fork()
    if process:
        return process
    # The other end of the pipe whose closing tells the server that its starter is gone is the starter's alone.
    open_files = {int(link.name): link for link in Path("/proc/self/fd").iterdir()}
    pipes = {open_files[descriptor].readlink() for descriptor in passed}
    for descriptor in open_files.keys() - passed:
        with contextlib.suppress(OSError):  # the folder itself was open, and is not any more
            if open_files[descriptor].readlink() in pipes:
                os.close(descriptor)
    gc.freeze()
    _end(lambda: exec(words[-1], {}))
    raise AssertionError("unreachable")
