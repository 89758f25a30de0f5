"""TF-MoDISco on a file of attributions: the motifs that they repeat, and what these match."""

import contextlib
import html
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.errors import DataError, printable
from cherimoya.genome.meme import read_meme
from cherimoya.interpret.tfmodisco import TRIMMED_BELOW, Pattern, find_patterns
from cherimoya.records.attributions import Attributions, read_attributions
from cherimoya.records.patterns import TABLE
from cherimoya.report.pages import offered
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import atomic_path, atomic_write
from cherimoya.util.marks import OF_FOLDER, checked_digest, marked_folder, read_mark
from cherimoya.util.optional import import_optional

MOTIFS = ".motifs"  # how a folder of motifs ends
REPORT = "report.html"
MATCHES = 3  # best ones in the report
EXAMPLES = 3  # seqlets that the report draws of each pattern
FEW_MOTIFS = 25  # below which TOMTOM's p-values depend on the choice of motifs


@dataclass(frozen=True)
class Match:
    """The known motif that a pattern is most like, on either strand, by TOMTOM.

    q: of all patterns against all motifs, after Benjamini and Hochberg
    """

    motif: str
    p: float
    q: float


def folder_of(output: Path, target: str) -> Path:
    """Where the motifs of a target go, beside the attributions."""
    return output.with_name(f"{output.stem}.{target}{MOTIFS}")


def check_modisco(motif_file: str | None) -> None:
    """Raise CherimoyaError, before any long work, for what would keep `find_motifs` from it."""
    for module in ("modiscolite.tfmodisco", "memelite"):
        import_optional(module)
    if motif_file is not None:
        read_meme(Path(motif_file))


def find_motifs(
    output: Path, max_seqlets: int, motif_file: str | None, overwrite: bool = False
) -> list[Path]:
    """Run TF-MoDISco on each target of the attributions in `output`.

    Leaves a folder for each, beside `output`, which it returns: `modisco.h5` as modisco writes it,
    `report.html`, and `motifs.tsv` with the best match of each pattern in `motif_file`, or none.
    One that was made of the same before stays. Raises ConfigError where there is too little to
    find motifs in, and DataError for a folder that was made otherwise, unless `overwrite`.
    """
    attributions = read_attributions(output)
    known = None if motif_file is None else read_meme(Path(motif_file))
    if known is not None and len(known) < FEW_MOTIFS:
        console.say(
            warning(
                f"{motif_file} has {counted(len(known), 'motif')}: p-values of matches are rough "
                f"with fewer than {FEW_MOTIFS}"
            )
        )
    facts = {
        "attributions": checked_digest(output),
        "max_seqlets": max_seqlets,
        "motif_file": None if motif_file is None else checked_digest(Path(motif_file)),
    }
    folders = []
    for target in attributions.hypothetical:
        if not overwrite and _is_made(folder_of(output, target), facts):
            console.say(result(f"{folder_of(output, target)}: done already"))
            _offer_report(folder_of(output, target), known)
            continue
        with marked_folder(folder_of(output, target), facts) as folder:
            patterns = _run(output, attributions, target, max_seqlets, folder / "modisco.h5")
            matches = matched(patterns, known) if known and patterns else []
            write_table(folder / TABLE, patterns, matches)
            _tell(target, patterns, matches)
        _offer_report(folder_of(output, target), known)
        folders.append(folder_of(output, target))
        console.say(
            result(f"{folders[-1]}: {', '.join(sorted(p.name for p in folders[-1].iterdir()))}")
        )
    return folders


def _is_made(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the folder holds what is made of the same. Raises DataError for another one."""
    mark = read_mark(folder / OF_FOLDER)
    if mark is not None and mark.facts == facts and not mark.damaged():
        return True
    if folder.exists():
        raise DataError(
            f"{folder}: exists already, made otherwise. Remove it, or set overwrite=true."
        )
    return False


def matched(patterns: list[Pattern], known: dict[str, np.ndarray]) -> list[Match]:
    """The best of the `known` motifs, matrices (4, width), for each pattern."""
    from scipy.stats import false_discovery_control

    with _quiet():
        p = import_optional("memelite").tomtom(
            [pattern.probabilities.T for pattern in patterns], list(known.values())
        )[0]  # (patterns, motifs)
    q = false_discovery_control(p, axis=None).reshape(p.shape)
    names = list(known)
    best = p.argmin(axis=1)
    return [Match(names[j], float(p[i, j]), float(q[i, j])) for i, j in enumerate(best)]


def write_table(path: Path, patterns: list[Pattern], matches: list[Match]) -> Path:
    """A row for each pattern: name, seqlets, consensus, contribution, and its match if any."""
    with atomic_write(path) as file:
        columns = ["pattern", "seqlets", "consensus", "contribution", "match", "p_value", "q_value"]
        file.write(("\t".join(columns) + "\n").encode())
        for i, pattern in enumerate(patterns):
            cells = [pattern.name, str(pattern.seqlets), pattern.consensus]
            cells.append(f"{pattern.contributions.sum():.4g}")
            match = matches[i] if matches else None
            cells += [match.motif, f"{match.p:.3g}", f"{match.q:.3g}"] if match else ["", "", ""]
            file.write(("\t".join(cells) + "\n").encode())
    return path


def _run(
    output: Path, attributions: Attributions, target: str, max_seqlets: int, path: Path
) -> list[Pattern]:
    """TF-MoDISco's patterns of a target of the file `output`, as found and written to `path`."""
    n, width = attributions.sequence.shape
    console.say(
        f"motifs of {target} in {counted(n, 'locus', 'loci')} of {width} bases, from at most "
        f"{max_seqlets:,} seqlets (max_seqlets) of each sign: half a minute for a thousand, on 2 "
        "cores; the first time longer"
    )
    with console.report_duration(f"motifs of {target}"):
        return find_patterns(output, target, max_seqlets, path, n)


def _offer_report(folder: Path, known: dict[str, np.ndarray] | None) -> None:
    """The report of a folder that has patterns and no report yet; a line where it fails, which must
    not spoil the patterns."""
    if not (folder / REPORT).exists() and (folder / TABLE).read_bytes().count(b"\n") > 1:
        with offered("report"):
            _report(folder, known)


def _report(folder: Path, known: dict[str, np.ndarray] | None) -> None:
    """modisco's own report: one page with the logos, examples and matches of each pattern."""
    report = import_optional("modiscolite.descriptive_report")
    with tempfile.TemporaryDirectory() as scratch:
        file = None
        if known is not None:
            file = str(Path(scratch) / "known.meme")
            named = dict(zip(_unique_names(list(known)), known.values(), strict=True))
            import_optional("memelite.io").write_meme(file, named)
        with _quiet(), _fast_logos(report):
            report.generate_descriptive_report(
                str(folder / "modisco.h5"), scratch, meme_motif_db=file, ttl=True,
                top_n_matches=min(MATCHES, len(known or {})), n_examples=EXAMPLES,
                trim_threshold=TRIMMED_BELOW,
            )  # fmt: skip
        with atomic_path(folder / REPORT) as made:
            shutil.copyfile(Path(scratch) / REPORT, made)


@contextlib.contextmanager
def _fast_logos(report: Any) -> Iterator[None]:
    """Where modisco's report draws its logos as ours are drawn, and writes no second copy of each
    to a file: logomaker takes a second or two a logo, the most of the time."""
    from cherimoya.report.plots.weights import weights_image

    before = report.plot_to_base64, report._plot_weights
    report.plot_to_base64, report._plot_weights = weights_image, lambda *_, **__: None
    try:
        yield
    finally:
        report.plot_to_base64, report._plot_weights = before


def _unique_names(names: list[str]) -> list[str]:
    """Names of motifs as the report can write them: one word each, no path, none twice.

    They are text of HTML, into which the report puts them as they are.
    """
    safe = [html.escape("_".join(name.split()).replace("/", "_")) for name in names]
    return [f"{w}_{i}" if safe.count(w) > 1 else w for i, w in enumerate(safe)]


def _tell(target: str, patterns: list[Pattern], matches: list[Match]) -> None:
    if not patterns:
        console.say(
            warning(
                f"{target}: no motifs. TF-MoDISco wants more than 100 seqlets of a sign: more loci?"
            )
        )
        return
    console.say(f"{target}: {counted(len(patterns), 'motif')}; drawing their report")
    for i, pattern in enumerate(patterns):
        match = f"  {printable(matches[i].motif)} (q {matches[i].q:.2g})" if matches else ""
        console.say(
            f"  {pattern.name}  {counted(pattern.seqlets, 'seqlet')}  {pattern.consensus}{match}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines and warnings of a library that repeat what is said here."""
    import warnings

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
