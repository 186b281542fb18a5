"""The recipe: what each optimizer and schedule does, written here by hand, in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import FRAMEWORKS, network
from helpers.verification import run_training
from numpy.typing import NDArray

from archspec.targets import TARGETS, files
from archspec.verification import Workers, canonical_weights

Array = NDArray[np.float64]

# A rule as its source prints it: of (w, gradient, state, rate, step), the new w; the state is updated.
Rule = Callable[[Array, Array, dict[str, Any], float, int], Array]


def caffe_sgd(w: Array, g: Array, s: dict[str, Any], lr: float, t: int) -> Array:
    """Krizhevsky et al. 2012, section 5: v <- 0.9 v - 0.05 lr w - lr g; w <- w + v."""
    s["v"] = 0.9 * s.get("v", 0.0) - 0.05 * lr * w - lr * g
    return w + s["v"]


def plain_sgd(w: Array, g: Array, s: dict[str, Any], lr: float, t: int) -> Array:
    return w - lr * (g + 0.05 * w)


def sgd(w: Array, g: Array, s: dict[str, Any], lr: float, t: int) -> Array:
    """torch.optim.SGD's documentation, without dampening: b <- 0.9 b + (g + decay w); w <- w - lr b."""
    s["b"] = 0.9 * s.get("b", 0.0) + (g + 0.05 * w)
    return w - lr * s["b"]


def nesterov(w: Array, g: Array, s: dict[str, Any], lr: float, t: int) -> Array:
    """As above, with nesterov: w <- w - lr (g + decay w + 0.9 b)."""
    s["b"] = 0.9 * s.get("b", 0.0) + (g + 0.05 * w)
    return w - lr * (g + 0.05 * w + 0.9 * s["b"])


def adam(w: Array, g: Array, s: dict[str, Any], lr: float, t: int, decay: float = 0.05) -> Array:
    """Kingma and Ba 2015, algorithm 1; decay w in the gradient, as torch.optim.Adam's documentation has it."""
    g = g + decay * w
    s["m"] = 0.8 * s.get("m", 0.0) + 0.2 * g
    s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g**2
    return w - lr * (s["m"] / (1 - 0.8**t)) / (np.sqrt(s["v"] / (1 - 0.9**t)) + 1e-3)


def adamw(w: Array, g: Array, s: dict[str, Any], lr: float, t: int) -> Array:
    """Loshchilov and Hutter 2019, as torch.optim.AdamW's documentation has it: w shrinks first."""
    return adam(w - lr * 0.05 * w, g, s, lr, t, decay=0.0)


OPTIMIZERS: dict[str, tuple[str, Rule]] = {
    "caffe_sgd": ("{caffe_sgd: {lr: 0.1, momentum: 0.9, weight_decay: 0.05}}", caffe_sgd),
    "caffe_sgd, no momentum": ("{caffe_sgd: {lr: 0.1, weight_decay: 0.05}}", plain_sgd),
    "sgd": ("{sgd: {lr: 0.1, momentum: 0.9, weight_decay: 0.05}}", sgd),
    "sgd, no momentum": ("{sgd: {lr: 0.1, weight_decay: 0.05}}", plain_sgd),
    "nesterov": ("{sgd: {lr: 0.1, momentum: 0.9, weight_decay: 0.05, nesterov: true}}", nesterov),
    "adam": ("{adam: {lr: 0.1, betas: [0.8, 0.9], eps: 1e-3, weight_decay: 0.05}}", adam),
    "adamw": ("{adamw: {lr: 0.1, betas: [0.8, 0.9], eps: 1e-3, weight_decay: 0.05}}", adamw),
}


@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize("biases_differ", [False, True], ids=["alike", "multipliers"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_follows_the_rule_of_its_source(
    name: str, biases_differ: bool, workers: Workers, tmp_path: Path
) -> None:
    """A linear layer under cross-entropy, whose gradient is (p - y) x, trained by hand across a drop of the learning rate."""
    text, rule = OPTIMIZERS[name]
    factors = "multipliers: {weight: {lr: 1, decay: 1}, bias: {lr: 2, decay: 0}}\n" if biases_differ else ""
    head = f"{factors}training: {{optimizer: {text}, schedule: {{step: {{step_size: 1, gamma: 0.1}}}}}}"
    layers = "{name: flatten, op: flatten}\n{name: fc, op: linear, out_features: 3}"
    graph = network(layers, "{channels: 2, height: 1, width: 2}", head)
    random = np.random.default_rng(7)
    start = {
        "fc.weight": random.normal(size=(3, 4)).astype(np.float32),
        "fc.bias": random.normal(size=3).astype(np.float32),
    }
    inputs, labels = random.normal(size=(6, 5, 2, 1, 2)), random.integers(0, 3, (6, 5))

    w, b = start["fc.weight"].astype(float), start["fc.bias"].astype(float)
    states: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    losses = []
    for step, (x, y) in enumerate(zip(inputs.reshape(6, 5, 4), labels, strict=True)):
        scores = x @ w.T + b
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        losses.append(-np.log(p[range(5), y]).mean())
        p[range(5), y] -= 1
        rate = 0.1 if step < 3 else 0.01
        w = rule(w, p.T @ x / 5, states[0], rate, step + 1)
        # A bias that does not decay: the decay that the rule will add is subtracted from the gradient.
        gradient = p.mean(0)
        if biases_differ and rule is adamw:
            b = adam(b, gradient, states[1], 2 * rate, step + 1, decay=0.0)
        else:
            b = rule(
                b, gradient - 0.05 * b if biases_differ else gradient, states[1], rate * (1 + biases_differ), step + 1
            )

    for target in FRAMEWORKS:
        answer, found = run_training(graph, target, workers, tmp_path, [[3, 0.5], [3, 0.5]], (start, inputs, labels))
        assert answer["losses"] == pytest.approx(losses, rel=1e-12), target
        assert found["fc.weight"] == pytest.approx(w, rel=1e-11, abs=1e-13), target
        assert found["fc.bias"] == pytest.approx(b, rel=1e-11, abs=1e-13), target


# A schedule, the validation errors of the epochs, and the factor of the learning rate in each epoch, by hand.
RISE = [1 / 4, 2 / 4, 3 / 4]  # a warm-up of three epochs
SCHEDULES = [
    ("constant", None, [1, 1, 1]),
    ("{constant: {warmup: 3}}", None, [*RISE, 1, 1]),
    ("{step: {step_size: 2, gamma: 0.5}}", None, [1, 1, 0.5, 0.5, 0.25]),
    ("{step: {step_size: 2, gamma: 0.5, warmup: 3}}", None, [*RISE, 1, 1, 0.5, 0.5, 0.25]),
    ("{multi_step: {milestones: [1, 4], gamma: 0.2}}", None, [1, 0.2, 0.2, 0.2, 0.04]),
    (f"{{multi_step: {{milestones: {list(range(2, 60))}, gamma: 1}}}}", None, [1, 1, 1]),
    ("{cosine: {t_max: 1}}", None, [1, 0, 1]),
    ("{multi_step: {milestones: [2, 3], warmup: 3}}", None, [*RISE, 1, 1, 0.1, 0.01]),
    ("{exponential: {gamma: 0.5}}", None, [1, 0.5, 0.25, 0.125]),
    ("{exponential: {gamma: 0.5, warmup: 3}}", None, [*RISE, 1, 0.5, 0.25]),
    ("{cosine: {t_max: 4}}", None, [1, (1 + cos(pi / 4)) / 2, 0.5, (1 + cos(3 * pi / 4)) / 2]),
    ("{cosine: {t_max: 4, warmup: 3}}", None, [*RISE, 1, (1 + cos(pi / 4)) / 2, 0.5]),
    # 0.5 is the best error until 0.4: 0.495, 0.495 and 0.4901 do not improve on it by more than 0.01. Two such epochs are
    # tolerated, the third lowers the rate. After 0.4 it takes three more.
    (
        "{reduce_on_plateau: {factor: 0.5, patience: 2, threshold: 0.01}}",
        [0.5, 0.495, 0.495, 0.4901, 0.4, 0.395, 0.5, 0.395, 0.3],
        [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25],
    ),
    ("{reduce_on_plateau: {patience: 0, monitor: validation_loss}}", [0.5, 0.6, 0.4, 0.45], [1, 1, 0.1, 0.1]),
]


@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize(("text", "errors", "factors"), SCHEDULES, ids=[row[0] for row in SCHEDULES])
def test_schedule_has_the_learning_rates_of_its_source(
    text: str, errors: list[float] | None, factors: list[float], workers: Workers, tmp_path: Path
) -> None:
    """The learning rate of every epoch, one step each."""
    layers = "{name: flatten, op: flatten}\n{name: fc, op: linear, out_features: 3}"
    head = f"training: {{optimizer: {{sgd: {{lr: 0.2, momentum: 0.5}}}}, schedule: {text}}}"
    graph = network(layers, "{channels: 2, height: 1, width: 2}", head)
    n = len(factors)
    random = np.random.default_rng(3)
    data = (
        canonical_weights.for_forward_check(graph, 0),
        random.normal(size=(n, 2, 2, 1, 2)),
        random.integers(0, 3, (n, 2)),
    )
    epochs = [[1, error] for error in (errors or [0.5] * n)]
    for target in FRAMEWORKS:
        answer, _ = run_training(graph, target, workers, tmp_path, epochs, data)
        assert answer["rates"] == pytest.approx([0.2 * factor for factor in factors], rel=1e-12), target


@pytest.mark.parametrize("target", FRAMEWORKS)
@pytest.mark.parametrize("optimizer", [row[0] for row in OPTIMIZERS.values()], ids=list(OPTIMIZERS))
def test_recipe_of_every_optimizer_and_schedule_is_formatted_python(optimizer: str, target: str) -> None:
    """Every pair compiles, with lines of 88 characters at most, and no runs of empty lines."""
    for schedule, *_ in SCHEDULES:
        head = f"multipliers: {{bias: {{lr: 2}}}}\ntraining: {{optimizer: {optimizer}, schedule: {schedule}}}"
        graph = network("{name: fc, op: conv2d, out_channels: 3, kernel_size: 1}", head=head)
        texts = files(graph, TARGETS[target], engine=False)
        folder = TARGETS[target].folder
        assert set(texts) == {f"{folder}/model.py", f"{folder}/recipe.py", f"{folder}/train.py"}
        for name, text in texts.items():
            compile(text, name, "exec")
            # The header, which has the path of the spec, is not wrapped.
            assert max(map(len, text.splitlines()[2:])) <= 88, (name, schedule)
            assert "\n\n\n\n" not in text
            assert text.endswith("\n")
            assert not text.endswith("\n\n")
