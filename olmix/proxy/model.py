"""The proxy: a decoder-only transformer, written as functions of a dictionary of weights.

RMSNorm on what a branch adds (not on what it reads), RoPE, normalised queries and keys, SwiGLU, an untied
head. It is initialised to learn within a few hundred steps: embedding std 1, matrices 1/sqrt(fan_in), gains
of the branches .3; with std .02 throughout, 200k tokens teach hardly anything.

It is written for one CPU thread: projections that read the same input are one product, a rotation is one
complex product, and autograd does the rest. At 100k parameters matrix products, at the machine's peak, are
under half of a step. Tried against it and not worth their lines: a backward pass by hand (10% faster), a norm
with its own gradient (2 to 5%), one rotation for queries and keys (1%), attention without
`scaled_dot_product_attention` (4% slower). For a GPU the same layer is one function that a compiler can take
whole, with a rotation in real numbers, products in bfloat16 and everything that is added up in float32. What
functions give up: no modules, no dropout, no cache for generation.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from olmix.core.seeds import named_key
from olmix.proxy.arithmetic import AS_IT_IS, Arithmetic
from olmix.proxy.loss import total_loss
from olmix.proxy.recipe import Recipe

Weights = dict[str, Tensor]

_BRANCH_GAIN = 0.3
_EPSILON = 1e-6
_ROPE_BASE = 10_000.0


def shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name; matrices are (in, out)."""
    width, vocabulary = recipe.width, recipe.vocabulary
    layer = _layer_shapes(recipe)
    layers = {f"layers.{i}.{name}": shape for i in range(recipe.layers) for name, shape in layer.items()}
    return {"embedding": (vocabulary, width)} | layers | {"gain": (width,), "head": (width, vocabulary)}


def _layer_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    width, hidden = recipe.width, recipe.hidden
    return {
        "attention.in": (width, 3 * width),  # queries, keys, values
        "attention.query_gain": (width,),
        "attention.key_gain": (width,),
        "attention.out": (width, width),
        "attention.gain": (width,),
        "swiglu.in": (width, 2 * hidden),  # gate, value
        "swiglu.out": (hidden, width),
        "swiglu.gain": (width,),
    }


def initialise(recipe: Recipe, seed: int) -> Weights:
    """Fresh weights on the CPU, each drawn from a stream of its own, named by the seed and its name."""
    weights = {}
    for name, shape in shapes(recipe).items():
        if len(shape) == 1:
            branch = name.endswith((".attention.gain", ".swiglu.gain"))
            weights[name] = torch.full(shape, _BRANCH_GAIN if branch else 1.0)
        else:
            stream = torch.Generator().manual_seed(named_key("proxy", "weights", seed, name) % 2**63)
            std = 1.0 if name == "embedding" else 1 / math.sqrt(shape[0])
            weights[name] = torch.randn(shape, generator=stream) * std
    return weights


def hidden_states(weights: Weights, recipe: Recipe, tokens: Tensor, arithmetic: Arithmetic = AS_IT_IS) -> Tensor:
    """What the head reads, (batch, length, width), for int64 `tokens` (batch, length); length is free."""
    x = functional.embedding(tokens, weights["embedding"])
    size = recipe.width // recipe.heads
    turns = _rotations(tokens.shape[1], size, x.dtype, x.device, arithmetic == AS_IT_IS)
    layer = arithmetic.ready(_layer)
    for i in range(recipe.layers):
        own = {name: weights[f"layers.{i}.{name}"] for name in _layer_shapes(recipe)}
        x = layer(x, own, recipe.heads, turns, arithmetic.dtype)
    return _norm(x, weights["gain"])


def row_losses(
    weights: Weights, recipe: Recipe, rows: Tensor, tokens: int, arithmetic: Arithmetic = AS_IT_IS
) -> tuple[Tensor, Tensor]:
    """The part of `rows` (batch, length + 1) in the mean loss, in nats, of a batch of `tokens` tokens, which can be
    differentiated; and each row's own mean (batch,), which cannot. The first token of a row is only read."""
    hidden = hidden_states(weights, recipe, rows[:, :-1], arithmetic)
    total, losses = total_loss(hidden.flatten(0, 1), weights["head"], rows[:, 1:].flatten(), 1 / tokens, arithmetic)
    return total, losses.view(len(rows), -1).mean(1)


def _layer(x: Tensor, own: Weights, heads: int, turns: Tensor, dtype: torch.dtype | None) -> Tensor:
    x = x + _norm(_attention(own, heads, x, turns, dtype), own["attention.gain"])
    return x + _norm(_swiglu(own, x, dtype), own["swiglu.gain"])


def _product(x: Tensor, matrix: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x @ matrix if dtype is None else x.to(dtype) @ matrix.to(dtype)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    """Normalised in the type of its gain, whatever the product before it was in."""
    return functional.rms_norm(x.to(gain.dtype), (x.shape[-1],), gain, _EPSILON)


def _attention(own: Weights, heads: int, x: Tensor, turns: Tensor, dtype: torch.dtype | None) -> Tensor:
    batch, length, width = x.shape
    queries, keys, values = _product(x, own["attention.in"], dtype).chunk(3, dim=-1)
    queries = _rotate(_norm(queries, own["attention.query_gain"]), heads, turns)
    keys = _rotate(_norm(keys, own["attention.key_gain"]), heads, turns)
    values = values.view(batch, length, heads, -1).transpose(1, 2)
    if dtype is not None:  # the fused attention of a GPU reads nothing wider
        queries, keys = queries.to(dtype), keys.to(dtype)
    mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    return _product(mixed.transpose(1, 2).reshape(batch, length, width), own["attention.out"], dtype)


def _rotate(x: Tensor, heads: int, turns: Tensor) -> Tensor:
    """(batch, length, width) as heads, (batch, heads, length, size), neighbours turned by their position.

    `turns` is complex, one product on a CPU; or cosines and sines apart, which compilers can fuse.
    """
    batch, length, width = x.shape
    pairs = x.view(batch, length, heads, width // heads // 2, 2)
    if turns.is_complex():
        return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2).transpose(1, 2)
    (left, right), (cosines, sines) = pairs.unbind(-1), turns.unbind(-1)
    turned = torch.stack((left * cosines - right * sines, left * sines + right * cosines), dim=-1)
    return turned.flatten(-2).transpose(1, 2)


@functools.lru_cache(maxsize=256)
def _rotations(length: int, size: int, dtype: torch.dtype, device: torch.device, as_complex: bool) -> Tensor:
    """Complex (length, 1, size / 2), or (length, 1, size / 2, 2) real: what position t turns pair k by."""
    frequencies = _ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    table = torch.polar(torch.ones_like(angles), angles)[:, None, :]
    if not as_complex:
        return torch.view_as_real(table).to(device=device, dtype=dtype)
    return table.to(device=device, dtype=torch.complex128 if dtype == torch.float64 else torch.complex64)


def _swiglu(own: Weights, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    gate, value = _product(x, own["swiglu.in"], dtype).chunk(2, dim=-1)
    return _product(functional.silu(gate) * value, own["swiglu.out"], dtype)
