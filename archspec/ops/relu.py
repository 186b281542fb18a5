"""relu: the rectifier."""

from typing import Literal

from archspec.ops.base import Op, Shape, Weights


class Relu(Op):
    """y = max(x, 0) (Krizhevsky et al. 2012, section 3.1). Any shape, unchanged."""

    op: Literal["relu"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def macs(self, *shapes: Shape) -> int:
        return 0
