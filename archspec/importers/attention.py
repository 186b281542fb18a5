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
INTERPOLATES = ("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
SAME = ("contiguous", "clone", "alias", "detach", "to", "_to_copy", "dropout")
RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
PARTS = ("unbind", "chunk", "split", "split_with_sizes")
MOVES = (*RESHAPES, *PARTS, "permute", "transpose", "swapaxes", "mT", "select", "getitem")


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
    transposed: bool = False  # the keys before the queries


@dataclass(frozen=True)
class Heads:
    """The outputs of all heads: softmax(q k^T / sqrt(d)) v of views of the graph's nodes.

    q is of the axes (N, heads, L, d), k and v of (N, heads, M, d); N and heads may be one axis.
    """

    q: View
    k: View
    v: View
    num_heads: int
    nodes: frozenset[str]  # from the views' sources, which are none of them, to the node of the outputs


@dataclass(frozen=True)
class Found:
    """What a graph has of attention, by the names of nodes.

    `against` says why an operator is no attention of the language; `views` are tensors that have the values of others.
    """

    whole: dict[str, SelfAttention]  # by each of its nodes
    heads: dict[str, Heads]  # by the node of its outputs
    against: dict[str, str]
    views: dict[str, View]


def find_attention(nodes: list[Node]) -> Found:
    """Return the attention of a graph, and the views that are read there or elsewhere."""
    reader = _Reader(nodes)
    for node in nodes:
        if node["kind"] == "call_function":
            reader.read(node)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in references((node["args"], node["kwargs"])):
            readers.setdefault(name, set()).add(node["name"])

    def is_closed(nodes: frozenset[str], end: str) -> bool:
        computing = {name for name in nodes if not moves(reader.by_name[name])} - {end}
        return not any(readers.get(name, set()) - nodes for name in computing)

    self_attention: dict[str, SelfAttention] = {}
    for one in reader.found:
        if is_closed(one.nodes, one.out_proj["name"]):
            self_attention.update(dict.fromkeys(one.nodes, one))
    closed = {name: heads for name, heads in reader.heads.items() if is_closed(heads.nodes, name)}
    against = dict.fromkeys(reader.heads.keys() - closed.keys(), "attention whose scores other operators read")
    return Found(self_attention, closed, {**reader.against, **against}, reader.views)


def target_of(node: Node) -> str:
    """Return `add` of a node that calls `aten.add_.Tensor`, `getitem` of one that calls that."""
    name = str(node["target"]).removeprefix("aten.").partition(".")[0]
    return name if name.startswith("__") else name.rstrip("_")


def moves(node: Node) -> bool:
    """Return whether a node only moves values."""
    target = target_of(node)
    return target in MOVES or (target in SAME and not _drops(node, target))


def references(value: Any) -> list[str]:
    """Return the names of the nodes in an argument."""
    if isinstance(value, dict):
        return [value["ref"]] if set(value) == {"ref"} else references(list(value.values()))
    return [name for item in value for name in references(item)] if isinstance(value, list | tuple) else []


class _Reader:
    """Follows views through the graph."""

    def __init__(self, nodes: list[Node]) -> None:
        self.by_name = {node["name"]: node for node in nodes}
        self.views: dict[str, View] = {}
        self._parts: dict[str, list[View]] = {}  # of a split
        self._scores: dict[str, _Scores] = {}
        self.heads: dict[str, Heads] = {}
        self.found: list[SelfAttention] = []
        self.against: dict[str, str] = {}

    def read(self, node: Node) -> None:
        """Note what a node is."""
        target = target_of(node)
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
        elif target == "cat":
            self._joined(node)
        elif target == "softmax" and (view := self.views.get(source)):
            # along an axis that is part of one: its output is laid out as the view's source
            self.views[node["name"]] = replace(view, source=node["name"], nodes=frozenset({node["name"]}))
        elif view := self._view_of(source):
            self._view(node, target, view)

    def _joined(self, node: Node) -> None:
        """Note parts of a tensor that are put together again."""
        parts = [self.views.get(name) for name in references(node["args"][0])]
        dim = node["args"][1] % len(node["shape"]) if len(node["args"]) > 1 else 0
        joined = parts[0] if parts else None
        for part in parts[1:]:
            joined = joined and part and joined.followed(dim, part)
        self._note(node, joined)

    def _view_of(self, name: str) -> View | None:
        """Return the view that a node is, of itself if it computes values."""
        shape = self.by_name[name]["shape"] if name in self.by_name else None
        return self.views.get(name) or (whole(name, shape) if shape else None)

    def _note(self, node: Node, view: View | None) -> None:
        if view:
            self.views[node["name"]] = replace(view, nodes=view.nodes | {node["name"]})

    def _linear(self, node: Node) -> None:
        """Note the self-attention that a second linear layer ends."""
        view = self.views.get(_ref(node["args"][0]))
        heads = self.heads.get(view.source) if view else None
        if not view or not heads:
            return
        core, in_proj = self.by_name[view.source], self.by_name[heads.v.source]
        features = self.by_name[_ref(node["args"][1])]["shape"]
        biased = [len(linear["args"]) > 2 and linear["args"][2] is not None for linear in (in_proj, node)]
        tokens = whole(core["name"], (in_proj["shape"][0], in_proj["shape"][1], features[1])).axes
        if (
            _is_self_attention(heads, in_proj)
            and (view.axes, any(view.start), view.factor) == (tokens, False, 1)
            and features[0] == features[1]
            and biased[0] == biased[1]
        ):
            nodes = heads.nodes | view.nodes | {in_proj["name"], node["name"]}
            self.found.append(SelfAttention(in_proj, node, core, heads.num_heads, nodes))

    def _product(self, node: Node) -> None:
        """Read q k^T, or the scores times v."""
        a, b = (_ref(argument) for argument in node["args"][:2])
        q, k = self._view_of(a), self._view_of(b)
        if k and (scores := self._scores.get(a)) and not scores.transposed:
            self._core(node, scores, k)
        elif q and len(q.axes) > 2 and (scores := self._scores.get(b)) and scores.transposed:
            self._core(node, scores, q.permuted([*range(len(q.axes) - 2), len(q.axes) - 1, len(q.axes) - 2]))
        elif q and k and len(q.axes) > 2:
            k = k.permuted([*range(len(k.axes) - 2), len(k.axes) - 1, len(k.axes) - 2])
            self._scores[node["name"]] = _Scores(q, k, 1.0, q.nodes | k.nodes | {node["name"]})

    def _fused(self, node: Node) -> None:
        q, k, v = (self._view_of(_ref(argument)) for argument in node["args"][:3])
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
        elif target in ("transpose", "mT") and scores.normalized and not scores.transposed:
            self._scores[node["name"]] = replace(scores, nodes=nodes, transposed=True)
        elif target in ("softmax", "_softmax") and node["args"][1] in (-1, len(node["shape"]) - 1):
            self._scores[node["name"]] = replace(scores, nodes=nodes, normalized=True)

    def _core(self, node: Node, scores: _Scores, v: View, against: str = "") -> None:
        """Note the heads' outputs: as (N, L, heads x d), as the op gives them."""
        batch, size = self.by_name[v.source]["shape"][0], v.shape[-1]
        heads, length = prod(v.shape[:-2]) // batch, node["shape"][-1 if scores.transposed else -2]
        factor = scores.factor * scores.q.factor * scores.k.factor
        if not scores.normalized:
            against = "attention without a softmax"
        elif not isclose(factor, scores.q.shape[-1] ** -0.5, rel_tol=1e-12) or v.factor != 1:
            against = against or f"attention with a scale of {factor:.6g}, not {scores.q.shape[-1] ** -0.5:.6g}"
        elif not heads or heads * batch != prod(v.shape[:-2]):
            against = "attention of which samples and heads are not the first axes"
        if against:
            self.against[node["name"]] = against
            return
        nodes = (scores.nodes | v.nodes | {node["name"]}) - {scores.q.source, scores.k.source, v.source}
        self.heads[node["name"]] = Heads(scores.q, scores.k, v, heads, nodes)
        view = whole(node["name"], (batch, length, heads * size)).reshaped((batch, length, heads, size))
        moved = view and view.permuted((0, 2, 3, 1) if scores.transposed else (0, 2, 1, 3)).reshaped(node["shape"])
        if moved:
            self.views[node["name"]] = moved

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
        elif target == "slice" and self.by_name[view.source]["kind"] == "placeholder":  # of a parameter
            dim = args[1] % rank if len(args) > 1 else 0
            start = (args[2] or 0) if len(args) > 2 else 0
            start += view.shape[dim] if start < 0 else 0
            if len(args) < 5 or args[4] == 1:
                self._note(node, view.narrowed(dim, start, node["shape"][dim]))
        elif target in INTERPOLATES and tuple(node["shape"]) == view.shape and not args[2]:
            self._note(node, view)  # to its own size
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


def _is_self_attention(heads: Heads, in_proj: Node) -> bool:
    """Return whether q, k and v are the thirds of a linear layer's features, head by head."""
    if in_proj["target"] != "aten.linear.default" or len(in_proj["shape"]) != 3:
        return False
    batch, length, features = in_proj["shape"]
    size = features // 3 // heads.num_heads
    head = (Axis(2, size, heads.num_heads),) if heads.num_heads > 1 else ()
    expected = (Axis(0, 1, batch), *head), (Axis(1, 1, length),), (Axis(2, 1, size),)
    for i, view in enumerate((heads.q, heads.k, heads.v)):
        leading = tuple(axis for axes in view.axes[:-2] for axis in axes)
        if view.source != in_proj["name"] or (leading, *view.axes[-2:]) != expected:
            return False
        if view.start != (0, 0, i * heads.num_heads * size):
            return False
    return bool(features == 3 * heads.num_heads * size)


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
