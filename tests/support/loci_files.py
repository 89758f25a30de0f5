"""Small loci, and the files of them that a training may be given."""

from pathlib import Path

import h5py
import numpy as np
import torch
from configs import made_of

from cherimoya.config.data import DataConfig, KeysConfig
from cherimoya.data import hdf5
from cherimoya.data.batches import plan_epoch
from cherimoya.data.dataset import check_file, load_dataset
from cherimoya.data.feed import Resident
from cherimoya.data.loci import Loci
from cherimoya.evaluation import baselines

N, IN, OUT, JITTER = 30, 40, 20, 6
KEYS = KeysConfig(sequence="X", signal="y", control=None, label=None, chrom=None)


def make_loci(n: int = N, seed: int = 0) -> hdf5.Loci:
    """Loci whose sequence and signal are at known genomic positions."""
    rng = np.random.default_rng(seed)
    stored, profile = IN + 2 * JITTER, OUT + 2 * JITTER
    start = rng.integers(0, 10_000, n)
    return hdf5.Loci(
        sequence=rng.integers(0, 5, (n, stored), dtype=np.uint8),
        signal=rng.poisson(2, (n, 3, profile)).astype(np.int16),
        control=rng.poisson(1, (n, 2, stored)).astype(np.uint8),
        label=(np.arange(n) % 3 != 0).astype(np.uint8),
        chrom=np.array(["chr1", "chr2", "chrX"])[np.arange(n) * 3 // n],
        start=start,
        end=start + stored,
        in_window=IN,
        out_window=OUT,
        max_jitter=JITTER,
        track_names=["a", "plus", "minus"],
        control_names=["c+", "c-"],
        signal_groups=[1, 2],
        control_groups=[2],
        genome="toy",
        provenance={"sources": [{"name": "a.bw", "size": 3, "sha256": "0" * 64}]},
        truth={"expected": rng.random((n, 3, profile), np.float32), "rate": rng.random(n)},
    )


def plain_file(path: Path, loci: hdf5.Loci | None = None, **datasets: np.ndarray) -> Path:
    loci = loci or make_loci()
    one_hot = (loci.sequence[:, None] == np.arange(4)[:, None]).astype(np.float32)
    with h5py.File(path, "w") as file:
        for name, values in ({"X": one_hot, "y": loci.signal[:, :2]} | datasets).items():
            file[name] = values
    return path


def loci(n=6, in_window=12, out_window=8, jitter=3) -> Loci:
    rng = np.random.default_rng(0)
    length, out = in_window + 2 * jitter, out_window + 2 * jitter
    return Loci(
        sequence=rng.integers(0, 5, (n, length), dtype=np.uint8),
        signal=rng.integers(0, 9, (n, 3, out)).astype(np.int16),
        control=rng.integers(0, 9, (n, 2, length)).astype(np.uint8),
        label=np.ones(n, dtype=np.uint8),
        chrom=np.array(["a"] * n),
        start=np.zeros(n, dtype=np.int64),
        end=np.full(n, length, dtype=np.int64),
        in_window=in_window,
        out_window=out_window,
        max_jitter=jitter,
        track_names=["x", "y", "z"],
        control_names=["p", "m"],
        signal_groups=[1, 2],
        control_groups=[2],
        genome="",
        provenance={},
    )


ALL_KEYS = KeysConfig(sequence="X", signal="y", control="z", label="l", chrom="n")


def small_loci(n: int = 12) -> hdf5.Loci:
    """Loci of 8 bases on three chromosomes, with everything that a file can hold."""
    rng = np.random.default_rng(3)
    return hdf5.Loci(
        sequence=rng.integers(0, 5, (n, 10), dtype=np.uint8),
        signal=rng.poisson(2, (n, 2, 6)).astype(np.uint8),
        control=rng.poisson(1, (n, 1, 10)).astype(np.uint8),
        label=(np.arange(n) % 3 > 0).astype(np.uint8),
        chrom=np.array(["a", "b", "c"])[np.arange(n) * 3 // n],
        start=np.arange(n) * 100,
        end=np.arange(n) * 100 + 10,
        in_window=8,
        out_window=4,
        max_jitter=1,
        track_names=["plus", "minus"],
        control_names=["input"],
        signal_groups=[2],
        control_groups=[1],
        genome="toy",
        provenance={"sources": []},
        truth={"expected": rng.random((n, 2, 6), np.float32)},
    )


def valid_file(folder: Path, keys: KeysConfig | None) -> Path:
    """A prepared file, or with `keys` a plain one."""
    loci, path = small_loci(), folder / "valid.h5"
    if keys is None:
        return hdf5.write(path, loci)
    return plain_file(path, loci, z=loci.control, l=loci.label, n=np.char.encode(loci.chrom))


def settings() -> DataConfig:
    """Of a training on such a file."""
    words = ["data=hdf5", "data.path=x", "data.validation_chroms=[b]", "data.test_chroms=[c]"]
    return made_of(words).config.data


def train_on(config: DataConfig, path: Path, keys: KeysConfig | None) -> None:
    """What a training reads of the file: loci, examples of an epoch, and what it compares with."""
    config = DataConfig(**vars(config) | {"path": str(path), "keys": keys})
    check_file(config)
    dataset = load_dataset(config)
    loci, rows = dataset.loci, dataset.rows["train"]
    plan = plan_epoch(0, 0, loci.label[rows], 0.5, loci.max_jitter, True)
    tables = Resident(loci, torch.device("cpu")).tables
    first = (rows[plan.locus[:8]], plan.shift[:8], plan.flip[:8])
    batch = tables.gather(*(torch.from_numpy(values) for values in first))
    assert torch.isfinite(batch.signal.float()).all()
    assert set(batch.X.unique().tolist()) <= {0, 1}
    baselines.average_profile(dataset, "validation").metrics()
    baselines.ceiling(dataset, "validation")
