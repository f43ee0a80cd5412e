"""A run that was stopped goes on from its checkpoint and ends in the bytes of one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from olmix.errors import OlmixError
from olmix.proxy import training
from olmix.proxy.recipe import Recipe
from olmix.proxy.training import Checkpoint, Trained, single_thread, train
from tests.test_training import markov, short

STEPS = 70  # two batches of rows are gathered, and the curve has points of two steps
RECIPE = short(STEPS)
SETS, IDENTITIES, COUNTS = [markov(0), markov(1)], ["a", "b"], [8 * STEPS - 30, 30]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    single_thread()
    yield
    torch.set_flush_denormal(False)


class Stopped(Exception):  # noqa: N818
    """What a test stops a run with."""


def run(checkpoint: Checkpoint | None = None, stop: int = STEPS + 1, recipe: Recipe = RECIPE) -> tuple[Trained, int]:
    """A run, or one that is stopped in the callback of a step; with the tokens that were reported."""
    reported = [0]

    def progress(tokens: int) -> None:
        reported[0] += tokens
        if reported[0] == stop * 16 * 8:
            raise Stopped

    return train(recipe, SETS, IDENTITIES, COUNTS, 4, on_progress=progress, checkpoint=checkpoint), reported[0]


def bytes_of(trained: Trained) -> tuple[bytes, object, object]:
    return save(trained.weights), trained.curve, trained.set_curves


@pytest.fixture(scope="module")
def undisturbed() -> tuple[bytes, object, object]:
    return bytes_of(run()[0])


@given(st.lists(st.integers(2, STEPS), max_size=3, unique=True))
@settings(max_examples=6, deadline=None)
def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: object, stops: list[int]
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.mktemp("stopped") / "deep" / "run.safetensors", "key", 0)
    for stop in sorted(stops):
        with pytest.raises(Stopped):
            run(checkpoint, stop)
        found = checkpoint.read()
        assert found is not None
        assert found[0] == min(stop, STEPS - 1)
    trained, reported = run(checkpoint)
    assert bytes_of(trained) == undisturbed
    assert reported == STEPS * 16 * 8
    checkpoint.clear()
    assert not list(checkpoint.path.parent.iterdir())
    checkpoint.clear()


@pytest.mark.parametrize("stop", [9, STEPS])
def test_a_run_that_is_asked_to_stop_keeps_what_it_has_done(
    tmp_path: Path, undisturbed: object, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(training, "WORTH_SECONDS", 0.0)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "key", 3600)
    with pytest.raises(Stopped):
        run(checkpoint, stop)
    found = checkpoint.read()
    assert found is not None and found[0] == stop
    assert bytes_of(run(checkpoint)[0]) == undisturbed
    monkeypatch.undo()
    checkpoint.clear()
    with pytest.raises(Stopped):
        run(checkpoint, stop)
    assert checkpoint.read() is None  # so little is not worth a write


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, undisturbed: object) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.test_checkpoint import *; single_thread();"
        "train(RECIPE, SETS, IDENTITIES, COUNTS, 4, checkpoint=Checkpoint(Path(sys.argv[1]), 'key', 0),"
        "on_progress=lambda tokens: print(flush=True))"
    )
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "key", 0)
    command = [sys.executable, "-c", program, str(checkpoint.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(7):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    found = checkpoint.read()
    assert found is not None
    assert 6 <= found[0] < STEPS
    assert bytes_of(run(checkpoint)[0]) == undisturbed


def stopped_at_5(path: Path) -> Checkpoint:
    checkpoint = Checkpoint(path / "run.safetensors", "key", 0)
    with pytest.raises(Stopped):
        run(checkpoint, 5)
    return checkpoint


def flip(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize(
    "damage", [flip, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"rubbish"]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, undisturbed: object, damage: object) -> None:
    checkpoint = stopped_at_5(tmp_path)
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))  # type: ignore[operator]
    assert checkpoint.read() is None
    assert bytes_of(run(checkpoint)[0]) == undisturbed
    found = checkpoint.read()
    assert found is not None  # it was overwritten
    assert found[0] == STEPS - 1


def test_another_runs_file_is_as_good_as_none(tmp_path: Path, undisturbed: object) -> None:
    checkpoint = stopped_at_5(tmp_path)
    assert Checkpoint(checkpoint.path, "other", 0).read() is None
    assert bytes_of(run(Checkpoint(checkpoint.path, "other", 0))[0]) == undisturbed
    save_file(run(checkpoint)[0].weights, checkpoint.path)  # weights alone, no metadata
    assert checkpoint.read() is None


def test_a_file_of_other_shapes_is_as_good_as_none(tmp_path: Path, undisturbed: object) -> None:
    checkpoint = stopped_at_5(tmp_path)
    state = load_file(checkpoint.path)
    state["weights.head"] = state["weights.head"][:, :-1]
    checkpoint.write(5, state)
    assert checkpoint.read() is not None
    assert bytes_of(run(checkpoint)[0]) == undisturbed


def test_it_is_written_no_more_often_than_asked(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "key", 3600)
    run(checkpoint)
    assert not list(tmp_path.iterdir())


def test_it_holds_what_a_step_depends_on(tmp_path: Path) -> None:
    checkpoint = stopped_at_5(tmp_path)
    found = checkpoint.read()
    assert found is not None
    assert {name.split(".")[0] for name in found[1]} == {"weights", "exp_avg", "exp_avg_sq", "losses"}
    assert found[1]["losses"].shape == (5 * 8,)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found[1].values())


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OlmixError, match="cannot be written"):
        run(Checkpoint(tmp_path / "file" / "run.safetensors", "key", 0))
