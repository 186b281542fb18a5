"""Optimizers that torch.optim does not have."""

import torch
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd


class CaffeSGD(torch.optim.Optimizer):
    """v = momentum * v - lr * (gradient + weight_decay * w); w = w + v.

    The rule of Krizhevsky et al. (2012) and of Caffe. torch.optim.SGD, which keeps the
    learning rate out of v, is the same rule until the rate changes.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "fused": fused,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for param in params:
                if not self.state[param]:
                    self.state[param]["velocity"] = torch.zeros_like(param)
            # sgd: v = momentum * v + (1 - dampening) * gradient; w = w - lr * v
            sgd(
                params,
                [param.grad for param in params],
                [self.state[param]["velocity"] for param in params],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=-1.0,
                dampening=1 + group["lr"],
                nesterov=False,
                maximize=False,
                fused=group["fused"],
            )
