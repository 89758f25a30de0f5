"""The real yeast data, prepared."""

from pathlib import Path

import pytest
from toy import configure

from cherimoya.data import hdf5
from cherimoya.prepare.prepare import prepare


def yeast_folder(shared: Path) -> Path:
    folder = shared / "data" / "yeast"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    return folder


def yeast(shared: Path, output: Path, loci: str, signal: list[str], **values) -> hdf5.Loci:
    """The peaks of `loci` with `signal` as one group, paths below the yeast folder, unfiltered."""
    folder = yeast_folder(shared)
    config = configure(
        fasta=str(folder / "genome/sacCer3.fa.gz"),
        loci=str(folder / loci),
        signal=[[str(folder / path) for path in signal]],
        output=str(output),
        background_ratio=0,
        outlier_factor=None,
        max_jitter=0,
        **values,
    )
    return hdf5.read(prepare(config, lambda line: None))
