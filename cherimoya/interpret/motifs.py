"""Motifs to be put into sequences: letters, or the matrices of a MEME file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cherimoya.errors import ConfigError
from cherimoya.genome.meme import read_meme
from cherimoya.genome.motif import Motif
from cherimoya.genome.sequence import BASES, IUPAC, N_CODE
from cherimoya.util.console import say, warning

_LETTER_OF = {bases: letter for letter, bases in IUPAC.items()}


def read_motifs(named: Sequence[str], file: str | None) -> list[Motif]:
    """The motifs of `motifs`, each letters or name:letters, and the `consensus` of each of a file.

    Raises ConfigError or DataError for letters that are none, none at all, or two of one name.
    """
    sources = [(_named(text), f"motifs={text}") for text in named]
    if file is not None:
        matrices = read_meme(Path(file)).items()
        sources += [(Motif(n, consensus(m)), f"motif_file={file}") for n, m in matrices]
    if not sources:
        raise ConfigError("no motifs are named. Set motifs=[TCCGGGTAA], or motif_file=<MEME file>.")
    known: dict[str, str] = {}
    for motif, source in sources:
        if motif.name in known:
            raise ConfigError(
                f"two motifs are named {motif.name}: of {known[motif.name]} and of {source}. Give "
                "each a name: motifs=[a:ACGT]."
            )
        known[motif.name] = source
    empty = [motif.name for motif, _ in sources if set(motif.letters) == {"N"}]
    if empty:
        say(warning(f"of {', '.join(empty)} no column names a base: they change nothing"))
    return [motif for motif, _ in sources]


def consensus(matrix: np.ndarray) -> str:
    """Letters of probabilities (4, width), after Cavener (Nucleic Acids Res. 15, 1987).

    One base where it has over half and more than twice the next one; two (R Y S W K M) where they
    have over three quarters together; three (B D H V) where the fourth never occurs; else N.
    """
    return "".join(_letter(column) for column in matrix.T.astype(np.float64))


def _letter(column: np.ndarray) -> str:
    order = np.argsort(-column, kind="stable")
    p = column[order]
    if p[0] > 0.5 and p[0] > 2 * p[1]:
        return BASES[order[0]]
    if p[0] + p[1] > 0.75 and p[1] > p[2]:
        return _LETTER_OF["".join(sorted(BASES[base] for base in order[:2]))]
    if p[3] == 0 and p[2] > 0:
        return _LETTER_OF["".join(sorted(BASES[base] for base in order[:3]))]
    return "N"


def insert(background: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """`background` (n, L) with `instances` (n, width) in the middle; an N keeps what is there."""
    length, width = background.shape[1], instances.shape[1]
    first = length // 2 - width // 2
    made = background.copy()
    there = made[:, first : first + width]
    there[...] = np.where(instances < N_CODE, instances, there)
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
