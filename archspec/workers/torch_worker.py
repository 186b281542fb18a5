"""Runs generated PyTorch code."""

import itertools
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of the framework and its device; raise RuntimeError if there is no such device."""
    import numpy
    import torch

    found = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": numpy.__version__}
    if protocol.DEVICE != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.zeros(1, device=protocol.DEVICE)
        found["device"] = torch.cuda.get_device_name()
    return found


# --- the network and its data ----------------------------------------------------------------------------------------


def _network(program: protocol.Program, name: str, weights: str, dtype: str) -> Any:
    """Return the generated network with the canonical weights of a file."""
    import torch
    from safetensors.torch import load_file

    with torch.device("meta"):  # without initializing weights that are replaced
        network = getattr(program("model"), name)()
    network.load_state_dict(load_file(weights), strict=True, assign=True)
    for module in network.modules():
        if getattr(module, "num_batches_tracked", None) is not None:  # no part of canonical weights
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return network.to(protocol.DEVICE, getattr(torch, dtype))


def _floats(path: str, dtype: str) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.load(path)).to(protocol.DEVICE, getattr(torch, dtype))


def _labels(path: str) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.load(path)).to(protocol.DEVICE)


def _outputs(network: Any, batch: Any, layers: list[str]) -> tuple[dict[str, Any], str]:
    """Return the outputs of the layers that ran, and the exception that stopped the network, if any."""
    import torch

    outputs: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output  # nn.MultiheadAttention's weights are second
            outputs[layer] = output.detach().clone()

        return hook

    modules = {name: module for name, module in network.named_modules() if name in set(layers)}
    hooks = [module.register_forward_hook(keep(layer)) for layer, module in modules.items()]

    # A layer that is an expression has no module to hook: its result is the local variable of its name, which may end
    # in underscores, when the forward method of its block returns.
    paths = {id(module): name for name, module in network.named_modules()}
    codes = {type(module).forward.__code__ for module in network.modules() if type(module).__module__ == "model"}
    inside: dict[str, list[str]] = {}  # the layers in each block, and in the network
    for layer in layers:
        block, _, name = layer.rpartition(".")
        inside.setdefault(block, []).append(name)

    def at_return(frame: FrameType, event: str, result: Any) -> None:
        if event != "return" or frame.f_code not in codes or id(frame.f_locals.get("self")) not in paths:
            return
        path = paths[id(frame.f_locals["self"])]
        prefix = f"{path}." if path else ""
        variables = {name.rstrip("_"): value for name, value in frame.f_locals.items()}
        for name in inside.get(path, ()):
            layer = prefix + name
            if layer not in outputs and isinstance(variables.get(name.rstrip("_")), torch.Tensor):
                outputs[layer] = variables[name.rstrip("_")].detach().clone()
        if result is None:
            return
        if not path:
            outputs[layers[-1]] = result.detach().clone()
        elif path in inside:
            outputs.setdefault(prefix + inside[path][-1], result.detach().clone())

    fault = ""
    sys.setprofile(at_return)
    try:
        with torch.no_grad():
            network(batch)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    finally:
        sys.setprofile(None)
        for handle in hooks:
            handle.remove()
    return outputs, fault


def _dropouts(network: Any) -> dict[str, Any]:
    from torch import nn

    depth = getattr(sys.modules.get("torchvision.ops"), "StochasticDepth", nn.Dropout)  # if the model has imported it
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout | depth)}


def _state(network: Any) -> dict[str, Any]:
    """Return the parameters and buffers with canonical names."""
    return {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}


def _uniform(masks: str) -> dict[str, Any]:
    """Return the random numbers in the file `masks`, by dropout layer."""
    import numpy as np
    import torch

    with np.load(masks) as arrays:
        return {layer: torch.from_numpy(arrays[layer]).to(protocol.DEVICE) for layer in arrays.files}


@contextmanager
def _drawn(network: Any, uniform: dict[str, Any], undrawn: set[str]) -> Iterator[None]:
    """Replace the random numbers of torch's dropout by those in `uniform`, by layer; the rest stays torch's.

    At the end, `undrawn` has the layers that asked for none.
    """
    from torch.nn import functional

    undrawn.update(uniform)
    vision = sys.modules.get("torchvision.ops.stochastic_depth")  # if the model has imported it
    running = [""]

    def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training:
            return input
        undrawn.discard(running[0])
        return input * (uniform[running[0]] >= p) / (1 - p)

    def enter(layer: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            running[0] = layer

        return hook

    def stochastic_depth(input: Any, p: float, mode: str, training: bool = True) -> Any:
        return dropout(input, p, training and p > 0)

    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in network.named_modules()]
    replaced: list[tuple[Any, str, Any]] = [(functional, "dropout", dropout)]
    if vision:
        replaced.append((vision, "stochastic_depth", stochastic_depth))
    originals = [getattr(module, name) for module, name, _ in replaced]
    for module, name, function in replaced:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)
        for handle in hooks:
            handle.remove()


# --- jobs ------------------------------------------------------------------------------------------------------------


def structure(folder: str, name: str, inputs: list[int], layers: list[str]) -> dict[str, Any]:
    """Return the shapes of all parameters, and of all layers' outputs for inputs of the shape `inputs`."""
    import torch

    with torch.device("meta"):
        network = getattr(protocol.Program(folder)("model"), name)().eval()
        outputs, fault = _outputs(network, torch.zeros(inputs), layers)
    parameters = {name: list(weight.shape) for name, weight in _state(network).items()}
    shapes = {layer: list(outputs[layer].shape) for layer in layers if layer in outputs}
    return {"parameters": parameters, "outputs": shapes, "fault": fault}


def forward(
    folder: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output in evaluation mode to the file `output`.

    `inputs` is a .npy file of (N, C, H, W); `output` a .npz file with an array for each of `layers`.
    """
    import numpy as np

    network = _network(protocol.Program(folder), name, weights, dtype).eval()
    outputs, fault = _outputs(network, _floats(inputs, dtype), layers)
    np.savez(output, **{layer: outputs[layer].cpu().numpy() for layer in layers if layer in outputs})
    return {"fault": fault}


def gradients(
    folder: str,
    name: str,
    weights: str,
    inputs: str,
    labels: str,
    dtype: str,
    output: str,
    masks: str = "",
    directions: list[list[str]] = [],  # noqa: B006  never altered
    step: float = 0.0,
) -> dict[str, Any]:
    """Write the gradients of the recipe's loss to the .npz file `output`: of the parameters and of the input.

    With `masks`, in training mode with those random numbers for dropout, and with the buffers after it; otherwise in
    evaluation mode. `directions` are pairs of files, weights and inputs: the answer has the loss at +-`step` along each
    of them.
    """
    import numpy as np
    import torch

    program = protocol.Program(folder)
    network = _network(program, name, weights, dtype).train(bool(masks))
    criterion = program("recipe").criterion
    batch, targets = _floats(inputs, dtype).requires_grad_(), _labels(labels)
    undrawn: set[str] = set()
    with _drawn(network, _uniform(masks), undrawn) if masks else torch.enable_grad():
        scores = network(batch)
        loss = criterion(scores, targets)
    loss.backward()
    found = {name: weight.grad for name, weight in network.named_parameters()}
    arrays = {name: value.cpu().numpy() for name, value in found.items() if value is not None}
    if batch.grad is not None:
        arrays["input"] = batch.grad.cpu().numpy()
    if masks:
        arrays.update({key: value.cpu().numpy() for key, value in _state(network).items() if key not in found})
    np.savez(output, scores=scores.detach().cpu().numpy(), **arrays)
    del found, arrays

    moved = []
    for path, inputs_path in directions:
        along = dict(_network(program, name, path, dtype).named_parameters())
        there = _floats(inputs_path, dtype)
        losses = []
        with torch.no_grad():
            for distance in (step, -2 * step, step):
                for key, weight in network.named_parameters():
                    weight.add_(along[key], alpha=distance)
                batch += distance * there
                losses.append(float(criterion(network(batch), targets)))
        moved.append(losses[:2])
    return {"loss": float(loss.detach()), "moved": moved, "undrawn": sorted(undrawn)}


def training(
    folder: str,
    name: str,
    weights: str,
    inputs: str,
    labels: str,
    dtype: str,
    epochs: list[list[float]],
    output: str,
) -> dict[str, Any]:
    """Train with the generated program's own functions, dropout off; return every step's loss and rate.

    An epoch is [steps, error]: the number of steps, each on the next batch of the .npy files, and the validation error
    (and loss) reported after it. The final weights and optimizer states are written to the .npz file `output`.
    """
    import numpy as np

    program = protocol.Program(folder)
    network = _network(program, name, weights, dtype)
    train, recipe = program("train"), program("recipe")
    active = []  # whether each dropout was asked to drop
    for module in _dropouts(network).values():
        module.p = 0.0
        module.register_forward_hook(lambda module, args, output: active.append(module.training))
    optimizer = recipe.make_optimizer(network)
    scheduler = recipe.make_scheduler(optimizer)
    batches = iter(zip(_floats(inputs, dtype), _labels(labels), strict=True))
    losses, rates = [], []
    for steps, error in epochs:
        for _ in range(int(steps)):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            losses.append(float(train.train_step(network, optimizer, *next(batches))[0]))
        if scheduler is not None:
            scheduler.step(*([error] if recipe.MONITOR else []))
    arrays = {}
    for key, weight in network.named_parameters():
        arrays[key] = weight.detach().cpu().numpy()
        states = [value for value in optimizer.state[weight].values() if getattr(value, "shape", None) == weight.shape]
        arrays.update({f"state{i}.{key}": value.cpu().numpy() for i, value in enumerate(states)})
    for key, value in _state(network).items():
        arrays.setdefault(key, value.cpu().numpy())  # buffers
    np.savez(output, **arrays)
    return {"losses": losses, "rates": rates, "drops": all(active), "peak_bytes": protocol.peak_bytes()}


def amplification(
    folder: str, name: str, weights: str, inputs: str, labels: str, epochs: list[list[float]]
) -> dict[str, Any]:
    """Train two copies, one with every weight moved by one rounding of float64; return how far apart they are.

    After each step: the largest difference of any parameter, buffer or optimizer state, relative to its largest value.
    """
    import torch

    program = protocol.Program(folder)
    networks = [_network(program, name, weights, "float64") for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in networks[1].parameters():
            up = torch.rand(value.shape, generator=generator) < 0.5
            infinity = torch.full_like(value, float("inf"))
            value.copy_(torch.nextafter(value, torch.where(up.to(value.device), infinity, -infinity)))
    train, recipe = program("train"), program("recipe")
    for network in networks:
        for module in _dropouts(network).values():
            module.p = 0.0
    optimizers = [recipe.make_optimizer(network) for network in networks]
    schedulers = [recipe.make_scheduler(optimizer) for optimizer in optimizers]
    batches = iter(zip(_floats(inputs, "float64"), _labels(labels), strict=True))
    apart = []
    for steps, error in epochs:
        for _ in range(int(steps)):
            batch = next(batches)
            for network, optimizer in zip(networks, optimizers, strict=True):
                train.train_step(network, optimizer, *batch)
            apart.append(_grown(networks, optimizers))
        for scheduler in schedulers:
            if scheduler is not None:
                scheduler.step(*([error] if recipe.MONITOR else []))
    return {"apart": apart}


def _grown(networks: list[Any], optimizers: list[Any]) -> float:
    """Return the largest relative difference of two networks' parameters, buffers and optimizers' states."""
    pairs = list(zip(*(_state(network).values() for network in networks), strict=True))
    found = max(_relative(a, b, float(a.abs().max())) for a, b in pairs)
    states = [
        [value for w in network.parameters() for value in optimizer.state[w].values() if getattr(value, "shape", ())]
        for network, optimizer in zip(networks, optimizers, strict=True)
    ]
    if states[0]:
        largest = 1e-3 * max(float(a.abs().max()) for a in states[0])
        pairs = list(zip(*states, strict=True))
        found = max(found, *(_relative(a, b, max(float(a.abs().max()), largest)) for a, b in pairs))
    return found


def _relative(a: Any, b: Any, scale: float) -> float:
    return float((a - b).abs().max()) / scale if scale else 0.0


def statistics(folder: str, name: str, weights: str, inputs: str, layers: list[str], output: str) -> dict[str, Any]:
    """Write mean and variance, for each channel, of the inputs of `layers` in training mode to the file `output`."""
    import numpy as np
    import torch

    network = _network(protocol.Program(folder), name, weights, "float64").train()
    arrays: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            arrays[f"{layer}.mean"] = args[0].mean(dim=(0, 2, 3)).cpu().numpy()
            arrays[f"{layer}.var"] = args[0].var(dim=(0, 2, 3), correction=0).cpu().numpy()

        return hook

    for layer, module in network.named_modules():
        if layer in layers:
            module.register_forward_pre_hook(keep(layer))
    for module in _dropouts(network).values():
        module.p = 0.0
    with torch.no_grad():
        network(_floats(inputs, "float64"))
    np.savez(output, **arrays)
    return {}


def initial(folder: str, name: str, seed: int, draws: int, output: str) -> dict[str, Any]:
    """Write the initial weights of `draws` new models to the .npz file `output`."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    model = protocol.Program(folder)("model")
    drawn = [dict(getattr(model, name)().named_parameters()) for _ in range(draws)]
    arrays: dict[str, Any] = {name: np.stack([one[name].detach().numpy() for one in drawn]) for name in drawn[0]}
    np.savez(output, **arrays)
    return {}


def dropout(
    folder: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], seed: int, output: str
) -> dict[str, Any]:
    """Write the inputs and outputs of `layers`, in training mode with their own random numbers, and in evaluation."""
    import numpy as np
    import torch

    network = _network(protocol.Program(folder), name, weights, dtype)
    arrays: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            mode = "training" if network.training else "evaluation"
            arrays[f"{layer}.{mode}.in"] = args[0].cpu().numpy()
            arrays[f"{layer}.{mode}.out"] = output.cpu().numpy()

        return hook

    for layer, module in network.named_modules():
        if layer in layers:
            module.register_forward_hook(keep(layer))
    torch.manual_seed(seed)
    batch = _floats(inputs, dtype)
    with torch.no_grad():
        network.train()(batch)
        network.eval()(batch)
    np.savez(output, **arrays)
    return {}


def transforms(folder: str, name: str, weights: str, inputs: str, direction: list[str], output: str) -> dict[str, Any]:
    """Hold what PyTorch does with a model to the plain call: distances, and exceptions, by what it does.

    The Hessian of a random combination of the outputs, times `direction`, is written to the .npz file `output`. All in
    float64, in evaluation mode.
    """
    import copy
    import io

    import numpy as np
    import torch
    from torch import func
    from torch.nn import attention

    program = protocol.Program(folder)
    network = _network(program, name, weights, "float64").eval()
    batch = _floats(inputs, "float64")
    parameters = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    along = dict(_network(program, name, direction[0], "float64").named_parameters())
    there = _floats(direction[1], "float64")

    def call(values: Any, x: Any) -> Any:
        return func.functional_call(network, (values, buffers), (x,))

    outputs = network(batch).detach()
    mix = protocol.combination(outputs.shape)
    mix = torch.from_numpy(mix).to(outputs)

    def combined(values: Any, x: Any, factors: Any = mix) -> Any:
        return (call(values, x) * factors).sum()

    def gradients(create_graph: bool = False) -> tuple[list[Any], list[Any]]:
        x = batch.clone().requires_grad_()
        sources = [*network.parameters(), x]
        return sources, list(
            torch.autograd.grad((network(x) * mix).sum(), sources, create_graph=create_graph, materialize_grads=True)
        )

    def from_plain(found: Any) -> float:
        return float(protocol.apart(outputs, found.detach()))

    plain = gradients()[1]
    directions = [*along.values(), there]

    def second() -> float:
        sources, first = gradients(create_graph=True)
        slope = sum((gradient * v).sum() for gradient, v in zip(first, directions, strict=True))
        found: Any = [torch.zeros_like(source) for source in sources]
        if slope.requires_grad:
            found = torch.autograd.grad(slope, sources, materialize_grads=True)
        arrays = {key: value.cpu().numpy() for key, value in zip(parameters, found, strict=False)}
        np.savez(output, **arrays, input=found[-1].cpu().numpy())
        return 0.0

    def per_sample() -> float:
        each = func.vmap(func.grad(lambda values, x, m: combined(values, x[None], m[None])), (None, 0, 0))
        found = each(parameters, batch, mix)
        least = 1e-6 * max(float(a.abs().max()) for a in plain)
        pairs = zip(plain, (found[key].sum(0).detach() for key in parameters), strict=False)
        return max((protocol.apart(a, b, least) for a, b in pairs), default=0.0)

    def forward_mode() -> float:
        slope = func.jvp(combined, (parameters, batch), (along, there))[1]
        products = [(a * v).sum() for a, v in zip(plain, directions, strict=True)]
        length = float(sum(product * product for product in products)) ** 0.5
        return abs(float(slope - sum(products))) / length if length else float(slope)

    def compiled() -> float:
        reset: Any = torch.compiler.reset
        reset()
        compile_model: Any = torch.compile
        return from_plain(compile_model(network, backend="aot_eager", fullgraph=True)(batch))

    def saved() -> float:
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        other = getattr(program("model"), name)().to(batch).eval()
        other.load_state_dict(torch.load(file, weights_only=True))
        return from_plain(other(batch))

    def strided() -> float:
        wide = batch.new_zeros((*batch.shape[:-1], 2 * batch.shape[-1]))
        wide[..., ::2] = batch
        layouts = [wide[..., ::2]]
        if batch.ndim == 4:
            layouts.append(batch.contiguous(memory_format=torch.channels_last))
        return max(from_plain(network(layout)) for layout in layouts)

    doings = {
        "second derivatives": second,
        "vmap of grad": per_sample,
        "jvp": forward_mode,
        "torch.compile": compiled,
        "torch.export": lambda: from_plain(torch.export.export(network, (batch,)).module()(batch)),
        "save and load": saved,
        "deepcopy": lambda: from_plain(copy.deepcopy(network)(batch)),
        "other strides": strided,
    }
    # PyTorch's fused kernels of attention have neither second derivatives nor forward mode.
    torch.backends.mha.set_fastpath_enabled(False)
    with attention.sdpa_kernel(attention.SDPBackend.MATH):
        found: dict[str, Any] = protocol.each(doings)
    return found


# --- lockstep training: the network lives from one job to the next ---------------------------------------------------

_lockstep: dict[str, Any] = {}


def _loaders(folder: str, data: str, seed: int, size: int, statistics: str) -> tuple[Any, tuple[Any, Any]]:
    """Return a data set, and the loaders of training and of validation batches, as the training program makes them."""
    import torch

    program = protocol.Program(folder)
    engine, recipe = program("engine.data"), program("recipe")
    found = engine.read_data(Path(data) if data else None)
    options = types.SimpleNamespace(batch_size=size, seed=seed, workers=0, output=Path(statistics))
    processes = types.SimpleNamespace(rank=0, world_size=1, device=torch.device("cpu"))
    return found, engine.make_loaders(found, recipe, options, processes)


def _batches(loader: Any, epoch: int, first: int, count: int | None) -> list[Any]:
    """Return `count` batches of an epoch, from batch `first` on: images, (N, C, H, W), and labels."""
    loader.batch_sampler.epoch, loader.batch_sampler.first = epoch, first
    return [(images.numpy(), labels.numpy()) for images, labels in itertools.islice(loader, count)]


def images(folder: str, data: str, seed: int, size: int, epochs: int, output: str, name: str = "") -> dict[str, Any]:
    """Write the batches that the training program reads of a data set to the .npz file `output`.

    `training0.images` are all images of the first epoch of training, (N, C, H, W), `training0.labels` their labels and
    `training0.sizes` the sizes of its batches; `validation0` are those of validation after it.
    """
    import numpy as np

    _, loaders = _loaders(folder, data, seed, size, f"{output}.statistics")
    arrays: dict[str, Any] = {}
    for epoch in range(epochs):
        for name, loader in zip(("training", "validation"), loaders, strict=True):
            batches = _batches(loader, epoch if name == "training" else 0, 0, None)
            arrays |= protocol.joined(f"{name}{epoch}", batches)
    np.savez(output, **arrays)
    return {}


def open_data(folder: str, data: str, seed: int, size: int, statistics: str) -> dict[str, Any]:
    """Open a data set as the training program does; return the numbers of images and classes."""
    found, loaders = _loaders(folder, data, seed, size, statistics)
    _lockstep["loaders"] = loaders
    return {"counts": [len(found.train), len(found.validation)], "classes": found.num_classes}


def read_batches(epoch: int, first: int, count: int, output: str) -> dict[str, Any]:
    """Write `count` batches of an epoch, from batch `first` on, as the training program reads them.

    `output`.images.npy is (N, C, H, W) in float32, `output`.labels.npy the labels. Epoch -1 is validation.
    """
    loader = _lockstep["loaders"][0 if epoch >= 0 else 1]
    protocol.save_batches(output, _batches(loader, max(epoch, 0), first, count))
    return {}


def lockstep_begin(folder: str, name: str, weights: str, dtype: str) -> dict[str, Any]:
    """Make the network, with the canonical weights, its optimizer and its scheduler."""
    program = protocol.Program(folder)
    network = _network(program, name, weights, dtype)
    train, recipe = program("train"), program("recipe")
    optimizer = recipe.make_optimizer(network)
    scheduler = recipe.make_scheduler(optimizer)
    processes = program("engine.distributed").Processes(protocol.DEVICE)
    _lockstep.update(
        train=train, network=network, optimizer=optimizer, scheduler=scheduler, dtype=dtype, processes=processes
    )
    return {}


def lockstep_steps(images: str, labels: str, size: int, masks: str = "") -> dict[str, Any]:
    """Take a step on every batch of `size` in the files; return losses, and the number of correct predictions."""
    import torch

    network, train = _lockstep["network"], _lockstep["train"]
    xs, ys = _floats(images, _lockstep["dtype"]), _labels(labels)
    drawn = _uniform(masks) if masks else {}
    batch_draws = dict(drawn)
    losses, correct = [], 0
    start = time.perf_counter()
    with _drawn(network, batch_draws, set()) if masks else torch.enable_grad():
        for i in range(0, len(xs), size):
            batch_draws.update({layer: values[i : i + size] for layer, values in drawn.items()})
            batch, truth = xs[i : i + size], ys[i : i + size]
            loss, logits = train.train_step(network, _lockstep["optimizer"], batch, truth)
            losses.append(float(loss))
            correct += int((logits.argmax(dim=1) == truth).sum())
    return {"losses": losses, "correct": correct, "seconds": time.perf_counter() - start}


def lockstep_epoch(images: str, labels: str, size: int, monitor: str, output: str) -> dict[str, Any]:
    """End an epoch: validate, step the scheduler, write the weights to the .npz file `output`."""
    import numpy as np

    network, scheduler = _lockstep["network"], _lockstep["scheduler"]
    xs, ys = _floats(images, _lockstep["dtype"]), _labels(labels)
    batches = [(xs[i : i + size], ys[i : i + size], len(ys[i : i + size])) for i in range(0, len(xs), size)]
    means = _lockstep["train"].evaluate(network, batches, _lockstep["processes"])
    loss, accuracy = means["loss"], means["accuracy"]
    rate = float(_lockstep["optimizer"].param_groups[0]["lr"])
    if scheduler is not None:
        error = loss if monitor == "validation_loss" else 1 - accuracy
        scheduler.step(*([error] if monitor else []))
    np.savez(output, **{key: value.cpu().numpy() for key, value in _state(network).items()})
    return {"validation_loss": loss, "validation_accuracy": accuracy, "learning_rate": rate}


# --- the checkpoint of a training program -----------------------------------------------------------------------------


def checkpoint(path: str, output: str) -> dict[str, Any]:
    """Write the weights and the optimizer's states of a training program's checkpoint to the .npz file `output`."""
    import numpy as np
    import torch

    state = torch.load(path, weights_only=True)
    arrays = {name: weight.numpy() for name, weight in state["model"].items()}
    for number, states in state["optimizer"]["state"].items():
        arrays.update({f"{key} {number}": v.numpy() for key, v in states.items() if isinstance(v, torch.Tensor)})
    np.savez(output, **arrays)
    return {}


def read_weights(path: str, output: str) -> dict[str, Any]:
    """Write the tensors of a state dict, or of a checkpoint that has one, to a .npz file; nothing else is unpickled."""
    import numpy as np
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise TypeError(f"the file has a {type(state).__name__}, not a state dict")
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    wide = {torch.bfloat16: torch.float32}
    arrays: dict[str, Any] = {n: v.to(wide.get(v.dtype, v.dtype)).contiguous().numpy() for n, v in tensors.items()}
    np.savez(output, **arrays)
    return {}


def write_weights(weights: str, counts: list[str], path: str) -> dict[str, Any]:
    """Save canonical weights as a state dict, with the `counts` of norms' batches."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(weights) | {name: torch.tensor(0) for name in counts}, path)
    return {}


if __name__ == "__main__":
    protocol.serve(
        "torch",
        versions,
        {
            "structure": structure,
            "forward": forward,
            "gradients": gradients,
            "training": training,
            "statistics": statistics,
            "amplification": amplification,
            "initial": initial,
            "dropout": dropout,
            "transforms": transforms,
            "images": images,
            "open_data": open_data,
            "read_batches": read_batches,
            "lockstep_begin": lockstep_begin,
            "lockstep_steps": lockstep_steps,
            "lockstep_epoch": lockstep_epoch,
            "checkpoint": checkpoint,
            "read_weights": read_weights,
            "write_weights": write_weights,
        },
    )
