"""gelu: a smooth rectifier, by the normal distribution."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Gelu(Op):
    """y = x P(X < x) of a standard normal X, which is x (1 + erf(x / sqrt(2))) / 2, as torch.nn.GELU.

    With `approximate: tanh`, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel 2016), which is up
    to 4.7e-4 off. Any shape, unchanged. Traps: keras.ops.gelu approximates by default; on TensorFlow Keras' own is 5e-9
    off in float64, as its constants are float32.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["gelu"]
    approximate: Literal["none", "tanh"] = "none"

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": n, "mul": 3 * n}  # the error function, or tanh

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": 2 * n, "mul": 5 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
