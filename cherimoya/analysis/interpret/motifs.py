"""Motifs to be put into sequences: letters, or the matrices of a MEME file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya.errors import ConfigError, DataError
from cherimoya.extras import needed

IUPAC = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
    "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "",
}  # fmt: skip


@dataclass(frozen=True)
class Motif:
    """Letters A C G T, or those of IUPAC's code that stand for several; N: what was there."""

    name: str
    letters: str

    def drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n instances as codes (n, width), each letter drawn among those it stands for; 4 = N."""
        codes = np.full((n, len(self.letters)), 4, np.uint8)
        for at, letter in enumerate(self.letters):
            if choices := ["ACGT".index(base) for base in IUPAC[letter]]:
                codes[:, at] = rng.choice(choices, n)
        return codes


def read_motifs(named: Sequence[str], file: str | None) -> list[Motif]:
    """The motifs of `motifs`, each letters or name:letters, and the consensus of each of a file.

    Raises ConfigError or DataError for letters that are none, none at all, or two of one name.
    """
    motifs = [_named(text) for text in named]
    if file is not None:
        motifs += [
            Motif(name, "".join("ACGT"[base] for base in matrix.argmax(axis=0)))
            for name, matrix in read_meme(Path(file)).items()
        ]
    if not motifs:
        raise ConfigError("no motifs are named. Set motifs=[TCCGGGTAA], or motif_file=<MEME file>.")
    names = [motif.name for motif in motifs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two motifs are named {twice[0]}. Give each a name: motifs=[a:ACGT].")
    return motifs


def read_meme(path: Path) -> dict[str, np.ndarray]:
    """The matrices (4, width) of a MEME file, by name. Raises DataError if it is none."""
    if not path.is_file():
        raise DataError(f"motif_file={path}: no such file. Relative paths start at {Path.cwd()}.")
    read = needed("tangermeme.io").read_meme
    try:
        matrices = {name: np.asarray(matrix) for name, matrix in read(str(path)).items()}
    except (ValueError, AttributeError, IndexError) as error:
        raise DataError(f"motif_file={path}: not a MEME file ({error}).") from None
    if not matrices:
        raise DataError(f"motif_file={path}: no motif in it. Give a file in MEME's format.")
    return matrices


def insert(background: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """`background` (n, L) with `instances` (n, width) in the middle; an N keeps what is there."""
    length, width = background.shape[1], instances.shape[1]
    first = length // 2 - width // 2
    made = background.copy()
    there = made[:, first : first + width]
    there[...] = np.where(instances < 4, instances, there)
    return made


def _named(text: str) -> Motif:
    name, _, letters = text.rpartition(":")
    wrong = sorted(set(letters.upper()) - set(IUPAC))
    if wrong or not letters:
        raise ConfigError(
            f"motifs={text}: {', '.join(wrong) or 'nothing'} is no letter of a motif. Use A C G T, "
            f"or IUPAC's {' '.join(list(IUPAC)[4:])}."
        )
    return Motif(name or letters.upper(), letters.upper())
