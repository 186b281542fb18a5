"""softmax: scores to probabilities."""

from typing import Literal

from archspec.ops.base import Op, Shape, Weights


class Softmax(Op):
    """y[c] = exp(x[c]) / sum of exp(x), over the channels of maps or the features of a vector. Any shape, unchanged.

    Trap: a cross-entropy on logits applies its own. A network that is trained ends in its logits.
    """

    op: Literal["softmax"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def macs(self, *shapes: Shape) -> int:
        return 0
