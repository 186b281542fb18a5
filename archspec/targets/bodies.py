"""The classes or functions of generated code: the network's own, and one for each block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archspec.graph import Instance, Node
from archspec.graph.graph import Item, Member
from archspec.language.blocks import REQUIRED, Block, Row, Use, is_sequence
from archspec.language.expressions import Expression, parse
from archspec.language.ops.base import channels_of
from archspec.targets.layer_view import LayerView, SplitError, uniform
from archspec.targets.literals import Code, call
from archspec.targets.symbols import NotPolynomialError, Poly, from_expression

if TYPE_CHECKING:
    from archspec.targets.view import ModelView


class Run:
    """Uses of a block, or an op's layers, one after another, that differ in nothing but their number.

    `count` and `start` are numbers or source text; `count` is None for a row without `repeat`. `channels` are those of
    the input, as a polynomial in which `i` is the number.
    """

    def __init__(
        self,
        view: RowView,
        use: Use,
        items: list[Item],
        start: int | Code = 0,
        count: int | Code | None = None,
        channels: Poly | None = None,
    ) -> None:
        self.view, self.use, self.start, self.count, self.channels = view, use, start, count, channels
        self.items = items
        first = items[0]
        self.layer: LayerView | None = None
        self.callee: Body | None = None
        if isinstance(first, Node):
            number = None if count is None else start
            assert not isinstance(number, Code)
            self.layer = view.body.model.layer(view, [item for item in items if isinstance(item, Node)], number)
        else:
            callees = [view.body.model.body_of[item] for item in items if isinstance(item, Instance)]
            self.callee = uniform(callees, view.instances)

    @property
    def single(self) -> bool:
        """Whether it is one use."""
        return self.count is None or self.count == 1

    @property
    def index(self) -> int | str:
        """The number of a repeated row: one, or the variable `i`."""
        return self.start if self.single and isinstance(self.start, int) else "i"

    @property
    def end(self) -> int | Code:
        """The number after the last one's."""
        if isinstance(self.count, int) and isinstance(self.start, int):
            return self.start + self.count
        assert self.count is not None
        return self.count if self.start == 0 else Code(f"{self.count} + {self.start}")

    @property
    def arguments(self) -> dict[str, Any]:
        """The values of the callee's parameters, by name: those that are not the default."""
        assert self.callee
        found: dict[str, Any] = {}
        for name, default in self.callee.parameters:
            if name == "in_channels":
                if self.channels is None:  # no formula: a number, if the instances have the same
                    sizes = [item.values["in_channels"] for item in self.items if isinstance(item, Instance)]
                    found[name] = uniform(sizes, self.view.instances)
                else:
                    number = self.channels.number
                    found[name] = Code(self.channels) if number is None else number
            elif name in self.use.expressions:
                found[name] = Code(_indexed(self.use.expressions[name][()], self.index))
            else:
                value = self.use.values.get(name, default)
                value = tuple(value) if isinstance(value, list) else value
                if value != default or type(value) is not type(default):
                    found[name] = value
        return found

    def call(self, function: str, *first: Code, **last: Any) -> Code:
        """Return the source of the call of a block: required arguments by position, the others by name."""
        assert self.callee
        arguments = self.arguments
        required = [name for name, default in self.callee.parameters if default == REQUIRED]
        by_name = {name: value for name, value in arguments.items() if name not in required}
        return call(function, *first, *(arguments[name] for name in required), **by_name, **last)

    @property
    def varies(self) -> bool:
        """Whether an argument depends on the number."""
        if self.callee is None:
            return False
        return any("i" in parse(value).names for value in self.arguments.values() if isinstance(value, Code))


def _indexed(expression: Expression, number: int | str) -> str:
    """Return an expression's text with the number of a repeated row: one, or the variable `i`."""
    return re.sub(r"\bindex\b", str(number), expression.text)


class RowView:
    """A row of the text in the code of its class or function."""

    def __init__(self, body: Body, position: int, members: list[Member]) -> None:
        self.body, self.position, self.members = body, position, members
        self.row: Row = members[0].row
        self.instances = [i for i, m in zip(body.instances, members, strict=True) if m.items]
        self.present = [m for m in members if m.items]

    @property
    def name(self) -> str:
        """Its name in the class."""
        return self.row.name

    @cached_property
    def runs(self) -> list[Run]:
        """What it is made of; several where it is repeated."""
        row, items = self.row, [member.items for member in self.present]
        channels = self.input_poly(0)
        if row.repeat is None:
            return [Run(self, row.use, [one[0] for one in items], channels=channels)]
        lengths = [len(one) for one in items]
        fixed = isinstance(row.repeat, int)
        if not isinstance(items[0][0], Instance) or (fixed and lengths[0] < 3):
            return self._listed(uniform(lengths, self.instances), items, channels)
        count = row.repeat if isinstance(row.repeat, int) else Code(row.repeat.text)
        try:
            return self._symbolic(count, items, channels)
        except (_NoFormulaError, SplitError):
            return self._listed(uniform(lengths, self.instances), items, channels)

    def _listed(self, count: int, items: list[tuple[Item, ...]], channels: Poly | None) -> list[Run]:
        """Return the runs of a known number of layers or blocks."""
        runs: list[Run] = []
        for i in range(count):
            use = self.row.first if i == 0 and self.row.first else self.row.use
            group = [one[i] for one in items]
            last = runs[-1] if runs else None
            if not isinstance(group[0], Instance):
                runs.append(Run(self, use, group, i, 1))
                continue
            expressions = [e for found in use.expressions.values() for e in found.values()]
            run = Run(self, use, group, i, 1, channels)
            by_index = any("index" in e.names for e in expressions)
            if (
                last
                and last.use is use
                and last.callee is run.callee
                and self._same_channels(last, run)
                and not by_index
            ):
                assert isinstance(last.count, int)
                last.count += 1
            else:
                runs.append(run)
            channels = self._output(run)
        return runs

    def _same_channels(self, a: Run, b: Run) -> bool:
        if not self.body.model.passes_channels:
            return True
        if a.channels is None and b.channels is None:  # no formula for either: two numbers
            sizes = [[item.values["in_channels"] for item in run.items if isinstance(item, Instance)] for run in (a, b)]
            return sizes[0] == sizes[1]
        return a.channels == b.channels

    def _symbolic(self, count: int | Code, items: list[tuple[Item, ...]], channels: Poly | None) -> list[Run]:
        """Return the runs of a number of blocks, all but the first alike; raise _NoFormulaError if they are not."""
        row, i = self.row, Poly.of("i")
        less = count - 1 if isinstance(count, int) else Code(f"{count} - 1")
        firsts = [one[0] for one in items]
        rests = [item for one in items for item in one[1:]]
        if not self.body.model.passes_channels:
            if row.first is None:
                return [Run(self, row.use, [item for one in items for item in one], 0, count)]
            first = Run(self, row.first, firsts, 0, 1)
            return [first, Run(self, row.use, rests, 1, less)] if rests else [first]
        if channels is None:
            raise _NoFormulaError
        first = Run(self, row.first or row.use, firsts, 0, 1, channels)
        if not rests:
            raise _NoFormulaError
        second = self._output(first)
        if second is None:
            raise _NoFormulaError
        step = Run(self, row.use, rests, 1, less, second)
        third = self._output(step, second)
        if third is None:
            raise _NoFormulaError
        growth = third - second
        if "in_channels" in growth.names - channels.names:
            raise _NoFormulaError
        step.channels = second + (i - 1) * growth
        for instance, one in zip(self.instances, items, strict=True):
            for index, item in enumerate(one[1:], 1):
                assert isinstance(item, Instance)
                if step.channels.evaluate({**instance.values, "i": index}) != item.values["in_channels"]:
                    raise _NoFormulaError
        if row.first is None and second - growth == channels and first.callee is step.callee:
            return [Run(self, row.use, [item for one in items for item in one], 0, count, channels + i * growth)]
        return [first, step]

    def _output(self, run: Run, channels: Poly | None = None) -> Poly | None:
        """Return the output channels of a block, in the names of this body."""
        channels = channels or run.channels
        if run.callee is None or run.callee.output_poly is None:
            return None
        values: dict[str, Poly] = {"in_channels": channels} if channels is not None else {}
        for name, default in (run.callee.block.attributes if run.callee.block else {}).items():
            if name in run.use.expressions:
                try:
                    values[name] = from_expression(run.use.expressions[name][()]).substitute(
                        {"index": Poly.of(run.index)}
                    )
                except NotPolynomialError:
                    continue
            else:
                value = run.use.values.get(name, default)
                if type(value) is int:
                    values[name] = Poly.of(value)
        try:
            return run.callee.output_poly.substitute(values)
        except NotPolynomialError:
            return None

    # --- channels ---

    def input_poly(self, i: int) -> Poly | None:
        """Return the channels of its i-th input, in the names of the body."""
        return self.body.polys.get(self.members[0].reads[i])

    def input_channels(self, i: int, number: int | None = None) -> Poly:
        """Return the channels of its i-th input; raise SplitError where the instances need different code."""
        sizes = []
        for member in self.present:
            sizes.append(channels_of(member.items[number or 0].inputs[i].output_shape))
        poly = self.input_poly(i) if not number else None
        if poly is not None and [poly.evaluate(instance.values) for instance in self.instances] == sizes:
            return poly
        return Poly.of(uniform(sizes, self.instances))

    @cached_property
    def output_poly(self) -> Poly | None:
        """The channels of its output, in the names of the body; None if there is no formula."""
        sizes = [channels_of(member.output.output_shape) for member in self.members]
        candidates: list[Poly | None] = []
        if self.present:
            run = self.runs[-1]
            if run.callee:
                poly = self._output(run)
                if poly is not None and "i" in poly.names and run.count is not None:
                    count = self.row.repeat
                    last = Poly.of(count) if isinstance(count, int) else _poly(count)
                    poly = poly.substitute({"i": last - 1}) if last else None
                candidates.append(poly)
            elif run.layer:
                candidates.append(self._layer_output(run.layer))
        candidates.append(self.input_poly(0))
        if all(size == sizes[0] for size in sizes):
            candidates.append(Poly.of(sizes[0]))
        for poly in candidates:
            if poly is None or poly.names - self.body.names_known:
                continue
            if [poly.evaluate(instance.values) for instance in self.body.instances] == sizes:
                return poly
        return None

    def _layer_output(self, layer: LayerView) -> Poly | None:
        inputs = [self.input_poly(i) for i in range(len(self.members[0].reads))]
        if any(poly is None for poly in inputs):
            return None
        op = _Polynomial(layer)
        try:
            channels: Any = getattr(type(layer.node.op), "channels")  # noqa: B009
            result = channels(op, *inputs)
        except NotPolynomialError:
            return None
        return None if result is None else Poly.of(result)

    # --- names ---

    @cached_property
    def when(self) -> Expression | None:
        """The condition under which it is there; None if it always is."""
        return self.row.when if isinstance(self.row.when, Expression) else None

    @property
    def layer(self) -> LayerView | None:
        """Its layer, if it is one op's, not repeated."""
        return self.runs[0].layer if self.row.repeat is None else None

    @property
    def callee(self) -> Body | None:
        """The body of the block that it uses, not repeated."""
        return self.runs[0].callee if self.row.repeat is None else None

    @property
    def combines(self) -> bool:
        """Whether it is an expression in code, not a layer."""
        return any(run.layer and getattr(run.layer.node.op, "combines", False) for run in self.runs)

    @property
    def in_line(self) -> bool:
        """Whether PyTorch code computes it in `forward`, without a module."""
        return self.combines or any(run.layer and getattr(run.layer.node.op, "in_line", False) for run in self.runs)

    @property
    def is_output(self) -> bool:
        """Whether its result is that of the body."""
        return self is self.body.rows[-1]

    def name_within(self, number: int | Code | None = None) -> str:
        """Return its name in the class, with the number of a repeated layer."""
        return self.name if number is None else f"{self.name}{self.body.model.separator}{number}"

    def name_in_code(self, number: int | Code | None = None, suffix: str = "") -> str | Code:
        """Return the name of a layer as a string in the code, e.g. `f"{name}_conv1"` in a block."""
        separator = self.body.model.separator
        middle = (
            "" if number is None else f"{separator}{{{number}}}" if isinstance(number, Code) else f"{separator}{number}"
        )
        path = f"{self.name}{middle}{suffix}"
        if self.body.block:
            return Code(f'f"{{name}}{separator}{path}"')
        return Code(f'f"{path}"') if isinstance(number, Code) else path

    @property
    def variable(self) -> str:
        """The variable of its result."""
        return self.body.model.variable(self)

    @property
    def inputs(self) -> list[str]:
        """The variables of its inputs."""
        return [self.body.variable_of(name) for name in self.members[0].reads]

    @property
    def output_text(self) -> str:
        """Its output shape as text, for a comment; empty where instances differ."""
        from archspec.targets.view import shape_text

        if (layer := self.layer) is not None:
            return layer.output_text
        shapes = [member.output.output_shape for member in self.members]
        alike = all(shape == shapes[0] for shape in shapes)
        return shape_text(shapes[0], self.body.model.channels_last) if alike else ""

    @property
    def comment(self) -> str:
        """Its output shape as a comment, or an empty string."""
        return f"  # {text}" if (text := self.output_text) else ""


class Body:
    """The code of the network, or of a block in all `instances` that share it."""

    def __init__(self, model: ModelView, block: Block | None, instances: list[Instance], name: str) -> None:
        self.model, self.block, self.instances, self.name = model, block, instances, name
        self.inputs = block.inputs if block else ("input",)
        self.names_known = {*(block.attributes if block else ()), *({"in_channels"} if block else ())}
        self.polys: dict[str, Poly | None] = {}
        for i, read in enumerate(self.inputs):
            self.polys[read] = self._input_poly(i)
        self._aliases: dict[str, str] = {}
        self.rows: list[RowView] = []
        for i in range(len(instances[0].members)):
            members = [instance.members[i] for instance in instances]
            if not any(_is_present(member, model) for member in members):
                self._aliases[members[0].row.name] = members[0].reads[0]
                self.polys[members[0].row.name] = self.polys[members[0].reads[0]]
                continue
            view = RowView(self, i, members)
            self.rows.append(view)
            self.polys[view.name] = view.output_poly
        self.names = {row.name for row in self.rows}
        self.used_names: set[str] = set()  # the block's attributes that its code depends on
        self._order = {
            name: i for i, name in enumerate([*self.inputs, *(row.name for row in self.rows)], -len(self.inputs))
        }
        self._reads: dict[str, list[int]] = {name: [] for name in self._order}
        for i, row in enumerate(self.rows):
            for name in row.members[0].reads:
                self._reads[self.resolve(name)].append(i)

    def _input_poly(self, i: int) -> Poly | None:
        if self.block and i == 0:
            return Poly.of("in_channels")
        sizes = [channels_of(instance.inputs[i].output_shape) for instance in self.instances]
        if all(size == sizes[0] for size in sizes):
            return Poly.of(sizes[0])
        for name in ("in_channels", *(self.block.attributes if self.block else ())):
            if [instance.values.get(name) for instance in self.instances] == sizes:
                return Poly.of(name)
        return None

    @property
    def layers(self) -> Iterator[LayerView]:
        """Its layers, without those of the blocks that it uses."""
        for row in self.rows:
            for run in row.runs:
                if run.layer:
                    yield run.layer

    @property
    def is_sequence(self) -> bool:
        """Whether no row has a name and each reads the one above."""
        return self.block is not None and is_sequence(self.block.rows, self.block.inputs)

    @property
    def places(self) -> list[RowView | None]:
        """The rows by their number; None for one that is never there."""
        found: list[RowView | None] = [None] * len(self.instances[0].members)
        for row in self.rows:
            found[row.position] = row
        return found

    @property
    def output_poly(self) -> Poly | None:
        """The channels of its output, in its own names."""
        return self.polys[self.resolve(self.output_name)]

    @property
    def output_name(self) -> str:
        """The row, or the input, whose result is its own."""
        return self.rows[-1].name if self.rows else self.inputs[0]

    @cached_property
    def parameters(self) -> list[tuple[str, Any]]:
        """Its parameters that its code uses, with their defaults: those without one first."""
        assert self.block
        used = self.used_names
        channels = [("in_channels", REQUIRED)] if self.model.passes_channels and "in_channels" in used else []
        found = [
            (name, tuple(value) if isinstance(value, list) else value) for name, value in self.block.attributes.items()
        ]
        return [*channels, *((name, value) for name, value in found if name in used)]

    @property
    def signature(self) -> list[tuple[str, str, Any]]:
        """Its parameters with their types and defaults; the default of a required one is None."""
        return [
            (name, self.annotation(name), None if default == REQUIRED else default) for name, default in self.parameters
        ]

    @property
    def input_variables(self) -> list[str]:
        """The variables of its inputs."""
        return [self.model.input_variable(self, name) for name in self.inputs]

    @property
    def result(self) -> str:
        """The variable of its result."""
        return self.variable_of(self.output_name)

    @property
    def ends_in_one(self) -> bool:
        """Whether a block ends in one layer or block that is always there, whose result can be returned."""
        last = self.rows[-1] if self.rows else None
        return bool(self.block and last and last.when is None and last.row.repeat is None)

    @property
    def docstring(self) -> str:
        """The shapes of its input and output, with H and W where instances differ."""
        from archspec.targets.view import shape_text

        last = self.model.channels_last
        before = [instance.inputs[0].output_shape for instance in self.instances]
        after = [instance.output.output_shape for instance in self.instances]
        if all(pair == (before[0], after[0]) for pair in zip(before, after, strict=True)):
            return f"{shape_text(before[0], last)} to {shape_text(after[0], last)}."
        channels = self.output_poly
        if channels is None or any(len(shape) != 3 for shape in (*before, *after)):
            return "A block of layers."
        same = all(a[1:] == b[1:] for a, b in zip(before, after, strict=True))
        sizes = ("H", "W") if same else ("H'", "W'")
        source = "in_channels" if self.model.passes_channels else "C"

        def text(channels: str, sizes: tuple[str, ...]) -> str:
            return f"(N, {', '.join([*sizes, channels] if last else [channels, *sizes])})"

        if channels.names - self.used_names - {"in_channels"}:
            return f"{text(source, ('H', 'W'))} to {text(source + chr(39), sizes)}."
        known = str(channels) if self.model.passes_channels else str(channels).replace("in_channels", "C")

        return f"{text(source, ('H', 'W'))} to {text(known, sizes)}."

    def annotation(self, name: str) -> str:
        """Return the type of a parameter."""
        kinds = {type(instance.values[name]) for instance in self.instances}
        if isinstance((self.block.attributes if self.block else {}).get(name), tuple):
            kinds.add(tuple)
        names = {bool: "bool", int: "int", float: "float", str: "str", tuple: "tuple[int, int]"}
        return " | ".join(text for kind, text in names.items() if kind in kinds)

    def resolve(self, name: str) -> str:
        """Return the row whose result a name stands for."""
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def reuses(self, row: RowView) -> bool:
        """Return whether the variable `x` is reused for a row's result, as a person would.

        Not where a row other than the next reads it.
        """
        i = self._order[row.name]
        if row.combines and self.model.names_expressions and not row.is_output:
            return False
        return row.is_output or self._reads[row.name] == [i + 1]

    def local(self, name: str) -> str:
        """Return the variable of a row's result: its name, with an underscore if that is taken."""
        taken = self.model.taken | self.names_known if self.block else self.model.taken
        while name in taken:
            name += "_"
        return name

    def variable_of(self, name: str) -> str:
        """Return the variable of a row or an input."""
        name = self.resolve(name)
        if name in self.inputs:
            return self.model.input_variable(self, name)
        return self.rows[self._order[name]].variable

    def input_read_next(self, name: str) -> bool:
        """Return whether nothing but the first row reads an input."""
        return self._reads[name] == [0]


class _NoFormulaError(Exception):
    """Raised where the channels of repeated blocks have no closed form."""


class _Polynomial:
    """An op whose attributes are polynomials where they are expressions."""

    def __init__(self, layer: LayerView) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        found = self._layer.expressions.get(name)
        if found and () in found:
            return from_expression(found[()])
        values = [getattr(node.op, name) for node in self._layer.nodes]
        if any(value != values[0] for value in values):
            raise NotPolynomialError
        return values[0]


def _poly(expression: Expression | None) -> Poly | None:
    try:
        return from_expression(expression) if expression else None
    except NotPolynomialError:
        return None


def _is_present(member: Member, model: ModelView) -> bool:
    """Return whether a row has any layer that is part of the network."""
    return any(_any_present(item, model) for item in member.items)


def _any_present(item: Item, model: ModelView) -> bool:
    if isinstance(item, Node):
        return item in model.present
    return any(_is_present(member, model) for member in item.members) or not item.members


def make_bodies(model: ModelView, root: Instance) -> list[Body]:
    """Return the bodies of the blocks, each after those that it uses, and of the network.

    Instances of a block that the same code cannot serve become several bodies.
    """
    found: dict[str, list[Instance]] = {}

    def collect(instance: Instance) -> None:
        for member in instance.members:
            for item in member.items:
                if isinstance(item, Instance) and _any_present(item, model):
                    collect(item)
                    assert item.block
                    found.setdefault(item.block.name, []).append(item)

    collect(root)
    bodies: list[Body] = []
    for name, block in model.graph.spec.blocks.items():
        groups = [found[name]] if name in found else []
        made: list[Body] = []
        while groups:
            group = groups.pop(0)
            class_name = model.block_name(block) + (str(len(made) + 1) if made else "")
            try:
                body = Body(model, block, group, class_name)
                model.settle(body)
            except SplitError as split:
                groups[:0] = _partition(group, split)
                continue
            made.append(body)
            model.body_of.update(dict.fromkeys(group, body))
        bodies += made
    top = Body(model, None, [root], model.class_name)
    model.settle(top)
    return [*bodies, top]


def _partition(group: list[Instance], split: SplitError) -> list[list[Instance]]:
    """Return the instances by a value that their code depends on; those without one are with the first."""
    assert len(group) > 1  # one instance is like itself
    values: dict[Instance, Any] = {}
    if len(split.values) == len(split.instances):
        values = dict(zip(split.instances, split.values, strict=True))
    parts: list[tuple[Any, list[Instance]]] = []
    for instance in group:
        value = values.get(instance, split.values[0])
        if not values:
            value = (instance.values, [member.output.output_shape for member in instance.members])
        same = next((members for known, members in parts if known == value), None)
        if same is None:
            parts.append((value, [instance]))
        else:
            same.append(instance)
    return [members for _, members in parts] if len(parts) > 1 else [[instance] for instance in group]
