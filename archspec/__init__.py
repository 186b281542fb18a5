"""archspec: a network described once, counted, generated for PyTorch and Keras, and proven the same in both."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.graph import Graph, Node, build, load
    from archspec.source import Diagnostic, Source, SpecError

__version__ = "0.1.0"

__all__ = ["Diagnostic", "Graph", "Node", "Source", "SpecError", "__version__", "build", "load"]


def __getattr__(name: str) -> Any:
    # Public names are imported as they are asked for: the command's start is most of what `check` takes.
    if name in __all__:
        from archspec import graph, source

        return getattr(source, name, None) or getattr(graph, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
