"""The facts of a network, as tables of values and their text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from archspec import analysis
from archspec.analysis.budget import Cost
from archspec.analysis.claims import Verdict, format_number
from archspec.analysis.conventions import CONVENTIONS, totals
from archspec.analysis.memory import RUNTIME_BYTES, Memory, memory, saved_bytes
from archspec.analysis.receptive_field import ReceptiveField, receptive_fields
from archspec.graph import Graph, Node
from archspec.graph.folding import Folded, Group, folded
from archspec.language.ops.base import Op, format_shape
from archspec.language.spec import Multipliers

if TYPE_CHECKING:
    from archspec.graph.model_parallel import Transfer


@dataclass(frozen=True)
class Facts:
    """The facts of a network, for a batch in a dtype; its table unfolds blocks to `depth`, None being all."""

    graph: Graph
    batch: int = 1
    dtype: str = "float32"
    verdicts: tuple[Verdict, ...] = ()
    transfers: tuple[Transfer, ...] = ()  # of model parallelism on two ranks
    depth: int | None = 0

    @cached_property
    def totals(self) -> analysis.Totals:
        """The costs of the whole network, for one sample in float32."""
        return analysis.totals(self.graph)

    @cached_property
    def items(self) -> list[Folded]:
        """The rows of its table: layers, and blocks that are not unfolded."""
        return folded(self.graph, self.depth)

    @cached_property
    def names(self) -> dict[Node, str]:
        """The name of the row whose output a layer's output is."""
        return {item if isinstance(item, Node) else item.output: item.name for item in self.items}

    @cached_property
    def memory(self) -> Memory:
        """Its memory."""
        return memory(self.graph, self.batch, self.dtype, self.graph.spec.training)

    @cached_property
    def fields(self) -> dict[Node, ReceptiveField]:
        """The receptive field of every layer."""
        return receptive_fields(self.graph)

    @cached_property
    def saved(self) -> dict[Node, int]:
        """The bytes that each layer saves for the backward pass."""
        return saved_bytes(self.graph, self.batch, self.dtype)


class Column(NamedTuple):
    """A column of a network's table: its head, its value for a layer, and how to format that."""

    head: str
    value: Callable[[Facts, Node], Any]
    show: Callable[[Any], str]
    description: str

    @property
    def is_number(self) -> bool:
        """Whether it is aligned to the right."""
        return self.show in (_count, _share)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _share(share: float) -> str:
    return f"{share:.1%}" if share else ""


def _shape(shape: list[int] | None) -> str:
    return format_shape(tuple(shape)) if shape else ""


_MANY = 4  # more in a cell are counted


def _shapes(shapes: list[list[int]]) -> str:
    return _words([_shape(shape) for shape in shapes[:_MANY]] + [""] * (len(shapes) - _MANY))


def _words(words: list[str]) -> str:
    more = f" and {len(words) - _MANY:,} more" if len(words) > _MANY else ""
    return ", ".join(words[:_MANY]) + more


def _params(node: Node, *, biases: bool) -> int:
    """Return the number of trainable parameters that are biases, or that are not."""
    return sum(prod(p.shape) for p in node.params.values() if p.trainable and (p.role in ("bias", "shift")) == biases)


def _multiplied(facts: Facts, node: Node) -> list[str]:
    rates = facts.graph.spec.multipliers or Multipliers()
    return [
        f"{name} lr {rate.lr:g} decay {rate.decay:g}"
        for name in node.trainable
        if (rate := rates.of(node.params[name].role)) != type(rate)()
    ]


def _rules(facts: Facts, node: Node) -> list[str]:
    return [f"{name} {_rule(facts.graph.initializer(node, name))}" for name in node.trainable]


def _rule(rule: Any) -> str:
    fields = [f for f, i in type(rule).model_fields.items() if f != "rule" and getattr(rule, f) != i.default]
    return " ".join([rule.rule, *(f"{field} {_value(getattr(rule, field))}" for field in fields)])


COLUMNS: dict[str, Column] = {
    "name": Column("layer", lambda f, n: n.name, str, "layer name"),
    "op": Column("op", lambda f, n: n.op.op, str, "op name"),
    "attributes": Column(
        "attributes",
        lambda f, n: attributes(n.op),
        str,
        "attributes that are not at their default",
    ),
    "inputs": Column("reads", lambda f, n: [read.name for read in n.inputs], _words, "the layers that it reads"),
    "input_shapes": Column("input", lambda f, n: [list(s) for s in n.input_shapes], _shapes, "C x H x W, L x D, or F"),
    "output_shape": Column("output", lambda f, n: list(n.output_shape), _shape, "C x H x W, L x D, or F"),
    "weights": Column("weights", lambda f, n: _params(n, biases=False), _count, "without biases"),
    "biases": Column("biases", lambda f, n: _params(n, biases=True), _count, "biases"),
    "params": Column("parameters", lambda f, n: analysis.params(n), _count, "trainable parameters"),
    "params_share": Column(
        "share", lambda f, n: analysis.params(n) / max(1, f.totals.params), _share, "share of all parameters"
    ),
    "macs": Column("MACs", lambda f, n: n.macs, _count, "multiply-accumulates, one sample"),
    "macs_share": Column("share of MACs", lambda f, n: n.macs / max(1, f.totals.macs), _share, "share of all MACs"),
    "flops": Column("FLOPs", lambda f, n: 2 * n.macs, _count, "2 x MACs"),
    "neurons": Column("neurons", lambda f, n: analysis.neurons(n), _count, "outputs of convolutions and linear layers"),
    "receptive_field": Column(
        "receptive field",
        lambda f, n: list(f.fields[n].size or ()) or "all",
        lambda size: size if isinstance(size, str) else _shape(size),
        "rows x columns of the input, padding included; or all of it",
    ),
    "effective_stride": Column(
        "effective stride",
        lambda f, n: [int(s) if s == int(s) else float(s) for s in f.fields[n].stride or ()] or None,
        lambda strides: " x ".join(f"{stride:g}" for stride in strides or ()),
        "rows x columns of the input between neighbouring fields",
    ),
    "activation_bytes": Column(
        "activations",
        lambda f, n: analysis.activation_bytes(n, f.batch, f.dtype),
        _count,
        "bytes of its output, views excluded",
    ),
    "saved_bytes": Column("saved", lambda f, n: f.saved[n], _count, "bytes saved for the backward pass"),
    "param_bytes": Column(
        "param bytes",
        lambda f, n: analysis.params(n) * f.memory.params // max(1, f.totals.params),
        _count,
        "bytes of its parameters",
    ),
    "init": Column("init", _rules, _words, "initializers of its weights and biases"),
    "multipliers": Column("multipliers", _multiplied, _words, "of learning rate and weight decay, where not 1"),
    **{
        name: Column(name, lambda f, n, c=convention: c.count(n), _count, f"{convention.unit}: {convention.says}")  # type: ignore[misc]
        for name, convention in CONVENTIONS.items()
    },
}
DEFAULT = (
    "name op attributes input_shapes output_shape weights biases params params_share macs".split()
)  # of `check`, as in a paper's table


class Table(NamedTuple):
    """Values, and their text; the columns in `right` are numbers."""

    title: str
    keys: list[str]
    heads: list[str]
    values: list[list[Any]]
    words: list[list[str]]
    right: frozenset[int]


_OF_GROUPS: dict[str, Callable[[Facts, Group], Any]] = {
    "name": lambda f, g: g.name,
    "op": lambda f, g: g.op,
    "attributes": lambda f, g: g.attributes,
    "input_shapes": lambda f, g: [list(read.output_shape) for read in g.inputs],
    "init": lambda f, g: [],
    "multipliers": lambda f, g: [],
}


def _cell(facts: Facts, key: str, item: Folded) -> Any:
    """Return the value of a row: of a group the sum of its layers', or that of its output."""
    column = COLUMNS[key]
    if key == "inputs":
        return [facts.names.get(read, read.name) for read in item.inputs]
    if isinstance(item, Node):
        return column.value(facts, item)
    if key in _OF_GROUPS:
        return _OF_GROUPS[key](facts, item)
    if column.is_number:
        return sum(column.value(facts, node) for node in item.nodes)
    return column.value(facts, item.output)


def layers_table(facts: Facts, columns: Iterable[str] = DEFAULT, most: int | None = None) -> Table:
    """Return one row per layer or block, `most` of them, in the given columns of COLUMNS."""
    keys = list(columns)
    chosen = [COLUMNS[key] for key in keys]
    values = [[_cell(facts, key, item) for key in keys] for item in facts.items[:most]]
    words = [[column.show(value) for column, value in zip(chosen, row, strict=True)] for row in values]
    right = frozenset(i for i, column in enumerate(chosen) if column.is_number)
    return Table("Layers", keys, [column.head for column in chosen], values, words, right)


def totals_table(facts: Facts) -> Table:
    """Return the totals of the network, and what each of them counts."""
    total = facts.totals
    rows = [
        ["parameters", total.params, f"{mib(total.param_bytes)} in float32"],
        ["MACs", total.macs, "multiply-accumulates, one sample, without bias adds"],
        ["FLOPs", total.flops, "2 x MACs"],
        ["neurons", total.neurons, "outputs of convolutions and linear layers"],
        [
            "activations",
            total.activation_bytes,
            f"bytes: every layer's output, one sample in float32, {mib(total.activation_bytes)}",
        ],
    ]
    return _counted("Totals", ["total", "count", "what"], rows)


def memory_table(facts: Facts) -> Table:
    """Return the memory of the network, in bytes."""
    m = facts.memory
    recipe = facts.graph.spec.training
    optimizer = recipe.optimizer.optimizer if recipe else "SGD with momentum"
    rows: list[list[Any]] = [
        ["parameters", m.params, mib(m.params)],
        ["gradients", m.gradients, "of the parameters"],
        ["optimizer", m.optimizer, f"states of {optimizer}"],
        ["input", m.input, "the batch"],
        ["activations", m.activations, "every layer's output"],
        ["saved", m.saved, "for the backward pass: activations and other tensors"],
        ["peak, inference", m.peak_inference, f"{mib(m.peak_inference)}: activations freed after their last use"],
        [
            "peak, training",
            m.peak_training,
            f"{mib(m.peak_training)} in a step, without the {mib(RUNTIME_BYTES)} of PyTorch's libraries",
        ],
    ]
    return _counted(f"Memory, batch {m.batch} in {m.dtype}", ["memory", "bytes", "what"], rows)


def claims_table(facts: Facts) -> Table:
    """Return the claims: a tick for a true one, a cross for a false one, `disputed` for one known to be wrong."""
    rows, words = [], []
    for verdict in facts.verdicts:
        claim = verdict.claim
        says = ", ".join(word for word in (claim.says, claim.where) if word)
        state = "false" if not verdict.holds else "disputed" if claim.disputed else "true"
        rows.append([state, verdict.what, verdict.claimed, verdict.computed, says, claim.disputed or ""])
        mark = {"false": "\u2717", "disputed": "disputed", "true": "\u2713"}[state]
        words.append(
            [
                mark,
                verdict.what,
                format_number(verdict.claimed),
                format_number(verdict.computed),
                says,
                claim.disputed or "",
            ]
        )
    keys = ["verdict", "claim", "claimed", "computed", "source", "disputed"]
    return Table("Claims", keys, ["", "claim", "claimed", "computed", "source", "but"], rows, words, frozenset((2, 3)))


def conventions_table(facts: Facts) -> Table:
    """Return the network's total in every counting convention."""
    found = totals(facts.graph)
    rows = [[c.name, found[c.name], c.unit, c.says] for c in CONVENTIONS.values()]
    return _counted("Conventions", ["convention", "count", "unit", "what"], rows)


def transfers_table(facts: Facts) -> Table:
    """Return the bytes a batch that both ranks together send, in the forward and in the backward pass."""
    size = facts.batch * analysis.DTYPES[facts.dtype]
    rows: list[list[Any]] = [[one.layer, size * one.forward, size * one.backward, one.what] for one in facts.transfers]
    if rows:
        rows.append(["all", sum(row[1] for row in rows), sum(row[2] for row in rows), ""])
    words = [[layer, f"{forward:,}", f"{backward:,}", what] for layer, forward, backward, what in rows]
    heads = ["at", "bytes forward", "bytes backward", "what"]
    title = f"Transfers between two ranks, batch {facts.batch} in {facts.dtype}"
    return Table(title, ["layer", "forward", "backward", "what"], heads, rows, words, frozenset((1, 2)))


def _counted(title: str, heads: list[str], rows: list[list[Any]]) -> Table:
    """Return a table whose second column is a count."""
    words = [[name, f"{number:,}", *rest] for name, number, *rest in rows]
    return Table(title, heads, heads, rows, words, frozenset((1,)))


def tables(facts: Facts, columns: Iterable[str] | None = None) -> list[Table]:
    """Return the tables of a report; by default with the columns of `default_columns`."""
    names = default_columns(facts) if columns is None else columns
    found = [
        layers_table(facts, names),
        totals_table(facts),
        memory_table(facts),
        transfers_table(facts),
        claims_table(facts),
    ]
    return [table for table in found if table.values]


def default_columns(facts: Facts) -> list[str]:
    """Return DEFAULT, with the inputs of each row if a row does not read the one above it."""
    above = [facts.graph.input, *facts.names]
    if all(item.inputs == (before,) for before, item in zip(above, facts.items, strict=False)):
        return list(DEFAULT)
    at = DEFAULT.index("input_shapes")
    return [*DEFAULT[:at], "inputs", *DEFAULT[at:]]


def as_data(facts: Facts, columns: Iterable[str] = tuple(COLUMNS)) -> dict[str, Any]:
    """Return a report as data: shapes are [C, H, W] or [F], everything raw."""
    graph = facts.graph
    facts = replace(facts, depth=None)
    table, between = layers_table(facts, columns), transfers_table(facts)
    return {
        "name": graph.name,
        "path": graph.source.path,
        "source": graph.spec.source,
        "input_shape": list(graph.input.output_shape),
        "layers": [dict(zip(table.keys, row, strict=True)) for row in table.values],
        "totals": asdict(facts.totals),
        "memory": asdict(facts.memory),
        "claims": [claim_facts(verdict) for verdict in facts.verdicts],
        "conventions": totals(graph),
        **(
            {"transfers": [dict(zip(between.keys, row, strict=True)) for row in between.values]}
            if between.values
            else {}
        ),
    }


def claim_facts(verdict: Verdict) -> dict[str, Any]:
    """Return a claim with its verdict: `true`, `false` or `disputed`; `holds` if that is as the spec says."""
    claim = verdict.claim
    return {
        "layers": claim.layers,
        "subject": claim.subjects[0],
        "times": claim.times,
        "claimed": verdict.claimed,
        "computed": verdict.computed,
        "tolerance": verdict.tolerance,
        "says": claim.says,
        "where": claim.where,
        "disputed": claim.disputed,
        "verdict": "disputed" if claim.disputed else "true" if verdict.is_true else "false",
        "holds": verdict.holds,
    }


def cost_facts(cost: Cost) -> dict[str, Any]:
    """Return what a network costs of a budget, with the share of it that is used."""
    bound = cost.bound
    return {
        "subject": cost.subject,
        "bound": bound.text,
        "limit": bound.limit,
        **({"batch": bound.batch, "dtype": bound.dtype} if cost.is_size else {}),
        "computed": cost.computed,
        "used": cost.computed / bound.limit if bound.limit else None,
        "fits": cost.fits,
        "path": cost.source.path,
    }


def mib(size: int) -> str:
    """Return bytes as MiB."""
    return f"{size / 2**20:,.2f} MiB"


def attributes(op: Any) -> str:
    """Return an op's attributes that are not at their default, e.g. `96, 11 x 11, stride 4`."""
    words = []
    for field, default, required in _fields(type(op)):  # type: ignore[arg-type]
        value = getattr(op, field)
        if not required and value == default:
            continue
        text = format_shape(value) if field == "kernel_size" else _value(value)
        words.append(text if required else f"{field.removesuffix('_mode')} {text}")
    return ", ".join(words)


@cache
def _fields(model: type[Op]) -> list[tuple[str, Any, bool]]:
    """Return an op's own attributes: name, default, and whether it is required."""
    return [
        (name, info.default, info.is_required())
        for name, info in model.model_fields.items()
        if name not in Op.model_fields and name != "init"
    ]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "none"
    if isinstance(value, tuple) and isinstance(value[0], tuple):  # padding by sides
        (top, bottom), (left, right) = value
        if top == bottom and left == right:
            return str(top) if top == left else f"{top} x {left}"
        return f"top {top} bottom {bottom} left {left} right {right}"
    if isinstance(value, tuple):  # height and width
        return str(value[0]) if value[0] == value[1] else format_shape(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
