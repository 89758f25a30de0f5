"""What a text file of intervals is, by its columns, and what to do with one that is no signal."""

import re

INTERVALS = "Give a bigWig, a BAM or a fragment file (chrom, start, end, barcode, count)."
PEAKS = (
    "Peaks are loci: loci={path}. As signal give the bigWig, BAM or fragments that they were "
    "called from."
)
INSIST = "If each line is a fragment, set fragments.kind=fragments."
READS = (
    "reads with a strand ({n} columns, as bedtools bamtobed and tagAlign write them), not "
    "fragments. To count the 5' end of each read, set fragments.kind=reads; if each line is a "
    "whole fragment, both ends of which are cuts, set fragments.kind=fragments."
)
BEDPE = (
    "BEDPE, read pairs of which columns 4 to 6 are the second mate. Turn it into fragments: "
    "gzip -cdf {path} | awk -v OFS='\\t' '$1 == $4 && $2 >= 0 {{print $1, ($2 < $5 ? $2 : $5), "
    "($3 > $6 ? $3 : $6)}}' > fragments.tsv"
)
BEGINNINGS = (  # of files that are something else, and what to do
    ((b"@HD\t", b"@SQ\t", b"@RG\t", b"@PG\t", b"@CO\t", b"CRAM"),
     "SAM or CRAM. Turn it into a sorted BAM: samtools sort -o reads.bam {path}"),
    ((b"##fileformat=VCF", b"BCF"), f"variants (VCF or BCF), not signal. {INTERVALS}"),
    ((b"##gff", b"#gff", b"##gtf", b"#!genome-build"),
     f"an annotation (GFF or GTF), not signal. {INTERVALS}"),
    ((b"## pairs format",), f"contacts (pairs), not signal. {INTERVALS}"),
    ((b">",), f"sequences (FASTA), not signal. {INTERVALS}"),
    ((b"\x89HDF",), f"an HDF5 file, not signal. {INTERVALS}"),
)  # fmt: skip
HEADER = re.compile(rb"chr(om(osome)?)?\t(chrom_?)?start\t(chrom_?)?(end|stop)\b", re.IGNORECASE)
WHOLE = re.compile(rb"-?[0-9]{1,10}\Z")
NAMED_COLUMNS = 5  # of a fragment file at most: chrom, start, end, barcode, count


def data_lines(head: bytes) -> list[list[bytes]]:
    """The columns of the whole lines of `head` that are no comment."""
    lines = head.split(b"\n")
    if len(lines) > 1:
        lines.pop()  # cut short, or empty
    kept = (line for line in lines if line.strip() and not is_comment(line))
    return [line.rstrip(b"\r").split(b"\t") for line in kept]


def is_comment(line: bytes) -> bool:
    """Whether a line of a file of intervals holds no interval."""
    return line.startswith((b"#", b"track ", b"track\t", b"browser")) or bool(HEADER.match(line))


def what_else(head: bytes, kind: str) -> str | None:
    """What a file that starts with `head` is, in words, if it holds no intervals to count.

    kind: fragments.kind, which decides what is doubtful otherwise. "{path}" and "{n}", the number
    of columns, stand in the words.
    """
    for beginnings, said in BEGINNINGS:
        if head.startswith(beginnings):
            return said
    if any(word in head for word in (b"type=wiggle", b"fixedStep", b"variableStep")):
        return "a wiggle text file. Turn it into a bigWig: wigToBigWig"
    lines = data_lines(head)
    if b"\0" in head or not lines or len(lines[0]) < 3:
        return f"not a bigWig, BAM or fragment file. {INTERVALS}"
    return _by_columns(lines, kind)


def _by_columns(lines: list[list[bytes]], kind: str) -> str | None:
    first, n = lines[0], len(lines[0])
    if n >= 11 and _whole(first[1:2]) and _whole([*first[3:5], first[7], first[8]]):
        return "alignments (SAM). Turn it into a sorted BAM: samtools sort -o reads.bam {path}"
    if n >= 5 and not _whole(first[1:3]) and _whole(first[3:5]):
        return f"an annotation (GFF or GTF), not signal. {INTERVALS}"
    if n >= 6 and _whole(first[4:6]) and not _number(first[3]):
        return BEDPE
    if n == 4 and _number(first[3]) and kind != "fragments":
        return f"a bedGraph by its 4 columns. Turn it into a bigWig: bedGraphToBigWig. {INSIST}"
    if peaks := _peaks(first):
        return f"peaks ({peaks}), not signal. {PEAKS}"
    if kind in ("reads", "fragments"):
        return None
    if n == 4 and len(lines) > 1 and all(b"peak" in line[-1].lower() for line in lines):
        return f"peaks by the names in column 4, not signal. {PEAKS} {INSIST}"
    if n == 5 and not _whole(first[4:5]):
        return f"intervals with a score (BED5), not fragments. {PEAKS} {INSIST}"
    if n <= NAMED_COLUMNS:
        return None
    if n == 12:
        return f"BED12, transcripts or spliced reads. For reads set fragments.kind=reads. {INSIST}"
    if first[5] in (b"+", b"-"):
        return READS
    said = f"intervals with {{n}} columns, not fragments, which have 3 to {NAMED_COLUMNS}"
    return f"{said}. {PEAKS} {INSIST}"


def _peaks(columns: list[bytes]) -> str:
    """The format's name if the columns are those of peaks."""
    n = len(columns)
    if n < 9 or columns[5] not in (b"+", b"-", b"."):
        return ""
    if n == 10 and all(map(_number, columns[6:9])) and _whole(columns[9:10]):
        return "narrowPeak"
    if n == 9 and all(map(_number, columns[6:9])) and not _whole(columns[6:8]):
        return "broadPeak"
    return "gappedPeak" if n == 15 and all(map(_number, columns[12:15])) else ""


def _whole(columns: list[bytes]) -> bool:
    return bool(columns) and all(WHOLE.match(text.strip()) for text in columns)


def _number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
