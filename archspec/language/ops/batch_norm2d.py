"""batch_norm2d: normalization by the statistics of the batch."""

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.initializers import NO_NORM_INIT, NormInit
from archspec.language.ops.base import Counts, Epsilon, Op, Param, SavedTensors, Shape, require_chw


class BatchNorm2d(Op):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each channel by itself, as torch.nn.BatchNorm2d.

    (C, H, W), unchanged. In training mean and variance are the batch's (the variance biased), and running_mean and
    running_var move towards them by `momentum`; in evaluation they are the running ones (Ioffe and Szegedy 2015).
    Traps: Keras' momentum is 1 - momentum, its defaults are 0.99 and eps 1e-3, and its running variance is biased
    where PyTorch's is not: with 16 values a channel it is 0.7 % apart after one step.
    """

    channelwise: ClassVar[bool] = True
    normalizes: ClassVar[bool] = True
    acts_in_training: ClassVar[tuple[str, ...]] = ("momentum",)
    depends_on_batch: ClassVar[bool] = True

    op: Literal["batch_norm2d"]
    eps: Epsilon = 1e-5
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    affine: bool = True
    init: NormInit = NO_NORM_INIT

    def output_shape(self, *shapes: Shape) -> Shape:
        require_chw(shapes[0])
        return shapes[0]

    def params(self, *shapes: Shape) -> dict[str, Param]:
        channels = (shapes[0][0],)
        learned = {"weight": Param(channels, "scale"), "bias": Param(channels, "shift")} if self.affine else {}
        return {
            **learned,
            "running_mean": Param(channels, "running_mean"),
            "running_var": Param(channels, "running_var"),
        }

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])  # in evaluation: one factor and one offset a channel
        return {"mul": n, "add": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
