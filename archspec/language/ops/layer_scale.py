"""layer_scale: a learned factor for each channel."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.initializers import Constant, WeightInit
from archspec.language.ops.base import Counts, Op, Param, SavedTensors, Shape, channels_of

SMALL = WeightInit.model_construct(weight=Constant.model_construct(value=1e-6))


class LayerScale(Op):
    """y = weight x, a factor for each channel, which is 1e-6 at first (Touvron et al. 2021).

    (C, H, W), (L, D) or (F,), unchanged. For the end of a residual branch, as in ConvNeXt (Liu et al. 2022).
    """

    channelwise: ClassVar[bool] = True

    op: Literal["layer_scale"]
    init: WeightInit = SMALL

    def params(self, *shapes: Shape) -> dict[str, Param]:
        return {"weight": Param((channels_of(shapes[0]),), "scale")}

    def counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
