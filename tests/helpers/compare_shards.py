"""Compare a rank's shard of a network with the whole network: see tests/graph/test_model_parallel.py.

    python compare_shards.py STEPS BATCH SHAPE FOLDER...

Both ranks make the whole network from one seed. Rank 0 prints a JSON list with an object for each folder of generated
files: the largest relative differences, and the bytes that one rank received for one batch in float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers.programs import program_modules


def count_bytes(received: dict[str, int], name: str, direction: str) -> None:
    """Have a collective of torch.distributed add the size of its list of tensors to `received`."""
    original = getattr(distributed, name)

    def counting(a: Any, b: Any, *more: Any) -> Any:
        (tensors,) = (argument for argument in (a, b) if isinstance(argument, list))
        received[direction] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return original(a, b, *more)

    setattr(distributed, name, counting)


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest magnitude."""
    return float((a - b).abs().max() / b.abs().max())


def compare(folder: Path, steps: int, batch: int, shape: list[int], received: dict[str, int]) -> dict[str, float]:
    """Return the differences of this rank's shard from the whole network."""
    with program_modules(folder) as load:
        train, recipe, shards = load("train"), load("recipe"), load("model_parallel")
        torch.manual_seed(0)
        network = load("model").Net().double()
        for parameter in network.parameters():
            std = (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            torch.nn.init.normal_(parameter, std=std)
        shard = shards.Shard().double()
        shards.load_shard(shard, network.state_dict())
        both = shard, network
        for module in (*shard.modules(), *network.modules()):
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        inputs = 0.3 * torch.randn(steps, batch, *shape, dtype=torch.float64)
        labels = torch.randint(0, 10, (steps, batch))
        received.update(forward=0, backward=0)
        logits = [module(inputs[0]) for module in both]
        found = {"outputs": difference(*logits), "forward_bytes": received["forward"]}
        for values in logits:
            recipe.criterion(values, labels[0]).backward()
        found["backward_bytes"] = received["backward"]
        whole = {name: parameter.grad for name, parameter in network.named_parameters()}
        found["gradients"] = max(
            difference(p.grad, shards.slice_parameter(name, whole[name])) for name, p in shard.named_parameters()
        )
        optimizers = [recipe.make_optimizer(module) for module in both]
        losses = [
            [
                float(train.train_step(module, optimizer, *data)[0])
                for module, optimizer in zip(both, optimizers, strict=True)
            ]
            for data in zip(inputs, labels, strict=True)
        ]
        found["losses"] = max(abs(a - b) / abs(b) for a, b in losses)
        weights = dict(network.named_parameters())
        found["weights"] = max(
            difference(p, shards.slice_parameter(name, weights[name])) for name, p in shard.named_parameters()
        )
        found["loss_decrease"] = losses[0][1] - losses[-1][1]
        return found


if __name__ == "__main__":
    received = {"forward": 0, "backward": 0}
    distributed.init_process_group("gloo")
    count_bytes(received, "all_gather", "forward")
    count_bytes(received, "reduce_scatter", "backward")
    size = [int(side) for side in sys.argv[3].split(",")]
    results = [compare(Path(folder), int(sys.argv[1]), int(sys.argv[2]), size, received) for folder in sys.argv[4:]]
    if distributed.get_rank() == 0:
        print(json.dumps(results))
    distributed.destroy_process_group()
