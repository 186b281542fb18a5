"""archspec: a network described once, counted, generated for PyTorch and Keras, and verified to be the same in both.

import archspec

graph = archspec.load("specs/alexnet.yaml")
checked = archspec.check(graph)
paths = archspec.generate(graph, "torch")
evidence = archspec.verify(graph, ["torch", "keras"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.api import Checked, check, generate, import_model, load, loads, verify, verify_model
    from archspec.graph import Graph, Node
    from archspec.language.source import Diagnostic, SpecError

__version__ = "0.2.0"

__all__ = [
    "Checked",
    "Diagnostic",
    "Graph",
    "Node",
    "SpecError",
    "__version__",
    "check",
    "generate",
    "import_model",
    "load",
    "loads",
    "verify",
    "verify_model",
]


def __getattr__(name: str) -> Any:
    # Public names are imported when they are first used: start-up is most of the time that `check` takes.
    if name in __all__:
        from archspec import api

        value = getattr(api, name, None)
        if value is None:
            from archspec import graph

            value = getattr(graph, name)
        globals()[name] = value  # also where `archspec.verify` is the package, once that has been imported
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
