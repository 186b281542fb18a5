"""A graph as a target's templates read it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import archspec
from archspec import analysis
from archspec.emit.words import entry, spell
from archspec.graph import Graph, Node
from archspec.inits import BiasRule, Rule, TorchDefault, fans
from archspec.layout import Code, literal
from archspec.names import class_name
from archspec.ops import Shape
from archspec.ops.base import Sides, same
from archspec.spec import Multipliers
from archspec.training import RandomCrop, RandomResizedCrop, Training

FEW = 8  # groups that are better convolutions of their own in Keras, which sends grouped ones through XLA on a CPU


class Net:
    """A graph as a target's templates read it: words and decisions, with no arithmetic left to do."""

    def __init__(self, graph: Graph, target: str, training: Training | None = None) -> None:
        self.graph = graph
        self.target = target
        self.training = training
        self.name = graph.name
        self.class_name = class_name(graph.name)
        self.source = graph.spec.source
        self.version = archspec.__version__
        self.sha256 = hashlib.sha256(graph.source.text.encode()).hexdigest()
        self.totals = analysis.totals(graph)
        readers = _readers(graph)
        self.flattened = flattened_maps(graph)
        self.classifier = _classifier(graph, readers) if target in ("torch", "keras") else None
        order = {node: i for i, node in enumerate((graph.input, *graph.nodes))}
        # One running variable, as a person writes it, unless another layer than the next reads a result.
        self.running = {node for node in order if [order[reader] for reader in readers[node]] == [order[node] + 1]} | {
            graph.output
        }
        self.layers = [Layer(self, node) for node in graph.nodes]
        self.of = {layer.node: layer for layer in self.layers}
        self.names = {layer.name for layer in self.layers}

    @property
    def input_variable(self) -> str:
        """The variable of the network's input."""
        if self.target == "numpy":
            return 'y["input"]'
        return "x" if self.target == "torch" and self.graph.input in self.running else "inputs"

    @cached_property
    def first_running(self) -> Layer | None:
        """The layer that first sets the running variable, where the network's input is not in it."""
        if self.input_variable == "x":
            return None
        return next(layer for layer in self.layers if layer.variable == "x" or layer.pad)

    @property
    def input_text(self) -> str:
        return shape_text(self.graph.input.output_shape, self.target)

    @property
    def output_text(self) -> str:
        return self.layers[-1].text

    @property
    def example(self) -> tuple[int, ...]:
        """The shape of a batch of one."""
        return (1, *_laid_out(self.graph.input.output_shape, self.target))

    @property
    def arguments(self) -> list[str]:
        """What the model's constructor takes."""
        return [f"num_classes: int = {self.classifier.output_shape[0]}"] if self.classifier else []

    @cached_property
    def definitions(self) -> list[str]:
        """The classes that the framework lacks and this network needs."""
        texts = (spell(self, "definition", op) for op in dict.fromkeys(layer.op.op for layer in self.layers))
        return [text for text in texts if text]

    def uses(self, module: str) -> bool:
        """Whether the text refers to a module."""
        return self.mentions(rf"{module}\.")

    def mentions(self, word: str) -> bool:
        """Whether the text has a word in it."""
        texts = (*self.definitions, *(layer.module for layer in self.layers))
        return any(re.search(rf"\b{word}", text) for text in texts)

    @property
    def has_windows(self) -> bool:
        """Whether a window slides over maps anywhere."""
        return any(self.by_op(op) for op in ("avg_pool2d", "conv2d", "max_pool2d"))

    @property
    def has_pairs(self) -> bool:
        """Whether anything has a height and a width."""
        return self.has_windows or bool(self.by_op("adaptive_avg_pool2d"))

    @property
    def multipliers(self) -> Multipliers | None:
        """The multipliers of learning rate and decay, where they are not all 1."""
        found = self.graph.spec.multipliers
        plain = found is None or all((m.lr, m.decay) == (1, 1) for m in (found.weight, found.bias))
        return None if plain or not self.learned else found

    @property
    def recipe(self) -> str:
        """The training in a sentence."""
        assert self.training
        optimizer, schedule = self.training.optimizer, self.training.schedule
        words = [f"{self.training.loss.replace('_', ' ')}", *_parts(optimizer), *_parts(schedule)]
        return (
            f"{', '.join(words).capitalize()}; {self.training.epochs} epochs of batches of {self.training.batch_size}."
        )

    @property
    def schedules(self) -> bool:
        """Whether the learning rate changes."""
        assert self.training
        schedule = self.training.schedule
        return schedule.schedule != "constant" or schedule.warmup > 0

    @property
    def plateau(self) -> bool:
        """Whether the learning rate waits for a plateau."""
        assert self.training
        return self.training.schedule.schedule == "reduce_on_plateau"

    # --- its images ---

    @cached_property
    def image_parts(self) -> list[str]:
        """What is done to every image."""
        return self._before(lambda part: False)

    @property
    def measured_parts(self) -> list[str]:
        """What is done to images whose mean and colours are measured: what comes before the mean is taken off."""
        return self._before(lambda part: part.transform == "subtract_mean")

    def _before(self, ends: Callable[[Any], bool]) -> list[str]:
        assert self.training
        channels, height, width = self.graph.input.output_shape
        colours = {1: [self._image("grayscale")], 3: [self._image("rgb")]}.get(channels, [])
        whole = self._image("whole", (height, width))
        words, is_float = [], False
        for part in self.training.preprocessing:
            if ends(part):
                break
            if part.transform in ("subtract_mean", "normalize") and not is_float:
                words.append(self._image("float"))
            is_float = is_float or part.transform in ("rescale", "subtract_mean", "normalize")
            is_whole = part.transform == "resize" and not self._crops and part.size == height == width
            words.append(whole if is_whole else self._image(part))
        if not self._crops and whole not in words:
            words.insert(0, whole)
        return [*colours, *words, *([] if is_float else [self._image("float")])]

    @property
    def _crops(self) -> list[Any]:
        assert self.training
        return [part for part in self.training.transforms if part.transform.endswith("crop")]

    def _image(self, part: Any, size: Any = None) -> str:
        """Return a transform in the target's words: one of the recipe, or one that it implies, with its size."""
        name = part if isinstance(part, str) else part.transform
        macro = getattr(entry("images.jinja"), f"{self.target}_{name}")
        return str(macro({"size": size} if isinstance(part, str) else part)).strip()

    @property
    def training_parts(self) -> list[str]:
        """What is done besides to an image of training."""
        assert self.training
        return [self._image(part) for part in self.training.augmentation]

    @property
    def evaluation_parts(self) -> list[str]:
        """What is done besides to an image of evaluation."""
        assert self.training
        crops = [part.size for part in self.training.augmentation if isinstance(part, RandomCrop | RandomResizedCrop)]
        implied = [self._image("center_crop", size) for size in crops]
        return [self._image(part) for part in self.training.evaluation] or implied

    def transforms(self, *names: str) -> bool:
        """Whether one of these is done to images anywhere, by the recipe's word or because it implies it."""
        parts = (*self.image_parts, *self.training_parts, *self.evaluation_parts)
        return any(f" {name}(" in part for name in names for part in parts)

    @property
    def draws_noise(self) -> bool:
        """Whether colour noise is drawn."""
        assert self.training
        return any(part.transform == "pca_noise" for part in self.training.augmentation)

    @property
    def subtracts_mean(self) -> bool:
        """Whether the training set's mean is taken off."""
        assert self.training
        return any(part.transform == "subtract_mean" for part in self.training.preprocessing)

    @property
    def known(self) -> bool:
        """Whether something of the training set has to be known before."""
        return self.subtracts_mean or self.draws_noise

    @property
    def white(self) -> float:
        """What white is where noise is drawn."""
        assert self.training
        return 1.0 if any(part.transform == "rescale" for part in self.training.preprocessing) else 255.0

    @property
    def gives_probabilities(self) -> bool:
        """Whether the network's output is a softmax's or a sigmoid's, which Keras' losses take back on TensorFlow."""
        return self.graph.output.op.op in ("sigmoid", "softmax")

    @property
    def learned(self) -> list[Layer]:
        """The layers that have weights."""
        return [layer for layer in self.layers if layer.node.weights]

    @property
    def permuted(self) -> dict[str, Shape]:
        """The layers whose weights are permuted as they read maps flattened channels-last, with the maps' (C, H, W)."""
        return {layer.name: layer.flattened for layer in self.learned if layer.flattened}

    def by_op(self, op: str) -> list[Layer]:
        """Return the layers of one op."""
        return [layer for layer in self.layers if layer.op.op == op]

    @cached_property
    def resets(self) -> list[tuple[str, Rule | BiasRule, Layer]]:
        """How every parameter is initialised, as the branches of an if: condition, rule, and a layer that it is for.

        The condition is on a parameter's `name`, and empty where nothing is left to ask. What PyTorch draws by itself
        has no branch.
        """
        listed: list[tuple[str, Rule | BiasRule, Layer]] = []
        general: list[tuple[str, Rule | BiasRule, Layer]] = []
        complete = True  # every parameter has a branch
        for kind in ("bias", "weight"):
            groups: dict[Rule | BiasRule, list[Layer]] = {}
            for layer in self.layers:
                if kind in layer.node.weights:
                    groups.setdefault(layer.rule(kind), []).append(layer)
            rest: Rule | BiasRule | None = None  # the rule of those that are not listed by name
            if groups.pop(TorchDefault(), None):
                complete = False
            else:
                spec_rule = getattr(self.graph.spec.init, kind)
                rest = spec_rule if spec_rule in groups else max(groups, key=lambda r: len(groups[r]), default=None)
            for rule, layers in groups.items():
                if rule == rest:
                    general.append((f'name.endswith("{kind}")', rule, layers[0]))
                else:
                    names = tuple(f"{layer.name}.{kind}" for layer in layers)
                    where = f"in {literal(names)}" if len(names) > 1 else f"== {literal(names[0])}"
                    listed.append((f"name {where}", rule, layers[0]))
        if general and complete:
            general[-1] = ("", *general[-1][1:])
        merged: list[tuple[str, Rule | BiasRule, Layer]] = []
        for branch in listed + general:
            if merged and merged[-1][1] == branch[1]:  # as the one before it
                before = merged.pop()
                branch = (f"{before[0]} or {branch[0]}" if branch[0] else "", *branch[1:])
            merged.append(branch)
        return merged


@dataclass(frozen=True, eq=False)
class Layer:
    """A node as a target's templates read it."""

    net: Net
    node: Node

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def shape(self) -> Shape:
        """The shape of its first input."""
        return self.node.input_shapes[0]

    @property
    def out(self) -> int | Code:
        """Its output channels or features; `num_classes` where they are the network's own."""
        return Code("num_classes") if self.node is self.net.classifier else self.node.output_shape[0]

    @property
    def text(self) -> str:
        """The shape of its output, for a comment."""
        follows = self.net.classifier and self.node is self.net.graph.output
        return shape_text(self.node.output_shape, self.net.target, "num_classes" if follows else self.out)

    @property
    def flattened(self) -> Shape | None:
        """The maps (C, H, W) that stand in its vector in H, W, C order: see `flattened_maps`."""
        return self.net.flattened.get(self.node)

    @property
    def in_features(self) -> int | Code:
        """What a linear layer reads, as the product that it comes from if there is one."""
        return Code(" * ".join(map(str, self.flattened))) if self.flattened else self.shape[0]

    @property
    def fan_in(self) -> int:
        return fans(self.node.weights["weight"])[0]

    def rule(self, kind: str) -> Rule | BiasRule:
        """Return the rule that its `weight` or `bias` is drawn by."""
        rule: Rule | BiasRule = getattr(self.net.graph.init(self.node), kind)
        return rule

    @property
    def equal_windows(self) -> tuple[int, int] | None:
        """The windows of an adaptive pooling, if they are all of one size and do not overlap."""
        (height, width), (rows, columns) = self.shape[1:], self.op.output_size
        return None if height % rows or width % columns else (height // rows, width // columns)

    @property
    def few_groups(self) -> bool:
        """Whether its groups are few enough to be convolutions of their own."""
        groups: int = self.op.groups
        return 1 < groups <= FEW

    # --- its words ---

    @cached_property
    def module(self) -> str:
        """The constructor of its module or layer; empty if it is an expression."""
        return spell(self.net, "module", self)

    @cached_property
    def pad(self) -> str:
        """The constructor of a module or layer that has to stand before it; empty if there is none."""
        return spell(self.net, "pad", self)

    @property
    def expression(self) -> str:
        """What it is where it is no module."""
        text = spell(self.net, "expression", self)
        assert text, f"{self.op.op} has no word for {self.net.target}"
        return text

    @property
    def pad_name(self) -> str:
        """The name of what stands before it."""
        name = f"{self.name}_pad"
        while name in self.net.names:
            name += "_"
        return name

    # --- its variables ---

    @property
    def variable(self) -> str:
        """The variable of its result. An expression has no module to look at, so its result always has its own name."""
        if self.net.target == "numpy":
            return f'y["{self.name}"]'
        nameless = not self.module and self.node is not self.net.graph.output
        return self.name if nameless or self.node not in self.net.running else "x"

    @property
    def padded(self) -> str:
        """The variable of its padded input, with its type where a function's first `x` needs one for mypy."""
        return "x: Tensor" if self is self.net.first_running else "x"

    @property
    def target(self) -> str:
        """Its variable, as `padded` has it."""
        return self.padded if self.variable == "x" and not self.pad else self.variable

    @property
    def inputs(self) -> list[str]:
        """The variables that it reads."""
        of = self.net.of
        return [of[node].variable if node in of else self.net.input_variable for node in self.node.inputs]

    @property
    def inputs_tuple(self) -> Code:
        """The variables that it reads, as a tuple."""
        return Code(f"({', '.join(self.inputs)})")

    def weight(self, kind: str) -> Code | None:
        """Return the variable of its canonical `weight` or `bias`; None if it has none."""
        return Code(f'w["{self.name}.{kind}"]') if kind in self.node.weights else None

    @property
    def reads(self) -> str:
        """What its module is called with."""
        inputs = ["x"] if self.pad else self.inputs
        return inputs[0] if len(inputs) == 1 else f"[{', '.join(inputs)}]"

    # --- its windows ---

    @property
    def sides(self) -> tuple[Sides, Sides]:
        """What surrounds the maps that it reads: ((top, bottom), (left, right))."""
        sides: tuple[Sides, Sides] = self.op.sides(self.shape)
        return sides

    @property
    def symmetric(self) -> tuple[int, int] | None:
        """The padding of height and width where it is the same before and after, else None."""
        (top, bottom), (left, right) = self.sides
        return (top, left) if (top, left) == (bottom, right) else None

    @property
    def is_padded(self) -> bool:
        return self.sides != ((0, 0), (0, 0))

    def _axes(self) -> Iterator[tuple[Sides, int, int, int, int, int]]:
        stride = getattr(self.op, "strides", None) or self.op.stride
        dilation = getattr(self.op, "dilation", (1, 1))
        sizes, outs = self.shape[1:], self.node.output_shape[1:]
        return zip(self.sides, sizes, outs, self.op.kernel_size, stride, dilation, strict=True)

    @property
    def whole_sides(self) -> tuple[Sides, ...]:
        """What surrounds the maps when the last window may not hang over their end, as with `ceil_mode` it may."""
        return tuple(
            (before, max(after, (out - 1) * s + d * (k - 1) + 1 - size - before))
            for (before, after), size, out, k, s, d in self._axes()
        )

    @property
    def is_same(self) -> bool:
        """Whether TensorFlow's and Keras' `padding="same"` gives exactly these windows."""
        return all(
            same(size, k, s, d)[0] == before and -(-size // s) == out
            for (before, _), size, out, k, s, d in self._axes()
        )

    @property
    def counted_sides(self) -> tuple[Sides, ...]:
        """What of the zeros around the maps is in a mean: the padding, if it counts, but not what ceil_mode adds."""
        return self.sides if self.op.count_include_pad else ((0, 0), (0, 0))

    @property
    def needs_means(self) -> bool:
        """Whether Keras' means are others: it counts no padding, and has none that is not `same`."""
        return self.has_edges and not (self.is_same and self.counted_sides == ((0, 0), (0, 0)))

    @property
    def has_edges(self) -> bool:
        """Whether any window reaches over the edge of the maps."""
        return self.whole_sides != ((0, 0), (0, 0))

    @property
    def needs_sides(self) -> bool:
        """Whether neither `valid` nor `same` gives exactly these windows."""
        return self.has_edges and not self.is_same


def _parts(part: Any) -> list[str]:
    """Return an optimizer or a schedule as words: its name, and what of it is not as it is unless said."""
    word, *fields = type(part).model_fields if "warmup" not in type(part).model_fields else _schedule_fields(part)
    said = [
        f"{field} {literal(getattr(part, field))}"
        for field in fields
        if getattr(part, field) != type(part).model_fields[field].default
    ]
    return [" ".join([getattr(part, word), *said])] if getattr(part, word) != "constant" or said else []


def _schedule_fields(part: Any) -> list[str]:
    return sorted(type(part).model_fields, key=lambda field: (field != "schedule", field == "warmup"))


def _laid_out(shape: Shape, target: str) -> Shape:
    """Return a shape in the order of a target's axes: Keras' have the channels last."""
    return (*shape[1:], shape[0]) if target == "keras" else shape


def shape_text(shape: Shape, target: str, channels: int | str | None = None) -> str:
    """Return `(N, C, H, W)`, or for Keras `(N, H, W, C)`, with the numbers in."""
    first, *rest = ("N", str(shape[0] if channels is None else channels), *map(str, shape[1:]))
    return f"({first}, {', '.join([*rest[1:], rest[0]] if target == 'keras' else rest)})"


ELEMENTWISE = frozenset({"dropout", "relu"})  # ops that treat every value alike, wherever it stands


def flattened_maps(graph: Graph) -> dict[Node, Shape]:
    """Return what a channels-last target leaves in H, W, C order as it flattens maps: nodes, with the maps' (C, H, W).

    That is no harm where nothing but linear layers read the vector, directly or through elementwise layers: the target
    permutes their weights as it loads them. The flatten, those layers between and the linear layers are all in the
    result. A flatten that is not in it has its maps turned before.
    """
    readers = _readers(graph)
    found: dict[Node, Shape] = {}
    for flatten in graph.nodes:
        if flatten.op.op != "flatten" or len(flatten.input_shapes[0]) != 3:
            continue
        reached, front = {flatten}, [flatten]
        while front:
            node = front.pop()
            fresh = [] if node.op.op == "linear" else [r for r in readers[node] if r not in reached]
            reached.update(fresh)
            front += fresh
        if all(node.op.op in ELEMENTWISE | {"flatten", "linear"} for node in reached) and (
            graph.output not in reached or graph.output.op.op == "linear"
        ):
            found.update(dict.fromkeys(reached, flatten.input_shapes[0]))
    return found


def _readers(graph: Graph) -> dict[Node, list[Node]]:
    readers: dict[Node, list[Node]] = {node: [] for node in (graph.input, *graph.nodes)}
    for node in graph.nodes:
        for read in dict.fromkeys(node.inputs):
            readers[read].append(node)
    return readers


def _classifier(graph: Graph, readers: dict[Node, list[Node]]) -> Node | None:
    """Return the layer whose outputs are the network's classes: a linear one with only elementwise layers after it."""
    node = graph.output
    while node.op.op in ELEMENTWISE | {"softmax"} and len(readers[node.inputs[0]]) == 1:
        node = node.inputs[0]
    return node if node.op.op == "linear" else None
