"""Effects of variants as a table, and as INFO of the VCF file they came from."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.genome.vcf import Variants
from cherimoya.genome.vcf_files import PLAIN, index_of, vcf_lines, write_vcf_lines
from cherimoya.util.marks import marked_path

IN_VCF = {  # column: INFO key, description
    "log2_fold_change": ("CM_LFC", "log2 fold change of predicted counts, ALT against REF"),
    "jsd": ("CM_JSD", "Jensen-Shannon distance of predicted profiles, 0 to 0.83"),
    "log2_fold_change_sd": ("CM_LFC_SD", "standard deviation of CM_LFC over models"),
    "active_allele_quantile": ("CM_AAQ", "part of the peaks with fewer counts than the allele"),
    "combined": ("CM_CMB", "absolute CM_LFC x CM_JSD x CM_AAQ"),
    "combined_percentile": ("CM_CMB_PCT", "per cent of random variants with a smaller CM_CMB"),
    "combined_p": ("CM_CMB_P", "empirical p-value of CM_CMB among random variants"),
    "combined_q": ("CM_CMB_Q", "CM_CMB_P after Benjamini and Hochberg"),
    "log2_fold_change_percentile": ("CM_LFC_PCT", "per cent of random variants with less change"),
    "log2_fold_change_p": ("CM_LFC_P", "empirical p-value of CM_LFC among random variants"),
    "log2_fold_change_q": ("CM_LFC_Q", "CM_LFC_P after Benjamini and Hochberg"),
    "jsd_percentile": ("CM_JSD_PCT", "per cent of random variants with a smaller distance"),
    "jsd_p": ("CM_JSD_P", "empirical p-value of CM_JSD among random variants"),
    "jsd_q": ("CM_JSD_Q", "CM_JSD_P after Benjamini and Hochberg"),
    "contrast": ("CM_CON", "log2 fold change in the first group of target, less that in the other"),
    "contrast_low": ("CM_CON_LOW", "lower end of the 95 % interval of CM_CON over models"),
    "contrast_high": ("CM_CON_HIGH", "upper end of the 95 % interval of CM_CON over models"),
    "contrast_percentile": ("CM_CON_PCT", "per cent of random variants with less contrast"),
    "contrast_p": ("CM_CON_P", "empirical p-value of CM_CON among random variants"),
    "contrast_q": ("CM_CON_Q", "CM_CON_P after Benjamini and Hochberg"),
}
FIXED = ("chrom", "pos", "id", "ref", "alt", "status")  # columns of every table
HEADER = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
ALT, INFO = HEADER.index("ALT"), HEADER.index("INFO")
KEYS = r"CM_(LFC|JSD|CON|AAQ|CMB)(_PCT|_P|_Q|_SD|_LOW|_HIGH)?(_\d+)?"
OURS = re.compile(f"{KEYS}=")  # of an annotation before this one
OURS_BEFORE = re.compile(f"##cherimoya=|##INFO=<ID={KEYS},")


@dataclass(frozen=True, eq=False)
class Effects:
    """Variants, why each was not scored or "ok", and the columns (n,) of what was found."""

    variants: Variants
    status: np.ndarray
    columns: dict[str, np.ndarray]
    n_random: int
    provenance: dict[str, Any]
    groups: list[str] = field(default_factory=list)  # what signal groups are called


def write_table(path: Path, effects: Effects, settings: Mapping[str, Any]) -> Path:
    """A row for each variant, after a comment that says where the numbers come from."""
    v = effects.variants
    header = [*FIXED, *effects.columns]
    marked = marked_path(path, {"settings": settings})
    with marked as temporary, open(temporary, "wb") as file:
        provenance = effects.provenance | {"random_variants": effects.n_random}
        file.write(f"# {json.dumps(provenance, sort_keys=True)}\n".encode())
        file.write(("\t".join(header) + "\n").encode())
        for row in range(len(v)):
            fixed = (v.chrom[row], v.pos[row] + 1, v.name[row], v.ref[row], v.alt[row])
            numbers = (_cell(column[row]) for column in effects.columns.values())
            cells = (*map(str, fixed), str(effects.status[row]), *numbers)
            file.write(("\t".join(cells) + "\n").encode())
    return path


def read_effects(path: Path, variants: Variants, groups: list[str]) -> Effects:
    """What `write_table` wrote of the `variants`, with six digits of each number."""
    with open(path, encoding="utf-8") as file:
        provenance = json.loads(file.readline().removeprefix("# "))
        header = file.readline().rstrip("\n").split("\t")
        rows = [line.rstrip("\n").split("\t") for line in file]
    first = len(FIXED)
    columns = {
        name: np.array([float(row[i] or "nan") for row in rows], np.float64)
        for i, name in enumerate(header[first:], first)
    }
    status = np.array([row[first - 1] for row in rows], object)
    n_random = provenance.pop("random_variants")
    return Effects(variants, status, columns, n_random, provenance, groups)


def vcf_beside(table: Path, ending: str) -> list[Path]:
    """The VCF file beside a table, and its index, if one that ends so has one."""
    path = table.with_suffix(ending)
    return [path] if ending == PLAIN else [path, index_of(path)]


def write_vcf(path: Path, source: Path, effects: Effects) -> str:
    """The VCF file `source` with what was found as INFO, or a new one if it was a table.

    Returns why it has no index, if so.
    """
    lines = _annotated(source, effects) if effects.variants.is_vcf else _new(effects)
    return write_vcf_lines(path, lines)


def _annotated(source: Path, effects: Effects) -> Iterator[str]:
    rows_of: dict[int, list[int]] = {}
    for row, line in enumerate(effects.variants.line.tolist()):
        rows_of.setdefault(line, []).append(row)
    for number, line in vcf_lines(source, "variants"):
        cells = line.split("\t")
        if line.startswith("#CHROM"):
            yield from _declared(effects)
            yield "\t".join([*cells, *HEADER[len(cells) :]])
        elif not line.strip():
            continue  # which a VCF does not have
        elif line.startswith("#"):
            if not OURS_BEFORE.match(line):
                yield line
        else:
            cells += ["."] * (len(HEADER) - len(cells))
            alts = cells[ALT].upper().split(",")
            fields = [field for field in cells[INFO].split(";") if not OURS.match(field)]
            fields = [field for field in fields if field not in (".", "")]
            cells[INFO] = ";".join([*fields, *_info(alts, rows_of.get(number, []), effects)]) or "."
            yield "\t".join(cells)


def _new(effects: Effects) -> Iterator[str]:
    v = effects.variants
    yield "##fileformat=VCFv4.3"
    yield from _declared(effects)
    yield "\t".join(HEADER)
    for row in range(len(v)):
        fixed = (v.chrom[row], v.pos[row] + 1, v.name[row], v.ref[row], v.alt[row], ".", ".")
        info = ";".join(_info([str(v.alt[row])], [row], effects)) or "."
        yield "\t".join(map(str, (*fixed, info)))


def _declared(effects: Effects) -> Iterator[str]:
    yield f"##cherimoya={json.dumps(effects.provenance, sort_keys=True)}"
    for column in effects.columns:
        if described := _key(column, effects.groups):
            key, text = described
            yield f'##INFO=<ID={key},Number=A,Type=Float,Description="{text}">'


def _info(alts: list[str], rows: list[int], effects: Effects) -> Iterator[str]:
    """CM_LFC=.., CM_JSD=.., ... with a value for each ALT allele; nothing if none was scored."""
    by_alt = {str(effects.variants.alt[row]): row for row in rows}
    for column, values in effects.columns.items():
        numbers = [values[by_alt[alt]] if alt in by_alt else np.nan for alt in alts]
        described = _key(column)
        if described and np.isfinite(numbers).any():
            yield f"{described[0]}={','.join(_cell(n) or '.' for n in numbers)}"


def _key(column: str, groups: Sequence[str] = ()) -> tuple[str, str] | None:
    """The INFO key and description of a column; None for one that the VCF leaves out."""
    name, _, group = column.rpartition("_")
    if not group.isdigit():
        return IN_VCF.get(column)
    if name not in IN_VCF:
        return None
    key, text = IN_VCF[name]
    named = f" ({groups[int(group)]})" if int(group) < len(groups) else ""
    return f"{key}_{group}", f"{text}, signal group {group}{named.replace(chr(34), chr(39))}"


def _cell(number: float) -> str:
    return f"{number:.6g}" if np.isfinite(number) else ""
