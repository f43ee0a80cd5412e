"""The loss in chunks is the plain loss, and never holds the logits of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from olmix.proxy import loss
from olmix.proxy.arithmetic import Arithmetic
from olmix.proxy.loss import token_losses, total_loss

LOW = Arithmetic(torch.bfloat16)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", dict(loss.LOGITS_AT_ONCE))
    yield


class Largest(TorchDispatchMode):
    """The most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


def drawn(tokens: int, width: int, vocabulary: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=stream, dtype=torch.float64)
    head = spread * torch.randn(width, vocabulary, generator=stream, dtype=torch.float64)
    return hidden.requires_grad_(), head.requires_grad_(), torch.randint(vocabulary, (tokens,), generator=stream)


@given(
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(1, 200),
    st.integers(0, 99),
    st.sampled_from([0, 1, 5, 30]),
)
@settings(deadline=None)
def test_loss_and_gradients_are_the_plain_ones(
    tokens: int, width: int, vocabulary: int, at_once: int, seed: int, spread: int
) -> None:
    hidden, head, targets = drawn(tokens, width, vocabulary, seed, spread)
    plain = functional.cross_entropy(hidden @ head, targets, reduction="none")
    expected = torch.autograd.grad(plain.sum() * 0.3, (hidden, head))

    loss.LOGITS_AT_ONCE["cpu"] = at_once
    total, each = total_loss(hidden, head, targets, 0.1)
    got = torch.autograd.grad(3 * total, (hidden, head))
    torch.testing.assert_close(each, plain.detach(), rtol=1e-10, atol=1e-10)
    assert total.item() == pytest.approx(plain.sum().item() * 0.1, rel=1e-10, abs=1e-10)
    for own, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(token_losses(hidden, head, targets), plain.detach(), rtol=1e-10, atol=1e-10)


def test_what_a_compiler_gets_computes_the_same() -> None:
    hidden, head, targets = (tensor.detach() for tensor in drawn(9, 4, 13, 0, 5.0))
    one, two = (way(hidden @ head, targets, torch.float64) for way in (loss._in_library_calls, loss._in_two_passes))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_large_losses_are_exact_in_float32() -> None:
    """Where the share of the target is no longer a number, its loss still is."""
    hidden, head = torch.tensor([[1.0]]), torch.tensor([[0.0, 300.0]])
    _, each = total_loss(hidden, head, torch.tensor([0]), 1.0)
    assert float(each) == pytest.approx(300)
    assert math.isnan(float(total_loss(hidden * math.inf, head, torch.tensor([0]), 1.0)[0]))


def test_bfloat16_products_come_close() -> None:
    hidden, head, targets = (t.detach().float() if t.is_floating_point() else t for t in drawn(64, 32, 500, 1, 0.2))
    hidden.requires_grad_()
    head.requires_grad_()
    exact, _ = total_loss(hidden, head, targets, 1 / 64)
    loss.LOGITS_AT_ONCE["cpu"] = 20 * 500
    close, each = total_loss(hidden, head, targets, 1 / 64, LOW)
    assert each.dtype == torch.float32
    assert close.item() == pytest.approx(exact.item(), rel=2e-3)
    pairs = zip(*(torch.autograd.grad(total, (hidden, head)) for total in (close, exact)), strict=True)
    for own, reference in pairs:
        assert own.dtype == torch.float32
        assert float((own - reference).norm() / reference.norm()) < 1e-2


def test_the_logits_of_a_batch_are_never_held() -> None:
    tokens, width, vocabulary = 2048, 8, 20_000  # 164 MB of logits
    hidden, head, targets = (t.float() if t.is_floating_point() else t for t in drawn(tokens, width, vocabulary, 0))
    with Largest() as seen:
        total, _ = total_loss(hidden, head, targets, 1 / tokens)
        total.backward()
        token_losses(hidden, head, targets)
    assert width * vocabulary < seen.elements <= loss.LOGITS_AT_ONCE["cpu"] < tokens * vocabulary
