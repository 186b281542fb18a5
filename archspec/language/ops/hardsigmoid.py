"""hardsigmoid: the logistic function in three lines."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Hardsigmoid(Op):
    """y = min(max(x + 3, 0), 6) / 6, as torch.nn.Hardsigmoid (Howard et al. 2019). Any shape, unchanged.

    Traps: Keras 2's `hard_sigmoid` was min(max(0.2 x + 0.5, 0), 1); Keras 3's is this one. In float64 the gradient of
    torch.nn.Hardsigmoid is 3e-8 off, as its 1 / 6 is a float32 (PyTorch 2.14.1), and so is Keras' on that backend.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = True
    saturates: ClassVar[bool] = True
    probabilities: ClassVar[bool] = True

    op: Literal["hardsigmoid"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "compare": 2 * n, "mul": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": 2 * n, "mul": n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
