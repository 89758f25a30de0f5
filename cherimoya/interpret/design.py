"""cherimoya-design: a few edits of each locus that bring its predicted counts to a goal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cherimoya.config.design import DesignConfig
from cherimoya.genome.intervals import read_names
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble
from cherimoya.interpret.contrast import counts_target
from cherimoya.interpret.designer import Designer
from cherimoya.interpret.loci import Sequences, central, read_sequences
from cherimoya.interpret.models import check_effects_precision, describe
from cherimoya.prepare.provenance import check_output
from cherimoya.records.designs import (
    Design,
    read_designed,
    write_edits,
    write_fasta,
    write_table,
)
from cherimoya.records.overwrite import check_inputs_kept, own_files, to_make
from cherimoya.records.provenance import choose_device
from cherimoya.report.pages import offered
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_output
from cherimoya.util.optional import import_optional
from cherimoya.util.resume import Journal, is_done

FREE = ("page", "examples")  # that change no design
EDITS, FASTA, PAGE = "edits.tsv", "fa", "html"


def design(config: DesignConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    import_optional("ledidi")
    check_output(output)
    beside = {path_of(output, ending): "" for ending in (EDITS, FASTA)}
    if config.page:
        beside[path_of(output, PAGE)] = ", or set page=false"
    check_inputs_kept(config, {output: "", **beside})
    with lock_output(output):
        _design_all(config, output, beside)
    return output


def path_of(output: Path, ending: str) -> Path:
    """The file beside the table `output` that has its name and this ending."""
    return output.with_name(f"{output.stem}.{ending}")


def _design_all(config: DesignConfig, output: Path, beside: dict[Path, str]) -> None:
    device = choose_device(config.device, "device")
    check_effects_precision(config.precision, device)
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    model = load_ensemble(checkpoints, device, config.reverse_complement, config.bias)
    target = counts_target(config.target or "", config.checkpoint, model.signal_groups)
    loci = read_sequences(config, model)
    model.control_groups = loci.control_groups or model.control_groups
    length = loci.codes.shape[1]
    designer = Designer(config, model, target, central(length, config.edit_within, "edit_within"))
    provenance, settings = describe(config, FREE, loci.files, length)
    settings["ledidi"] = provenance["ledidi"] = import_optional("ledidi").__version__
    done = is_done(output, settings, config.overwrite, console.say)
    todo = to_make(output, beside, done)
    if todo is None:
        return
    with own_files(output, todo, config.overwrite, anew=not done):
        if done:
            designed = read_designed(output, loci.codes, loci.start)
            designs = list(_described(config, designer, loci, designed))
        else:
            designs = _design_loci(config, output, designer, loci, provenance, settings)
        _write(config, output, designer, loci, designs, todo)


def _design_loci(
    config: DesignConfig,
    output: Path,
    designer: Designer,
    loci: Sequences,
    provenance: dict[str, Any],
    settings: dict[str, Any],
) -> list[Design]:
    """Design the loci that are still to do, one at a time, and write the table."""
    with Journal(output, settings, (loci.codes.shape[1],), dtype=np.uint8) as journal:
        for row in journal.missing(len(loci), "designs", "loci", "locus"):
            label = f"locus {row.stop:,} of {len(loci):,}"
            own = designer.design(loci.codes[row.start], _controls(loci, row.start), label)
            journal.append(own[None])
        designs = list(_described(config, designer, loci, journal.rows))
        write_table(output, designs, provenance, settings)
    _tell(output, designs)
    return designs


def _controls(loci: Sequences, row: int) -> Tensor | None:
    return None if loci.controls is None else loci.controls[row]


def _described(
    config: DesignConfig, designer: Designer, loci: Sequences, designed: np.ndarray
) -> Iterator[Design]:
    """What is to be said of each of the sequences `designed` (n, L), each locus asked for alone."""
    names, strands = read_names(config.loci) if config.loci else ([], [])
    for row in console.track(range(len(loci)), "edits alone", len(loci), "locus"):
        codes, made, of_file = loci.codes[row], np.array(designed[row]), int(loci.row[row])
        at = np.flatnonzero(codes != made)
        undone = np.repeat(made[None], len(at), axis=0)
        undone[np.arange(len(at)), at] = codes[at]
        asked = designer.ask(np.stack([codes, made, *undone]), _controls(loci, row))
        before, after, *alone = asked.value.tolist()
        goal = designer.goal(before)
        named = names[of_file] if names and names[of_file] != "." else f"locus_{of_file + 1}"
        yield Design(
            named, strands[of_file] if strands else ".", str(loci.chrom[row]),
            int(loci.start[row]), codes, made, designer.editable, before, after, goal,
            designer.is_reached(after, goal), np.array(alone) - after,
        )  # fmt: skip


def _write(
    config: DesignConfig,
    output: Path,
    designer: Designer,
    loci: Sequences,
    designs: list[Design],
    todo: Mapping[Path, str],
) -> None:
    """The files beside the table that are to be made."""
    edits, fasta, page = (path_of(output, ending) for ending in (EDITS, FASTA, PAGE))
    if edits in todo:
        console.say(result(f"{write_edits(edits, designs)}: edits, one by one"))
    if fasta in todo:
        console.say(result(f"{write_fasta(fasta, designs)}: the sequences"))
    if page in todo:
        _offer_page(config, page, designer, loci, designs)


def _offer_page(
    config: DesignConfig, page: Path, designer: Designer, loci: Sequences, designs: list[Design]
) -> None:
    """The page beside the table; a line where it cannot be, which must not spoil the rest."""
    with offered():
        from cherimoya.report.design import Shown, write_page

        groups, group = designer.model.signal_groups, designer.target.group
        own = slice(sum(groups[:group]), sum(groups[: group + 1]))
        profiles = []
        for row, one in enumerate(designs[: config.examples]):
            both = np.stack([one.original, one.designed])
            profiles.append(designer.ask(both, _controls(loci, row)).counts[:, own])
        name = Path(config.output).name
        shown = Shown(name, str(config.target), config.tolerance, designs, profiles)
        console.say(result(f"{write_page(page, shown)}: before and after"))


def _tell(output: Path, designs: list[Design]) -> None:
    short = sum(not one.reached for one in designs)
    edits = counted(sum(len(one.offsets) for one in designs), "edit")
    console.say(result(f"{output}: {counted(len(designs), 'locus', 'loci')}, {edits}"))
    if short:
        every = counted(len(designs), "locus", "loci")
        console.say(
            warning(
                f"{short:,} of {every} did not reach the goal (reached=no). More may with a "
                "smaller edit_weight, a larger edit_within, max_iter or attempts, or a nearer goal."
            )
        )
