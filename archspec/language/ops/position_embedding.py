"""position_embedding: a learned vector for each place of a sequence."""

from math import prod
from typing import Literal

from archspec.language.initializers import Normal, WeightInit
from archspec.language.ops.base import Counts, Op, Param, Shape, require_tokens

SMALL = WeightInit.model_construct(weight=Normal.model_construct(mean=0.0, std=0.02))


class PositionEmbedding(Op):
    """y = x + weight, a learned vector for each token's place, N(0, 0.02^2) at first (Dosovitskiy et al. 2021).

    (L, D), unchanged. `weight` is (1, L, D). A class token before it has a place of its own.
    """

    op: Literal["position_embedding"]
    init: WeightInit = SMALL

    def output_shape(self, *shapes: Shape) -> Shape:
        return require_tokens(shapes[0])

    def params(self, *shapes: Shape) -> dict[str, Param]:
        return {"weight": Param((1, *shapes[0]), "embedding")}

    def counts(self, *shapes: Shape) -> Counts:
        return {"add": prod(shapes[0])}
