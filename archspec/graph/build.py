"""From a spec to a graph: blocks are expanded and shapes inferred while it is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archspec.graph.graph import Graph, Instance, Item, Member, Node, make_node, output_of
from archspec.language.aliases import op_hint
from archspec.language.blocks import REQUIRED, Block, Row, Use
from archspec.language.errors import explain, layer_head
from archspec.language.expressions import Expression, ExpressionError
from archspec.language.ops import OPS, Op, ShapeError
from archspec.language.ops.base import channels_of, describe_shape, format_shape
from archspec.language.source import (
    Diagnostic,
    Loc,
    Source,
    Span,
    SpecError,
    did_you_mean,
    first_diagnostics,
    format_value,
    require_inside,
)
from archspec.language.spec import MAX_LAYERS, Spec, claim_errors, parse, parse_claims

Values = Mapping[str, Any]


def load(path: Path | str) -> Graph:
    """Return the network that the spec at `path` describes.

    Raises SpecError for the spec's errors (all schema errors at once, the first shape error) and OSError for an
    unreadable file.
    """
    return build(Source.read(path))


def build(source: Source) -> Graph:
    """Return the network that `source` describes; raise SpecError as `load` does."""
    spec = parse(source)
    builder = _Builder(source, spec)
    graph = _graph(builder, spec, source)
    if spec.training and not graph.trainable:
        message = "no layer of this network has trainable parameters"
        raise SpecError([source.error("nothing-to-train", message, ("training",), key=True)])
    if spec.training:
        require_scores(graph)
    if errors := first_diagnostics(_without_values(graph)):
        raise SpecError(errors)
    if errors := first_diagnostics(_unknown_layers(graph)):
        raise SpecError(errors)
    return graph


def require_scores(graph: Graph) -> None:
    """Raise SpecError for a network whose output is tokens: a loss needs scores, of an image or of each place."""
    if len(graph.output.output_shape) == 2:
        name, shape = graph.output.name, describe_shape(graph.output.output_shape)
        message = f"{name}: a loss needs scores, not {shape}: end the network with select, mean or flatten"
        raise SpecError([graph.source.error("not-scores", message, graph.output.loc)])


def load_neighbour(path: Path | str, name: str) -> Graph:
    """Return the network of the spec `name` in the folder of the spec at `path`; raise as `load` does."""
    neighbour = Path(path).parent / name
    require_inside(neighbour)
    return load(neighbour)


def load_claims(path: Path | str) -> Graph:
    """Return the network that the file of claims at `path` is about, with the file and its claims for the spec's own.

    Raises SpecError for the errors of the file or of the spec, and OSError for an unreadable file.
    """
    source = Source.read(path)
    document = parse_claims(source)
    try:
        graph = load_neighbour(path, document.spec)
    except OSError as error:
        message = f"cannot read {document.spec}: {error.strerror}"
        raise SpecError([source.error("unknown-spec", message, ("spec",))]) from None
    graph = replace(graph, source=source, spec=graph.spec.model_copy(update={"claims": document.claims}))
    if errors := first_diagnostics(claim_errors(graph.spec, source)) or first_diagnostics(_unknown_layers(graph)):
        raise SpecError(errors)
    return graph


def rebuild(graph: Graph, loc: Loc, fields: dict[str, Any] | None) -> Graph | None:
    """Return the graph with other attributes of the row at `loc`, or without it; None if it is no network then."""
    builder = _Builder(graph.source, graph.spec)
    builder.changes[loc] = fields
    try:
        return _graph(builder, graph.spec, graph.source)
    except SpecError:
        return None


def _graph(builder: _Builder, spec: Spec, source: Source) -> Graph:
    if not spec.is_flat:
        builder.count(spec.layers, {})
    first = Node(spec.input, (), spec.input.output_shape(), {}, "input", ("input",))
    root = builder.expand(spec.layers, "", None, {}, {"input": first})
    nodes = builder.nodes
    if not nodes:
        raise SpecError([source.error("wrong-value", "the network has no layers", ("layers",))])
    used = {root.output}
    for node in reversed(nodes):
        if node in used:
            used.update(node.inputs)
    unused = tuple(node for node in nodes if node not in used)
    nodes = [node for node in nodes if node in used] if unused else nodes
    return Graph(spec, source, first, tuple(nodes), unused, root)


def _without_values(graph: Graph) -> Iterator[Diagnostic]:
    """Yield the errors of layers with parameters of which the output depends on the size only: they cannot learn."""
    if not any(node.op.sizes_only for node in graph.nodes):  # type: ignore[union-attr]
        return
    read = {graph.output}
    for node in reversed(graph.nodes):
        if node in read:
            op: Any = node.op
            read.update(source for i, source in enumerate(node.inputs) if i not in op.sizes_only)
    for node in graph.nodes:
        if node.trainable and node not in read:
            message = f"{node.name}: the output depends on its size only: its parameters would get no gradient"
            yield graph.source.error("no-gradient", message, node.loc)


def _unknown_layers(graph: Graph) -> Iterator[Diagnostic]:
    """Yield the errors of claims about a layer that there is not."""
    if not graph.spec.claims:
        return
    names = graph.named
    for i, claim in enumerate(graph.spec.claims):
        for name in claim.layers:
            if name not in names:
                near = did_you_mean(name, names)
                yield graph.source.error(
                    "unknown-layer", f"no layer {format_value(name)}{near}", ("claims", i, "layer")
                )


class _Unknown:
    """A value that depends on shapes."""


_UNKNOWN = _Unknown()


class _Builder:
    """Walks over the rows; `nodes` are the layers in order."""

    def __init__(self, source: Source, spec: Spec) -> None:
        self.source, self.blocks = source, spec.blocks
        self.nodes: list[Node] = []
        self._uses: list[tuple[Loc, str, Mapping[str, Any]]] = []  # of blocks, the innermost last
        self._counted: dict[Any, int] = {}
        self.changes: dict[Loc, dict[str, Any] | None] = {}  # of rows: other attributes, or None to leave it out

    # --- errors ---

    def _error(self, code: str, message: str, loc: Loc) -> SpecError:
        return self._placed(self.source.error(code, message, loc))

    def _fault(self, fault: ExpressionError, head: str, loc: Loc) -> SpecError:
        return self._placed(self.source.error_inside(fault.code, f"{head}: {fault}", loc, fault.offset, fault.width))

    def _placed(self, *diagnostics: Diagnostic) -> SpecError:
        """Return an error with the uses of the blocks that it is in."""
        related: list[tuple[Span, str]] = []
        for loc, path, values in reversed(self._uses):
            said = [f"{name} is {_shown(value)}" for name, value in [*values.items()][:6]]
            where = f", where {' and '.join(said)}" if said else ""
            related.append((self.source.span(loc), f"in {path}{where}"))
        return SpecError([replace(d, related=tuple(related)) for d in diagnostics])

    # --- sizes, before anything is built ---

    def count(self, rows: tuple[Row, ...], values: Values, inside: Block | None = None) -> int:
        """Return how many rows there are, each as often as it is repeated; raise SpecError if there are too many."""
        total = 0
        for row in rows:
            repeat = self._repeat(row, values)
            uses = [row.first or row.use, row.use] if row.first else [row.use]
            for use in uses[:repeat]:
                times = repeat - len(uses) + 1 if use is row.use else 1
                total += times + (self._inside(row, use, times, values, inside) if times else 0)
                if total > MAX_LAYERS:
                    field = "repeat" if row.repeat else "op"
                    message = f"{_name(row)} has more than {MAX_LAYERS:,} layers in it"
                    raise self._error("too-large", message, (*row.loc, field))
        return total

    def _inside(self, row: Row, use: Use, times: int, values: Values, outer: Block | None) -> int:
        """Return the rows in `times` uses of a block."""
        block = self._block(use, values, outer)
        if block is None:
            return 0
        by_index = any("index" in e.names for found in use.expressions.values() for e in found.values())
        total = 0
        for index in range(times) if by_index else range(1):
            inner: dict[str, Any] = {"in_channels": _UNKNOWN}
            for name, default in block.attributes.items():
                value = use.values.get(name, default)
                if name in use.expressions:
                    (expression,) = use.expressions[name].values()
                    value = self._known(expression, {**values, "index": index})
                inner[name] = tuple(value) if isinstance(value, list) else value
            key = (block.name, *inner.values())
            if key not in self._counted:
                self._uses.append((row.loc, _name(row), _given(block, inner)))
                self._counted[key] = self.count(block.rows, inner, block)
                self._uses.pop()
            total += self._counted[key]
            if total > MAX_LAYERS:
                break
        return total if by_index else total * times

    def _known(self, expression: Expression, values: Values) -> Any:
        if any(values.get(name, _UNKNOWN) is _UNKNOWN for name in expression.names):
            return _UNKNOWN
        try:
            return expression.evaluate(values)
        except ExpressionError:  # raised again when the layer is built, if it is
            return _UNKNOWN

    def _repeat(self, row: Row, values: Values) -> int:
        if row.repeat is None:
            return 1
        if isinstance(row.repeat, int):
            return row.repeat
        place = (*row.loc, "repeat")
        name = _name(row)
        if any(values.get(used, _UNKNOWN) is _UNKNOWN for used in row.repeat.names):
            message = f"{name}: repeat cannot depend on in_channels: the number of layers is known before shapes are"
            raise self._error("wrong-value", message, place)
        try:
            value = row.repeat.evaluate(values)
        except ExpressionError as fault:
            raise self._fault(fault, name, place) from None
        if type(value) is not int or not 0 <= value < 2**31:
            message = f"{name}: repeat must be a whole number, 0 or more, not {format_value(value)}"
            raise self._error("wrong-value", message, place)
        return value

    def _block(self, use: Use, values: Values, inside: Block | None) -> Block | None:
        """Return the block that a row uses, or None."""
        if isinstance(use.op, str):
            return self.blocks.get(use.op)
        word = values.get(use.op.text)
        return self.blocks[word] if word in self._above(inside) else None

    def _above(self, inside: Block | None) -> list[str]:
        """Return the blocks that a row in a block may use by an attribute's word."""
        names = list(self.blocks)
        return names[: names.index(inside.name)] if inside else names

    # --- expansion ---

    def expand(
        self, rows: tuple[Row, ...], path: str, block: Block | None, values: dict[str, Any], inputs: dict[str, Node]
    ) -> Instance:
        """Add the layers of `rows` to `nodes`; return the instance of the block, or of the network."""
        made = dict(inputs)
        before = next(iter(inputs))
        members = []
        for row in rows:
            names = row.reads or (before,)
            reads = tuple(made[name] for name in names)
            items = tuple(self._items(row, path, block, values, reads))
            last = made[row.name] = output_of(items[-1]) if items else reads[0]
            before = row.name
            members.append(Member(row, names, items, last))
        return Instance(path, block, values, tuple(inputs.values()), tuple(members), made[before])

    def _items(
        self, row: Row, path: str, block: Block | None, values: dict[str, Any], reads: tuple[Node, ...]
    ) -> Iterator[Item]:
        name = f"{path}.{row.name}" if path else row.name
        if row.when is not None and not self._when(row, name, values):
            return
        if self.changes and self.changes.get(row.loc, row) is None:
            return
        if row.repeat is None:
            yield self._item(row, row.use, name, block, values, reads)
            return
        for i in range(self._repeat(row, values)):
            use = row.first if i == 0 and row.first else row.use
            item = self._item(row, use, f"{name}.{i}", block, {**values, "index": i}, reads)
            reads = (output_of(item),)
            yield item

    def _when(self, row: Row, name: str, values: Values) -> bool:
        if isinstance(row.when, bool):
            return row.when
        assert row.when is not None
        try:
            value = row.when.evaluate(values)
        except ExpressionError as fault:
            raise self._fault(fault, name, (*row.loc, "when")) from None
        if not isinstance(value, bool):
            message = f"{name}: when must be true or false, not {format_value(value)}: compare it with something"
            raise self._error("wrong-type", message, (*row.loc, "when"))
        return value

    def _item(
        self, row: Row, use: Use, path: str, inside: Block | None, values: Values, reads: tuple[Node, ...]
    ) -> Item:
        op = use.op
        if not isinstance(op, str):
            op = values[op.text]
            above = self._above(inside)
            if not isinstance(op, str) or (op not in OPS and op not in above):
                message = f"{path}: there is no op {format_value(op)}{op_hint(op, [*OPS, *above])}"
                raise self._error("unknown-op", message, self._place(row, use, "op"))
        if op in self.blocks:
            return self._instance(row, use, self.blocks[op], path, values, reads)
        return self._node(row, use, op, path, values, reads)

    def _instance(
        self, row: Row, use: Use, block: Block, path: str, values: Values, reads: tuple[Node, ...]
    ) -> Instance:
        if len(reads) != len(block.inputs):
            count = f"{len(block.inputs)} layers" if len(block.inputs) > 1 else "one layer"
            message = f"{path}: {block.name} reads {count}, not {len(reads)}"
            raise self._error("inputs", message, self._place(row, use, "from" if row.reads else "op"))
        inner: dict[str, Any] = {"in_channels": channels_of(reads[0].output_shape)}
        for name, default in block.attributes.items():
            if name in use.expressions:
                ((_, expression),) = use.expressions[name].items()
                inner[name] = self._evaluate(expression, row, use, name, (), path, values)
            else:
                value = use.values.get(name, default)
                inner[name] = tuple(value) if isinstance(value, list) else value
        if not isinstance(use.op, str):  # its attributes have not been checked yet
            bad = [key for key in use.values if key not in (*block.attributes, "name", "op", "from", "allow")]
            missing = [name for name, value in inner.items() if value == REQUIRED]
            if bad or missing:
                message = f"has no attribute {format_value(bad[0])}" if bad else f"needs {missing[0]}"
                raise self._error("unknown-key", f"{path}: {block.name} {message}", self._place(row, use, "op"))
        self._uses.append((row.loc, path, _given(block, inner)))
        made = self.expand(block.rows, path, block, inner, dict(zip(block.inputs, reads, strict=True)))
        self._uses.pop()
        return made

    def _node(self, row: Row, use: Use, name: str, path: str, values: Values, reads: tuple[Node, ...]) -> Node:
        op = use.model or self._model(row, use, name, path, values)
        if fields := self.changes.get(row.loc):
            op = op.model_copy(update=fields)
            use = replace(use, expressions={key: e for key, e in use.expressions.items() if key not in fields})
        least, most = op.inputs
        if not least <= len(reads) <= most:
            count = f"{least} layers or more" if most > least else "one layer"
            hint = ": name them in from: [...]" if len(reads) < least else ""
            message = f"{path}: {op.op} reads {count}, not {len(reads)}{hint}"
            raise self._error("inputs", message, self._place(row, use, "from" if row.reads else "op"))
        try:
            node = make_node(op, reads, path, row.loc, use)
        except ShapeError as error:
            field = error.field if error.field and error.field in use.values else "op"
            message = f"{path}: {error}"
            if error.field == "from":
                message += f": {', '.join(f'{node.name} is {format_shape(node.output_shape)}' for node in reads[:8])}"
            raise self._error(error.code, message, self._place(row, use, field)) from None
        self.nodes.append(node)
        return node

    def _model(self, row: Row, use: Use, name: str, path: str, values: Values) -> Op:
        """Return the op of a row whose expressions have to be evaluated first."""
        found = [
            (key, inner, self._evaluate(expression, row, use, key, inner, path, values))
            for key, places in use.expressions.items()
            for inner, expression in places.items()
        ]
        known = (name, *(value for _, _, value in found))
        if known not in use.cache or any(isinstance(value, bool | float) for value in known):  # 1 == 1.0 == True
            raw = {**use.values, "op": name}
            for key, inner, value in found:
                raw[key] = _with(raw[key], inner, list(value) if isinstance(value, tuple) else value)
            try:
                use.cache[known] = OPS[name].model_validate(raw)
            except ValidationError as error:
                head = layer_head(self.source.data, row.loc)
                reworded = explain(error, self.source, OPS[name], row.loc, use.places)
                whole = "; write // to divide whole numbers"
                raise self._placed(
                    *(
                        replace(d, message=f"{path}: {d.message.removeprefix(head)}{whole * d.message.endswith('.0')}")
                        for d in reworded
                    )
                ) from None
        return use.cache[known]

    def _evaluate(
        self, expression: Expression, row: Row, use: Use, key: str, inner: Loc, path: str, values: Values
    ) -> Any:
        try:
            return expression.evaluate(values)
        except ExpressionError as fault:
            raise self._fault(fault, path, (*self._place(row, use, key), *inner)) from None

    def _place(self, row: Row, use: Use, key: str) -> Loc:
        return use.places.get(key, (*row.loc, key))


def _given(block: Block, values: Values) -> dict[str, Any]:
    """Return the values of a block's attributes that are known."""
    return {name: values[name] for name in block.attributes if values[name] is not _UNKNOWN}


def _name(row: Row) -> str:
    return f"layer {int(row.name) + 1}" if row.numbered else row.name


def _with(value: Any, inner: Loc, new: Any) -> Any:
    """Return a copy of `value` with `new` at the place `inner` in it."""
    if not inner:
        return new
    first, rest = inner[0], inner[1:]
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[first] = _with(value[first], rest, new)  # type: ignore[index]
    return copy


def _shown(value: Any) -> str:
    return format_value(list(value)) if isinstance(value, tuple) else format_value(value)
