"""The log of a training run: JSON lines, TensorBoard events, a PNG of the curves."""

from __future__ import annotations

import json
from pathlib import Path

from .files import atomic


class Log:
    """The log of a run in `folder`: log.jsonl, events/ and curves.png.

    `history` has a record for each finished epoch; the run appends to it.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, float]], title: str
    ) -> None:
        import tensorflow as tf

        self.folder, self.history, self.title = folder, history, title
        self.summary = tf.summary
        self.events = tf.summary.create_file_writer(str(folder / "events"))

    def add(self, record: dict[str, float]) -> None:
        """Log an epoch, whose record is the last of the history."""
        print(*(f"{key} {value:,.4g}" for key, value in record.items()), flush=True)
        with self.events.as_default(step=int(record["epoch"])):
            for key, value in record.items():
                self.summary.scalar(key, value)
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
