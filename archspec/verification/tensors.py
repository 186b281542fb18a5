"""Comparing tensors: how far two are apart, within which bound, and what their difference looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archspec.language.ops.base import format_shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

NAN = float("nan")
FLOAT32_STEP = 2.0**-23


def distance(a: Array, b: Array, scale: float | None = None) -> float:
    """Return the largest absolute difference, relative to `scale`, by default the largest magnitude of `a`."""
    scale = float(abs(a).max()) if scale is None else scale
    apart = float(abs(a - b).max())
    return apart / scale if scale else float("inf") if apart else 0.0


class Difference:
    """The difference of a target's tensor from the reference's."""

    def __init__(
        self, value: float, bound: float, *, problem: str = "", all_zero: bool = False, looks_like: str = ""
    ) -> None:
        self.value, self.bound, self.problem = value, bound, problem
        self.all_zero, self.looks_like = all_zero, looks_like


Read = Callable[[str, str], "Array | None"]  # (target, dtype) -> the tensor, or None if the target did not give it


def compare_tensors(
    read: Read,
    pair: tuple[str, str],
    dtype: str,
    bound: float,
    cap: float,
    *,
    check_dtype: bool = True,
    may_be_missing: bool = False,
    must_not_be_zero: bool = False,
    among: float = 0.0,
    floor: float = 1e-6,
    input: Array | None = None,
) -> Difference:
    """Return the difference between the tensors of the targets in `pair`, the first being the reference.

    In float64 the bound is `bound`. In float32 it is the sum of the distances of both targets' float32 from their own
    float64, neither of which may exceed `cap`. `among` is the largest magnitude among the tensors of this kind: one of
    less than `floor` of that is compared at the floor, as the gradient of a bias before a softmax can be a sum to 0,
    which is only rounding. `input` is the layer's input, for `looks_like`.
    """
    import numpy as np

    a, b = read(pair[0], dtype), read(pair[1], dtype)
    if a is None and b is None and may_be_missing:
        return Difference(0.0, bound, all_zero=True)
    if a is None or b is None:
        return Difference(NAN, bound, problem="is missing" if b is None else f"is missing in {pair[0]}")
    if a.shape != b.shape:
        problem = f"its shape is {shape_text(b.shape)}, the reference's {shape_text(a.shape)}"
        return Difference(NAN, bound, problem=problem)
    if check_dtype and (a.dtype != dtype or b.dtype != dtype):
        return Difference(NAN, bound, problem=f"is computed in {b.dtype}, the reference in {a.dtype}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(NAN, bound, problem="is not finite")
    if not a.any() and not b.any():
        if must_not_be_zero:
            return Difference(NAN, bound, problem="is zero everywhere: nothing was compared")
        return Difference(0.0, bound, all_zero=True)
    exact = read(pair[0], "float64") if dtype == "float32" else None
    scale = max(float(abs(a if exact is None else exact).max()), floor * among)
    value = distance(a, b, scale)
    if dtype == "float32":
        errors: list[float] = []
        for target in pair:
            double, single = read(target, "float64"), read(target, "float32")
            if double is None or single is None or double.shape != single.shape:
                errors.append(cap)
                continue
            errors.append(distance(double, single, scale))
            if not errors[-1] <= cap:
                problem = f"in float32 differs by {errors[-1]:.1e} from {target}'s own float64"
                return Difference(value, cap, problem=problem)
        # one step of a float32, for tensors that are exact by chance
        bound = min(2 * cap, sum(errors) * (1 + 1e-6) + bound + FLOAT32_STEP)
    return Difference(value, bound, looks_like="" if value <= bound else looks_like(a, b, input))


def shape_text(shape: Any) -> str:
    """Return a shape as text; `a number` for a scalar."""
    return format_shape(tuple(shape)) if len(shape) else "a number"


def looks_like(a: Array, b: Array, input: Array | None) -> str:
    """Return what the difference of `b` from `a` looks like, or an empty string; `input` is the layer's input.

    A hint for the reader: it does not affect whether two tensors agree.
    """
    import numpy as np

    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return ""
    scale = float(abs(a).max()) or 1.0
    near = 1e-6 * scale

    def close(x: Array, y: Array) -> bool:
        return x.shape == y.shape and bool(abs(x - y).max() <= near)

    if not b.any():
        return "missing: all zeros"
    if input is not None and close(b, input) and not close(a, input):
        return "missing: the output is the layer's input"
    factor = float((a * b).sum() / max(float((a * a).sum()), 1e-300))
    if factor and close(factor * a, b):
        return f"scale: all values are {factor:.6g} times as large"
    if a.ndim > 1 and close((offset := (b - a).mean(axis=(0, *range(2, a.ndim)), keepdims=True)) + a, b):
        return "offset: a constant for each channel" if offset.size > 1 else "offset: a constant"
    if close(np.sort(a, axis=None), np.sort(b, axis=None)):
        return "permutation: the same values in another order"
    if a.ndim == 4:
        apart = abs(a - b).max(axis=(0, 1)) > near
        if apart.any() and not apart[1:-1, 1:-1].any() and min(apart.shape) > 2:
            return "padding: only values at the edges differ"
        for axis, way in ((2, "vertically"), (3, "horizontally")):
            ahead = np.take(b, range(1, b.shape[axis]), axis), np.take(a, range(a.shape[axis] - 1), axis)
            behind = np.take(a, range(1, a.shape[axis]), axis), np.take(b, range(b.shape[axis] - 1), axis)
            if a.shape[axis] > 2 and (close(*ahead) or close(*behind)):
                return f"padding: the feature maps are shifted {way} by one"
    share = float((abs(a - b) > near).mean())
    return f"{share:.0%} of the values differ" if share < 0.9 else ""
