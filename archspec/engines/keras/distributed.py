"""The devices and processes that train together."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np

Step = Callable[..., dict[str, Any]]  # of a batch: its mean loss and metrics


class Devices:
    """One device or, with `distribute`, all that there are, here or in many processes.

    On TensorFlow that is tf.distribute, and TF_CONFIG names the processes; on JAX it is
    keras.distribution, and KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and
    _PROCESS_ID do.
    """

    def __init__(self, distribute: bool, device: str | None = None) -> None:
        self.strategy: Any = None
        self.rank, self.world_size, self.count = 0, 1, 1
        self.device = device or ""
        if distribute and keras.backend.backend() == "jax":
            import jax

            if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
                keras.distribution.initialize()
            parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
            keras.distribution.set_distribution(parallel)
            self.rank, self.world_size = jax.process_index(), jax.process_count()
            self.count = jax.device_count()
        elif distribute:
            import tensorflow as tf

            if "TF_CONFIG" in os.environ:
                self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
                resolver = self.strategy.cluster_resolver
                self.rank = resolver.task_id
                self.world_size = len(resolver.cluster_spec().job_tasks("worker"))
            else:
                self.strategy = tf.distribute.MirroredStrategy()
            self.count = self.strategy.num_replicas_in_sync

    @property
    def name(self) -> str:
        """The devices in words."""
        kind = self.device or ("gpu" if gpu_count() else "cpu")
        return f"{self.count} x {kind}" if self.count > 1 else kind

    @property
    def ranks(self) -> tuple[int, int, int]:
        """The number of this process, of all processes, and of all devices."""
        return self.rank, self.world_size, self.count

    @property
    def replicas(self) -> int:
        """The number of devices of this process that each get a part of its batches."""
        return self.count // self.world_size if self.strategy else 1

    def use(self) -> Any:
        """Return a context in which Keras computes on the device."""
        return keras.device(self.device) if self.device else nullcontext()

    def scope(self) -> Any:
        """Return the context in which the model is made."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def functions(
        self, model: keras.Model, evaluator: keras.Model | None = None
    ) -> tuple[Step, Step]:
        """Return a function that takes a step and one that evaluates a batch.

        The evaluator is by default the model. Results stay on the device where the
        backend lets them.
        """
        evaluator = evaluator or model
        if self.strategy:
            return self._distributed(model, "train_step"), self._distributed(
                evaluator, "test_step"
            )
        on_tensorflow = keras.backend.backend() == "tensorflow"

        def train(*batch: Any) -> dict[str, Any]:
            if on_tensorflow and model.train_function:  # made by the first step
                model.reset_metrics()
                return _loss_first(model.train_function(iter([batch])))
            return _loss_first(model.train_on_batch(*_arrays(batch), return_dict=True))

        def test(*batch: Any) -> dict[str, Any]:
            logs = evaluator.test_on_batch(*_arrays(batch), return_dict=True)
            return _loss_first(logs)

        return train, test

    def _distributed(self, model: keras.Model, name: str) -> Step:
        """Return a function that runs a step of a model on all devices."""
        import tensorflow as tf

        method = getattr(model, name)
        replicas = tf.function(lambda batch: self.strategy.run(method, args=(batch,)))

        def step(*batch: Any) -> dict[str, Any]:
            model.reset_metrics()
            replicas(batch)
            return _loss_first(model.get_metrics_result())

        return step

    def share(self, dataset: Any) -> Any:
        """Return the batches of this process's devices."""
        if self.strategy is None:
            return dataset
        return self.strategy.distribute_datasets_from_function(lambda context: dataset)

    def gather(self, value: float) -> list[float]:
        """Return the values of all processes."""
        if self.world_size == 1:
            return [value]
        if self.strategy is None:
            from jax.experimental import multihost_utils

            found = multihost_utils.process_allgather(np.array([value], np.float32))
            return [float(one) for one in np.ravel(found)]
        import tensorflow as tf

        local = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([value], tf.float32)
        )
        values = self.strategy.gather(local, axis=0).numpy()
        return [float(one) for one in values[:: self.replicas]]


def _loss_first(logs: dict[str, Any]) -> dict[str, Any]:
    return {"loss": logs["loss"], **logs}


def _arrays(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return tensors of tf.data as the backend reads them."""
    if keras.backend.backend() == "tensorflow":
        return batch
    return tuple(np.asarray(values) for values in batch)


def gpu_count() -> int:
    """Return the number of GPUs that the backend finds."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        return len(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX's, where there is none
        return 0
