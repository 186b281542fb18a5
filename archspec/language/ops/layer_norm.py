"""layer_norm: normalization over the channels, at each place by itself."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.initializers import NO_NORM_INIT, NormInit
from archspec.language.ops.base import Counts, Epsilon, Op, Param, SavedTensors, Shape, channels_of, positions_of


class LayerNorm(Op):
    """y = weight (x - mean) / sqrt(var + eps) + bias, as torch.nn.LayerNorm over the channels (Ba et al. 2016).

    (C, H, W) at each place, as torchvision's LayerNorm2d, (L, D) each token, or (F,); unchanged. The variance is
    biased. The same in training and evaluation. Traps: Keras' eps is 1e-3 unless given, which is 72 % off for inputs of
    0.01; second derivatives are wrong on TensorFlow, whose tf.nn.moments stops the gradient at the mean.
    """

    normalizes: ClassVar[bool] = True

    op: Literal["layer_norm"]
    eps: Epsilon = 1e-5
    elementwise_affine: bool = True
    bias: bool = True
    init: NormInit = NO_NORM_INIT

    def params(self, *shapes: Shape) -> dict[str, Param]:
        channels = (channels_of(shapes[0]),)
        if not self.elementwise_affine:
            return {}
        shift = {"bias": Param(channels, "shift")} if self.bias else {}
        return {"weight": Param(channels, "scale"), **shift}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 3 * n, "add": 4 * n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 4 * n, "add": 4 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True, elements=2 * positions_of(shapes[0]))
