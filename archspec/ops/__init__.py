"""The vocabulary: one op a file, and this page its contents."""

from typing import Annotated

from pydantic import Field

from archspec.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d
from archspec.ops.add import Add
from archspec.ops.avg_pool2d import AvgPool2d
from archspec.ops.base import Op, Shape, ShapeError
from archspec.ops.concat import Concat
from archspec.ops.conv2d import Conv2d
from archspec.ops.dropout import Dropout
from archspec.ops.flatten import Flatten
from archspec.ops.input import Input
from archspec.ops.linear import Linear
from archspec.ops.local_response_norm import LocalResponseNorm
from archspec.ops.max_pool2d import MaxPool2d
from archspec.ops.relu import Relu
from archspec.ops.sigmoid import Sigmoid
from archspec.ops.softmax import Softmax
from archspec.ops.split import Split
from archspec.ops.tanh import Tanh

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

__all__ = ["AnyOp", "Input", "Op", "Shape", "ShapeError"]
