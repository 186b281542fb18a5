"""Self-attention that a model writes out, recognized among the operators of torch.export.

A linear layer gives q, k and v of all heads; each head has softmax(q k^T / sqrt(d)) v, by scaled_dot_product_attention
or by two products and a softmax; a second linear layer reads the heads side by side. This is
torch.nn.MultiheadAttention where the first layer's rows are those of q, of k and of v, head by head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isclose, prod
from typing import Any

from archspec.importers.views import Axis, View, whole

Node = dict[str, Any]

# Operators that change no value: dropouts are read for their rate.
SAME = ("contiguous", "clone", "alias", "detach", "to", "_to_copy", "dropout")
RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")


@dataclass(frozen=True)
class SelfAttention:
    """Attention between two linear layers, which are nodes of the graph."""

    in_proj: Node
    out_proj: Node
    core: Node  # the operator that gives the heads' outputs
    num_heads: int
    nodes: frozenset[str]


@dataclass(frozen=True)
class _Scores:
    """q k^T times `factor`, or their softmax."""

    q: View
    k: View
    factor: float
    nodes: frozenset[str]
    normalized: bool = False


@dataclass(frozen=True)
class _Heads:
    """The outputs of all heads, or what speaks against multi-head attention."""

    in_proj: Node
    num_heads: int
    nodes: frozenset[str]
    against: str


def find_attention(nodes: list[Node]) -> tuple[list[SelfAttention], dict[str, str]]:
    """Return the attention of a graph, and why others are none, by the node that gives their heads' outputs."""
    reader = _Reader(nodes)
    for node in nodes:
        if node["kind"] == "call_function":
            reader.read(node)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in references((node["args"], node["kwargs"])):
            readers.setdefault(name, set()).add(node["name"])
    found, against = [], dict(reader.against)
    for one in reader.found:
        inner = one.nodes - {one.out_proj["name"]}
        if any(readers.get(name, set()) - one.nodes for name in inner):
            against[one.core["name"]] = "attention of which other operators read q, k, v or the scores"
        else:
            found.append(one)
    return found, against


def references(value: Any) -> list[str]:
    """Return the names of the nodes in an argument."""
    if isinstance(value, dict):
        return [value["ref"]] if set(value) == {"ref"} else references(list(value.values()))
    return [name for item in value for name in references(item)] if isinstance(value, list | tuple) else []


class _Reader:
    """Follows views of linear layers through the graph."""

    def __init__(self, nodes: list[Node]) -> None:
        self._by_name = {node["name"]: node for node in nodes}
        self._views: dict[str, View] = {}
        self._parts: dict[str, list[View]] = {}  # of a split
        self._scores: dict[str, _Scores] = {}
        self._heads: dict[str, _Heads] = {}
        self.found: list[SelfAttention] = []
        self.against: dict[str, str] = {}

    def read(self, node: Node) -> None:
        """Note what a node is."""
        target = node["target"].removeprefix("aten.").partition(".")[0].rstrip("_")
        source = _ref(node["args"][0]) if node["args"] else ""
        if target == "linear":
            self._linear(node)
        elif target in ("matmul", "bmm"):
            self._product(node)
        elif target == "scaled_dot_product_attention":
            self._fused(node)
        elif source in self._scores:
            self._score(node, target, self._scores[source])
        elif target == "getitem" and source in self._parts:
            self._note(node, self._parts[source][node["args"][1]])
        elif source in self._views:
            self._view(node, target, self._views[source])

    def _note(self, node: Node, view: View | None) -> None:
        if view:
            self._views[node["name"]] = replace(view, nodes=view.nodes | {node["name"]})

    def _linear(self, node: Node) -> None:
        view = self._views.get(_ref(node["args"][0]))
        if view and view.source in self._heads:
            self._end(node, view, self._heads[view.source])
        self._note(node, whole(node["name"], node["shape"]))

    def _end(self, node: Node, view: View, heads: _Heads) -> None:
        """Note the attention that a second linear layer ends."""
        core = self._by_name[view.source]
        _, size = self._by_name[_ref(node["args"][1])]["shape"]
        batch, length, features = _leading(core, heads.num_heads)
        biased = [len(linear["args"]) > 2 and linear["args"][2] is not None for linear in (heads.in_proj, node)]
        against = heads.against
        if view.axes != (batch, length, features) or view.factor != 1 or any(view.start):
            against = against or "attention with its heads side by side in another order"
        elif node["shape"][-1] != size:
            against = against or f"attention of {size} features that gives {node['shape'][-1]}"
        elif biased[0] != biased[1]:
            against = against or "attention with a bias of q, k and v or of the output, and not of both"
        if against:
            self.against[core["name"]] = against
        else:
            nodes = heads.nodes | view.nodes | {node["name"]}
            self.found.append(SelfAttention(heads.in_proj, node, core, heads.num_heads, nodes))

    def _product(self, node: Node) -> None:
        """Read q k^T, or the scores times v."""
        a, b = (_ref(argument) for argument in node["args"][:2])
        if a in self._scores and b in self._views:
            self._core(node, self._scores[a], self._views[b])
        elif a in self._views and b in self._views:
            q, k = self._views[a], self._views[b]
            k = k.permuted([*range(len(k.axes) - 2), len(k.axes) - 1, len(k.axes) - 2])
            self._scores[node["name"]] = _Scores(q, k, 1.0, q.nodes | k.nodes | {node["name"]})

    def _fused(self, node: Node) -> None:
        q, k, v = (self._views.get(_ref(argument)) for argument in node["args"][:3])
        if not (q and k and v):
            return
        names = ("attn_mask", "dropout_p", "is_causal")
        options = [*node["args"][3:6], *(node["kwargs"].get(name) for name in names[max(len(node["args"]) - 3, 0) :])]
        scale = node["kwargs"].get("scale") or q.shape[-1] ** -0.5
        scores = _Scores(q, k, scale, q.nodes | k.nodes, normalized=True)
        self._core(node, scores, v, "attention with a mask or a dropout" if any(options) else "")

    def _score(self, node: Node, target: str, scores: _Scores) -> None:
        """Follow scores: a factor, the softmax, and nothing else."""
        nodes, factor = scores.nodes | {node["name"]}, _factor(node, target)
        if target in SAME and not _drops(node, target):
            self._scores[node["name"]] = replace(scores, nodes=nodes)
        elif factor and not scores.normalized:
            self._scores[node["name"]] = replace(scores, nodes=nodes, factor=scores.factor * factor)
        elif target in ("softmax", "_softmax") and node["args"][1] in (-1, len(node["shape"]) - 1):
            self._scores[node["name"]] = replace(scores, nodes=nodes, normalized=True)

    def _core(self, node: Node, scores: _Scores, v: View, against: str = "") -> None:
        """Note the heads' outputs, and compare q, k and v with those of multi-head attention."""
        in_proj = self._by_name[v.source]
        if in_proj["target"] != "aten.linear.default" or len(in_proj["shape"]) != 3:
            self.against[node["name"]] = "attention of what is no linear layer of tokens"
            return
        size = v.shape[-1]
        heads = prod(v.shape[:-2]) // in_proj["shape"][0]
        against = against or _difference(scores, v, in_proj["shape"], heads, size)
        nodes = scores.nodes | v.nodes | {node["name"]}
        self.against[node["name"]] = against or "attention without a linear layer after it"
        self._heads[node["name"]] = _Heads(in_proj, heads, nodes, against)
        self._views[node["name"]] = replace(whole(node["name"], node["shape"]), nodes=frozenset())

    def _view(self, node: Node, target: str, view: View) -> None:
        """Follow a view through an operator that only moves values, or multiplies them by a number."""
        args, rank = node["args"], len(view.axes)
        factor = _factor(node, target)
        if target in SAME and not _drops(node, target):
            self._note(node, view)
        elif factor:
            self._note(node, replace(view, factor=view.factor * factor))
        elif target in RESHAPES:
            self._note(node, view.reshaped(node["shape"]))
        elif target == "permute":
            self._note(node, view.permuted([d % rank for d in args[1]]))
        elif target in ("transpose", "swapaxes"):
            a, b = args[1] % rank, args[2] % rank
            self._note(node, view.permuted([b if i == a else a if i == b else i for i in range(rank)]))
        elif target == "mT":
            self._note(node, view.permuted([*range(rank - 2), rank - 1, rank - 2]))
        elif target == "select":
            self._note(node, view.selected(args[1] % rank, args[2] % view.shape[args[1] % rank]))
        elif target in SPLITS:
            dim = (args[1] if target == "unbind" else args[2]) if len(args) > (1 if target == "unbind" else 2) else 0
            dim %= rank
            sizes = SPLITS[target](view.shape[dim], args[1] if len(args) > 1 else 0)
            parts = view.split(dim, sizes)
            if parts and target == "unbind":
                parts = [replace(part, axes=part.axes[:dim] + part.axes[dim + 1 :]) for part in parts]
            if parts:
                self._parts[node["name"]] = [replace(part, nodes=part.nodes | {node["name"]}) for part in parts]


def _even(size: int, part: int) -> list[int]:
    return [part] * (size // part) + ([size % part] if size % part else [])


SPLITS: Mapping[str, Callable[[int, Any], list[int]]] = {
    "unbind": lambda size, _: [1] * size,
    "chunk": lambda size, count: _even(size, -(-size // count)),
    "split": lambda size, given: _even(size, given) if isinstance(given, int) else list(given),
    "split_with_sizes": lambda size, given: list(given),
}


def _leading(core: Node, heads: int) -> tuple[tuple[Axis, ...], ...]:
    """Return (N, L, heads x d) of the axes of a node (N, heads, L, d) or (N heads, L, d)."""
    shape = core["shape"]
    rank = len(shape)
    length, size = (Axis(rank - 2, 1, shape[-2]),), (Axis(rank - 1, 1, shape[-1]),)
    if rank == 4:
        batch, head = (Axis(0, 1, shape[0]),), (Axis(1, 1, shape[1]),) if heads > 1 else ()
    else:
        batch, head = (Axis(0, heads, shape[0] // heads),), (Axis(0, 1, heads),) if heads > 1 else ()
    return batch, length, head + size


def _difference(scores: _Scores, v: View, shape: list[int], heads: int, size: int) -> str:
    """Return how q, k, v and their scale differ from multi-head attention's, in words."""
    q, k = scores.q, scores.k
    batch, length, features = shape
    if len({q.source, k.source, v.source}) > 1:
        return "attention whose q, k and v are of several layers"
    if not scores.normalized:
        return "attention without a softmax"
    if features != 3 * heads * size:
        return f"attention of {heads} heads of {size} features, of a layer of {features}"
    head = (Axis(2, size, heads),) if heads > 1 else ()
    expected = ((Axis(0, 1, batch), *head), (Axis(1, 1, length),), (Axis(2, 1, size),))
    for i, view in enumerate((q, k, v)):
        leading = tuple(axis for axes in view.axes[:-2] for axis in axes)
        if (leading, *view.axes[-2:]) != expected or view.start != (0, 0, i * heads * size):
            return "attention with q, k and v in another order"
    factor = scores.factor * q.factor * k.factor
    if not isclose(factor, size**-0.5, rel_tol=1e-12) or v.factor != 1:
        return f"attention with a scale of {factor:.6g}, not {size**-0.5:.6g}"
    return ""


def _factor(node: Node, target: str) -> float:
    """Return the number by which an operator multiplies its input; 0 if it does not."""
    if target not in ("mul", "div") or len(node["args"]) < 2 or not isinstance(node["args"][1], int | float):
        return 0.0
    number = float(node["args"][1])
    return number if target == "mul" else 1 / number if number else 0.0


def _drops(node: Node, target: str) -> bool:
    return bool(target == "dropout" and node["args"][1])


def _ref(argument: Any) -> str:
    return str(argument["ref"]) if isinstance(argument, dict) and "ref" in argument else ""
