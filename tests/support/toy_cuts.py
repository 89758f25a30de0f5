"""A genome that an enzyme cut by its own preference, and the files that such cuts come in."""

from pathlib import Path

import numpy as np
from toy import configure

from cherimoya.config.prepare import PrepareConfig
from cherimoya.data import hdf5
from cherimoya.genome.cut_sites import FIRST, known_frequencies
from cherimoya.genome.sequence import decode
from cherimoya.prepare.prepare import prepare

LENGTHS = {"chrA": 120_000, "chrB": 60_000}
EDGE = 400  # bases at the ends of chromosomes without cuts
READ = 30
ENDS = {  # the base of the 5' end, from where a cut is counted, by strand
    "Tn5": (-4, 4),
    "DNase I": (0, -1),
}


class CutGenome:
    """Random chromosomes, two if none are said; pairs of cuts, of the plus and of the minus strand.

    peaks: positions on each chromosome that are cut 20 times as often, 150 bases to either side
    cuts: chromosome -> (n, 2) where the cuts of each fragment are to be counted
    """

    def __init__(
        self, folder: Path, enzyme: str | None, each: float = 0.06, seed: int = 0,
        lengths: dict[str, int] = LENGTHS, peaks: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.folder, self.enzyme, self.lengths, self.peaks = folder, enzyme, lengths, peaks
        self.codes = {c: rng.integers(0, 4, n).astype(np.uint8) for c, n in self.lengths.items()}
        self.cuts = {c: self._cut(codes, round(len(codes) * each), rng)
                     for c, codes in self.codes.items()}  # fmt: skip
        text = "".join(f">{c}\n{decode(codes)}\n" for c, codes in self.codes.items())
        self.write("cut.fa", text)
        self.write("cut.bed", "".join(
            f"{c}\t{at}\t{at + 20}\n" for c, n in lengths.items() for at in range(900, n - 900, 700)
        ))  # fmt: skip

    def _cut(self, codes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        plus, minus = (self._weights(codes, strand) for strand in (0, 1))
        first = np.sort(rng.choice(len(codes), n, p=plus / plus.sum()))
        pairs = []
        for at in first.tolist():
            near = minus[at + 50 : at + 250]
            pairs.append((at, at + 50 + rng.choice(len(near), p=near / near.sum())))
        return np.array(pairs)

    def _weights(self, codes: np.ndarray, strand: int) -> np.ndarray:
        """How likely a cut of the strand is to be counted at each base."""
        weights = np.ones(len(codes))
        if self.enzyme:
            frequencies = known_frequencies(self.enzyme)[strand]
            log = np.log(frequencies / frequencies.mean(axis=0))
            for position, row in enumerate(log, FIRST):
                weights *= np.exp(row[np.roll(codes, -position)])
        for at in self.peaks:
            weights[at - 150 : at + 150] *= 20
        weights[:EDGE] = 0
        weights[len(codes) - (EDGE if strand else 2 * EDGE) :] = 0
        return weights

    def ends(self, chrom: str) -> np.ndarray:
        """(n, 2) the bases of the 5' ends of the reads."""
        return self.cuts[chrom] + np.array(ENDS[self.enzyme or "Tn5"])

    def fragments(self, name: str = "cuts.tsv", plus: int = 0, minus: int = 0) -> Path:
        """A fragment file whose starts and ends were shifted before."""
        return self.write(name, "".join(
            f"{c}\t{start + plus}\t{last + 1 + minus}\tAC\t1\n"
            for c in self.lengths for start, last in self.ends(c).tolist()
        ))  # fmt: skip

    def reads(self, name: str = "reads.bed") -> Path:
        """The reads in BED6."""
        return self.write(name, "".join(
            f"{c}\t{start}\t{start + READ}\tr\t9\t+\n{c}\t{last + 1 - READ}\t{last + 1}\tr\t9\t-\n"
            for c in self.lengths for start, last in self.ends(c).tolist()
        ))  # fmt: skip

    def bam(self, name: str = "reads.bam") -> Path:
        """The reads in a sorted BAM file."""
        import pysam

        path = self.folder / name
        sq = [{"SN": c, "LN": n} for c, n in self.lengths.items()]
        header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": sq}
        with pysam.AlignmentFile(str(path), "wb", header=header) as file:
            for chrom in self.lengths:
                plus, last = self.ends(chrom).T
                reads = [(at, 0) for at in plus.tolist()]
                reads += [(at + 1 - READ, 16) for at in last.tolist()]
                for start, flag in sorted(reads):
                    read = pysam.AlignedSegment(file.header)
                    read.query_name, read.flag, read.mapping_quality = "r", flag, 30
                    read.reference_name, read.reference_start = chrom, start
                    read.cigarstring, read.query_sequence = f"{READ}M", "A" * READ
                    file.write(read)
        return path

    def bigwig(self, name: str, strands: tuple[int, ...] = (0, 1), shift: int = 0) -> Path:
        """Counts of the cuts of strands, `shift` bases to the right of plus and left of minus."""
        import pybigtools

        path, entries = self.folder / name, []
        for chrom in self.lengths:
            at = [self.cuts[chrom][:, s] + (-shift if s else shift) for s in strands]
            where, counts = np.unique(np.concatenate(at), return_counts=True)
            entries += [(chrom, int(a), int(a) + 1, float(n))
                        for a, n in zip(where, counts, strict=True)]  # fmt: skip
        pybigtools.open(str(path), "w").write(self.lengths, iter(entries))
        return path

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def config(self, *files: Path, **values) -> PrepareConfig:
        """What is configured for files, a group each."""
        given = {
            "fasta": str(self.folder / "cut.fa"), "loci": str(self.folder / "cut.bed"),
            "signal": [[str(path)] for path in files], "output": str(self.folder / "out.h5"),
            "background_ratio": 0, "overwrite": True, "in_window": 400, "out_window": 300,
            "max_jitter": 0, "outlier_factor": None, "shift": "auto",
        }  # fmt: skip
        return configure(**(given | values))

    def run(self, *files: Path, **values) -> hdf5.Loci:
        self.said: list[str] = []
        return hdf5.read(prepare(self.config(*files, **values), self.said.append))

    def counted(self, loci: hdf5.Loci) -> np.ndarray:
        """(n, out_window) how often each base of the loci is to be counted."""
        at, length = loci.start + (loci.in_window - loci.out_window) // 2, loci.out_window
        counts = {
            c: np.bincount(self.cuts[c].ravel(), minlength=n) for c, n in self.lengths.items()
        }
        places = zip(loci.chrom.tolist(), at.tolist(), strict=True)
        return np.stack([counts[chrom][start : start + length] for chrom, start in places])
