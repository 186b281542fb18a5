"""What public tools print for a generated PyTorch network: run as a program, one JSON object on standard output.

python counters.py torch_model.py AlexNet 3 227 227
"""

import contextlib
import importlib.util
import io
import json
import sys
import warnings
from typing import Any


def main() -> None:
    """Run each tool that is installed."""
    path, name, *shape = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import torch

    size = (1, *map(int, shape))

    def fresh() -> Any:
        model = getattr(module, name)().eval()
        for word, layer in list(model.named_children()):
            if isinstance(layer, torch.nn.LocalResponseNorm):  # what the tools know, in place of the faster spelling
                norm = torch.nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
                setattr(model, word, norm.eval())
        return model

    def fvcore() -> int:
        from fvcore.nn import FlopCountAnalysis

        return int(FlopCountAnalysis(fresh(), torch.zeros(size)).unsupported_ops_warnings(False).total())

    def thop(which: int = 0) -> int:
        from thop import profile

        return int(profile(fresh(), (torch.zeros(size),), verbose=False)[which])

    def torchinfo() -> int:
        from torchinfo import summary

        return int(summary(fresh(), size, verbose=0).total_mult_adds)

    def ptflops(backend: str = "pytorch") -> int:
        from ptflops import get_model_complexity_info

        return int(
            get_model_complexity_info(fresh(), size[1:], as_strings=False, print_per_layer_stat=False, backend=backend)[
                0
            ]
        )

    def calflops(which: int = 0) -> int:
        from calflops import calculate_flops

        found = calculate_flops(fresh(), size, output_as_string=False, print_results=False, print_detailed=False)
        return int(found[which])

    def flop_counter(training: bool = False) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):  # on a CPU it leaves out the products of attention
            model = fresh()
            images = torch.zeros(size)
        with FlopCounterMode(display=False) as mode:
            scores = model(images)
            if training:
                scores.sum().backward()
        return int(mode.get_total_flops())

    tools = {
        "fvcore": fvcore,
        "thop": thop,
        "thop-params": lambda: thop(1),
        "torchinfo": torchinfo,
        "ptflops": ptflops,
        "ptflops-aten": lambda: ptflops("aten"),
        "calflops": calflops,
        "calflops-macs": lambda: calflops(1),
        "FlopCounterMode": flop_counter,
        "FlopCounterMode-training": lambda: flop_counter(training=True),
    }
    warnings.simplefilter("ignore")
    found = {}
    for tool, count in tools.items():
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(io.StringIO()):
            found[tool] = count()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
