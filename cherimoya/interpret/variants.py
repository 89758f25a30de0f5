"""cherimoya-variants: what a model says that variants do to counts and profiles."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import torch

from cherimoya.config.interpret import VariantsConfig
from cherimoya.genome.chrom_names import table_of
from cherimoya.genome.fasta import Genome, genome_on_disk
from cherimoya.genome.sequence import BASES, N_CODE
from cherimoya.genome.vcf import Variants, left_out, read_variants
from cherimoya.inference.checkpoints import USUAL_OUTPUT, find_checkpoint, input_window
from cherimoya.interpret.contrast import asked_contrast, contrast_columns
from cherimoya.interpret.models import EnsemblePredictor, describe
from cherimoya.interpret.target import Target
from cherimoya.interpret.variants_windows import (
    OK,
    allele_window,
    check_variants,
    not_scored,
    renamed,
)
from cherimoya.interpret.variants_write import Effects, write_table, write_vcf
from cherimoya.metrics import profile_jsd
from cherimoya.prepare.provenance import check_output
from cherimoya.records.overwrite import check_inputs_kept, own_files, settle
from cherimoya.util import console
from cherimoya.util.console import counted
from cherimoya.util.files import lock_output
from cherimoya.util.resume import Journal, is_done

BATCHES_AT_ONCE = 8  # between two writes


def variants(config: VariantsConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    check_output(output)
    check_inputs_kept(config, {output: "", **_beside(output, config)})
    vcf = lock_output(output.with_suffix(".vcf")) if config.vcf else nullcontext()
    with lock_output(output), vcf:
        _score_all(config, output)
    return output


def _score_all(config: VariantsConfig, output: Path) -> None:
    predict = EnsemblePredictor(config)
    target = asked_contrast(config, predict.signal_groups)
    trimming = predict.model.trimming
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    usual = 2 * trimming + USUAL_OUTPUT, f"for {USUAL_OUTPUT:,} predicted"
    length = input_window(checkpoints, trimming, "in_window", config.in_window, usual)
    if predict.model.n_control_tracks:
        console.say("the model's control tracks are set to zero")
    named = read_variants(config.variants)
    files = {
        "variants": [config.variants],
        "fasta": [config.fasta],
        "chrom_alias": table_of(config.chrom_alias),
    }
    provenance, settings = describe(config, ("vcf",), files, length)
    made, vcf_path = settings | {"vcf": config.vcf}, output.with_suffix(".vcf")
    whole = vcf_path.exists() or not config.vcf
    if is_done(output, made, config.overwrite, console.say) and whole:
        settle(output)
        console.say(f"done already: {output}")
        return
    with (
        own_files(output, _beside(output, config), config.overwrite),
        genome_on_disk(config.fasta) as genome,
    ):
        variants = renamed(named, genome, config.chrom_alias, config.variants)
        status = check_variants(variants, genome, length, config.variants)
        for message in (*left_out(variants.skipped), *not_scored(variants, status, genome.lengths)):
            console.say(message)
        rows = np.flatnonzero(status == OK)
        todo = [(variants, int(row)) for row in rows]
        if config.random_variants:
            out = length - 2 * trimming
            random = random_variants(variants, rows, genome, length, out, config)
            todo += [(random, row) for row in range(len(random))]
        codes, step = cache(genome.codes), BATCHES_AT_ONCE * predict.batch_size // 2
        width = 3 * len(predict.signal_groups) + (len(config.checkpoint) if target else 0)
        with Journal(output, settings, (width,), step) as journal:
            for block in journal.missing(len(todo), "variants", "variants"):
                pairs = [_windows(v, row, codes, length) for v, row in todo[block]]
                ref, alt = (np.stack(side) for side in zip(*pairs, strict=True))
                journal.append(effects_of(predict, ref, alt, target))
            columns = _columns(journal.rows, rows, variants, predict)
            effects = Effects(named, status, *columns, provenance, made, predict.groups)
            vcf = write_vcf(output, Path(config.variants), effects) if config.vcf else None
            write_table(output, effects)  # the last: what is there is whole
    console.say(f"{output}: {len(rows):,} of {counted(len(variants), 'variant')} scored")
    if vcf:
        console.say(f"{vcf}: the same as INFO")


def effects_of(
    predict: EnsemblePredictor, ref: np.ndarray, alt: np.ndarray, target: Target | None = None
) -> np.ndarray:
    """What changes from codes `ref` to `alt`, (n, L) each: (n, 3 G) float64.

    Log counts of ref, of alt, and the Jensen-Shannon distance between their profiles, by group;
    then, with a target, its change by each of K models (n, 3 G + K).
    """
    codes, n = torch.from_numpy(np.concatenate([ref, alt])), len(ref)
    p, log_counts, *models = predict.apart(codes) if target else predict(codes)
    distance = profile_jsd(p[:n], p[n:], predict.signal_groups)
    parts = [log_counts[:n].double(), log_counts[n:].double(), distance]
    if target:
        values = torch.stack([target.of_counts(one.double()) for one in models[0]], dim=1)
        parts.append(values[n:] - values[:n])
    return torch.cat(parts, dim=1).numpy()


def random_variants(
    variants: Variants,
    among: np.ndarray,
    genome: Genome,
    length: int,
    out: int,
    config: VariantsConfig,
) -> Variants:
    """Random single-base changes in the output windows of the variants in rows `among`."""
    rng = np.random.default_rng(config.seed)
    rows = among[rng.integers(0, len(among), config.random_variants)]
    chrom, pos = (
        variants.chrom[rows],
        variants.pos[rows] + rng.integers(-out // 2, out // 2, len(rows)),
    )
    half = length // 2
    last = np.array([genome.lengths[c] for c in chrom.tolist()]) - (length - half)
    pos = np.clip(pos, half, np.maximum(last, half))
    code = np.array([genome.codes(c)[p] for c, p in zip(chrom.tolist(), pos, strict=True)])
    other = (code + rng.integers(1, 4, len(rows))) % 4
    kept = code != N_CODE
    letters = np.array(list(BASES))
    ref, alt = letters[code[kept]], letters[other[kept]]
    nothing = np.zeros(len(ref), np.int64)
    return Variants(chrom[kept], pos[kept], nothing, ref, alt, nothing, {}, False)


def _windows(
    variants: Variants, row: int, codes: Callable[[str], np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (length,) around both alleles; `codes` are those of a whole chromosome."""
    held, pos = codes(str(variants.chrom[row])), int(variants.pos[row])
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    return allele_window(held, pos, ref, ref, length), allele_window(held, pos, ref, alt, length)


def _columns(
    scored: np.ndarray, rows: np.ndarray, variants: Variants, predict: EnsemblePredictor
) -> tuple[dict[str, np.ndarray], int]:
    """Columns (n,) by name, NaN for what was not scored; and the number of random variants.

    An indel has no percentile of its distance: it shifts bases, and random variants do not.
    """
    columns: dict[str, np.ndarray] = {}
    sizes = [np.array([len(a) for a in alleles[rows]]) for alleles in (variants.ref, variants.alt)]
    is_indel = sizes[0] != sizes[1]
    groups = len(predict.signal_groups)
    own, random = scored[: len(rows)], scored[len(rows) :]
    for g in range(groups):
        ref, alt, distance = own[:, g], own[:, groups + g], own[:, 2 * groups + g]
        fold = (alt - ref) / math.log(2)
        values = {"ref_log_counts": ref, "alt_log_counts": alt, "log2_fold_change": fold,
                  "jsd": distance}  # fmt: skip
        if len(random):
            others = np.abs(random[:, groups + g] - random[:, g]) / math.log(2)
            values["log2_fold_change_percentile"] = percentile(np.abs(fold), others)
            ranks = percentile(distance, random[:, 2 * groups + g])
            values["jsd_percentile"] = np.where(is_indel, np.nan, ranks)
        for name, value in values.items():
            columns[f"{name}_{g}" if groups > 1 else name] = value
    if scored.shape[1] > 3 * groups:
        changes, others = (part[:, 3 * groups :].T / math.log(2) for part in (own, random))
        columns |= contrast_columns(changes)
        if len(random):
            ranks = percentile(np.abs(columns["contrast"]), np.abs(others.mean(axis=0)))
            columns["contrast_percentile"] = ranks
    for name, value in columns.items():
        columns[name] = np.full(len(variants), np.nan)
        columns[name][rows] = value
    return columns, len(random)


def percentile(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Per cent of `among` (m,) that are smaller than each of `values` (n,), ties half."""
    ordered = np.sort(among)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return 50 * (below + up_to) / len(among)


def _beside(output: Path, config: VariantsConfig) -> dict[Path, str]:
    """What is written beside `output`, and how to do without."""
    return {output.with_suffix(".vcf"): ", or set vcf=false"} if config.vcf else {}
