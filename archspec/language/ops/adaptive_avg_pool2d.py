"""adaptive_avg_pool2d: means of as many windows as the output has positions."""

from math import gcd, prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, Pair, SavedTensors, Shape, require_chw


class AdaptiveAvgPool2d(Op):
    """y[c, i, j] = the mean of x[c] over rows floor(i H / H') to ceil((i + 1) H / H') and columns likewise.

    (C, H, W) to (C, H', W') = (C, *output_size), as torch.nn.AdaptiveAvgPool2d. Where H' divides H these are plain
    windows; where H' is H it changes nothing, as in torchvision's AlexNet at 224.
    """

    channelwise: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["adaptive_avg_pool2d"]
    output_size: Pair

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair] | None:
        if self.output_size == (1, 1):
            return None
        # the largest window and distance, where H' does not divide H
        (rows, down), (columns, right) = map(_reach, require_chw(shapes[0])[1:], self.output_size)
        return (rows, columns), (down, right)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (require_chw(shapes[0])[0], *self.output_size)

    def _read(self, shape: Shape) -> int:
        """Return how many values all windows read together: some are in two of them.

        Along an axis the sum over i of ceil((i + 1) n / m) - floor(i n / m), which is n + m - gcd(n, m).
        """
        rows, columns = (n + m - gcd(n, m) for n, m in zip(shape[1:], self.output_size, strict=True))
        return shape[0] * rows * columns

    def counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": self._read(shapes[0]) - out, "div": out}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"add": self._read(shapes[0]), "div": prod(self.output_shape(*shapes))}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)


def _reach(size: int, positions: int) -> tuple[int, int]:
    """Return the largest ceil((i + 1) size / positions) - floor(i size / positions), and the largest step of them."""
    step, rest = divmod(size, positions)
    more = 0 if not rest else 1 if rest == gcd(rest, positions) else 2
    return step + more, step + bool(rest)
