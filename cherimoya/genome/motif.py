"""A motif as letters."""

from dataclasses import dataclass

import numpy as np

from cherimoya.genome.sequence import IUPAC, N_CODE, encode


@dataclass(frozen=True)
class Motif:
    """Letters A C G T, or those of IUPAC's code that stand for several; N: what was there."""

    name: str
    letters: str

    def drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n instances as codes (n, width), each letter drawn among those it stands for; 4 = N."""
        codes = np.full((n, len(self.letters)), N_CODE, np.uint8)
        for at, letter in enumerate(self.letters):
            if bases := IUPAC[letter]:
                codes[:, at] = rng.choice(encode(bases), n)
        return codes
