"""The ops of the language: one a file; this is their contents page."""

from typing import Annotated

from pydantic import Field

from archspec.language.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d
from archspec.language.ops.add import Add
from archspec.language.ops.avg_pool2d import AvgPool2d
from archspec.language.ops.base import Op, Param, Shape, ShapeError
from archspec.language.ops.concat import Concat
from archspec.language.ops.conv2d import Conv2d
from archspec.language.ops.dropout import Dropout
from archspec.language.ops.flatten import Flatten
from archspec.language.ops.input import Input
from archspec.language.ops.linear import Linear
from archspec.language.ops.local_response_norm import LocalResponseNorm
from archspec.language.ops.max_pool2d import MaxPool2d
from archspec.language.ops.relu import Relu
from archspec.language.ops.sigmoid import Sigmoid
from archspec.language.ops.softmax import Softmax
from archspec.language.ops.split import Split
from archspec.language.ops.tanh import Tanh

OPS: dict[str, type[Op]] = {
    "adaptive_avg_pool2d": AdaptiveAvgPool2d,
    "add": Add,
    "avg_pool2d": AvgPool2d,
    "concat": Concat,
    "conv2d": Conv2d,
    "dropout": Dropout,
    "flatten": Flatten,
    "linear": Linear,
    "local_response_norm": LocalResponseNorm,
    "max_pool2d": MaxPool2d,
    "relu": Relu,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "split": Split,
    "tanh": Tanh,
}

AnyOp = Annotated[
    AdaptiveAvgPool2d
    | Add
    | AvgPool2d
    | Concat
    | Conv2d
    | Dropout
    | Flatten
    | Linear
    | LocalResponseNorm
    | MaxPool2d
    | Relu
    | Sigmoid
    | Softmax
    | Split
    | Tanh,
    Field(discriminator="op"),
]

__all__ = ["OPS", "AnyOp", "Input", "Op", "Param", "Shape", "ShapeError"]
