"""The sequences that a command works on: of a prepared file, or of a BED file and a genome."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from cherimoya.config.interpret import LociConfig
from cherimoya.data import hdf5
from cherimoya.data.dataset import data_file
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome.chrom_names import Aliases, format_names, table_of
from cherimoya.genome.fasta_index import genome_lengths, genome_on_disk
from cherimoya.genome.intervals import read_intervals
from cherimoya.inference.checkpoints import USUAL_OUTPUT, find_checkpoint, input_window
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.genome_inputs import check_chroms
from cherimoya.network import Cherimoya
from cherimoya.util.console import counted, say, warning


@dataclass(frozen=True, eq=False)
class Sequences:
    """n input windows, and where they come from.

    codes: (n, L) uint8; chrom: (n,) text; start: (n,) of the first base, -1 unknown
    controls: (n, tracks, L) or None, in groups of control_groups channels
    files: those that were read, by key; lengths: of the chromosomes, where known
    row: (n,) which of the loci of the file each is, from 0
    """

    codes: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    controls: torch.Tensor | None
    control_groups: list[int]
    files: dict[str, list[str]]
    lengths: dict[str, int]
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> "Sequences":
        """The sequences at `rows`."""
        controls = None if self.controls is None else self.controls[torch.from_numpy(rows)]
        return replace(
            self, codes=self.codes[rows], chrom=self.chrom[rows], start=self.start[rows],
            controls=controls, row=self.row[rows],
        )  # fmt: skip


def read_sequences(config: LociConfig, model: Cherimoya | Ensemble) -> Sequences:
    """The input windows of the loci that `config` names, at most config.max_loci of them, spread
    evenly. Raises DataError or ConfigError when there are none or they do not fit the model."""
    config = _with_data_of_run(config)
    from_file = config.data.path is not None
    sequences = _of_file(config, model) if from_file else _of_genome(config, model)
    if config.chroms is not None:
        held = list(dict.fromkeys(sequences.chrom.tolist()))
        for chrom in config.chroms:
            if chrom not in held:
                raise DataError(f"chroms={chrom}: no locus there. There are {', '.join(held)}.")
        sequences = sequences.take(np.flatnonzero(np.isin(sequences.chrom, config.chroms)))
    if config.max_loci is not None and len(sequences) > config.max_loci:
        rows = np.linspace(0, len(sequences) - 1, config.max_loci).round().astype(np.int64)
        say(f"{config.max_loci:,} of {len(sequences):,} loci, spread evenly (max_loci)")
        sequences = sequences.take(rows)
    return sequences


def _with_data_of_run(config: LociConfig) -> LociConfig:
    """`config` with the file that the first checkpoint's run read, where nothing else is named."""
    if config.data.path or config.loci:
        return config
    first = find_checkpoint(config.checkpoint[0])
    if first.data is None:
        return config
    path = data_file(first.data)
    say(f"loci are those of {path}, which the run of {first.path} read")
    return replace(config, data=replace(config.data, path=str(path)))


def _window(config: LociConfig, model: Cherimoya | Ensemble, otherwise: tuple[int, str]) -> int:
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    return input_window(
        checkpoints, model.trimming, "data.in_window", config.data.in_window, otherwise
    )


def _of_file(config: LociConfig, model: Cherimoya | Ensemble) -> Sequences:
    path = str(config.data.path)
    header = hdf5.read_header(path)
    rows = np.flatnonzero(header.label == 1) if config.peaks_only else np.arange(header.n)
    if not len(rows):
        raise DataError(f"{path}: no peaks in it. Set peaks_only=false for every locus.")
    window = _window(config, model, (header.in_window, f"as stored in {path}"))
    stored = header.in_window + 2 * header.max_jitter
    if window > stored:
        raise ConfigError(
            f"data.in_window={window}: {path} stores {stored:,} bases. Prepare its loci with "
            f"in_window={window}, or set data.in_window={stored} or less."
        )
    if window != header.in_window:
        say(f"windows are the middle {window:,} of the {stored:,} bases stored in {path}")
    loci = hdf5.read(path, rows)
    tracks = 0 if loci.control is None else loci.control.shape[1]
    if model.n_control_tracks != tracks:
        raise DataError(
            f"{path} has {tracks} control tracks, the model needs {model.n_control_tracks}. "
            "Name the file that it was trained on, or one prepared likewise."
        )
    left = stored // 2 - window // 2  # as training cuts its windows
    cut = slice(left, left + window)
    controls = None
    if loci.control is not None:
        controls = torch.from_numpy(loci.control[:, :, cut].astype(np.float32))
    start = np.where(loci.start < 0, -1, loci.start + left)
    return Sequences(
        loci.sequence[:, cut], loci.chrom, start, controls, loci.control_groups,
        {"data.path": [path]}, {}, rows,
    )  # fmt: skip


def _of_genome(config: LociConfig, model: Cherimoya | Ensemble) -> Sequences:
    if config.loci is None or config.fasta is None:
        raise ConfigError(
            "no sequences are named. Set data.path=<file made by cherimoya-prepare>, or both "
            "loci=<BED file> and fasta=<genome>."
        )
    loci = read_intervals(config.loci, config.center)
    with genome_on_disk(config.fasta) as genome:
        usual = 2 * model.trimming + USUAL_OUTPUT
        window = _window(config, model, (usual, f"for {USUAL_OUTPUT:,} predicted"))
        aliases = Aliases(config.chrom_alias, genome)
        loci = loci.renamed(aliases.accepted(loci.chrom.tolist(), f"loci={config.loci}"))
        start = loci.center - window // 2
        ends = np.array([genome.lengths.get(c, -1) for c in loci.chrom.tolist()])
        inside = np.flatnonzero((start >= 0) & (start + window <= ends))
        absent = sorted({c for c in loci.chrom.tolist() if c not in genome.lengths})
        elsewhere = int((ends < 0).sum())
        past = len(loci) - len(inside) - elsewhere
        for n, why in (
            (elsewhere, f"the genome has no {format_names(absent)}"),
            (past, f"the {window} bases around them reach past an end of the chromosome"),
        ):
            if n:
                say(warning(f"{n:,} of {counted(len(loci), 'locus', 'loci')} left out: {why}"))
        if not len(inside):
            raise DataError(f"loci={config.loci}: no locus whose {window} bases lie in the genome.")
        chrom, start = loci.chrom[inside], start[inside]
        codes = np.stack(
            [genome.codes(c)[s : s + window] for c, s in zip(chrom, start, strict=True)]
        )
    controls = None
    if model.n_control_tracks:
        say(warning("the model's control tracks are set to zero: a BED file has none"))
        controls = torch.zeros(len(inside), model.n_control_tracks, window)
    files = {
        "loci": [str(config.loci)],
        "fasta": [str(config.fasta)],
        "chrom_alias": table_of(config.chrom_alias),
    }
    ones = [1] * model.n_control_tracks
    return Sequences(codes, chrom, start, controls, ones, files, genome.lengths, inside)


def chromosome_lengths(config: LociConfig, sequences: Sequences) -> dict[str, int]:
    """Bases of the chromosomes in fasta, on which each of the loci lies. Raises CherimoyaError."""
    if sequences.lengths:
        return sequences.lengths
    path = ", ".join(sequences.files["data.path"])
    if (sequences.start < 0).any():
        raise DataError(
            f"bigwig=true: {path} does not say where its loci are on the genome. Leave it out."
        )
    lengths = genome_lengths(str(config.fasta))
    check_chroms(dict.fromkeys(sequences.chrom.tolist()), lengths, path)
    ends = sequences.start + sequences.codes.shape[1]
    beyond = np.flatnonzero(ends > [lengths[chrom] for chrom in sequences.chrom.tolist()])
    if len(beyond):
        chrom, end = str(sequences.chrom[beyond[0]]), int(ends[beyond[0]])
        raise DataError(
            f"fasta={config.fasta}: {chrom} has {lengths[chrom]:,} bases, but a locus of {path} "
            f"ends at {end:,}. Give the FASTA that the file was prepared with."
        )
    return lengths


def central(length: int, window: int | None, key: str = "window") -> slice:
    """The middle `window`, of the configuration's `key`, of `length` bases; None: all, as where
    there are fewer."""
    if window is not None and window > length:
        say(f"{key}={window}: the input has {length} bases, so all of them")
    width = length if window is None else min(window, length)
    first = (length - width) // 2
    return slice(first, first + width)
