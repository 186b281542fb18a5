"""A network as source text for a target, through the templates."""

from archspec.emit.net import Net, flattened_maps
from archspec.emit.words import environment
from archspec.graph import Graph

__all__ = ["TARGETS", "emit", "flattened_maps"]

TARGETS = {"torch": "torch_model.py", "keras": "keras_model.py", "numpy": "numpy_model.py"}


def emit(graph: Graph, target: str) -> str:
    """Return the network's source text for `target`, a key of TARGETS.

    Raises SpecError where the target has no words for a layer, or for one of its attributes.
    """
    return environment().get_template(f"{TARGETS[target]}.jinja").render(net=Net(graph, target))
