"""bigWig files as tracks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.data.track import Track, stem
from cherimoya.errors import DataError
from cherimoya.extras import needed

KIND = "bigWig"
MAGIC = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")


class BigWig(Track):
    """The values of a bigWig file."""

    kind = KIND

    def __init__(self, path: Path, bigwig: Any) -> None:
        super().__init__(path, stem(path), dict(bigwig.chroms()))
        self._bigwig = bigwig

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bigwig": None}  # another process opens the file itself

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        if self._bigwig is None:
            file = open(self.path, "rb")  # noqa: SIM115 - until the process ends
            self._bigwig = needed("pybigtools").open(file)
        try:
            values = self._bigwig.values(chrom, start, end, fillna=None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # damage makes pybigtools panic, which is no Exception
            raise DataError(
                f"{self.path}: cannot be read at {chrom}:{start:,}-{end:,} ({error}). "
                "The file is damaged: make or copy it again."
            ) from None
        return np.where(np.isnan(values), 0, values)


@contextmanager
def opened(path: Path, key: str) -> Iterator[list[Track]]:
    """The one track of the bigWig at `path`, which the configuration names under `key`."""
    bigtools = needed("pybigtools")
    with open(path, "rb") as file:  # an open file, because pybigtools judges a path by its suffix
        try:
            track = BigWig(path, bigtools.open(file))
        except (bigtools.BBIReadError, ValueError, OSError):
            raise DataError(
                f"{key}: {path} is truncated or damaged. Make or copy it again."
            ) from None
        yield [track]
