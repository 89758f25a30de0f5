"""Variants of the toy's genome."""

import csv
from pathlib import Path

from toy import Toy

LENGTH = 200
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def vcf(toy: Toy, *lines: tuple, name: str = "v.vcf", header: str = HEADER) -> Path:
    return toy.write(name, header + "".join("\t".join(map(str, row)) + "\n" for row in lines))


def table(path) -> list[dict[str, str]]:
    with open(path) as file:
        next(file)  # where the numbers come from
        return list(csv.DictReader(file, delimiter="\t"))


def changed(base: str) -> str:
    return {"A": "C", "C": "G", "G": "T", "T": "A"}[base]


def snvs(toy: Toy, *at: int, chrom: str = "chrA") -> list[tuple]:
    """A single-base change at each position, from 1."""
    bases = toy.bases[chrom]
    return [(chrom, p, f"v{p}", bases[p - 1], changed(bases[p - 1]), ".", ".", ".") for p in at]
