"""Motif matrices of a file in MEME's text format, minimal or full, plain or gzip."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError, printable
from cherimoya.genome.fasta import check_exists, text_lines

MATRIX = "letter-probability"  # the first word of a matrix's header
ENDS = (MATRIX, "MOTIF", "URL")  # a matrix, with or without numbers behind
SUM_TOLERANCE = 0.05  # of a row's probabilities, which files round


@dataclass
class _Motif:
    """A motif on the way: its line, and of its matrix the line, `w=` and rows."""

    name: str
    line: int
    matrix_line: int | None = None
    width: str | None = None
    rows: list[list[float]] = field(default_factory=list)


def read_meme(path: Path, key: str = "motif_file") -> dict[str, np.ndarray]:
    """The matrices (4, width) float32 of a MEME file, rows A C G T, by name.

    The name is what follows MOTIF, alternative name included. `alength=`, `w=`, `nsites=` and `E=`
    may be absent; a matrix ends at the first line that holds no numbers.

    Raises DataError, naming the configuration's `key` and the line, for a file that is none,
    another alphabet, two motifs of one name, a motif without a matrix, rows that are no
    probabilities or not as many as `w=`.
    """
    check_exists(path, key)
    named = f"{key}={path}"
    motifs: dict[str, _Motif] = {}
    for motif in _motifs(path, named):
        if (first := motifs.get(motif.name)) is not None:
            raise DataError(
                f"{named}: two motifs are named {printable(motif.name)}, in lines "
                f"{first.line:,} and {motif.line:,}. Give each its own name."
            )
        _check(motif, named)
        motifs[motif.name] = motif
    if not motifs:
        raise DataError(f"{named}: no motif in it. Give a file in MEME's format.")
    return {name: np.array(motif.rows, np.float32).T for name, motif in motifs.items()}


def _motifs(path: Path, named: str) -> Iterator[_Motif]:
    """Each motif with what stands below it."""
    motif, in_matrix = None, False
    for number, line in text_lines(path, named):
        tokens, where = line.split(), f"{named}, line {number:,}"
        if in_matrix and motif is not None:
            if not tokens and not motif.rows:
                continue  # between the header and the first row
            in_matrix = _add_row(motif, tokens, where)
            if in_matrix:
                continue
        if not tokens:
            continue
        if tokens[0].startswith("ALPHABET"):
            _check_alphabet(line, where)
        elif tokens[0] == "MOTIF":
            if motif is not None:
                yield motif
            motif = _Motif(_name(line, where), number)
        elif tokens[0] == MATRIX:
            _begin_matrix(motif, line, number, where)
            in_matrix = True
    if motif is not None:
        yield motif


def _name(line: str, where: str) -> str:
    """What follows MOTIF, less the statistics that MEME's full output has there."""
    name = " ".join(re.split(r"\bwidth\s*=", line.strip()[len("MOTIF") :])[0].split())
    if not name:
        raise DataError(f"{where}: a motif without a name. Write one after MOTIF.")
    return name


def _begin_matrix(motif: _Motif | None, line: str, number: int, where: str) -> None:
    if motif is None:
        raise DataError(f"{where}: a matrix before any motif. Add a line MOTIF <name> above it.")
    if motif.matrix_line is not None:
        raise DataError(
            f"{where}: motif {printable(motif.name)} has a second matrix. Give each motif one, "
            "below a line MOTIF <name> of its own."
        )
    said = dict(re.findall(r"\b(alength|w)\s*=\s*(\S*)", line))
    if said.get("alength", "4") != "4":
        raise DataError(
            f"{where}: alength= {printable(said['alength'])}, but DNA has 4 letters. Give motifs "
            "of DNA, with columns A C G T."
        )
    motif.matrix_line, motif.width = number, said.get("w")


def _add_row(motif: _Motif, tokens: list[str], where: str) -> bool:
    """Add the row of `tokens` to the matrix; False where they are no numbers, and it has ended."""
    numbers = [_number(word) for word in tokens]
    if all(n is None for n in numbers) or tokens[0] in ENDS:
        return False
    row = [n for n in numbers if n is not None]
    if len(numbers) != 4 or len(row) != 4 or not all(0 <= n <= 1 for n in row):
        raise DataError(
            f"{where}: {printable(' '.join(tokens))} in motif {printable(motif.name)} is not four "
            "probabilities, of A C G T. Correct the row."
        )
    if abs(sum(row) - 1) > SUM_TOLERANCE:
        raise DataError(
            f"{where}: the row of motif {printable(motif.name)} adds up to {sum(row):.3g}, not 1. "
            "Give probabilities of A C G T."
        )
    motif.rows.append(row)
    return True


def _number(token: str) -> float | None:
    try:
        return float(token)
    except ValueError:
        return None


def _check(motif: _Motif, named: str) -> None:
    where = f"{named}, line {motif.matrix_line or motif.line:,}"
    if not motif.rows:
        raise DataError(
            f"{where}: motif {printable(motif.name)} has no letter-probability matrix. Add it, or "
            "leave the motif out."
        )
    if motif.width is not None and motif.width != str(len(motif.rows)):
        raise DataError(
            f"{where}: motif {printable(motif.name)} has w= {printable(motif.width)}, but "
            f"{len(motif.rows)} rows follow. Write w= {len(motif.rows)} if these are all of it."
        )


def _check_alphabet(line: str, where: str) -> None:
    said = line.strip()[len("ALPHABET") :].lstrip("= ").strip()
    if said.upper() not in ("ACGT", "DNA") and "DNA" not in re.findall(r"[A-Z]+", said.upper()):
        raise DataError(
            f"{where}: the alphabet is {printable(said)}, not ACGT. Give a file of DNA motifs."
        )
