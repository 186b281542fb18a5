"""port.yaml as somebody would write it in PyTorch: with other names, and in other ways that are the same or wrong."""

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """The network, partly by functions."""

    momentum = 0.1
    alpha = 0.1
    padding = 1
    rate = 0.5

    def __init__(self, classes=5):
        super().__init__()
        self.head = nn.ModuleList([nn.Linear(16 * 8 * 8, 12), nn.Linear(12, classes)])
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=self.padding, bias=False), nn.BatchNorm2d(8, momentum=self.momentum)
        )
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.a = nn.Conv2d(8, 8, 1)
        self.merge = nn.Conv2d(16, 16, 3, padding=1)

    def activation(self, x):
        return functional.relu(x)

    def pool(self, x):
        return functional.max_pool2d(x, 2)

    def join(self, a, b):
        return torch.cat([a, b], 1)

    def flatten(self, x):
        return torch.flatten(x, 1)

    def forward(self, x):
        x = self.activation(self.stem(x))
        x = self.pool(functional.local_response_norm(x, 5, alpha=self.alpha, beta=0.75, k=2.0))
        b = self.b(x)
        x = self.join(self.a(x), b)
        x = functional.relu(x + self.merge(x))
        x = functional.dropout(self.head[0](self.flatten(x)), self.rate, self.training)
        return self.head[1](x)


class ChannelsLast(Net):
    """Flattens (H, W, C): with its weights in that order it is the network."""

    def flatten(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Momentum(Net):
    """Inverted: seen in running statistics only. And another rate of the dropout."""

    momentum = 0.9
    rate = 0.4


class Alpha(Net):
    """Not divided by the size."""

    alpha = 0.5


class NoActivation(Net):
    def activation(self, x):
        return x


class Swapped(Net):
    def join(self, a, b):
        return torch.cat([b, a], 1)


class Biased(Net):
    def __init__(self):
        super().__init__()
        self.stem[0] = nn.Conv2d(3, 8, 3, padding=1)


class Narrow(Net):
    def __init__(self):
        super().__init__()
        self.merge = nn.Conv2d(16, 16, 3, padding=1, groups=2)


class Unpadded(Net):
    """The linear layer does not fit then."""

    padding = 0


def branches_swapped():
    """A factory is a source too."""
    return Swapped()
