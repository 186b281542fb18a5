"""A network as source text for a target, through the templates."""

from archspec.emit.net import Net, flattened_maps
from archspec.emit.words import environment
from archspec.graph import Graph
from archspec.training import Training

__all__ = ["TARGETS", "TRAINERS", "emit", "emit_towers", "emit_training", "files", "flattened_maps"]

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


def emit_towers(graph: Graph) -> str:
    """Return the source text of a network on two devices, in PyTorch: see `emit.towers`.

    Raises SpecError where it has no two halves.
    """
    from archspec.emit.towers import crossings, towers, whole_names

    tower = towers(graph)
    recipe = graph.spec.training
    return (
        environment()
        .get_template("torch_two_tower.py.jinja")
        .render(
            net=Net(tower, "torch"),
            crossings=crossings(tower),
            whole=whole_names(tower),
            batch=recipe.batch_size if recipe else 128,
        )
    )


def files(graph: Graph, target: str) -> dict[str, str]:
    """Return all that the spec gives for `target`: source texts by the names of their files; raise as `emit` does."""
    texts = {TARGETS[target]: emit(graph, target)}
    if graph.spec.training and target in TRAINERS:
        texts[TRAINERS[target]] = emit_training(graph, target, graph.spec.training)
    return texts
