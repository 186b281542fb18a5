"""archspec verify --data: real images, and what the targets say they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.cli.console import usage_error
from archspec.language.source import printable

if TYPE_CHECKING:
    from archspec.graph import Graph

IMAGES = 16  # unless --batch says how many
SHOWN = 16  # rows of the table


def read_data(graph: Graph, folder: Path, batch: int | None) -> tuple[Any, list[Path]]:
    """Return the images of a folder and their files; print what is wrong and exit."""
    from archspec.verification.images import ImagesError, read_images

    try:
        return read_images(graph, folder, batch or IMAGES)
    except (ImagesError, OSError) as error:
        usage_error(str(error))
    except ModuleNotFoundError as error:
        usage_error(f"--data needs {error.name}: pip install pillow")


def print_top5(files: Sequence[Path], outputs: Mapping[str, Any]) -> None:
    """Print the five largest outputs of each image in the first target, and how many the others have as well."""
    from archspec.verification.images import top

    named = {target: scores for target, scores in outputs.items() if scores.ndim == 2 and len(scores) == len(files)}
    if not named:
        return
    first, *others = named
    found = {target: top(scores) for target, scores in named.items()}
    width = max(len(printable(path.name)) for path in files[:SHOWN])
    print(f"\n{'image':{width}}  five largest outputs of {first}, as index (value)")
    for i, path in enumerate(files[:SHOWN]):
        print(
            f"{printable(path.name):{width}}  " + ", ".join(f"{k} ({named[first][i, k]:.4g})" for k in found[first][i])
        )
    if len(files) > SHOWN:
        print(f"and {len(files) - SHOWN} more")
    for target in others:
        pairs = list(zip(found[first], found[target], strict=True))
        one, five = sum(a[0] == b[0] for a, b in pairs), sum(set(a) == set(b) for a, b in pairs)
        print(
            f"{printable(target)}: the largest is the same in {one} of {len(files)} images, the five largest in {five}"
        )
