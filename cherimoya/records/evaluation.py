"""What cherimoya-evaluate leaves in its folder, read back without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cherimoya.records.per_locus import (
    EXAMPLES,
    Examples,
    ScoredLoci,
    read_examples,
    read_scored_loci,
)

SCORES, LOCI = "scores.json", "loci.tsv"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all loci, signal groups and chromosomes (scores.json), of each locus, examples."""

    summary: dict[str, Any]
    loci: ScoredLoci | None
    examples: Examples | None


def is_evaluation(folder: Path) -> bool:
    """Whether `folder` holds an evaluation."""
    return (folder / SCORES).is_file() and (folder / LOCI).is_file()


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation in `folder`."""
    examples = folder / EXAMPLES
    return Evaluation(
        summary=json.loads((folder / SCORES).read_text()),
        loci=read_scored_loci(folder / LOCI),
        examples=read_examples(examples) if examples.is_file() else None,
    )
