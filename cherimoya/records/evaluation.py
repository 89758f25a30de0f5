"""What cherimoya-evaluate leaves in its folder, read back without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cherimoya.records import layout
from cherimoya.records.layout import EXAMPLES
from cherimoya.records.per_locus import (
    Examples,
    ScoredLoci,
    read_examples,
    read_scored_loci,
)
from cherimoya.util.shapes import read_json, tried

SCORES, LOCI = "scores.json", "loci.tsv"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all loci, signal groups and chromosomes (scores.json), of each locus, examples."""

    summary: dict[str, Any]
    loci: ScoredLoci | None
    examples: Examples | None
    problems: list[str] = field(default_factory=list)  # what is wrong with damaged files


def is_evaluation(folder: Path) -> bool:
    """Whether `folder` holds an evaluation."""
    return (folder / SCORES).is_file() and (folder / LOCI).is_file()


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation in `folder`, as far as its files can be read. Raises DataError."""
    problems: list[str] = []
    return Evaluation(
        summary=read_json(folder / SCORES, layout.EVALUATION, "Put it back, or evaluate again."),
        loci=tried(problems, lambda: read_scored_loci(folder / LOCI), None),
        examples=tried(problems, lambda: read_examples(folder / EXAMPLES), None),
        problems=problems,
    )
