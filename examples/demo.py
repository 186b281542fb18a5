"""AlexNet, from its spec to PyTorch and Keras.

`demo.py core` checks specs/alexnet.yaml and generates its code: this needs no framework. `demo.py verify` loads the
same weights into both programs, shows both the same photograph, and prints the largest difference in each layer and the
five highest logits of each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import archspec
from archspec import report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "generated"
MEAN = (123.68, 116.78, 103.94)  # of ImageNet's red, green and blue, 0 to 255 (Simonyan and Zisserman 2014)


def core() -> int:
    """Print AlexNet's table and the head of its generated model; return the exit status."""
    checked = archspec.check(ROOT / "specs" / "alexnet.yaml")
    print("\n".join(report.network_lines(checked.graph)), end="\n\n")
    paths = archspec.generate(checked.graph, ["torch", "keras"], out=OUT)
    for path in paths:
        print(path.relative_to(ROOT))
    model = OUT / "alexnet" / "pytorch" / "model.py"
    lines = model.read_text(encoding="utf-8").splitlines()
    start = lines.index("class AlexNet(nn.Module):")
    print(f"\n{model.relative_to(ROOT)}:\n", *lines[start : start + 16], "        ...", sep="\n")
    return 0 if checked.ok else 1


def photograph(size: int) -> NDArray[np.float32]:
    """Return scikit-learn's china.jpg, prepared as in Krizhevsky et al. (2012, section 2): (1, 3, size, size).

    The shorter side is resized to 256 pixels, the center cropped and the mean subtracted.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg"))
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return (pixels - np.float32(MEAN)).transpose(2, 0, 1)[None]


def verify() -> int:
    """Run both programs on one photograph and print how they compare; return the exit status."""
    from archspec.cli.console import progress
    from archspec.cli.evidence import print_evidence
    from archspec.verification import Workers, canonical_weights

    graph = archspec.load(ROOT / "specs" / "alexnet.yaml")
    with progress() as show, Workers(("torch", "keras"), progress=show) as workers:
        evidence = archspec.verify(
            graph,
            workers=workers,
            generated=OUT,
            inputs=photograph(graph.input.output_shape[1]),
            weights=canonical_weights.from_spec(graph, seed=2012),
            checks=("structure", "forward"),
        )
    print_evidence(evidence)
    print("\nThe five highest of 1,000 logits for china.jpg, with random weights:")
    for target, logits in evidence.outputs.items():
        best = logits[0].argsort()[::-1][:5]
        print(f"  {target:<6}", "  ".join(f"class {i:>3}: {logits[0, i]:.6f}" for i in best))
    return 0 if evidence.agrees else 1


if __name__ == "__main__":
    sys.exit({"core": core, "verify": verify}[sys.argv[1]]())
