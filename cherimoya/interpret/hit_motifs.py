"""What cherimoya-hits looks for: TF-MoDISco's patterns, or the motifs of a MEME file."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cherimoya.errors import ConfigError, DataError, printable
from cherimoya.genome.meme import read_meme
from cherimoya.interpret.modisco import MOTIFS, folder_of
from cherimoya.records.hits import HitMotif
from cherimoya.records.patterns import TABLE, is_hdf5, read_matches, read_patterns
from cherimoya.util.console import counted, say, warning
from cherimoya.util.files import check_readable

KEY, PATTERNS = "motifs", "modisco.h5"
NEGATIVE = "(-)"  # ends the name of a MEME file's motif, where it lowers the prediction
GAP = 5  # bases between the parts of one motif, as in Abf1's RTCRYNNNNNACG
UNIFORM = 0.25  # chance of each base in the background


def find_motifs_file(named: str | None, attributions: Path, target: str) -> Path:
    """The file with the motifs: that of `named`, or of the folder beside the attributions.

    Raises ConfigError where there is neither, and DataError for a folder without motifs, or for a
    file that may not be read.
    """
    if named is None:
        folder = folder_of(attributions, target)
        if not folder.is_dir():
            raise ConfigError(
                f"{KEY}=null: there is no {folder}, which cherimoya-attribute modisco=true makes. "
                f"Name a MEME file, such as {KEY}=JASPAR.meme, a folder {MOTIFS} or a {PATTERNS}."
            )
        named = str(folder)
    path = Path(named)
    if path.is_dir():
        path = path / PATTERNS
    if not path.exists():
        raise DataError(f"{KEY}={named}: no such file, or a folder without {PATTERNS}.")
    check_readable(path, KEY)
    return path


def files_read(path: Path) -> list[Path]:
    """What is read of the motifs in `path`."""
    table = path.with_name(TABLE)
    return [path, table] if path.name == PATTERNS and table.is_file() else [path]


def read_hit_motifs(path: Path, trim: float, length: int) -> list[HitMotif]:
    """The motifs in `path`, see `of_pattern` and `of_matrix`, that fit into `length` bases.

    Raises DataError for a file that cannot be read, or of which none fits.
    """
    if is_hdf5(path):
        matches = read_matches(path.parent)
        found = [
            replace(of_pattern(p.name, p.contributions.T, trim), match=matches.get(p.name, ""))
            for p in read_patterns(path, KEY)
        ]
    else:
        matrices = read_meme(path, KEY)
        found = [motif for name, matrix in matrices.items() for motif in of_matrix(name, matrix)]
        if flat := len(matrices) - len(found) // 2:
            say(warning(f"{counted(flat, 'motif')} left out: no column of them prefers a base"))
    called = [motif.name for motif in found]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise DataError(f"{KEY}={path}: two motifs would be called {twice}. Rename one.")
    kept = [motif for motif in found if motif.weights.shape[1] <= length]
    if len(kept) < len(found):
        names = ", ".join(printable(m.name) for m in found if m not in kept)[:200]
        say(warning(f"left out, wider than the {length} bases attributed: {names}"))
    if not kept:
        raise DataError(f"{KEY}={path}: no motif in it that can be placed in {length} bases.")
    return kept


def of_pattern(name: str, contributions: np.ndarray, trim: float) -> HitMotif:
    """A pattern by its contributions (4, width): the stretch around its largest position whose
    positions have at least `trim` of that, all four bases together, at most GAP apart. What lies
    further out is other motifs that are often near, at no fixed distance."""
    total = np.abs(contributions).sum(axis=0)
    kept = np.flatnonzero(total >= trim * total.max())
    stretches = np.split(kept, np.flatnonzero(np.diff(kept) > GAP + 1) + 1)
    own = next(stretch for stretch in stretches if total.argmax() in stretch)
    return HitMotif(name, _normed(contributions[:, own[0] : own[-1] + 1]))


def of_matrix(name: str, matrix: np.ndarray) -> list[HitMotif]:
    """Motifs that raise and that lower the prediction, of probabilities (4, width): as tall as the
    letters of a sequence logo, a base's probability times its position's information (Schneider and
    Stephens, Nucleic Acids Res. 18, 1990) beside a background of equal bases."""
    p = matrix.astype(np.float64)
    p = p / p.sum(axis=0)
    information = (p * np.log2(np.where(p > 0, p, 1) / UNIFORM)).sum(axis=0)
    weights = p * information
    if np.square(weights).sum() < 1e-6:
        return []
    weights = _normed(weights)
    name = "_".join(name.split())
    return [HitMotif(name, weights), HitMotif(name + NEGATIVE, -weights)]


def _normed(weights: np.ndarray) -> np.ndarray:
    return weights / np.sqrt(np.square(weights).sum())
