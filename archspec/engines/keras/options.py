"""The command line of train.py."""

import argparse
import os
from typing import Any

import keras

from .arguments import check_options, make_parser
from .distributed import gpu_count

POLICIES = {
    "fp32": "float32",
    "bf16": "mixed_bfloat16",
    "fp16": "mixed_float16",
    "fp64": "float64",
}


def parse_options(recipe: Any) -> argparse.Namespace:
    """Return the options of the command line; the defaults are the recipe's."""
    parser = make_parser(recipe, "last.npz", POLICIES)
    help = "cpu, cuda or cuda:N [default: the backend's]"
    parser.add_argument("--device", type=device, help=help)
    help = "train on all devices and processes"
    parser.add_argument("--distribute", action="store_true", help=help)
    options = parser.parse_args()
    check_options(parser, options)
    if options.distribute and options.device:
        parser.error("--distribute uses all devices: leave out --device")
    if options.distribute and options.predict:
        parser.error("--predict runs in one process: leave out --distribute")
    if options.distribute and keras.backend.backend() not in ("tensorflow", "jax"):
        parser.error("--distribute needs the backend TensorFlow or JAX")
    if options.deterministic:
        use_deterministic_algorithms()
    return options


def device(text: str) -> str:
    """Return the name of a device, which there is, as Keras has it."""
    kind, _, number = text.replace("cuda", "gpu").partition(":")
    if kind not in ("cpu", "gpu") or (number and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not cpu, cuda or cuda:N")
    if kind == "cpu":
        return "cpu"
    count = gpu_count()
    if int(number or "0") >= count:
        backend = keras.backend.backend()
        raise argparse.ArgumentTypeError(f"{text}: {backend} finds {count} GPUs")
    return f"gpu:{number or 0}"


def use_deterministic_algorithms() -> None:
    """Have the backend use deterministic algorithms."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "jax":  # before its first computation
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    else:
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def set_precision(precision: str) -> None:
    """Set Keras' dtype policy."""
    keras.config.set_dtype_policy(POLICIES[precision])
    if precision == "fp64":
        keras.config.set_floatx("float64")
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
