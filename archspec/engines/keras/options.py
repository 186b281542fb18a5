"""The command line of train.py."""

import argparse
import sys
from pathlib import Path
from typing import Any

import keras

POLICIES = {
    "fp32": "float32",
    "bf16": "mixed_bfloat16",
    "fp16": "mixed_float16",
    "fp64": "float64",
}


def parse_options(recipe: Any) -> argparse.Namespace:
    """Return the options of the command line; the defaults are the recipe's."""
    parser = argparse.ArgumentParser(
        description=f"Train {recipe.NAME}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of the data set [default: a trial on digits]")
    add("--epochs", type=int, default=recipe.EPOCHS, help="number of epochs")
    add("--batch-size", type=int, default=recipe.BATCH_SIZE, help="of all devices")
    add("--device", help="cpu, gpu or gpu:N [default: the backend's]")
    add("--seed", type=int, default=0, help="random seed")
    output = Path("runs") / recipe.NAME
    add("--output", type=Path, default=output, help="folder of checkpoints and logs")
    add("--resume", action="store_true", help="resume from OUTPUT/last.npz")
    add("--precision", choices=POLICIES, default="fp32", help="dtype policy")
    add("--workers", type=int, default=0, help="threads that load images")
    add("--weights", type=Path, help="safetensors file of initial weights")
    add("--compile", action="store_true", help="compile with XLA")
    add("--distribute", action="store_true", help="train on all devices and processes")
    options = parser.parse_args()
    last = options.output / "last.npz"
    if last.exists() and not options.resume:
        sys.exit(f"{last} exists: resume with --resume, or choose another --output")
    return options


def set_precision(precision: str) -> None:
    """Set Keras' dtype policy."""
    keras.config.set_dtype_policy(POLICIES[precision])
    if precision == "fp64":
        keras.config.set_floatx("float64")
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
