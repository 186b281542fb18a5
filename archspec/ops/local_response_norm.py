"""local_response_norm: each channel divided by what its neighbours do."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.ops.base import Op, Shape, ShapeError, Size, Weights, maps


class LocalResponseNorm(Op):
    """y[c] = x[c] / (k + alpha / size * sum of x[j]^2 over the `size` channels around c)^beta, as torch.nn's.

    (C, H, W), unchanged. Beyond the first and the last channel there are zeros. With `groups`, neighbours are sought
    within each of as many blocks of channels, as the authors' code of 2012 does within each of its two towers.

    Trap: `alpha` is divided by `size` here, in Caffe, cuDNN, ONNX and the authors' code; it is not in the formula that
    the paper prints (Krizhevsky et al. 2012, section 3.3) nor in tf.nn.local_response_normalization, whose
    `depth_radius` r means a size of 2 r + 1. An even size has no middle: frameworks disagree, so it is refused.
    """

    op: Literal["local_response_norm"]
    size: Size
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.75
    k: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    groups: Size = 1

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = maps(shapes[0])[0]
        if self.size % 2 == 0:
            raise ShapeError("even-size", f"size={self.size} has no middle channel: give an odd one", "size")
        if channels % self.groups:
            raise ShapeError("groups", f"groups={self.groups} must divide its {channels} channels", "groups")
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def macs(self, *shapes: Shape) -> int:
        return 0
