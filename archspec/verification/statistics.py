"""Statistical tests of random draws against the distributions of a spec."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from archspec.language.initializers import Distribution

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

SIGMAS = 6.0  # the tolerance, in standard errors: exceeded once in five hundred million
TAIL = 2.3  # deviations beyond which values are counted: Keras' truncated normals have none beyond 2.27
SAMPLE = 200_000  # values of a tensor that the Kolmogorov-Smirnov test reads, as it sorts them
ZEROS = "its input is zero everywhere: nothing was compared"


def drawn_from(values: Array, rule: Distribution) -> dict[str, float]:
    """Return the distance of values from a distribution in standard errors, by statistic.

    `mean`, `deviation`, `tails`, and `distribution`: a Kolmogorov-Smirnov test, its p-value as the standard errors of
    a normal that are as rare. A constant is exact: 0 or infinitely far.
    """
    import numpy as np
    from scipy import stats

    values = values.astype(np.float64).ravel()
    if rule.kind == "constant":
        return {"value": 0.0 if (values == np.float64(np.float32(rule.first))).all() else float("inf")}
    if rule.kind == "uniform":
        law = stats.uniform(rule.first, rule.second - rule.first)
    elif rule.kind == "normal":
        law = stats.norm(rule.first, rule.second)
    else:
        law = stats.truncnorm(-rule.cut, rule.cut, rule.first, rule.second)
    n, mean, variance = values.size, law.mean(), law.var()
    kurtosis = float(law.stats(moments="k"))
    # the variance of a sample's variance: (kurtosis + 2 n / (n - 1)) var^2 / n
    found = {"mean": abs(values.mean() - mean) / sqrt(variance / n)}
    if n > 20:
        spread = variance * sqrt((kurtosis + 2 * n / (n - 1)) / n)
        found["deviation"] = abs(values.var(ddof=1) - variance) / spread
    spread = TAIL * sqrt(variance)
    tail = float(law.cdf(mean - spread) + law.sf(mean + spread))
    beyond = float((abs(values - mean) > spread).mean())
    if tail:
        found["tails"] = abs(beyond - tail) / sqrt(tail * (1 - tail) / n)
    elif beyond:
        found["tails"] = float("inf")
    sample = values if n <= SAMPLE else np.random.default_rng(0).choice(values, SAMPLE)
    probability = float(stats.kstest(sample, law.cdf).pvalue)
    found["distribution"] = float(stats.norm.isf(max(probability, 1e-300) / 2))
    return {name: float(value) for name, value in found.items()}


def drops(inputs: Array, outputs: Array, p: float, *, whole: bool = False) -> tuple[float, str]:
    """Return the distance of the fraction of dropped values from `p` in standard errors, and any other fault.

    `inputs` and `outputs` are those of a dropout layer in training mode: each value, or each `whole` sample, is dropped
    to 0, or scaled by 1 / (1 - p).
    """
    import numpy as np

    if whole:
        inputs, outputs = (values.reshape(len(values), -1) for values in (inputs, outputs))
        kept = (outputs != 0) & (inputs != 0)
        if (kept.any(axis=1) & (kept != (inputs != 0)).any(axis=1)).any():
            return float("inf"), "single values are dropped, not whole samples"
        largest = abs(inputs).argmax(axis=1)[:, None]  # stands for its sample
        inputs, outputs = (np.take_along_axis(values, largest, 1) for values in (inputs, outputs))
    seen = inputs != 0
    count = int(seen.sum())
    if count == 0:
        return 0.0, ZEROS
    dropped = (outputs == 0) & seen
    kept = seen & ~dropped
    factors = outputs[kept] / inputs[kept]
    want = 1 / (1 - p)
    if kept.any() and float(abs(factors - want).max()) > 1e-5 * want:
        return float("inf"), f"kept values are scaled by {float(np.median(factors)):.4g}, not by {want:.4g}"
    if p == 0:
        return (float("inf"), "drops values") if dropped.any() else (0.0, "")
    share = float(dropped.sum()) / count
    sigmas = abs(share - p) / sqrt(p * (1 - p) / count)
    both = seen[:-1] & seen[1:]
    if not whole and both.sum() >= 30 and dropped.any() and (dropped[:-1] == dropped[1:])[both].all():
        return float("inf"), "the same values are dropped in every sample"
    return sigmas, ""
