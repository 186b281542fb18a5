"""The log of a training run: JSON lines, TensorBoard events, a PNG of the curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

from .files import atomic


class Log:
    """The log of a run in `folder`: log.jsonl, events/ and curves.png.

    `history` has a record for each finished epoch; the run appends to it.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, float]], title: str
    ) -> None:
        # Without this, TensorBoard imports TensorFlow to write files, if it is there.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.history, self.title = folder, history, title
        self.events = SummaryWriter(str(folder / "events"), purge_step=len(history) + 1)

    def add(self, record: dict[str, float]) -> None:
        """Log an epoch, whose record is the last of the history."""
        print(*(f"{key} {value:,.4g}" for key, value in record.items()), flush=True)
        for key, value in record.items():
            self.events.add_scalar(key, value, int(record["epoch"]))
        self.events.flush()
        records = (json.dumps(one, allow_nan=False) for one in self.history)
        with atomic(self.folder / "log.jsonl") as temporary:
            temporary.write_text("".join(f"{record}\n" for record in records))

    def close(self) -> None:
        """Draw the curves."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self.events.close()
        if not self.history:
            return
        figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        epochs = [record["epoch"] for record in self.history]
        for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
            for key in (metric, f"validation_{metric}"):
                values = [record[key] for record in self.history]
                axis.plot(epochs, values, marker=".", label=key.replace("_", " "))
            axis.set(xlabel="epoch", ylabel=metric)
            axis.legend()
        figure.suptitle(self.title)
        with atomic(self.folder / "curves.png") as temporary:
            figure.savefig(temporary, format="png")
        pyplot.close(figure)
