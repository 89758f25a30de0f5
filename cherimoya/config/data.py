"""What can be configured of the data. Values live in conf/data/*.yaml."""

from dataclasses import dataclass
from typing import Any

from cherimoya import registry
from cherimoya.config.schema import MOST_BASES, Choice, MissingValue, Used, build, checked
from cherimoya.errors import ConfigError

FOLDS = 5  # that data.fold chooses from


@dataclass(frozen=True)
class KeysConfig:
    """Dataset names of a plain HDF5 file with one-hot sequences."""

    sequence: str
    signal: str
    control: str | None
    label: str | None
    chrom: str | None


@dataclass(frozen=True)
class SyntheticConfig:
    """The simulated experiment: how much of it, and from which seed."""

    seed: int = checked(at_least=0)
    n_chromosomes: int = checked(at_least=3, at_most=10_000)
    n_peaks: int = checked(at_least=8, at_most=10_000_000)
    n_background: int = checked(at_least=0, at_most=10_000_000)
    mean_count: float = checked(above=0)
    bias: bool = checked(default=False)


FILE, SIMULATION = "hdf5", "synthetic"  # our sources; another one is the user's own
FROM_A_FILE = Used(
    lambda data: data.source == FILE,
    "data=synthetic simulates its data",
    "data=hdf5",
)
SIMULATED = Used(lambda data: data.source == SIMULATION, "data=hdf5 reads a file", "data=synthetic")
MADE = Used(lambda data: data.source != FILE, "data=hdf5 reads a file", "data=synthetic")
OWN = Used(
    lambda data: data.source not in (FILE, SIMULATION),
    "they are the settings of a source of your own",
    "data.source=<module:Class>",
)


@dataclass(frozen=True)
class DataConfig:
    """Where the loci come from, their windows, and which chromosomes go to which split."""

    source: str
    placement: str = checked(choices=("auto", "resident", "stream"))
    path: str | None = checked(used=FROM_A_FILE)
    keys: KeysConfig | None = checked(used=FROM_A_FILE)
    synthetic: SyntheticConfig | None = checked(used=SIMULATED)
    cache_dir: str | None = checked(used=MADE)
    in_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    out_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    max_jitter: int | None = checked(at_least=0, at_most=MOST_BASES)
    negative_ratio: float = checked(at_least=0, at_most=1000)
    reverse_complement: bool = checked()
    train_chroms: list[str] | None = checked()
    validation_chroms: list[str] | None = checked()
    test_chroms: list[str] | None = checked()
    exclude_chroms: list[str] = checked()
    fold: int | None = checked(at_least=0, at_most=FOLDS - 1, default=None)
    leave_out: str | None = checked(default=None)
    options: dict[str, Any] | None = checked(default=None, used=OWN)
    groups: list[str] | None = checked(default=None)
    background_below: float | None = checked(above=0, at_most=1_000_000, default=None)
    seen: str = checked(choices=("refuse", "allow"), default="refuse")

    @property
    def own_source(self) -> Choice | None:
        """The source of the user's own, with its settings; None for ours. Raises ConfigError."""
        if self.source in (FILE, SIMULATION):
            return None
        settings = registry.settings_of("data.source", self.source, "data.source")
        own: Any = build(settings, self.options or {}, "data.options")
        return Choice("data.source", self.source, own)

    def __post_init__(self) -> None:
        self.own_source  # noqa: B018 - checked
        check_windows(self.in_window, self.out_window)
        if self.groups == []:
            raise ConfigError("data.groups=[] is empty. Name signal groups, or null for all.")
        self._check_one_way_to_split()
        splits = ("train_chroms", "validation_chroms", "test_chroms", "exclude_chroms")
        seen: dict[str, str] = {}
        for name in splits:
            for chrom in getattr(self, name) or ():
                if other := seen.get(chrom):
                    where = "twice in" if other == name else f"in data.{other} and"
                    raise ConfigError(
                        f"chromosome {chrom} is {where} data.{name}. Each chromosome belongs to "
                        f"one split: remove it from data.{name}."
                    )
                seen[chrom] = name
        for name in splits[:2]:
            if getattr(self, name) == []:
                raise ConfigError(f"data.{name}=[] is empty. Name at least one chromosome.")
        if self.source == FILE and self.path is None:
            raise MissingValue("data.path has no value. Set it: data.path=<file made by prepare>")
        if self.source == SIMULATION and self.synthetic is None:
            raise ConfigError(
                "data.synthetic is null. Use data=synthetic, or data=hdf5 data.path=..."
            )

    def _check_one_way_to_split(self) -> None:
        """Lists of chromosomes, a fold, or one chromosome that is left out."""
        lists = [k for k in ("train_chroms", "validation_chroms", "test_chroms") if self._has(k)]
        other = [key for key in ("fold", "leave_out") if self._has(key)]
        if len(other) + bool(lists) > 1:
            said = " and ".join(f"data.{key}={getattr(self, key)}" for key in (*other, *lists))
            drop = " ".join(f"data.{key}=null" for key in (lists or other[1:]))
            raise ConfigError(f"{said}: these are two ways to split. Keep one, with {drop}")
        for key in ("validation_chroms", "test_chroms"):
            if not other and not self._has(key):
                raise MissingValue(
                    f"data.{key} has no value. Set it on the command line: data.{key}=[<chromosome>"
                    f"]. Or leave the choice to data.fold, from 0 to {FOLDS - 1}."
                )

    def _has(self, key: str) -> bool:
        return getattr(self, key) is not None


def check_windows(in_window: int | None, out_window: int | None, prefix: str = "data.") -> None:
    """Refuse windows of which one cannot be centred in the other."""
    if in_window is None or out_window is None:
        return
    if out_window > in_window or (in_window - out_window) % 2:
        raise ConfigError(
            f"{prefix}in_window={in_window} and {prefix}out_window={out_window}: the input must be "
            "at least as long as the output and exceed it by an even number of bases."
        )
