"""Files of torch.export: their graph is read as data. PyTorch's own torch.export.load unpickles what is in them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.importers.aten import read_layers
from archspec.importers.layers import Captured, ImportFailedError, Shape

if TYPE_CHECKING:
    from archspec.importers.layers import Array

Json = Mapping[str, Any]
KIND = "pt2"
MOST_JSON = 64 * 2**20  # bytes of a graph
POSITIONAL = 1
# torch._export.serde.schema.ScalarType, of the floating types that NumPy has
DTYPES = {6: "<f2", 7: "<f4", 8: "<f8"}
NAMES = {4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"}


def capture(source: dict[str, Any], input_shape: Shape | None, *, opaque: bool = False) -> Captured:
    """Return the model of a file; add to `source` the graph that the proof runs. Raises ImportFailedError."""
    path = Path(source["path"])
    try:
        with zipfile.ZipFile(path) as archive:
            captured, weights, pickled = _read(archive, path.name)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ImportFailedError(f"{path.name} is no file of torch.export: {error}") from None
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise ImportFailedError(f"{path.name} is not as torch.export writes: {type(error).__name__}: {error}") from None
    own = tuple(captured["input_shape"])
    if input_shape and input_shape != own:
        raise ImportFailedError(f"{path.name} was exported for inputs of {own}, not of {input_shape}")
    source["captured"] = captured
    notes = ["Initializers are PyTorch's defaults.", "What acts in training only, as stochastic depth, is not in it."]
    if pickled:
        notes.append("Its weights are pickles, which are not read.")
    names = ("channels", "height", "width") if len(own) == 3 else ("features",)
    if len(own) not in (1, 3):
        raise ImportFailedError(f"{path.name} reads inputs of {own}: neither images nor vectors")
    return Captured(
        name=source["name"],
        provenance=f"captured by torch.export of PyTorch {captured['versions']['torch']}",
        input=dict(zip(names, own, strict=True)),
        layers=read_layers(captured, own, opaque=opaque),
        parameters=captured["parameters"],
        weights={} if pickled else weights,
        notes=tuple(notes),
    )


def _read(archive: zipfile.ZipFile, name: str) -> tuple[dict[str, Any], dict[str, Array], bool]:
    """Return the graph as the worker captures one, the weights, and whether there are pickles among them."""
    members = {info.filename: info for info in archive.infolist()}
    graphs = [member for member in members if member.endswith("/models/model.json")]
    if not graphs:
        older = "serialized_exported_program.json" in members
        raise ImportFailedError(f"{name} {'is of an older PyTorch: export it again' if older else 'has no graph'}")
    root = graphs[0].removesuffix("models/model.json")
    program = _json(archive, members[graphs[0]])
    graph = program["graph_module"]["graph"]
    sizes = {key: _sizes(value) for key, value in graph["tensor_values"].items()}
    state, inputs, trained = _signature(program["graph_module"]["signature"])
    if len(inputs) != 1:
        raise ImportFailedError(f"{name} reads {len(inputs)} inputs; models have one")
    nodes: list[dict[str, Any]] = [
        {
            "name": key,
            "kind": "placeholder",
            "target": key,
            "args": [],
            "kwargs": {},
            "stack": [],
            "line": "",
            "state": state.get(key),
            "trainable": key in trained,
            "shape": sizes[key],
        }
        for key in (*state, *inputs)
    ]
    classes: dict[str, str] = {}
    for node in graph["nodes"]:
        nodes += _nodes(node, sizes, classes)
    outputs = [{"ref": value["as_tensor"]["name"]} for value in graph["outputs"]]
    nodes.append({"name": "output", "kind": "output", "args": [outputs], "kwargs": {}})
    config = members.get(f"{root}data/weights/model_weights_config.json")
    entries = _json(archive, config)["config"] if config else {}
    weights, pickled = {}, False
    for key, entry in entries.items():
        if entry["use_pickle"]:
            pickled = True
        elif entry["tensor_meta"]["dtype"] in DTYPES:
            weights[key] = _array(archive, members[f"{root}data/weights/{entry['path_name']}"], entry["tensor_meta"])
    captured = {
        "nodes": nodes,
        "layers": {},
        "classes": classes,
        "parameters": sum(prod(sizes[key]) for key in trained),
        "input_shape": sizes[inputs[0]][1:],
        "batch": sizes[inputs[0]][0],  # of which views in the graph may be
        "versions": {"torch": str(program.get("torch_version", "of an unknown version"))},
    }
    return captured, weights, pickled


def _json(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    if member.file_size > MOST_JSON:
        raise ImportFailedError(f"{member.filename} is larger than {MOST_JSON >> 20} MiB")
    found: dict[str, Any] = json.loads(archive.read(member))
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, meta: Json) -> Array:
    """Return a tensor of a file of raw bytes, of which it may be a part."""
    import numpy as np

    sizes: list[int] = _sizes(meta)
    strides: list[int] = [int(size["as_int"]) for size in meta["strides"]]
    if member.compress_type != zipfile.ZIP_STORED:
        raise ImportFailedError(f"{member.filename} is compressed, which torch.export does not do")
    flat = np.frombuffer(archive.read(member), DTYPES[meta["dtype"]])[int(meta["storage_offset"]["as_int"]) :]
    count = prod(sizes)
    last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if min([*sizes, *strides], default=0) < 0 or (count and last >= flat.size) or count > flat.size:
        raise ImportFailedError(f"{member.filename} is too short for its tensor")
    return np.lib.stride_tricks.as_strided(flat, sizes, [flat.itemsize * stride for stride in strides]).copy()


def _sizes(meta: Json) -> list[int]:
    """Return a tensor's shape; of a size that is an expression, the value that it had."""

    def size(value: Json) -> int:
        return int(value["as_int"] if "as_int" in value else (value["as_expr"].get("hint") or {}).get("as_int", 2))

    return [size(value) for value in meta["sizes"]]


def _signature(signature: Json) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the names of parameters and buffers by placeholder, the other inputs, and those of parameters."""
    state, inputs, trained = {}, [], []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            inputs.append(value["arg"]["as_tensor"]["name"])
        elif kind == "parameter":
            state[value["arg"]["name"]] = str(value["parameter_name"])
            trained.append(value["arg"]["name"])
        elif kind == "buffer":
            state[value["arg"]["name"]] = str(value["buffer_name"])
        elif kind == "tensor_constant":
            state[value["arg"]["name"]] = str(value["tensor_constant_name"])
        else:
            raise ImportFailedError(f"the graph has an input of the kind {kind}")
    return state, inputs, trained


def _nodes(
    node: Mapping[str, Any], sizes: Mapping[str, list[int]], classes: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield a node as the worker captures it, and a `getitem` for each of several outputs."""
    metadata = node.get("metadata", {})
    stack = []
    for entry in filter(None, metadata.get("nn_module_stack", "").split(";")):
        _, path, kind = entry.split(",", 2)
        stack.append((path, kind))
        classes[path] = kind.rpartition(".")[2]
    outputs = [one for value in node["outputs"] for one in value.get("as_tensors", [value.get("as_tensor")]) if one]
    several = len(outputs) > 1 or any("as_tensors" in value for value in node["outputs"])
    name = f"{outputs[0]['name']}_all" if several else outputs[0]["name"]
    common = {"kind": "call_function", "state": None, "stack": stack, "line": _line(metadata.get("stack_trace", ""))}
    yield {
        **common,
        "name": name,
        "target": str(node["target"]).removeprefix("torch.ops."),
        "args": [_value(one["arg"]) for one in node["inputs"] if one.get("kind", POSITIONAL) == POSITIONAL],
        "kwargs": {one["name"]: _value(one["arg"]) for one in node["inputs"] if one.get("kind", 1) != POSITIONAL},
        "shape": None if several else sizes[name],
    }
    for i, one in enumerate(outputs if several else []):
        args = [{"ref": name}, i]
        shape = sizes[one["name"]]
        yield {**common, "name": one["name"], "target": "getitem", "args": args, "kwargs": {}, "shape": shape}


def _value(arg: Json) -> Any:
    """Return an argument as data; a node is {"ref": name}, a dtype "torch.float32"."""
    ((kind, value),) = arg.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return {"ref": value["name"]}
    if kind == "as_tensors":
        return [{"ref": one["name"]} for one in value]
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_bools"):
        return [_value(one) for one in value]
    if kind in ("as_sym_int", "as_sym_bool", "as_optional_tensor"):
        return _value(value)
    if kind == "as_name":
        return {"ref": value}
    if kind == "as_scalar_type":
        return f"torch.{NAMES.get(value, value)}"
    return value


def _line(trace: str) -> str:
    """Return the last line of the author's own code in a stack trace, as `file:line: text`."""
    lines = [line.strip() for line in trace.splitlines()]
    places = [i for i, line in enumerate(lines) if line.startswith("File ") and "/torch/nn/" not in line]
    if not places:
        return ""
    _, file, rest = lines[places[-1]].split('"', 2)
    text = lines[places[-1] + 1] if places[-1] + 1 < len(lines) else ""
    return f"{Path(file).name}:{rest.partition('line ')[2].partition(',')[0]}: {text}"
