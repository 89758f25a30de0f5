"""cherimoya-variants: what a model says that variants do to counts and profiles."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.interpret import VariantsConfig
from cherimoya.genome.chrom_names import table_of
from cherimoya.genome.fasta_index import genome_on_disk
from cherimoya.genome.vcf import Variants, left_out, read_variants
from cherimoya.genome.vcf_files import check_writable, ending_of
from cherimoya.inference.checkpoints import USUAL_OUTPUT, find_checkpoint, input_window
from cherimoya.interpret.contrast import asked_contrast
from cherimoya.interpret.models import EnsemblePredictor, describe
from cherimoya.interpret.target import Target
from cherimoya.interpret.variants_cache import decided_by
from cherimoya.interpret.variants_columns import columns_of
from cherimoya.interpret.variants_effects import Questions, read_peaks
from cherimoya.interpret.variants_null import random_variants
from cherimoya.interpret.variants_windows import OK, check_variants, not_scored, renamed
from cherimoya.interpret.variants_write import (
    Effects,
    read_effects,
    vcf_beside,
    write_table,
    write_vcf,
)
from cherimoya.prepare.provenance import check_output
from cherimoya.records.overwrite import check_inputs_kept, own_files, to_make
from cherimoya.report.pages import offered, write_page
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_output
from cherimoya.util.resume import is_done

PAGE = ".html"
TRACKS = 6  # of the strongest variants, on the page


def variants(config: VariantsConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    check_output(output)
    beside = _beside(output, config)
    if config.page:
        beside[output.with_suffix(PAGE)] = ", or set page=false"
    check_inputs_kept(config, {output: "", **beside})
    vcf = lock_output(next(iter(beside))) if config.vcf else nullcontext()
    with lock_output(output), vcf:
        _score_all(config, output, beside)
    return output


def _score_all(config: VariantsConfig, output: Path, beside: Mapping[Path, str]) -> None:
    predict = EnsemblePredictor(config)
    target = asked_contrast(config, predict.signal_groups)
    trimming = predict.model.trimming
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    usual = 2 * trimming + USUAL_OUTPUT, f"for {USUAL_OUTPUT:,} predicted"
    length = input_window(checkpoints, trimming, "in_window", config.in_window, usual)
    if predict.model.n_control_tracks:
        console.say(warning("the model's control tracks are set to zero"))
    named = read_variants(config.variants)
    files = {
        "variants": [config.variants],
        "fasta": [config.fasta],
        "chrom_alias": table_of(config.chrom_alias),
        "peaks": [config.peaks] if config.peaks else [],
    }
    provenance, settings = describe(config, ("vcf", "page"), files, length)
    settings["random"] = "of the same kinds, anywhere"  # others have been drawn before
    done = is_done(output, settings, config.overwrite, console.say)
    vcf = [path for path in beside if path.suffix != PAGE]  # and its index
    todo = to_make(output, beside, done, vcf)
    if todo is None:
        return
    owned = own_files(output, todo, config.overwrite, anew=not done)
    with owned, genome_on_disk(config.fasta) as genome:
        variants = renamed(named, genome, config.chrom_alias, config.variants)
        ask = Questions(predict, genome, length, decided_by(settings))
        if not done:
            effects = _score(config, named, variants, ask, settings, target, provenance)
            write_table(output, effects, settings)
        effects = read_effects(output, named, predict.groups)
        if vcf and vcf[0] in todo:
            no_index = write_vcf(vcf[0], Path(config.variants), effects)
            console.say(result(f"{vcf[0]}: the same as INFO{f'; {no_index}' if no_index else ''}"))
        if output.with_suffix(PAGE) in todo:
            _offer_page(output, effects, variants, ask)


def _score(
    config: VariantsConfig,
    named: Variants,
    variants: Variants,
    ask: Questions,
    settings: Mapping[str, Any],
    target: Target | None,
    provenance: dict[str, Any],
) -> Effects:
    """What the models say of the variants, which are `named` otherwise in their file."""
    output, genome, length = Path(config.output), ask.genome, ask.length
    status = check_variants(variants, genome, length, config.variants)
    for message in (*left_out(variants.skipped), *not_scored(variants, status, genome.lengths)):
        console.say(warning(message))
    rows = np.flatnonzero(status == OK)
    n, peaks = config.random_variants, None
    if config.peaks:
        peaks = read_peaks(config.peaks, genome, config.chrom_alias)
    random = random_variants(variants, rows, genome, length, n, config.seed, peaks)
    counts = ask.counts(peaks, str(config.peaks)) if peaks else None
    scored, of_random = ask.effects(variants, rows, random, output, settings)
    found = columns_of(scored, of_random, counts, target)
    columns = {name: np.full(len(variants), np.nan) for name in found}
    for name, value in found.items():
        columns[name][rows] = value
    console.say(result(f"{output}: {len(rows):,} of {counted(len(variants), 'variant')} scored"))
    return Effects(named, status, columns, len(random), provenance)


def _offer_page(output: Path, effects: Effects, variants: Variants, ask: Questions) -> None:
    """The page beside `output`; a line where it cannot be, which must not spoil the table."""
    with offered():
        from cherimoya.report.variants import Shown, contents, strongest

        tracks = ask.tracks(variants, strongest(effects.columns, TRACKS))
        shown = Shown(
            output.name, effects.variants, effects.columns, ask.signal_groups, effects.groups,
            tracks, effects.n_random, effects.provenance,
        )  # fmt: skip
        page = write_page(output.with_suffix(PAGE), "variants.html", contents(shown))
        console.say(result(f"{page}: all effects"))


def _beside(output: Path, config: VariantsConfig) -> dict[Path, str]:
    """What is written beside `output`, the VCF file first, and how to do without.

    Compressed or binary where the variants are so. Raises PackageError where that needs a package.
    """
    if not config.vcf:
        return {}
    ending = ending_of(Path(config.variants), "variants")
    check_writable(ending)
    return dict.fromkeys(vcf_beside(output, ending), ", or set vcf=false")
