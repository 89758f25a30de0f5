"""TF-MoDISco in a process of its own, without torch: with one thread it compiles ahead in forked
processes and keeps what it compiled, which it does not beside other threads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.errors import ConfigError
from cherimoya.genome.sequence import BASES
from cherimoya.records.attributions import read_attributions
from cherimoya.util.console import counted
from cherimoya.util.native import LibraryError, call
from cherimoya.util.optional import import_optional

LEIDEN_RUNS = 2  # clusterings of which the best is kept, as modisco's own command does
TRIMMED_BELOW = 0.3  # of the largest contribution: a pattern's ends; as in modisco's report
TOO_LITTLE = "too little: "


@dataclass(frozen=True, eq=False)
class Pattern:
    """A motif that contributions repeat.

    name: as in modisco's file; seqlets: places where it was found; probabilities (w, 4) of the
    bases and contributions (w, 4), both without the ends that contribute little
    """

    name: str
    seqlets: int
    probabilities: np.ndarray
    contributions: np.ndarray

    @property
    def consensus(self) -> str:
        """The most frequent base at each position, in lower case where it has less than half."""
        most = self.probabilities.argmax(axis=1)
        clear = self.probabilities.max(axis=1) >= 0.5
        return "".join(
            (BASES if c else BASES.lower())[base] for base, c in zip(most, clear, strict=True)
        )


def find_patterns(
    attributions: Path, target: str, max_seqlets: int, output: Path, loci: int
) -> list[Pattern]:
    """TF-MoDISco's patterns of a target in the file of attributions, written to `output` too.

    Raises ConfigError where its `loci` hold too little.
    """
    try:
        return call(run, attributions, target, max_seqlets, output)
    except LibraryError as error:
        if not str(error).startswith(TOO_LITTLE):
            raise RuntimeError(f"TF-MoDISco: {error}") from None
        said = str(error).removeprefix(TOO_LITTLE)
        raise ConfigError(
            f"TF-MoDISco found too little in {counted(loci, 'locus', 'loci')} ({said}). Give it "
            "more loci, hundreds at least, or a wider window. The attributions are kept."
        ) from None


def run(path: Path, target: str, max_seqlets: int, output: Path) -> list[Pattern]:
    """As `find_patterns`, in this process. Raises ValueError, beginning with TOO_LITTLE."""
    found = read_attributions(path)
    n, width = found.sequence.shape
    # modisco takes the first seqlets that it meets, so the loci are mixed: no chromosome goes first
    order = np.random.default_rng(0).permutation(n)
    X = (found.sequence[order][:, :, None] == np.arange(4)).astype(np.float32)  # (n, W, 4)
    hypothetical = found.hypothetical[target][order].transpose(0, 2, 1)
    tfmodisco = import_optional("modiscolite.tfmodisco").TFMoDISco
    try:
        both = tfmodisco(
            X, np.ascontiguousarray(hypothetical), max_seqlets_per_metacluster=max_seqlets,
            n_leiden_runs=LEIDEN_RUNS,
        )  # fmt: skip
    except (ValueError, IndexError) as error:
        raise ValueError(f"{TOO_LITTLE}{error}") from None
    number_loci(both, order)
    import_optional("modiscolite.io").save_hdf5(str(output), *both, width)
    return [
        trimmed(f"{sign}_patterns.pattern_{i}", pattern)
        for sign, patterns in zip(("pos", "neg"), both, strict=True)
        for i, pattern in enumerate(patterns or [])
    ]


def number_loci(both: Any, order: np.ndarray) -> None:
    """Give seqlets the rows of their loci in the file of attributions."""
    sets = [pattern for patterns in both for pattern in patterns or []]
    for pattern in list(sets):
        sets += (pattern.subcluster_to_subpattern or {}).values()
    seqlets = {id(seqlet): seqlet for each in sets for seqlet in each.seqlets}
    for seqlet in seqlets.values():
        seqlet.example_idx = int(order[seqlet.example_idx])


def trimmed(name: str, pattern: Any) -> Pattern:
    """A pattern of modisco's without the ends that contribute little."""
    total = np.abs(pattern.contrib_scores).sum(axis=1)
    kept = np.flatnonzero(total >= TRIMMED_BELOW * total.max())
    part = slice(kept[0], kept[-1] + 1)
    return Pattern(name, len(pattern.seqlets), pattern.sequence[part], pattern.contrib_scores[part])
