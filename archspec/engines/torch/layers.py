"""Layers and images as they compute faster, or in 16 bits."""

from typing import Any

import torch
from torch import Tensor, nn


def channels_last(images: Tensor) -> Tensor:
    """Return a batch of images in the memory format of faster convolutions."""
    if images.ndim != 4:
        return images
    return images.to(memory_format=torch.channels_last)


def widen_norms(network: nn.Module) -> None:
    """Compute local response normalization in float32, also under autocast.

    It squares its input: in float16, values beyond 256 become infinite.
    """

    def widen(module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        x: Tensor = inputs[0]
        return x.float()

    for module in network.modules():
        if isinstance(module, nn.LocalResponseNorm):
            module.register_forward_pre_hook(widen)
