"""The command line of train.py."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
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
    cuda = torch.cuda.is_available()
    add("--device", default="cuda" if cuda else "cpu", help="cpu, cuda or cuda:N")
    add("--seed", type=int, default=0, help="random seed")
    output = Path("runs") / recipe.NAME
    add("--output", type=Path, default=output, help="folder of checkpoints and logs")
    add("--resume", action="store_true", help="resume from OUTPUT/last.pt")
    add("--precision", choices=PRECISIONS, default="fp32", help="of the forward pass")
    add("--workers", type=int, default=0, help="processes that load images")
    add("--weights", type=Path, help="safetensors file of initial weights")
    add("--compile", action="store_true", help="compile with torch.compile")
    add("--fsdp", action="store_true", help="shard the parameters, under torchrun")
    options = parser.parse_args()
    last = options.output / "last.pt"
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        options.resume = last.exists()  # torchrun has restarted all processes
    elif last.exists() and not options.resume:
        sys.exit(f"{last} exists: resume with --resume, or choose another --output")
    return options
