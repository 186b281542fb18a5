"""dropout: zeros at random while training."""

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Dropout(Op):
    """In training each value is 0 with probability `p` and otherwise scaled by 1 / (1 - p); in evaluation unchanged.

    As torch.nn.Dropout and keras.layers.Dropout. Trap: the 2012 paper (section 4.2) and its code do not scale in
    training and multiply by 0.5 in evaluation, which is the same network with other weights.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    random: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["dropout"]
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def counts(self, *shapes: Shape) -> Counts:
        return {"random": prod(shapes[0])}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(elements=prod(shapes[0]))  # the draw
