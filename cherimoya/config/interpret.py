"""What cherimoya-attribute, -variants, -marginalize and -hits can be told, see conf/*.yaml."""

from dataclasses import dataclass

from cherimoya.config.models import PRECISIONS, ModelsConfig
from cherimoya.config.schema import DEVICES, MOST_BASES, NO_OTHER, Used, checked
from cherimoya.errors import ConfigError

LEAST_WINDOW = 100  # bases in which TF-MoDISco has room for a pattern of 50 and its flanks

GROUPWISE = Used(
    lambda config: config.target is None, "target says what is attributed", "target=null"
)
SHUFFLING = Used(
    lambda config: config.method == "deep_lift_shap",
    "only method=deep_lift_shap shuffles sequences",
    "method=deep_lift_shap",
)


@dataclass(frozen=True)
class SequencesConfig:
    """A prepared file, and the bases of its sequences to take. None: no file; as stored."""

    path: str | None = checked()
    in_window: int | None = checked(at_least=1, at_most=MOST_BASES)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(ModelsConfig):
    """Models that are asked about sequences."""

    batch_size: int | None = checked(at_least=1, at_most=10_000_000)
    target: str | None = checked(default=None)


@dataclass(frozen=True, kw_only=True)
class LociConfig(InferenceConfig):
    """Which sequences: of a prepared file, or of a BED file and a genome."""

    data: SequencesConfig
    loci: str | None = checked()
    fasta: str | None = checked()
    center: str = checked(
        choices=("midpoint", "summit"),
        used=Used(
            lambda config: config.loci is not None,
            "the windows of a prepared file are placed already",
            "loci=<BED file> fasta=<genome> in place of data.path, and",
        ),
    )
    chrom_alias: str
    chroms: list[str] | None = checked()
    peaks_only: bool = checked(
        used=Used(
            lambda config: config.loci is None,
            "a BED file holds no background to leave out",
            "data.path=<prepared file> in place of loci and fasta, and",
        )
    )
    max_loci: int | None = checked(at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.path is not None and self.loci is not None:
            raise ConfigError(
                f"data.path={self.data.path} and loci={self.loci} both name loci. Give one."
            )
        if self.chrom_alias != "none" and self.loci is None:
            raise ConfigError(
                f"chrom_alias={self.chrom_alias} is for loci=<BED file>: a prepared file has the "
                "genome's names. Leave it out."
            )
        if self.fasta is not None and self.loci is None and not self.needs_lengths:
            raise ConfigError(
                f"fasta={self.fasta} is read for loci=<BED file>: a prepared file has its own "
                "sequences. Leave it out, or set loci too."
            )
        if self.chroms == []:
            raise ConfigError("chroms=[] is empty. Name chromosomes, or null for all.")

    @property
    def needs_lengths(self) -> bool:
        """Whether the lengths of chromosomes are needed, which a prepared file does not have."""
        return False


@dataclass(frozen=True, kw_only=True)
class AttributeConfig(LociConfig):
    """Everything `cherimoya-attribute` composes."""

    seed: int = checked(at_least=0, used=SHUFFLING)
    precision: str = checked(
        choices=PRECISIONS,
        used=Used(
            lambda config: (
                config.method in ("mutagenesis", "dependency") or config.precision == "fp32"
            ),
            "gradients are always taken in fp32",
            "method=mutagenesis",
        ),
    )
    method: str = checked(choices=("mutagenesis", "dependency", "deep_lift_shap", "gradient"))
    targets: list[str] = checked(choices=("counts", "profile"), used=GROUPWISE)
    groups: list[str] | None = checked(used=GROUPWISE)
    window: int | None = checked(at_least=1, at_most=MOST_BASES)
    n_shuffles: int = checked(at_least=1, at_most=100_000, used=SHUFFLING)
    logos: int = checked(at_least=0)
    bigwig: bool
    modisco: bool
    max_seqlets: int = checked(
        at_least=100,
        used=Used(
            lambda config: config.modisco, "modisco=false looks for no motifs", "modisco=true"
        ),
    )
    motif_file: str | None = checked()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.lower().endswith((".bw", ".bigwig", ".png", ".tsv", ".txt")):
            raise ConfigError(
                f"output={self.output}: the HDF5 file of attributions, such as attributions.h5. "
                "Logos, and tracks with bigwig=true, go beside it."
            )
        if self.bias is not False and self.method == "deep_lift_shap":
            raise ConfigError(
                f"bias={'true' if self.bias else 'null'}: method=deep_lift_shap explains the "
                "network without its bias model. Set method=mutagenesis or method=gradient, or "
                "leave bias out."
            )
        if not self.targets or self.groups == []:
            raise ConfigError("targets and groups must not be empty. targets=[counts] is usual.")
        if self.modisco and self.window is not None and self.window < LEAST_WINDOW:
            raise ConfigError(
                f"window={self.window}: modisco=true needs {LEAST_WINDOW} bases or more, to "
                "have room for motifs and what is beside them."
            )
        if self.motif_file is not None and not self.modisco:
            raise ConfigError(
                f"motif_file={self.motif_file} is what modisco=true compares motifs with. Set both."
            )
        if self.bigwig and self.fasta is None:
            raise ConfigError(
                "bigwig=true needs the lengths of the chromosomes. Set fasta=<genome> too."
            )

    @property
    def needs_lengths(self) -> bool:
        return self.bigwig


@dataclass(frozen=True, kw_only=True)
class VariantsConfig(InferenceConfig):
    """Everything `cherimoya-variants` composes."""

    seed: int = checked(
        at_least=0,
        used=Used(
            lambda config: config.random_variants > 0,
            "random_variants=0 draws no variants",
            "random_variants=1000",
        ),
    )
    variants: str
    fasta: str
    chrom_alias: str
    in_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    random_variants: int = checked(at_least=0, at_most=10_000_000)
    peaks: str | None
    vcf: bool
    page: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.endswith((".vcf", ".vcf.gz", ".bcf")):
            raise ConfigError(
                f"output={self.output}: the table, such as effects.tsv. With vcf=true a VCF file "
                "is written beside it."
            )


@dataclass(frozen=True, kw_only=True)
class MarginalizeConfig(LociConfig):
    """Everything `cherimoya-marginalize` composes."""

    seed: int = checked(
        at_least=0,
        used=Used(
            lambda config: config.shuffle or config.draws_letters,
            "shuffle=false, and no letter of motifs stands for several bases, so nothing is drawn",
            "shuffle=true",
        ),
    )
    motifs: list[str]
    motif_file: str | None = checked()
    against: str | None = checked()
    shuffle: bool
    profiles: int = checked(at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.lower().endswith((".png", ".h5", ".hdf5")):
            raise ConfigError(
                f"output={self.output}: the table, such as motifs.tsv. A plot is drawn beside it."
            )

    @property
    def draws_letters(self) -> bool:
        """Whether a letter of a motif may stand for several bases, of which one is drawn."""
        letters = "".join(text.rpartition(":")[2] for text in self.motifs).upper()
        return self.motif_file is not None or not set(letters) <= set("ACGTN")


@dataclass(frozen=True, kw_only=True)
class HitsConfig:
    """Everything `cherimoya-hits` composes."""

    attributions: str
    motifs: str | None = checked()
    target: str | None = checked()
    cutoff: float = checked(at_least=0.1, at_most=0.99)
    trim: float = checked(at_least=0, at_most=1)
    seqlets: bool
    seqlet_p: float = checked(
        above=0,
        at_most=0.5,
        used=Used(
            lambda config: config.seqlets, "seqlets=false looks for no seqlets", "seqlets=true"
        ),
    )
    page: bool
    examples: int = checked(
        at_least=0,
        at_most=100,
        used=Used(lambda config: config.page, "page=false draws no loci", "page=true"),
    )
    output: str
    overwrite: bool
    device: str = checked(choices=DEVICES, hint=NO_OTHER)

    def __post_init__(self) -> None:
        if not self.output.lower().endswith((".tsv", ".txt")):
            raise ConfigError(
                f"output={self.output}: the table, such as hits.tsv. The BED file, the track and "
                "the page go beside it."
            )
