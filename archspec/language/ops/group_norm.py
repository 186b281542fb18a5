"""group_norm: normalization of groups of channels, sample by sample."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.initializers import NO_NORM_INIT, NormInit
from archspec.language.ops.base import (
    Counts,
    Epsilon,
    Op,
    Param,
    SavedTensors,
    Shape,
    ShapeError,
    Size,
    require_chw,
)


class GroupNorm(Op):
    """y = weight (x - mean) / sqrt(var + eps) + bias over a sample's groups of channels, as torch.nn.GroupNorm.

    (C, H, W), unchanged; group g is the g-th of `num_groups` blocks of channels, and the variance is biased (Wu and
    He 2018). The same in training and evaluation. Traps: Keras' eps is 1e-3 unless given; second
    derivatives are wrong on TensorFlow, whose tf.nn.moments stops the gradient at the mean.
    """

    normalizes: ClassVar[bool] = True

    op: Literal["group_norm"]
    num_groups: Size
    eps: Epsilon = 1e-5
    affine: bool = True
    init: NormInit = NO_NORM_INIT

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = require_chw(shapes[0])[0]
        if channels % self.num_groups:
            message = f"num_groups={self.num_groups} must divide its {channels} channels"
            raise ShapeError("groups", message, "num_groups")
        return shapes[0]

    def receptive_window(self, *shapes: Shape) -> None:
        return None

    def params(self, *shapes: Shape) -> dict[str, Param]:
        channels = (shapes[0][0],)
        return {"weight": Param(channels, "scale"), "bias": Param(channels, "shift")} if self.affine else {}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 3 * n, "add": 4 * n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 4 * n, "add": 4 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True, elements=2 * self.num_groups)
