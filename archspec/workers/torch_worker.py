"""Runs generated PyTorch code."""

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of what computes here; raise RuntimeError if there is no such device."""
    import numpy
    import torch

    found = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": numpy.__version__}
    if protocol.DEVICE != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.zeros(1, device=protocol.DEVICE)
        found["device"] = torch.cuda.get_device_name()
    return found


# --- the network and its data ----------------------------------------------------------------------------------------


def _network(model: str, name: str, weights: str, dtype: str) -> Any:
    """Return the generated network with the canonical weights in it, as they stand."""
    import torch
    from safetensors.torch import load_file

    with torch.device("meta"):  # its own weights would be drawn for nothing
        network = getattr(protocol.module(model), name)()
    network.load_state_dict(load_file(weights), strict=True, assign=True)
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
    """Return the output of every layer that the network came to, and the fault that stopped it if one did."""
    import torch

    outputs: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            outputs[layer] = output.detach().clone()

        return hook

    hooks = [module.register_forward_hook(keep(layer)) for layer, module in network.named_children()]

    # A layer that is an expression has no module to hook. Its result has the variable of its name when forward returns.
    code = type(network).forward.__code__

    def at_return(frame: FrameType, event: str, result: Any) -> None:
        if event == "return" and frame.f_code is code:
            found = frame.f_locals
            named = {layer: found[layer] for layer in layers if layer in found and layer not in outputs}
            outputs.update({layer: value.detach().clone() for layer, value in named.items()})
            if result is not None:
                outputs[layers[-1]] = result.detach().clone()

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

    return {name: module for name, module in network.named_children() if isinstance(module, nn.Dropout)}


def _uniform(masks: str) -> dict[str, Any]:
    """Return the numbers in the file `masks`, that dropout layers draw."""
    import numpy as np
    import torch

    with np.load(masks) as arrays:
        return {layer: torch.from_numpy(arrays[layer]).to(protocol.DEVICE) for layer in arrays.files}


@contextmanager
def _drawn(network: Any, uniform: dict[str, Any], undrawn: set[str]) -> Iterator[None]:
    """Have torch's dropout draw the numbers in `uniform`, a layer each; what it does with them stays its own.

    Which layers asked for none is in `undrawn` at the end.
    """
    from torch.nn import functional

    undrawn.update(uniform)
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

    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in network.named_children()]
    original = functional.dropout
    functional.dropout = dropout
    try:
        yield
    finally:
        functional.dropout = original
        for handle in hooks:
            handle.remove()


# --- jobs ------------------------------------------------------------------------------------------------------------


def structure(model: str, name: str, inputs: list[int], layers: list[str]) -> dict[str, Any]:
    """Return the shapes of all parameters, and of all layers' outputs for inputs of the shape `inputs`."""
    import torch

    with torch.device("meta"):
        network = getattr(protocol.module(model), name)().eval()
        outputs, fault = _outputs(network, torch.zeros(inputs), layers)
    parameters = {name: list(weight.shape) for name, weight in network.named_parameters()}
    shapes = {layer: list(outputs[layer].shape) for layer in layers if layer in outputs}
    return {"parameters": parameters, "outputs": shapes, "fault": fault}


def forward(
    model: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output in evaluation mode to the file `output`.

    `inputs` is a .npy file of (N, C, H, W); `output` a .npz file with an array for each of `layers`.
    """
    import numpy as np

    network = _network(model, name, weights, dtype).eval()
    outputs, fault = _outputs(network, _floats(inputs, dtype), layers)
    np.savez(output, **{layer: outputs[layer].cpu().numpy() for layer in layers if layer in outputs})
    return {"fault": fault}


def gradients(
    model: str,
    train: str,
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
    """Write the gradients of the training file's loss to the .npz file `output`: of the parameters, and of the `input`.

    With `masks`, in training mode, dropout drawing those numbers; else in evaluation mode. `directions` are pairs of
    files, weights and inputs: the answer has the loss a `step` along each of them and against it.
    """
    import numpy as np
    import torch

    network = _network(model, name, weights, dtype).train(bool(masks))
    criterion = protocol.module(train).criterion
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
    np.savez(output, scores=scores.detach().cpu().numpy(), **arrays)
    del found, arrays

    moved = []
    for path, inputs_path in directions:
        along = dict(_network(model, name, path, dtype).named_parameters())
        there = _floats(inputs_path, dtype)
        losses = []
        with torch.no_grad():
            for distance in (step, -2 * step, step):
                for key, weight in network.named_parameters():
                    weight.add_(along[key], alpha=distance)
                batch += distance * there
                losses.append(float(criterion(network(batch), targets)))
        moved.append(losses[:2])
    return {"loss": float(loss), "moved": moved, "undrawn": sorted(undrawn)}


def training(
    model: str,
    train: str,
    name: str,
    weights: str,
    inputs: str,
    labels: str,
    dtype: str,
    epochs: list[list[float]],
    output: str,
) -> dict[str, Any]:
    """Train with the training file's own functions, dropout off; return every step's loss and rate.

    An epoch is [steps, error]: how many steps it takes, a batch of the .npy files each, and the validation error (and
    loss) that is measured after it. The .npz file `output` gets the weights at the end, and the optimizer's states.
    """
    import numpy as np

    network = _network(model, name, weights, dtype)
    generated = protocol.module(train)
    active = []  # whether each dropout was asked to drop
    for module in _dropouts(network).values():
        module.p = 0.0
        module.register_forward_hook(lambda module, args, output: active.append(module.training))
    optimizer = generated.make_optimizer(network)
    scheduler = generated.make_scheduler(optimizer) if hasattr(generated, "make_scheduler") else None
    batches = iter(zip(_floats(inputs, dtype), _labels(labels), strict=True))
    losses, rates = [], []
    for steps, error in epochs:
        for _ in range(int(steps)):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            losses.append(float(generated.train_step(network, optimizer, *next(batches))[0]))
        if scheduler is not None:
            scheduler.step(*([error] if "metrics" in scheduler.step.__code__.co_varnames else []))
    arrays = {}
    for key, weight in network.named_parameters():
        arrays[key] = weight.detach().cpu().numpy()
        states = [value for value in optimizer.state[weight].values() if getattr(value, "shape", None) == weight.shape]
        arrays.update({f"state{i}.{key}": value.cpu().numpy() for i, value in enumerate(states)})
    np.savez(output, **arrays)
    return {"losses": losses, "rates": rates, "drops": all(active), "peak_bytes": protocol.peak_bytes()}


def initial(model: str, name: str, seed: int, draws: int, output: str) -> dict[str, Any]:
    """Write the weights that the model is made with, `draws` times, to the .npz file `output`."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    generated = protocol.module(model)
    drawn = [dict(getattr(generated, name)().named_parameters()) for _ in range(draws)]
    arrays: dict[str, Any] = {name: np.stack([one[name].detach().numpy() for one in drawn]) for name in drawn[0]}
    np.savez(output, **arrays)
    return {}


def dropout(
    model: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], seed: int, output: str
) -> dict[str, Any]:
    """Write what the layers `layers` read and give, in training mode with draws of their own, and in evaluation."""
    import numpy as np
    import torch

    network = _network(model, name, weights, dtype)
    arrays: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            mode = "training" if network.training else "evaluation"
            arrays[f"{layer}.{mode}.in"] = args[0].cpu().numpy()
            arrays[f"{layer}.{mode}.out"] = output.cpu().numpy()

        return hook

    for layer, module in network.named_children():
        if layer in layers:
            module.register_forward_hook(keep(layer))
    torch.manual_seed(seed)
    batch = _floats(inputs, dtype)
    with torch.no_grad():
        network.train()(batch)
        network.eval()(batch)
    np.savez(output, **arrays)
    return {}


# --- a race: the network lives from one job to the next --------------------------------------------------------------

_race: dict[str, Any] = {}


def read_begin(model: str, train: str, data: str, seed: int, room: str) -> dict[str, Any]:
    """Find a data set as the training program does; return how many images and classes it has."""
    protocol.module(model)
    program = protocol.module(train)
    *sources, classes = program.read_data(Path(data) if data else None)
    known = [program.measure(sources[0], Path(room) / "known")] if hasattr(program, "measure") else []
    transforms = [program.make_transforms(training, *known) for training in (True, False)]
    images = [program.Images(source, both, seed) for source, both in zip(sources, transforms, strict=True)]
    _race.update(program=program, images=images, seed=seed)
    return {"counts": [len(source) for source in sources], "classes": classes}


def read(epoch: int, first: int, count: int, size: int, output: str) -> dict[str, Any]:
    """Write `count` batches of `size` of an epoch, from batch `first` on, as the training program reads and draws them.

    `output`.images.npy has (N, C, H, W) in float32, `output`.labels.npy the labels. Epoch -1 is what validates.
    """
    import numpy as np
    import torch

    program, images = _race["program"], _race["images"][0 if epoch >= 0 else 1]
    batches = program.Batches(len(images), size, _race["seed"] if epoch >= 0 else None)
    batches.epoch, batches.first = max(epoch, 0), first
    loader = torch.utils.data.DataLoader(images, batch_sampler=batches, generator=torch.Generator())
    found = list(itertools.islice(loader, count))
    for i, name in enumerate(("images", "labels")):
        np.save(f"{output}.{name}.npy", torch.cat([batch[i] for batch in found]).numpy())
    return {}


def race_begin(model: str, train: str, name: str, weights: str, dtype: str) -> dict[str, Any]:
    """Make the network, with the canonical weights, and all that trains it."""
    network = _network(model, name, weights, dtype)
    program = protocol.module(train)
    optimizer = program.make_optimizer(network)
    scheduler = program.make_scheduler(optimizer) if hasattr(program, "make_scheduler") else None
    _race.update(program=program, network=network, optimizer=optimizer, scheduler=scheduler, dtype=dtype)
    return {}


def race_steps(images: str, labels: str, size: int, masks: str = "") -> dict[str, Any]:
    """Take a step on every batch of `size` in the files; return losses, and how many were right."""
    import torch

    network, program = _race["network"], _race["program"]
    xs, ys = _floats(images, _race["dtype"]), _labels(labels)
    drawn = _uniform(masks) if masks else {}
    now = dict(drawn)
    losses, right = [], 0
    start = time.perf_counter()
    with _drawn(network, now, set()) if masks else torch.enable_grad():
        for i in range(0, len(xs), size):
            now.update({layer: values[i : i + size] for layer, values in drawn.items()})
            batch, truth = xs[i : i + size], ys[i : i + size]
            loss, scores = program.train_step(network, _race["optimizer"], batch, truth)
            losses.append(float(loss))
            right += int((scores.argmax(dim=1) == truth).sum())
    return {"losses": losses, "right": right, "seconds": time.perf_counter() - start}


def race_epoch(images: str, labels: str, size: int, monitor: str, output: str) -> dict[str, Any]:
    """End an epoch: validate, tell the schedule, write the weights to the .npz file `output`."""
    import numpy as np
    import torch

    network, scheduler = _race["network"], _race["scheduler"]
    xs, ys = _floats(images, _race["dtype"]), _labels(labels)
    batches = [(xs[i : i + size], ys[i : i + size]) for i in range(0, len(xs), size)]
    loss, accuracy = _race["program"].evaluate(network, batches, torch.device(protocol.DEVICE))
    rate = float(_race["optimizer"].param_groups[0]["lr"])
    if scheduler is not None:
        error = loss if monitor == "validation_loss" else 1 - accuracy
        scheduler.step(*([error] if "metrics" in scheduler.step.__code__.co_varnames else []))
    np.savez(output, **{key: weight.detach().cpu().numpy() for key, weight in network.named_parameters()})
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


if __name__ == "__main__":
    protocol.serve(
        "torch",
        versions,
        {
            "structure": structure,
            "forward": forward,
            "gradients": gradients,
            "training": training,
            "initial": initial,
            "dropout": dropout,
            "read_begin": read_begin,
            "read": read,
            "race_begin": race_begin,
            "race_steps": race_steps,
            "race_epoch": race_epoch,
            "checkpoint": checkpoint,
        },
    )
