"""The devices and processes that train together."""

import os
import sys
from contextlib import nullcontext
from typing import Any

import keras


class Devices:
    """One device or, with `distribute`, all that there are, here or in many processes.

    On TensorFlow that is tf.distribute, and TF_CONFIG names the processes; on JAX it is
    keras.distribution, and KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and
    _PROCESS_ID do.
    """

    def __init__(self, distribute: bool, device: str | None = None) -> None:
        self.strategy: Any = None
        self.rank, self.world_size, self.count = 0, 1, 1
        self.device = (device or "").replace("cuda", "gpu")
        if distribute and device:
            sys.exit("--distribute uses all devices: leave out --device")
        if distribute and keras.backend.backend() == "jax":
            import jax

            if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
                keras.distribution.initialize()
            parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
            keras.distribution.set_distribution(parallel)
            self.rank, self.world_size = jax.process_index(), jax.process_count()
            self.count = jax.device_count()
        elif distribute and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if "TF_CONFIG" in os.environ:
                self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
                resolver = self.strategy.cluster_resolver
                self.rank = resolver.task_id
                self.world_size = len(resolver.cluster_spec().job_tasks("worker"))
            else:
                self.strategy = tf.distribute.MirroredStrategy()
            self.count = self.strategy.num_replicas_in_sync
        elif distribute:
            sys.exit("--distribute needs the backend TensorFlow or JAX")

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

    def functions(self, model: keras.Model) -> tuple[Any, Any]:
        """Return a function that takes a step and one that predicts."""
        if self.strategy is None:

            def step(*batch: Any) -> dict[str, float]:
                model.reset_metrics()
                if keras.backend.backend() != "tensorflow":
                    batch = tuple(values.numpy() for values in batch)
                logs: dict[str, float] = model.train_on_batch(*batch, return_dict=True)
                return logs

            return step, model.predict_on_batch
        import tensorflow as tf

        replicas = tf.function(
            lambda batch: self.strategy.run(model.train_step, args=(batch,))
        )

        def distributed_step(*batch: Any) -> dict[str, float]:
            model.reset_metrics()
            replicas(batch)
            logs: dict[str, float] = model.get_metrics_result()
            return logs

        return distributed_step, tf.function(
            lambda images: model(images, training=False)
        )

    def share(self, dataset: Any) -> Any:
        """Return the batches of this process's devices."""
        if self.strategy is None:
            return dataset
        return self.strategy.distribute_datasets_from_function(lambda context: dataset)
