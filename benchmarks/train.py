"""Training speed beside hand-written programs, the time spent waiting for images, and peak memory.

    python benchmarks/train.py torch     # steps and forward passes of 32, PyTorch
    python benchmarks/train.py keras     # the same, Keras on TensorFlow
    python benchmarks/train.py zoo       # a step of four networks beside torchvision and keras.applications
    python benchmarks/train.py wait      # how long the model waits for its images
    python benchmarks/train.py memory    # peak of a training step, beside what report predicts

Peers run in one process, a round of each in turn; ratios are of medians. Memory takes a process for each network.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from archspec.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent
BATCH, ROUNDS, STEPS = 32, 4, 3


def program(name: str, target: str) -> Any:
    """Generate a network's program; return a function that imports its modules afresh: `modules("engine.data")`."""
    import archspec

    folder = Path(tempfile.mkdtemp(prefix="archspec-"))
    archspec.generate(ROOT / "specs" / f"{name}.yaml", target, out=folder)
    path = str(folder / name / TARGETS[target].folder)
    for module in list(sys.modules):
        if module.partition(".")[0] in ("model", "recipe", "train", "engine"):
            del sys.modules[module]
    sys.path[:] = [path, *(p for p in sys.path if "archspec-" not in p)]
    return importlib.import_module


def compare(title: str, peers: dict[str, Callable[[], tuple[float, float]]]) -> None:
    """Print the medians of each peer's seconds, of a step and of a forward pass, and the ratios to the last peer's."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            seconds[name].append(peer())
    *_, base = (tuple(median(column) for column in zip(*rows, strict=True)) for rows in seconds.values())
    print(f"\n{title:<44}{'step s':>9}{'forward s':>11}{'throughput of':>15}{'(forward)':>11}")
    for name, rows in seconds.items():
        step, forward = (median(column) for column in zip(*rows, strict=True))
        print(f"{name:<44}{step:>9.3f}{forward:>11.3f}{base[0] / step:>14.2f}x{base[1] / forward:>10.2f}x", flush=True)


def timed(function: Callable[[], Any]) -> float:
    """Return the median seconds of a few calls, after one that is not counted."""
    function()
    found = []
    for _ in range(STEPS):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return median(found)


def of_torch() -> None:
    """PyTorch: torchvision's AlexNet in a plain loop, and implementations of LRN, beside the generated one."""
    import torch
    import torchvision
    from torch import nn
    from torch.nn import functional

    class Banded(nn.LocalResponseNorm):
        """Sums by a convolution, and autograd's own gradient."""

        def forward(self, input: Any) -> Any:
            channel = torch.arange(input.shape[1])
            near = ((channel[:, None] - channel).abs() <= self.size // 2).to(input.dtype)
            kernels = near[:, :, None, None] * (self.alpha / self.size)
            return input * (self.k + functional.conv2d(input**2, kernels)) ** -self.beta

    def peer(make: Callable[[], Any], size: int, modules: Any = None) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            torch.manual_seed(0)
            model = make()
            images, labels = torch.randn(BATCH, 3, size, size), torch.randint(0, 1000, (BATCH,))
            if modules:
                optimizer = modules("recipe").make_optimizer(model)

                def step() -> None:
                    modules("train").train_step(model, optimizer, images, labels)
            else:
                optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

                def step() -> None:
                    model.train()
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(images), labels).backward()
                    optimizer.step()

            taken = timed(step)
            model.eval()
            read = images.to(memory_format=torch.channels_last) if modules else images  # as the program does
            with torch.no_grad():
                return taken, timed(lambda: model(read))

        return run

    modules = program("alexnet_torchvision", "torch")
    compare(
        "alexnet_torchvision, batch 32, PyTorch",
        {
            "generated train.py": peer(modules("model").AlexNetTorchvision, 224, modules),
            "torchvision's, a plain loop": peer(torchvision.models.alexnet, 224),
        },
    )
    modules = program("alexnet", "torch")

    def with_norm(norm: Any) -> Any:
        made = modules("model").AlexNet()
        made.norm1, made.norm2 = norm(5, k=2.0), norm(5, k=2.0)
        return made

    compare(
        "alexnet, batch 32, PyTorch",
        {
            "generated": peer(modules("model").AlexNet, 227, modules),
            "LRN by a convolution": peer(lambda: with_norm(Banded), 227, modules),
            "the same model, a plain loop": peer(modules("model").AlexNet, 227),
        },
    )


def of_keras() -> None:
    """Keras: a hand-written AlexNet in fit, and implementations of LRN and groups, beside the generated ones."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import layers

    def by_hand() -> Any:
        conv: dict[str, Any] = {"activation": "relu", "padding": "same"}
        return keras.Sequential(
            [
                keras.Input((224, 224, 3)),
                layers.ZeroPadding2D(2),
                layers.Conv2D(64, 11, 4, activation="relu"),
                layers.MaxPooling2D(3, 2),
                layers.Conv2D(192, 5, **conv),
                layers.MaxPooling2D(3, 2),
                layers.Conv2D(384, 3, **conv),
                layers.Conv2D(256, 3, **conv),
                layers.Conv2D(256, 3, **conv),
                layers.MaxPooling2D(3, 2),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(4096, "relu"),
                layers.Dropout(0.5),
                layers.Dense(4096, "relu"),
                layers.Dense(1000),
            ]
        )

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    def peer(make: Callable[[], Any], size: int, modules: Any = None) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            keras.utils.clear_session()
            keras.utils.set_random_seed(0)
            random, model = np.random.default_rng(0), make()
            count = BATCH * (STEPS + 2)
            images = random.standard_normal((count, size, size, 3), np.float32)
            labels = random.integers(0, 1000, count)
            dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH).prefetch(2)
            clock = Clock()
            if modules:
                modules("train").compile_model(model)
                weighted = dataset.map(lambda x, y: (x, y, tf.ones(BATCH, tf.float64)))
                step, _ = modules("engine.distributed").Devices(False).functions(model)
                for batch in weighted:
                    step(*batch)
                    clock.on_train_batch_end(0)
            else:
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                model.compile(keras.optimizers.SGD(0.01, 0.9, weight_decay=5e-4), loss, metrics=["accuracy"])
                model.fit(dataset, verbose=0, callbacks=[clock])
            steps = [b - a for a, b in zip(clock.ends[1:-1], clock.ends[2:], strict=True)]
            return median(steps), timed(lambda: model.predict_on_batch(images[:BATCH]))

        return run

    modules = program("alexnet_torchvision", "keras")
    compare(
        "alexnet_torchvision, batch 32, Keras",
        {
            "generated train.py": peer(modules("model").AlexNetTorchvision, 224, modules),
            "by hand, in fit": peer(by_hand, 224),
        },
    )
    modules = program("alexnet", "keras")
    model, split_groups = modules("model"), modules("train").split_groups
    norm = model.LocalResponseNorm

    class Native(norm):  # type: ignore[name-defined, misc, valid-type]
        """TensorFlow's own LRN."""

        def call(self, x: Any) -> Any:
            alpha = self.alpha / self.size
            return tf.nn.local_response_normalization(x, self.size // 2, self.k, alpha, self.beta)

    def variant(norm_class: Any, split: Any) -> Callable[[], Any]:
        def make() -> Any:
            modules("train").split_groups = split
            model.LocalResponseNorm = norm_class
            try:
                return model.AlexNet()
            finally:
                model.LocalResponseNorm = norm

        return make

    compare(
        "alexnet, batch 32, Keras",
        {
            "generated": peer(variant(norm, split_groups), 227, modules),
            "tf.nn.local_response_normalization": peer(variant(Native, split_groups), 227, modules),
            "layers.Conv2D(groups=2) as it is": peer(variant(norm, lambda model: None), 227, modules),
        },
    )


ZOO = {"resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}  # the generated class, and keras.applications' function
TORCH_ZOO = {**ZOO, "efficientnet_b0": "EfficientNetB0", "vit_b_16": "VitB16"}


def zoo() -> None:
    """Print the seconds of a training step of the model alone, batch 8, a process for each framework."""
    for framework in ("torch", "keras"):
        subprocess.run([sys.executable, __file__, f"zoo-{framework}"], check=True)


def zoo_of_torch() -> None:
    """Generated models beside torchvision's, in the same loop."""
    import torch
    import torchvision

    images, labels = torch.randn(8, 3, 224, 224), torch.randint(0, 1000, (8,))

    def step_of(model: Any) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return step

    for name, function in TORCH_ZOO.items():
        models = {"generated": getattr(program(name, "torch")("model"), function)}
        models["torchvision"] = getattr(torchvision.models, name)
        in_turn(f"{name}, batch 8, PyTorch", {peer: step_of(make()) for peer, make in models.items()})


def zoo_of_keras() -> None:
    """Generated models beside keras.applications', in train_on_batch."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    images, labels = random.standard_normal((8, 224, 224, 3), np.float32), random.integers(0, 1000, 8)

    def step_of(model: Any) -> Callable[[], Any]:
        model.compile(keras.optimizers.SGD(0.01, 0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return lambda: model.train_on_batch(images, labels)

    for name, function in ZOO.items():
        generated = getattr(program(name, "keras")("model"), function)()
        published = getattr(keras.applications, function)(weights=None, classifier_activation=None)
        steps = {"generated": step_of(generated), "keras.applications": step_of(published)}
        in_turn(f"{name}, batch 8, Keras on TensorFlow", steps)


def in_turn(title: str, steps: dict[str, Callable[[], Any]], rounds: int = 12) -> None:
    """Print the median seconds of each step, taken in turn, and its throughput relative to the last one's."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    *_, base = (median(found) for found in seconds.values())
    print(f"\n{title:<44}{'step s':>9}{'throughput of':>15}")
    for name, found in seconds.items():
        print(f"{name:<44}{median(found):>9.3f}{base / median(found):>14.2f}x", flush=True)


def wait() -> None:
    """Train alexnet_tiny for an epoch of noise, and alexnet for a few batches of JPEGs; print what the model waits."""
    script = """
import sys, time, numpy as np
from pathlib import Path
target, name, program, size, batches, folder = sys.argv[1:]
batches = int(batches)
sys.path.insert(0, program)
waits, last = [], [None]
import recipe, train as t
from engine import data as d, transforms
data = d.read_data(Path(folder))
model = recipe.make_model(data.num_classes)
if target == "torch":
    import torch
    statistics = transforms.measure(data.train, recipe.measured(), Path(folder) / "statistics.pt")
    prepare, augment, _ = recipe.make_transforms(statistics)
    order = d.Batches(len(data.train), int(size), 0)
    loader = torch.utils.data.DataLoader(d.Images(data.train, prepare, augment, 0), batch_sampler=order,
        generator=torch.Generator(), num_workers=1)
    optimizer = recipe.make_optimizer(model)
    step = lambda x, y: t.train_step(model, optimizer, x, y)
else:
    from engine.distributed import Devices
    statistics = transforms.measure(data.train, recipe, Path(folder) / "statistics.npz")
    parts = d.split_batches(np.random.default_rng(0).permutation(len(data.train[0])), int(size))
    loader = d.make_dataset(data.train, parts, transforms.make_transform(recipe, statistics, 0), 0)
    t.compile_model(model)
    step, _ = Devices(False).functions(model)
steps, iterator = [], iter(loader)
for _ in range(batches):
    a = time.perf_counter(); batch = next(iterator); b = time.perf_counter(); step(*batch); c = time.perf_counter()
    waits.append(b - a); steps.append(c - b)
half = batches // 4
print(f"{target} {name}: a step {np.median(steps[half:])*1e3:.1f} ms, a wait {np.median(waits[half:])*1e3:.2f} ms, "
      f"{sum(waits[half:]) / sum(steps[half:] + waits[half:]):.1%} of the time")
"""
    import tempfile

    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for part, count in (("train", 256), ("val", 2)):
            for i in range(count):
                path = Path(folder) / "jpeg" / part / str(i % 2) / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = random.integers(0, 256, (40, 50, 3), np.uint8)  # smooth as photographs are: a JPEG of 100 kB
                Image.fromarray(noise).resize((500, 400)).save(path, quality=90)
        digits = Path(folder) / "idx"
        digits.mkdir()
        for part, count in (("train", 12800), ("t10k", 64)):
            for kind, values in (
                ("images-idx3", random.integers(0, 256, (count, 28, 28))),
                ("labels-idx1", random.integers(0, 10, count)),
            ):
                head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
                (digits / f"{part}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())
        for name, size, batches, data in (
            ("alexnet_tiny", 64, 200, digits),
            ("alexnet", 16, 16, digits.parent / "jpeg"),
        ):
            for target in ("torch", "keras"):
                program(name, target)
                words = [sys.executable, "-c", script, target, name, sys.path[0], str(size), str(batches), str(data)]
                environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
                done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
                print(done.stdout.strip() or done.stderr[-500:], flush=True)


def memory() -> None:
    """Print the peak of training steps in PyTorch, and what `report` predicts."""
    from archspec import load
    from archspec.analysis.memory import RUNTIME_BYTES
    from archspec.analysis.memory import memory as predicted

    script = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
import recipe, train as t, torch._dynamo
batch, size = int(sys.argv[2]), int(sys.argv[3])
torch.nn.functional.conv2d(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 3, 3))  # what libraries take at first
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = recipe.make_model(10)
optimizer = recipe.make_optimizer(model)
images, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)
for _ in range(3):
    t.train_step(model, optimizer, images, labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    print(f"{'network':<24}{'batch':>6}{'predicted MB':>14}{'measured MB':>13}{'ratio':>8}")
    networks: dict[str, tuple[int, ...]] = {"alexnet": (32, 128), "alexnet_torchvision": (32, 128)}
    networks |= {"alexnet_tiny": (64, 512)}
    networks |= dict.fromkeys(("resnet50", "mobilenet_v2", "densenet121", "shufflenet_v2", "googlenet"), (16, 32))
    for name, batches in networks.items():
        graph = load(ROOT / "specs" / f"{name}.yaml")
        size = graph.input.output_shape[1]
        for batch in batches:
            program(name, "torch")
            words = [sys.executable, "-c", script, sys.path[0], str(batch), str(size)]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
            expected = predicted(graph, batch, "float32", graph.spec.training).peak_training / 1e6 + RUNTIME_BYTES / 1e6
            found = int(done.stdout) / 1e6
            print(f"{name:<24}{batch:>6}{expected:>14,.0f}{found:>13,.0f}{found / expected:>8.2f}", flush=True)


if __name__ == "__main__":
    parts: dict[str, Callable[[], None]] = {"zoo-torch": zoo_of_torch, "zoo-keras": zoo_of_keras}
    parts |= {"torch": of_torch, "keras": of_keras, "zoo": zoo, "wait": wait, "memory": memory}
    if sys.argv[1:] == [] or sys.argv[1] not in parts:
        sys.exit(__doc__)
    parts[sys.argv[1]]()
