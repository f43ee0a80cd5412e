"""The proxy: a decoder-only transformer, written as functions of a dictionary of weights.

RMSNorm on what a branch adds (not on what it reads), RoPE, normalised queries and keys, SwiGLU, an untied
head. It is initialised to learn within a few hundred steps: embedding std 1, matrices 1/sqrt(fan_in), gains
of the branches .3; with std .02 throughout, 200k tokens teach hardly anything.

It is written for one CPU thread: projections that read the same input are one product, a rotation is one
complex product, and autograd does the rest. At 100k parameters matrix products, at the machine's peak, are
under half of a step. Tried against it and not worth their lines: a backward pass by hand (10% faster), a norm
with its own gradient (2 to 5%), a loss that computes its gradient along the way (2%), one rotation for queries
and keys (1%), attention without `scaled_dot_product_attention` (4% slower). What functions give up: no modules,
no dropout, no cache for generation.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from olmix.core.seeds import named_key
from olmix.proxy.recipe import Recipe

Weights = dict[str, Tensor]

_BRANCH_GAIN = 0.3
_EPSILON = 1e-6
_ROPE_BASE = 10_000.0


def shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name; matrices are (in, out)."""
    width, hidden = recipe.width, recipe.hidden
    shape: dict[str, tuple[int, ...]] = {"embedding": (recipe.vocabulary, width)}
    for i in range(recipe.layers):
        shape |= {
            f"layers.{i}.attention.in": (width, 3 * width),  # queries, keys, values
            f"layers.{i}.attention.query_gain": (width,),
            f"layers.{i}.attention.key_gain": (width,),
            f"layers.{i}.attention.out": (width, width),
            f"layers.{i}.attention.gain": (width,),
            f"layers.{i}.swiglu.in": (width, 2 * hidden),  # gate, value
            f"layers.{i}.swiglu.out": (hidden, width),
            f"layers.{i}.swiglu.gain": (width,),
        }
    return shape | {"gain": (width,), "head": (width, recipe.vocabulary)}


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


def hidden_states(weights: Weights, recipe: Recipe, tokens: Tensor) -> Tensor:
    """What the head reads, (batch, length, width), for int64 `tokens` (batch, length); length is free."""
    x = functional.embedding(tokens, weights["embedding"])
    for i in range(recipe.layers):
        attention, swiglu = f"layers.{i}.attention.", f"layers.{i}.swiglu."
        x = x + _norm(_attention(weights, attention, recipe.heads, x), weights[attention + "gain"])
        x = x + _norm(_swiglu(weights, swiglu, x), weights[swiglu + "gain"])
    return _norm(x, weights["gain"])


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Unnormalised log-probabilities of the next token, (..., vocabulary), for hidden states (..., width)."""
    return hidden @ weights["head"]


def mean_loss(weights: Weights, recipe: Recipe, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of all tokens but the first of `rows` (batch, length + 1)."""
    hidden = hidden_states(weights, recipe, rows[:, :-1])
    return functional.cross_entropy(logits(weights, hidden).flatten(0, 1), rows[:, 1:].flatten())


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), gain, _EPSILON)


def _attention(weights: Weights, name: str, heads: int, x: Tensor) -> Tensor:
    batch, length, width = x.shape
    queries, keys, values = (x @ weights[name + "in"]).chunk(3, dim=-1)
    queries = _rotate(_norm(queries, weights[name + "query_gain"]), heads)
    keys = _rotate(_norm(keys, weights[name + "key_gain"]), heads)
    values = values.view(batch, length, heads, -1).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    return mixed.transpose(1, 2).reshape(batch, length, width) @ weights[name + "out"]


def _rotate(x: Tensor, heads: int) -> Tensor:
    """(batch, length, width) as heads, (batch, heads, length, size), neighbours turned by their position."""
    batch, length, width = x.shape
    pairs = torch.view_as_complex(x.view(batch, length, heads, width // heads // 2, 2))
    turned = pairs * _rotations(length, width // heads, x.dtype, x.device)
    return torch.view_as_real(turned).flatten(-2).transpose(1, 2)


@functools.lru_cache(maxsize=256)
def _rotations(length: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    frequencies = _ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    table = torch.polar(torch.ones_like(angles), angles)[:, None, :]
    return table.to(device=device, dtype=torch.complex128 if dtype == torch.float64 else torch.complex64)


def _swiglu(weights: Weights, name: str, x: Tensor) -> Tensor:
    gate, value = (x @ weights[name + "in"]).chunk(2, dim=-1)
    return (functional.silu(gate) * value) @ weights[name + "out"]
