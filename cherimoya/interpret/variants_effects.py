"""What models say of variants, of random ones beside them, and of peaks."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals, read_intervals
from cherimoya.genome.vcf import Variants
from cherimoya.interpret.models import EnsemblePredictor
from cherimoya.interpret.variants_cache import Known, names_of
from cherimoya.interpret.variants_columns import Scored
from cherimoya.interpret.variants_null import shifts_bases
from cherimoya.interpret.variants_windows import allele_window
from cherimoya.metrics import profile_jsd
from cherimoya.records.variants import Track
from cherimoya.util import console
from cherimoya.util.console import counted
from cherimoya.util.resume import Journal

BATCHES_AT_ONCE = 8  # between two writes
MOST_PEAKS = 20_000  # whose counts are predicted, spread evenly over the file


class Questions:
    """What is asked of models about windows of `length` bases of a genome.

    decisive: all that decides the answers, by which they are found in the cache
    """

    def __init__(
        self, predict: EnsemblePredictor, genome: Genome, length: int, decisive: Mapping[str, Any]
    ) -> None:
        self._predict, self.genome, self.length = predict, genome, length
        self._decisive, self._codes = decisive, cache(genome.codes)
        self.signal_groups = predict.signal_groups
        self._groups = len(predict.signal_groups)

    def effects(
        self,
        variants: Variants,
        rows: np.ndarray,
        random: Variants,
        output: Path,
        settings: Mapping[str, Any],
    ) -> tuple[Scored, Scored]:
        """Of the variants in `rows`, and of the random ones, which may be known from before.

        After an interruption those of `output` that are done are not asked again.
        """
        models = len(self._predict.model.models)
        width = (3 + (models if models > 1 else 0)) * self._groups
        known, names = Known("variants", self._decisive, width), names_of(random)
        new = known.missing(names)
        if len(new) < len(names):
            before = f"{len(names) - len(new):,} of {len(names):,} random variants"
            console.say(f"{before} are known from before: {known.path}")
        todo = [(variants, int(row)) for row in rows] + [(random, row) for row in new]
        asked = hashlib.sha256("\n".join(names[row] for row in new).encode()).hexdigest()
        step = BATCHES_AT_ONCE * self._predict.batch_size // 2
        with Journal(output, {**settings, "also": asked}, (width,), step) as journal:
            for block in journal.missing(len(todo), "variants", "variants"):
                journal.append(self._of(todo[block]))
            own = np.array(journal.rows[: len(rows)])
            known.keep([names[row] for row in new], journal.rows[len(rows) :])
        others = known.of(names)
        return (
            Scored.of(own, self._groups, shifts_bases(variants)[rows]),
            Scored.of(others, self._groups, shifts_bases(random)),
        )

    def _of(self, some: list[tuple[Variants, int]]) -> np.ndarray:
        pairs = [_windows(v, row, self._codes, self.length) for v, row in some]
        ref, alt = (np.stack(side) for side in zip(*pairs, strict=True))
        sizes = np.array([(len(v.ref[row]), len(v.alt[row])) for v, row in some])
        return effects_of(self._predict, ref, alt, sizes)

    def tracks(self, variants: Variants, rows: np.ndarray) -> list[Track]:
        """Expected counts around the variants in `rows`, with either allele."""
        found = []
        for row in rows.tolist():
            sides = _windows(variants, row, self._codes, self.length)
            p, log_counts = self._predict(torch.from_numpy(np.stack(sides)))
            sizes = np.array([(len(variants.ref[row]), len(variants.alt[row]))])
            before, after = aligned(p[:1], p[1:], sizes)
            counts = torch.expm1(log_counts.double()).repeat_interleave(
                torch.tensor(self._predict.signal_groups), dim=1
            )  # (2, tracks)
            expected = torch.cat([before, after]) * counts[:, :, None]
            at = min(_inside(p.shape[2], int(size))[0] for size in sizes[0])
            found.append(Track(row, expected[0].numpy(), expected[1].numpy(), at))
        return found

    def counts(self, loci: Intervals, path: str) -> np.ndarray:
        """Log counts (m, G) of the peaks of a file, at most MOST_PEAKS, in the middle of the
        windows. Raises DataError where none lies in the genome."""
        start = loci.center - self.length // 2
        ends = np.array([self.genome.lengths.get(c, -1) for c in loci.chrom.tolist()])
        inside = np.flatnonzero((start >= 0) & (start + self.length <= ends))
        if not len(inside):
            raise DataError(
                f"peaks={path}: no peak whose {self.length:,} bases (in_window) lie in the genome."
            )
        chosen = inside
        if len(inside) > MOST_PEAKS:
            chosen = inside[np.linspace(0, len(inside) - 1, MOST_PEAKS).astype(int)]
        console.say(f"peaks        {len(chosen):,} of {counted(len(loci), 'peak')} of {path}")
        both = zip(loci.chrom[chosen].tolist(), start[chosen].tolist(), strict=True)
        places = list(dict.fromkeys(both))
        names = [f"{chrom}:{first}" for chrom, first in places]
        known, step = Known("peaks", self._decisive, self._groups), self._predict.batch_size
        new = known.missing(names)
        blocks = range(0, len(new), step)
        counts = []
        for first in console.track(blocks, "counts of peaks", len(blocks), "batch"):
            some = (places[row] for row in new[first : first + step])
            windows = [self._codes(chrom)[at : at + self.length] for chrom, at in some]
            _, log_counts = self._predict(torch.from_numpy(np.stack(windows)))
            counts.append(log_counts.double().numpy())
        if counts:
            known.keep([names[row] for row in new], np.concatenate(counts))
        return known.of(names)


def read_peaks(path: str, genome: Genome, chrom_alias: str) -> Intervals:
    """The peaks of a BED file, on the genome's chromosomes, as chrom_alias says."""
    loci = read_intervals(path, "midpoint", "peaks")
    aliases = Aliases(chrom_alias, genome)
    return loci.renamed(aliases.accepted(loci.chrom.tolist(), f"peaks={path}"))


def effects_of(
    predict: EnsemblePredictor, ref: np.ndarray, alt: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """What changes from codes `ref` to `alt`, (n, L) each: (n, 3 G) float64.

    sizes: bases of the alleles (n, 2), which lie in the middle.
    Log counts of ref, of alt, and the Jensen-Shannon distance between their profiles, by group;
    then, of K > 1 models, what each adds to the log counts (n, 3 G + K G).
    """
    codes, n = torch.from_numpy(np.concatenate([ref, alt])), len(ref)
    p, log_counts, models = predict.apart(codes)
    before, after = aligned(p[:n], p[n:], sizes)
    distance = profile_jsd(before, after, predict.signal_groups)
    parts = [log_counts[:n].double(), log_counts[n:].double(), distance]
    if len(models) > 1:
        parts += [one[n:].double() - one[:n].double() for one in models]
    return torch.cat(parts, dim=1).numpy()


def aligned(
    ref: torch.Tensor, alt: torch.Tensor, sizes: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Profiles (n, tracks, W) with the same base of the genome in the same column.

    Where the alleles, of `sizes` (n, 2) bases, differ in length, the bases of each are summed up in
    one column; on both sides of it lie the bases that both profiles have, zeros after them. Where
    an allele fills the profile, nothing can be compared, and all are zeros.
    """
    ref, alt = ref.clone(), alt.clone()
    for i in np.flatnonzero(sizes[:, 0] != sizes[:, 1]):
        both = [
            (side[i], *_inside(side.shape[2], int(bases)))
            for side, bases in zip((ref, alt), sizes[i], strict=True)
        ]
        left = min(start for _, start, _ in both)
        right = min(p.shape[1] - end for p, _, end in both)
        for side, (p, start, end) in zip((ref, alt), both, strict=True):
            allele = p[:, start:end].sum(dim=1, keepdim=True) * bool(left + right)
            whole = torch.cat([p[:, start - left : start], allele, p[:, end : end + right]], dim=1)
            side[i] = torch.nn.functional.pad(whole, (0, side.shape[2] - whole.shape[1]))
    return ref, alt


def _inside(width: int, bases: int) -> tuple[int, int]:
    """Where in `width` predicted bases an allele in the middle starts and ends."""
    start = width // 2 - bases // 2
    return max(start, 0), min(start + bases, width)


def _windows(
    variants: Variants, row: int, codes: Callable[[str], np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (length,) around both alleles; `codes` are those of a whole chromosome."""
    held, pos = codes(str(variants.chrom[row])), int(variants.pos[row])
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    return allele_window(held, pos, ref, ref, length), allele_window(held, pos, ref, alt, length)
