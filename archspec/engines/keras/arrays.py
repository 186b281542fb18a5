"""Files of arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from .files import atomic


def save_arrays(path: Path, *arrays: Any, **named: Any) -> None:
    """Write arrays to an .npz file, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *arrays, **named)
