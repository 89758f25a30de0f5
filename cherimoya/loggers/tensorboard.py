"""TensorBoard's event files, in the run's folder: tensorboard --logdir outputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cherimoya.loggers.base import Logger, Rows
from cherimoya.records import metrics
from cherimoya.util.optional import import_optional

FOLDER = "tensorboard"


class TensorBoardLogger(Logger):
    """A scalar a metric by training step, and the plots as images."""

    def check(self) -> None:
        """Raise PackageError where tensorboard is not installed."""
        import_optional("tensorboard")

    @property
    def where(self) -> str:
        """The command that shows it."""
        return f"tensorboard --logdir {self.folder / FOLDER}"

    def start(self, settings: Mapping[str, Any], earlier_id: str | None, rows: Rows) -> None:
        """Open the files; of a run that goes on, what came after `rows` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        after = int(rows[-1][metrics.STEP]) + 1 if rows else 0
        self._writer = SummaryWriter(str(self.folder / FOLDER), purge_step=after)

    def row(self, values: Mapping[str, Any]) -> None:
        """Add the numbers of a row."""
        for name, value in values.items():
            if name not in (metrics.STEP, metrics.EPOCH) and isinstance(value, int | float):
                self._writer.add_scalar(name, value, int(values[metrics.STEP]))
        self._writer.flush()

    def image(self, name: str, path: Path, step: int) -> None:
        """Add a plot."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def finish(self, state: str, exit_code: int) -> None:
        """Close the files."""
        self._writer.close()
