"""Optimizers with PyTorch's and Caffe's rules, which Keras' own do not follow.

`multipliers` are the factors of learning rate and weight decay of each variable. Keras'
own optimizers round their constants to float32, decouple the weight decay and, in Adam,
add epsilon before the bias correction.
"""

import math
from typing import Any

import keras
from keras import ops

Factors = list[tuple[float, float]]


class Optimizer(keras.optimizers.Optimizer):
    """Base: weight decay, multipliers, and state variables named in `slots`."""

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float = 0.0,
        multipliers: Factors | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.decay, self.multipliers = weight_decay, multipliers

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.states = [
            [self.add_variable_from_reference(v, name=slot) for v in variables]
            for slot in self.slots
        ]

    def factors(
        self, variable: keras.Variable, learning_rate: Any
    ) -> tuple[Any, float]:
        """Return the learning rate and the weight decay of a variable."""
        if not self.multipliers:
            return learning_rate, self.decay
        rate, decay = self.multipliers[self._get_variable_index(variable)]
        return rate * learning_rate, decay * self.decay

    def state(self, variable: keras.Variable) -> list[keras.Variable]:
        """Return the state variables of a variable, one for each of `slots`."""
        index = self._get_variable_index(variable)
        return [variables[index] for variables in self.states]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            **config,
            "weight_decay": self.decay,
            "multipliers": self.multipliers,
        }


@keras.saving.register_keras_serializable("engine")
class CaffeSGD(Optimizer):
    """v = momentum * v - rate * (gradient + decay * w); w = w + v.

    The rule of Krizhevsky et al. (2012) and of Caffe.
    """

    def __init__(
        self, learning_rate: float, momentum: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.slots = ("velocity",) if momentum else ()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.factors(variable, learning_rate)
        change = -rate * (gradient + decay * variable)
        for velocity in self.state(variable):
            change = self.momentum * velocity + change
            self.assign(velocity, change)
        self.assign_add(variable, change)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable("engine")
class SGD(Optimizer):
    """b = momentum * b + gradient + decay * w; w = w - rate * b, as torch.optim.SGD.

    Keras' own SGD has the rate in its velocity: another rule once the rate changes.
    """

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("buffer",) if momentum else ()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.factors(variable, learning_rate)
        gradient = gradient + decay * variable
        if not self.momentum:
            self.assign_sub(variable, rate * gradient)
            return
        (buffer,) = self.state(variable)
        if keras.backend.backend() == "tensorflow":  # whose kernel does it in one pass
            import tensorflow as tf

            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=buffer.value.handle,
                lr=ops.cast(rate, variable.dtype),
                grad=gradient,
                momentum=self.momentum,
                use_nesterov=self.nesterov,
            )
            return
        mean = self.momentum * buffer + gradient
        self.assign(buffer, mean)
        step = gradient + self.momentum * mean if self.nesterov else mean
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        config = {"momentum": self.momentum, "nesterov": self.nesterov}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("engine")
class Adam(Optimizer):
    """Adam of Kingma and Ba (2015), algorithm 1; decay * w is part of the gradient.

    Epsilon is added to the root of the unbiased square, as in torch.optim.Adam.
    """

    slots = ("mean", "square")
    decoupled = False  # whether the weight decay is no part of the gradient

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.betas, self.eps = betas, eps

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.factors(variable, learning_rate)
        step = ops.cast(self.iterations + 1, variable.dtype)
        mean, square = self.state(variable)
        if decay and self.decoupled:
            self.assign_sub(variable, rate * decay * variable)
        elif decay:
            gradient = gradient + decay * variable
        beta_1, beta_2 = self.betas
        new_mean = beta_1 * mean + (1 - beta_1) * gradient
        new_square = beta_2 * square + (1 - beta_2) * ops.square(gradient)
        self.assign(mean, new_mean)
        self.assign(square, new_square)
        # 1 - beta ** step, without rounding beta to float32 on the way
        unbias_1 = -ops.expm1(step * math.log(beta_1))
        unbias_2 = -ops.expm1(step * math.log(beta_2))
        root = ops.sqrt(new_square / unbias_2) + self.eps
        self.assign_sub(variable, rate * (new_mean / unbias_1) / root)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "betas": self.betas, "eps": self.eps}


@keras.saving.register_keras_serializable("engine")
class AdamW(Adam):
    """Adam after w = w - rate * decay * w, as torch.optim.AdamW."""

    decoupled = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay=weight_decay, **kwargs)
