"""Runs generated Keras code, on the backend that KERAS_BACKEND names."""

import contextlib
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of the framework and its device; raise RuntimeError if there is no such device."""
    import numpy

    keras = protocol.import_keras()
    backend = keras.backend.backend()
    engine = __import__({"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend])
    found = {"python": sys.version.split()[0], "keras": keras.__version__, backend: engine.__version__}
    if protocol.DEVICE != "cpu":
        found["device"] = _without_tf32(backend, engine)
    return {**found, "numpy": numpy.__version__}


def _without_tf32(backend: str, engine: Any) -> str:
    """Have the backend compute float32 as float32 on a GPU; return its name."""
    if backend == "tensorflow":
        if not (gpus := engine.config.list_physical_devices("GPU")):
            raise RuntimeError("TensorFlow sees no GPU")
        engine.config.experimental.enable_tensor_float_32_execution(False)
        return str(engine.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    if backend == "jax":
        engine.config.update("jax_default_matmul_precision", "float32")
        return str(engine.devices("gpu")[0].device_kind)
    engine.backends.cuda.matmul.allow_tf32 = engine.backends.cudnn.allow_tf32 = False
    engine.zeros(1, device="cuda")
    return str(engine.cuda.get_device_name())


# --- the network and its data ----------------------------------------------------------------------------------------


def _fresh(dtype: str) -> None:
    """Clear Keras' state and set `dtype`."""
    import keras

    if keras.backend.backend() != "tensorflow":
        # Keras' own rules of promotion make float32 of float64 on these backends, after JAX's default.
        from keras.src.backend.common import dtypes

        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.utils.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)  # floatx alone does nothing once a layer has been made


def _network(program: protocol.Program, name: str, weights: str, dtype: str) -> Any:
    """Return the generated network with the canonical weights of a file."""
    _fresh(dtype)
    model = program("model")
    network = getattr(model, name)()
    if network.weights:
        model.load_torch_weights(network, weights)
    with contextlib.suppress(ImportError):  # a folder with a model alone
        program("engine.layers").split_groups(network)
    return network


def _compiled(program: protocol.Program, name: str, weights: str, dtype: str) -> Any:
    """Return the network, compiled by the training program."""
    network = _network(program, name, weights, dtype)
    program("train").compile_model(network)
    return network


def _ready(network: Any, labels: Any) -> None:
    """Make the variables of the optimizer and the metrics, as `fit` does: then TensorFlow traces the step once."""
    import keras

    network.optimizer.build(network.trainable_variables)
    scores = keras.ops.zeros((len(labels), *network.output_shape[1:]))
    network.compute_metrics(None, keras.ops.convert_to_tensor(labels), scores)
    network.reset_metrics()


def _floats(path: str, dtype: str) -> Any:
    import numpy as np

    return np.load(path).astype(dtype)


class Canonical:
    """The variables of a network in PyTorch's names and layouts.

    Consecutive integers, loaded by the generated `load_torch_weights`, tell where each value of a variable comes from.
    `faults` are the layers whose weights cannot be loaded, or are no permutation of a canonical array.
    """

    def __init__(self, program: protocol.Program, name: str) -> None:
        import numpy as np
        from safetensors import numpy as stored

        _fresh("float64")
        model = program("model")
        network = getattr(model, name)()
        self.faults: dict[str, str] = {}
        self._places: dict[tuple[str, str], tuple[str, Any]] = {}
        if not network.weights:
            return
        arrays, first = {}, 0
        for key, shape in protocol.PARAMETERS.items():
            size = int(np.prod(shape))
            arrays[key] = np.arange(first, first + size, dtype=np.float64).reshape(shape)
            first += size
        numpy: Any = stored
        load, numpy.load_file = numpy.load_file, lambda path: dict(arrays)
        try:
            model.load_torch_weights(network, "")
        except Exception:  # find the layer
            for layer in network.layers:
                try:
                    model.load_torch_weights(types.SimpleNamespace(layers=[layer]), "")
                except Exception as error:
                    self.faults[layer.name] = f"{type(error).__name__}: {error}"
        finally:
            numpy.load_file = load
        starts = {int(array.flat[0]): key for key, array in arrays.items() if array.size}
        for layer in network.layers:
            for variable in layer.weights if layer.name not in self.faults else ():
                values = variable.numpy().astype(np.int64) if hasattr(variable, "numpy") else _integers(variable)
                key = starts.get(int(values.min()), "") if values.size else ""
                place = _place(values, arrays[key].shape) if key else None
                if place is None:
                    self.faults[layer.name] = f"{variable.name} is no permutation of a canonical array"
                else:
                    self._places[layer.name, variable.name] = (key, place)

    def named(self, network: Any, values: list[Any] | None = None, *, trainable: bool = True) -> dict[str, Any]:
        """Return arrays by canonical name, in PyTorch's layout: the variables, or `values` of their shapes."""
        owned = [
            (layer.name, variable)
            for layer in network.layers
            for variable in (layer.trainable_variables if trainable else layer.weights)
        ]
        found = {}
        for i, (layer, variable) in enumerate(owned):
            key, place = self._places.get((layer, variable.name), (f"{layer}.{variable.name}", None))
            value = variable if values is None else values[i]
            if value is not None:
                array = _arrays([value])[0]
                found[key] = array if place is None else _permuted(array, place)
        return found

    def shapes(self) -> dict[str, list[int]]:
        """Return the canonical shapes of the variables that can be loaded."""
        return {key: protocol.PARAMETERS[key] for key, _ in self._places.values()}


def _integers(variable: Any) -> Any:
    import numpy as np

    return _arrays([variable])[0].astype(np.int64)


def _place(values: Any, shape: tuple[int, ...]) -> Any:
    """Return how consecutive integers were permuted: the order of axes, or the place of each; None if they were not."""
    import numpy as np

    start = values.min()
    if values.size != np.prod(shape):
        return None
    if values.ndim == len(shape):
        steps = [
            int(values.take(1, axis).flat[0] - values.flat[0]) if n > 1 else 0 for axis, n in enumerate(values.shape)
        ]
        order = tuple(sorted(range(values.ndim), key=lambda axis: (-steps[axis], axis)))
        turned = values.transpose(order)
        if turned.shape == shape and (np.diff(turned.reshape(-1)) == 1).all():
            return order
    seen = np.zeros(values.size, bool)
    places = values.reshape(-1) - start
    if places.max() >= values.size:
        return None
    seen[places] = True
    return (shape, places) if seen.all() else None


def _permuted(array: Any, place: Any) -> Any:
    """Return an array as `place` says."""
    import numpy as np

    if isinstance(place[0], int):
        return np.ascontiguousarray(array.transpose(place))
    shape, places = place
    found = np.empty(array.size, array.dtype)
    found[places] = array.reshape(-1)
    return found.reshape(shape)


_known: dict[Any, Canonical] = {}  # by the text of the model


def _canonical(folder: str, program: protocol.Program, name: str) -> Canonical:
    key = ((Path(folder) / "model.py").read_bytes(), name, repr(protocol.PARAMETERS))
    if key not in _known:
        _known.clear()
        _known[key] = Canonical(program, name)
    return _known[key]


def _named(layers: list[str]) -> dict[str, str]:
    """Return the names of layers in Keras, by canonical name."""
    return {layer: layer.replace(".", "_") for layer in layers}


def _arrays(values: Any) -> list[Any]:
    import keras

    return [keras.ops.convert_to_numpy(value) for value in values]


def _dropouts(network: Any) -> list[Any]:
    import keras

    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout)]


def _uniform(masks: str) -> dict[str, Any]:
    """Return the random numbers in the file `masks`, by dropout layer."""
    import numpy as np

    with np.load(masks) as arrays:
        return {layer.replace(".", "_"): values for layer, values in arrays.items()}


@contextmanager
def _drawn(network: Any, uniform: dict[str, Any], undrawn: set[str]) -> Iterator[None]:
    """Replace the random numbers of Keras' dropout by those in `uniform`, by layer; the rest stays Keras'.

    At the end, `undrawn` has the layers that asked for none.
    """
    import keras
    from keras.src import backend

    undrawn.update(uniform)
    whose = {id(layer.seed_generator): layer.name for layer in _dropouts(network) if hasattr(layer, "seed_generator")}

    def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
        layer = whose[id(seed)]
        undrawn.discard(layer)
        numbers = uniform[layer][: keras.ops.shape(inputs)[0]]
        return inputs * keras.ops.cast(numbers >= rate, inputs.dtype) / (1 - rate)

    original = backend.random.dropout
    backend.random.dropout = dropout
    try:
        yield
    finally:
        backend.random.dropout = original


def _in_one_program(network: Any, batch: Any) -> Any:
    """Return the outputs in evaluation mode, compiled as one: eagerly, XLA compiles every operator for every shape."""
    import jax

    @jax.jit
    def outputs(trainable: Any, fixed: Any, x: Any) -> Any:
        return network.stateless_call(trainable, fixed, x, training=False)[0]

    trainable, fixed = network.trainable_variables, network.non_trainable_variables
    return outputs([v.value for v in trainable], [v.value for v in fixed], jax.numpy.asarray(batch))


def _gradients(network: Any, batch: Any, labels: Any, training: bool) -> tuple[Any, Any, list[Any]]:
    """Return the scores, the compiled loss, and its gradients: of the batch, and of the variables."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(batch)
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = network(x, training=training)
            loss = network.loss(labels, scores)
        return scores, loss, tape.gradient(loss, [x, *(v.value for v in network.trainable_variables)])
    if backend == "jax":
        import jax

        def of(x: Any, variables: Any) -> Any:
            fixed = [v.value for v in network.non_trainable_variables]
            scores, after = network.stateless_call(variables, fixed, x, training=training)
            return network.loss(labels, scores), (scores, after)

        variables = [v.value for v in network.trainable_variables]
        function = jax.jit(jax.value_and_grad(of, argnums=(0, 1), has_aux=True))
        (loss, (scores, after)), (dx, dv) = function(jax.numpy.asarray(batch), variables)
        for variable, value in zip(network.non_trainable_variables, after, strict=True):
            variable.assign(value)
        return scores, loss, [dx, *dv]
    x = keras.ops.convert_to_tensor(batch).requires_grad_()
    scores = network(x, training=training)
    loss = network.loss(labels, scores)
    loss.backward()
    return scores, loss, [x.grad, *(v.value.grad for v in network.trainable_variables)]


# --- jobs ------------------------------------------------------------------------------------------------------------


def structure(folder: str, name: str, inputs: list[int], layers: list[str]) -> dict[str, Any]:
    """Return the shapes of all parameters in PyTorch's layout, and of all layers' outputs in Keras'."""
    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    _fresh("float32")
    network = getattr(program("model"), name)()
    made = {layer.name: layer for layer in network.layers}
    names = _named(layers)
    shapes = {layer: [inputs[0], *made[key].output.shape[1:]] for layer, key in names.items() if key in made}
    layer_of = {key: layer for layer, key in names.items()}
    faults = {layer_of.get(key, key): fault for key, fault in canonical.faults.items()}
    return {"parameters": canonical.shapes(), "outputs": shapes, "fault": "", "faults": faults}


def forward(
    folder: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output in evaluation mode to the file `output`.

    `inputs` is a .npy file of (N, H, W, C); `output` a .npz file with an array for each of `layers`.
    """
    import keras
    import numpy as np

    network = _network(protocol.Program(folder), name, weights, dtype)
    made = {layer.name: layer for layer in network.layers}
    present = [layer for layer, key in _named(layers).items() if key in made]
    taps = {layer: made[layer.replace(".", "_")].output for layer in present}
    if layers[-1] in taps:
        taps[layers[-1]] = network.outputs[0]
    tap = keras.Model(network.inputs, taps)
    batch = _floats(inputs, dtype)
    results = _in_one_program(tap, batch) if keras.backend.backend() == "jax" else tap(batch, training=False)
    np.savez(output, **dict(zip(present, _arrays(results[layer] for layer in present), strict=True)))
    return {"fault": ""}


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

    With `masks`, in training mode with those random numbers for dropout, and with the running statistics after it;
    otherwise in evaluation mode. `directions` are pairs of files, weights and inputs: the answer has the loss at
    +-`step` along each of them.
    """
    import keras
    import numpy as np

    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    network = _compiled(program, name, weights, dtype)
    batch, targets = _floats(inputs, dtype), np.load(labels)
    undrawn: set[str] = set()
    if masks:
        numbers = {layer: keras.ops.convert_to_tensor(values) for layer, values in _uniform(masks).items()}
        with _drawn(network, numbers, undrawn):
            scores, loss, found = _gradients(network, batch, targets, training=True)
    else:
        scores, loss, found = _gradients(network, batch, targets, training=False)
    arrays = canonical.named(network, found[1:])
    if found[0] is not None:
        arrays["input"] = _arrays(found[:1])[0]
    if masks:
        for key, value in canonical.named(network, trainable=False).items():
            if key.endswith(("running_mean", "running_var")):
                arrays[key] = value
    np.savez(output, scores=keras.ops.convert_to_numpy(scores), **arrays)
    del found, arrays

    moved = []
    here = network.get_weights() if directions else []
    for path, inputs_path in directions:
        if here:
            program("model").load_torch_weights(network, path)
        along, there = network.get_weights(), _floats(inputs_path, dtype)
        losses = []
        for distance in (step, -step):
            network.set_weights([w + distance * v for w, v in zip(here, along, strict=True)])
            losses.append(float(network.loss(targets, network(batch + distance * there, training=False))))
        moved.append(losses)
    return {"loss": float(loss), "moved": moved, "undrawn": sorted(undrawn)}


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
    canonical = _canonical(folder, program, name)
    network = _compiled(program, name, weights, dtype)
    for layer in _dropouts(network):
        layer.rate = 0.0
    scheduler = program("recipe").make_scheduler()
    if scheduler is not None:
        scheduler.set_model(network)
        scheduler.on_train_begin()
    batches = iter(zip(_floats(inputs, dtype), np.load(labels), strict=True))
    _ready(network, np.load(labels)[0])
    losses, rates = [], []
    for epoch, (steps, error) in enumerate(epochs):
        if scheduler is not None:
            scheduler.on_epoch_begin(epoch)
        for _ in range(int(steps)):
            rates.append(float(_arrays([network.optimizer.learning_rate])[0]))
            losses.append(float(network.train_on_batch(*next(batches), return_dict=True)["loss"]))
        if scheduler is not None:
            scheduler.on_epoch_end(epoch, {"val_loss": error, "val_accuracy": 1 - error})
    arrays = canonical.named(network, trainable=False)
    states, count = network.optimizer.variables[2:], len(network.trainable_variables)  # after step count and rate
    for i in range(len(states) // max(1, count)):
        values = canonical.named(network, list(states[i * count : (i + 1) * count]))
        arrays.update({f"state{i}.{key}": value for key, value in values.items()})
    np.savez(output, **arrays)
    return {"losses": losses, "rates": rates, "drops": True, "peak_bytes": protocol.peak_bytes()}


def initial(folder: str, name: str, seed: int, draws: int, output: str) -> dict[str, Any]:
    """Write the initial weights of `draws` new models to the .npz file `output`."""
    import keras
    import numpy as np

    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    _fresh("float32")
    keras.utils.set_random_seed(seed)
    model = program("model")
    drawn = [canonical.named(getattr(model, name)()) for _ in range(draws)]
    arrays: dict[str, Any] = {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}
    np.savez(output, **arrays)
    return {}


def dropout(
    folder: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], seed: int, output: str
) -> dict[str, Any]:
    """Write the inputs and outputs of `layers`, in training mode with their own random numbers, and in evaluation."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(seed)
    network = _network(protocol.Program(folder), name, weights, dtype)
    made = {layer.name: layer for layer in network.layers}
    present = {layer: made[key] for layer, key in _named(layers).items() if key in made}
    ends = {f"{layer}.in": one.input for layer, one in present.items()}
    tap = keras.Model(network.inputs, {**ends, **{f"{layer}.out": one.output for layer, one in present.items()}})
    arrays = {}
    for mode in ("training", "evaluation"):
        for name, value in tap(_floats(inputs, dtype), training=mode == "training").items():
            layer, end = name.rsplit(".", 1)
            arrays[f"{layer}.{mode}.{end}"] = keras.ops.convert_to_numpy(value)
    np.savez(output, **arrays)
    return {}


def amplification(
    folder: str, name: str, weights: str, inputs: str, labels: str, epochs: list[list[float]]
) -> dict[str, Any]:
    """Train two copies, one with every weight moved by one rounding of float64; return how far apart they are.

    After each step: the largest difference of any parameter or running statistic, relative to its largest value.
    """
    import numpy as np

    program = protocol.Program(folder)
    first = _compiled(program, name, weights, "float64")
    second = getattr(program("model"), name)()
    program("train").compile_model(second)
    random = np.random.default_rng(0)
    second.set_weights(
        [np.nextafter(w, np.where(random.random(w.shape) < 0.5, np.inf, -np.inf)) for w in first.get_weights()]
    )
    schedulers = []
    for network in (first, second):
        _ready(network, np.load(labels)[0])
        for layer in _dropouts(network):
            layer.rate = 0.0
        if (scheduler := program("recipe").make_scheduler()) is not None:
            scheduler.set_model(network)
            scheduler.on_train_begin()
            schedulers.append(scheduler)
    batches = iter(zip(_floats(inputs, "float64"), np.load(labels), strict=True))
    apart = []
    for epoch, (steps, error) in enumerate(epochs):
        for scheduler in schedulers:
            scheduler.on_epoch_begin(epoch)
        for _ in range(int(steps)):
            batch = next(batches)
            for network in (first, second):
                network.train_on_batch(*batch)
            pairs = zip(first.get_weights(), second.get_weights(), strict=True)
            apart.append(max(float(abs(a - b).max()) / (float(abs(a).max()) or 1.0) for a, b in pairs))
        for scheduler in schedulers:
            scheduler.on_epoch_end(epoch, {"val_loss": error, "val_accuracy": 1 - error})
    return {"apart": apart}


def statistics(folder: str, name: str, weights: str, inputs: str, layers: list[str], output: str) -> dict[str, Any]:
    """Write mean and variance, for each channel, of the inputs of `layers` in training mode to the file `output`."""
    import keras
    import numpy as np

    network = _network(protocol.Program(folder), name, weights, "float64")
    for layer in _dropouts(network):
        layer.rate = 0.0
    made = {layer.name: layer for layer in network.layers}
    present = {layer: made[key] for layer, key in _named(layers).items() if key in made}
    tap = keras.Model(network.inputs, {layer: one.input for layer, one in present.items()})
    arrays = {}
    for layer, value in tap(_floats(inputs, "float64"), training=True).items():
        values = keras.ops.convert_to_numpy(value)
        arrays[f"{layer}.mean"], arrays[f"{layer}.var"] = values.mean((0, 1, 2)), values.var((0, 1, 2))
    np.savez(output, **arrays)
    return {}


# --- lockstep training: the network lives from one job to the next ---------------------------------------------------

_lockstep: dict[str, Any] = {}


class _Reader:
    """A data set as the training program reads it."""

    def __init__(self, folder: str, data: str, seed: int, size: int, statistics: str) -> None:
        program = protocol.Program(folder)
        self._engine, self._transforms, self._recipe = map(program, ("engine.data", "engine.transforms", "recipe"))
        self.data = self._engine.read_data(Path(data) if data else None)
        self._seed, self._size = seed, size
        self._statistics = self._transforms.measure(self.data.train, self._recipe, Path(f"{statistics}.npz"))

    def batches(self, epoch: int, first: int = 0, count: int | None = None) -> Any:
        """Return a tf.data.Dataset of `count` batches of an epoch, from batch `first` on. Epoch -1 is validation."""
        import numpy as np

        source = self.data[0 if epoch >= 0 else 1]
        seed, number = (self._seed, epoch) if epoch >= 0 else (None, 0)
        order = np.arange(len(source[0]))
        if seed is not None:
            order = self._engine.epoch_order(len(order), seed, epoch)
        transform = self._transforms.make_transform(self._recipe, self._statistics, seed, number)
        parts = self._engine.split_batches(order, self._size)[first:][:count]
        return self._engine.make_dataset(source, parts, transform, 0)


def _canonical_batches(dataset: Any) -> list[Any]:
    """Return the batches of a dataset: images, (N, C, H, W), and labels."""
    import numpy as np

    return [(np.moveaxis(batch[0].numpy(), -1, -3), batch[1].numpy()) for batch in dataset]


def images(folder: str, data: str, seed: int, size: int, epochs: int, output: str, name: str = "") -> dict[str, Any]:
    """Write the batches that the training program reads of a data set to the .npz file `output`.

    `training0.images` are all images of the first epoch of training, (N, C, H, W), `training0.labels` their labels and
    `training0.sizes` the sizes of its batches; `validation0` are those of validation after it.
    """
    import numpy as np

    reader = _Reader(folder, data, seed, size, f"{output}.statistics")
    validation = reader.batches(-1)
    arrays: dict[str, Any] = {}
    for epoch in range(epochs):
        arrays |= protocol.joined(f"training{epoch}", _canonical_batches(reader.batches(epoch)))
        arrays |= protocol.joined(f"validation{epoch}", _canonical_batches(validation))
    np.savez(output, **arrays)
    return {}


def open_data(folder: str, data: str, seed: int, size: int, statistics: str) -> dict[str, Any]:
    """Open a data set as the training program does; return the numbers of images and classes."""
    reader = _lockstep["reader"] = _Reader(folder, data, seed, size, statistics)
    return {"counts": [len(part[0]) for part in reader.data[:2]], "classes": reader.data.num_classes}


def read_batches(epoch: int, first: int, count: int, output: str) -> dict[str, Any]:
    """Write `count` batches of an epoch, from batch `first` on, as the training program reads them.

    `output`.images.npy is (N, C, H, W) in float32, `output`.labels.npy the labels. Epoch -1 is validation.
    """
    protocol.save_batches(output, _canonical_batches(_lockstep["reader"].batches(epoch, first, count)))
    return {}


def lockstep_begin(folder: str, name: str, weights: str, dtype: str) -> dict[str, Any]:
    """Make the network, with the canonical weights, compiled, and its scheduler."""
    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    network = _compiled(program, name, weights, dtype)
    scheduler = program("recipe").make_scheduler()
    if scheduler is not None:
        scheduler.set_model(network)
        scheduler.on_train_begin()
    _lockstep.update(
        canonical=canonical, program=program, network=network, scheduler=scheduler, dtype=dtype, epoch=0, drawn={}
    )
    return {}


def lockstep_steps(images: str, labels: str, size: int, masks: str = "") -> dict[str, Any]:
    """Take a step on every batch of `size` in the files; return losses, and the number of correct predictions."""
    import numpy as np

    network, scheduler = _lockstep["network"], _lockstep["scheduler"]
    xs, ys = _last(images, _lockstep["dtype"]), np.load(labels)
    drawn = _uniform(masks) if masks else {}
    variables = _lockstep["drawn"]
    for layer in _dropouts(network):
        if layer.name in drawn and layer.name not in variables:
            # A weight of the layer, so that the compiled step reads new numbers each time.
            layer._tracker.unlock()
            shape = (size, *drawn[layer.name].shape[1:])
            variables[layer.name] = layer.add_weight(shape=shape, dtype="float32", trainable=False, name="drawn")
    if scheduler is not None:
        scheduler.on_epoch_begin(_lockstep["epoch"])
    losses, correct = [], 0.0
    start = time.perf_counter()
    with _drawn(network, variables, set()):
        for i in range(0, len(xs), size):
            for layer, values in drawn.items():
                numbers = np.zeros(variables[layer].shape, np.float32)
                numbers[: len(values[i : i + size])] = values[i : i + size]
                variables[layer].assign(numbers)
            network.reset_metrics()
            logs = network.train_on_batch(xs[i : i + size], ys[i : i + size], return_dict=True)
            losses.append(float(logs["loss"]))
            correct += float(logs["accuracy"]) * len(ys[i : i + size])
    return {"losses": losses, "correct": round(correct), "seconds": time.perf_counter() - start}


def lockstep_epoch(images: str, labels: str, size: int, monitor: str, output: str) -> dict[str, Any]:
    """End an epoch: validate, call the scheduler, write the weights to the .npz file `output`."""
    import numpy as np

    network, scheduler = _lockstep["network"], _lockstep["scheduler"]
    xs, ys = _last(images, _lockstep["dtype"]), np.load(labels)
    batches = [((xs[i : i + size], ys[i : i + size]), len(ys[i : i + size])) for i in range(0, len(xs), size)]
    train = _lockstep["program"]("train")
    evaluator = network if xs.ndim < 5 else train.make_evaluator(network, crops=True)
    _, test = _lockstep["program"]("engine.distributed").Devices(False).functions(network, evaluator)
    means = train.evaluate(test, batches)
    loss, accuracy = means["loss"], means["accuracy"]
    rate = float(_arrays([network.optimizer.learning_rate])[0])
    if scheduler is not None:
        scheduler.on_epoch_end(_lockstep["epoch"], {"val_loss": loss, "val_accuracy": accuracy})
    _lockstep["epoch"] += 1
    np.savez(output, **_lockstep["canonical"].named(network, trainable=False))
    return {"validation_loss": loss, "validation_accuracy": accuracy, "learning_rate": rate}


@contextmanager
def _differentiable_moments() -> Iterator[None]:
    """Have TensorFlow's moments keep the second derivatives of a variance, which tf.nn.moments stops at the mean.

    Those of Keras' norms are wrong on TensorFlow for this reason: it is a fault of the framework, not of the code.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import nn

    def moments(x: Any, axes: Any, keepdims: bool) -> Any:
        return tf.reduce_mean(x, axes, keepdims=keepdims), tf.math.reduce_variance(x, axes, keepdims=keepdims)

    original, nn._compute_moments = nn._compute_moments, moments
    try:
        yield
    finally:
        nn._compute_moments = original


def _second(network: Any, batch: Any, mix: Any, along: list[Any], there: Any) -> list[Any]:
    """Return the Hessian of sum(mix * outputs) times a direction: of the variables, and of the batch."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        fixed = [v.value for v in network.non_trainable_variables]

        def combined(values: Any, x: Any) -> Any:
            return (network.stateless_call(values, fixed, x, training=False)[0] * mix).sum()

        values = [v.value for v in network.trainable_variables]
        start, direction = (values, jax.numpy.asarray(batch)), (list(map(jax.numpy.asarray, along)), there)
        _, (of_values, of_batch) = jax.jit(lambda at, d: jax.jvp(jax.grad(combined, argnums=(0, 1)), at, d))(
            start, direction
        )
        return [*of_values, of_batch]
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(batch)
        sources = [*(v.value for v in network.trainable_variables), x]
        with _differentiable_moments(), tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(network(x, training=False) * mix)
            first = inner.gradient(value, sources, unconnected_gradients="zero")
            slope = tf.add_n([tf.reduce_sum(g * v) for g, v in zip(first, [*along, there], strict=True)])
        return list(outer.gradient(slope, sources, unconnected_gradients="zero"))
    import torch

    x = keras.ops.convert_to_tensor(batch).requires_grad_()
    sources = [*(v.value for v in network.trainable_variables), x]
    value = (network(x, training=False) * keras.ops.convert_to_tensor(mix)).sum()
    first = torch.autograd.grad(value, sources, create_graph=True, materialize_grads=True)
    directions = map(keras.ops.convert_to_tensor, [*along, there])
    slope = sum((g * v).sum() for g, v in zip(first, directions, strict=True))
    if not getattr(slope, "requires_grad", False):
        return [torch.zeros_like(source) for source in sources]
    return list(torch.autograd.grad(slope, sources, materialize_grads=True))


def transforms(folder: str, name: str, weights: str, inputs: str, direction: list[str], output: str) -> dict[str, Any]:
    """Hold what Keras does with a model to the plain call: distances, and exceptions, by what it does.

    The Hessian of a random combination of the outputs, times `direction`, is written to the .npz file `output`. In
    float64 but for jit_compile, in evaluation mode.
    """
    import json
    import tempfile

    import keras
    import numpy as np

    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    network = _network(program, name, weights, "float64")
    batch, there = _floats(inputs, "float64"), _floats(direction[1], "float64")

    def predict(model: Any) -> Any:
        if keras.backend.backend() == "jax":
            return _arrays([_in_one_program(model, batch.astype(model.inputs[0].dtype))])[0]
        return _arrays([model(batch.astype(model.inputs[0].dtype), training=False)])[0]

    outputs = predict(network)

    def from_plain(found: Any) -> float:
        return float(protocol.apart(outputs, found))

    maps = outputs.ndim == 4
    mix = protocol.combination(np.moveaxis(outputs, -1, 1).shape if maps else outputs.shape)
    mix = np.moveaxis(mix, 1, -1) if maps else mix

    def second() -> float:
        here = network.get_weights()
        if here:
            program("model").load_torch_weights(network, direction[0])
        along = _arrays(network.trainable_variables)
        network.set_weights(here)
        found = _second(network, batch, mix, along, there)
        arrays = canonical.named(network, found[:-1])
        np.savez(output, **arrays, input=_arrays(found[-1:])[0])
        return 0.0

    def saved() -> float:
        with tempfile.TemporaryDirectory() as temporary:
            path = f"{temporary}/model.keras"
            network.save(path)
            loaded = keras.models.load_model(path)
        for ours, theirs in zip(network.layers, loaded.layers, strict=True):
            if json.dumps(ours.get_config(), default=str) != json.dumps(theirs.get_config(), default=str):
                raise ValueError(f"{ours.name} has another configuration when it is loaded")
        return from_plain(predict(loaded))

    doings = {
        "second derivatives": second,
        "save and load": saved,
    }
    if keras.backend.backend() == "tensorflow":

        def compiled() -> float:
            import tensorflow as tf

            single = _network(program, name, weights, "float32")
            call = tf.function(lambda x: single(x, training=False), jit_compile=True)
            return from_plain(call(batch.astype("float32")).numpy())

        doings["jit_compile"] = compiled
    found: dict[str, Any] = protocol.each(doings)
    return found


def read_weights(folder: str, name: str, path: str, output: str) -> dict[str, Any]:
    """Load a file of Keras into the generated network; write its weights with canonical names to a .npz file."""
    import numpy as np

    program = protocol.Program(folder)
    canonical = _canonical(folder, program, name)
    _fresh("float32")
    network = getattr(program("model"), name)()
    network.load_weights(path)
    np.savez(output, **canonical.named(network, trainable=False))
    return {}


def write_weights(folder: str, name: str, weights: str, path: str) -> dict[str, Any]:
    """Save the generated network with canonical weights, in the format that `path` ends in."""
    network = _network(protocol.Program(folder), name, weights, "float32")
    network.save(path) if path.endswith(".keras") else network.save_weights(path)
    return {}


def _last(path: str, dtype: str) -> Any:
    """Return images (N, C, H, W), or crops of them, with the channels last."""
    import numpy as np

    return np.ascontiguousarray(np.moveaxis(np.load(path), -3, -1)).astype(dtype)


if __name__ == "__main__":
    protocol.serve(
        "keras",
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
            "read_weights": read_weights,
            "write_weights": write_weights,
        },
    )
