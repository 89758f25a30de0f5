"""Prepared loci are what tangermeme's extract_loci returns, base for base, count for count."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import Toy
from yeast_data import yeast

from cherimoya.data import hdf5

pytest.importorskip("pybigtools")
tangermeme = pytest.importorskip("tangermeme.io")


def agrees(loci: hdf5.Loci, bed: str, fasta: str, signal: list[str], control: list[str]) -> None:
    """Check `loci` against extract_loci of the same files."""
    found = tangermeme.extract_loci(
        bed,
        fasta,
        signals=signal,
        in_signals=control or None,
        in_window=loci.in_window,
        out_window=loci.out_window,
        max_jitter=loci.max_jitter,
        n_jobs=1,
    )
    sequence, values = (array.numpy() for array in found[:2])
    assert len(sequence) == len(loci)
    one_hot = loci.sequence[:, None] == np.arange(4)[:, None]
    np.testing.assert_array_equal(one_hot, sequence.astype(bool))
    np.testing.assert_array_equal(loci.signal, values)
    if control:
        np.testing.assert_array_equal(loci.control, found[2].numpy())


@pytest.mark.slow
def test_yeast_loci_agree(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "yeast"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    fasta = tmp_path / "genome.fa"  # extract_loci writes an index beside it
    fasta.write_bytes(gzip.decompress((folder / "genome/sacCer3.fa.gz").read_bytes()))
    signal = ["stripeseq/WT_plus.bw", "atac/atac_ins.bw"]
    loci = yeast(shared, tmp_path / "a.h5", "stripeseq/WT_tss_loci.bed", signal, are_strands=True)
    files = [str(folder / path) for path in signal]
    assert len(loci) > 5000
    agrees(loci, str(folder / "stripeseq/WT_tss_loci.bed"), str(fasta), files, [])


GENOMES = given(
    seed=st.integers(0, 2**32 - 1),
    out=st.integers(1, 60),
    more=st.integers(0, 40),
    jitter=st.integers(0, 30),
    centers=st.lists(st.integers(150, 1850), min_size=1, max_size=12, unique=True),
    width=st.integers(0, 70),
)


def random_loci_agree(
    seed: int, out: int, more: int, jitter: int, centers: list[int], width: int
) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        toy = Toy(Path(folder))
        for chrom, bases in toy.bases.items():
            changed = np.array(list(bases))
            changed[rng.random(len(bases)) < 0.02] = "N"
            lower = rng.random(len(bases)) < 0.3
            changed[lower] = np.char.lower(changed[lower])
            toy.bases[chrom] = "".join(changed)
        toy.fasta()
        for values in toy.plus.values():
            values += 1  # no window without counts, which would be refused
        toy.bigwig("plus.bw", toy.plus)
        chroms = rng.choice(list(toy.bases), len(centers))
        lines = [
            f"{chrom}\t{at - width // 2}\t{at - width // 2 + max(width, 1)}"
            for chrom, at in zip(chroms, centers, strict=True)
        ]
        bed = str(toy.bed(*lines))
        files = [f"{folder}/plus.bw", f"{folder}/minus.bw"]
        loci = toy.run(
            in_window=out + 2 * more,
            out_window=out,
            max_jitter=jitter,
            max_n_fraction=1.0,
            control=[[files[1]]],
            processes=1,
        )
        agrees(loci, bed, f"{folder}/toy.fa", files, files[1:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("genomes", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_random_loci_agree(genomes: int) -> None:
    quiet = settings(max_examples=genomes, deadline=None, suppress_health_check=list(HealthCheck))
    quiet(GENOMES(random_loci_agree))()
