"""Arithmetic, views and branches as people write them, and variants that no layers of the language are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

C = 6


class Arithmetic(nn.Module):
    """Numbers, a difference, a gate for each place, and maps that are moved by a row and a column."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, C, 3, padding="same", dilation=2)
        self.even = nn.Conv2d(C, C, (4, 3), padding="same")
        self.places = nn.Parameter(torch.randn(1, C, 8, 12))
        self.norm = nn.BatchNorm1d(C)
        self.head = nn.Linear(C, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.places
        y = 0.17 * x.tanh() + x / 4 - (self.even(x) - 0.5)
        y = y * torch.sigmoid(y[:, 2:3]) + F.pad(-y, (-1, 1, 1, -1))
        return self.head(self.norm(y.mean((2, 3))))


class Tokens(nn.Module):
    """Tokens that are cut, put together, pooled, and maps again; an embedding that is taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, C, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, C))
        self.embedding = nn.Parameter(torch.randn(1, 25, C))
        self.mix = nn.Conv2d(C, C, 3, 1, 1)
        self.head = nn.Linear(C, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        first, grid = self.embedding[:, :1], self.embedding[:, 1:].reshape(1, 4, 6, C).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(4, 6), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, 24, C)
        x = x + torch.cat((first, grid), 1)
        token, x = x[:, :1], x[:, 1:]
        x = self.mix(x.transpose(1, 2).reshape(len(x), C, 4, 6))
        x = F.avg_pool1d(x.flatten(2), 4).transpose(1, 2)
        return self.head(torch.cat((x, token), 1).mean(1))


class Branches(nn.Module):
    """Selective kernels: a softmax between branches, of each channel (Li et al. 2019)."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * C, 3)
        self.other = nn.Conv2d(C, C, 3, padding=1)
        self.select = nn.Conv2d(C, 2 * C, 1)
        self.head = nn.Linear(C, 5)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).split(C, 1)
        x = torch.stack((a, self.other(b)), 1)
        weights = self.select(x.sum(1).mean((2, 3), keepdim=True))
        weights = weights.reshape(-1, C, 2, 1, 1).transpose(1, 2) if self.shared else weights.view(-1, 2, C, 1, 1)
        return self.head((x * weights.softmax(1)).sum(1).mean((2, 3)))


class Reciprocal(Arithmetic):
    """A reciprocal."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2.0 / (x + 3.0))


class Rolled(Arithmetic):
    """Maps whose last row comes before the first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.roll(x, 1, 2))


class Transposed(Tokens):
    """An embedding whose grid is read column by column."""

    def forward(self, x: Tensor) -> Tensor:
        grid = self.embedding[:, 1:].reshape(1, 4, 6, C).transpose(1, 2).reshape(1, 24, C)
        x = self.stem(x).flatten(2).transpose(1, 2) + grid
        return self.head(x.mean(1))
