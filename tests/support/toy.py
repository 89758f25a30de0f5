"""A toy experiment whose every base and count is known, and how to prepare it."""

import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import build
from cherimoya.data import hdf5
from cherimoya.errors import DataError, PackageError
from cherimoya.prepare.prepare import prepare

CONF = Path(__file__).resolve().parents[2] / "conf" / "prepare.yaml"
LENGTHS = {"chrA": 4000, "chrB": 3000, "chrC": 2000}
SMALL = {"in_window": 40, "out_window": 20, "max_jitter": 5, "outlier_factor": None}
FRAGMENTS = (
    "# made by a toy",
    "chrA\t100\t150\tAC\t3",
    "chrA\t100\t160\tAC\t1",
    "chrB\t0\t7\tGT\t2",
    "chrB\t2990\t3000\tGT\t1",
)


def configure(**values) -> PrepareConfig:
    """conf/prepare.yaml with `values` on top."""
    given = OmegaConf.to_container(OmegaConf.load(CONF))
    del given["defaults"], given["hydra"]
    return build(PrepareConfig, given | values)


class Toy:
    """A genome of three random chromosomes and two tracks whose every value is known."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        self.folder = folder
        self.bases = {c: "".join(rng.choice(list("ACGT"), n)) for c, n in LENGTHS.items()}
        self.plus = {c: rng.poisson(0.6, n).astype(float) for c, n in LENGTHS.items()}
        self.minus = {c: rng.poisson(0.6, n).astype(float) for c, n in LENGTHS.items()}
        self.fasta()
        self.bigwig("plus.bw", self.plus)
        self.bigwig("minus.bw", self.minus)

    def fasta(self, name: str = "toy.fa", width: int = 60) -> Path:
        lines = []
        for chrom, bases in self.bases.items():
            lines += [f">{chrom} a note", *re.findall(f".{{1,{width}}}", bases)]
        return self.write(name, "\n".join(lines) + "\n")

    def bigwig(self, name: str, values: dict[str, np.ndarray], zeros: bool = False) -> Path:
        import pybigtools  # an extra: its absence skips the tests

        path = self.folder / name
        entries = (
            (chrom, int(at), int(at) + 1, float(v[at]))
            for chrom, v in values.items()
            for at in (range(len(v)) if zeros else np.flatnonzero(v))
        )
        lengths = {chrom: len(v) for chrom, v in values.items()}
        pybigtools.open(str(path), "w").write(lengths, entries)
        return path

    def bed(self, *lines: str, name: str = "loci.bed") -> Path:
        return self.write(name, "\n".join(lines) + "\n")

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)
        return self.folder / name

    def config(self, **values) -> PrepareConfig:
        given = {
            "fasta": f"{self.folder}/toy.fa",
            "loci": f"{self.folder}/loci.bed",
            "signal": [[f"{self.folder}/plus.bw", f"{self.folder}/minus.bw"]],
            "output": f"{self.folder}/out.h5",
            "background_ratio": 0,
            "overwrite": True,
        }
        return configure(**(given | SMALL | values))

    def run(self, **values) -> hdf5.Loci:
        self.said: list[str] = []
        return hdf5.read(prepare(self.config(**values), self.said.append))

    def funnel(self) -> dict[str, tuple[int, int]]:
        """What the printed table says: reason -> (removed, left)."""
        table = next(text for text in self.said if text.startswith("loci  "))
        rows = [re.split(r"  +", line) for line in table.splitlines()[1:]]
        return {r[0]: (int(r[1].replace(",", "")), int(r[2].replace(",", ""))) for r in rows}


def letters(codes: np.ndarray) -> str:
    return "".join("ACGTN"[code] for code in codes)


def narrow(start: int, end: int, summit: int) -> str:
    return f"chrA\t{start}\t{end}\tp\t0\t.\t1\t2\t3\t{summit}"


def refused(toy: Toy, message: str, **values) -> str:
    """The message of the error that `values` give; nothing may be left behind."""
    before = sorted(toy.folder.iterdir())
    with pytest.raises((DataError, PackageError), match=message) as raised:
        toy.run(**values)
    assert sorted(toy.folder.iterdir()) == before
    return str(raised.value)
