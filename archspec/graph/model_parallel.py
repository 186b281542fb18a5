"""Channel-wise model parallelism on two ranks, as in figure 2 of Krizhevsky et al. 2012."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

from archspec.graph.graph import Graph, Node, make_node
from archspec.language.ops import Op, Shape
from archspec.language.ops.local_response_norm import LocalResponseNorm
from archspec.language.source import SpecError


class Gather(Op):
    """The concatenated channels of both ranks, on each rank. Not an op of the language: `shard` inserts it.

    `summed`: each rank continues with the result by itself, so its gradient is the sum of both ranks' gradients.
    """

    op: Literal["gather"]
    summed: bool
    in_line: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, int]] = (1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (2 * shapes[0][0], *shapes[0][1:])


class ShardedLocalResponseNorm(LocalResponseNorm):
    """local_response_norm of one rank's channels, which needs the channels next to them from the other rank."""

    op: Literal["sharded_local_response_norm"]  # type: ignore[assignment]


class Transfer(NamedTuple):
    """Elements that both ranks together send for one sample, in the forward and in the backward pass."""

    layer: str  # that receives them
    what: str
    forward: int
    backward: int


def shard(graph: Graph) -> Graph:
    """Return one rank's part of a network: half of each layer's channels, with the gathers that it needs.

    The last layer with parameters is replicated. Raises SpecError where a network has no two equal halves.
    """
    if not graph.spec.is_flat:
        message = "a network of blocks has no model-parallel placement: it is for the layers of a single column"
        raise SpecError([graph.source.error("unsupported-by-target", message, ("blocks",), key=True)])
    made: dict[Node, Node] = {graph.input: graph.input}
    halved: dict[Node, bool] = {graph.input: False}
    gathers: dict[tuple[Node, bool], Node] = {}
    names = {node.name for node in graph.nodes}
    with_kernel = [node for node in graph.nodes if node.kernel]
    nodes: list[Node] = []
    if len(with_kernel) < 2:
        _fail(graph, (*with_kernel, graph.output)[0], "has no layer with parameters before it to split")
    last = with_kernel[-1]

    def add(op: Op, of: Node, *inputs: Node, name: str = "") -> Node:
        nodes.append(make_node(op, inputs, name or of.name, of.loc))
        return nodes[-1]

    def gathered(read: Node, summed: bool) -> Node:
        """Return a layer's output with all channels."""
        if not halved[read]:
            return made[read]
        if (read, summed) not in gathers:
            name = f"both_{read.name}"[:32]
            while name in names:
                name += "_"
            names.add(name)
            op = Gather.model_construct(op="gather", name=name, from_=None, allow={}, summed=summed)
            gathers[read, summed] = add(op, read, made[read], name=name)
        return gathers[read, summed]

    for node in graph.nodes:
        op: Any = node.op
        read = node.inputs[0]
        half = halved[read]
        if node.kernel and node is not last and not half and node.needs_input_grad:
            _fail(graph, node, "reads all channels of a layer with parameters, on both ranks")
        groups = getattr(op, "groups", 1)
        if node.kernel and half and groups > 1 and groups % 2 == 0:
            halves = {"out_channels": op.out_channels // 2, "groups": groups // 2}
            made[node] = add(op.model_copy(update=halves), node, made[read])
        elif node.kernel and groups == 1 and node is not last:
            field = "out_channels" if hasattr(op, "out_channels") else "out_features"
            if getattr(op, field) % 2:
                _fail(graph, node, f"has {field}={getattr(op, field)}, which is not even", field)
            half_op = op.model_copy(update={field: getattr(op, field) // 2})
            made[node] = add(half_op, node, gathered(read, summed=True))
        elif node is last or (op.probabilities and not op.elementwise):
            made[node] = add(op, node, gathered(read, summed=False))
            halved[node] = False
            continue
        elif isinstance(op, LocalResponseNorm):
            if not half or op.norm_region == "within_channel":
                made[node] = add(op, node, made[read])
            elif op.groups % 2 == 0:
                made[node] = add(op.model_copy(update={"groups": op.groups // 2}), node, made[read])
            elif op.size // 2 > made[read].output_shape[0] or op.groups > 1:
                _fail(graph, node, "needs channels beyond the edge of the other rank's", "groups")
            else:
                fields = {**dict(op), "op": "sharded_local_response_norm"}
                made[node] = add(ShardedLocalResponseNorm.model_construct(**fields), node, made[read])
            halved[node] = half
            continue
        elif op.channelwise and len({halved[source] for source in node.inputs}) == 1:
            made[node] = add(op, node, *(made[source] for source in node.inputs))
            halved[node] = half
            continue
        else:
            _fail(graph, node, f"is a {op.op}, which cannot be split by channels")
        halved[node] = True
    gathered(graph.output, summed=False)
    return Graph(graph.spec, graph.source, graph.input, tuple(nodes))


def transfers(part: Graph) -> list[Transfer]:
    """Return the transfers between the ranks, layer by layer, of a graph from `shard`."""
    found = []
    for node in part.nodes:
        op = node.op
        back = node.needs_input_grad
        if isinstance(op, Gather):
            reader = next((n.name for n in part.nodes if node in n.inputs), "the output")
            elements = prod(node.output_shape)
            found.append(Transfer(reader, node.inputs[0].name, elements, elements if op.summed and back else 0))
        elif isinstance(op, ShardedLocalResponseNorm):
            elements = 2 * (op.size // 2) * prod(node.output_shape[1:])
            found.append(Transfer(node.name, f"{op.size // 2} channels at each edge", elements, elements * back))
    return found


def replicated_params(part: Graph) -> list[str]:
    """Return the names of the parameters that both ranks hold completely."""
    last = next(node for node in reversed(part.nodes) if node.kernel)
    return [f"{last.name}.{name}" for name in last.params]


def _fail(graph: Graph, node: Node, message: str, field: str = "op") -> NoReturn:
    field = field if field in graph.source.data["layers"][node.loc[1]] else "op"
    raise SpecError([graph.source.error("unsupported-by-target", f"{node.name} {message}", (*node.loc, field))])
