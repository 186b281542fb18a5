"""The generated LRN classes beyond float32 and first-order gradients: torch's transforms, autocast, export, saving."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import ROOT
from helpers.verification import write_generated

import archspec

pytestmark = pytest.mark.frameworks
torch = pytest.importorskip("torch")

SPEC = ROOT / "specs" / "ops" / "local_response_norm.yaml"  # a layer of each class
CLASSES = {
    "in_blocks": "GroupedLocalResponseNorm",
    "across": "LocalResponseNorm",
    "within": "WithinChannelResponseNorm",
}
CUSTOM = ("in_blocks", "within")  # of which the code is ours
KERAS_NORM = pytest.mark.xdist_group("keras norm")  # so that one process runs Keras
Layer = Any  # torch.nn.LocalResponseNorm


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layer]:
    """The layers of the generated PyTorch file, by name, in training mode."""
    path = write_generated(archspec.load(SPEC), "torch", tmp_path_factory.mktemp("lrn")) / "model.py"
    spec = importlib.util.spec_from_file_location("generated_lrn", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generated_lrn"] = module  # where torch.compile and deepcopy look for it
    spec.loader.exec_module(module)
    network = module.OneLocalResponseNorm().train()
    found = dict(network.named_children())
    assert {name: type(layer).__name__ for name, layer in found.items()} == CLASSES
    return found


@pytest.fixture(params=list(CLASSES))
def layer(layers: dict[str, Layer], request: pytest.FixtureRequest) -> Layer:
    return layers[request.param]


@pytest.fixture(params=CUSTOM)
def custom(layers: dict[str, Layer], request: pytest.FixtureRequest) -> Layer:
    return layers[request.param]


def maps(*shape: int, scale: float = 1.0, dtype: Any = torch.float64) -> Any:
    """Return feature maps N(0, scale^2) of a fixed seed."""
    values = np.random.default_rng(3).normal(scale=scale, size=shape or (2, 10, 3, 4))
    return torch.from_numpy(values).to(dtype)


def relative(a: Any, b: Any) -> float:
    """Return the largest difference, relative to each value of `b`."""
    a, b = a.detach().double(), b.detach().double()
    return float(((a - b).abs() / b.abs()).max())


def test_gradients_of_first_and_second_order(layer: Layer) -> None:
    """Against central differences, in float64."""
    x = maps(1, 10, 2, 3).requires_grad_()

    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_vmap_equals_a_loop(layer: Layer) -> None:
    """Of the layer, and of its gradient."""
    x = maps(5, 2, 10, 3, 4)

    def gradient(sample: Any) -> Any:
        return torch.func.grad(lambda s: (layer(s) ** 2).sum())(sample)

    for function in (layer, gradient):
        torch.testing.assert_close(
            torch.func.vmap(function)(x), torch.stack([function(sample) for sample in x]), rtol=1e-14, atol=1e-14
        )


def test_jvp_equals_central_differences(layer: Layer) -> None:
    """Forward-mode differentiation, against differences of the outputs."""
    x = maps()
    direction = maps(2, 10, 3, 4).flip(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the first jvp of a process calls torch.jit.script
        output, slope = torch.func.jvp(layer, (x,), (direction,))

    torch.testing.assert_close(output, layer(x))
    step = 1e-6
    differences = (layer(x + step * direction) - layer(x - step * direction)) / (2 * step)
    torch.testing.assert_close(slope, differences, rtol=1e-8, atol=1e-8)


def test_autocast_keeps_the_sums_in_float32(layer: Layer) -> None:
    """Under bfloat16 autocast a float32 input is normalized to within 1e-5 of float64; bfloat16 alone has 4e-3."""
    x = maps(scale=20, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)

    assert relative(output, layer(x.double())) < 1e-5


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_16_bit_output_is_rounded_once(custom: Layer, dtype: Any, rounding: float) -> None:
    """The result of a 16-bit input is that of float64, rounded to 16 bits, with autocast and without."""
    x = maps(scale=20).to(dtype)
    expected = custom(x.double())
    plain = custom(x)
    with torch.autocast("cpu", dtype):
        autocast = custom(x)

    for output in (plain, autocast):
        assert output.dtype == dtype
        assert relative(output, expected) < rounding * 1.01


def test_float16_of_300_is_finite(custom: Layer) -> None:
    """300^2 exceeds float16's 65504."""
    x = torch.full((2, 10, 3, 4), 300.0, dtype=torch.float16, requires_grad=True)
    output = custom(x)
    output.float().sum().backward()

    assert output.dtype == torch.float16
    assert relative(output, custom(x.detach().double())) < 2**-10
    assert torch.isfinite(x.grad).all()


def _gradient(function: Callable[[Any], Any], x: Any) -> Any:
    x = x.clone().requires_grad_()
    (function(x) ** 2).sum().backward()
    return x.grad


def test_export_in_training(layer: Layer) -> None:
    """torch.export with a dynamic batch: the same outputs and gradients, for another batch size too."""
    n = torch.export.Dim("n", min=2, max=64)
    program = torch.export.export(layer.train(), (maps(),), dynamic_shapes=({0: n},))

    for batch in (2, 7):
        x = maps(batch, 10, 3, 4)
        torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-14, atol=0)
        torch.testing.assert_close(_gradient(program.module(), x), _gradient(layer, x), rtol=1e-13, atol=1e-15)


def test_compile(layer: Layer) -> None:
    """torch.compile without graph breaks: the same outputs and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = maps()

    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(_gradient(compiled, x), _gradient(layer, x), rtol=1e-13, atol=1e-15)


def test_deepcopy(layer: Layer) -> None:
    """A copy is another layer with the same attributes."""
    other = copy.deepcopy(layer)

    assert other is not layer
    assert repr(other) == repr(layer)
    assert getattr(other, "groups", 1) == getattr(layer, "groups", 1)
    assert torch.equal(other(maps()), layer(maps()))


def test_groups_that_do_not_divide_the_channels_are_an_error(layers: dict[str, Layer]) -> None:
    """10 channels are 2 or 5 groups, never 4: (2, 10, 3, 4) has as many values as blocks of 2 channels would need."""
    grouped = type(layers["in_blocks"])(3, groups=4)

    with pytest.raises(RuntimeError, match="unflatten"):
        grouped(maps())
    assert type(layers["in_blocks"])(3, groups=5)(maps()).shape == (2, 10, 3, 4)


def test_script_of_the_grouped_layer(layers: dict[str, Layer]) -> None:
    """TorchScript: the same outputs and gradients, and float32 sums of float16 inputs."""
    layer = layers["in_blocks"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TorchScript as a whole
        scripted = torch.jit.script(layer)
    x = maps()

    torch.testing.assert_close(scripted(x), layer(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(_gradient(scripted, x), _gradient(layer, x), rtol=1e-13, atol=1e-15)
    large = torch.full((2, 10, 3, 4), 300.0, dtype=torch.float16)
    assert torch.equal(scripted(large), layer(large))


# --- Keras, on TensorFlow, in a process of its own --------------------------------------------------------------------

KERAS = """
import json, sys
import keras, numpy as np, tensorflow as tf
sys.path.insert(0, sys.argv[1])
import model

random = np.random.default_rng(3)
x = tf.constant(random.normal(size=(2, 3, 4, 10)))
weights, direction = (tf.constant(random.normal(size=x.shape)) for _ in range(2))
network = model.OneLocalResponseNorm()
names = [layer.name for layer in network.layers[1:]]
configs = {name: network.get_layer(name).get_config() for name in names}
results = {"classes": {name: type(network.get_layer(name)).__name__ for name in names}}


def make(name, dtype):
    config = {**configs[name], "dtype": dtype}
    return type(network.get_layer(name)).from_config(config)


def gradient(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(weights * layer(x) ** 2)
    return tape.gradient(total, x)


def far(a, b):
    return float(np.max(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")) / np.abs(np.asarray(b, "float64"))))


for name in names:
    layer, step = make(name, "float64"), 1e-6
    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = tf.reduce_sum(direction * gradient(layer, x))
    second = tape.gradient(slope, x)
    differences = (gradient(layer, x + step * direction) - gradient(layer, x - step * direction)) / (2 * step)
    norm = float(tf.reduce_max(tf.abs(differences)))
    half = make(name, "mixed_float16")
    large = tf.fill((2, 3, 4, 10), tf.constant(300, "float16"))
    with tf.GradientTape() as tape:
        tape.watch(large)
        output = half(large)
        total = tf.reduce_sum(tf.cast(output, "float32"))
    small = tf.cast(20 * x, "float16")
    results[name] = {
        "second": float(tf.reduce_max(tf.abs(second - differences))) / norm,
        "norm": norm,
        "dtype": output.dtype.name,
        "large": far(output, make(name, "float64")(tf.cast(large, "float64"))),
        "rounding": far(half(small), make(name, "float64")(tf.cast(small, "float64"))),
        "finite": bool(np.isfinite(output).all() and np.isfinite(tape.gradient(total, large)).all()),
        "shape": list(make(name, "float32").compute_output_shape((None, 7, 4, 10))),
        "symbolic": list(make(name, "float32")(keras.Input((7, 4, 10))).shape),
    }
images = random.normal(size=(2, 7, 4, 10)).astype("float32")
network.save(sys.argv[2])
loaded = keras.saving.load_model(sys.argv[2])
results["saved"] = {
    "equal": bool(np.array_equal(loaded(images), network(images))),
    "configs": [loaded.get_layer(name).get_config() == configs[name] for name in names],
}
results["divisible"] = {}
for groups in (2, 3, 4, 5):
    try:
        model.LocalResponseNorm(3, groups=groups)(images)
        results["divisible"][groups] = ""
    except ValueError as error:
        results["divisible"][groups] = str(error)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def keras_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("keras")
    generated = write_generated(archspec.load(SPEC), "keras", folder)
    command = [sys.executable, "-c", KERAS, str(generated), str(folder / "lrn.keras")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    results: dict[str, Any] = json.loads(ran.stdout)
    assert results["classes"] == {
        "in_blocks": "LocalResponseNorm",
        "across": "LocalResponseNorm",
        "within": "WithinChannelResponseNorm",
    }
    return results


@pytest.mark.slow
@KERAS_NORM
@pytest.mark.parametrize("name", CLASSES)
def test_keras_second_order_gradients(name: str, keras_results: dict[str, Any]) -> None:
    """Against central differences of the first-order gradients, in float64."""
    assert keras_results[name]["norm"] > 0.1
    assert keras_results[name]["second"] < 1e-8


@pytest.mark.slow
@KERAS_NORM
@pytest.mark.parametrize("name", CLASSES)
def test_keras_mixed_float16(name: str, keras_results: dict[str, Any]) -> None:
    """Sums are computed in float32: activations of 300 have finite outputs and gradients, rounded once."""
    results = keras_results[name]

    assert results["dtype"] == "float16"
    assert results["finite"]
    assert results["large"] < 2**-10
    assert results["rounding"] < 2**-11 * 1.01


@pytest.mark.slow
@KERAS_NORM
def test_keras_saves_and_loads(keras_results: dict[str, Any]) -> None:
    """As a .keras file: the same attributes, and the same outputs to the bit."""
    assert keras_results["saved"] == {"equal": True, "configs": [True, True, True]}


@pytest.mark.slow
@KERAS_NORM
@pytest.mark.parametrize("name", CLASSES)
def test_keras_output_shape(name: str, keras_results: dict[str, Any]) -> None:
    """The shape of the input, both computed and of a symbolic call."""
    assert keras_results[name]["shape"] == keras_results[name]["symbolic"] == [None, 7, 4, 10]


@pytest.mark.slow
@KERAS_NORM
def test_keras_rejects_groups_that_do_not_divide_the_channels(keras_results: dict[str, Any]) -> None:
    messages = keras_results["divisible"]

    assert messages["2"] == messages["5"] == ""
    for groups in (3, 4):
        message = messages[str(groups)]
        assert "The number of channels must be divisible by the number of groups." in message
        assert f"groups={groups}, input_shape=(2, 7, 4, 10)" in message
