"""The proxy is a causal, rotary, normalised transformer whose size is what the recipe says."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from olmix.errors import ConfigError
from olmix.proxy import recipe as recipes
from olmix.proxy.arithmetic import Arithmetic
from olmix.proxy.model import Weights, hidden_states, initialise, row_losses, shapes
from olmix.proxy.recipe import Recipe
from olmix.proxy.sizes import SIZES

RECIPE = Recipe(
    layers=2,
    heads=2,
    width=16,
    hidden=24,
    vocabulary=50,
    sequence_length=12,
    tokens=960,
    batch_size=4,
    learning_rate=1e-2,
)


def doubled(weights: Weights) -> Weights:
    return {name: weight.double() for name, weight in weights.items()}


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    return hidden @ weights["head"]


def naive_logits(weights: Weights, recipe: Recipe, tokens: Tensor) -> Tensor:
    """The model written out, a position and a head at a time."""

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean() + 1e-6) * gain

    size = recipe.width // recipe.heads

    def turn(x: Tensor, position: int) -> Tensor:
        turned = x.clone()
        for start in range(0, recipe.width, size):
            for k in range(size // 2):
                angle = position * 10_000 ** (-2 * k / size)
                a, b = x[start + 2 * k], x[start + 2 * k + 1]
                turned[start + 2 * k] = a * math.cos(angle) - b * math.sin(angle)
                turned[start + 2 * k + 1] = a * math.sin(angle) + b * math.cos(angle)
        return turned

    states = [weights["embedding"][int(token)] for token in tokens]
    for i in range(recipe.layers):
        own = {name.removeprefix(f"layers.{i}."): w for name, w in weights.items() if name.startswith(f"layers.{i}.")}
        projected = [(x @ own["attention.in"]).split(recipe.width) for x in states]
        queries = [turn(norm(q, own["attention.query_gain"]), t) for t, (q, _, _) in enumerate(projected)]
        keys = [turn(norm(k, own["attention.key_gain"]), t) for t, (_, k, _) in enumerate(projected)]
        for t, query in enumerate(queries):
            heads = []
            for head in range(recipe.heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[part] @ keys[s][part] / math.sqrt(size) for s in range(t + 1)])
                shares = scores.exp() / scores.exp().sum()
                heads.append(sum(shares[s] * projected[s][2][part] for s in range(t + 1)))
            states[t] = states[t] + norm(torch.cat(heads) @ own["attention.out"], own["attention.gain"])
            gate, value = (states[t] @ own["swiglu.in"]).split(recipe.hidden)
            branch = (gate * torch.sigmoid(gate) * value) @ own["swiglu.out"]
            states[t] = states[t] + norm(branch, own["swiglu.gain"])
    return torch.stack([norm(x, weights["gain"]) @ weights["head"] for x in states])


def perturbed(seed: int) -> Weights:
    """Weights whose gains differ too, so that each of them matters."""
    noise = torch.Generator().manual_seed(seed)
    fresh = doubled(initialise(RECIPE, seed))
    return {n: w * (1 + torch.rand(w.shape, generator=noise, dtype=w.dtype)) for n, w in fresh.items()}


def test_it_computes_what_the_written_out_model_computes() -> None:
    weights = perturbed(1)
    tokens = torch.randint(0, RECIPE.vocabulary, (12,), generator=torch.Generator().manual_seed(0))
    got = logits(weights, hidden_states(weights, RECIPE, tokens[None]))[0]
    torch.testing.assert_close(got, naive_logits(weights, RECIPE, tokens), rtol=1e-9, atol=1e-9)


def test_the_future_is_not_seen() -> None:
    weights = initialise(RECIPE, 0)
    tokens = torch.arange(24).view(2, 12)
    changed = tokens.clone()
    changed[:, 7:] = 49
    before, after = (hidden_states(weights, RECIPE, t) for t in (tokens, changed))
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_a_prefix_reads_the_same_alone() -> None:
    weights = doubled(initialise(RECIPE, 0))
    tokens = torch.arange(12)[None]
    whole, prefix = hidden_states(weights, RECIPE, tokens), hidden_states(weights, RECIPE, tokens[:, :5])
    torch.testing.assert_close(whole[:, :5], prefix, rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_mean_over_all_tokens_but_the_first() -> None:
    weights = doubled(initialise(RECIPE, 0))
    rows = torch.randint(0, RECIPE.vocabulary, (3, 13), generator=torch.Generator().manual_seed(0))
    expected = []
    for row in rows:
        scores = logits(weights, hidden_states(weights, RECIPE, row[None, :-1]))[0].log_softmax(-1)
        expected += [-float(scores[t, row[t + 1]]) for t in range(12)]
    assert float(row_losses(weights, RECIPE, rows, 36)[0]) == pytest.approx(math.fsum(expected) / 36, rel=1e-12)


def test_every_weight_gets_a_gradient() -> None:
    weights = {name: weight.requires_grad_() for name, weight in initialise(RECIPE, 0).items()}
    row_losses(weights, RECIPE, torch.arange(26).view(2, 13), 24)[0].backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights.values())


def test_initialisation_is_named_and_scaled() -> None:
    wide = dataclasses.replace(RECIPE, width=128, hidden=256, vocabulary=512)
    weights = initialise(wide, 0)
    assert float(weights["embedding"].std()) == pytest.approx(1, rel=0.03)
    assert float(weights["layers.0.swiglu.out"].std()) == pytest.approx(256**-0.5, rel=0.03)
    assert float(weights["layers.1.attention.gain"][0]) == pytest.approx(0.3)
    assert float(weights["layers.1.attention.query_gain"][0]) == 1
    deeper = initialise(dataclasses.replace(wide, layers=3), 0)
    assert all(torch.equal(weight, deeper[name]) for name, weight in weights.items())
    assert not torch.equal(weights["head"], initialise(wide, 1)["head"])


def test_the_recipe_counts_the_models_parameters() -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes(RECIPE).items()}
    assert RECIPE.parameters == sum(sizes.values())
    assert RECIPE.parameters_without_embedding == sum(sizes.values()) - sizes["embedding"]
    products = [name for name, shape in shapes(RECIPE).items() if len(shape) == 2 and name != "embedding"]
    assert RECIPE.matrices == sum(sizes[name] for name in products)


@pytest.mark.parametrize(("size", "vocabulary", "length"), [("100k", 1024, 64), ("15m", 2000, 128)])
def test_the_recipe_counts_the_operations_of_a_run(size: str, vocabulary: int, length: int) -> None:
    """Torch's counter sees all of the attention, and the recipe the causal half that has to be computed."""
    shape = dataclasses.asdict(SIZES[size])
    recipe = Recipe(
        **shape, vocabulary=vocabulary, sequence_length=length, tokens=2 * length, batch_size=2, learning_rate=1e-2
    )
    weights = {name: weight.requires_grad_() for name, weight in initialise(recipe, 0).items()}
    rows = torch.zeros((2, length + 1), dtype=torch.int64)
    attention = 2 * recipe.layers * length * recipe.width * recipe.tokens
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as whole:
            row_losses(weights, recipe, rows, recipe.tokens)[0].backward()
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            logits(weights, hidden_states(weights, recipe, rows[:, :-1]))
    assert whole.get_total_flops() == recipe.flops + 3 * attention
    assert forward.get_total_flops() == recipe.forward_flops_per_token * recipe.tokens + attention
    assert recipe.flops == pytest.approx(whole.get_total_flops(), rel=0.06)
    assert recipe.flops == recipe.flops_per_token * recipe.tokens


@given(st.integers(1, 5000), st.integers(2, 40_000))
def test_a_batch_is_read_in_few_and_equal_parts(batch_size: int, length: int) -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size, sequence_length=length)
    parts = [len(part) for part in torch.empty(batch_size).split(recipe.micro_batch)]
    fit = max(1, recipes.MICRO_BATCH_TOKENS // length)
    fewest = math.ceil(batch_size / fit)
    assert parts[0] == math.ceil(batch_size / fewest) <= fit
    assert set(parts[:-1]) <= {parts[0]}
    assert len(parts) <= fewest


def test_the_real_rotation_is_the_complex_one() -> None:
    weights, rows = perturbed(2), torch.arange(26).view(2, 13)
    plain, real = (row_losses(weights, RECIPE, rows, 24, a)[1] for a in (Arithmetic(), Arithmetic(torch.float64)))
    torch.testing.assert_close(plain, real, rtol=1e-12, atol=0)


def test_a_run_is_whole_batches() -> None:
    recipe = dataclasses.replace(RECIPE, tokens=48 * 21 + 47)
    assert (recipe.steps, recipe.sequences) == (21, 84)
    assert dataclasses.replace(RECIPE, tokens=48).steps == 1


def test_the_learning_rate_rises_and_falls_to_its_floor() -> None:
    rates = [RECIPE.learning_rate_at(step) / RECIPE.learning_rate for step in range(RECIPE.steps)]
    assert RECIPE.steps == 20
    assert rates[0] == pytest.approx(1)  # one step of twenty is the warm-up
    assert rates[-1] == pytest.approx(RECIPE.final_fraction)
    assert all(a > b for a, b in itertools.pairwise(rates))
    slow = dataclasses.replace(RECIPE, warmup=0.5)
    rising = [slow.learning_rate_at(step) / slow.learning_rate for step in range(10)]
    assert rising == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert dataclasses.replace(RECIPE, warmup=0.0).learning_rate_at(0) < RECIPE.learning_rate


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 3}, "proxy.size.heads: width 16 cannot be divided into 3 heads"),
        ({"heads": 16}, "proxy.size.heads: 16 heads of width 16 are 1 wide"),
        ({"tokens": 47}, "proxy.tokens: 47 are fewer than one batch of 4 sequences of 12 (48 tokens)"),
        ({"layers": 0}, "proxy.size.layers: 0"),
        ({"sequence_length": 1}, "proxy.sequence_length"),
        ({"learning_rate": math.nan}, "proxy.learning_rate: nan"),
        ({"weight_decay": -0.1}, "proxy.weight_decay: -0.1"),
        ({"beta2": 1.0}, "proxy.beta2: 1.0"),
        ({"final_fraction": 1.5}, "proxy.final_fraction: 1.5"),
    ],
)
def test_numbers_that_do_not_fit_are_named(change: dict[str, float], said: str) -> None:
    RECIPE.validate()
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(RECIPE, **change).validate()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
