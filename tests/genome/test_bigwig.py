"""bigWig files that we write: another program reads every value, summary and zoom level of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cherimoya.errors import DiskError
from cherimoya.genome import bigwig, bigwig_writer
from cherimoya.genome.bigwig_writer import write_bigwig

pybigtools = pytest.importorskip("pybigtools")


def track(rng: np.random.Generator, length: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values: of every base, of stretches, or of single bases."""
    there = np.ones(length, bool)
    if kind == "stretches":
        there = np.repeat(rng.random(-(-length // 50)) < 0.4, 50)[:length]
    if kind == "bases":
        there = rng.random(length) < 0.2
    at = np.flatnonzero(there)
    return at, (rng.gamma(0.5, 1, len(at)) - rng.integers(0, 2, len(at))).astype(np.float32)


FILES = given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(["dense", "stretches", "bases"]), min_size=1, max_size=4),
    piece=st.sampled_from([40, 700, 5000]),
    items=st.sampled_from([3, 64, 1024]),
    long=st.sampled_from([1, 30, 5000]),
    fanout=st.sampled_from([2, 7, 256]),
    zoom=st.sampled_from([8, 64, 1024]),
)


def read_back(seed, kinds, piece, items, long, fanout, zoom, tmp_path, monkeypatch) -> None:
    changed = {"ITEMS": items, "LONG": long, "FANOUT": fanout, "FIRST_ZOOM": zoom}
    for name, value in changed.items():
        monkeypatch.setattr(bigwig_writer, name, value)
    rng = np.random.default_rng(seed)
    lengths = {f"chr{i}": int(rng.integers(1, 3000)) for i in range(len(kinds))}
    tracks = {c: track(rng, n, k) for (c, n), k in zip(lengths.items(), kinds, strict=True)}
    pieces = (
        (chrom, at[i : i + piece], values[i : i + piece])
        for chrom, (at, values) in sorted(tracks.items())
        for i in range(0, len(at) + 1, piece)
    )
    path = write_bigwig(tmp_path / "x.bw", dict(reversed(lengths.items())), pieces)
    assert list(tmp_path.iterdir()) == [path]
    file = pybigtools.open(str(path))
    assert file.chroms() == lengths
    (ours,) = bigwig.read_bigwig(path, "x")
    for chrom, (at, values) in tracks.items():
        wanted = np.zeros(lengths[chrom])
        wanted[at] = values
        np.testing.assert_array_equal(ours.values(chrom, 0, lengths[chrom]), wanted)
    if not any(len(at) for at, _ in tracks.values()):
        return  # of a file without values pybigtools reads the header alone
    for chrom, (at, values) in tracks.items():
        wanted = np.full(lengths[chrom], np.nan)
        wanted[at] = values
        np.testing.assert_array_equal(file.values(chrom, 0, lengths[chrom], fillna=None), wanted)
        some = int(rng.integers(0, lengths[chrom]))
        end = min(some + 20, lengths[chrom])
        np.testing.assert_array_equal(file.values(chrom, some, end, fillna=None), wanted[some:end])
    check_summaries(file, tracks)


@pytest.mark.parametrize("files", [15, pytest.param(100, marks=pytest.mark.slow)])
def test_every_value_is_read_back(files: int, tmp_path: Path, monkeypatch) -> None:
    quiet = settings(max_examples=files, deadline=None, suppress_health_check=list(HealthCheck))
    quiet(FILES(read_back))(tmp_path=tmp_path, monkeypatch=monkeypatch)


def check_summaries(file, tracks: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The summary of the whole file, which viewers scale by."""
    every = np.concatenate([values for _, values in tracks.values()]).astype(np.float64)
    summary = file.info()["summary"]
    assert summary["basesCovered"] == len(every)
    if len(every):
        assert (summary["min"], summary["max"]) == (every.min(), every.max())
        assert summary["sum"] == pytest.approx(every.sum(), rel=1e-6, abs=1e-6)


def test_zoom_levels_span_the_longest_chromosome(tmp_path: Path) -> None:
    n = 300_000
    values = np.random.default_rng(0).random(n, np.float32)
    path = write_bigwig(tmp_path / "x.bw", {"a": n}, [("a", np.arange(n), values)])
    file = pybigtools.open(str(path))
    assert max(file.zooms()) >= 65536
    means = file.values("a", 0, 262_144, bins=4, fillna=None)
    wanted = values[:262_144].reshape(4, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(means, wanted, rtol=1e-5)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    def pieces():
        yield "a", np.arange(3), np.ones(3)
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"x.bw: .*No space.*Free space"):
        write_bigwig(tmp_path / "x.bw", {"a": 5}, pieces())
    assert list(tmp_path.iterdir()) == []
