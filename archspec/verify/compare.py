"""What the targets gave, held against each other and against the spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archspec import weights as canonical
from archspec.emit import flattened_maps
from archspec.graph import Graph, Node
from archspec.inits import Distribution
from archspec.ops.base import times
from archspec.verify import statistics
from archspec.verify.arrays import Layout, distance, looks_like
from archspec.verify.data import STEP, Data, rates
from archspec.verify.evidence import BOUNDS, CAPS, DERIVATIVE, SIGMAS, STATE_CAP, Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

Found = Mapping[Any, Any]  # what one target gave: see run._Run
NAN = float("nan")
ROUNDING = 2e-14  # of a loss in float64, relative: a hundred roundings


def compare(
    graph: Graph,
    found: Mapping[str, Found],
    data: Data,
    directions: list[tuple[canonical.Weights, NDArray[np.float32]]],
) -> Iterator[Comparison]:
    """Yield every comparison of what the targets found, in the order of the checks and of the layers."""
    judge = _Judge(graph, found, data)
    yield from judge.structure()
    yield from judge.forward()
    yield from judge.gradients(directions)
    yield from judge.dropout()
    yield from judge.training()
    yield from judge.init()


def fits(graph: Graph, target: str, structure: Mapping[str, Any]) -> bool:
    """Return whether the canonical weights fit into the parameters that a target has."""
    layout = Layout(target, {})
    wanted = {f"{n.name}.{k}": list(layout.weight_shape(s)) for n in graph.nodes for k, s in n.weights.items()}
    return bool(wanted == structure["parameters"])


class _Judge:
    def __init__(self, graph: Graph, found: Mapping[str, Found], data: Data) -> None:
        self._graph, self._found, self._data = graph, found, data
        self._turned = flattened_maps(graph)
        self._layouts = {target: Layout(target, self._turned) for target in found}
        self._magnitudes: dict[Any, float] = {}
        self._parameters = [(node, kind) for node in graph.nodes for kind in node.weights]

    # --- structure ---

    def structure(self) -> Iterator[Comparison]:
        """Every parameter's and every output's shape, against the graph's own."""
        for target, found in self._found.items():
            if "structure" not in found:
                continue
            layout, given = self._layouts[target], found["structure"]

            def of(node: Node, what: str, fault: str = "", target: str = target) -> Comparison:
                return Comparison("structure", node.name, what, target, "", NAN if fault else 0.0, 0.0, fault)

            extra = dict(given["parameters"])
            stopped = False
            for node in self._graph.nodes:
                for kind, shape in node.weights.items():
                    name = f"{node.name}.{kind}"
                    has = extra.pop(name, None)
                    want = list(layout.weight_shape(shape))
                    if has != want:
                        fault = "is missing" if has is None else f"is {_text(has)}, and should be {_text(want)}"
                        yield of(node, kind, fault)
                    else:
                        yield of(node, kind)
                has, want = given["outputs"].get(node.name), [2, *layout.output_shape(node.output_shape)]
                if has is None and stopped:
                    continue
                if has is None:
                    stopped = bool(given["fault"])
                    yield of(node, "output", given["fault"] or "is missing")
                elif has != want:
                    yield of(node, "output", f"is {_text(has[1:])} a sample, and should be {_text(want[1:])}")
                else:
                    yield of(node, "output")
            for name, shape in extra.items():
                fault = f"there is a parameter {name}, {_text(shape)}, that the spec does not have"
                yield Comparison("structure", "", name, target, "", NAN, 0.0, fault)

    # --- forward ---

    def forward(self) -> Iterator[Comparison]:
        """Every layer's output against the first target's."""
        for dtype in ("float64", "float32"):
            able = [t for t, found in self._found.items() if ("forward", dtype) in found]
            for target in able[1:]:
                for node in self._graph.nodes:
                    yield self._output(node, able[0], target, dtype)

    def _value(self, target: str, dtype: str, node: Node) -> Array | None:
        if node is self._graph.input:
            return None
        array = self._found[target].get(("forward", dtype), {}).get(node.name)
        return None if array is None else self._layouts[target].output(array, node)

    def _output(self, node: Node, reference: str, target: str, dtype: str) -> Comparison:
        a, b = self._value(reference, dtype, node), self._value(target, dtype, node)
        fault = self._found[target]["forward fault", dtype] if b is None else ""
        if a is not None and a.shape[1:] != node.output_shape:
            fault = f"of {reference} is {_text(a.shape[1:])} a sample, the spec's {_text(node.output_shape)}"
        read = self._value(reference, dtype, node.inputs[0])

        def own(of: str) -> tuple[Array | None, Array | None]:
            return self._value(of, "float64", node), self._value(of, "float32", node)

        return self._tensor("forward", node, "output", (reference, target), dtype, a, b, own, fault, read)

    # --- gradients ---

    def gradients(self, directions: list[tuple[canonical.Weights, NDArray[np.float32]]]) -> Iterator[Comparison]:
        """The gradients against the first target's, and each target's against central differences."""
        yield from self._gradients("gradients", ("float64", "float32"), lambda dtype: ("gradients", dtype))
        for target, found in self._found.items():
            if ("gradients answer", "float64") in found and directions:
                yield from self._derivatives(target, found, directions)

    def _gradients(self, check: str, dtypes: tuple[str, ...], key: Any) -> Iterator[Comparison]:
        for dtype in dtypes:
            able = [t for t, found in self._found.items() if key(dtype) in found]
            for target in able[1:]:
                pair = (able[0], target)
                yield self._losses(check, pair, dtype, key)

                def value(of: str, dtype: str, node: Node, kind: str) -> Array | None:
                    arrays = self._found[of].get(key(dtype), {})
                    name = f"{node.name}.{kind}" if kind else "input"
                    if name not in arrays:
                        return None
                    layout = self._layouts[of]
                    return layout.weight(arrays[name], node) if kind else layout.output(arrays[name], node)

                for node, kind in (*self._parameters, (self._graph.input, "")):

                    def own(of: str, node: Node = node, kind: str = kind) -> tuple[Array | None, Array | None]:
                        return value(of, "float64", node, kind), value(of, "float32", node, kind)

                    a, b = (value(of, dtype, node, kind) for of in pair)
                    among = self._largest(able[0], key(dtype), "")
                    what = f"{kind} gradient".strip()
                    yield self._tensor(check, node, what, pair, dtype, a, b, own, among=among)

    def _largest(self, of: str, key: Any, state: str) -> float:
        """Return the largest magnitude in what a target gave for all weights, of gradients or of one state."""
        if (of, key, state) not in self._magnitudes:
            arrays = self._found[of].get(key, {})
            names = [f"{state}{node.name}.{kind}" for node, kind in self._parameters]
            found = [float(abs(arrays[name]).max()) for name in names if name in arrays]
            self._magnitudes[of, key, state] = max(found, default=0.0)
        return self._magnitudes[of, key, state]

    def _losses(self, check: str, pair: tuple[str, str], dtype: str, key: Any) -> Comparison:
        """Return the comparison of the losses that the gradients are of."""
        import numpy as np

        word = "masked answer" if key(dtype) == "masked" else "gradients answer"

        def value(of: str, dtype: str) -> Array | None:
            answer = self._found[of].get((word, dtype))
            return None if answer is None else np.asarray([answer["loss"]])

        a, b = value(pair[0], dtype), value(pair[1], dtype)
        return self._tensor(
            check, None, "loss", pair, dtype, a, b, lambda of: (value(of, "float64"), value(of, "float32"))
        )

    def _derivatives(
        self, target: str, found: Found, directions: list[tuple[canonical.Weights, NDArray[np.float32]]]
    ) -> Iterator[Comparison]:
        import numpy as np

        arrays, moved = found["gradients", "float64"], found["gradients answer", "float64"]["moved"]
        layout = self._layouts[target]
        slopes: list[list[float]] = [[] for _ in directions]
        for node, kind in (*self._parameters, (self._graph.input, "")):
            name = f"{node.name}.{kind}" if kind else "input"
            if name not in arrays:
                continue
            gradient = layout.weight(arrays[name], node) if kind else layout.output(arrays[name], node)
            for slope, (weights, inputs) in zip(slopes, directions, strict=True):
                along = weights[name] if kind else inputs
                slope.append(float(np.vdot(gradient, along.astype(np.float64))))
        worst, fault = 0.0, ""
        largest = float(abs(arrays["scores"]).max())
        for slope, (ahead, behind) in zip(slopes, moved, strict=True):
            length = float(np.sqrt(np.sum(np.square(slope))))
            central = (ahead - behind) / (2 * STEP)
            rounding = ROUNDING * max(abs(ahead), largest) / STEP  # of the two losses, and of the scores below them
            apart = max(0.0, abs(central - sum(slope)) - rounding)
            if not np.isfinite(central):
                fault = "is not finite"
            elif length:
                worst = max(worst, apart / length)
            elif apart:
                fault = f"is {central:.2g} along a direction in which the gradients say 0"
        yield Comparison("gradients", "", "central difference", target, "float64", worst, DERIVATIVE, fault)

    # --- dropout ---

    def dropout(self) -> Iterator[Comparison]:
        """With given draws, scores and gradients against the first target's; with its own, rate and scale."""
        able = [target for target, found in self._found.items() if "masked" in found]
        drops = [node for node in self._graph.nodes if node.op.op == "dropout"]
        for target in able:
            undrawn = self._found[target]["masked answer", "float64"]["undrawn"]
            for node in drops:
                if node.name in undrawn and node.op.p:  # type: ignore[union-attr]
                    fault = "drops nothing in training"
                    yield Comparison("dropout", node.name, "draw", target, "float64", NAN, 0.0, fault)
        for target, found in self._found.items():
            for node in drops if "dropout" in found else ():
                yield from self._own_draws(target, node)
        for target in able[1:]:
            pair = (able[0], target)

            def scores(of: str) -> tuple[Array | None, Array | None]:
                return self._layouts[of].output(self._found[of]["masked"]["scores"], self._graph.output), None

            a, b = scores(pair[0])[0], scores(pair[1])[0]
            yield self._tensor("dropout", self._graph.output, "output with draws", pair, "float64", a, b, scores)
        yield from self._gradients("dropout", ("float64",), lambda dtype: "masked")

    def _own_draws(self, target: str, node: Node) -> Iterator[Comparison]:
        arrays = self._found[target]["dropout"]
        kinds = [f"{node.name}.{mode}.{end}" for mode in ("training", "evaluation") for end in ("in", "out")]
        if any(name not in arrays for name in kinds):
            yield Comparison("dropout", node.name, "draw", target, "float32", NAN, SIGMAS, "is missing")
            return
        given, taken, before, after = (arrays[name] for name in kinds)
        sigmas, fault = statistics.drops(given, taken, node.op.p)  # type: ignore[union-attr]
        blind = fault.startswith("reads zeros")
        fault = "" if blind else fault
        value = NAN if fault else sigmas
        yield Comparison("dropout", node.name, "rate of drops", target, "float32", value, SIGMAS, fault, blind)
        fault = "" if (before == after).all() else "alters what it reads in evaluation"
        yield Comparison("dropout", node.name, "evaluation", target, "float32", NAN if fault else 0.0, 0.0, fault)

    # --- training ---

    def training(self) -> Iterator[Comparison]:
        """Rates against the recipe's; every step's loss, and the weights and states at the end, against the first's."""
        want = rates(self._data.recipe, self._data.epochs)
        for target, found in self._found.items():
            for dtype in ("float64", "float32"):
                if ("training answer", dtype) not in found:
                    continue
                bound = 1e-12 if dtype == "float64" else 1e-6
                has, full = found["training answer", dtype]["rates"], self._data.recipe.optimizer.lr
                apart = [abs(g - w) / full for g, w in zip(has, want, strict=True)]
                at = next((i for i, far in enumerate(apart) if not far <= bound), None)
                fault = "" if at is None else f"is {has[at]:.3g} in step {at + 1}, and should be {want[at]:.3g}"
                value = max(apart, default=0.0)
                yield Comparison("training", "", "learning rate", target, dtype, value, bound, fault)
        for target, found in self._found.items():
            if not found.get(("training answer", "float64"), {}).get("drops", True):
                fault = "takes its steps in evaluation mode: nothing is dropped"
                yield Comparison("training", "", "mode", target, "float64", NAN, 0.0, fault)
        for dtype in ("float64", "float32"):
            able = [t for t, found in self._found.items() if ("training", dtype) in found]
            for target in able[1:]:
                yield from self._trained(able[0], target, dtype)

    def _trained(self, reference: str, target: str, dtype: str) -> Iterator[Comparison]:
        import numpy as np

        pair = (reference, target)

        def losses(of: str, dtype: str) -> Array | None:
            answer = self._found[of].get(("training answer", dtype))
            return None if answer is None else np.asarray(answer["losses"])

        a, b = losses(reference, dtype), losses(target, dtype)

        def own_losses(of: str) -> tuple[Array | None, Array | None]:
            return losses(of, "float64"), losses(of, "float32")

        loss = self._tensor("training", None, "loss", pair, dtype, a, b, own_losses)
        if not loss.agrees and not loss.fault and a is not None and b is not None:
            step = int(np.argmax(abs(a - b) > loss.bound * abs(a).max())) + 1
            loss = Comparison(
                "training", "", "loss", target, dtype, loss.value, loss.bound, looks=f"from step {step} on"
            )
        yield loss

        def value(of: str, dtype: str, node: Node, kind: str, state: str) -> Array | None:
            arrays = self._found[of].get(("training", dtype), {})
            name = f"{state}{node.name}.{kind}"
            return self._layouts[of].weight(arrays[name], node) if name in arrays else None

        states = [f"state{i}." for i in range(self._data.recipe.optimizer.states)]
        for node, kind in self._parameters:
            for state in ("", *states):

                def own(
                    of: str, node: Node = node, kind: str = kind, state: str = state
                ) -> tuple[Array | None, Array | None]:
                    return value(of, "float64", node, kind, state), value(of, "float32", node, kind, state)

                x, y = (value(of, dtype, node, kind, state) for of in pair)
                what = f"{kind} {'state' if state else 'after'}" + (f" {state[5]}" if len(states) > 1 and state else "")
                among = self._largest(reference, ("training", dtype), state) if state else 0.0
                yield self._tensor("training", node, what, pair, dtype, x, y, own, among=among)

    # --- initialisation ---

    def init(self) -> Iterator[Comparison]:
        """Each target's own initial weights against the spec's rules."""
        import numpy as np

        for target, found in self._found.items():
            if "init" not in found:
                continue
            heads: dict[tuple[float, ...], str] = {}
            for node, kind in self._parameters:
                rule: Distribution = getattr(self._graph.init(node), kind).distribution(node.weights["weight"])
                name = f"{node.name}.{kind}"
                if name not in found["init"]:
                    yield Comparison("init", node.name, kind, target, "float32", NAN, SIGMAS, "is missing")
                    continue
                values = found["init"][name]
                far = statistics.drawn_from(values, rule)
                which = max(far, key=lambda key: far[key])
                fault = ""
                if rule.kind == "constant":
                    odd = values.ravel()[np.argmax(values.ravel() != np.float32(rule.first))]
                    fault = f"has {odd:.6g}, and should be {rule.first:.6g} throughout" if far[which] else ""
                elif values.size >= 4:
                    head = tuple(values.ravel()[:4].tolist())
                    fault = f"starts with the same values as {heads[head]}" if head in heads else ""
                    heads.setdefault(head, name)
                looks = f"its {which}" if far[which] > SIGMAS else ""
                yield Comparison("init", node.name, kind, target, "float32", far[which], SIGMAS, fault, looks=looks)

    # --- one tensor ---

    def _tensor(
        self,
        check: str,
        node: Node | None,
        what: str,
        pair: tuple[str, str],
        dtype: str,
        a: Array | None,
        b: Array | None,
        own: Any,
        fault: str = "",
        read: Array | None = None,
        among: float = 0.0,
    ) -> Comparison:
        """Return the comparison of `b` with `a`; `own` gives a target's float64 and float32.

        `among` is the largest magnitude of its kind: what is less than a millionth of that is compared with the
        millionth. The gradient of a bias before a softmax can be a sum to 0, which is rounding and has no magnitude.
        """
        import numpy as np

        layer = node.name if node and node is not self._graph.input else ""
        bound = BOUNDS[check]

        def result(
            value: float, *, fault: str = "", bound: float = bound, blind: bool = False, looks: str = ""
        ) -> Comparison:
            return Comparison(check, layer, what, pair[1], dtype, value, bound, fault, blind, looks)

        if fault:
            return result(NAN, fault=fault)
        if a is None and b is None and "gradient" in what:
            return result(0.0, blind=True)  # neither target lets anything through to it
        if a is None or b is None:
            return result(NAN, fault="is missing" if b is None else f"is missing in {pair[0]}")
        if a.shape != b.shape:
            return result(NAN, fault=f"is {_text(b.shape)}, the reference {_text(a.shape)}")
        if what != "loss" and (a.dtype != dtype or b.dtype != dtype):
            return result(NAN, fault=f"is computed in {b.dtype}, the reference in {a.dtype}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return result(NAN, fault="is not finite")
        if not a.any() and not b.any():
            if check == "forward" and node is self._graph.output:
                return result(NAN, fault="is all zeros: nothing could be seen")
            return result(0.0, blind=True)
        first = own(pair[0])[0] if dtype == "float32" else None
        scale = max(float(abs(a if first is None else first).max()), 1e-6 * among)
        value = distance(a, b, scale)
        if dtype == "float32":
            far: list[float] = []
            cap = STATE_CAP if "state" in what else CAPS[check]
            for target in pair:
                exact, rounded = own(target)
                if exact is None or rounded is None or exact.shape != rounded.shape:
                    far.append(cap)
                    continue
                far.append(distance(exact, rounded, scale))
                if not far[-1] <= cap:
                    where = f"in float32 is {far[-1]:.1e} from {target}'s own in float64"
                    return result(value, bound=cap, fault=where)
            # a float32's own step for where both are exact by chance
            bound = min(2 * cap, sum(far) * (1 + 1e-6) + bound + 2**-23)
        looks = "" if value <= bound else looks_like(a, b, read)
        return result(value, bound=bound, looks=looks)


def _text(shape: Any) -> str:
    return times(tuple(shape)) if len(shape) else "a number"
