"""PyTorch: what only its templates need."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from archspec.language.initializers import BiasRule, Rule, TorchDefault
from archspec.targets.base import Target
from archspec.targets.recipe_view import RecipeView
from archspec.targets.view import LayerView, ModelView


class TorchLayer(LayerView):
    """A node as the op templates read it for PyTorch."""

    @property
    def pads(self) -> bool:
        """Whether a padding layer comes before it, as its own padding is the same on both sides."""
        return self.window is not None and self.window.symmetric is None

    @property
    def assigned(self) -> str:
        """Its variable where it is assigned, with the type that mypy needs at the first `x`."""
        return self._typed if self.variable == "x" and not self.pads else self.variable

    @property
    def padded(self) -> str:
        """The variable of its padded input where it is assigned."""
        return self._typed

    @property
    def _typed(self) -> str:
        assert isinstance(self.model, TorchModel)
        return "x: Tensor" if self is self.model.first_x else "x"

    @property
    def arguments(self) -> str:
        """The arguments of its module's call."""
        return "x" if self.pads else ", ".join(self.inputs)

    @property
    def variable(self) -> str:
        """The variable of its result. An expression has no module to hook, so its result has the layer's name."""
        named = self.op.combines and self.node is not self.model.graph.output
        return self.model.local(self.name) if named or self.node not in self.model.reusing else "x"


class Reset(NamedTuple):
    """One case of `reset_parameters`: the modules of all ops in `ops`, or the layers named in `layers`."""

    ops: tuple[str, ...]
    layers: tuple[str, ...]
    rules: dict[str, tuple[Rule | BiasRule, LayerView]]  # by parameter, with a layer that the rule is for


class TorchModel(ModelView):
    """A graph as the PyTorch template reads it."""

    layer = TorchLayer
    resizable = True

    @property
    def input_variable(self) -> str:
        return "x" if self.graph.input in self.reusing else "inputs"

    @cached_property
    def first_x(self) -> LayerView | None:
        """The layer that first assigns `x`, where that is not the argument; mypy needs its type there."""
        if self.input_variable == "x":
            return None
        return next(layer for layer in self.layers if layer.variable == "x" or layer.pads)  # type: ignore[attr-defined]

    @cached_property
    def resets(self) -> list[Reset]:
        """The cases of `reset_parameters`: by op, then the exceptions, by layer.

        Parameters with PyTorch's default initializer are left as the modules made them.
        """
        by_op: dict[str, list[LayerView]] = {}
        for layer in self.trainable:
            by_op.setdefault(layer.op.op, []).append(layer)
        preferred = {self.graph.spec.init.weight, self.graph.spec.init.bias}
        usual = {op: _usual(layers, preferred) for op, layers in by_op.items()}
        cases: dict[Any, Reset] = {}
        for op, rules in usual.items():
            key: Any = tuple((param, rule) for param, (rule, _) in rules.items())
            if rules:
                case = cases.get(key, Reset((), (), rules))
                cases[key] = case._replace(ops=(*case.ops, op))
        for layer in self.trainable:
            for param, rule in layer.initializers.items():
                common = usual[layer.op.op].get(param)
                if rule != (common[0] if common else TorchDefault()):
                    key = ("exception", param, rule)
                    case = cases.get(key, Reset((), (), {param: (rule, layer)}))
                    cases[key] = case._replace(layers=(*case.layers, layer.name))
        return list(cases.values())


def _usual(layers: list[LayerView], preferred: set[Any]) -> dict[str, tuple[Rule | BiasRule, LayerView]]:
    """Return the rule of each parameter that most layers have, or the spec's own.

    None where a layer has PyTorch's default, which no call restores.
    """
    found: dict[str, tuple[Rule | BiasRule, LayerView]] = {}
    for param in dict.fromkeys(name for layer in layers for name in layer.initializers):
        rules = [(layer.initializers[param], layer) for layer in layers if param in layer.initializers]
        if not any(isinstance(rule, TorchDefault) for rule, _ in rules):
            found[param] = max(
                rules, key=lambda pair: (pair[0] in preferred, sum(rule == pair[0] for rule, _ in rules))
            )
    return found


def _launch(backend: str, rank: int, ports: list[int]) -> tuple[dict[str, str], list[str]]:
    """Return what torchrun sets for one of several processes."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(ports))}
    return {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}, []


TORCH = Target(
    name="torch",
    title="PyTorch",
    folder="pytorch",
    extra="torch",
    worker="torch_worker.py",
    model=TorchModel,
    recipe=RecipeView,
    places=True,
    launch=_launch,
    launched=("",),
)
