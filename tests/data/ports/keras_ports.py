"""port.yaml as somebody would write it in Keras: with other names, and in other ways that are the same or wrong."""

import keras
from keras import layers, ops


class ResponseNorm(layers.Layer):
    """Local response normalization."""

    def __init__(self, alpha, **arguments):
        super().__init__(**arguments)
        self.alpha = alpha

    def call(self, x):
        squares = ops.pad(ops.square(x), [[0, 0], [0, 0], [0, 0], [2, 2]])
        total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
        return x / (2.0 + self.alpha / 5 * total) ** 0.75


def functional():
    """The network, but for the running variance: Keras' has no Bessel term."""
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    x = ResponseNorm(0.1)(layers.Activation("relu")(x))
    x = layers.MaxPooling2D(2)(x)
    b = layers.Conv2D(8, 3, padding="same", groups=8)(x)
    x = layers.Concatenate()([layers.Conv2D(8, 1)(x), b])
    x = layers.Add()([layers.Conv2D(16, 3, padding="same")(x), x])
    x = layers.Dense(12)(layers.Flatten()(layers.ReLU()(x)))
    return keras.Model(images, layers.Dense(5)(layers.Dropout(0.5)(x)))


class Unbiased(layers.BatchNormalization):
    """Batch normalization with the running variance of PyTorch."""

    def call(self, x, training=None, **arguments):
        before = ops.copy(self.moving_variance.value)
        y = super().call(x, training=training, **arguments)
        if training:
            n = x.shape[0] * x.shape[1] * x.shape[2]
            kept = before * self.momentum
            self.moving_variance.assign(kept + (self.moving_variance.value - kept) * n / (n - 1))
        return y


class Subclassed(keras.Model):
    """The network as a class, without sizes until it is called."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(8, 3, padding="same", use_bias=False)
        self.bn = Unbiased(momentum=0.9, epsilon=1e-5)
        self.norm = ResponseNorm(0.1)
        self.pool = layers.MaxPooling2D(2)
        self.a, self.b = layers.Conv2D(8, 1), layers.DepthwiseConv2D(3, padding="same")
        self.merge = layers.Conv2D(16, 3, padding="same")
        self.flatten, self.drop = layers.Flatten(), layers.Dropout(0.5)
        self.one, self.two = layers.Dense(12), layers.Dense(5)

    def call(self, x, training=False):
        x = self.pool(self.norm(ops.relu(self.bn(self.conv(x), training=training))))
        x = ops.concatenate([self.a(x), self.b(x)], axis=-1)
        x = self.flatten(ops.relu(self.merge(x) + x))
        return self.two(self.drop(self.one(x), training=training))
