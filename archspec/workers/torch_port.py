"""Runs a PyTorch model that somebody else wrote with the weights of a spec: in a process of its own, or in the model's.

Reads a request, one JSON object, from standard input, and writes one to the file that it names.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import protocol
from matching import Matcher, Observer, Weight, canonical, spec_weights
from torch_import import SourceError, make, still


def port(request: dict[str, Any], model: Any = None) -> dict[str, Any]:
    """Return which layer each module is; write outputs, gradients and buffers in both modes to the file `arrays`.

    The weights are those of the spec's layers; in training mode dropouts are the identity. All in float64. A `model`
    that is given is altered: see `live`.
    """
    import numpy as np
    import torch
    from safetensors.numpy import load_file

    torch.manual_seed(0)
    model = (make(request["source"]) if model is None else model).double().eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = load_file(request["weights"])
    inputs = {mode: np.load(path).astype(np.float64) for mode, path in request["inputs"].items()}
    with np.load(request["outputs"]) as file:
        matcher = Matcher(request["layers"], dict(file), inputs["evaluation"])
    arrays: dict[str, Any] = {}
    with still(model) as _, torch.no_grad():
        observer = _Observer(model, matcher, weights)
        fault = ""
        try:
            with observer.watching():
                y = _output(model(torch.from_numpy(inputs["evaluation"])))
        except SourceError:
            raise
        except Exception as error:
            fault = f"{type(error).__name__}: {str(error).splitlines()[0]}{_place(error.__traceback__)}"
    answer: dict[str, Any] = observer.answer(arrays) | {
        "parameters": parameters,
        "versions": {"torch": torch.__version__},
        "fault": fault,
        "rates": [],
    }
    if fault:
        np.savez(request["arrays"], **arrays)
        return answer
    arrays["y"] = y.numpy()
    for mode, values in inputs.items():
        model.train(mode == "training").requires_grad_(True)
        x = torch.from_numpy(values).requires_grad_()
        model.zero_grad()
        with still(model) as rates:
            y = _output(model(x))
        answer["rates"] = rates or answer["rates"]
        y.square().sum().backward()
        arrays |= {f"{mode}/y": y.detach().numpy(), f"{mode}/dx": x.grad.numpy()}  # type: ignore[union-attr]
        for assigned, param, weight, tensor in observer.pairs():
            name = f"{assigned.layer}.{param}"
            if not tensor.requires_grad:
                arrays[f"{mode}/buffer/{name}"] = canonical(assigned, weight, tensor.detach().numpy())
            elif tensor.grad is not None:
                arrays[f"{mode}/gradient/{name}"] = canonical(assigned, weight, tensor.grad.numpy())
    np.savez(request["arrays"], **arrays)
    return answer


def live(request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the same of a copy of a model of this process, of which neither weights nor random state change."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        return port(request, _copied(model))


def counts(request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the shapes of a model's parameters, and its multiply-accumulates by torch.utils.flop_counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), FlopCounterMode(display=False) as counter:
        _copied(model).float().eval()(torch.zeros(1, *request["input_shape"]))
    return {"shapes": shapes, "macs": counter.get_total_flops() // 2}


def _copied(model: Any) -> Any:
    try:
        return copy.deepcopy(getattr(model, "_orig_mod", model)).cpu()  # the module that torch.compile wraps
    except Exception as error:
        raise SourceError(f"{type(model).__name__} cannot be copied: {error}") from error


class _Observer(Observer):  # type: ignore[misc]
    """Gives each module the weights of the layer that it is, and shows all that is computed to the matcher."""

    def __init__(self, model: Any, matcher: Matcher, weights: dict[str, Any]) -> None:
        super().__init__(matcher)
        self._model, self._weights = model, weights
        self._stack: list[tuple[str, Any]] = [("", model)]
        self.classes = {path: type(module).__name__ for path, module in model.named_modules()}
        names = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
        state = {name: value for name, value in model.state_dict(keep_vars=True).items() if name in names}
        for path, module in model.named_modules():
            inside = self._state_of(path, module, state)
            if not inside:
                continue
            if self._is_layer(module):
                self.tensors[path] = inside
            else:  # a class token, a position embedding: parameters that the model uses itself
                for name, tensor in inside.items():
                    whole = ".".join(filter(None, (path, name)))
                    self.tensors[whole] = {name: tensor}
                    self._give(whole, None)

    @staticmethod
    def _is_layer(module: Any) -> bool:
        return type(module).__name__ == "MultiheadAttention" or not any(True for _ in module.children())

    def _state_of(self, path: str, module: Any, state: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters and buffers of a module itself, those of an attention with its projection."""
        prefix = f"{path}." if path else ""
        owner = path.rpartition(".")[0]
        if self.classes.get(owner) == "MultiheadAttention":
            return {}
        whole = type(module).__name__ == "MultiheadAttention"
        return {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix) and (whole or "." not in name.removeprefix(prefix))
            if value.is_floating_point()
        }

    def _give(self, path: str, reads: Any) -> None:
        """Find out which layer a module is, and load that layer's weights."""
        import torch

        tensors = self.tensors[path]
        weights = [Weight(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
        assigned = self.matcher.assign(weights, reads)
        if assigned is None:
            self.add_surplus(path, weights)
            return
        self.assigned[path] = assigned
        for weight, array in spec_weights(assigned, self._weights):
            values = torch.from_numpy(weight.from_canonical(array, tensors[weight.name].shape))
            tensors[weight.name].data.copy_(values)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a forward pass."""
        import torch
        from torch.overrides import TorchFunctionMode

        see = self._see

        class Watch(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor):
                    see(result)
                return result

        def enter(path: str) -> Any:
            def hook(module: Any, args: Any) -> None:
                self._stack.append((path, module))
                if path in self.tensors and path not in self.assigned and args and isinstance(args[0], torch.Tensor):
                    self._give(path, args[0].detach().numpy())

            return hook

        def leave(module: Any, args: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                see(output)
            self._stack.pop()

        handles = []
        for path, module in self._model.named_modules():
            handles += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave)]
        try:
            with Watch():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _see(self, tensor: Any) -> None:
        path, module = self._stack[-1]
        own = not type(module).__module__.startswith("torch.nn.")
        place = path + (_place(sys._getframe(1)) if own else "")
        self.matcher.see(place.removeprefix(", "), tensor.detach().numpy())


def _output(y: Any) -> Any:
    """Return the tensor of a model's output: the first of several, or what Hugging Face and torchvision call it."""
    if isinstance(y, dict):
        y = next(iter(y.values()))
    y = y[0] if isinstance(y, tuple | list) else getattr(y, "logits", y)
    if not hasattr(y, "square"):
        raise SourceError(f"the model returns a {type(y).__name__}, no tensor")
    return y


def _place(where: Any) -> str:
    """Return the line of the user's own code in a frame or in a traceback, as `, at FILE:LINE`; empty if none is."""
    found: Sequence[tuple[str, int]] = []
    if hasattr(where, "tb_frame"):
        while where:
            found = [*found, (where.tb_frame.f_code.co_filename, where.tb_lineno)]
            where = where.tb_next
        found = list(reversed(found))
    else:
        while where:
            found = [*found, (where.f_code.co_filename, where.f_lineno)]
            where = where.f_back
    here = str(Path(__file__).parent)
    for file, line in found:
        if "/torch/" not in file and not file.startswith((here, "<")):
            return f", at {Path(file).name}:{line}"
    return ""


if __name__ == "__main__":
    protocol.answer_once({"port": port})
