"""cherimoya-design: a few edits of each locus that bring its predicted counts to a goal."""

from collections.abc import Iterator
from pathlib import Path

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
from cherimoya.records.overwrite import check_inputs_kept, own_files, settle
from cherimoya.records.provenance import choose_device
from cherimoya.report.pages import page_offered
from cherimoya.util import console
from cherimoya.util.console import counted
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
    if is_done(output, settings, config.overwrite, console.say):
        settle(output)
        console.say(f"done already: {output}")
        if config.page and not path_of(output, PAGE).exists():
            _draw_again(config, output, designer, loci)
        return
    checked = own_files(output, beside, config.overwrite)
    with checked, Journal(output, settings, (length,), dtype=np.uint8) as journal:
        for row in journal.missing(len(loci), "designs", "loci", "locus"):
            with console.report_duration(f"design of locus {row.stop:,}"):
                own = designer.design(loci.codes[row.start], _controls(loci, row.start))
            journal.append(own[None])
        designs = list(_described(config, designer, loci, journal.rows))
        console.say(f"{write_edits(path_of(output, EDITS), designs)}: edits, one by one")
        console.say(f"{write_fasta(path_of(output, FASTA), designs)}: the sequences")
        if config.page:
            _offer_page(config, output, designer, loci, designs)
        write_table(output, designs, provenance, settings)  # the last: what is there is whole
    _tell(output, designs)


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


def _draw_again(config: DesignConfig, output: Path, designer: Designer, loci: Sequences) -> None:
    """The page of designs that were made before, which it was not drawn with."""
    with own_files(output, {path_of(output, PAGE): ""}, config.overwrite), page_offered():
        designed = read_designed(path_of(output, FASTA), loci.codes)
        _offer_page(
            config, output, designer, loci, list(_described(config, designer, loci, designed))
        )


def _offer_page(
    config: DesignConfig, output: Path, designer: Designer, loci: Sequences, designs: list[Design]
) -> None:
    """The page beside `output`; a line where it cannot be, which must not spoil the table."""
    with page_offered():
        from cherimoya.report.design import Shown, write_page

        groups, group = designer.model.signal_groups, designer.target.group
        own = slice(sum(groups[:group]), sum(groups[: group + 1]))
        profiles = []
        for row, one in enumerate(designs[: config.examples]):
            both = np.stack([one.original, one.designed])
            profiles.append(designer.ask(both, _controls(loci, row)).counts[:, own])
        shown = Shown(output.name, str(config.target), config.tolerance, designs, profiles)
        console.say(f"{write_page(path_of(output, PAGE), shown)}: before and after")


def _tell(output: Path, designs: list[Design]) -> None:
    short = sum(not one.reached for one in designs)
    edits = counted(sum(len(one.offsets) for one in designs), "edit")
    console.say(f"{output}: {counted(len(designs), 'locus', 'loci')}, {edits}")
    if short:
        every = counted(len(designs), "locus", "loci")
        console.say(
            f"{short:,} of {every} did not reach the goal (reached=no). More may with a smaller "
            "edit_weight, a larger edit_within, max_iter or attempts, or a nearer goal."
        )
