"""Rows and blocks: the layers of a spec as written, each validated by its own op."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from archspec.language.aliases import op_hint
from archspec.language.errors import explain, layer_head, row_loc
from archspec.language.expressions import Expression, ExpressionError
from archspec.language.expressions import parse as parse_expression
from archspec.language.names import class_name
from archspec.language.ops import OPS, Op
from archspec.language.source import (
    MAX_DIAGNOSTICS,
    Diagnostic,
    Loc,
    Source,
    SpecError,
    did_you_mean,
    first_diagnostics,
    format_value,
    listed,
)

MAX_DEPTH = 16  # blocks in blocks
MAX_BLOCKS = 1000
MAX_ATTRIBUTES = 100  # of a block
REQUIRED = "required"
ROW_KEYS = ("name", "op", "from", "allow", "repeat", "first", "when")

# Words that a value may be: no attribute or block may have the name of one. tests/language/test_blocks.py derives them.
WORDS = frozenset(
    """
    across_channels bilinear constant fan_in fan_out kaiming_normal kaiming_uniform leaky_relu linear nearest none
    normal ones relu same sigmoid tanh torch_default truncated_normal uniform within_channel xavier_normal
    xavier_uniform zeros
    """.split()
)
KNOWN = ("in_channels", "index")  # names that every expression may use: `index` in a repeated row

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_WORD = re.compile(r"[A-Za-z_]\w*")


_FAULTY = parse_expression("0")


class BlockUse(Op):
    """A row that uses a block: the keys that all rows have; its other keys are the block's attributes."""


@dataclass(frozen=True, eq=False)
class Use:
    """What a row is: an op or a block, with the values of its attributes."""

    op: str | Expression
    values: Mapping[str, Any]  # the row without `repeat`, `first` and `when`
    expressions: Mapping[str, Mapping[Loc, Expression]]  # by key, and by place in the key's value
    places: Mapping[str, Loc]  # of keys that `first` gives
    model: Op | None  # validated, unless an expression has to be evaluated first
    cache: dict[Any, Op] = field(default_factory=dict)  # validated ops, by the values of the expressions


@dataclass(frozen=True, eq=False)
class Row:
    """A layer as the text writes it, in `layers` or in a block."""

    name: str  # its number where it has no name
    loc: Loc
    reads: tuple[str, ...] | None  # None: the row above
    use: Use
    first: Use | None = None  # the first of several, where that is different
    repeat: int | Expression | None = None
    when: Expression | bool | None = None

    @property
    def numbered(self) -> bool:
        """Whether it has no name of its own."""
        return self.name.isdecimal()


@dataclass(frozen=True, eq=False)
class Block:
    """An op that the spec defines: attributes, and the rows that they are for."""

    name: str
    loc: Loc
    attributes: Mapping[str, Any]  # the default, or REQUIRED
    inputs: tuple[str, ...]
    rows: tuple[Row, ...]
    depth: int

    @property
    def class_name(self) -> str:
        """The name of its class or function in generated code."""
        return class_name(self.name)


class Parser:
    """Reads the rows and blocks of a spec; `errors` has all faults of wording."""

    def __init__(self, source: Source, max_rows: int) -> None:
        self.source, self.max_rows = source, max_rows
        self.errors: list[Diagnostic] = []
        self.blocks: dict[str, Block] = {}

    def spec(self) -> tuple[tuple[Row, ...], dict[str, Block]]:
        """Return the rows and the blocks of the spec."""
        data = self.source.data
        if not isinstance(data, dict):
            return (), {}
        if "blocks" in data:
            self._blocks(data["blocks"])
        rows = self.rows(data["layers"], ("layers",), None, ("input",)) if "layers" in data else ()
        return rows, self.blocks

    def _error(self, code: str, message: str, loc: Loc, *, key: bool = False) -> None:
        self.errors.append(self.source.error(code, message, loc, key=key))
        self._stop_after_many()

    def _stop_after_many(self) -> None:
        """Raise SpecError if there are more errors than are shown."""
        if len(self.errors) > MAX_DIAGNOSTICS:
            raise SpecError(first_diagnostics(self.errors))

    # --- blocks ---

    def _blocks(self, data: Any) -> None:
        if not isinstance(data, dict):
            self._error("wrong-type", f"blocks must be a mapping, not {format_value(data)}", ("blocks",))
            return
        if len(data) > MAX_BLOCKS:
            self._error("too-large", f"blocks must have at most {MAX_BLOCKS:,}", ("blocks",))
            return
        classes: dict[str, str] = {}
        for name, content in data.items():
            loc: Loc = ("blocks", name)
            if problem := self._name_problem(name, "block"):
                self._error(*problem, loc, key=True)
            elif (other := classes.setdefault(class_name(name), name)) != name:
                message = f"blocks {other} and {name} would both be the class {class_name(name)}: rename one"
                self._error("duplicate-name", message, loc, key=True)
            if not isinstance(content, dict):
                self._error("wrong-type", f"{name} must be a mapping with layers, not {format_value(content)}", loc)
                continue
            for key in content:
                if key not in ("attributes", "inputs", "layers"):
                    hint = did_you_mean(key, ("attributes", "inputs", "layers"))
                    if key in ("parameters", "params", "args", "arguments"):
                        hint = "; write `attributes`"
                    message = f"a block has no key {format_value(key)}{hint or '; it has attributes, inputs, layers'}"
                    self._error("unknown-key", message, (*loc, key), key=True)
            attributes = self._attributes(content.get("attributes"), (*loc, "attributes"), data)
            inputs = self._inputs(content.get("inputs", ["input"]), (*loc, "inputs"))
            if "layers" not in content:
                self._error("missing-key", f"{format_value(name)[1:-1]} needs layers", loc, key=True)
                continue
            rows = self.rows(content["layers"], (*loc, "layers"), attributes, inputs)
            depth = 1 + max((self.blocks[op].depth for row in rows for op in _ops(row) if op in self.blocks), default=0)
            if depth > MAX_DEPTH:
                self._error("too-deep", f"{name} has more than {MAX_DEPTH} levels of blocks in it", loc, key=True)
                depth = 1
            if any(row.numbered for row in rows) and not is_sequence(rows, inputs):
                i = next(i for i, row in enumerate(rows) if row.numbered)
                message = f"layer {i + 1} in {name} needs a name: only in a block whose layers all have none, each"
                self._error("missing-key", f"{message} reading the one above, may names be left out", rows[i].loc)
            self.blocks[name] = Block(name, loc, attributes, inputs, rows, depth)

    def _name_problem(self, name: str, what: str) -> tuple[str, str] | None:
        """Return the code and the message of what is wrong with the name of a block or an attribute."""
        shown = format_value(name)[1:-1]
        if not _NAME.fullmatch(name):
            letters = "lower-case letters, digits and underscores, a letter first, at most 32"
            return "bad-name", f"the name of a {what}, {shown}, must be {letters}"
        if keyword.iskeyword(name):
            return "reserved-name", f"{shown} is a keyword of Python: choose another name"
        meaning = ""
        if name in OPS:
            meaning = "an op"
        elif name in ROW_KEYS or name in ("input", *KNOWN):
            meaning = "a key of a layer" if name in ROW_KEYS else "known in every block"
        elif name in WORDS:
            meaning = "a word of the language"
        elif what == "attribute" and name in self.blocks:
            meaning = "a block"
        return ("reserved-name", f"{shown} is {meaning}: choose another name") if meaning else None

    def _attributes(self, data: Any, loc: Loc, blocks: Mapping[str, Any]) -> dict[str, Any]:
        if data is None:
            return {}
        if not isinstance(data, dict):
            example = "a mapping such as {width: required, stride: 1}"
            self._error("wrong-type", f"attributes must be {example}, not {format_value(data)}", loc)
            return {}
        if len(data) > MAX_ATTRIBUTES:
            self._error("too-large", f"attributes must have at most {MAX_ATTRIBUTES}", loc)
            return {}
        found: dict[str, Any] = {}
        optional = ""
        for name, default in data.items():
            if problem := self._name_problem(name, "attribute"):
                self._error(*problem, (*loc, name), key=True)
                continue
            if name in blocks:
                self._error("reserved-name", f"{name} is a block: choose another name", (*loc, name), key=True)
                continue
            if default == REQUIRED:
                if optional:
                    message = f"{name} is required: write it before {optional}, which has a default"
                    self._error("wrong-value", message, (*loc, name), key=True)
            else:
                optional = name
                if problem_value := _value_problem(default):
                    self._error("wrong-value", f"{name} {problem_value}", (*loc, name))
                    continue
            found[name] = tuple(default) if isinstance(default, list) else default
        return found

    def _inputs(self, data: Any, loc: Loc) -> tuple[str, ...]:
        names = data if isinstance(data, list) else [data]
        if not names or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            self._error("wrong-value", "inputs must be a list of names, such as [input, skip]", loc)
            return ("input",)
        if len(set(names)) != len(names):
            self._error("duplicate-name", "two inputs have one name", loc)
        return tuple(names)

    # --- rows ---

    def rows(
        self, data: Any, loc: Loc, attributes: Mapping[str, Any] | None, inputs: tuple[str, ...]
    ) -> tuple[Row, ...]:
        """Return the rows in `data`, of a block if there are `attributes`."""
        if not isinstance(data, list):
            self._error("wrong-type", f"layers must be a list, not {format_value(data)}", loc)
            return ()
        if not data:
            self._error("wrong-value", "layers must have at least 1", loc)
        if len(data) > self.max_rows:
            self._error("too-large", f"layers must have at most {self.max_rows:,}", loc)
            return ()
        rows = []
        for i, raw in enumerate(data):
            if row := self._row(raw, (*loc, i), attributes):
                rows.append(row)
            else:
                self._stop_after_many()
        self._names(data, loc, inputs)
        return tuple(rows)

    def _row(self, raw: Any, loc: Loc, attributes: Mapping[str, Any] | None) -> Row | None:
        if not isinstance(raw, dict):
            head = layer_head(self.source.data, loc)
            message = f"{head}must be a mapping such as {{name: relu1, op: relu}}, not {format_value(raw)}"
            self._error("wrong-type", message, loc)
            return None
        number = str(loc[-1])
        name = raw["name"] if isinstance(raw.get("name"), str) else number
        if attributes is None and not ("repeat" in raw or "first" in raw or "when" in raw):
            use = self._plain(raw, loc)
            return Row(name, loc, use.model.from_, use) if use and use.model else None
        rest = {key: value for key, value in raw.items() if key not in ("repeat", "first", "when")}
        if attributes is not None and "name" not in raw:
            rest["name"] = "unnamed"
        given = {} if attributes is None and "repeat" in raw else attributes  # which has `index`
        use = self._use(rest, loc, given, repeated="repeat" in raw)
        first = None
        head = layer_head(self.source.data, loc)
        if "first" in raw:
            changes = raw["first"]
            if "repeat" not in raw:
                self._error("unknown-key", f"{head}first is for a layer with repeat", (*loc, "first"), key=True)
            elif not isinstance(changes, dict):
                message = f"{head}first must be a mapping such as {{stride: 2}}, not {format_value(changes)}"
                self._error("wrong-type", message, (*loc, "first"))
            elif bad := [key for key in changes if key in ROW_KEYS and key != "op"]:
                self._error("unknown-key", f"{head}first cannot change {bad[0]}", (*loc, "first", bad[0]), key=True)
            elif use is not None:
                places = {key: (*loc, "first", key) for key in changes}
                kept = rest
                if "op" in changes and changes["op"] != rest.get("op"):
                    kept = self._shared(rest, changes["op"])
                first = self._use({**kept, **changes}, loc, given, places, repeated=True)
        repeat = self._repeat(raw["repeat"], loc, head, attributes) if "repeat" in raw else None
        when: Expression | bool | None = None
        if "when" in raw:
            if attributes is None:
                self._error("unknown-key", f"{head}when is for layers of a block", (*loc, "when"), key=True)
            elif isinstance(raw["when"], bool):
                when = raw["when"]
            else:
                when = self._expression(str(raw["when"]), (*loc, "when"), attributes, repeated=False)
        if use is None:
            return None
        reads = raw.get("from")
        names = None if reads is None else (reads,) if isinstance(reads, str) else tuple(reads)
        return Row(name, loc, names, use, first, repeat, when)

    def _shared(self, rest: dict[str, Any], op: Any) -> dict[str, Any]:
        """Return the keys of a row that `op`, which `first` gives instead of the row's own, has as well."""
        block = self.blocks.get(op) if isinstance(op, str) else None
        known = [*block.attributes] if block else [*OPS[op].model_fields] if isinstance(op, str) and op in OPS else []
        return {key: value for key, value in rest.items() if key in ROW_KEYS or key in known}

    def _plain(self, raw: dict[str, Any], loc: Loc) -> Use | None:
        """Return a row of the network that uses an op and has no expression: the usual case, and the fast one."""
        op = raw.get("op")
        if not isinstance(op, str) or op not in OPS:
            return self._use(raw, loc, None)
        try:
            return Use(op, raw, {}, {}, OPS[op].model_validate(raw))
        except ValidationError as error:
            self.errors += explain(error, self.source, OPS[op], loc)
            return None

    def _use(
        self,
        raw: dict[str, Any],
        loc: Loc,
        attributes: Mapping[str, Any] | None,
        places: Mapping[str, Loc] | None = None,
        *,
        repeated: bool = False,
    ) -> Use | None:
        places = places or {}
        op = raw.get("op")
        head = layer_head(self.source.data, loc)
        op_loc = places.get("op", (*loc, "op"))
        if "op" not in raw:
            self.errors.append(self._no_op(raw, loc, head))
            return None
        if op is None:
            self._error("missing-key", f"{head}op is empty", op_loc)
            return None
        expressions: dict[str, dict[Loc, Expression]] = {}
        failed = len(self.errors)
        if attributes is not None:
            for key, value in raw.items():
                if key in ("name", "from", "allow", "op"):
                    continue
                found = dict(self._find(value, places.get(key, (*loc, key)), (), attributes, repeated))
                if found:
                    expressions[key] = found
        if isinstance(op, str) and attributes is not None and op in attributes:
            return Use(parse_expression(op), raw, expressions, places, None)
        if isinstance(op, str) and op in self.blocks:
            return self._block_use(self.blocks[op], raw, loc, expressions, places)
        if not isinstance(op, str) or op not in OPS:
            names = self.source.data.get("blocks")
            below = isinstance(op, str) and isinstance(names, dict) and op in names
            where = "this block itself" if op == loc[1] else "a block below this one"
            hint = f": it is {where}" if below else op_hint(op, [*OPS, *self.blocks])
            self._error("unknown-op", f"{head}there is no op {format_value(op)}{hint}", op_loc)
            return None
        fields = _fields(OPS[op])  # the model says of an unknown key that it is unknown
        given = {key: value for key, value in raw.items() if key not in expressions or key not in fields}
        model: Op | None = None
        try:
            model = OPS[op].model_validate(given)
        except ValidationError as error:
            diagnostics = explain(error, self.source, OPS[op], loc, places)
            for diagnostic, detail in zip(diagnostics, error.errors(), strict=False):
                if detail["type"] == "missing" and detail["loc"][0] in raw:
                    continue  # it is an expression
                value = detail["input"]
                is_value = detail["type"] != "extra_forbidden"
                if attributes and is_value and isinstance(value, str) and _WORD.fullmatch(value):
                    near = did_you_mean(value, [*attributes, *KNOWN])
                    diagnostic = replace(diagnostic, message=diagnostic.message + near)
                self.errors.append(diagnostic)
        if len(self.errors) > failed:
            return None
        return Use(op, raw, expressions, places, None if expressions else model)

    def _block_use(
        self,
        block: Block,
        raw: dict[str, Any],
        loc: Loc,
        expressions: dict[str, dict[Loc, Expression]],
        places: Mapping[str, Loc],
    ) -> Use | None:
        head = layer_head(self.source.data, loc)
        failed = len(self.errors)
        common = {key: value for key, value in raw.items() if key in ("name", "op", "from", "allow")}
        try:
            model = BlockUse.model_validate(common)
        except ValidationError as error:
            self.errors += explain(error, self.source, BlockUse, loc, places)
            return None
        for key, value in raw.items():
            if key in common:
                continue
            place = places.get(key, (*loc, key))
            if key not in block.attributes:
                known = ", ".join(block.attributes) or "none"
                near = did_you_mean(key, [name for name in block.attributes if name not in raw])
                message = f"{head}{block.name} has no attribute {format_value(key)}{near or f'; it has {known}'}"
                self._error("unknown-key", message, place, key=True)
            elif key not in expressions and (problem := _value_problem(value)):
                self._error("wrong-value", f"{head}{key} {problem}", place)
        missing = [name for name, default in block.attributes.items() if default == REQUIRED and name not in raw]
        if missing:
            self._error("missing-key", f"{head}{block.name} needs {' and '.join(missing)}", loc)
        return Use(block.name, raw, expressions, places, model) if len(self.errors) == failed else None

    def _no_op(self, raw: dict[str, Any], loc: Loc, head: str) -> Diagnostic:
        """Return the diagnostic of a row without `op`."""
        for key in raw:
            message = ""
            if key.startswith("op:"):
                message = f"{head}write a space after the colon of {key!r}"
            elif key in ("type", "layer", "kind", "block"):
                message = f"{head}a layer needs op: write `op` for {key!r}"
            if message:
                return self.source.error("missing-key", message, (*loc, key), key=True)
        return self.source.error("missing-key", f"{head}a layer needs op", loc)

    # --- expressions ---

    def _repeat(self, value: Any, loc: Loc, head: str, attributes: Mapping[str, Any] | None) -> int | Expression | None:
        place = (*loc, "repeat")
        if type(value) is int and 1 <= value < 2**31:
            return value
        if isinstance(value, str) and attributes is not None:
            found = self._expression(value, place, attributes, repeated=False)
            if found and "in_channels" in found.names:
                message = f"{head}repeat cannot depend on in_channels: the number of layers is known before shapes are"
                self._error("wrong-value", message, place)
            return found
        self._error("wrong-value", f"{head}repeat must be a positive whole number, not {format_value(value)}", place)
        return None

    def _find(
        self, value: Any, loc: Loc, inner: Loc, attributes: Mapping[str, Any], repeated: bool
    ) -> Iterator[tuple[Loc, Expression]]:
        """Yield the expressions in the value of a key, with their places in it."""
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self._find(item, (*loc, i), (*inner, i), attributes, repeated)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from self._find(item, (*loc, key), (*inner, key), attributes, repeated)
        elif isinstance(value, str):
            known = value in attributes or value == "in_channels" or (value == "index" and repeated)
            if known or not _WORD.fullmatch(value):
                # A faulty one is an expression as well: nothing else is said of it.
                yield inner, self._expression(value, loc, attributes, repeated=repeated) or _FAULTY

    def _expression(self, text: str, loc: Loc, attributes: Mapping[str, Any], *, repeated: bool) -> Expression | None:
        head = layer_head(self.source.data, row_loc(loc) or loc[:4])
        try:
            expression = parse_expression(text)
        except ExpressionError as fault:
            self.errors.append(self.source.error_inside(fault.code, f"{head}{fault}", loc, fault.offset, fault.width))
            return None
        known = [*attributes, *(["in_channels"] if loc[0] == "blocks" else []), *(["index"] if repeated else [])]
        for name in sorted(expression.names - set(known)):
            offset = re.search(rf"\b{name}\b", text)
            hint = did_you_mean(name, known) or f"; there are {listed(known)}"
            if name == "index":
                hint = ": it is known in a layer with repeat"
            elif name in ("True", "False"):
                hint = f": write {name.lower()}"
            message = f"{head}no attribute {format_value(name)}{hint}"
            at = offset.start() if offset else 0
            self.errors.append(self.source.error_inside("unknown-attribute", message, loc, at, len(name)))
            return None
        return expression

    # --- names ---

    def _names(self, rows: list[Any], loc: Loc, inputs: tuple[str, ...]) -> None:
        """Check the names of rows: duplicates, and inputs that are not above the row.

        In the raw data, so that they are checked in a spec with other errors too.
        """
        layers = [row if isinstance(row, dict) else {} for row in rows]
        seen = dict.fromkeys(inputs, -1)
        names = {layer["name"] for layer in layers if isinstance(layer.get("name"), str)}
        for i, layer in enumerate(layers):
            reads = layer.get("from")
            for j, read in enumerate(reads if isinstance(reads, list) else [reads]):
                if isinstance(read, str) and read not in seen:
                    place: Loc = (*loc, i, "from", j) if isinstance(reads, list) else (*loc, i, "from")
                    if read in names:
                        hint = f": {read} is {'this layer' if layer.get('name') == read else 'below it'}"
                    else:
                        hint = did_you_mean(read, seen)
                    head = layer_head(self.source.data, (*loc, i))
                    self._error("unknown-layer", f"{head}no layer {format_value(read)} above this one{hint}", place)
            name = layer.get("name")
            if isinstance(name, str):
                if name in seen and name != "input":  # that one is a reserved name already
                    if seen[name] < 0:
                        message = f"{format_value(name)} is an input of the block: choose another name"
                        self._error("duplicate-name", message, (*loc, i, "name"))
                        continue
                    first = self.source.span((*loc, seen[name], "name")).line + 1
                    message = f"two layers are named {format_value(name)}: the first is in line {first}"
                    self._error("duplicate-name", message, (*loc, i, "name"))
                seen.setdefault(name, i)


def is_sequence(rows: tuple[Row, ...], inputs: tuple[str, ...]) -> bool:
    """Return whether no row has a name and each reads the one above: a plain sequence."""
    return len(inputs) == 1 and all(
        row.numbered and row.reads in (None, ("input",) if i == 0 else None) for i, row in enumerate(rows)
    )


def _ops(row: Row) -> Iterator[str]:
    """Yield the ops and blocks that a row is."""
    for use in (row.use, row.first):
        if use and isinstance(use.op, str):
            yield use.op


def _fields(model: type[Op]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def _value_problem(value: Any) -> str:
    """Return what is wrong with the value of a block's attribute, or an empty string."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return "" if -(2**53) <= value <= 2**53 else "is beyond 2^53"
    if isinstance(value, str) and _WORD.fullmatch(value):
        return ""
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value):
        return ""
    return f"must be a number, true or false, a pair such as [1, 7], or a word, not {format_value(value)}"
