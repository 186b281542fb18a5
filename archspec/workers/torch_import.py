"""Captures a PyTorch model with torch.export, and compares generated code with it: run in a process of its own.

Reads a request, one JSON object, from standard input, and writes one to the file that it names.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import protocol

# Modules that are one layer, with the attributes that describe them.
LAYERS = {
    "MultiheadAttention": ("num_heads", "batch_first"),
    "LocalResponseNorm": ("size", "alpha", "beta", "k"),
}


class SourceError(Exception):
    """Raised where the model cannot be made or captured; `names` are those that there are for one that there is not."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = names


def make(source: dict[str, Any]) -> Any:
    """Return the model that `source` names."""
    import torch

    kind, name, arguments = source["kind"], source["name"], source.get("arguments", {})
    if kind == "torchvision":
        import torchvision

        names = torchvision.models.list_models()
        if name not in names:
            raise SourceError(f"torchvision has no model {name!r}", names)
        if name in ("googlenet", "inception_v3") and not source.get("weights"):
            # without the heads that are there in training only, and without a slow initialization
            arguments = {"init_weights": False, "aux_logits": False, **arguments}
        return torchvision.models.get_model(name, weights=source.get("weights"), **arguments)
    if kind == "timm":
        import timm  # type: ignore[import-not-found, unused-ignore]

        names = timm.list_models()
        if name not in names:
            raise SourceError(f"timm has no model {name!r}", names)
        return timm.create_model(name, pretrained=bool(source.get("weights")), **arguments)
    if kind == "pt2":
        return _program(source)
    path = Path(source["path"]).resolve()
    module = protocol.user_module(path)
    if not hasattr(module, name):
        raise SourceError(f"{path.name} has no {name!r}", [n for n in vars(module) if n[0] != "_"])
    made = getattr(module, name)
    made = made if isinstance(made, torch.nn.Module) else made(**arguments)
    if not isinstance(made, torch.nn.Module):
        raise SourceError(f"{name} of {path.name} is no torch.nn.Module and does not return one")
    return made


def _program(source: dict[str, Any]) -> Any:
    """Return a module that runs the captured graph of a file of torch.export, with the weights of a file."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional

    captured, weights = source["captured"], load_file(source["weights"])
    trained = {n["state"] for n in captured["nodes"] if n["kind"] == "placeholder" and n["state"]}

    class Program(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            state = dict(self.named_parameters()) | dict(self.named_buffers())
            values: dict[str, Any] = {}

            def read(value: Any) -> Any:
                if isinstance(value, dict):
                    return values[value["ref"]]
                if isinstance(value, list):
                    return [read(one) for one in value]
                return getattr(torch, value[6:]) if isinstance(value, str) and value.startswith("torch.") else value

            for node in captured["nodes"]:
                name, kind = node["name"], node["kind"]
                if kind == "placeholder":
                    values[name] = state.get(node["state"]) if node["state"] else x
                elif kind == "output":
                    return read(node["args"][0][0])
                else:
                    args, kwargs = read(node["args"]), {key: read(value) for key, value in node["kwargs"].items()}
                    values[name] = self.call(node["target"], args, kwargs)
            return None

        def call(self, target: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            library, _, rest = target.partition(".")
            if target == "getitem":
                return args[0][args[1]]
            if library != "aten":
                raise SourceError(f"{target} is no operator of PyTorch's own")
            if rest.startswith("dropout"):
                return functional.dropout(args[0], args[1], self.training)
            if rest.startswith("batch_norm"):
                args = [*args[:5], self.training, *args[6:]]
            if rest.startswith("hardsigmoid"):
                return functional.hardsigmoid(args[0])
            name, _, overload = rest.partition(".")
            return getattr(getattr(torch.ops.aten, name), overload or "default")(*args, **kwargs)

    model = Program()
    for name, tensor in weights.items():
        owner: Any = model
        *path, last = name.split(".")
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, torch.nn.Module())
            owner = getattr(owner, part)
        if last in ("running_mean", "running_var") or name not in trained:
            owner.register_buffer(last, tensor)
        else:
            owner.register_parameter(last, torch.nn.Parameter(tensor))
    return model


def _mark_random(model: Any) -> None:
    """Have modules that drop whole samples leave a dropout in the graph, which evaluation would not show."""
    from torch.nn import functional

    def marked(self: Any, input: Any) -> Any:
        return functional.dropout(input, float(getattr(self, "p", getattr(self, "drop_prob", 0.0)) or 0.0), False)

    for module in model.modules():
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.forward = marked.__get__(module)


def capture(request: dict[str, Any]) -> dict[str, Any]:
    """Return the graph of the model in evaluation mode, and write its parameters and buffers."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = make(request["source"]).eval().requires_grad_(True)
    state = {key: value.detach().contiguous().clone() for key, value in model.state_dict().items()}
    save_file({key: value for key, value in state.items() if value.is_floating_point()}, request["weights"])
    total = sum(parameter.numel() for parameter in model.parameters())
    _mark_random(model)
    images = torch.zeros(2, *request["input_shape"])
    model, images = model.to("meta"), images.to("meta")
    try:
        with torch.no_grad():
            program = torch.export.export(model, (images,), strict=False)
    except Exception as error:
        raise SourceError(f"torch.export cannot capture the model: {str(error).strip().splitlines()[0]}") from error
    modules = dict(model.named_modules())
    signature = program.graph_signature
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = []
    for node in program.graph.nodes:
        value = node.meta.get("val")
        stack = [(path, str(kind)) for path, kind in node.meta.get("nn_module_stack", {}).values()]
        nodes.append(
            {
                "name": node.name,
                "kind": node.op,
                "target": _target(node.target),
                "args": _plain(node.args),
                "kwargs": _plain(node.kwargs),
                "shape": list(value.shape) if hasattr(value, "shape") else None,
                "state": owners.get(node.name),
                "trainable": node.name in signature.inputs_to_parameters,
                "stack": stack,
                "line": _line(node.meta.get("stack_trace") or ""),
            }
        )
    layers = {}
    for path, module in modules.items():
        known = getattr(torch.nn, type(module).__name__, None)
        if (fields := LAYERS.get(type(module).__name__)) and type(module) is known:
            layers[path] = {field: _plain(getattr(module, field)) for field in fields}
    return {
        "nodes": nodes,
        "layers": layers,
        "parameters": total,
        "classes": {path: type(module).__name__ for path, module in modules.items()},
        "versions": {"torch": torch.__version__},
        "class": type(model).__name__,
    }


def _target(target: Any) -> str:
    """Return the name of an operator, e.g. `aten.conv2d.default`, or of a function of Python, `getitem`."""
    return str(target) if hasattr(target, "_schema") else str(getattr(target, "__name__", target))


def _line(trace: str) -> str:
    """Return the last line of the user's own code in a stack trace, as `file:line: text`."""
    lines = [line.strip() for line in trace.splitlines()]
    found = [i for i, line in enumerate(lines) if line.startswith("File ") and "/torch/nn/" not in line]
    if not found:
        return ""
    place = lines[found[-1]].split('"')
    number = lines[found[-1]].partition("line ")[2].partition(",")[0]
    text = lines[found[-1] + 1] if found[-1] + 1 < len(lines) else ""
    return f"{Path(place[1]).name}:{number}: {text}"


def _plain(value: Any) -> Any:
    """Return arguments as data; a node is {"ref": name}."""
    import torch

    if isinstance(value, torch.fx.Node):
        return {"ref": value.name}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value if isinstance(value, int | float | str | bool | None) else str(value)


# --- proof -----------------------------------------------------------------------------------------------------------


def prove(request: dict[str, Any]) -> dict[str, Any]:
    """Return the largest relative differences of the generated model from the original, in float64."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    original = make(request["source"]).double()
    module = _generated(request["model"])
    generated = getattr(module, request["class"])().double()
    _disturb(original)
    origins: dict[str, list[Any]] = request["origins"]  # of the generated model's state: what `_canonical` reads
    missing = [name for name in generated.state_dict() if name not in origins and "num_batches" not in name]
    if missing:
        raise SourceError(f"no weight for {missing[0]}")
    images = torch.randn(request["batch"], *request["input_shape"], dtype=torch.float64)
    found: dict[str, float] = {}
    for mode in ("evaluation", "training"):
        outputs, inputs = [], []
        rates: list[list[float]] = []
        if mode == "training":
            _enlarge(original)
            images = 3 * images
        state = original.state_dict()
        canonical = {name: _canonical(state[origin[0]], origin) for name, origin in origins.items()}
        generated.load_state_dict(canonical, strict=False)
        for model in (original, generated):
            model.train(mode == "training")
            x = images.clone().requires_grad_()
            with still(model) as drawn:
                y = model(x)
            rates.append(drawn)
            y = y[0] if isinstance(y, tuple) else getattr(y, "logits", y)
            model.zero_grad()
            y.square().sum().backward()
            outputs.append(y.detach())
            inputs.append(x.grad)
        found[f"outputs, {mode}"] = protocol.apart(outputs[0], outputs[1])
        scale = max((float(p.grad.abs().max()) for p in original.parameters() if p.grad is not None), default=0.0)
        gradients = {name: p.grad for name, p in original.named_parameters()}
        apart = [protocol.apart(inputs[0], inputs[1])]
        for name, parameter in generated.named_parameters():
            there, here = gradients[origins[name][0]], parameter.grad
            if there is None and here is None:
                continue  # neither reads it
            there = torch.zeros_like(here) if there is None else _canonical(there, origins[name])
            here = torch.zeros_like(there) if here is None else here
            apart.append(protocol.apart(there, here, 1e-3 * scale))
        found[f"gradients, {mode}"] = max(apart)
        if rates[0] != rates[1]:
            return {"differences": found, "macs": [0, 0], "rates": rates, "versions": {"torch": torch.__version__}}
    after = original.state_dict()
    buffers = {name for name, _ in generated.named_buffers() if name in origins}
    moved = [
        protocol.apart(after[origins[name][0]], value) for name, value in generated.named_buffers() if name in buffers
    ]
    if moved:
        found["running statistics"] = max(moved)
    with torch.device("meta"):
        blank = getattr(module, request["class"])().eval()
        flops = []
        for model in (original.float().eval().to("meta"), blank):
            model.requires_grad_(False)  # FlopCounterMode hooks gradients even where there are none
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.zeros(request["batch"], *request["input_shape"]))
            flops.append(counter.get_total_flops() // request["batch"])
    return {"differences": found, "macs": [count // 2 for count in flops], "versions": {"torch": torch.__version__}}


def _canonical(tensor: Any, origin: list[Any]) -> Any:
    """Return a weight, or its gradient, as the generated model has it: `origin` is a name, shape, shape and order."""
    _, shape, before, order = origin
    tensor = tensor if before is None else tensor.reshape(before)
    return (tensor if order is None else tensor.permute(order)).reshape(shape)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Write outputs, gradients and running statistics of generated code on given weights to the .npz file `arrays`.

    For each of `modes`, {name, weights, inputs}; in "training", dropouts are the identity. The dtype is the inputs'.
    """
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from torch.utils.flop_counter import FlopCounterMode

    module = _generated(request["model"])
    arrays: dict[str, Any] = {}
    rates: list[float] = []
    for mode in request["modes"]:
        images = torch.from_numpy(np.load(mode["inputs"])).requires_grad_()
        model = getattr(module, request["class"])().to(images.dtype).train(mode["name"] == "training")
        weights = load_file(mode["weights"])
        if missing := [n for n in model.state_dict() if n not in weights and "num_batches" not in n]:
            raise SourceError(f"no weight for {missing[0]}")
        model.load_state_dict(weights, strict=False)
        with still(model) as drawn:
            y = model(images)
        rates = drawn or rates
        if request.get("gradients", True):
            y.square().sum().backward()
            arrays[f"{mode['name']}/dx"] = images.grad.numpy()  # type: ignore[union-attr]
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    arrays[f"{mode['name']}/gradient/{name}"] = parameter.grad.numpy()
        arrays[f"{mode['name']}/y"] = y.detach().numpy()
        arrays |= {f"{mode['name']}/buffer/{name}": value.numpy() for name, value in model.named_buffers()}
    np.savez(request["arrays"], **arrays)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        getattr(module, request["class"])().eval()(torch.zeros(1, *request["input_shape"]))
    return {"rates": rates, "macs": counter.get_total_flops() // 2}


def _generated(path: str) -> Any:
    """Return the module of a generated file."""
    spec = importlib.util.spec_from_file_location("generated_model", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _disturb(model: Any) -> None:
    """Give norms, embeddings and scales values that hide nothing: fresh ones are 0 or 1."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        for parameter in model.parameters():
            if (parameter.numel() and float(parameter.abs().max()) <= 1e-3) or bool((parameter == 1).all()):
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1))


def _enlarge(model: Any) -> None:
    """Let norms have large outputs, so that activations reach where they saturate.

    In training mode only, as the outputs of networks with running statistics would grow from norm to norm.
    """
    import torch

    norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.GroupNorm, torch.nn.LayerNorm)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, norms) and module.weight is not None:
                module.weight.mul_(6)


@contextmanager
def still(model: Any) -> Iterator[list[float]]:
    """Replace dropouts by the identity; the list has their rates, in the order of their calls in training.

    And hardsigmoid by its definition, and casts of doubles to single precision by the identity.
    """
    import torch

    rates: list[float] = []

    def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if training and p:
            rates.append(float(p))
        return input

    def stochastic_depth(input: Any, p: float, mode: str, training: bool = True) -> Any:
        return dropout(input, p, training)

    def drop_path(self: Any, input: Any) -> Any:
        return dropout(input, float(self.drop_prob or 0.0), self.training)

    for module in model.modules():
        if type(module).__name__ == "DropPath":  # timm's stochastic depth
            module.forward = drop_path.__get__(module)
            continue
        for field in ("drop_prob", "dropout"):  # timm's, and attention's own
            if isinstance(getattr(module, field, None), float):
                setattr(module, field, 0.0)

    def hardsigmoid(input: Any, inplace: bool = False) -> Any:
        return torch.nn.functional.relu6(input + 3) / 6  # PyTorch's has a gradient of float32 precision

    functional = torch.nn.functional
    single = torch.Tensor.float

    def double(self: Any, *arguments: Any, **options: Any) -> Any:
        return self if self.dtype == torch.float64 else single(self, *arguments, **options)

    replaced: list[tuple[Any, str, Any]] = [
        (functional, "dropout", dropout),
        (functional, "hardsigmoid", hardsigmoid),
        (torch.Tensor, "float", double),
    ]
    if vision := sys.modules.get("torchvision.ops.stochastic_depth"):
        replaced.append((vision, "stochastic_depth", stochastic_depth))
    originals = [getattr(module, name) for module, name, _ in replaced]
    for module, name, function in replaced:
        setattr(module, name, function)
    try:
        yield rates
    finally:
        for (module, name, _), function in zip(replaced, originals, strict=True):
            setattr(module, name, function)


if __name__ == "__main__":
    protocol.answer_once({"capture": capture, "prove": prove, "run": run})
