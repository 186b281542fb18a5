"""Networks with modules that the language has no words for."""

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer


def swin() -> nn.Module:
    """A Swin transformer of two stages, whose windows are computed from the sizes of maps."""
    return SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=5)


class Spectrum(nn.Module):
    """Magnitude and phase: two outputs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.fft.fft2(x * self.scale)
        return found.abs(), found.angle()


class Mixer(nn.Module):
    """Reads both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spectrum = Spectrum(channels)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.spectrum(x)
        return self.conv(magnitude * phase)


class Fourier(nn.Module):
    """A module of two outputs within one of one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.mixer = Mixer(8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mixer(self.stem(x))).mean((2, 3))


class Outside(nn.Module):
    """An operator that is in no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.conv(x), 2).mean((2, 3))
