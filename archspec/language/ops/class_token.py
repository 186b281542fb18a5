"""class_token: a learned token before the others."""

from typing import Literal

from archspec.language.initializers import WeightInit, Zeros
from archspec.language.ops.base import Op, Param, Shape, require_tokens

ZEROS = WeightInit.model_construct(weight=Zeros.model_construct())


class ClassToken(Op):
    """A learned token, 0 at first, before the others: a network reads its class from it (Devlin et al. 2019).

    (L, D) to (L + 1, D). `weight` is (1, 1, D).
    """

    op: Literal["class_token"]
    init: WeightInit = ZEROS

    def output_shape(self, *shapes: Shape) -> Shape:
        length, features = require_tokens(shapes[0])
        return length + 1, features

    def params(self, *shapes: Shape) -> dict[str, Param]:
        return {"weight": Param((1, 1, shapes[0][1]), "embedding")}
