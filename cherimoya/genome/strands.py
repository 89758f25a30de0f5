"""Which file of a signal group is which strand, and groups that cannot be a pair of strands."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.track import Track
from cherimoya.util.console import table

LONG = (  # what plus and minus strands are called, in any part of a name
    ("plus", "minus"), ("forward", "reverse"), ("fwd", "rev"), ("watson", "crick"),
    ("sense", "antisense"),
)  # fmt: skip
SHORT = (  # as a word of its own: CD34pos and CD34neg are no strands
    ("positive", "negative"), ("pos", "neg"), ("for", "rev"), ("+", "-"), ("f", "r"),
    ("fw", "rv"), ("pl", "mn"),
)  # fmt: skip
BEHIND = re.compile(  # words that may follow: wt_plus_dox and wt_minus_dox are no strands
    r"((rep|replicate|r|br|tr|lane|run)?[0-9]*|strands?|signal|cov|coverage|raw|norm[a-z]*|scaled"
    r"|cpm|rpm|rpkm|uniq|unique|all|multi|multiple|sorted|dedup|merged|pooled|cuts|ends|reads"
    r"|[53]p|[53]prime|[53]end|hg[0-9]+|mm[0-9]+|saccer[0-9]|grc[hm][0-9]+|bw|bigwig|bam|bg|gz"
    r"|bedgraph|bed|tsv|txt|frag|frags|fragments)"
)
ACCESSION = re.compile(r"(gsm|[sed]rr|encff)[0-9a-z]+")  # differ between the files of a pair
LOCI_COMPARED = 200
BASES_COMPARED = 50  # with signal on them, below which nothing can be said
ALIKE = 0.95  # correlation base by base of files that are no two strands

Pair = tuple[str, str]


def strands_of(first: str | Path, second: str | Path) -> Pair | None:
    """("plus", "minus") or the reverse, when the names say so and differ in nothing else."""
    a, b = (ACCESSION.sub("#", str(path).lower()) for path in (first, second))
    if a == b:
        return None
    for plus, minus in (*LONG, *SHORT):
        edge = r"(?<![a-z0-9]){}(?![a-z0-9])" if (plus, minus) in SHORT else "{}"
        if b in _replaced(edge.format(re.escape(plus)), minus, a):
            return "plus", "minus"
        if a in _replaced(edge.format(re.escape(plus)), minus, b):
            return "minus", "plus"
    return None


def _replaced(pattern: str, word: str, name: str) -> Iterator[str]:
    """`name` with `word` in place of the pattern: everywhere, and at each place alone."""
    matches = [match for match in re.finditer(pattern, name) if _ends_name(name[match.end() :])]
    if len(matches) > 1:
        yield re.sub(pattern, word, name)
    for match in matches:
        yield name[: match.start()] + word + name[match.end() :]


def _ends_name(rest: str) -> bool:
    """Whether what follows in a name, up to the next folder, says nothing else of the sample."""
    parts = re.split(r"[^a-z0-9]+", rest.partition("/")[0])
    return all(BEHIND.fullmatch(word) for word in parts)


def check_groups(
    groups: Sequence[Sequence[Path]], channels: Sequence[Sequence[int]], key: str, trusted: bool
) -> None:
    """Raise DataError for a group that is no pair of strands, or may not be one.

    channels: how many each file gives; trusted: the configuration says that pairs are strands.
    """
    for group, counts in zip(groups, channels, strict=True):
        listed = _written(key, [group])
        apart = f"{_written(key, [[path] for path in group])}"
        if sum(counts) > 2:
            each = "" if max(counts) == 1 else " (a BAM with bam.stranded=true has two)"
            raise DataError(
                f"{listed}: a group of {sum(counts)} channels{each}. A group is one track, or "
                "the two strands of one sample, which a reverse complement exchanges. Give each "
                f"sample a group of its own: {apart}"
            )
        if len(group) == 2 and not trusted and not strands_of(*group):
            raise DataError(
                f"{listed}: a group of two files is the plus and the minus strand of one sample, "
                "which a reverse complement exchanges, but these names do not say plus and minus. "
                f"Two samples are two groups: {apart}. If they are strands, plus first, add "
                "are_strands=true"
            )


def check_unlike(
    groups: Sequence[Sequence[Track]], intervals: Intervals, length: int, key: str
) -> None:
    """Raise DataError for pairs of files that hold the same signal, up to its scale.

    Compares windows of `length` bases at some of `intervals` on the chromosome that has most.
    """
    names, counts = np.unique(intervals.chrom, return_counts=True)
    there = np.flatnonzero(intervals.chrom == names[counts.argmax()])
    rows = there[np.linspace(0, len(there) - 1, min(len(there), LOCI_COMPARED)).astype(int)]
    for group in groups:
        if len(group) != 2 or group[0].path == group[1].path:
            continue
        likeness = _likeness(group, intervals.take(rows), length)
        if likeness > ALIKE:
            paths = [track.path for track in group]
            raise DataError(
                f"{_written(key, [paths])}: the two files hold the same signal base by base "
                f"(correlation {likeness:.3f}), which two strands do not. Two samples, or one "
                f"that is not stranded, are groups of their own: "
                f"{_written(key, [[path] for path in paths])}. If they are strands, add "
                "are_strands=true"
            )


def _likeness(pair: Sequence[Track], intervals: Intervals, length: int) -> float:
    """The correlation of two tracks base by base, 0 where there is too little of either."""
    starts = np.maximum(intervals.center - length // 2, 0).tolist()
    places = list(zip(intervals.chrom.tolist(), starts, strict=True))
    windows = [
        np.concatenate([track.values(chrom, at, at + length) for chrom, at in places])
        for track in pair
    ]
    if min(np.count_nonzero(values) for values in windows) < BASES_COMPARED:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = float(np.corrcoef(windows)[0, 1])
    return correlation if np.isfinite(correlation) else 0.0


def strand_table(signal: Sequence[Sequence[Track]], control: Sequence[Sequence[Track]]) -> str:
    """What each group consists of, as aligned text."""
    rows = [
        [_numbered(key, number, track.group), strand, track.name, track.path.name]
        for key, groups in (("signal", signal), ("control", control))
        for number, group in enumerate(groups, 1)
        for strand, track in zip(_strands(group), group, strict=True)
    ]
    return table(["group", "strand", "track", "file"], rows)


def _numbered(key: str, number: int, name: str) -> str:
    return f"{key} {number}: {name}" if name else f"{key} {number}"


def _strands(group: Sequence[Track]) -> Sequence[str]:
    if len(group) == 1:
        return ["both"]
    return strands_of(*(track.path for track in group)) or ("plus", "minus")


def _written(key: str, groups: Sequence[Sequence[Path]]) -> str:
    """The groups as the command line takes them."""
    listed = ",".join(f"[{','.join(map(_quoted, group))}]" for group in groups)
    return f"'{key}=[{listed}]'"


def _quoted(path: Path) -> str:
    text = str(path)
    return text if re.fullmatch(r"[\w./+-]+", text) else '"{}"'.format(text.replace('"', '\\"'))
