"""Losses that Keras does not have."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("engine")
class CrossEntropy(keras.losses.SparseCategoricalCrossentropy):
    """The cross entropy of the model's outputs, as torch.nn.CrossEntropyLoss.

    On TensorFlow, Keras undoes a softmax or sigmoid at the end of a model before its
    own cross entropy; the other backends do not.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"from_logits": True, **kwargs})

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(y_true, 1.0 * y_pred)
