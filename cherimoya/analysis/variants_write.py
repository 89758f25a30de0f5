"""Effects of variants as a table, and as INFO of the VCF file they came from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.data.variants import Variants, text_lines
from cherimoya.files import appearing

IN_VCF = {  # column: INFO key, description
    "log2_fold_change": ("CM_LFC", "log2 fold change of predicted counts, ALT against REF"),
    "jsd": ("CM_JSD", "Jensen-Shannon distance of predicted profiles, 0 to 0.83"),
    "log2_fold_change_percentile": ("CM_LFC_PCT", "per cent of random variants with less change"),
    "jsd_percentile": ("CM_JSD_PCT", "per cent of random variants with a smaller distance"),
}
INFO = 7  # column of a VCF line


@dataclass(frozen=True, eq=False)
class Effects:
    """Variants, why each was not scored or "ok", and the columns (n,) of what was found."""

    variants: Variants
    status: np.ndarray
    columns: dict[str, np.ndarray]
    n_random: int
    provenance: dict[str, Any]
    settings: dict[str, Any]


def write_table(path: Path, effects: Effects) -> Path:
    """A row for each variant, after a comment that says where the numbers come from."""
    v = effects.variants
    header = ["chrom", "pos", "id", "ref", "alt", "status", *effects.columns]
    with appearing(path) as file:
        origin = effects.provenance | {"random_variants": effects.n_random}
        file.write(f"# {json.dumps(origin, sort_keys=True)}\n".encode())
        file.write(("\t".join(header) + "\n").encode())
        for row in range(len(v)):
            fixed = (v.chrom[row], v.pos[row] + 1, v.name[row], v.ref[row], v.alt[row])
            numbers = (_cell(column[row]) for column in effects.columns.values())
            cells = (*map(str, fixed), str(effects.status[row]), *numbers)
            file.write(("\t".join(cells) + "\n").encode())
    return path


def write_vcf(table: Path, source: Path, effects: Effects) -> Path:
    """The VCF file `source` with what was found as INFO, or a new one if it was a table."""
    path = table.with_suffix(".vcf")
    lines = _annotated(source, effects) if effects.variants.is_vcf else _new(effects)
    with appearing(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")
    return path


def _annotated(source: Path, effects: Effects) -> Iterator[str]:
    rows_of: dict[int, list[int]] = {}
    for row, line in enumerate(effects.variants.line.tolist()):
        rows_of.setdefault(line, []).append(row)
    for number, line in text_lines(source):
        if line.startswith("#CHROM"):
            yield from _declared(effects)
        if line.startswith("#") or not line.strip():
            yield line
            continue
        cells = line.split("\t")
        cells += ["."] * (INFO + 1 - len(cells))
        info = _info(cells[4].upper().split(","), rows_of.get(number, []), effects)
        if info:
            cells[INFO] = info if cells[INFO] == "." else f"{cells[INFO]};{info}"
        yield "\t".join(cells)


def _new(effects: Effects) -> Iterator[str]:
    v = effects.variants
    yield "##fileformat=VCFv4.3"
    yield from _declared(effects)
    yield "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    for row in range(len(v)):
        fixed = (v.chrom[row], v.pos[row] + 1, v.name[row], v.ref[row], v.alt[row], ".", ".")
        info = _info([str(v.alt[row])], [row], effects) or "."
        yield "\t".join(map(str, (*fixed, info)))


def _declared(effects: Effects) -> Iterator[str]:
    yield f"##cherimoya={json.dumps(effects.provenance, sort_keys=True)}"
    for column in effects.columns:
        if found := _key(column):
            key, words = found
            yield f'##INFO=<ID={key},Number=A,Type=Float,Description="{words}">'


def _info(alts: list[str], rows: list[int], effects: Effects) -> str:
    """CM_LFC=..;CM_JSD=.. with a value for each ALT allele; empty if none was scored."""
    by_alt = {str(effects.variants.alt[row]): row for row in rows}
    fields = []
    for column, values in effects.columns.items():
        numbers = [values[by_alt[alt]] if alt in by_alt else np.nan for alt in alts]
        found = _key(column)
        if found and np.isfinite(numbers).any():
            fields.append(f"{found[0]}={','.join(_cell(n) or '.' for n in numbers)}")
    return ";".join(fields)


def _key(column: str) -> tuple[str, str] | None:
    """The INFO key and description of a column; None for one that the VCF leaves out."""
    name, _, group = column.rpartition("_")
    if not group.isdigit():
        return IN_VCF.get(column)
    if name not in IN_VCF:
        return None
    key, words = IN_VCF[name]
    return f"{key}_{group}", f"{words}, signal group {group}"


def _cell(number: float) -> str:
    return f"{number:.6g}" if np.isfinite(number) else ""
