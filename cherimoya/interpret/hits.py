"""cherimoya-hits: motif instances with coordinates, from attributions and motifs."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.config.interpret import HitsConfig
from cherimoya.config.models import FREE
from cherimoya.config.schema import to_dict
from cherimoya.errors import ConfigError
from cherimoya.interpret.hit_motifs import files_read, find_motifs_file, read_hit_motifs
from cherimoya.interpret.seqlets import check_seqlets, find_seqlets, write_seqlets
from cherimoya.interpret.sparse_fit import Fit, Placed, SparseFit
from cherimoya.prepare.provenance import check_output, made_from
from cherimoya.records.attributions import Attributions, read_attributions
from cherimoya.records.hits import (
    HitMotif,
    Hits,
    read_table,
    write_bed,
    write_loci,
    write_table,
    write_track,
)
from cherimoya.records.overwrite import check_inputs_kept, own_files, to_make
from cherimoya.records.provenance import choose_device
from cherimoya.report.pages import offered
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_output
from cherimoya.util.marks import is_whole, marked_folder
from cherimoya.util.resume import forget_parts, is_done, resumable_output

COEFFICIENTS = 1 << 23  # of a block of loci, which are fitted at once
MOST_AT_ONCE = 256  # loci of a block
TWICE = 0.2  # of a motif's width: on opposite strands no further apart, it is one instance
FIT = "fit.npz"
PLACED = ("bed", "bedGraph")  # endings of what is beside the table, of loci with coordinates
LOCI, SEQLETS, PAGE = "loci.tsv", "seqlets.tsv", "html"


def hits(config: HitsConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    check_output(output)
    if config.seqlets:
        check_seqlets()
    beside = _beside(config, output)
    check_inputs_kept(config, {output: "", **beside})
    with lock_output(output):
        _hits(config, output, beside)
    return output


def _beside(config: HitsConfig, output: Path) -> dict[Path, str]:
    """The files that come to be beside `output`, and how to do without each."""
    written = {path_of(output, ending): "" for ending in (*PLACED, LOCI)}
    if config.seqlets:
        written[path_of(output, SEQLETS)] = ", or set seqlets=false"
    if config.page:
        written[path_of(output, PAGE)] = ", or set page=false"
    return written


def path_of(output: Path, ending: str) -> Path:
    """The file beside the table `output` that has its name and this ending."""
    return output.with_name(f"{output.stem}.{ending}")


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done: contributions (n, W) of a target of the attributions, and motifs."""

    attributions: Attributions
    target: str
    motifs: list[HitMotif]

    @property
    def contributions(self) -> np.ndarray:
        """Of the bases that are there (n, W)."""
        return self.attributions.contributions[self.target]


def _hits(config: HitsConfig, output: Path, beside: dict[Path, str]) -> None:
    device = choose_device(config.device, "device")
    path = Path(config.attributions)
    attributions = read_attributions(path)
    target = _target(config.target, attributions)
    source = find_motifs_file(config.motifs, path, target)
    check_inputs_kept({"motifs": str(source)}, {output: "", **beside})
    length = attributions.sequence.shape[1]
    motifs = read_hit_motifs(source, config.trim, length)
    read = [("attributions", path), *(("motifs", one) for one in files_read(source))]
    provenance = made_from(read)
    settings = {key: v for key, v in to_dict(config).items() if key not in FREE}
    settings |= {"target": target, "motifs": source.name, "sources": provenance["sources"]}
    del settings["attributions"]
    done = is_done(output, settings, config.overwrite, console.say)
    if (attributions.start < 0).all():
        console.say(
            warning("no BED file and no track: the attributions do not say where their loci are")
        )
        beside = {path: fix for path, fix in beside.items() if not path.name.endswith(PLACED)}
    if done:
        forget_parts(output)
    todo = to_make(output, beside, done)
    if todo is None:
        return
    work = Work(attributions, target, motifs)
    with own_files(output, todo, config.overwrite, anew=not done):
        if not done:
            _find(config, output, work, device, provenance, settings)
        _write(config, output, work, _read(output, work), todo)


def _find(
    config: HitsConfig,
    output: Path,
    work: Work,
    device: torch.device,
    provenance: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Fit the motifs and write the table."""
    loci = counted(len(work.contributions), "locus", "loci")
    console.say(f"{counted(len(work.motifs), 'motif')} in {loci}: {work.target}")
    made = {key: settings[key] for key in ("target", "cutoff", "trim", "sources")}
    with resumable_output(output, made, _blocks_done, console.say) as folder:
        found = _found(work, list(_fits(work, config.cutoff, device, folder)))
        write_table(output, found, provenance, settings)
    _tell(output, found)


def _read(output: Path, work: Work) -> Hits:
    """The instances of a table, of which all that is beside it is made."""
    held = work.attributions
    columns = read_table(output, work.motifs)
    widths = np.array([motif.weights.shape[1] for motif in work.motifs])
    first, locus = columns["offset"], columns["locus"]
    explained = _explained(work.contributions, locus, first, first + widths[columns["motif"]])
    return Hits(work.motifs, chrom=held.chrom, start=held.start, explained=explained, **columns)


def _target(named: str | None, attributions: Attributions) -> str:
    held = list(attributions.contributions)
    if named is None and len(held) > 1:
        raise ConfigError(f"target=null: there are {', '.join(held)}. Name one: target={held[0]}.")
    if named is not None and named not in held:
        raise ConfigError(f"target={named}: not in the attributions, which have {', '.join(held)}.")
    return named or held[0]


def _fits(work: Work, cutoff: float, device: torch.device, folder: Path) -> Iterator[Fit]:
    """The fit of each block of loci, made or as it is kept in `folder`."""
    forward = [motif.weights for motif in work.motifs]
    fit = SparseFit([*forward, *(w[::-1, ::-1].copy() for w in forward)], cutoff, device)
    n, length = work.contributions.shape
    size = min(max(1, COEFFICIENTS // (2 * len(forward) * length)), MOST_AT_ONCE)
    for first in console.track(range(0, n, size), "fit", -(-n // size), "block"):
        rows, part = slice(first, first + size), folder / f"{first:08d}"
        if not is_whole(part, console.say):
            _keep(part, fit(work.contributions[rows], work.attributions.sequence[rows]), first)
        yield _kept(part)


def _keep(part: Path, fit: Fit, first: int) -> None:
    columns = vars(fit.placed) | {"locus": fit.placed.locus + first}
    with marked_folder(part) as folder:
        np.savez(folder / FIT, **columns, converged=fit.converged)


def _kept(part: Path) -> Fit:
    with np.load(part / FIT, allow_pickle=False) as held:
        values = dict(held)
    converged = values.pop("converged")
    return Fit(Placed(**values), converged)


def _blocks_done(folder: Path) -> str:
    return counted(sum(1 for _ in folder.glob(f"*/{FIT}")), "block")


def _found(work: Work, fits: list[Fit]) -> Hits:
    """The instances of all fits, each motif once where both of its strands lie."""
    placed = Placed(*(np.concatenate([vars(f.placed)[name] for f in fits])
                      for name in Placed.__dataclass_fields__))  # fmt: skip
    converged = np.concatenate([fit.converged for fit in fits])
    if failed := int((~converged).sum()):
        console.say(warning(f"the fit of {counted(failed, 'locus', 'loci')} did not converge"))
    m = len(work.motifs)
    widths = np.array([motif.weights.shape[1] for motif in work.motifs])
    motif, strand = placed.motif % m, np.where(placed.motif < m, 1, -1)
    kept = once(placed.locus, motif, placed.position, placed.coefficient, strand, widths)
    first, last = placed.position[kept], (placed.position + widths[motif])[kept]
    locus = placed.locus[kept]
    signed, sizes = work.contributions, np.abs(work.contributions)
    return Hits(
        motifs=work.motifs, motif=motif[kept], locus=locus, offset=first, strand=strand[kept],
        score=placed.coefficient[kept], similarity=placed.similarity[kept],
        contribution=_between(signed, locus, first, last),
        importance=_between(sizes, locus, first, last),
        chrom=work.attributions.chrom, start=work.attributions.start,
        explained=_explained(signed, locus, first, last),
    )  # fmt: skip


def _between(
    values: np.ndarray, locus: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Sums (h,) of the values (n, W) of loci from `first` to before `last`."""
    sums = np.pad(values.astype(np.float64).cumsum(axis=1), ((0, 0), (1, 0)))
    return sums[locus, last] - sums[locus, first]


def _explained(
    values: np.ndarray, locus: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Share (n,) of the sum of squares of the values (n, W) of loci that lies in instances."""
    edges = np.zeros((len(values), values.shape[1] + 1), np.int64)
    np.add.at(edges, (locus, first), 1)
    np.add.at(edges, (locus, last), -1)
    inside = edges.cumsum(axis=1)[:, :-1] > 0
    squares = np.square(values.astype(np.float64))
    return (squares * inside).sum(axis=1) / np.maximum(squares.sum(axis=1), 1e-300)


def once(
    locus: np.ndarray,
    motif: np.ndarray,
    position: np.ndarray,
    coefficient: np.ndarray,
    strand: np.ndarray,
    widths: np.ndarray,
) -> np.ndarray:
    """Rows of instances without the weaker ones of a pair that a palindrome makes: of one motif, on
    opposite strands, at most TWICE of its width apart."""
    order = np.lexsort((position, motif, locus))
    dropped = np.zeros(len(locus), bool)
    for i, a in enumerate(order.tolist()):
        for b in order[i + 1 :].tolist():
            apart = position[b] - position[a]
            if (locus[a], motif[a]) != (locus[b], motif[b]) or apart > TWICE * widths[motif[a]]:
                break
            if strand[a] != strand[b] and not dropped[a] and not dropped[b]:
                dropped[a if coefficient[a] < coefficient[b] else b] = True
    return np.flatnonzero(~dropped)


def _write(
    config: HitsConfig, output: Path, work: Work, found: Hits, todo: Collection[Path]
) -> None:
    """The files beside the table that are still `todo`."""
    bed, track, loci, of_seqlets, page = (
        path_of(output, ending) for ending in (*PLACED, LOCI, SEQLETS, PAGE)
    )
    if bed in todo:
        console.say(result(f"{write_bed(bed, found)}: written"))
    if track in todo:
        console.say(result(f"{write_track(track, found, work.contributions)}: written"))
    if loci in todo:
        write_loci(loci, found, work.contributions.shape[1])
        console.say(result(f"{loci}: instances by locus"))
    if of_seqlets in todo:
        seqlets = find_seqlets(work.contributions, config.seqlet_p)
        write_seqlets(of_seqlets, seqlets, found)
        console.say(result(f"{of_seqlets}: {counted(len(seqlets.locus), 'seqlet')}"))
    if page in todo:
        _offer_page(config, page, work, found)


def _offer_page(config: HitsConfig, path: Path, work: Work, found: Hits) -> None:
    """The page beside the table; a line where it cannot be drawn, which must not spoil the rest."""
    with offered():
        from cherimoya.report.hits import write_page

        write_page(path, found, work.attributions, work.target, config.cutoff, config.examples)
        console.say(result(f"{path}: charts"))


def _tell(output: Path, found: Hits) -> None:
    totals = found.counts.sum(axis=0)
    for i in np.argsort(-totals, kind="stable")[:20]:
        if totals[i]:
            motif: Any = found.motifs[i]
            match = f"  {motif.match}" if motif.match else ""
            console.say(f"  {motif.name}  {totals[i]:,}{match}")
    console.say(result(f"{output}: {counted(len(found), 'instance')}"))
