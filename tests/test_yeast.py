"""Facts of the real yeast data, out of prepared files: a shift of one base destroys them."""

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from interpreted import configured
from toy import configure
from yeast_data import yeast, yeast_folder

from cherimoya.config.interpret import MarginalizeConfig
from cherimoya.data import hdf5
from cherimoya.data.splits import select_splits
from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import read_genome
from cherimoya.genome.open_tracks import open_tracks
from cherimoya.interpret.marginalize import marginalize
from cherimoya.prepare.prepare import prepare

pytest.importorskip("pybigtools")

COMPLEMENT = str.maketrans("ACGT", "TGCA")


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
    rows = select_splits(
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
    tn5 = {"kind": "auto", "shift_plus": 4, "shift_minus": -5, "counts": False}
    config = configure(fasta="-", loci="-", signal=[[f] for f in files], output="-", fragments=tn5)
    with open_tracks(config.signal, "signal", config) as ((cuts,), (bigwig,)):
        assert set(cuts.lengths) == set(bigwig.lengths)
        for chrom in ("chrI", "chrXVI", "chrM"):
            length = bigwig.lengths[chrom]
            wanted = bigwig.values(chrom, 0, length)
            assert wanted.sum() > 10_000
            np.testing.assert_array_equal(cuts.values(chrom, 0, length), wanted)


@pytest.mark.parametrize(
    "state", [*(pytest.param(s, marks=pytest.mark.slow) for s in ("raw", "twice")), "shifted"]
)
def test_the_shift_of_yeast_cuts_is_found(shared: Path, tmp_path: Path, state: str) -> None:
    """The motif of Tn5 lies +4/-5 from the ends of the fragments, at 0 of the cuts."""
    folder, loci_file = yeast_folder(shared), "atac/cut_peaks.narrowPeak"
    windows = {"center": "summit", "in_window": 500, "out_window": 500, "shift": "auto"}
    wanted = yeast(shared, tmp_path / "cuts.h5", loci_file, ["atac/atac_ins.bw"], **windows)
    (found,) = wanted.provenance["cut_sites"]
    assert (found["enzyme"], found["found"]) == ("Tn5", [0, 0])
    assert found["correlations"]["0/0"] > 0.9
    raw = folder / "atac/yeast_500k_SRR1822137.frag.gz"
    moved, plus, minus = tmp_path / "moved.tsv", *{"shifted": (4, -5)}.get(state, (8, -10))
    lines = (line.split(b"\t") for line in gzip.decompress(raw.read_bytes()).splitlines())
    spans = ((chrom, int(start) + plus, int(end) + minus) for chrom, start, end, *_ in lines)
    moved.write_text("".join(f"{c.decode()}\t{s}\t{e}\n" for c, s, e in spans if s < e))
    signal = [str(raw if state == "raw" else moved)]
    if state == "twice":
        with pytest.raises(DataError, match=r"lies -4/\+5 from .* they are shifted twice\. Give"):
            yeast(shared, tmp_path / "x.h5", loci_file, signal, **windows)
        return
    loci = yeast(shared, tmp_path / "x.h5", loci_file, signal, **windows)
    (found,) = loci.provenance["cut_sites"]
    assert (found["enzyme"], found["found"]) == ("Tn5", [4, -5] if state == "raw" else [0, 0])
    scores = found["correlations"]
    assert scores["+4/-5" if state == "raw" else "0/0"] > 0.9
    assert sorted(scores.values())[-2] < 0.5
    few = 0 if state == "raw" else 30  # fragments of 8 bases end before they start if shifted
    assert np.abs(loci.signal.astype(int) - wanted.signal).sum() <= few
    assert wanted.signal.sum() > 200_000


def test_starts_of_transcription_are_no_cuts(shared: Path, tmp_path: Path) -> None:
    files = ["stripeseq/WT_plus.bw", "stripeseq/WT_minus.bw"]
    with pytest.raises(DataError, match="neither the motif of Tn5 nor that of DNase I"):
        yeast(shared, tmp_path / "x.h5", "stripeseq/WT_tss_loci.bed", files, shift="auto")


@pytest.mark.slow
def test_reads_of_the_same_assay_under_other_names(shared: Path, tmp_path: Path) -> None:
    pysam = pytest.importorskip("pysam")
    bam = shared / "data/yeast/stripeseq/S288C.bam"
    loci_file, windows = "stripeseq/WT_tss_loci.bed", {"in_window": 1014, "out_window": 1000}
    starts = ["stripeseq/S288C.bam"]
    with pytest.raises(DataError, match=r"I is chrI, .* Accept it with chrom_alias=auto"):
        yeast(shared, tmp_path / "bam.h5", loci_file, starts, **windows)
    reads = {"stranded": True, "mates": "first", "shift_plus": 0, "shift_minus": 0}
    reads |= {"min_mapq": 0, "duplicates": "drop", "proper_pairs": False}
    reads |= {"exchange_strands": False}
    loci = yeast(
        shared,
        tmp_path / "bam.h5",
        loci_file,
        starts,
        **windows,
        bam=reads,
        chrom_alias="auto",
        processes=1,
    )
    assert loci.track_names == ["S288C.plus", "S288C.minus"]
    with pysam.AlignmentFile(str(bam)) as file:
        for row in np.argsort(-loci.signal.sum(axis=(1, 2)))[:20]:
            left = int(loci.start[row]) + 7  # of the output window
            wanted = np.zeros((2, 1000), int)
            name = str(loci.chrom[row]).removeprefix("chr")
            for read in file.fetch(name, left, left + 1000):
                if read.flag & 0x904 or not read.is_read1:
                    continue
                at = read.reference_end - 1 if read.is_reverse else read.reference_start
                if left <= at < left + 1000:
                    wanted[int(read.is_reverse), at - left] += 1
            assert wanted.sum() > 50
            np.testing.assert_array_equal(loci.signal[row], wanted)
    # where transcripts start at one base, they do so in the whole experiment too
    whole = yeast(
        shared,
        tmp_path / "whole.h5",
        loci_file,
        ["stripeseq/WT_plus.bw", "stripeseq/WT_minus.bw"],
        **windows,
    )
    assert (loci.start == whole.start).all()
    reads_at = loci.signal.sum()
    assert loci.signal[whole.signal > 0].sum() / reads_at > 0.99
    assert loci.signal[..., 1:][whole.signal[..., :-1] > 0].sum() / reads_at < 0.8


def test_every_name_of_the_reads_has_an_alias(shared: Path) -> None:
    path = shared / "data/yeast/genome/sacCer3.fa.gz"
    if not path.is_file():
        pytest.skip(f"real data are not at {path}")
    genome = read_genome(path, None)
    roman = [name.removeprefix("chr") for name in genome.lengths if name != "chrM"]
    found = Aliases("auto", genome).of([*roman, "Mito"], "S288C.bam")
    assert found == {**{name: f"chr{name}" for name in roman}, "Mito": "chrM"}


@pytest.mark.slow
def test_a_model_of_open_chromatin_tells_reb1_from_its_mutants(
    shared: Path, tmp_path: Path, cherimoya_train
) -> None:
    """Around CGGGTAA the genome has 70 cuts in 400 bases, around these two mutants 23."""
    pytest.importorskip("tangermeme")
    data, folder = tmp_path / "atac.h5", yeast_folder(shared)
    prepare(configure(
        fasta=str(folder / "genome/sacCer3.fa.gz"), loci=str(folder / "atac/cut_peaks.narrowPeak"),
        center="summit", signal=[[str(folder / "atac/atac_ins.bw")]], output=str(data),
        in_window=700, out_window=400, max_jitter=128,
    ), lambda line: None)  # fmt: skip
    done = cherimoya_train(
        "experiment=yeast_atac", f"data.path={data}", "data.in_window=700", "data.out_window=400",
        "model.n_filters=24", "model.n_layers=6", "trainer.max_epochs=8", "trainer.threads=1",
        "trainer.plots=false", "logger=none", "hydra.run.dir=run", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = tmp_path / "motifs.tsv"
    marginalize(configured(
        "marginalize", MarginalizeConfig, checkpoint=[str(tmp_path / "run")], data__path=str(data),
        chroms=["chrIV", "chrXI"], max_loci=100, motifs=["Reb1:CGGGTAA", "CGGATAA", "CGAGTAA"],
        against="Reb1", profiles=0, output=str(table),
    ))  # fmt: skip
    reb1, *mutants = csv.DictReader(table.read_text().splitlines()[1:], delimiter="\t")
    assert float(reb1["log2_fold_change"]) > 0
    for mutant in mutants:
        assert float(mutant["difference"]) < -5 * float(mutant["difference_se"]), mutant
