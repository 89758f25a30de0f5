"""bigWig files that we write: another program reads every value, summary and zoom level of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cherimoya.data import bigwig_blocks, bigwig_writer
from cherimoya.data.bigwig_writer import write_bigwig
from cherimoya.errors import DataError, DiskError

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


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(["dense", "stretches", "bases"]), min_size=1, max_size=4),
    piece=st.sampled_from([40, 700, 5000]),
    node=st.sampled_from([2, 3, 256]),
    slot=st.sampled_from([7, 1024]),
)
def test_every_value_is_read_back(seed, kinds, piece, node, slot, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bigwig_blocks, "NODE", node)  # trees of many levels
    monkeypatch.setattr(bigwig_writer, "SLOT", slot)
    monkeypatch.setattr(bigwig_writer, "RECORDS", slot)
    monkeypatch.setattr(bigwig_writer, "AT_ONCE", 512)
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
    for chrom, (at, values) in tracks.items():
        wanted = np.full(lengths[chrom], np.nan)
        wanted[at] = values
        np.testing.assert_array_equal(file.values(chrom, 0, lengths[chrom], fillna=None), wanted)
        some = int(rng.integers(0, lengths[chrom]))
        end = min(some + 20, lengths[chrom])
        np.testing.assert_array_equal(file.values(chrom, some, end, fillna=None), wanted[some:end])
    check_summaries(file, tracks)


def check_summaries(file, tracks: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The summary of the whole file, and each record of each zoom level."""
    every = np.concatenate([values for _, values in tracks.values()]).astype(np.float64)
    summary = file.info()["summary"]
    assert summary["basesCovered"] == len(every)
    if len(every):
        assert (summary["min"], summary["max"]) == (every.min(), every.max())
        assert summary["sum"] == pytest.approx(every.sum(), rel=1e-6, abs=1e-6)
    for size in file.zooms():
        for chrom, (at, values) in tracks.items():
            bins = at // size
            records = list(file.zoom_records(size, chrom))
            assert [r[0] // size for r in records] == np.unique(bins).tolist()
            for start, end, found in records:
                inside = bins == start // size
                exact = values[inside].astype(np.float64)
                assert (start, end) == (at[inside][0], at[inside][-1] + 1)
                assert found["bases_covered"] == len(exact)
                assert (found["min_val"], found["max_val"]) == (exact.min(), exact.max())
                assert found["sum"] == pytest.approx(exact.sum(), rel=1e-5, abs=1e-5)
                assert found["sum_squares"] == pytest.approx((exact**2).sum(), rel=1e-5)


def test_zoom_levels_span_the_longest_chromosome(tmp_path: Path) -> None:
    n = 300_000
    values = np.random.default_rng(0).random(n, np.float32)
    path = write_bigwig(tmp_path / "x.bw", {"a": n}, [("a", np.arange(n), values)])
    file = pybigtools.open(str(path))
    assert file.zooms() == [64, 256, 1024, 4096, 16384, 65536, 262144]
    means = file.values("a", 0, 262_144, bins=4, fillna=None)
    wanted = values[:262_144].reshape(4, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(means, wanted, rtol=1e-5)


def test_files_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    def pieces():
        yield "a", np.arange(3), np.ones(3)
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"x.bw: cannot be written \(.*No space.*Free some space"):
        write_bigwig(tmp_path / "x.bw", {"a": 5}, pieces())
    monkeypatch.setattr(bigwig_writer, "MOST_CHROMS", 2)
    with pytest.raises(DataError, match=r"3 chromosomes, but a bigWig holds 2.*chroms="):
        write_bigwig(tmp_path / "x.bw", {"a": 5, "b": 5, "c": 5}, [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_values(tmp_path: Path) -> None:
    file = pybigtools.open(str(write_bigwig(tmp_path / "x.bw", {"a": 500}, [])))
    assert file.chroms() == {"a": 500}
    assert np.isnan(file.values("a", 0, 500, fillna=None)).all()
