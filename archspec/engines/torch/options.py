"""The command line of train.py."""

import argparse
import os
from typing import Any

import torch

from .arguments import check_options, make_parser

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}


def parse_options(recipe: Any) -> argparse.Namespace:
    """Return the options of the command line; the defaults are the recipe's."""
    parser = make_parser(recipe, "last.pt", PRECISIONS)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    help = "cpu, cuda or cuda:N"
    parser.add_argument("--device", type=device, default=default, help=help)
    help = "shard the parameters, under torchrun"
    parser.add_argument("--fsdp", action="store_true", help=help)
    options = parser.parse_args()
    check_options(parser, options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if options.predict:
            parser.error("--predict runs in one process")
        if options.device.startswith("cuda:"):
            parser.error("each process has its own GPU: write --device cuda")
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        options.resume = "auto"
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return options


def device(text: str) -> str:
    """Return the name of a device, which there is."""
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or os.environ.get("LOCAL_RANK", "0")) >= count:
            raise argparse.ArgumentTypeError(
                f"{text}: PyTorch finds {count} GPUs, and each process needs one"
            )
    return "cpu" if kind == "cpu" else text
