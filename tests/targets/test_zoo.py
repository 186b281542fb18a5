"""The networks of specs/ beside torchvision's: the same parameters, MACs, state dicts and outputs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest
from helpers import ROOT, ZOO

import archspec
from archspec.language.names import class_name
from archspec.targets import TARGETS, model_source

pytestmark = pytest.mark.frameworks

THEIRS = {  # torchvision's names of what is called otherwise here
    "resnext50": "resnext50_32x4d",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}
BY_NAME = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50", "wide_resnet50_2")
TORCHVISION = [
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("squeezenet1_0", "squeezenet1_1", *BY_NAME, "densenet121", "densenet169", "densenet201"),
    *("mobilenet_v2", "shufflenet_v2", "mnasnet1_0", "regnet_x_400mf", "regnet_y_400mf", "inception_v3"),
    *("mobilenet_v3_large", "mobilenet_v3_small", *(f"efficientnet_b{i}" for i in range(8)), "efficientnet_v2_s"),
    *("convnext_tiny", "convnext_small", "convnext_base", "vit_b_16", "vit_l_16", "swin_t"),
]
SMALL = (
    *("resnet18", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2", "regnet_y_400mf"),
    *("mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"),
)
# Of networks that torchvision does not have, or has otherwise, with the source of the number.
OTHERS = {
    "googlenet": 6_998_552,  # BVLC's bvlc_googlenet without the auxiliary classifiers
    "xception": 22_855_952,  # keras.applications: 22,910,480 with 54,528 moving statistics
    "mobilenet_v1": 4_231_976,  # keras.applications: 4,253,864 with 21,888 moving statistics
    "se_resnet50": 28_088_024,  # timm, seresnet50
    "deit_tiny": 5_717_416,  # timm, deit_tiny_patch16_224
    "mixer_b_16": 59_880_472,  # timm, mixer_b16_224
    # figure 1: two 3 x 3 convolutions a level; from below 2 x 2 transposed ones, and 3 x 3 ones of what is concatenated
    "unet": sum(
        [
            sum(9 * a * b + b for a, b in ((1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256))),
            sum(9 * a * b + b for a, b in ((256, 512), (512, 512), (512, 1024), (1024, 1024))),
            sum(4 * 2 * n * n + n + 9 * 2 * n * n + n + 9 * n * n + n for n in (512, 256, 128, 64)),
            64 * 2 + 2,
        ]
    ),
    "preact_resnet50": 25_549_352,  # timm, resnetv2_50
    "cifar_resnet20": 269_722,  # 0.27 million in table 6; 16 x 27 + 6 x (9 x 256 + ...): see the spec
}


def theirs(name: str) -> Any:
    """Return torchvision's network with random weights and statistics, in evaluation mode."""
    torchvision = pytest.importorskip("torchvision")
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    return torchvision.models.get_model(THEIRS.get(name, name), weights=None, **options).eval()


def of_torchvision(quick: Iterable[str], zoo: Container[str] = ()) -> list[Any]:
    """Return TORCHVISION; all but the `quick` ones are slow, or of the zoo."""
    marks = {name: pytest.mark.zoo if name in zoo else pytest.mark.slow for name in TORCHVISION}
    return [pytest.param(name, marks=() if name in quick else marks[name]) for name in TORCHVISION]


def ours(name: str) -> Any:
    """Return the generated PyTorch network."""
    text = model_source(archspec.load(ROOT / "specs" / f"{name}.yaml"), TARGETS["torch"])
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(text, f"{name}.py", "exec"), names)
    return names[class_name(name)]().eval()


@pytest.mark.parametrize(
    "name", of_torchvision([*SMALL, "alexnet", "vgg16", "resnet50", "densenet121", "inception_v3"])
)
def test_parameters_and_macs_are_torchvisions(name: str) -> None:
    """Parameters of the module, and half of what torch.utils.flop_counter counts, built without memory."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    graph = archspec.load(ROOT / "specs" / f"{name}.yaml")
    if name.startswith("regnet"):  # torchvision computes its widths with tensors
        network = theirs(name)
    else:
        with torch.device("meta"):
            network = theirs(name)
    images = torch.zeros(1, *graph.input.output_shape, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)

    total = archspec.check(graph).totals
    assert total.params == sum(p.numel() for p in network.parameters())
    assert 2 * total.macs == counter.get_total_flops()


@pytest.mark.parametrize(("name", "params"), OTHERS.items())
def test_parameters_of_other_networks(name: str, params: int) -> None:
    """The number that another library or the paper gives."""
    assert archspec.check(ROOT / "specs" / f"{name}.yaml").totals.params == params


@pytest.mark.parametrize("name", of_torchvision(["resnet18", "mobilenet_v2"], {*TORCHVISION}.difference(SMALL)))
def test_outputs_are_torchvisions_bit_for_bit(name: str) -> None:
    """With torchvision's state dict, in float64: by name for the ResNets, else by order and shape.

    ConvNeXt and Swin to rounding: their linear layers at each place are convolutions of 1 x 1 here.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    reference, network = theirs(name).double(), ours(name).double()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    state = reference.state_dict()
    for key in [key for key in state if key.endswith("layer_scale")]:
        state[key].uniform_(0.5, 1.5)  # 1e-6 would hide the branch
        last = key.replace("layer_scale", "block.5.bias")
        state = moved_after(state, key, last)
    if name.startswith("swin"):
        state = {key: value for key, value in state.items() if not key.endswith("relative_position_index")}
        for i in (2, 4, 6):
            state = moved_after(state, f"features.{i}.reduction.weight", f"features.{i}.norm.bias")
    if name.startswith("vit"):
        state = moved_after(moved_after(state, "class_token", "conv_proj.bias"), "encoder.pos_embedding", "class_token")
        for key in ("class_token", "heads.head.weight", "heads.head.bias"):
            state[key].normal_(0, 0.1)  # zeros would hide everything
    if name in BY_NAME:
        network.load_state_dict(state, strict=True)
    else:
        values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
        keys = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
        shapes = [network.state_dict()[key].shape for key in keys]
        assert [v.numel() for v in values] == [shape.numel() for shape in shapes]
        values = [value.reshape(shape) for value, shape in zip(values, shapes, strict=True)]
        network.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)
    size = {"inception_v3": 299}.get(name, 224 if name.startswith(("vgg", "vit")) else 96)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)

    with torch.no_grad():
        expected, found = reference(images), network(images)

    assert expected.std() > 0
    if name.startswith(("convnext", "swin")):
        assert float(abs(expected - found).max() / abs(expected).max()) < 1e-13
    else:
        assert torch.equal(expected, found)


def moved_after(state: dict[str, Any], key: str, last: str) -> dict[str, Any]:
    """Return a state dict with `key` after `last`."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if name != key:
            found[name] = value
        if name == last:
            found[key] = state[key]
    return found


def test_resnet50_is_a_short_file() -> None:
    """ResNet-50 takes less than 120 lines, and every file is shorter than torchvision's source for the network."""
    import inspect

    torchvision = pytest.importorskip("torchvision")
    from archspec.targets import files

    lengths = {}
    for name in TORCHVISION:
        graph = archspec.load(ROOT / "specs" / f"{name}.yaml")
        lengths[name] = len(files(graph, TARGETS["torch"], engine=False)["pytorch/model.py"].splitlines())
    modules = {
        "vgg": "vgg", "squeezenet": "squeezenet", "resn": "resnet", "wide": "resnet", "densenet": "densenet",
        "mobilenet_v2": "mobilenetv2", "mobilenet_v3": "mobilenetv3", "efficientnet": "efficientnet",
        "convnext": "convnext", "shufflenet": "shufflenetv2", "mnasnet": "mnasnet", "regnet": "regnet",
        "inception": "inception", "vit": "vision_transformer",
        "swin": "swin_transformer",
    }  # fmt: skip
    for name, length in lengths.items():
        module = next(value for key, value in modules.items() if name.startswith(key))
        source = inspect.getsource(getattr(torchvision.models, module))
        assert length < len(source.splitlines()), name
    assert lengths["resnet50"] < 120
    assert lengths["efficientnet_b0"] < 160
    assert lengths["vit_b_16"] < 110


def test_the_zoo_has_the_networks_of_the_list() -> None:
    """Every spec that is no AlexNet is compared here, or is a small one of our own."""
    known = {*TORCHVISION, *OTHERS, "cifar_resnet56", "cifar_resnet110", "nin", "zfnet", "mlp", "cifar_cnn"}

    assert {path.stem for path in ZOO} == known
