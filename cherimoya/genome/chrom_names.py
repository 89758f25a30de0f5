"""Chromosomes that a file names otherwise than the genome: chr1 and 1, chrM and MT."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from cherimoya.errors import DataError, printable
from cherimoya.genome.fasta import Genome, check_exists, text_lines
from cherimoya.genome.intervals import NO_FIELDS
from cherimoya.util import console
from cherimoya.util.console import Say

SHOWN = 12  # names in a message, or fewer
CHOICES = ("none", "auto", "add_chr", "strip_chr")


def name_mismatch(names: Iterable[str], held: Iterable[str]) -> dict[str, str]:
    """Those of `names` that `held` writes otherwise, such as 1 for chr1: theirs -> held."""
    held = set(held)
    bare = {_bare(name): name for name in held}
    return {n: bare[_bare(n)] for n in names if n not in held and _bare(n) in bare}


def format_names(names: Iterable[str]) -> str:
    """The first few of `names`, and how many there are in all."""
    listed = [printable(name) for name in names]
    more = f", ... ({len(listed)} in all)" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more if listed else "none"


def _bare(name: str) -> str:
    short = name[3:] if name.lower().startswith("chr") else name
    return "MT" if short.upper() in ("M", "MITO", "MTDNA") else short.upper()


def table_of(choice: str) -> list[str]:
    """The table that chrom_alias=`choice` names, if it names one that is there."""
    return [choice] if choice not in CHOICES and Path(choice).is_file() else []


class Aliases:
    """Which name of the genome a file's name stands for, as chrom_alias=`choice` says.

    choice: none, auto (add or strip chr; M, MT and Mito are one), add_chr, strip_chr, or the
    path of a table in which each line holds one of the genome's names and others for it; `say`
    hears what `accepted` reads as what
    """

    def __init__(self, choice: str, genome: Genome, say: Say = console.say) -> None:
        self._choice, self._genome, self._say = choice, genome, say
        self._table = {} if choice in CHOICES else _read_table(choice, genome)

    def of(self, names: Iterable[str], where: str) -> dict[str, str]:
        """The names that are to be read as others: name -> the genome's name.

        `where` is said in the DataError for two names that would become one.
        """
        listed = list(names)
        aliases = self._aliases(listed)
        taken = [name for name in listed if name not in aliases]
        for old, new in aliases.items():
            if new in taken:
                other = next(n for n in listed if n != old and aliases.get(n, n) == new)
                raise DataError(
                    f"{where}: {other} and {old} would both be {new}, as "
                    f"chrom_alias={self._choice} says. Leave one out of the file, or give a "
                    "table of names: chrom_alias=names.tsv"
                )
            taken.append(new)
        return aliases

    def accepted(self, names: Iterable[str], where: str) -> dict[str, str]:
        """`of` for the names of intervals, which must then be the genome's, and a word about it.

        Places may lie on one chromosome under two names. Raises DataError, see `check_names`.
        """
        listed = list(dict.fromkeys(names))
        aliases = self._aliases(listed)
        if aliases:
            self._say(f"{where}: {format_aliases(aliases)}")
        renamed = [aliases.get(name, name) for name in listed]
        check_names(renamed, self._genome.lengths, where, self._genome)
        return aliases

    def _aliases(self, names: list[str]) -> dict[str, str]:
        renamed = {name: self._one(name) for name in names if name not in self._genome.lengths}
        return {old: new for old, new in renamed.items() if new in self._genome.lengths}

    def _one(self, name: str) -> str:
        if self._choice == "auto":
            return name_mismatch([name], self._genome.lengths).get(name, name)
        if self._choice == "add_chr":
            return f"chr{name}"
        if self._choice == "strip_chr":
            return name.removeprefix("chr")
        return self._table.get(name, name)


def check_names(
    names: Iterable[str], chroms: Iterable[str], where: str, genome: Genome, once: bool = False
) -> None:
    """Raise DataError, with a proposal, when `names` and the genome's are not the same naming.

    `chroms` are the genome's names that matter: others may be called anything. `once`: none can
    stand for a chromosome that another names rightly.
    """
    listed = list(dict.fromkeys(names))
    strangers = not set(listed) & set(genome.lengths)
    proposal = name_mismatch(listed, chroms)
    if strangers and not proposal:
        proposal = name_mismatch(listed, genome.lengths)
    if once:
        proposal = {old: new for old, new in proposal.items() if new not in listed}
    if not proposal and not strangers:
        return
    fix = (
        "None is like another: give the FASTA that the file was made with, or a table of the "
        "file's names and the genome's, one pair a line: chrom_alias=names.tsv"
    )
    if proposal:
        fix = f"Proposal: {format_aliases(proposal)}. Accept it with chrom_alias=auto."
    raise DataError(
        f"{where} and fasta={genome.path} name chromosomes differently. In the file: "
        f"{format_names(listed)}. In the genome: {format_names(genome.lengths)}. {fix}"
    )


def format_aliases(aliases: Mapping[str, str]) -> str:
    """`aliases` as text."""
    return format_names(f"{old} is {new}" for old, new in aliases.items())


def _read_table(choice: str, genome: Genome) -> dict[str, str]:
    path = Path(choice)
    if not path.exists():
        raise DataError(
            f"chrom_alias={choice}: no such file, and none of {', '.join(CHOICES)}. Give one of "
            "these, or a table of names."
        )
    check_exists(path, "chrom_alias")
    table: dict[str, str] = {}
    for number, line in text_lines(path, f"chrom_alias={path}"):
        if line.strip() and not line.startswith(NO_FIELDS):
            table |= _read_line(line, genome, f"chrom_alias={path}, line {number}")
    if not table:
        raise DataError(
            f"chrom_alias={path}: no line holds one of the genome's names "
            f"({format_names(genome.lengths)}) and another for it."
        )
    return table


def _read_line(line: str, genome: Genome, where: str) -> dict[str, str]:
    cells = line.split("\t") if "\t" in line else line.split()
    listed = {word.strip() for word in cells if word.strip()}
    targets = sorted(listed & set(genome.lengths))
    if len(targets) > 1:
        raise DataError(
            f"{where}: {format_names(targets)} are all names of the genome. Each line names one "
            "chromosome."
        )
    return {word: targets[0] for word in listed - set(targets)} if targets else {}
