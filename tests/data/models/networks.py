"""Networks as a user writes them, for the importer: what each has is in its docstring."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Residual(nn.Module):
    """Norms with other defaults, an in-place ReLU that is called twice, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after, eps=1e-3, momentum=0.2)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(after, eps=1e-3, momentum=0.2)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Gate(nn.Module):
    """Squeeze and excitation with a mean over places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.down(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.up(y))


class Convs(nn.Module):
    """Branches that are joined and split, pools with options, a shuffle, and functions in place of modules."""

    def __init__(self, num_classes: int = 5, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 5, 2, 2), nn.LeakyReLU(0.2))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stage1 = nn.Sequential(*(Residual(width, width) for _ in range(3)))
        self.stage2 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width))
        self.gate = Gate(2 * width)
        self.left = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.right = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.norm = nn.GroupNorm(4, 2 * width, eps=1e-3)
        self.smooth = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(self.stage2(self.stage1(self.pool(self.stem(x)))))
        a, b = x.chunk(2, dim=1)
        x = torch.cat((F.hardswish(self.right(b)), F.elu(self.left(a), 0.5)), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = self.smooth(F.relu6(self.norm(x)))
        x = torch.tanh(self.up(x))
        return self.head(self.drop(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self, features: int, heads: int, drop: float = 0.1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features, eps=1e-6)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(features, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(features, 3 * features), nn.GELU(), nn.Linear(3 * features, features))
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.drop(self.attention(y, y, y, need_weights=False)[0])
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """A vision transformer."""

    def __init__(self, features: int = 16, depth: int = 2, num_classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, features, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, features))
        self.places = nn.Parameter(torch.zeros(1, 17, features))
        self.blocks = nn.Sequential(*(Block(features, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class DenseLayer(nn.Module):
    """Reads all layers before it, as torchvision's DenseNet writes it."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, found: list[Tensor]) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat(found, 1))))


class Branch(nn.Module):
    """Two branches of two convolutions each."""

    def __init__(self, before: int, one: int, two: int) -> None:
        super().__init__()
        self.short = nn.Sequential(nn.Conv2d(before, one, 1), nn.ReLU())
        self.long = nn.Sequential(nn.Conv2d(before, two, 1), nn.ReLU(), nn.Conv2d(two, one, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.short(x), self.long(x)), 1)


class Dense(nn.Module):
    """Layers that read all before them, and branches of several sizes."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.ModuleList(DenseLayer(8 + 4 * i, 4) for i in range(3))
        self.branch1 = Branch(20, 6, 4)
        self.branch2 = Branch(12, 10, 8)
        self.head = nn.Linear(20, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(found))
        x = self.branch2(self.branch1(torch.cat(found, 1)))
        return self.head(x.mean((2, 3)))


class DropPath(nn.Module):
    """timm's stochastic depth."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty((len(x), 1, 1, 1)).bernoulli_(keep) / keep


class Dropping(nn.Module):
    """Residual branches that are dropped, each with a rate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.paths = nn.ModuleList(DropPath(rate) for rate in (0.125, 0.25))

    def forward(self, x: Tensor) -> Tensor:
        for conv, path in zip(self.convs, self.paths, strict=True):
            x = x + path(F.relu(conv(x)))
        return x.mean((2, 3))


class Unsupported(Convs):
    """Operators that the language lacks, twice and once."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cumsum(self.stem(x), 2)
        x = torch.sin(torch.cumsum(x, 3))
        return self.head(x.mean((2, 3)))


def not_a_model() -> int:
    """Return a number."""
    return 3


def fails() -> nn.Module:
    """Raise."""
    raise RuntimeError("no such file")
