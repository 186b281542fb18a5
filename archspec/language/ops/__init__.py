"""The ops of the language: one a file; this is their contents page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from archspec.language.ops.base import Op, Param, Shape, ShapeError
from archspec.language.ops.input import Input

_NAMES = (
    "adaptive_avg_pool2d",
    "add",
    "avg_pool2d",
    "batch_norm2d",
    "center_crop",
    "channel_shuffle",
    "class_token",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "dot_product_attention",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "layer_norm",
    "layer_scale",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "maps",
    "max_pool2d",
    "mean",
    "mish",
    "mul",
    "multihead_attention",
    "opaque",
    "pad_channels",
    "position_embedding",
    "relu",
    "relu6",
    "rescaling",
    "select",
    "shifted_window_attention",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "space_to_depth",
    "split",
    "stochastic_depth",
    "tanh",
    "tokens",
    "transpose",
    "upsample",
    "zero_pad2d",
)


class _Ops(Mapping[str, type[Op]]):
    """The ops' models by name; each is imported when it is first asked for, as a spec uses few of them."""

    def __init__(self) -> None:
        self._models: dict[str, type[Op]] = {}

    def __getitem__(self, name: str) -> type[Op]:
        if name not in self._models:
            if name not in _NAMES:
                raise KeyError(name)
            module = import_module(f"archspec.language.ops.{name}")
            self._models[name] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
        return self._models[name]

    def __contains__(self, name: object) -> bool:
        return name in _NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


OPS: Mapping[str, type[Op]] = _Ops()

__all__ = ["OPS", "Input", "Op", "Param", "Shape", "ShapeError"]
