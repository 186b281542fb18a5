"""The processes that train together: this one, or all that torchrun started."""

import os
from typing import Any, Self

import torch
from torch import distributed, nn


class Processes:
    """This process among those that train together.

    With `fsdp` they shard the parameters (FSDP); otherwise each has all of them (DDP).
    """

    def __init__(self, device: str, fsdp: bool = False) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.sharded = fsdp and self.world_size > 1
        self.device = torch.device(device)
        if self.device == torch.device("cuda"):
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if self.world_size > 1:
            distributed.init_process_group("nccl" if device[:4] == "cuda" else "gloo")

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients averaged over all processes."""
        if self.world_size == 1:
            return network
        if self.sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.world_size,))
            fully_shard(network, mesh=mesh)
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def sum(self, values: list[float]) -> list[float]:
        """Return the sums of the values over all processes."""
        if self.world_size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        values = [value] * self.world_size
        if self.world_size > 1:
            distributed.all_gather_object(values, value)
        return values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.world_size > 1:
            distributed.destroy_process_group()
