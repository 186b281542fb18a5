"""From layers to a spec: the author's modules that repeat become blocks, in which what differs is an attribute."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from archspec.importers.layers import Layer
from archspec.language.blocks import KNOWN, ROW_KEYS, WORDS
from archspec.language.names import TORCH_ATTRIBUTES
from archspec.language.ops import OPS

Json = dict[str, Any]
CONTAINERS = ("Sequential", "ModuleList", "")
USUAL = {"stride": 1, "dilation": 1, "padding": 0, "groups": 1}


@dataclass(eq=False)
class Item:
    """A layer, or a module of the author's with `items` in it."""

    name: str
    layer: Layer | None = None
    kind: str = ""  # the class of the module
    items: list[Item] = field(default_factory=list)
    inputs: list[Layer | None] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        """Its layers, in their order."""
        return [self.layer] if self.layer else [layer for item in self.items for layer in item.layers]

    @property
    def output(self) -> Layer:
        """The layer whose output is its own."""
        return self.layers[-1]


def folded(layers: list[Layer], *, blocks: bool = True) -> tuple[Json, dict[str, Layer]]:
    """Return `blocks` and `layers` of a spec, and the layers by the name of their node in its graph."""
    root = Item("", items=_tree(layers, 0))
    if blocks:
        root.items = _close(root.items, layers)
    else:
        root.items = list(_flat(root.items))
    return _Writer(layers).write(root)


def _tree(layers: list[Layer], depth: int) -> list[Item]:
    """Return the items of consecutive layers by the part of their path at `depth`."""
    items = []
    for name, group in groupby(layers, lambda layer: layer.path[depth]):
        found = list(group)
        leaves = [layer for layer in found if len(layer.path) == depth + 1]
        if leaves and len(found) == len(leaves):
            items += [Item(name, layer) for layer in leaves]
            continue
        for leaf, inner in groupby(found, lambda layer: len(layer.path) == depth + 1):
            members = list(inner)
            if leaf:
                items += [Item(name, layer) for layer in members]
            else:
                kind = members[0].classes[depth] if len(members[0].classes) > depth else ""
                items.append(Item(name, kind=kind, items=_tree(members, depth + 1)))
    return items


def _flat(items: list[Item], prefix: str = "") -> Iterator[Item]:
    """Yield the layers of items, with joined names."""
    for item in items:
        name = f"{prefix}_{item.name}" if prefix else item.name
        if item.layer:
            item.name = name
            yield item
        else:
            yield from _flat(item.items, name)


def _close(items: list[Item], layers: list[Layer]) -> list[Item]:
    """Return items with modules whose inner layers are read from outside dissolved into their layers and modules."""
    readers: dict[Layer, list[Layer]] = {layer: [] for layer in layers}
    for layer in layers:
        for read in layer.reads:
            if read:
                readers[read].append(layer)

    def close(found: list[Item]) -> list[Item]:
        closed = []
        for item in found:
            if item.layer:
                closed.append(item)
                continue
            item.items = [one for inner in close(item.items) for one in _spliced(item, inner)]
            if len(item.items) == 1 and item.items[0].layer:  # a module around one layer, such as LayerNorm2d
                closed.append(Item(item.name, item.items[0].layer))
                continue
            closed += _taken_out(item)
            inside = set(item.layers)
            inputs = list(dict.fromkeys(r for layer in item.layers for r in layer.reads if r not in inside))
            leaks = any(reader not in inside for layer in item.layers[:-1] for reader in readers[layer])
            if leaks or len(inputs) != 1:
                for inner in item.items:
                    inner.name = f"{item.name}_{inner.name}"
                closed += item.items
            else:
                item.inputs = inputs
                closed.append(item)
        return closed

    return close(items)


def _taken_out(item: Item) -> list[Item]:
    """Take a concatenation of several inputs out of a module that begins with it, as DenseNet's: blocks read one."""
    first = item.items[0]
    outside = set(first.layer.reads) if first.layer else set()
    rest = {read for layer in item.layers[1:] for read in layer.reads}
    if not first.layer or first.layer.op != "concat" or len(item.items) == 1 or outside & rest:
        return []
    del item.items[0]
    first.name = f"{item.name}_{first.name}"
    return [first]


def _spliced(item: Item, inner: Item) -> list[Item]:
    """Return the items of a sequence in a module of the author's, unless it repeats one module; else the item."""
    kinds = {one.kind for one in inner.items}
    repeats = len(inner.items) > 1 and len(kinds) == 1 and not any(one.layer for one in inner.items)
    if inner.layer or inner.kind not in CONTAINERS or item.kind in CONTAINERS or repeats:
        return [inner]
    for one in inner.items:
        one.name = f"{inner.name}_{one.name}"
    return inner.items


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Block:
    """A block: its instances, which have the same rows but for values."""

    name: str
    instances: list[Item]
    attributes: dict[str, list[Any]] = field(default_factory=dict)  # a value for each instance
    rows: list[Json] = field(default_factory=list)

    @property
    def defaults(self) -> Json:
        """The attributes with their defaults: those of an op where an instance has it, required ones first."""
        found = {key: USUAL[key] if USUAL.get(key) in values else "required" for key, values in self.attributes.items()}
        return dict(sorted(found.items(), key=lambda pair: pair[1] != "required"))

    def given(self, item: int) -> Json:
        """Return the attributes of an instance that are not the defaults."""
        return {key: values[item] for key, values in self.attributes.items() if values[item] != self.defaults[key]}


class _Writer:
    """Makes the blocks and rows of a spec."""

    def __init__(self, layers: list[Layer]) -> None:
        self._blocks: list[_Block] = []
        self._of: dict[Item, tuple[_Block, int]] = {}
        self._names: set[str] = set()
        self._channels = {layer: _channels(layer) for layer in layers}

    def write(self, root: Item) -> tuple[Json, dict[str, Layer]]:
        """Return the data of the spec's layers and blocks, and its layers by name."""
        needed = self._needed(root)
        for height in range(1, _depth(root)):
            self._make_blocks([item for item in needed if _depth(item) == height])
        named: dict[str, Layer] = {}
        rows = self._rows(root, named)
        data: Json = {}
        if self._blocks:
            data["blocks"] = {
                block.name: {
                    **({"attributes": block.defaults} if block.attributes else {}),
                    "layers": block.rows,
                }
                for block in self._blocks
            }
        data["layers"] = rows
        return data, named

    def _needed(self, root: Item) -> list[Item]:
        """Return the modules that become blocks: of a class or a structure that there is twice, and all inside them."""
        modules = [item for item in _inside(root) if not item.layer]
        structures = Counter(self._structure(item) for item in modules)
        kinds = Counter(item.kind for item in modules if item.kind not in CONTAINERS)
        found: dict[Item, None] = {}

        def search(item: Item, inside: bool) -> None:
            if not item.layer and item is not root:
                sequence = item.kind in CONTAINERS and all(not one.layer for one in item.items)
                twice = structures[self._structure(item)] > 1 and not sequence
                inside = inside or twice or kinds[item.kind] > 1
                if inside:
                    found[item] = None
            for one in item.items:
                search(one, inside)

        search(root, False)
        return list(found)

    def _make_blocks(self, items: list[Item]) -> None:
        """Make blocks of modules, those of one structure together."""
        groups: dict[Any, list[Item]] = {}
        for item in items:
            groups.setdefault(self._structure(item), []).append(item)
        for instances in groups.values():
            block = _Block(self._name(instances[0]), instances)
            self._fill(block)
            self._blocks.append(block)
            self._of.update({item: (block, i) for i, item in enumerate(instances)})

    def _structure(self, item: Item) -> Any:
        """Return what instances of a block have in common: names, ops, what is read, and which attributes there are."""
        position = {layer: i for i, inner in enumerate(item.items) for layer in inner.layers}

        def reads(inner: Item) -> tuple[Any, ...]:
            found = inner.layer.reads if inner.layer else inner.inputs
            return tuple(position.get(r, "input") if r else "input" for r in found)

        return tuple(
            (
                inner.name,
                inner.layer.op
                if inner.layer
                else self._of[inner][0].name
                if inner in self._of
                else self._structure(inner),
                reads(inner),
                # what no attribute of a block can be, such as {top: 1}
                *(f"{k}: {v}" for k, v in (inner.layer.fields.items() if inner.layer else ()) if isinstance(v, dict)),
                # attributes of which an op has one or the other, such as sections and sizes
                *((k for k in inner.layer.fields if _default(inner.layer.op, k) is None) if inner.layer else ()),
            )
            for inner in item.items
        )

    def _name(self, item: Item) -> str:
        kind = item.kind if item.kind not in CONTAINERS else item.name
        name = snake_case(kind)[:24].strip("_") or "block"
        if name[0].isdigit() or name in OPS or name in WORDS or name in ROW_KEYS or keyword.iskeyword(name):
            name = f"block_{name}"
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def _fill(self, block: _Block) -> None:
        """Write the rows of a block; what its instances differ in becomes attributes."""
        instances = block.instances
        inputs = [self._input_channels(item) for item in instances]
        numbered = all(_is_number(inner.name) for inner in instances[0].items) and all(
            self._chained(item) for item in instances
        )
        for i, first in enumerate(instances[0].items):
            inner = [item.items[i] for item in instances]
            row: Json = {} if numbered else {"name": _row_name(first.name)}
            if first.layer:
                row["op"] = first.layer.op
                for key in dict.fromkeys(key for it in inner if it.layer for key in it.layer.fields):
                    values = [it.layer.fields.get(key, _default(first.layer.op, key)) for it in inner if it.layer]
                    row[key] = self._expressed(block, key, row.get("name", str(i)), values, inputs)
                    if row[key] == _default(first.layer.op, key):
                        del row[key]
            else:
                used, _ = self._of[first]
                row["op"] = used.name
                for key, default in used.defaults.items():
                    values = [used.attributes[key][self._of[it][1]] for it in inner]
                    if any(value != default for value in values):
                        row[key] = self._expressed(block, key, row.get("name", str(i)), values, inputs)
            if (names := self._from(instances[0], i, self._reads(instances[0], first))) is not None:
                row["from"] = names if len(names) > 1 else names[0]
            block.rows.append(row)

    def _expressed(self, block: _Block, key: str, name: str, values: list[Any], inputs: list[int]) -> Any:
        """Return the value of a row's key: the one that all instances have, or an expression."""
        whole = all(type(v) is int for v in values)
        by_input = key in ("out_channels", "out_features", "groups") and whole and len(set(inputs)) > 1
        if by_input and key == "groups" and values == inputs:
            return "in_channels"
        if all(v == values[0] and type(v) is type(values[0]) for v in values):
            return values[0]
        if whole and key in ("out_channels", "out_features", "groups"):
            for attribute, known in block.attributes.items():
                for factor in (1, 2, 3, 4, 6):
                    if known and all(type(k) is int and v == factor * k for v, k in zip(values, known, strict=True)):
                        return attribute if factor == 1 else f"{factor} * {attribute}"
        for factor in (1, 2, 3, 4, 6) if by_input else ():
            if all(v == factor * n for v, n in zip(values, inputs, strict=True)):
                return "in_channels" if factor == 1 else f"{factor} * in_channels"
        for attribute, known in block.attributes.items():
            if known == values and [type(v) for v in known] == [type(v) for v in values]:
                return attribute
        longer = f"{key}_{name}" if _is_number(name) else f"{name}_{key}"
        attribute = key if key not in block.attributes else longer
        while attribute in block.attributes or attribute in WORDS or attribute in KNOWN or attribute in OPS:
            attribute += "_"
        block.attributes[attribute] = values
        return attribute

    def _input_channels(self, item: Item) -> int:
        (read,) = item.inputs
        return self._channels[read] if read else 0

    def _chained(self, item: Item) -> bool:
        """Return whether each item reads the one before, and the first the input."""
        return all(self._reads(item, inner) == [i - 1 if i else "input"] for i, inner in enumerate(item.items))

    def _reads(self, item: Item, inner: Item) -> list[Any]:
        position = {layer: i for i, one in enumerate(item.items) for layer in one.layers}
        found = inner.layer.reads if inner.layer else inner.inputs
        return [position.get(r, "input") if r else "input" for r in found]

    def _from(self, item: Item, i: int, reads: list[Any]) -> list[str] | None:
        """Return the names that a row reads; None where it reads the row above."""
        if reads == [i - 1 if i else "input"]:
            return None
        return ["input" if r == "input" else _row_name(item.items[r].name) for r in reads]

    # --- rows of the network ---

    def _rows(self, root: Item, named: dict[str, Layer]) -> list[Json]:
        rows: list[Json] = []
        outputs: dict[Layer, str] = {}
        taken: set[str] = set()
        last: Layer | None = None

        def unique(name: str) -> str:
            name = _row_name(name)
            found, number = name, 1
            while found in taken:
                number += 1
                found = f"{name[:28]}_{number}"
            taken.add(found)
            return found

        def add(item: Item, name: str) -> None:
            nonlocal last
            if item.layer is None and item not in self._of:
                if (repeated := self._repeated(item)) is not None:
                    name = unique(name)
                    rows.append({"name": name, **repeated, **source(item.inputs)})
                    for i, inner in enumerate(item.items):
                        self._register(inner, f"{name}.{i}", named)
                    outputs[item.output] = name
                    last = item.output
                    return
                for inner in item.items:
                    add(inner, f"{name}_{inner.name}")
                return
            name = unique(name)
            if item.layer:
                row = {"name": name, "op": item.layer.op, **item.layer.fields, **source(item.layer.reads)}
                named[name] = item.layer
            else:
                block, i = self._of[item]
                row = {"name": name, "op": block.name, **block.given(i), **source(item.inputs)}
                self._register(item, name, named)
            rows.append(row)
            outputs[item.output] = name
            last = item.output

        def source(reads: list[Layer | None]) -> Json:
            if len(reads) == 1 and reads[0] is last:
                return {}
            names = [outputs[r] if r else "input" for r in reads]
            return {"from": names if len(names) > 1 else names[0]}

        for item in root.items:
            add(item, item.name)
        return rows

    def _repeated(self, item: Item) -> Json | None:
        """Return a row with `repeat` for a sequence of uses of a block; None if it is none."""
        if not item.items or not all(inner in self._of for inner in item.items) or not self._chained(item):
            return None
        if not all(_is_number(inner.name) for inner in item.items):
            return None
        start = int(item.items[0].name)
        if [int(inner.name) for inner in item.items] != list(range(start, start + len(item.items))):
            return None
        uses = [(self._of[inner][0], self._of[inner][0].given(self._of[inner][1])) for inner in item.items]
        rest, (head, given) = uses[-1], uses[0]
        if any(use != rest for use in uses[1:]) or len(uses) < 2:
            return None
        row: Json = {"op": rest[0].name, **rest[1], "repeat": len(uses)}
        if head is rest[0]:
            given = {**{key: value for key, value in head.defaults.items() if key in rest[1]}, **given}
            first = {key: value for key, value in given.items() if value != rest[1].get(key)}
        else:
            first = {"op": head.name, **given}
        return {**row, "first": first} if first else row

    def _register(self, item: Item, path: str, named: dict[str, Layer]) -> None:
        """Note the layers of a use of a block by their names."""
        numbered = all(_is_number(inner.name) for inner in item.items) and self._chained(item)
        for i, inner in enumerate(item.items):
            name = f"{path}.{i if numbered else _row_name(inner.name)}"
            if inner.layer:
                named[name] = inner.layer
            else:
                self._register(inner, name, named)


def _default(op: str, key: str) -> Any:
    """Return the default of an op's attribute, as a spec has it."""
    value = OPS[op].model_fields[key].default
    if isinstance(value, tuple):
        value = value[0][0] if isinstance(value[0], tuple) else value[0] if value[0] == value[1] else list(value)
    return value


def _channels(layer: Layer) -> int:
    return layer.shape[-1] if len(layer.shape) == 2 else layer.shape[0]


def _is_number(name: str) -> bool:
    return name.isdigit()


def snake_case(text: str) -> str:
    """Return `basic_block` of `BasicBlock`: small letters, digits and underscores."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text).lower()
    return re.sub(r"[^a-z0-9_]+", "_", name).strip("_")


def _row_name(name: str) -> str:
    """Return a name that a row may have: letters, digits and underscores, no word of Python or of torch.nn.Module."""
    found = re.sub(r"\W", "_", name)
    found = found if found[:1].isalpha() else f"layer_{found}"
    found = found if len(found) <= 32 else found[:14] + "__" + found[-16:]
    return f"{found}_" if keyword.iskeyword(found) or found in TORCH_ATTRIBUTES or found == "input" else found


def _depth(item: Item) -> int:
    return 0 if item.layer or not item.items else 1 + max(map(_depth, item.items))


def _inside(item: Item) -> Iterator[Item]:
    """Yield an item and all in it."""
    yield item
    for inner in item.items:
        yield from _inside(inner)
