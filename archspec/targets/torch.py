"""PyTorch: what only its templates need."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

from archspec.language.initializers import BiasRule, Ones, Rule, TorchDefault, Zeros
from archspec.language.names import TORCH_ATTRIBUTES
from archspec.language.source import SpecError
from archspec.targets.base import Target
from archspec.targets.bodies import Body, RowView
from archspec.targets.layer_view import LayerView, OpView
from archspec.targets.recipe_view import RecipeView
from archspec.targets.view import ModelView, codes


class TorchLayer(LayerView):
    """A layer as the op templates read it for PyTorch."""

    @property
    def op(self) -> Any:
        # `forward` reads the attributes of the block from the module
        return OpView(self, "self." if self.row.in_line else "")

    @property
    def pads(self) -> bool:
        """Whether a padding layer comes before it, as its own padding is the same on both sides."""
        return self.window is not None and self.window.symmetric is None and not self.pads_itself

    @property
    def pads_itself(self) -> bool:
        """Whether an average leaves out padding that is not the same on both sides."""
        window = self.window
        if window is None or window.symmetric is not None or not hasattr(self.node.op, "count_include_pad"):
            return False
        return not self.node.op.count_include_pad or window.floor_padding != window.padding


class Reset(NamedTuple):
    """One case of `reset_parameters`: the modules of all ops in `ops`, or exceptions from that.

    `layers` are exceptions by attribute, of the network or, if there is a `block`, of all modules of that class.
    """

    ops: tuple[str, ...]
    layers: tuple[str, ...]
    rules: dict[str, tuple[Rule | BiasRule, LayerView]]  # by parameter, with a layer that the rule is for
    block: str = ""
    guarded: bool = False  # whether some of the modules have no such parameter


class TorchModel(ModelView):
    """A graph as the PyTorch template reads it."""

    layer = TorchLayer
    resizable = True
    passes_channels = True
    names_expressions = True

    def decisions(self, layer: LayerView) -> Iterator[Any]:
        yield from super().decisions(layer)
        if layer.window:
            yield layer.window.symmetric
            if layer.window.symmetric is None:
                yield layer.window.padding, layer.window.floor_padding
                if layer.body.is_sequence:
                    self.refuse_sequence(layer)
        special = getattr(layer.node.op, "called_specially", False)
        if layer.body.is_sequence and (special or getattr(layer.node.op, "combines", False)):
            self.refuse_sequence(layer)
        if special and layer.number is not None:
            message = f"{layer.row.name}: {layer.node.op.op} cannot be repeated in PyTorch: put it into a block"
            raise SpecError([self.graph.source.error("unsupported-by-target", message, (*layer.node.loc, "repeat"))])
        if layer.node.params:
            yield layer.in_features if layer.node.kernel and len(layer.node.output_shape) == 1 else layer.in_channels

    def stored(self, body: Body) -> list[str]:
        """Return the attributes of a block that its `forward` reads from the module."""
        texts = [
            code
            for layer in body.layers
            if layer.row.in_line
            for field in layer.expressions
            for code in codes(getattr(layer.op, field))
        ]
        found = {name for text in texts for name in re.findall(r"self\.([A-Za-z_]\w*)", text)}
        for name in found & (body.names | TORCH_ATTRIBUTES):
            assert body.block
            what = "a layer of the block" if name in body.names else "an attribute of every torch.nn.Module"
            message = f"{name} is {what}: choose another name for the attribute"
            raise SpecError(
                [self.graph.source.error("reserved-name", message, (*body.block.loc, "attributes", name), key=True)]
            )
        return sorted(found)

    def refuse_sequence(self, layer: LayerView) -> NoReturn:
        """Raise SpecError for a layer that is no module of an nn.Sequential."""
        node = layer.node
        message = f"{node.name}: {node.op.op} is no module in an nn.Sequential: name the layers of the block"
        raise SpecError([self.graph.source.error("missing-key", message, node.loc)])

    def first_x(self, body: Body) -> RowView | None:
        """Return the row that first assigns `x`, where that is not an argument; mypy needs its type there."""
        if "x" in body.input_variables:
            return None
        for row in body.rows:
            if row.variable == "x" or (row.layer and row.layer.pads):  # type: ignore[attr-defined]
                return row
        return None

    @property
    def exact(self) -> set[str]:
        """The ops whose class is a base of a class inside another op's module: nn.Linear of nn.MultiheadAttention's."""
        return {"linear"} if self.calls_specially else set()

    @property
    def kernels_of_norms(self) -> list[str]:
        """The parameters of norms' modules that are no norm's: the projections of an attention with an embedding."""
        return sorted(
            {
                name
                for layer in self.norms
                for name, param in layer.node.params.items()
                if param.role in ("kernel", "bias") and "." not in name
            }
        )

    @property
    def calls_specially(self) -> bool:
        """Whether a module does not return one tensor."""
        return any(layer.node.op.called_specially for layer in self.layers)  # type: ignore[union-attr]

    @property
    def norm_ops(self) -> list[str]:
        """The ops whose parameters are a norm's."""
        return list(dict.fromkeys(layer.node.op.op for layer in self.norms))

    @cached_property
    def resets(self) -> list[Reset]:
        """The cases of `reset_parameters`: by op, then the exceptions, by layer.

        Parameters with PyTorch's default initializer are left as the modules made them.
        """
        by_op: dict[str, list[LayerView]] = {}
        for layer in self.trainable:
            by_op.setdefault(layer.node.op.op, []).append(layer)
        preferred = {self.graph.spec.init.weight, self.graph.spec.init.bias}
        usual = {op: _usual(layers, preferred) for op, layers in by_op.items()}
        cases: dict[Any, Reset] = {}
        for op, rules in usual.items():
            key: Any = (op in self.exact and op, *((param, rule) for param, (rule, _) in rules.items()))
            if rules:
                case = cases.get(key, Reset((), (), rules))
                bare = any(not layer.node.trainable for layer in self.ops[op])
                cases[key] = case._replace(ops=(*case.ops, op), guarded=case.guarded or bare)
        for layer in self.trainable:
            for param, rule in layer.initializers.items():
                common = usual[layer.node.op.op].get(param)
                if rule != (common[0] if common else _default(layer, param)):
                    block = layer.body.name if layer.body.block else ""
                    key = ("exception", block, param, rule)
                    case = cases.get(key, Reset((), (), {param: (rule, layer)}, block))
                    item = f"[{layer.attribute}]" if layer.body.is_sequence else f".{layer.attribute}"
                    if layer.number is not None:
                        item += f"[{layer.number}]"
                    cases[key] = case._replace(layers=(*case.layers, item))
        return list(cases.values())


def _default(layer: LayerView, param: str) -> Rule | BiasRule:
    """Return the rule by which PyTorch's module initializes a parameter."""
    role = layer.node.params[param].role
    own = layer.node.op.torch_default(param)  # type: ignore[union-attr]
    return own or (TorchDefault() if role in ("kernel", "bias") else Ones() if role == "scale" else Zeros())


def _usual(layers: list[LayerView], preferred: set[Any]) -> dict[str, tuple[Rule | BiasRule, LayerView]]:
    """Return the rule of each parameter that most layers have, or the spec's own.

    None where a layer has PyTorch's default, which no call restores.
    """
    found: dict[str, tuple[Rule | BiasRule, LayerView]] = {}
    for param in dict.fromkeys(name for layer in layers for name in layer.initializers):
        rules = [(layer.initializers[param], layer) for layer in layers if param in layer.initializers]
        if not any(rule == _default(layer, param) for rule, layer in rules):
            counts = Counter(rule for rule, _ in rules)
            found[param] = max(rules, key=lambda pair: (pair[0] in preferred, counts[pair[0]]))
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
