"""dropout: zeros at random while training."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from archspec.ops.base import Counts, Kept, Op, Shape, Weights


class Dropout(Op):
    """In training each value is 0 with probability `p` and otherwise scaled by 1 / (1 - p); in evaluation unchanged.

    As torch.nn.Dropout and keras.layers.Dropout. Trap: the 2012 paper (section 4.2) and its code do not scale in
    training and multiply by 0.5 in evaluation, which is the same network with other weights.
    """

    op: Literal["dropout"]
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {"random": prod(shapes[0])}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(values=prod(shapes[0]))  # the draw
