"""The options that training programs of all frameworks have."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .errors import DataError

# A run resumes only with the settings that it was started with.
SETTINGS = (
    *("batch_size", "lr", "momentum", "weight_decay"),
    *("seed", "precision", "limit_batches"),
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class Help(argparse.HelpFormatter):
    """Help with the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str:
        has_default = action.default not in (None, False, [], argparse.SUPPRESS)
        return f"{action.help}{' [default: %(default)s]' * has_default}"


def at_least(
    minimum: int, number: Callable[[str], Any] = int, maximum: float = math.inf
) -> Callable[[str], Any]:
    """Return a function that reads a number within bounds."""

    def read(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum or value == math.inf:
            kind = "an integer" if number is int else "a number"
            bounds = f"from {minimum}" + f" to {maximum}" * (maximum < math.inf)
            message = f"must be {kind} {bounds}, not {text!r}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read


def make_parser(recipe: Any, last: str, precisions: Any) -> Parser:
    """Return the parser of the options that all frameworks have.

    `last` is the name of the file of the last checkpoint.
    """
    parser = Parser(description=f"Train {recipe.NAME}.", formatter_class=Help)
    add = parser.add_argument
    count, positive = at_least(1), at_least(0, float)
    add("--data", type=Path, help="folder of the data set [default: a trial on digits]")
    add("--epochs", type=count, default=recipe.EPOCHS, help="number of epochs")
    size = recipe.BATCH_SIZE
    add("--batch-size", type=count, default=size, help="images a step, of all devices")
    add("--lr", type=positive, default=recipe.LR, help="initial learning rate")
    momentum = getattr(recipe, "MOMENTUM", None)
    if momentum is None:
        parser.set_defaults(momentum=None)
    else:
        add("--momentum", type=positive, default=momentum, help="of the optimizer")
    decay = recipe.WEIGHT_DECAY
    add("--weight-decay", type=positive, default=decay, help="of the optimizer")
    seed = at_least(0, maximum=2**32 - 1)
    add("--seed", type=seed, default=0, help="random seed")
    output = Path("runs") / recipe.NAME
    add("--output", type=Path, default=output, help="folder of checkpoints and logs")
    add("--resume", action="store_true", help=f"resume from OUTPUT/{last}")
    add("--precision", choices=precisions, default="fp32", help="of the forward pass")
    add("--workers", type=at_least(0), help="image loaders [default: one a CPU core]")
    add("--weights", type=Path, help="file of initial weights")
    heads = ("loaded", "new")
    help = "new: initialize the last layer, for other classes than those of --weights"
    add("--head", choices=heads, default=heads[0], help=help)
    help = "print metrics of the validation images, of --weights or OUTPUT's best"
    add("--evaluate", action="store_true", help=help)
    help = "print the five likeliest classes of image files"
    add("--predict", nargs="+", default=[], metavar="IMAGE", help=help)
    add("--log-every", type=count, default=10, help="steps between log lines")
    help = "stop each epoch after this many batches, for a quick test"
    add("--limit-batches", type=count, help=help)
    add("--deterministic", action="store_true", help="use deterministic algorithms")
    add("--compile", action="store_true", help="compile the model")
    return parser


def check_options(parser: Parser, options: argparse.Namespace) -> None:
    """Exit with a message unless the options fit together; set what depends on others.

    Images are loaded by one worker a CPU core, unless they are in memory.
    """
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"--output {options.output} is not a folder")
    if options.data and not options.data.is_dir():
        parser.error(f"no such folder: {options.data}")
    for path in (options.weights, *options.predict):
        if path and not Path(path).is_file():
            parser.error(f"no such file: {path}")
    if options.head == "new" and not options.weights:
        parser.error("--head new needs --weights")
    if options.resume and (options.weights or options.evaluate or options.predict):
        parser.error("--resume starts from its checkpoint: leave out the others")
    if options.workers is None:
        of_files = options.data and (options.data / "train").is_dir()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        options.workers = min(16, max(1, cores // local)) if of_files else 0


def settings(
    options: argparse.Namespace, recipe: Any, data: list[int]
) -> dict[str, Any]:
    """Return what a resumed run must have in common with its beginning.

    `data` are the numbers of training images, validation images and classes.
    """
    chosen = {name: getattr(options, name) for name in SETTINGS}
    return {"network": recipe.NAME, **chosen, "data": data}


def difference(written: dict[str, Any], given: dict[str, Any]) -> str | None:
    """Return in words how the settings of a checkpoint differ from those given."""
    for name, value in given.items():
        before = written.get(name)
        if before == value:
            continue
        if name == "data":
            names = ("training images", "validation images", "classes")
            old, new = (
                ", ".join(f"{n} {word}" for n, word in zip(data, names, strict=True))
                for data in (before or value, value)
            )
            return f"for {old}, not {new}"
        if name == "network":
            return f"for {before}, not {value}"
        flag = "--" + name.replace("_", "-")
        return f"with {flag} {before}" if before is not None else f"without {flag}"
    return None


def hyperparameters(options: argparse.Namespace) -> dict[str, float]:
    """Return the arguments of the recipe's optimizer."""
    names = ("lr", "momentum", "weight_decay")
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def initial_weights(options: Any) -> Path | None:
    """Return the file of weights to begin with: --weights, or the best to evaluate."""
    weights: Path | None = options.weights
    if weights or not (options.evaluate or options.predict):
        return weights
    best: Path = options.output / "best.safetensors"
    if not best.exists():
        raise DataError(f"{best} does not exist: train first, or give --weights")
    return best
