"""A motif as letters."""

from dataclasses import dataclass

import numpy as np

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
