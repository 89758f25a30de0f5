"""Opening tracks of any kind, told apart by what the file holds, and checking their names."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cherimoya.config.diff import hydra_value
from cherimoya.config.group_names import Groups, files_of, names_of
from cherimoya.config.prepare import SHIFTS, PrepareConfig, shifted_twice
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome import bam, bigwig, fragments
from cherimoya.genome.chrom_names import Aliases, check_names, format_aliases, format_names
from cherimoya.genome.fasta import Genome, check_exists, reading
from cherimoya.genome.formats import INTERVALS, data_lines, what_else
from cherimoya.genome.strands import check_groups
from cherimoya.genome.track import Track
from cherimoya.util import console
from cherimoya.util.console import Say, counted

HEAD = 1 << 16  # bytes by which a file is recognised
ASSEMBLIES = "They are different assemblies: give the FASTA that the reads were aligned to."
USUAL_OVERHANGS = (10, 0.01)  # fragments past an end, and their share, that are no other assembly


@contextmanager
def open_tracks(
    groups: Groups,
    key: str,
    config: PrepareConfig,
    scratch: Path | None = None,
    tell: Say = console.say,
) -> Iterator[list[list[Track]]]:
    """The tracks of the files in each group, which the configuration names under `key`.

    scratch: a folder in which what was read of a file is kept; None: a temporary one.
    tell: hears how far reading is
    """
    paths = [[Path(path) for path in group] for group in files_of(groups)]
    _check_no_loci([path for group in paths for path in group], key, config)
    kinds = {path: kind_of(path, key, config.fragments.kind) for group in paths for path in group}
    if key == "signal":
        _check_one_of_cells(paths, kinds, config)
    channels = [
        [2 if kinds[path] == bam.KIND and config.bam.stranded else 1 for path in group]
        for group in paths
    ]
    check_groups(paths, channels, key, config.are_strands)
    with ExitStack() as stack:
        kept = scratch or Path(stack.enter_context(TemporaryDirectory(prefix="cherimoya-")))
        spools = (kept / f"{key}-{number}" for number in count(1))
        opened = [
            [
                track
                for path in group
                for track in _read(path, kinds[path], key, config, next(spools), tell)
            ]
            for group in paths
        ]
        yield list(_named(opened, names_of(groups)))


def _named(opened: list[list[Track]], names: list[str]) -> Iterator[list[Track]]:
    """The tracks of each group, which has its name in each of them; a group for each cell type.

    Raises ConfigError where two groups have one name.
    """
    seen: set[str] = set()
    for number, group in enumerate(opened):
        of_cells = bool(group[0].group)
        for own in [[track] for track in group] if of_cells else [group]:
            for track in own:
                track.group = track.group or (names[number] if names else "")
            if (name := own[0].group) and name in seen:
                raise ConfigError(
                    f"signal: two groups are called {name}. Give the other one another name."
                )
            seen.add(name)
            yield own


def _check_one_of_cells(
    paths: list[list[Path]], kinds: Mapping[Path, str], config: PrepareConfig
) -> None:
    """Raise ConfigError where a table of cells has not one fragment file to tell apart."""
    table = config.fragments.groups
    if table is None:
        return
    holding = [group for group in paths if any(kinds[p] == fragments.KIND for p in group)]
    if len(holding) != 1 or len(holding[0]) != 1:
        named = sum(kinds[path] == fragments.KIND for group in holding for path in group)
        raise ConfigError(
            f"fragments.groups={table}: tells the cells of one fragment file apart, in a group of "
            f"its own: 'signal=[[fragments.tsv.gz]]'. signal names {named} fragment files in "
            f"{len(holding)} groups. Several samples can be joined, if they share no barcode."
        )


def check_used(config: PrepareConfig, overrides: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key of one kind of file that was set, while there is no such file.

    overrides: the value of each dotted key that was set
    """
    groups = {"signal": config.signal_files, "control": config.control}
    paths = {
        Path(path): key for key, listed in groups.items() for group in listed for path in group
    }
    kinds = {kind_of(path, key, config.fragments.kind) for path, key in paths.items()}
    for prefix, kind in (("bam.", bam.KIND), ("fragments.", fragments.KIND)):
        idle = [
            f"{key}={hydra_value(value)}"
            for key, value in overrides.items()
            if key.startswith(prefix)
        ]
        if idle and kind not in kinds:
            raise ConfigError(
                f"{', '.join(idle)}: does nothing, as no file of signal or control is "
                f"{'a BAM' if kind == bam.KIND else 'a fragment file'} (they are "
                f"{', '.join(sorted(kinds))}). Leave it out."
            )
    for key, value in overrides.items():
        if config.shift == "auto" and key.rpartition(".")[2] in SHIFTS:
            raise shifted_twice(key, value)
    if config.are_strands and all(len(group) < 2 for listed in groups.values() for group in listed):
        raise ConfigError(
            "are_strands=true: does nothing, as no group has two files. Leave it out."
        )


def _check_no_loci(paths: Iterable[Path], key: str, config: PrepareConfig) -> None:
    """Raise DataError for a track that is a file of loci, too."""
    for path in paths:
        if any(Path(loci).is_file() and path.is_file() and path.samefile(loci)
               for loci in config.loci_files):  # fmt: skip
            raise DataError(f"{key}={path}: is the file of the loci, too. {INTERVALS}")


def _read(
    path: Path, kind: str, key: str, config: PrepareConfig, spool: Path, tell: Say
) -> list[Track]:
    """The tracks of a file; what is read of it is kept in the folder `spool`."""
    if kind == bigwig.KIND:
        return bigwig.read_bigwig(path, key)
    spool.mkdir(exist_ok=True)
    if kind == bam.KIND:
        return bam.read_bam(path, key, config.bam, spool, tell)
    own = config.fragments if key == "signal" else replace(config.fragments, groups=None)
    return fragments.read_fragments(path, key, own, spool, tell)


def kind_of(path: Path, key: str, kind: str) -> str:
    """What the file at `path` is, by what it holds: the KIND of one of the readers.

    kind: fragments.kind, what lines of intervals are.

    Raises DataError, naming the configuration's `key`, for a file that is none of them.
    """
    check_exists(path, key)
    with open(path, "rb") as file:
        raw = file.read(4)
    if raw in bigwig.MAGIC:
        return bigwig.KIND
    with reading(path, f"{key}={path}", "rb") as file:
        head = file.read(HEAD)
    if head.startswith(bam.MAGIC):
        return bam.KIND
    if said := what_else(head, kind):
        columns = len((data_lines(head) or [[]])[0])
        raise DataError(f"{key}={path}: {said.format(path=path, n=columns)}")
    return fragments.KIND


def matched(track: Track, chroms: Collection[str], aliases: Aliases, genome: Genome) -> list[str]:
    """Give the track the genome's names; what there is to say about it on `chroms`.

    Raises DataError for a track that names them otherwise, or is for another assembly.
    """
    changed = aliases.of(track.lengths, str(track.path))
    track.rename(changed)
    if track.lengths:
        check_names(track.lengths, chroms, str(track.path), genome, once=True)
    over = check_lengths(track, genome, chroms)
    missing = [chrom for chrom in chroms if chrom not in track.lengths]
    _check_renamed(track, missing, genome)
    said = [f"{track.path.name}: {format_aliases(changed)}"] if changed else []
    said += [track.note] * bool(track.note)
    said += [f"{track.path.name} has no {format_names(missing)}: zeros there"] * bool(missing)
    return said + over


def _check_renamed(track: Track, missing: Iterable[str], genome: Genome) -> None:
    """Raise DataError when a chromosome that the track lacks may be there under another name."""
    strangers = {n: name for name, n in track.lengths.items() if name not in genome.lengths}
    for chrom in missing:
        if name := strangers.get(genome.lengths[chrom]):
            raise DataError(
                f"{track.path} has no {chrom}, but {name!r} of the same {genome.lengths[chrom]:,} "
                f"bases, which fasta={genome.path} lacks. If it is {chrom}, say so in a table of "
                "names, chrom_alias=names.tsv; if the file is damaged, copy it again."
            )


def check_lengths(track: Track, genome: Genome, chroms: Iterable[str]) -> list[str]:
    """Raise DataError when a track is for another assembly, judged by the lengths of `chroms`.

    Returns what there is to say about fragments that reach a little past an end.
    """
    said = []
    for chrom in chroms:
        length = genome.lengths[chrom]
        if isinstance(track, fragments.Fragments) and chrom in track.lengths:
            count, over, bases = track.overhang(chrom, length)
            few = max(USUAL_OVERHANGS[0], USUAL_OVERHANGS[1] * count)
            if bases > fragments.OVERHANG or over > few:
                raise DataError(
                    f"{track.path}: {over:,} of {counted(count, 'fragment')} on {chrom} reach past "
                    f"its {length:,} bases in fasta={genome.path}. {ASSEMBLIES}"
                )
            if over:
                many = f"{over:,} of {counted(count, 'fragment')} on {chrom}"
                said.append(
                    f"{track.path.name}: {many} reach past its ends, by {counted(bases, 'base')} "
                    "at most: what lies outside is not counted"
                )
        elif (own := track.lengths.get(chrom)) is not None and own != length:
            raise DataError(
                f"{track.path}: {chrom} has {own:,} bases, but {length:,} in "
                f"fasta={genome.path}. {ASSEMBLIES}"
            )
    return said
