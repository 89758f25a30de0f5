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
from cherimoya.genome.fasta_index import genome_on_disk
from cherimoya.genome.vcf import Variants, left_out, read_variants
from cherimoya.inference.checkpoints import USUAL_OUTPUT, find_checkpoint, input_window
from cherimoya.interpret.contrast import asked_contrast, contrast_columns
from cherimoya.interpret.models import EnsemblePredictor, describe
from cherimoya.interpret.target import Target
from cherimoya.interpret.variants_null import (
    p_values,
    percentile,
    q_values,
    random_variants,
    shifts_bases,
)
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
    settings["random"] = "of the same kinds"  # others have been drawn before
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
        n, out = config.random_variants, length - 2 * trimming
        random = random_variants(variants, rows, genome, length, out, n, config.seed)
        todo = [(variants, int(row)) for row in rows] + [(random, i) for i in range(len(random))]
        codes, step = cache(genome.codes), BATCHES_AT_ONCE * predict.batch_size // 2
        width = 3 * len(predict.signal_groups) + (len(config.checkpoint) if target else 0)
        with Journal(output, settings, (width,), step) as journal:
            for block in journal.missing(len(todo), "variants", "variants"):
                pairs = [_windows(v, row, codes, length) for v, row in todo[block]]
                ref, alt = (np.stack(side) for side in zip(*pairs, strict=True))
                sizes = np.array([(len(v.ref[row]), len(v.alt[row])) for v, row in todo[block]])
                journal.append(effects_of(predict, ref, alt, sizes, target))
            columns = _columns(journal.rows, rows, variants, random, predict)
            effects = Effects(named, status, columns, len(random), provenance, made, predict.groups)
            vcf = write_vcf(output, Path(config.variants), effects) if config.vcf else None
            write_table(output, effects)  # the last: what is there is whole
    console.say(f"{output}: {len(rows):,} of {counted(len(variants), 'variant')} scored")
    if vcf:
        console.say(f"{vcf}: the same as INFO")


def effects_of(
    predict: EnsemblePredictor,
    ref: np.ndarray,
    alt: np.ndarray,
    sizes: np.ndarray,
    target: Target | None = None,
) -> np.ndarray:
    """What changes from codes `ref` to `alt`, (n, L) each: (n, 3 G) float64.

    sizes: bases of the alleles (n, 2), which lie in the middle.
    Log counts of ref, of alt, and the Jensen-Shannon distance between their profiles, by group;
    then, with a target, its change by each of K models (n, 3 G + K).
    """
    codes, n = torch.from_numpy(np.concatenate([ref, alt])), len(ref)
    p, log_counts, *models = predict.apart(codes) if target else predict(codes)
    before, after = aligned(p[:n], p[n:], sizes)
    distance = profile_jsd(before, after, predict.signal_groups)
    parts = [log_counts[:n].double(), log_counts[n:].double(), distance]
    if target:
        values = torch.stack([target.of_counts(one.double()) for one in models[0]], dim=1)
        parts.append(values[n:] - values[:n])
    return torch.cat(parts, dim=1).numpy()


def aligned(
    ref: torch.Tensor, alt: torch.Tensor, sizes: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Profiles (n, tracks, W) with the same base of the genome in the same column.

    Where the alleles, of `sizes` (n, 2) bases, differ in length, the bases of each are summed up in
    one column; on both sides of it lie the bases that both profiles have, zeros after them. Where
    an allele fills the profile, nothing can be compared, and all are zeros.
    """
    ref, alt = ref.clone(), alt.clone()
    for i in np.flatnonzero(sizes[:, 0] != sizes[:, 1]):
        both = [
            (side[i], *_inside(side.shape[2], int(bases)))
            for side, bases in zip((ref, alt), sizes[i], strict=True)
        ]
        left = min(start for _, start, _ in both)
        right = min(p.shape[1] - end for p, _, end in both)
        for side, (p, start, end) in zip((ref, alt), both, strict=True):
            allele = p[:, start:end].sum(dim=1, keepdim=True) * bool(left + right)
            whole = torch.cat([p[:, start - left : start], allele, p[:, end : end + right]], dim=1)
            side[i] = torch.nn.functional.pad(whole, (0, side.shape[2] - whole.shape[1]))
    return ref, alt


def _inside(width: int, bases: int) -> tuple[int, int]:
    """Where in `width` predicted bases an allele in the middle starts and ends."""
    start = width // 2 - bases // 2
    return max(start, 0), min(start + bases, width)


def _windows(
    variants: Variants, row: int, codes: Callable[[str], np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (length,) around both alleles; `codes` are those of a whole chromosome."""
    held, pos = codes(str(variants.chrom[row])), int(variants.pos[row])
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    return allele_window(held, pos, ref, ref, length), allele_window(held, pos, ref, alt, length)


def _columns(
    scored: np.ndarray,
    rows: np.ndarray,
    variants: Variants,
    random: Variants,
    predict: EnsemblePredictor,
) -> dict[str, np.ndarray]:
    """Columns (n,) by name, NaN for what was not scored."""
    groups, n = len(predict.signal_groups), len(rows)
    shifted, of_random = shifts_bases(variants)[rows], shifts_bases(random)

    def ranked(name: str, size: np.ndarray) -> dict[str, np.ndarray]:
        """How unusual a size is among random variants that change the length too, or do not."""
        if not len(random):
            return {}
        rank, p = np.full(n, np.nan), np.full(n, np.nan)
        for kind in (False, True):
            mine = np.flatnonzero((shifted == kind) & ~np.isnan(size[:n]))
            among = size[n:][of_random == kind]
            among = among[~np.isnan(among)]
            if len(among):
                rank[mine], p[mine] = percentile(size[mine], among), p_values(size[mine], among)
        return {f"{name}_percentile": rank, f"{name}_p": p, f"{name}_q": q_values(p)}

    found: dict[str, np.ndarray] = {}
    for g in range(groups):
        ref, alt, distance = (scored[:, i * groups + g] for i in range(3))
        fold = (alt - ref) / math.log(2)
        values = {
            "ref_log_counts": ref[:n], "alt_log_counts": alt[:n],
            "log2_fold_change": fold[:n], "jsd": distance[:n],
            **ranked("log2_fold_change", np.abs(fold)), **ranked("jsd", distance),
        }  # fmt: skip
        found |= {f"{name}_{g}" if groups > 1 else name: value for name, value in values.items()}
    if scored.shape[1] > 3 * groups:
        changes = scored[:, 3 * groups :].T / math.log(2)
        found |= contrast_columns(changes[:, :n])
        found |= ranked("contrast", np.abs(changes.mean(axis=0)))
    columns = {name: np.full(len(variants), np.nan) for name in found}
    for name, value in found.items():
        columns[name][rows] = value
    return columns


def _beside(output: Path, config: VariantsConfig) -> dict[Path, str]:
    """What is written beside `output`, and how to do without."""
    return {output.with_suffix(".vcf"): ", or set vcf=false"} if config.vcf else {}
