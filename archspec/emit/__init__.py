"""A network as source text for a target, through the templates."""

from archspec.emit.net import Net, flattened_maps
from archspec.emit.words import environment
from archspec.graph import Graph
from archspec.training import Training

__all__ = ["TARGETS", "TRAINERS", "emit", "emit_training", "files", "flattened_maps"]

TARGETS = {"torch": "torch_model.py", "keras": "keras_model.py", "numpy": "numpy_model.py"}
TRAINERS = {"torch": "torch_train.py", "keras": "keras_train.py"}


def emit(graph: Graph, target: str) -> str:
    """Return the network's source text for `target`, a key of TARGETS.

    Raises SpecError where the target has no words for a layer, or for one of its attributes.
    """
    return environment().get_template(f"{TARGETS[target]}.jinja").render(net=Net(graph, target))


def emit_training(graph: Graph, target: str, recipe: Training) -> str:
    """Return the source text of a recipe's loss, optimizer and schedule for `target`, a key of TRAINERS."""
    return environment().get_template(f"{TRAINERS[target]}.jinja").render(net=Net(graph, target, recipe))


def files(graph: Graph, target: str) -> dict[str, str]:
    """Return all that the spec gives for `target`: source texts by the names of their files; raise as `emit` does."""
    texts = {TARGETS[target]: emit(graph, target)}
    if graph.spec.training and target in TRAINERS:
        texts[TRAINERS[target]] = emit_training(graph, target, graph.spec.training)
    return texts
