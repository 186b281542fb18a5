"""The processes that train together: this one, or all that torchrun started."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from .errors import DataError

TIMEOUT = timedelta(minutes=10)  # for the others to do what this process waits for


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
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # also for collectives of objects
        if self.world_size > 1:
            distributed.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                store=new_store(self.rank, self.world_size),
                rank=self.rank,
                world_size=self.world_size,
                timeout=TIMEOUT,
                device_id=self.device if self.device.type == "cuda" else None,
            )

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients averaged over all processes."""
        if self.world_size == 1:
            return network
        if self.sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.world_size,))
            for block in blocks(network):  # gathered one at a time
                fully_shard(block, mesh=mesh)
            fully_shard(network, mesh=mesh)
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums of a tensor's values over all processes."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def means(self, sums: dict[str, Any]) -> dict[str, float]:
        """Return sums over all processes, divided by the first, the image count."""
        values = [
            torch.as_tensor(v, device=self.device).double() for v in sums.values()
        ]
        images, *totals = self.sum(torch.stack(values)).tolist()
        names = list(sums)[1:]
        return {name: total / images for name, total in zip(names, totals, strict=True)}

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        if self.world_size == 1:
            return value
        return bool(self.sum(torch.tensor(float(value), device=self.device)))

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        values = [value] * self.world_size
        if self.world_size > 1:
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], Any]) -> Any:
        """Return the result of `function`, which runs in rank 0, in every process.

        A DataError or OSError that it raises there is raised in all.
        """
        result: list[Any] = [None]
        if self.rank == 0:
            try:
                result = [function()]
            except (DataError, OSError) as error:
                result = [error]
        if self.world_size > 1:
            distributed.broadcast_object_list(result)
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *more: object) -> None:
        if self.world_size > 1 and error is None:
            distributed.destroy_process_group()


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers with parameters of a network, and the blocks of sequences."""
    for child in network.children():
        if isinstance(child, nn.Sequential):
            yield from blocks(child)
        elif any(True for _ in child.parameters()):
            yield child


def new_store(rank: int, world_size: int) -> Store:
    """Return a store without keys of earlier processes.

    torchrun's store outlives an attempt: after a restart it still has the addresses of
    the processes that are gone, and its restart count can differ between nodes. So each
    process shows a number of its own and gets the prefix of rank 0 in exchange.
    """
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"process {rank}", own)
        prefix = store.get(own).decode()
        store.set(f"{prefix} {rank}", "ready")
        return PrefixStore(prefix, store)
    waiting, end = set(range(1, world_size)), time.monotonic() + TIMEOUT.total_seconds()
    while waiting:
        for other in waiting:
            if store.check([f"process {other}"]):
                store.set(store.get(f"process {other}").decode(), own)
        waiting = {n for n in waiting if not store.check([f"{own} {n}"])}
        if waiting and time.monotonic() > end:
            raise RuntimeError(f"no connection to processes {sorted(waiting)}")
        time.sleep(0.01)
    return PrefixStore(own, store)
