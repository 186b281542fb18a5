"""stochastic_depth: whole samples are dropped at random while training."""

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class StochasticDepth(Op):
    """In training each sample is 0 with probability `p` and otherwise scaled by 1 / (1 - p); in evaluation unchanged.

    Any shape. For the residual branch of a block (Huang et al. 2016), as torchvision.ops.StochasticDepth of mode `row`.
    Trap: timm's DropPath is the same with `p` the probability of a drop; some papers give that of survival.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    random: ClassVar[bool] = True
    draws_samples: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["stochastic_depth"]
    p: Annotated[float, Field(ge=0, lt=1)]

    def counts(self, *shapes: Shape) -> Counts:
        return {"random": 1}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(elements=1)  # the draw
