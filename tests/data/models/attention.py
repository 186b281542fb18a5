"""Attention as people write it out: in forms that are torch.nn.MultiheadAttention, and in forms that are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

HEADS, D = 3, 12
Core = Callable[[Tensor, Tensor, Tensor], Tensor]  # of q, k and v of each head, (N, heads, L, d)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One operator of PyTorch's."""
    return F.scaled_dot_product_attention(q, k, v)


def scaled_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The scale on q."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def scaled_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The scale on the scores, as a division."""
    return F.softmax(q @ k.mT / 2.0, -1) @ v  # 2 = sqrt(12 / 3)


def batches(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads that are samples of a batch."""
    n, heads, length, d = q.shape
    q, k, v = (x.reshape(n * heads, length, d) for x in (q, k, v))
    y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 0.5, -1), v)
    return y.view(n, heads, length, d)


def two_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keys of twice another scale, and the values before the transposed scores."""
    scores = ((q * 0.25) @ (k * 2.0).transpose(-2, -1)).softmax(dim=-1)
    return (v.transpose(-2, -1) @ scores.transpose(-2, -1)).transpose(-2, -1)


def other_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A scale of 1 / d."""
    return F.scaled_dot_product_attention(q, k, v, scale=0.25)


def without_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """No scale."""
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens see those before them only."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A constant is added to the scores."""
    scores = q @ k.transpose(-2, -1) * 0.5 + q.new_ones(q.shape[-2])
    return scores.softmax(dim=-1) @ v


def without_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention."""
    return q * 0.5 @ k.transpose(-2, -1) @ v


def of_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A softmax over the queries of each key."""
    return (q * 0.5 @ k.transpose(-2, -1)).softmax(dim=-2) @ v


def read_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The scores are part of the output."""
    scores = (q * 0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
    return scores @ v + scores.mean()


def values_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The first third of the rows are the values."""
    return F.scaled_dot_product_attention(v, k, q)


class Attention(nn.Module):
    """qkv, the heads' attention by `core`, and a projection."""

    def __init__(self, core: Core, qkv_bias: bool = True, merge: str = "heads", order: str = "parts") -> None:
        super().__init__()
        self.core, self.merge, self.order = core, merge, order
        self.qkv = nn.Linear(D, 3 * D, bias=qkv_bias)
        self.proj = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        n, length, d = x.shape
        if self.order == "parts":
            q, k, v = self.qkv(x).reshape(n, length, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.order == "chunks":
            q, k, v = (y.view(n, length, HEADS, d // HEADS).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        else:  # q, k and v of a head side by side
            q, k, v = self.qkv(x).reshape(n, length, HEADS, 3, d // HEADS).permute(3, 0, 2, 1, 4).unbind(0)
        y = self.core(q, k, v).transpose(1, 2)
        return self.proj((y if self.merge == "heads" else y.transpose(2, 3)).reshape(n, length, d))


class Net(nn.Module):
    """Tokens of an image, attention, and the mean of the tokens."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, D, 4, 4)
        self.attention = attention
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(x)).mean(1))


def net(
    core: str, qkv_bias: bool = True, merge: str = "heads", order: str = "parts", proj_bias: bool = True
) -> nn.Module:
    """Return a network whose attention is by the function called `core`."""
    attention = Attention(globals()[core], qkv_bias, merge, order)
    if not proj_bias:
        attention.proj = nn.Linear(D, D, bias=False)
    return Net(attention)
