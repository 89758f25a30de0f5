"""What `cherimoya-prepare` can be told. Values live in conf/prepare.yaml."""

from dataclasses import dataclass

from cherimoya.config.data import check_windows
from cherimoya.config.group_names import fault_of, files_of, names_of
from cherimoya.config.schema import MOST_BASES, MissingValue, Used, checked
from cherimoya.errors import ConfigError

SHIFTS = ("shift_plus", "shift_minus")
BACKGROUND = Used(
    lambda config: config.background_ratio > 0,
    "background_ratio=0 takes no background",
    "background_ratio=1",
)
PLOTTED = Used(
    lambda config: config.background_ratio > 0 or config.shift == "auto" or not config.plots,
    "background_ratio=0 takes no background, whose GC the plot shows",
    "background_ratio=1",
)


@dataclass(frozen=True)
class BamConfig:
    """Which reads of a BAM file count, and where: at the 5' end, shifted on each strand."""

    stranded: bool = checked()
    exchange_strands: bool = checked(
        used=Used(
            lambda config: config.stranded,
            "bam.stranded=false counts both strands in one track",
            "bam.stranded=true",
        )
    )
    shift_plus: int = checked(at_least=-MOST_BASES, at_most=MOST_BASES)
    shift_minus: int = checked(at_least=-MOST_BASES, at_most=MOST_BASES)
    min_mapq: int = checked(at_least=0, at_most=255)
    duplicates: str = checked(choices=("drop", "keep"))
    mates: str = checked(choices=("both", "first", "second"))
    proper_pairs: bool = checked()


@dataclass(frozen=True)
class FragmentsConfig:
    """What is counted of a fragment file, and what its lines are."""

    kind: str = checked(choices=("auto", "fragments", "reads"))
    shift_plus: int = checked(at_least=-MOST_BASES, at_most=MOST_BASES)
    shift_minus: int = checked(at_least=-MOST_BASES, at_most=MOST_BASES)
    counts: bool = checked()
    groups: str | None = checked(default=None)

    def __post_init__(self) -> None:
        if self.groups is not None and self.kind == "reads":
            raise ConfigError(
                f"fragments.groups={self.groups} with fragments.kind=reads: reads have no column "
                "of barcodes. Leave one of them out."
            )
        if self.counts and self.kind == "reads":
            raise ConfigError(
                "fragments.counts=true with fragments.kind=reads: column 5 of reads is their "
                "mapping quality, not a count. Leave fragments.counts out."
            )


@dataclass(frozen=True)
class PrepareConfig:
    """Everything `cherimoya-prepare` composes: source files, windows, filters and background."""

    fasta: str
    loci: str | list[str]
    exclude: str | list[str]
    chrom_alias: str
    signal: list[list[str]] | dict[str, list[str]]
    control: list[list[str]]
    are_strands: bool
    bam: BamConfig
    fragments: FragmentsConfig
    output: str | None
    overwrite: bool
    check: bool
    genome: str | None
    shift: str = checked(choices=("given", "auto"))
    center: str = checked(choices=("midpoint", "summit"))
    overlap: str = checked(choices=("keep", "once"))
    in_window: int = checked(at_least=1, at_most=MOST_BASES)
    out_window: int = checked(at_least=1, at_most=MOST_BASES)
    max_jitter: int = checked(at_least=0, at_most=MOST_BASES)
    max_n_fraction: float = checked(at_least=0, at_most=1)
    min_counts: float = checked(at_least=0)
    outlier_factor: float | None = checked(above=0, at_most=1_000_000)
    background_ratio: float = checked(at_least=0, at_most=1000)
    min_distance: int = checked(at_least=0, at_most=MOST_BASES, used=BACKGROUND)
    gc_bin: float = checked(at_least=0.001, at_most=1, used=BACKGROUND)
    seed: int = checked(at_least=0, used=BACKGROUND)
    plots: bool = checked(used=PLOTTED)
    processes: int | None = checked(at_least=1, at_most=4096)

    @property
    def loci_files(self) -> list[str]:
        """The loci files, be they one or several."""
        return [self.loci] if isinstance(self.loci, str) else self.loci

    @property
    def signal_files(self) -> list[list[str]]:
        """The signal files of each group, whether or not groups have names."""
        return files_of(self.signal)

    @property
    def exclude_files(self) -> list[str]:
        """The exclusion lists."""
        return [self.exclude] if isinstance(self.exclude, str) else self.exclude

    def __post_init__(self) -> None:
        if not self.loci_files:
            raise ConfigError("loci=[] names no file. Give one: loci=peaks.bed")
        if self.output is None and not self.check:
            raise MissingValue("output has no value. Set it on the command line: output=<value>")
        check_windows(self.in_window, self.out_window, prefix="")
        for name in names_of(self.signal):
            if fault := fault_of(name):
                raise ConfigError(f"signal={{{name}: ...}}: {fault}. Choose another name.")
        self._check_shift()
        for key, groups in (("signal", self.signal_files), ("control", self.control)):
            if [] in groups or (key == "signal" and not groups):
                raise ConfigError(
                    f"{key}={groups} has an empty group. Name files: '{key}="
                    f"[[plus.bw,minus.bw]]' for a stranded pair, '{key}=[[cuts.bw]]' for one."
                )
            paths = [path for group in groups for path in group]
            twice = sorted({path for path in paths if paths.count(path) > 1})
            if twice:
                raise ConfigError(f"{key} names {twice[0]} twice. Name each file once.")

    def _check_shift(self) -> None:
        for name, group in (("bam", self.bam), ("fragments", self.fragments)):
            for key in SHIFTS:
                if self.shift == "auto" and (value := getattr(group, key)):
                    raise shifted_twice(f"{name}.{key}", value)


def shifted_twice(key: str, value: int) -> ConfigError:
    """The error of a shift that is given while another is to be found out."""
    return ConfigError(
        f"shift=auto with {key}={value}: one finds out by how much ends are shifted, the other "
        f"says it. Leave shift=auto out, or {key}."
    )
