"""mean: the mean of a sequence's tokens."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, Shape, require_tokens


class Mean(Op):
    """y = the mean of all tokens, as x.mean(dim=1) in PyTorch (Keras: GlobalAveragePooling1D).

    (L, D) to (D,). Of feature maps use adaptive_avg_pool2d with `output_size: 1`.
    """

    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["mean"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return (require_tokens(shapes[0])[1],)

    def counts(self, *shapes: Shape) -> Counts:
        length, features = shapes[0]
        return {"add": (length - 1) * features, "div": features}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"div": prod(shapes[0])}

    def receptive_window(self, *shapes: Shape) -> None:
        return None
