"""Keras models as users write them, and the files that they are kept in: `keras_networks.py FOLDER` writes them."""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
from keras import layers


def convs():
    """Most layers, none of them at Keras' defaults where PyTorch has others."""
    x = inputs = keras.Input((32, 32, 3), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.5, 2.0])(x)
    x = layers.ZeroPadding2D(((0, 1), (1, 2)), name="pad")(x)
    x = layers.Conv2D(12, 3, strides=2, name="conv", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.8, epsilon=1e-2, name="norm")(x)
    x = layers.ReLU(6.0, name="act")(x)
    for i in range(1, 4):
        y = layers.Conv2D(12, (3, 1), padding="same", activation="hard_silu", name=f"stage_block{i}_conv")(x)
        y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name=f"stage_block{i}_depthwise")(y)
        y = layers.BatchNormalization(name=f"stage_block{i}_norm", scale=i != 3)(y)
        y = layers.Conv2D(12, 1, name=f"stage_block{i}_project")(y)
        y = layers.Dropout(0.2 if i < 3 else 0.3, noise_shape=(None, 1, 1, 1), name=f"stage_block{i}_drop")(y)
        x = layers.Add(name=f"stage_block{i}_add")([x, y])
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)  # of values of either sign: zeros, not minus infinity
    x = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    a = layers.AveragePooling2D(3, strides=1, padding="same", name="mean")(x)
    b = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    b = layers.LeakyReLU(0.1, name="leaky")(b)
    x = layers.Concatenate(name="both")([a, b])
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Reshape((1, 1, 20), name="place")(gate)
    gate = layers.Conv2D(5, 1, activation="swish", name="down")(gate)
    gate = layers.Conv2D(20, 1, activation="hard_sigmoid", name="up")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    x = layers.Conv2DTranspose(10, 2, strides=2, name="larger")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name="enlarged")(x)
    x = layers.Conv2D(9, 3, strides=3, groups=1, dilation_rate=1, name="smaller")(x)
    x = layers.GroupNormalization(3, epsilon=1e-2, name="groups")(x)
    x = layers.Conv2D(8, 3, strides=3, activation="elu", name="smallest")(x)
    x = layers.Dropout(0.4, name="drop")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(16, activation="tanh", name="fc1")(x)
    x = layers.Dense(7, activation="softmax", name="scores")(x)
    return keras.Model(inputs, x, name="convs")


def nested():
    """A model in a model, a Sequential, layers of places and their norm."""
    stem = keras.Sequential(
        [layers.Conv2D(8, 4, strides=4, name="patches"), layers.LayerNormalization(epsilon=1e-6, name="norm")],
        name="stem",
    )
    x = inputs = keras.Input((16, 24, 3))
    x = stem(x)
    x = layers.Dense(16, activation="gelu", name="wide")(x)
    x = layers.Dense(8, name="narrow")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(5, name="scores")(x)
    return keras.Model(inputs, x, name="nested")


def chain():
    """A Sequential that ends in a flattened map."""
    return keras.Sequential(
        [
            keras.Input((12, 10, 2)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.ZeroPadding2D(1),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ],
        name="chain",
    )


def unsupported():
    """Layers that no op is, and a Lambda that says so if it is run."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="conv")(x)
    x = layers.Lambda(lambda y: y * print("A LAMBDA WAS RUN") or y, output_shape=(8, 8, 4), name="mine")(x)
    x = layers.Conv2D(4, 1, name="after")(x)
    y = layers.Conv2D(4, 1, activation="selu", name="selu")(inputs)
    y = layers.Conv3D(2, 1, name="volume")(layers.Reshape((8, 8, 2, 2), name="four")(y))
    shared = layers.Conv2D(3, 1, name="twice")
    z = layers.Add(name="sum")([shared(inputs), shared(shared(inputs))])
    return keras.Model(inputs, [x, y, z], name="unsupported")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    keras.utils.set_random_seed(0)
    for make in (convs, nested, chain, unsupported):
        model = make()
        (folder / f"{make.__name__}.json").write_text(model.to_json())
        if make is not unsupported:
            model.save(folder / f"{make.__name__}.keras")
            model.save(folder / f"{make.__name__}.h5")
