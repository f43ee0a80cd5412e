"""A run is a pure function of its recipe, its sequences and its seed; it learns, and it fails by name."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from olmix.core.order import plan_order
from olmix.data.tokenizer import Tokens
from olmix.errors import DataError, TrainingError
from olmix.proxy import recipe as recipes
from olmix.proxy import training
from olmix.proxy.model import Weights, initialise, row_losses
from olmix.proxy.optimiser import AdamW
from olmix.proxy.recipe import Recipe
from olmix.proxy.training import CURVE_POINTS, Diverged, load_weights, save_weights, single_thread, train

RECIPE = Recipe(
    layers=1,
    heads=2,
    width=32,
    hidden=48,
    vocabulary=64,
    sequence_length=16,
    tokens=16 * 8 * 150,
    batch_size=8,
    learning_rate=1e-2,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    single_thread()
    yield
    torch.set_flush_denormal(False)


def markov(seed: int, rows: int = 400, branches: int = 2) -> Tokens:
    """Rows of a chain that goes on in one of `branches` ways from every token: log(branches) nats a token."""
    random = np.random.default_rng(seed)
    following = np.stack([random.permutation(RECIPE.vocabulary) for _ in range(branches)])
    tokens = np.empty((rows, RECIPE.sequence_length + 1), dtype="<u2")
    tokens[:, 0] = random.integers(RECIPE.vocabulary, size=rows)
    for t in range(1, tokens.shape[1]):
        tokens[:, t] = following[random.integers(branches, size=rows), tokens[:, t - 1]]
    return tokens


def short(steps: int = 12) -> Recipe:
    return dataclasses.replace(RECIPE, tokens=16 * 8 * steps)


def test_it_learns_a_chain_close_to_its_entropy() -> None:
    trained = train(RECIPE, [markov(0)], ["a"], [RECIPE.sequences], 0)
    first, last = trained.curve[0][1], trained.curve[-1][1]
    assert first == pytest.approx(math.log(RECIPE.vocabulary), rel=0.25)
    assert last < math.log(2) + 0.35


def test_twice_is_the_same_bits_and_another_seed_is_not(tmp_path: Path) -> None:
    recipe, sets, counts = short(), [markov(0), markov(1)], [64, 32]
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        trained = train(recipe, sets, ["a", "b"], counts, seed)
        save_weights(trained.weights, tmp_path / name)
    one, two, other = ((tmp_path / name).read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_another_process_gets_the_same_bits(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.test_training import *; single_thread();"
        "save_weights(train(short(), [markov(0)], ['a'], [96], 3).weights, Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "theirs")], check=True)
    save_weights(train(short(), [markov(0)], ["a"], [96], 3).weights, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_run_imports_no_compiler() -> None:
    """It would take longer than the whole run of a small proxy, in every process that trains."""
    program = """
import sys
from tests.test_training import markov, short, train
train(short(1), [markov(0)], ["a"], [8], 0)
print("torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_steps_are_those_of_the_optimiser_of_torch() -> None:
    """The functional form and the class: the same bits, also when a run goes on after two steps."""
    weights = {name: torch.full((3, 2) if name == "matrix" else (3,), 0.5) for name in ("matrix", "gain")}
    theirs = {name: weight.clone() for name, weight in weights.items()}
    groups = [{"params": [theirs["matrix"]], "weight_decay": RECIPE.weight_decay}]
    groups.append({"params": [theirs["gain"]], "weight_decay": 0.0})
    torchs = torch.optim.AdamW(groups, betas=(RECIPE.beta1, RECIPE.beta2), fused=True)
    ours = AdamW(RECIPE, weights)
    for step in range(4):
        if step == 2:
            state, ours = ours.state(), AdamW(RECIPE, weights)
            ours.restore(state, step)
        for name, weight in weights.items():
            weight.grad = torch.full_like(weight, 0.1 * (step + 1)) * weight
            theirs[name].grad = weight.grad.clone()
        for group in torchs.param_groups:
            group["lr"] = 0.01 * (step + 1)
        torchs.step()
        ours.step(0.01 * (step + 1))
        assert all(torch.equal(weight, theirs[name]) and weight.grad is None for name, weight in weights.items())


def test_names_and_order_of_the_sets_do_not_matter() -> None:
    recipe, a, b = short(), markov(0), markov(1)
    one = train(recipe, [a, b], ["a", "b"], [64, 32], 0)
    two = train(recipe, [b, a, b], ["b", "a", "unread"], [32, 64, 0], 0)
    assert all(torch.equal(weight, two.weights[name]) for name, weight in one.weights.items())
    assert one.curve == two.curve


def test_wider_integers_and_small_sets_read_the_same() -> None:
    recipe, tokens = short(), markov(0, rows=20)  # 96 sequences of 20 rows: nearly five epochs
    one = train(recipe, [tokens], ["a"], [96], 0)
    two = train(recipe, [tokens.astype("<u4")], ["a"], [96], 0)
    assert one.curve == two.curve


def test_the_curve_covers_all_steps_and_progress_all_tokens() -> None:
    recipe, seen = short(CURVE_POINTS + 7), []
    trained = train(recipe, [markov(0)], ["a"], [recipe.sequences], 0, on_progress=seen.append)
    assert sum(seen) == recipe.sequences * recipe.sequence_length
    assert [step for step, _ in trained.curve] == [*range(2, recipe.steps, 2), recipe.steps]


@pytest.mark.parametrize("tokens", [1, 3 * 16, 4 * 16])
def test_micro_batches_add_up_to_the_batch(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """In parts of 1; of 3, 3 and 2; and of 4."""
    recipe, sets = short(6), [markov(0), markov(1)]
    whole = train(recipe, sets, ["a", "b"], [30, 18], 0)
    monkeypatch.setattr(recipes, "MICRO_BATCH_TOKENS", tokens)
    assert recipe.micro_batch == {1: 1, 48: 3, 64: 4}[tokens]
    parts = train(recipe, sets, ["a", "b"], [30, 18], 0)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, rtol=1e-3, atol=1e-5)
    for (_, a), (_, b) in zip(whole.curve, parts.curve, strict=True):
        assert b == pytest.approx(a, rel=1e-5)


def test_the_curves_of_the_sets_are_those_of_their_sequences() -> None:
    """One set is easy, one hard, one read once, one never, and two are one content."""
    recipe, easy, hard = short(60), markov(0, branches=1), markov(1, branches=60)
    names, counts = ["hard", "easy", "once", "never", "hard"], [100, 300, 1, 0, 79]
    trained = train(recipe, [hard, easy, hard[:1], hard, hard], names, counts, 3)
    curves = trained.set_curves
    assert set(curves) == {"easy", "hard", "once"}
    assert all([step for step, _ in curve] == [step for step, _ in trained.curve] for curve in curves.values())
    assert sum(loss is not None for _, loss in curves["once"]) == 1
    labels, _ = plan_order(counts, [400, 400, 1, 400, 400], names, 3)
    begin = 0
    for k, (step, mean) in enumerate(trained.curve):
        read = [names[label] for label in labels[begin * 8 : step * 8]]
        parts = [(read.count(name), curves[name][k][1]) for name in curves]
        assert all((count == 0) == (loss is None) for count, loss in parts)
        assert sum(count * loss for count, loss in parts if loss is not None) / len(read) == pytest.approx(mean)
        begin = step
    assert curves["easy"][-1][1] < curves["hard"][-1][1] - 1


def test_the_curve_is_the_loss_of_the_weights_before_each_step() -> None:
    recipe, tokens = short(2), markov(0)
    trained = train(recipe, [tokens], ["a"], [16], 0)
    _, rows = plan_order([16], [400], ["a"], 0)
    batch = torch.from_numpy(tokens[rows[:8]].astype(np.int64))
    loss, of_rows = row_losses(initialise(recipe, 0), recipe, batch, 8 * 16)
    assert trained.curve[0] == (1, pytest.approx(float(loss), rel=1e-6))
    assert float(of_rows.mean()) == pytest.approx(float(loss), rel=1e-6)


def test_it_reads_the_planned_sequences_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, sets, read = short(70), [markov(0), markov(1, rows=30)], []

    def reading(weights: Weights, given: Recipe, rows: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        read.append(rows.clone())
        return row_losses(weights, given, rows, *rest)

    monkeypatch.setattr(training, "row_losses", reading)
    train(recipe, sets, ["a", "b"], [500, 60], 5)
    labels, rows = plan_order([500, 60], [400, 30], ["a", "b"], 5)
    planned = np.stack([sets[label][row] for label, row in zip(labels, rows, strict=True)])
    assert np.array_equal(torch.cat(read).numpy(), planned)


def test_the_learning_rate_follows_its_schedule() -> None:
    recipe = dataclasses.replace(short(3), weight_decay=0.0, warmup=0.0)
    start = initialise(recipe, 0)["head"]
    moved = {}
    for floor in (1.0, 0.0):
        weights = train(dataclasses.replace(recipe, final_fraction=floor), [markov(0)], ["a"], [24], 0).weights
        moved[floor] = float((weights["head"] - start).abs().mean())
    # AdamW moves by about the learning rate a step: 1 + 1 + 1 of the peak, and 3/4 + 1/4 + 0.
    assert moved[0.0] / moved[1.0] == pytest.approx(1 / 3, abs=0.1)


def test_only_matrices_decay() -> None:
    recipe = dataclasses.replace(short(3), learning_rate=1e-9, weight_decay=1e7, warmup=0.0, final_fraction=1.0)
    weights = train(recipe, [markov(0)], ["a"], [24], 0).weights
    start = train(dataclasses.replace(recipe, weight_decay=0.0), [markov(0)], ["a"], [24], 0).weights
    for name, weight in weights.items():
        kept = (1 - 1e-2) ** 3 if weight.ndim == 2 else 1.0
        torch.testing.assert_close(weight, start[name] * kept, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped() -> None:
    """AdamW takes full steps however small the gradients are, until they drown in its epsilon of 1e-8."""
    recipe = dataclasses.replace(short(3), weight_decay=0.0)
    start = initialise(recipe, 0)
    for clip, moved in ((1e-14, False), (1.0, True)):
        weights = train(dataclasses.replace(recipe, clip=clip), [markov(0)], ["a"], [24], 0).weights
        assert torch.allclose(weights["head"], start["head"], atol=1e-4) is not moved


def test_a_run_that_diverges_names_the_step() -> None:
    recipe = dataclasses.replace(short(), learning_rate=1e38, warmup=0.0)
    with pytest.raises(Diverged, match=r"^loss (nan|inf) at step [2-9] of 12; lower proxy\.learning_rate"):
        train(recipe, [markov(0)], ["a"], [96], 0)
    assert issubclass(Diverged, TrainingError)


def test_a_last_step_that_diverges_is_seen_too() -> None:
    recipe = dataclasses.replace(short(1), learning_rate=1e39, warmup=0.0, final_fraction=1.0)
    with pytest.raises(Diverged, match="after the last of 1 steps"):
        train(recipe, [markov(0)], ["a"], [8], 0)


def test_what_does_not_fit_the_recipe_is_refused() -> None:
    recipe, tokens = short(), markov(0)
    with pytest.raises(TrainingError, match="sum to 95 sequences, but a run of 1536 tokens reads 96"):
        train(recipe, [tokens], ["a"], [95], 0)
    with pytest.raises(DataError, match=r"token set a: its shape is \(400, 16\)"):
        train(recipe, [tokens[:, 1:]], ["a"], [96], 0)
    beyond = tokens.copy()
    beyond[3, 3] = 64
    with pytest.raises(DataError, match="token set a: token 64 is outside the vocabulary of 64"):
        train(recipe, [beyond], ["a"], [96], 0)


def test_weights_come_back_and_damage_is_named(tmp_path: Path) -> None:
    path, weights = tmp_path / "w.safetensors", train(short(1), [markov(0)], ["a"], [8], 0).weights
    save_weights(weights, path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    loaded = load_weights(path)
    assert set(loaded) == set(weights)
    assert all(torch.equal(weight, loaded[name]) for name, weight in weights.items())
    whole = path.read_bytes()
    save_weights(dict(reversed(weights.items())), path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not weights"):
        load_weights(path)
    with pytest.raises(DataError, match="no such weights"):
        load_weights(tmp_path / "absent")
