"""Serves jobs of tests in a process that has imported Keras on TensorFlow: see `KerasServer` in programs.py."""

from __future__ import annotations

import contextlib
import io
import math
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import protocol  # of archspec/workers


def versions() -> dict[str, str]:
    """Return Keras' version."""
    keras = protocol.import_keras()
    import tensorflow  # noqa: F401  imported once, here

    return {"keras": str(keras.__version__)}


def _program(folder: str) -> protocol.Program:
    """Return the generated files in a folder, and reset Keras' state."""
    import keras

    keras.utils.clear_session()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    return protocol.Program(folder)


def run_program(
    path: str,
    arguments: list[str],
    interrupt_at: int | None = None,
    file_limit: int | None = None,
    number: int = signal.SIGINT,
    diverge_at: int | None = None,
    output: bool = False,
    paste: str = "",
) -> dict[str, Any]:
    """Run a program; return the message that it exits with, or "", or its standard output if `output`.

    `interrupt_at`: raise the signal `number` in this training step, counted from 1. `file_limit`: write no file beyond
    it, in bytes. `diverge_at`: the loss of this step is NaN. `paste`: Python that is added to train.py.
    """
    train = _program(str(Path(path).parent))("train")
    exec(paste, train.__dict__)
    add, steps = train.Run.add, 0

    def interrupting_add(*step: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == interrupt_at:
            signal.raise_signal(number)
        run, logs = step
        add(run, {**logs, "loss": math.nan} if steps == diverge_at else logs)

    train.Run.add = interrupting_add
    handlers = [(one, signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sys.argv = [path, *arguments]
    message, printed, errors = "", io.StringIO(), io.StringIO()
    try:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, limits[1]))
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            train.main()
    except SystemExit as error:
        message = errors.getvalue().strip() if isinstance(error.code, int) else str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for one, handler in handlers:
            signal.signal(one, handler)
    assert interrupt_at in (None, steps)
    return {"result": printed.getvalue() if output else message}


def resized_crops(folder: str, image: str, count: int, output: str) -> dict[str, Any]:
    """Write what a program makes of `count` copies of an image in training, and of one in evaluation."""
    import numpy as np

    program = _program(folder)
    recipe, engine, transforms = program("recipe"), program("engine.data"), program("engine.transforms")
    source = np.repeat(np.load(image)[None], count, axis=0), np.zeros(count)
    results = []
    for number, seed in ((count, 0), (1, None)):
        parts = engine.split_batches(np.arange(number), number)
        transform = transforms.make_transform(recipe, {}, seed)
        ((images, _, _),) = engine.make_dataset(source, parts, transform, 0)
        results.append(images.numpy())
    np.savez(output, augmented=results[0], evaluated=results[1][0])
    return {}


def split_groups(folder: str, groups: int, output: str) -> dict[str, Any]:
    """Write weights, outputs and gradients of a grouped convolution, before and after `engine.layers.split_groups`."""
    import keras
    import numpy as np
    import tensorflow as tf

    layers = _program(folder)("engine.layers")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(
        6 * groups, 3, strides=2, padding="same", groups=groups, bias_initializer="normal"
    )
    inputs = keras.Input((9, 7, 4 * groups))
    model = keras.Model(inputs, convolution(inputs))
    images = tf.constant(np.random.default_rng(0).normal(size=(3, 9, 7, 4 * groups)))
    operation = convolution.convolution_op
    arrays: dict[str, Any] = {}
    for state in ("before", "after"):
        with tf.GradientTape() as tape:
            outputs = model(images)
            loss = tf.reduce_sum(outputs**3)
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        arrays[f"{state}.outputs"] = outputs.numpy()
        arrays |= {f"{state}.weight{i}": weight.numpy() for i, weight in enumerate(model.weights)}
        arrays |= {f"{state}.gradient{i}": gradient.numpy() for i, gradient in enumerate(gradients)}
        layers.split_groups(model)
    np.savez(output, **arrays)
    return {"result": convolution.convolution_op != operation}


def update_steps(
    folder: str, name: str, arguments: dict[str, Any], rates: list[float], inputs: str, output: str
) -> dict[str, Any]:
    """Write the variables after every step of an optimizer, made anew from its configuration after the first half.

    The optimizer `name` of engine.optim takes a step at each of `rates`, in float64, on the gradients in `inputs`.
    Return its configuration after that of an optimizer made from it.
    """
    import keras
    import numpy as np

    program = _program(folder)
    keras.config.set_floatx("float64")
    optim = program("engine.optim")
    with np.load(inputs) as arrays:
        variables = [keras.Variable(arrays[f"w{i}"], dtype="float64", name=f"w{i}") for i in range(2)]
        gradients = [[keras.ops.convert_to_tensor(array) for array in arrays[f"g{i}"]] for i in range(2)]
    optimizer = getattr(optim, name)(rates[0], **arguments)
    config = optimizer.get_config()
    results: dict[str, Any] = {}
    for step, rate in enumerate(rates):
        if step == len(rates) // 2:
            again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
            assert type(again) is type(optimizer)
            assert type(optimizer).from_config(optimizer.get_config()).get_config() == optimizer.get_config()
            again.build(variables)
            for variable, value in zip(again.variables, optimizer.variables, strict=True):
                variable.assign(value)
            optimizer = again
        optimizer.learning_rate = rate
        optimizer.apply([gradient[step] for gradient in gradients], variables)
        results |= {f"{step}.w{i}": np.array(variable) for i, variable in enumerate(variables)}
    np.savez(output, **results)
    return {"result": {key: value for key, value in config.items() if key in arguments}}


if __name__ == "__main__":
    protocol.serve(
        "keras",
        versions,
        {
            "run_program": run_program,
            "resized_crops": resized_crops,
            "split_groups": split_groups,
            "update_steps": update_steps,
        },
    )
