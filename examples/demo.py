"""The main job on real input: AlexNet from its spec, in PyTorch and in Keras, on one photograph.

Checks specs/alexnet.yaml, generates both targets, loads one set of weights into both, shows both the same photograph,
and prints the network's table, the largest difference in each layer, and the five highest scores of each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import archspec
from archspec import cli, report, weights
from archspec.emit import TARGETS, files
from archspec.files import write
from archspec.verify import Workers, verify

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
MEAN = (123.68, 116.78, 103.94)  # of ImageNet's red, green and blue, 0 to 255 (Simonyan and Zisserman 2014)


def photograph(size: int) -> NDArray[np.float32]:
    """Return scikit-learn's china.jpg as Krizhevsky et al. (2012, section 2) prepare an image: (1, 3, size, size).

    The shorter side is made 256 pixels, the middle cut out, and the mean taken off; the scale stays that of pixels.
    """
    image = Image.fromarray(load_sample_image("china.jpg"))
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return (pixels - np.float32(MEAN)).transpose(2, 0, 1)[None]


def main() -> None:
    """Run the demo; exit 1 if the two parts do not agree."""
    graph = archspec.load(ROOT / "specs" / "alexnet.yaml")
    print("\n".join(report.table(graph)), end="\n\n", flush=True)

    out = ROOT / "generated"
    write([(out / graph.name / file, text) for target in TARGETS for file, text in files(graph, target).items()], out)

    with cli.progress() as progress, Workers(("torch", "keras"), progress=progress) as workers:
        image = photograph(graph.input.output_shape[1])
        drawn = weights.sample(graph, seed=2012)
        evidence = verify(graph, workers, generated=out, inputs=image, weights=drawn, checks=("structure", "forward"))
    cli.show_evidence(evidence)

    print(
        "\nThe five highest of 1,000 scores for china.jpg (untrained weights: what counts is that they are the same):"
    )
    for target, scores in evidence.outputs.items():
        best = scores[0].argsort()[::-1][:5]
        print(f"  {target:<6}", "  ".join(f"class {i:>3}: {scores[0, i]:.6f}" for i in best))
    sys.exit(not evidence.agrees)


if __name__ == "__main__":
    main()
