"""Canonical weights: PyTorch's names and layouts, drawn from a spec's initializers, in safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archspec.graph import Graph
from archspec.language.initializers import Distribution, KaimingNormal, Normal

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
    within the rounding of float32. These keep the scale of the input up to the outputs.
    """
    return _sample(graph, seed, he_normal=True)


def for_training_check(graph: Graph, seed: int) -> Weights:
    """Return weights from which training at a rate such as 0.01 does not diverge in its first steps.

    N(0, 1 / fan in), a tenth of that deviation in the last layer, and biases of N(0, 0.01). In float32, a jump of the
    loss turns rounding into another run: weights 15 % apart were seen after losses of four times the first.
    """
    import numpy as np

    last = next((node.name for node in reversed(graph.nodes) if node.kernel), "")
    weights = {}
    for name, weight in for_forward_check(graph, seed).items():
        factor = 0.1 if name.endswith(".bias") else 0.5**0.5
        weights[name] = weight * np.float32(factor * (0.1 if name.startswith(f"{last}.") else 1))
    return weights


def _sample(graph: Graph, seed: int, *, he_normal: bool) -> Weights:
    import numpy as np

    random = np.random.default_rng(seed)
    weights = {}
    for node in graph.nodes:
        for name, param in node.params.items():
            rule = graph.initializer(node, name)
            if he_normal:
                rule = KaimingNormal() if param.role == "kernel" else Normal()
            assert node.kernel
            weights[f"{node.name}.{name}"] = _draw(rule.distribution(node.kernel.shape), param.shape, random)
    return weights


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


def save(weights: Weights, path: Path) -> None:
    """Write weights to a safetensors file."""
    from safetensors.numpy import save_file

    save_file(weights, path)
