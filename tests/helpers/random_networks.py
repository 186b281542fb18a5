"""Random networks over the whole language, branches included, for hypothesis to draw and to make small again."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

from hypothesis import strategies as st

import archspec
from archspec.language.ops import OPS, ShapeError
from archspec.language.ops.base import with_channels
from archspec.language.source import Source

Shape = tuple[int, ...]
Draw = Any  # hypothesis.strategies.DrawFn

MOST = 4000  # values in one tensor: small enough for hundreds of networks


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def padding(draw: Draw, kernel: list[int], most: int) -> Any:
    """Draw a padding of at most `most`, and of at most half the window if that is less, in any of its forms."""
    limits = [min(most, k // 2) for k in kernel]
    kind = draw(st.sampled_from(["none", "one", "pair", "sides", "same"]))
    if kind == "none":
        return 0
    if kind == "same":
        return "same"
    if kind == "one":
        return draw(st.integers(0, min(limits)))
    heights, widths = (st.integers(0, limit) for limit in limits)
    if kind == "pair":
        return [draw(heights), draw(widths)]
    sides = {"top": heights, "bottom": heights, "left": widths, "right": widths}
    chosen = draw(st.lists(st.sampled_from(sorted(sides)), min_size=1, max_size=4, unique=True))
    return {side: draw(sides[side]) for side in chosen}


def pair(draw: Draw, least: int, most: int) -> list[int]:
    return [draw(st.integers(least, most)), draw(st.integers(least, most))]


def on_maps(draw: Draw, shape: Shape) -> dict[str, Any]:
    """Draw a layer on feature maps."""
    channels = shape[0]
    op = draw(
        st.sampled_from(
            ["conv2d"] * 3
            + [
                "local_response_norm",
                "max_pool2d",
                "max_pool2d",
                "avg_pool2d",
                "avg_pool2d",
                "adaptive_avg_pool2d",
                "split",
            ]
            + ["relu", "sigmoid", "tanh", "softmax", "dropout", "flatten"]
            + ["batch_norm2d"] * 2
            + [
                "group_norm",
                "relu6",
                "leaky_relu",
                "elu",
                "channel_shuffle",
                "channel_shuffle",
                "pad_channels",
                "zero_pad2d",
            ]
            + ["silu", "hardswish", "hardsigmoid", "mish", "softplus", "gelu"]
            + ["layer_norm", "layer_scale", "stochastic_depth"]
            + ["rescaling"]
            + ["tokens"] * 9
            + ["conv_transpose2d", "upsample", "space_to_depth", "shifted_window_attention"] * 2
        )
    )
    layer: dict[str, Any] = {"op": op}
    if op == "conv2d":
        groups = draw(st.sampled_from(divisors(channels)))
        kernel, stride = pair(draw, 1, 4), pair(draw, 1, 3)
        layer |= {"out_channels": groups * draw(st.integers(1, max(1, 8 // groups))), "groups": groups}
        layer |= {"kernel_size": kernel, "stride": stride, "bias": draw(st.booleans())}
        layer |= {"padding": padding(draw, [8, 8], 3), "dilation": pair(draw, 1, 2) if stride == [1, 1] else 1}
    elif op == "local_response_norm":
        layer |= {"size": draw(st.sampled_from([1, 3, 5, 7])), "alpha": draw(st.sampled_from([1e-4, 0.02, 1.0]))}
        layer |= {"beta": draw(st.sampled_from([0.25, 0.75, 1.5])), "k": draw(st.sampled_from([0.5, 1.0, 2.0]))}
        if draw(st.booleans()):
            layer |= {"groups": draw(st.sampled_from(divisors(channels)))}
        else:
            layer |= {"norm_region": draw(st.sampled_from(["across_channels", "within_channel"]))}
    elif op in ("max_pool2d", "avg_pool2d"):
        kernel = pair(draw, 1, 4)
        layer |= {"kernel_size": kernel, "padding": padding(draw, kernel, 2), "ceil_mode": draw(st.booleans())}
        if draw(st.booleans()):
            layer |= {"stride": pair(draw, 1, 3)}
        if op == "avg_pool2d":
            layer |= {"count_include_pad": draw(st.booleans())}
        elif draw(st.booleans()):
            layer |= {"dilation": pair(draw, 1, 2)}
    elif op == "adaptive_avg_pool2d":
        layer |= {"output_size": pair(draw, 1, 5)}
    elif op == "dropout":
        layer |= {"p": draw(st.sampled_from([0.0, 0.25, 0.5, 0.75]))}
    elif op == "batch_norm2d":
        layer |= {"eps": draw(st.sampled_from([1e-5, 1e-3, 0.1])), "affine": draw(st.booleans())}
        layer |= {"momentum": draw(st.sampled_from([0.1, 0.01, 0.5]))}
    elif op == "group_norm":
        layer |= {"num_groups": draw(st.sampled_from(divisors(channels))), "affine": draw(st.booleans())}
        layer |= {"eps": draw(st.sampled_from([1e-3, 0.1]))}
    elif op == "layer_norm":
        layer |= {"eps": draw(st.sampled_from([1e-3, 0.1])), "bias": draw(st.booleans())}
        layer |= {"elementwise_affine": draw(st.booleans())}
    elif op == "stochastic_depth":
        layer |= {"p": draw(st.sampled_from([0.0, 0.25, 0.5]))}
    elif op == "conv_transpose2d":
        groups = draw(st.sampled_from(divisors(channels)))
        kernel, stride, dilation = pair(draw, 1, 4), pair(draw, 1, 3), pair(draw, 1, 2)
        more = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        layer |= {"out_channels": groups * draw(st.integers(1, max(1, 8 // groups))), "groups": groups}
        layer |= {"kernel_size": kernel, "stride": stride, "dilation": dilation, "output_padding": more}
        layer |= {"padding": pair(draw, 0, 2), "bias": draw(st.booleans())}
    elif op == "upsample":
        layer |= {"scale_factor": pair(draw, 1, 3)}
        if draw(st.booleans()):
            layer |= {"mode": "bilinear", "align_corners": draw(st.booleans())}
    elif op == "space_to_depth":
        layer |= {"block_size": draw(st.sampled_from(divisors(gcd(*shape[1:]))))}
    elif op == "shifted_window_attention":
        window = pair(draw, 1, 4)
        layer |= {"num_heads": draw(st.sampled_from(divisors(channels))), "window_size": window}
        layer |= {"shift_size": [draw(st.integers(0, size - 1)) for size in window], "bias": draw(st.booleans())}
    elif op == "rescaling":
        layer |= {"scale": draw(st.sampled_from([1.0, -0.5, 2.0])), "offset": draw(st.sampled_from([0.0, 0.3]))}
    elif op == "gelu":
        layer |= {"approximate": draw(st.sampled_from(["none", "tanh"]))}
    elif op == "leaky_relu":
        layer |= {"negative_slope": draw(st.sampled_from([0.01, 0.3]))}
    elif op == "elu":
        layer |= {"alpha": draw(st.sampled_from([1.0, 0.5]))}
    elif op == "channel_shuffle":
        layer |= {"groups": draw(st.sampled_from(divisors(channels)))}
    elif op == "pad_channels":
        layer |= {"before": draw(st.integers(0, 2)), "after": draw(st.integers(0, 2))}
    elif op == "zero_pad2d":
        layer |= {"padding": padding(draw, [2, 2], 2)}
        layer["padding"] = 1 if layer["padding"] == "same" else layer["padding"]
    elif op == "split" and channels > 1 and draw(st.booleans()):
        first = draw(st.integers(1, channels - 1))
        layer |= {"sizes": [first, channels - first], "index": draw(st.integers(0, 1))}
    elif op == "split":
        sections = draw(st.sampled_from(divisors(channels)))
        layer |= {"sections": sections, "index": draw(st.integers(0, sections - 1))}
    return layer


ACTIVATIONS = st.sampled_from(["relu", "relu6", "elu", "tanh"])


def draw_blocks(draw: Draw) -> dict[str, Any]:
    """Draw two blocks, the second of which may use the first: a sequence, and one with a branch."""
    unit: list[dict[str, Any]] = [
        {"op": "conv2d", "out_channels": "width", "kernel_size": "kernel", "stride": "stride", "padding": "kernel // 2"}
    ]
    unit += [{"op": "batch_norm2d"}] * draw(st.booleans()) + [{"op": draw(ACTIVATIONS)}] * draw(st.booleans())
    blocks: dict[str, Any] = {
        "unit": {"attributes": {"width": "required", "kernel": 1, "stride": 1}, "layers": unit},
    }
    attributes: dict[str, Any] = {"width": "required", "stride": 1, "wide": draw(st.booleans())}
    rows: list[dict[str, Any]] = [{"name": "pre", "op": draw(ACTIVATIONS)}] * draw(st.booleans())
    rows += [
        {"name": "conv", "op": "unit", "width": "width", "kernel": draw(st.sampled_from([1, 3])), "stride": "stride"}
    ]
    kind = draw(st.sampled_from(["residual", "dense", "depthwise", "plain"]))
    if kind == "depthwise":
        rows += [
            {
                "name": "each",
                "op": "conv2d",
                "out_channels": "width",
                "groups": "width",
                "kernel_size": 3,
                "padding": 1,
            },
            {"name": "norm", "op": "batch_norm2d"},
        ]
    if draw(st.booleans()):
        rows += [{"name": "more", "op": "unit", "width": "width", "repeat": draw(st.integers(1, 3)), "when": "wide"}]
    last = rows[-1]["name"]
    if kind == "residual":
        condition = "in_channels != width or stride != 1"
        rows += [
            {"name": "short", "op": "unit", "from": "input", "width": "width", "stride": "stride", "when": condition},
            {"name": "sum", "op": "add", "from": [last, "short"]},
        ]
    elif kind == "dense":
        rows += [{"name": "grown", "op": "concat", "from": [last, "input"], "when": "stride == 1"}]
    rows += [{"name": "act", "op": draw(ACTIVATIONS)}] * draw(st.booleans())
    blocks["cell"] = {"attributes": attributes, "layers": rows}
    rows = [{"name": "norm", "op": "layer_norm", "eps": 0.01}] * draw(st.booleans())
    rows += [
        {"name": "attn", "op": "multihead_attention", "num_heads": "heads", "bias": draw(st.booleans())},
        {"name": "sum1", "op": "add", "from": ["attn", "input"]},
        {"name": "fc1", "op": "linear", "out_features": draw(st.sampled_from(["2 * in_channels", "heads", 3]))},
        {"name": "act", "op": "gelu"},
        {"name": "fc2", "op": "linear", "out_features": "in_channels"},
        {"name": "sum2", "op": "add", "from": ["sum1", "fc2"]},
    ]
    blocks["encoder"] = {"attributes": {"heads": "required"}, "layers": rows}
    return blocks


def use_block(draw: Draw, shape: Shape) -> dict[str, Any]:
    """Draw a row that uses a block."""
    if len(shape) == 2:
        encoder = {"op": "encoder", "heads": draw(st.sampled_from(divisors(shape[1])))}
        return encoder | ({"repeat": draw(st.integers(1, 3))} if draw(st.booleans()) else {})
    layer: dict[str, Any] = {"op": draw(st.sampled_from(["unit", "cell"])), "width": draw(st.integers(1, 5))}
    if draw(st.booleans()):
        layer |= {"stride": draw(st.integers(1, 2))}
    if layer["op"] == "cell" and draw(st.booleans()):
        layer |= {"wide": draw(st.booleans())}
    if draw(st.booleans()):
        layer |= {"repeat": draw(st.integers(1, 3))}
        if draw(st.booleans()):
            layer |= {"first": {"stride": draw(st.integers(1, 2))}}
    return layer


def shape_of(shape: Shape, blocks: dict[str, Any], layers: list[dict[str, Any]], layer: dict[str, Any]) -> Shape:
    """Return the output shape of a layer that uses a block."""
    first = dict(zip(("channels", "height", "width"), shape, strict=True))
    data = {"archspec": 1, "name": "drawn", "input": first, "blocks": blocks, "layers": [*layers, layer]}
    return archspec.graph.build(Source("<drawn>", "", data)).output.output_shape


def on_vectors(draw: Draw, shape: Shape) -> dict[str, Any]:
    """Draw a layer on vectors."""
    op = draw(
        st.sampled_from(
            ["linear", "linear", "relu", "sigmoid", "tanh", "softmax", "dropout", "split", "layer_norm", "gelu"]
        )
    )
    layer: dict[str, Any] = {"op": op}
    if op == "linear":
        layer |= {"out_features": draw(st.integers(1, 12)), "bias": draw(st.booleans())}
    elif op == "dropout":
        layer |= {"p": draw(st.sampled_from([0.0, 0.25, 0.5]))}
    elif op == "split":
        sections = draw(st.sampled_from(divisors(shape[0])[:4]))
        layer |= {"sections": sections, "index": draw(st.integers(0, sections - 1))}
    return layer


def on_tokens(draw: Draw, shape: Shape) -> dict[str, Any]:
    """Draw a layer on tokens."""
    op = draw(
        st.sampled_from(
            ["multihead_attention"] * 3
            + ["linear", "linear", "layer_norm"]
            + ["class_token", "position_embedding", "transpose", "class_token"] * 3
            + ["maps", "maps", "maps", "rescaling"]
            + ["gelu", "relu", "softmax", "dropout", "stochastic_depth", "split", "layer_scale"]
            + ["select", "select", "select", "mean", "mean", "mean", "flatten"]
        )
    )
    layer: dict[str, Any] = {"op": op}
    if op == "multihead_attention":
        layer |= {"num_heads": draw(st.sampled_from(divisors(shape[1]))), "bias": draw(st.booleans())}
    elif op == "maps":
        layer |= {"height": draw(st.sampled_from(divisors(shape[0])))}
    elif op == "rescaling":
        layer |= {"scale": draw(st.sampled_from([1.0, -0.5, 2.0])), "offset": draw(st.sampled_from([0.0, 0.3]))}
    elif op == "linear":
        layer |= {"out_features": draw(st.integers(1, 8)), "bias": draw(st.booleans())}
    elif op in ("dropout", "stochastic_depth"):
        layer |= {"p": draw(st.sampled_from([0.0, 0.25, 0.5]))}
    elif op == "layer_norm":
        layer |= {"eps": draw(st.sampled_from([1e-3, 0.1])), "bias": draw(st.booleans())}
    elif op == "select":
        layer |= {"index": draw(st.integers(0, shape[0] - 1))}
    elif op == "split":
        sections = draw(st.sampled_from(divisors(shape[1])))
        layer |= {"sections": sections, "index": draw(st.integers(0, sections - 1))}
    return layer


OPTIMIZERS = st.sampled_from(
    [
        {"caffe_sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}},
        {"caffe_sgd": {"lr": 0.02, "weight_decay": 0.03}},
        {"caffe_sgd": {"lr": 0.02}},
        {"sgd": {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.02}},
        {"sgd": {"lr": 0.01, "momentum": 0.8, "nesterov": True}},
        {"adam": {"lr": 0.003, "betas": [0.8, 0.95], "weight_decay": 0.02}},
        {"adamw": {"lr": 0.003, "eps": 1e-4}},
    ]
)
SCHEDULES = st.sampled_from(
    [
        {"constant": {}},
        {"constant": {"warmup": 2}},
        {"step": {"step_size": 2, "gamma": 0.5}},
        {"multi_step": {"milestones": [1, 3], "gamma": 0.2, "warmup": 1}},
        {"exponential": {"gamma": 0.7}},
        {"cosine": {"t_max": 5, "warmup": 2}},
        {"reduce_on_plateau": {"factor": 0.3, "patience": 1}},
    ]
)


def is_constant(layer: dict[str, Any], shape: Shape) -> bool:
    """Return whether a norm of one channel has a constant output: its gradients are rounding, of any sign."""
    return layer["op"] == "layer_norm" and (shape[1] if len(shape) == 2 else shape[0]) == 1


@st.composite
def networks(draw: Draw) -> dict[str, Any]:
    """Draw a spec, as data: a graph of up to a dozen layers that ends in a vector of scores."""
    shape: Shape = (draw(st.integers(1, 6)), draw(st.integers(2, 9)), draw(st.integers(2, 9)))
    made: list[tuple[str, Shape]] = [("input", shape)]
    layers: list[dict[str, Any]] = []
    unread: list[str] = []
    blocks = draw_blocks(draw) if draw(st.booleans()) else {}

    def add(layer: dict[str, Any], reads: list[str]) -> bool:
        shapes = dict(made)
        layer = {"name": f"layer{len(layers)}", **layer}
        if reads != [made[-1][0]]:
            layer["from"] = reads
        try:
            if layer["op"] in blocks:
                out = shape_of(made[0][1], blocks, layers, layer)
            else:
                out = OPS[layer["op"]].model_validate(layer).output_shape(*(shapes[name] for name in reads))
        except (ShapeError, archspec.SpecError):
            return False
        if prod(out) > MOST or is_constant(layer, out):
            return False
        layers.append(layer)
        values = reads[:1] if layer["op"] == "center_crop" else reads
        unread[:] = [name for name in unread if name not in values] + [layer["name"]]
        made.append((layer["name"], out))
        return True

    for _ in range(draw(st.integers(2, 12))):
        name, shape = made[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(made))
        alike = [other for other, s in made if s == shape]
        beside = [other for other, s in made if with_channels(s, 1) == with_channels(shape, 1)]
        larger = [other for other, s in made if len(s) == len(shape) == 3 and s[1] >= shape[1] and s[2] >= shape[2]]
        joint = draw(st.integers(0, 6))
        if joint == 0 and len(alike) > 1:
            add({"op": "add"}, draw(st.lists(st.sampled_from(alike), min_size=2, max_size=3, unique=True)))
        elif joint == 2 and blocks and len(shape) > 1:
            add(use_block(draw, shape), [name])
        elif joint == 3 and len(shape) == 3 and len(alike) > 1:
            add({"op": "mul"}, draw(st.lists(st.sampled_from(alike), min_size=2, max_size=2, unique=True)))
        elif joint == 4 and len(larger) > 1:
            add({"op": "center_crop"}, [draw(st.sampled_from([other for other in larger if other != name])), name])
        elif joint == 5 and len(shape) == 2:
            reads = [draw(st.sampled_from([name, *alike])) for _ in range(3)]
            add({"op": "dot_product_attention", "num_heads": draw(st.sampled_from(divisors(shape[1])))}, reads)
        elif joint == 1 and len(beside) > 1:
            add({"op": "concat"}, draw(st.lists(st.sampled_from(beside), min_size=2, max_size=3, unique=True)))
        else:
            add((on_vectors, on_tokens, on_maps)[len(shape) - 1](draw, shape), [name])

    loose = []
    for name in list(unread) or ["input"]:
        if len(dict(made)[name]) > 1:
            add({"op": "flatten"}, [name])
            name = made[-1][0]
        loose.append(name)
    if len(loose) > 1:
        add({"op": "concat"}, loose)
        loose = [made[-1][0]]
    if draw(st.booleans()) or not any(layer["op"] in ("conv2d", "linear") for layer in layers):
        add({"op": "linear", "out_features": draw(st.integers(2, 5))}, loose)
    first = dict(zip(("channels", "height", "width"), made[0][1], strict=True))
    spec: dict[str, Any] = {"archspec": 1, "name": "drawn", "input": first, "layers": layers}
    if blocks:
        spec["blocks"] = blocks
    spec["training"] = {"optimizer": draw(OPTIMIZERS), "schedule": draw(SCHEDULES)}
    if draw(st.booleans()):
        spec["multipliers"] = {"weight": {"lr": 1, "decay": 1}, "bias": {"lr": 2, "decay": 0}}
    return spec
