"""Facts of the real yeast data, out of prepared files: a shift of one base destroys them."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from toy import configure

from cherimoya.data import hdf5
from cherimoya.data.prepare import prepare
from cherimoya.data.tracks import open_tracks

pytest.importorskip("pybigtools")

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def yeast(shared: Path, output: Path, loci: str, signal: list[str], **windows: int) -> hdf5.Loci:
    """The peaks of `loci` with `signal` as one group, paths below the yeast folder, unfiltered."""
    folder = shared / "data" / "yeast"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    config = configure(
        fasta=str(folder / "genome/sacCer3.fa.gz"),
        loci=str(folder / loci),
        signal=[[str(folder / path) for path in signal]],
        output=str(output),
        background_ratio=0,
        outlier_factor=None,
        max_jitter=0,
        **windows,
    )
    return hdf5.read(prepare(config, lambda line: None))


def test_yeast_transcription_starts_at_a_purine_after_a_pyrimidine(
    shared: Path, tmp_path: Path
) -> None:
    loci = yeast(
        shared,
        tmp_path / "stripe.h5",
        "stripeseq/WT_tss_loci.bed",
        ["stripeseq/WT_plus.bw", "stripeseq/WT_minus.bw"],
        in_window=1014,
        out_window=1000,
    )
    rows = hdf5.select_splits(
        loci.chrom, loci.label, train=None, validation=["chrXVI"], test=["chrIV", "chrXI"]
    )
    assert [len(rows[s]) for s in ("test", "validation", "train")] == [967, 401, 3729]
    for reads, shares in {5: (0.51, 0.47, 0.40, 0.48), 10: (0.53, 0.46, 0.43, 0.48)}.items():
        first, before = bases_at_starts(loci, reads)
        found = [
            np.mean(first == 0),
            np.mean(first == 2),
            np.mean(before == 1),
            np.mean(before == 3),
        ]
        np.testing.assert_allclose(found, shares, atol=0.01)


def bases_at_starts(loci: hdf5.Loci, reads: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes, on the transcript's strand, of bases where `reads` or more start and of those before.

    Each genomic position counts once, however many loci hold it.
    """
    row, strand, at = np.nonzero(loci.signal >= reads)
    at += (loci.in_window - loci.out_window) // 2
    _, chrom = np.unique(loci.chrom, return_inverse=True)
    place = np.stack([chrom[row], loci.start[row] + at, strand])
    _, once = np.unique(place, axis=1, return_index=True)
    row, strand, at = row[once], strand[once], at[once]
    forward = strand == 0
    first = loci.sequence[row, at].astype(int)
    before = loci.sequence[row, np.where(forward, at - 1, at + 1)].astype(int)
    return np.where(forward, first, 3 - first), np.where(forward, before, 3 - before)


def test_yeast_cuts_gather_at_reb1(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/yeast/genome/sacCer3.fa.gz"
    if not path.is_file():
        pytest.skip(f"real data are not at {path}")
    genome = {}
    for record in gzip.decompress(path.read_bytes()).decode().split(">")[1:]:
        name, bases = record.split("\n", 1)
        genome[name.split()[0]] = bases.replace("\n", "").upper()
    means = {}
    for motif in ("CGGGTAA", "CGGATAA", "CGAGTAA"):
        either = f"(?={motif}|{motif.translate(COMPLEMENT)[::-1]})"
        lines = [
            f"{chrom}\t{match.start()}\t{match.start() + 7}"
            for chrom, bases in genome.items()
            for match in re.finditer(either, bases)
            if chrom != "chrM" and not (chrom == "chrXII" and 451_400 <= match.start() < 469_000)
        ]
        bed = tmp_path / f"{motif}.bed"
        bed.write_text("\n".join(lines) + "\n")
        loci = yeast(
            shared,
            tmp_path / f"{motif}.h5",
            str(bed),
            ["atac/atac_ins.bw"],
            in_window=400,
            out_window=400,
        )
        means[motif] = loci.signal.sum(axis=(1, 2)).mean()
    assert means["CGGGTAA"] == pytest.approx(71, abs=2)
    assert means["CGGATAA"] == pytest.approx(23, abs=2)
    assert means["CGAGTAA"] == pytest.approx(23, abs=2)


def test_fragments_give_the_cuts_of_the_bigwig(shared: Path) -> None:
    folder = shared / "data/yeast/atac"
    files = [str(folder / name) for name in ("yeast_500k_SRR1822137.frag.gz", "atac_ins.bw")]
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    tn5 = {"shift_plus": 4, "shift_minus": -5, "counts": False}
    config = configure(fasta="-", loci="-", signal=[files], output="-", fragments=tn5)
    with open_tracks(config.signal, "signal", config) as ((cuts, bigwig),):
        assert set(cuts.lengths) == set(bigwig.lengths)
        for chrom in ("chrI", "chrXVI", "chrM"):
            length = bigwig.lengths[chrom]
            wanted = bigwig.values(chrom, 0, length)
            assert wanted.sum() > 10_000
            np.testing.assert_array_equal(cuts.values(chrom, 0, length), wanted)
