"""Canonical weights: PyTorch's names and layouts, drawn from a spec's initializers, in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archspec.graph import Graph
from archspec.language.initializers import Distribution, KaimingNormal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]


def from_spec(graph: Graph, seed: int) -> Weights:
    """Return weights drawn from the spec's own initializers, as `conv1.weight` and `conv1.bias`, in float32."""
    return _sample(graph, seed, he_normal=False)


def for_forward_check(graph: Graph, seed: int) -> Weights:
    """Return He-normal weights and nonzero biases, with which every layer influences the outputs.

    With the paper's own small weights, values shrink from layer to layer until a whole normalization can be left out
    within the rounding of float32. These keep the scale of the input up to the outputs. A norm's scale is U(0.5, 1.5)
    and its shift N(0, 0.1); its running statistics are 0 and 1: see `with_statistics`.
    """
    return _sample(graph, seed, he_normal=True)


def with_statistics(graph: Graph, weights: Weights, statistics: Mapping[str, Any], seed: int) -> Weights:
    """Return weights whose running statistics are near those of a batch: `statistics` has NAME.mean and NAME.var.

    The mean is off by a tenth of the deviation and the variance by a factor of ln(3) U(0.5, 1.5), so that they are not
    what the batch itself would give. Without this a residual network of 50 blocks grows by 2^25.
    """
    import numpy as np

    random = np.random.default_rng([seed, 2])
    found = dict(weights)
    for node in graph.nodes:
        if f"{node.name}.mean" not in statistics:
            continue
        mean, var = statistics[f"{node.name}.mean"], statistics[f"{node.name}.var"]
        var = np.maximum(var, 1e-3 * (float(var.mean()) or 1.0))
        noise = random.standard_normal(mean.shape) * np.sqrt(var)
        found[f"{node.name}.running_mean"] = (mean + 0.1 * noise).astype(np.float32)
        # ln 3 is the mean of 1 / U(0.5, 1.5): without it outputs grow with the number of norms, by 300 in 60 of them
        factor = np.log(3) * random.uniform(0.5, 1.5, var.shape)
        found[f"{node.name}.running_var"] = (var * factor).astype(np.float32)
    return found


def for_training_check(graph: Graph, seed: int) -> Weights:
    """Return weights from which training at a rate such as 0.01 does not diverge in its first steps.

    N(0, 1 / fan in), a tenth of that deviation in the last layer, and biases of N(0, 0.01); norms as in
    `for_forward_check`. In float32, a jump of the loss turns rounding into another run: weights 15 % apart were seen
    after losses of four times the first.
    """
    import numpy as np

    last = next((node.name for node in reversed(graph.nodes) if node.kernel), "")
    weights = for_forward_check(graph, seed)
    for node in graph.nodes:
        for name, param in node.params.items():
            if param.role in ("kernel", "bias"):
                factor = 0.1 if param.role == "bias" else 0.5**0.5
                weights[f"{node.name}.{name}"] *= np.float32(factor * (0.1 if node.name == last else 1))
    return weights


def shapes(graph: Graph) -> dict[str, list[int]]:
    """Return the shapes of all parameters and buffers, by canonical name."""
    return {f"{n.name}.{name}": list(param.shape) for n in graph.nodes for name, param in n.params.items()}


def digest(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of weights: of their names, shapes and values in float32."""
    import hashlib

    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {list(value.shape)}\n".encode())
        found.update(value.astype("<f4").tobytes())
    return found.hexdigest()


def _sample(graph: Graph, seed: int, *, he_normal: bool) -> Weights:
    import numpy as np

    random = np.random.default_rng(seed)
    weights = {}
    for node in graph.nodes:
        for name, param in node.params.items():
            if not param.trainable:
                distribution = Distribution("constant", 1.0 if param.role == "running_var" else 0.0)
            elif not he_normal:
                distribution = graph.distribution(node, name)
            else:
                distribution = _LARGE.get(param.role) or KaimingNormal().distribution(param.shape)
            weights[f"{node.name}.{name}"] = _draw(distribution, param.shape, random)
    return weights


# For the check of outputs, by role.
_LARGE = {
    "bias": Distribution("normal", 0.0, 1.0),
    "scale": Distribution("uniform", 0.5, 1.5),
    "shift": Distribution("normal", 0.0, 0.1),
    "embedding": Distribution("normal", 0.0, 1.0),
}


def _draw(distribution: Distribution, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    import numpy as np

    kind, first, second, cut = distribution
    if kind == "constant":
        return np.full(shape, first, np.float32)
    if kind == "uniform":
        return random.uniform(first, second, shape).astype(np.float32)
    values = random.standard_normal(shape, np.float32)
    while kind == "truncated" and (far := abs(values) > cut).any():
        values[far] = random.standard_normal(int(far.sum()), np.float32)
    values *= second
    values += first
    return values
