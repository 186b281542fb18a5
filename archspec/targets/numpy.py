"""NumPy: what only its templates need."""

from __future__ import annotations

from archspec.targets.base import Target
from archspec.targets.literals import Code
from archspec.targets.view import LayerView, ModelView


class NumpyLayer(LayerView):
    """A node as the op templates read it for NumPy."""

    @property
    def variable(self) -> str:
        return f'y["{self.name}"]'

    @property
    def inputs_tuple(self) -> Code:
        """The variables of its inputs, as a tuple."""
        return Code(f"({', '.join(self.inputs)})")

    def param(self, name: str) -> Code | None:
        """Return the variable of a parameter; None if it has none of that name."""
        return Code(f'w["{self.name}.{name}"]') if name in self.node.params else None


class NumpyModel(ModelView):
    """A graph as the NumPy template reads it."""

    layer = NumpyLayer

    @property
    def input_variable(self) -> str:
        return 'y["input"]'


NUMPY = Target(
    name="numpy",
    title="NumPy",
    folder="numpy",
    extra="torch",
    worker="numpy_worker.py",
    model=NumpyModel,
)
