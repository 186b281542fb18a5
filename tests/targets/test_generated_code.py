"""Generated code: it passes its users' tools, imports nothing of archspec, and contains a spec's text only as text."""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FRAMEWORKS, OP_SPECS, REGRESSIONS, ROOT, SPECS, network

import archspec
from archspec.language.names import TORCH_ATTRIBUTES, class_name
from archspec.language.source import Source
from archspec.targets import MODULES, TARGETS, files, model_parallel, model_source
from archspec.targets.header import is_edited, with_header
from archspec.targets.render import formatted

TORCH, KERAS = TARGETS["torch"], TARGETS["keras"]
ALEXNET = ROOT / "specs" / "alexnet.yaml"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated files of every spec of this repository for every target, by spec."""
    out = tmp_path_factory.mktemp("generated")
    texts: dict[str, str] = {}
    for graph in map(archspec.load, SPECS):
        for target in TARGETS.values():
            texts |= {f"{graph.name}/{name}": text for name, text in files(graph, target).items()}
        if graph.name == "alexnet":
            texts |= {f"{graph.name}/{name}": text for name, text in model_parallel(graph).items()}
    models = {  # formatted together, as that takes a tenth of the time
        f"{graph.name}/{target.folder}/model.py": model_source(graph, target)
        for graph in map(archspec.load, (*OP_SPECS, *REGRESSIONS))
        for target in TARGETS.values()
    }
    for name, text in (texts | formatted(models, MODULES)).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    return out


def run_tool(*arguments: object, cwd: Path = ROOT) -> None:
    run = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert run.returncode == 0, run.stdout + run.stderr


def test_generated_code_passes_ruff_with_its_defaults(generated: Path) -> None:
    """Ruff's formatter and linter, with their default settings, find nothing to change in any program's folder."""
    run_tool("ruff", "format", "--isolated", "--check", "--no-cache", generated)
    programs = [path.parent for path in generated.glob("*/*/train.py")]
    models = [path for path in generated.glob("*/*/model.py") if path.parent not in programs]
    trained = [path for path in SPECS if archspec.load(path).spec.training]
    assert len(programs) == 2 * len(trained) > 2 * 30
    run_tool("ruff", "check", "--isolated", "--no-cache", *models)
    for folder in programs:
        run_tool("ruff", "check", "--isolated", "--no-cache", ".", cwd=folder)


@pytest.mark.frameworks
def test_generated_pytorch_code_passes_mypy_strict(generated: Path, tmp_path: Path) -> None:
    """mypy --strict accepts every model and recipe, the training program and its engine."""
    pytest.importorskip("torch")
    together = tmp_path / "together"
    (together / "engine").mkdir(parents=True)
    for path in (generated / "alexnet" / "pytorch" / "engine").glob("*.py"):
        (together / "engine" / path.name).write_text(path.read_text())
    for path in generated.glob("*/pytorch/*.py"):
        name = path.parent.parent.name
        if path.stem == "train" and name != "alexnet":
            continue  # the same in every folder
        text = path.read_text()
        for module in ("model", "recipe"):
            text = text.replace(f"import {module}\n", f"import {name}_{module} as {module}\n")
        (together / f"{name}_{path.name}").write_text(text)
    assert len(list(together.glob("*_model.py"))) == len([*SPECS, *OP_SPECS, *REGRESSIONS])
    assert len(list(together.glob("*_recipe.py"))) == len(list(generated.glob("*/pytorch/recipe.py"))) >= 10
    # some of these have no types, and reading the types of the others takes minutes
    others = ",".join(f"{name}.*" for name in ("matplotlib", "safetensors", "sklearn", "torchvision", "tqdm"))
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\n[mypy-{others}]\nfollow_imports = skip\nignore_missing_imports = True\n")
    run_tool("mypy", "--config-file", config, together)


# The packages that generated files import, and their own modules.
PROGRAM = set("PIL engine matplotlib model recipe safetensors sklearn tqdm".split())
PACKAGES = {
    "pytorch": {"torch", "torchvision"} | PROGRAM,
    "keras": {"keras", "numpy", "tensorflow", "jax"} | PROGRAM,  # tf.data reads images, jax.sharding distributes
    "numpy": {"numpy"},
}


def test_generated_code_imports_nothing_of_archspec(generated: Path) -> None:
    """The generated files of a target import its framework, what the program needs, and each other."""
    paths = list(generated.glob("*/*/**/*.py"))

    assert len(paths) > 3 * len([*SPECS, *OP_SPECS, *REGRESSIONS])
    for path in paths:
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
        assert packages <= PACKAGES[path.relative_to(generated).parts[1]], path


# --- the header ------------------------------------------------------------------------------------------------------


def test_the_header_has_version_spec_and_hashes() -> None:
    """The header has the version, the spec's path, and 16 digits of the SHA-256 of the network's data and of the file."""
    text = files(archspec.load(ALEXNET), TARGETS["numpy"])["numpy/model.py"]
    first, second, body = text.split("\n", 2)
    network = {key: value for key, value in Source.read(ALEXNET).data.items() if key != "claims"}
    data = json.dumps(network, sort_keys=True)

    assert first == f"# Code generated by archspec {archspec.__version__} from specs/alexnet.yaml. DO NOT EDIT."
    hashes = [hashlib.sha256(part.encode()).hexdigest()[:16] for part in (data, body)]
    assert second == f"# sha256: spec {hashes[0]}, content {hashes[1]}"


SPEC = "archspec: 1\nname: net\ninput: {channels: 6, height: 9, width: 7}\nlayers:\n  - {name: a, op: relu}\n"
SAME = {
    "comment": SPEC.replace("layers:", "# a comment\nlayers:  # another"),
    "CRLF": SPEC.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + SPEC,
    "order of keys": SPEC.replace("{name: a, op: relu}", "{op: relu, name: a}"),
    "claims": SPEC + "claims: [{params: 0}]\n",
    "block style": SPEC.replace("- {name: a, op: relu}", "- name: a\n    op: relu"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_the_header_does_not_depend_on_how_a_spec_is_written(text: str) -> None:
    """Claims, comments, line ends, the order of keys and the style of YAML do not change the header."""
    assert with_header("model.py", "", Source.parse(text.encode(), "net.yaml")) == with_header(
        "model.py", "", Source.parse(SPEC, "net.yaml")
    )


def test_the_header_depends_on_the_data_of_a_spec() -> None:
    """Another value, or another order of layers, changes the header."""
    changed = [
        SPEC.replace("width: 7", "width: 8"),
        SPEC.replace("relu", "tanh"),
        SPEC + "  - {name: b, op: tanh}\n",
        SPEC.replace("  - {name: a", "  - {name: b, op: tanh}\n  - {name: a"),
        SPEC.replace("channels: 6", "channels: '6'"),
    ]

    assert len({with_header("model.py", "", Source.parse(text)) for text in (SPEC, *changed)}) == 1 + len(changed)


@pytest.mark.parametrize("path", ["/a/specs/net.yaml", "specs/net.yaml", "../specs/net.yaml"])
def test_the_header_does_not_depend_on_the_working_directory(path: str) -> None:
    """The header has the path of a spec from its folder specs/."""
    assert " from specs/net.yaml. DO NOT EDIT.\n" in with_header("model.py", "", Source.parse(SPEC, path))


def test_an_edited_file_is_recognized() -> None:
    """A file is edited if its text is not the text that its header has the hash of; CRLF line ends are no edit."""
    text = with_header("model.py", "x = 1\ny = 2\n", Source.parse(SPEC))

    assert not is_edited(text)
    assert not is_edited(text.replace("\n", "\r\n"))
    for edited in (text.replace("x = 1", "x = 3"), text + "\n", text.partition("\n")[2], "x = 1\n", ""):
        assert is_edited(edited), edited


# --- text and names of a spec ----------------------------------------------------------------------------------------


HOSTILE = [
    '""" + __import__("os").system("touch /tmp/owned") + """',
    "\\",
    'ends in a quote"',
    'ends in three """',
    "{{ 7 * 7 }} {% import os %}",
    "a # comment",
    "\\N{QUOTATION MARK}\\x22\\x22\\x22",
    "'''",
    "a very long line: " + "x" * 300,
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_spec_is_text_in_the_code(text: str, target: str) -> None:
    """The source of a spec is in the docstring, unchanged, and not in the code."""
    hostile = network("{name: relu, op: relu}", head=f"source: {json.dumps(text)}")
    harmless = network("{name: relu, op: relu}", head="source: x")
    tree, other = (ast.parse(model_source(graph, TARGETS[target])) for graph in (hostile, harmless))

    assert " ".join(text.split()) in " ".join(str(ast.get_docstring(tree)).split())
    assert [ast.dump(node) for node in tree.body[1:]] == [ast.dump(node) for node in other.body[1:]]


# Names that mean something else in the generated code of some target.
LAYER_NAMES = """
    F GroupedConv2D GroupedLocalResponseNorm LocalResponseNorm Net PaddedMaxPooling2D Split Tensor input_layer inputs
    initializers keras layer layers logits math model module names nn np num_classes ops print self show super torch w
    weights windows x y
""".split()
# a layer of each kind: a module, a sum, whose variable has the layer's name, a padded one, and one with a class
LAYERS = """
    {{name: {0}, op: conv2d, out_channels: 4, kernel_size: 3, padding: {{top: 1}}, groups: 2}}
    {{name: s1, op: sigmoid}}
    {{name: {1}, op: add, from: [s1, {0}]}}
    {{name: s2, op: tanh}}
    {{name: s3, op: add, from: [s2, {1}, s1]}}
    {{name: n, op: local_response_norm, size: 3, groups: 2}}
    {{name: p, op: max_pool2d, kernel_size: 3, padding: {{top: 1}}}}
    {{name: flat, op: flatten}}
    {{name: fc, op: linear, out_features: 3}}
"""
RECIPE = "training: {optimizer: {sgd: {lr: 0.01}}}\nmultipliers: {bias: {lr: 2}}"


def name_clashes(text: str, model: str) -> set[str]:
    """Return the names that a module binds twice, or that the function of its model replaces."""
    module = ast.parse(text)
    bound: dict[str, set[str]] = {}  # an import may be repeated before it is formatted
    for node in module.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound.setdefault(alias.asname or alias.name, set()).add(ast.unparse(node))
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            bound.setdefault(node.name, set()).add(ast.unparse(node))
    clashes = {name for name, meanings in bound.items() if len(meanings) > 1 or hasattr(builtins, name)}
    (definition,) = (node for node in module.body if getattr(node, "name", None) == model)
    if isinstance(definition, ast.ClassDef):
        (definition,) = (node for node in definition.body if getattr(node, "name", None) == "forward")
    assert isinstance(definition, ast.FunctionDef)
    arguments = {argument.arg for argument in definition.args.args}
    stored = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return clashes | {n for n in stored if n in bound or hasattr(builtins, n)} | (stored & arguments - {"x"})


@pytest.mark.parametrize("name", LAYER_NAMES)
def test_a_layer_may_have_a_name_of_the_generated_code(name: str) -> None:
    """Layers of any name give code that parses and in which no name is replaced."""
    for names in ((name, "other"), ("other", name)):
        graph = network(LAYERS.format(*names), head=RECIPE)
        assert {node.name for node in graph.nodes} > {name}
        for target in TARGETS.values():
            assert name_clashes(model_source(graph, target), "Net") == set(), target.name


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("target", "run"),
    [
        ("torch", "import torch; print(*names['Net']()(torch.zeros(2, 6, 9, 7)).shape)"),
        ("keras", "import numpy; print(*names['Net']()(numpy.zeros((2, 9, 7, 6), 'float32')).shape)"),
    ],
    ids=FRAMEWORKS,
)
def test_a_network_with_names_of_the_generated_code_runs(target: str, run: str, tmp_path: Path) -> None:
    """Networks with such layers run in their framework."""
    pytest.importorskip(target)
    graphs = [
        network(LAYERS.format(*names), head=RECIPE) for name in LAYER_NAMES for names in ((name, "b"), ("b", name))
    ]
    for i, graph in enumerate(graphs):
        (tmp_path / f"{i}.py").write_text(model_source(graph, TARGETS[target]))
    script = f"import runpy\nfor i in range({len(graphs)}):\n    names = runpy.run_path(f'{{i}}.py'); {run}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert done.stdout.split("\n") == ["2 3"] * len(graphs) + [""], done.stderr


@pytest.mark.parametrize("name", "a adam caffe_sgd engine log model net recipe sgd shard tower x".split())
def test_a_network_may_have_a_name_of_the_generated_code(name: str) -> None:
    """Networks of any name give code that parses and in which no name is replaced; the recipe reads `model.NAME`."""
    text = network(LAYERS.format("c", "a"), head=RECIPE).source.text.replace("name: net\n", f"name: {name}\n")
    graph = archspec.loads(text)
    for target in TARGETS.values():
        assert name_clashes(model_source(graph, target), class_name(name)) == set(), target.name
    for target in (TORCH, KERAS):
        recipe = ast.parse(files(graph, target, engine=False)[f"{target.folder}/recipe.py"])
        read = {ast.unparse(node) for node in ast.walk(recipe) if isinstance(node, ast.Attribute)}
        assert f"model.{class_name(name)}" in read


@pytest.mark.parametrize(
    ("name", "target"),
    [("tensor", "torch"), ("grouped_local_response_norm", "torch"), ("exception", "numpy"), ("array", "numpy")],
)
def test_a_network_whose_class_would_replace_a_name_is_an_error(name: str, target: str) -> None:
    """The class of a network must not replace a class of the target's code."""
    text = network(LAYERS.format("c", "a")).source.text.replace("name: net\n", f"name: {name}\n")
    message = rf"^<spec>:2:7: error\[reserved-name\]: class {class_name(name)} would replace a name that "
    with pytest.raises(archspec.SpecError, match=message):
        model_source(archspec.loads(text), TARGETS[target])


@pytest.mark.parametrize("name", ["reset_parameters", "parameter_groups"])
def test_a_layer_that_would_replace_a_method_is_an_error(name: str) -> None:
    """A layer must not have the name of a method of the PyTorch model."""
    head = RECIPE + "\ninit: {weight: ones}"
    message = rf"^net.yaml:\d+:12: error\[reserved-name\]: {name} is a method of the PyTorch model"
    with pytest.raises(archspec.SpecError, match=message):
        model_source(network(LAYERS.format(name, "a"), head=head), TORCH)
    assert f"{name} = " in model_source(network(LAYERS.format("c", name), head=head), TORCH)  # a variable


@pytest.mark.frameworks
def test_reserved_names_are_the_attributes_of_a_module() -> None:
    """TORCH_ATTRIBUTES has every attribute of the installed version's nn.Module."""
    pytest.importorskip("torch")
    script = "import torch; print(*dir(torch.nn.Module()))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    names = {name for name in run.stdout.split() if not name.startswith("_")}

    assert len(names) > 50
    assert names <= TORCH_ATTRIBUTES


@pytest.mark.frameworks
def test_keras_accepts_the_names_of_its_own_attributes(tmp_path: Path) -> None:
    """A Keras model has layers with the names of all its attributes, as they are strings only."""
    pytest.importorskip("keras")
    script = """
import keras, sys, model
i = keras.Input((2,))
names = [n for n in dir(keras.Model(i, keras.layers.Dense(1)(i))) if n[0] != "_" and n != "input"]
for name in [*names, "input_layer", "keras_tensor"]:
    assert model.Net(name).get_layer(name).name == name
print(len(names))
"""
    text = model_source(network("{name: PLACEHOLDER, op: relu}"), KERAS)
    text = text.replace('"PLACEHOLDER"', "name").replace("def Net(", "def Net(name")
    (tmp_path / "model.py").write_text(text)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 50


# --- what a target can express ---------------------------------------------------------------------------------------


def test_keras_padding_is_same_where_the_windows_are_equal() -> None:
    """Symmetric padding is `same` in Keras only where both give the same windows, and else explicit."""

    def padding(layer: str, size: int) -> str:
        graph = network(layer, f"{{channels: 3, height: {size}, width: {size}}}")
        return "same" if 'padding="same"' in model_source(graph, KERAS) else "explicit"

    conv = "{{name: c, op: conv2d, out_channels: 4, kernel_size: {}, stride: {}, padding: {}}}"
    pool = "{{name: p, op: max_pool2d, kernel_size: {}, stride: {}, padding: {}}}"
    assert padding(conv.format(5, 1, 2), 27) == "same"
    assert padding(conv.format(3, 2, 1), 225) == "same"  # (1, 1) on both
    assert padding(conv.format(3, 2, 1), 224) == "explicit"  # TensorFlow adds (0, 1)
    assert padding(conv.format(11, 4, 2), 224) == "explicit"
    assert padding(pool.format(3, 2, 1), 55) == "same"
    assert padding(pool.format(3, 2, 1), 54) == "explicit"
    assert padding(pool.format(3, 2, 0), 55) == "explicit"


def test_a_layer_that_a_target_cannot_express_is_an_error() -> None:
    """Keras has no convolution with both a stride and a dilation: an error at the attribute."""
    graph = network("{name: conv, op: conv2d, out_channels: 4, kernel_size: 3, stride: 2, dilation: 2}")

    assert "dilation=2" in model_source(graph, TORCH)
    message = r"net.yaml:6:84: error\[unsupported-by-target\]: conv: Keras has no convolution"
    with pytest.raises(archspec.SpecError, match=message):
        files(graph, KERAS)


def test_padding_layers_have_names_of_their_own() -> None:
    """The padding layer before `conv` is `conv_pad`, unless a layer has that name."""
    layers = """
        {name: conv_pad, op: relu}
        {name: conv, op: conv2d, out_channels: 4, kernel_size: 3, padding: {top: 1}}
        """
    text = model_source(network(layers), TORCH)

    assert "self.conv_pad = nn.ReLU()" in text
    assert "self.conv_pad_ = nn.ZeroPad2d((0, 0, 1, 0))" in text


@pytest.mark.parametrize("init", ["{bias: ones}", "{weight: ones, bias: ones}"])
def test_initialization_skips_layers_without_a_bias(init: str) -> None:
    """reset_parameters of a network in which some layers have no bias initializes a bias only where there is one."""
    layers = """
        {name: a, op: conv2d, out_channels: 4, kernel_size: 1, bias: false}
        {name: b, op: conv2d, out_channels: 4, kernel_size: 1}
        """
    lines = model_source(network(layers, head=f"init: {init}"), TORCH).splitlines()
    (at,) = (i for i, line in enumerate(lines) if "nn.init.ones_(module.bias)" in line)

    assert "module.bias is not None:" in lines[at - 1]


def test_class_names_are_capitalized() -> None:
    """`alexnet` is AlexNet, and `resnet50` ResNet50."""
    names = {
        "alexnet": "AlexNet",
        "alexnet_tiny": "AlexNetTiny",
        "lenet5": "LeNet5",
        "mobilenet_v2": "MobileNetV2",
        "vgg16": "Vgg16",
        "net": "Net",
    }

    assert {name: class_name(name) for name in names} == names


def test_frameworks_are_the_targets_that_train() -> None:
    """PyTorch and Keras have a recipe, a program and an engine; NumPy has a model only."""
    for target in TARGETS.values():
        names = set(files(archspec.load(ROOT / "specs" / "lenet.yaml"), target))
        trains = {f"{target.folder}/{name}" for name in ("recipe.py", "train.py", "engine/data.py")} <= names
        assert (f"{target.folder}/model.py" in names, trains) == (True, target.name in FRAMEWORKS)
