"""rescaling: a constant factor and a constant term."""

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Counts, Op, Shape

Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class Rescaling(Op):
    """y = scale x + offset, numbers that are not learned, as keras.layers.Rescaling. Any shape, unchanged.

    A factor for a residual branch (Szegedy et al. 2017, Inception-ResNet), or with `scale: -1` and `add` a difference.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    combines: ClassVar[bool] = True

    op: Literal["rescaling"]
    scale: Number = 1.0
    offset: Number = 0.0

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {**({"mul": n} if self.scale != 1 else {}), **({"add": n} if self.offset else {})}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": prod(shapes[0])} if self.scale != 1 else {}
