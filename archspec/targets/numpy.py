"""NumPy: what only its templates need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archspec.language.blocks import Block
from archspec.targets.base import Target
from archspec.targets.bodies import Body, RowView
from archspec.targets.layer_view import LayerView
from archspec.targets.literals import Code
from archspec.targets.view import ModelView


class NumpyLayer(LayerView):
    """A layer as the op templates read it for NumPy."""

    @property
    def inputs_tuple(self) -> Code:
        """The variables of its inputs, as a tuple."""
        return Code(f"({', '.join(self.inputs)}{',' if len(self.inputs) == 1 else ''})")

    def param(self, name: str) -> Code | None:
        """Return the variable of a parameter; None if it has none of that name."""
        if name not in self.node.params:
            return None
        if self.body.block:
            return Code(f'w[f"{{name}}.{self.row.name_within(self.number)}.{name}"]')
        return Code(f'w["{self.name}.{name}"]')


class NumpyModel(ModelView):
    """A graph as the NumPy template reads it."""

    layer = NumpyLayer

    def input_variable(self, body: Body, name: str) -> str:
        return super().input_variable(body, name) if body.block else 'y["input"]'

    def variable(self, row: RowView) -> str:
        return super().variable(row) if len(self.bodies) > 1 else f'y["{row.name}"]'

    def block_name(self, block: Block) -> str:
        return block.name

    def decisions(self, layer: LayerView) -> Iterator[Any]:
        yield from super().decisions(layer)
        if layer.window:
            yield layer.window.floor_padding
            assert isinstance(layer, NumpyLayer)
            yield from (layer.pair(field) for field in ("strides", "kernel_size"))


NUMPY = Target(
    name="numpy",
    title="NumPy",
    folder="numpy",
    extra="torch",
    worker="numpy_worker.py",
    model=NumpyModel,
)
