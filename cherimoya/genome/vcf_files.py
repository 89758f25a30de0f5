"""VCF files as lines of text, whether plain, compressed or binary (BCF), in and out."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from cherimoya.errors import DataError
from cherimoya.genome.fasta import GZIP_MAGIC, check_exists, reading, text_lines
from cherimoya.util import native
from cherimoya.util.files import atomic_path, atomic_write, remove
from cherimoya.util.optional import import_optional

BCF = b"BCF"  # the first bytes, of which the whole may be BGZF
PLAIN, COMPRESSED, BINARY = ".vcf", ".vcf.gz", ".bcf"
VCF = (b"##fileformat=VCF", b"#CHROM\t")  # how its text begins
INDEX = {COMPRESSED: ".tbi", BINARY: ".csi"}


def ending_of(path: Path, key: str) -> str:
    """PLAIN, also for a table, COMPRESSED or BINARY, by the content of the file of `key`."""
    check_exists(path, key)
    with reading(path, f"{key}={path}", "rb") as file:
        head = file.read(len(VCF[0]))
    if head.startswith(BCF):
        return BINARY
    with open(path, "rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return COMPRESSED if is_gzip and head.startswith(VCF) else PLAIN


def vcf_lines(path: Path, key: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line of the file that `key` names; of a BCF file as
    bcftools writes it. Raises DataError for a file that cannot be read."""
    where = f"{key}={path}"
    if ending_of(path, key) != BINARY:
        yield from text_lines(path, where)
        return
    import_optional("pysam")
    with TemporaryDirectory(prefix="cherimoya-") as folder:
        text = Path(folder) / "text.vcf"
        try:
            native.call(_convert, path.absolute(), text, "-Ov")
        except native.LibraryError as error:
            said = " ".join(str(error).split())
            raise DataError(f"{where}: truncated or damaged ({said}). Copy it again.") from None
        yield from text_lines(text, where)


def check_writable(ending: str) -> None:
    """Raise PackageError where a file that ends so cannot be written."""
    if ending != PLAIN:
        import_optional("pysam")


def write_vcf_lines(path: Path, lines: Iterable[str]) -> str:
    """Write a file of the kind that its name says, and its index; why it has none, if so.

    Raises DataError for lines that make no BCF file.
    """
    ending = next(e for e in (COMPRESSED, BINARY, PLAIN) if path.name.endswith(e))
    content = (f"{line}\n".encode() for line in lines)
    if ending == PLAIN:
        with atomic_write(path) as file:
            file.writelines(content)
        return ""
    index = index_of(path)
    remove(index)  # of the file before
    with TemporaryDirectory(prefix="cherimoya-") as folder:
        text = Path(folder) / "text.vcf"
        with open(text, "wb") as file:
            file.writelines(content)
        with atomic_path(path) as made:
            try:
                write = _compress if ending == COMPRESSED else _convert
                native.call(write, text, made.absolute(), "-Ob")
            except native.LibraryError as error:
                said = " ".join(str(error).split())
                raise DataError(f"{path}: {said}. Set vcf=false, or give a VCF file.") from None
    try:
        with atomic_path(index) as made:
            native.call(_index, path.absolute(), made.absolute(), ending)
    except native.LibraryError:
        return "no index: its variants are not sorted by position (bcftools sort)"
    return ""


def index_of(path: Path) -> Path:
    """Where the index of a compressed or binary file is."""
    ending = COMPRESSED if path.name.endswith(COMPRESSED) else BINARY
    return path.with_name(path.name + INDEX[ending])


# What follows runs in the libraries' own process, which may be in another folder.


def _convert(source: Path, to: Path, kind: str) -> None:
    """Write the VCF or BCF file again as `kind`, an option of bcftools view."""
    import_optional("pysam")
    bcftools = import_optional("pysam.bcftools")
    words = ("--no-version", kind, "-o", str(to), str(source))
    bcftools.view(*words, catch_stdout=False)


def _compress(source: Path, to: Path, kind: str) -> None:
    with open(source, "rb") as file, import_optional("pysam").BGZFile(str(to), "wb") as made:
        while block := file.read(1 << 20):
            made.write(block)


def _index(path: Path, to: Path, ending: str) -> None:
    preset = "bcf" if ending == BINARY else "vcf"
    pysam = import_optional("pysam")
    with suppress(FileNotFoundError):
        to.unlink()
    pysam.tabix_index(
        str(path),
        preset=preset,
        force=True,
        keep_original=True,
        index=str(to),
    )
