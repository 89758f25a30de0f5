"""What cherimoya-prepare says where a file may not be read, or nothing can be done."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import SUPPORT
from toy import Toy, letters, refused
from toy_tracks import bam, counted

from cherimoya.errors import DataError
from cherimoya.genome import fasta as sources

BARE = "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"
INPUTS = {
    "fasta": "toy.fa", "loci": "loci.bed", "exclude": "exclude.bed", "chrom_alias": "names.tsv",
    "signal": "plus.bw", "control": "reads.bam",
}  # fmt: skip


def as_others(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody to whom permissions apply."""
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and setpriv is missing")
        command = ("setpriv", *BARE, *command)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


EACH_IN_TURN = f"""
import json, pathlib, sys
sys.path.insert(0, {str(SUPPORT)!r})
from toy import SMALL, configure
from cherimoya.prepare.dry_run import inspect
from cherimoya.prepare.prepare import prepare
from cherimoya.errors import DataError
given = json.loads(sys.argv[1])
for key, value in given.items():
    path = pathlib.Path(value if isinstance(value, str) else value[0][0])
    path.chmod(0)
    for work in (prepare, inspect):
        try:
            work(configure(**given, **SMALL, output="o.h5"), lambda _: None)
        except DataError as error:
            print(error)
    path.chmod(0o644)
"""


def test_inputs_that_may_not_be_read(toy: Toy) -> None:
    toy.bed("chrA\t95\t106")
    toy.bed("chrB\t5\t6", name="exclude.bed")
    toy.write("names.tsv", "chrA\tA\n")
    bam(toy, ("chrA", 100, 0, 9))
    given = {key: str(toy.folder / name) for key, name in INPUTS.items()}
    given |= {key: [[given[key]]] for key in ("signal", "control")}
    before = sorted(toy.folder.iterdir())
    done = as_others(sys.executable, "-c", EACH_IN_TURN, json.dumps(given), folder=toy.folder)
    assert done.stdout.splitlines() == [
        f"{key}={toy.folder / name} may not be read: ask its owner (chmod)"
        for key, name in INPUTS.items()
        for _ in ("prepared", "looked at")
    ], done.stderr
    assert sorted(toy.folder.iterdir()) == before
    (toy.folder / "toy.fa").chmod(0)
    code = "from cherimoya.cli.commands import prepare; prepare()"
    arguments = ["fasta=toy.fa", "loci=loci.bed", "signal=[[plus.bw]]", "output=o.h5"]
    done = as_others(sys.executable, "-c", code, *arguments, folder=toy.folder)
    assert "error: fasta=toy.fa may not be read: ask its" in done.stdout + done.stderr
    assert done.returncode == 1
    assert sorted(toy.folder.iterdir()) == before


def test_a_prepared_file_that_may_not_be_read(toy: Toy) -> None:
    toy.bed("chrA\t95\t106")
    toy.run()
    path = toy.folder / "out.h5"
    path.chmod(0)
    code = "import sys; from cherimoya.data import hdf5; hdf5.read_header(sys.argv[1])"
    done = as_others(sys.executable, "-c", code, str(path), folder=toy.folder)
    assert f"data.path={path} may not be read: ask its owner (chmod)" in done.stderr


def test_a_chromosome_under_two_names_in_one_file(toy: Toy) -> None:
    toy.bed("chrA\t100\t201", "A\t500\t601", "B\t500\t601")
    message = refused(toy, "loci=.*name chromosomes differently")
    assert "Proposal: A is chrA, B is chrB. Accept it with chrom_alias=auto." in message
    loci = toy.run(chrom_alias="auto")
    assert list(zip(loci.chrom.tolist(), (loci.start + 25).tolist(), strict=True)) == [
        ("chrA", 150), ("chrA", 550), ("chrB", 550),
    ]  # fmt: skip
    toy.bed("chrB\t0\t9", "B\t520\t530", name="exclude.bed")
    loci = toy.run(chrom_alias="auto", exclude=f"{toy.folder}/exclude.bed")
    assert list(loci.chrom) == ["chrA", "chrA"]


def test_where_no_window_is_free(toy: Toy) -> None:
    toy.bed(*(f"{c}\t{at}\t{at + 50}" for c in ("chrA", "chrB", "chrC") for at in range(0, 4000, 50)
              if at < len(toy.bases[c])))  # fmt: skip
    toy.run(background_ratio=1.0)
    said = next(line for line in toy.said if line.startswith("background"))
    assert re.search(r"none of \d+ requested: .* no window of 20 bases lies between the loci", said)
    assert "background_ratio=0" in said
    assert "Lower background_ratio" not in said
    assert "min_distance" not in said
    toy.run(background_ratio=1.0, min_distance=7)
    assert any("a smaller min_distance than 7" in line for line in toy.said)


def bgzf(text: str) -> list[bytes]:
    """The blocks of a BGZF file, 2,000 bytes of text each, and the one that ends it."""
    pysam = pytest.importorskip("pysam")
    blocks = []
    for at in range(0, len(text), 2000):
        path = f"{os.environ.get('TMPDIR', '/tmp')}/bgzf.{os.getpid()}.gz"
        with pysam.BGZFile(path, "wb") as file:
            file.write(text[at : at + 2000].encode())
        blocks.append(Path(path).read_bytes()[: -len(sources.BGZF_END)])
        Path(path).unlink()
    return [*blocks, sources.BGZF_END]


def test_a_bgzf_file_that_was_cut_between_blocks_is_refused(toy: Toy) -> None:
    lines = [f"chrA\t{at}\t{at + 11}\tA\t1" for at in range(100, 3800)]
    toy.bed(*lines[:50])
    texts = {
        "fasta": (toy.folder / "toy.fa").read_text(),
        "loci": "\n".join(lines),
        "exclude": "\n".join(f"chrB\t{at}\t{at + 1}" for at in range(900)),
        "signal": "\n".join(f"chrA\t{at}\t{at + 50 + at % 9}" for at in range(100, 3800)),
        "chrom_alias": "".join(f"chrA\tother{i}\n" for i in range(900)),
    }
    for key, text in texts.items():
        blocks = bgzf(text)
        assert len(blocks) > 3
        path = toy.folder / "x.gz"
        path.write_bytes(b"".join(blocks))
        with sources.reading(path, "x") as file:
            assert file.read() == text
        values = {key: [[str(path)]] if key == "signal" else str(path)}
        path.write_bytes(b"".join(blocks[:2]))
        refused(toy, f"{key}=.*x.gz: truncated or damaged .the end-of-file block", **values)
    path.write_bytes(gzip.compress(text.encode()))  # other gzip files end as they do
    with sources.reading(path, "x") as file:
        assert file.read() == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chrA\t1\t9223372036854775808", "line 2.*must be whole numbers"),
        ("chrA\t1_0\t2_00", "line 2.*must be whole numbers"),
        ("chrA\t\u00b2\t9", "line 2.*must be whole numbers"),
    ],
)
def test_numbers_that_are_none(toy: Toy, line: str, message: str) -> None:
    toy.bed("chrA\t100\t200", line)
    refused(toy, message)


def test_summits_that_are_no_numbers_and_files_that_are_no_text(toy: Toy) -> None:
    toy.bed("chrA\t100\t200\tp\t0\t.\t1\t2\t3\t\u00b2")
    refused(toy, "summit offset \u00b2 must lie in", center="summit")
    toy.bed("chrA\t100\t200")
    latin = toy.folder / "latin.tsv"
    latin.write_bytes("chrA\tCrô\n".encode("latin-1"))
    refused(toy, "chrom_alias=.*latin.tsv: not a text file in UTF-8", chrom_alias=str(latin))
    latin.write_bytes("chrA\t1\t50\tô\n".encode("latin-1"))
    refused(toy, "loci=.*latin.tsv: not a text file", loci=str(latin))
    latin.write_bytes("ôhrA\t1\t50\n".encode("latin-1"))
    refused(toy, "latin.tsv, line 1.*is not a fragment", signal=[[str(latin)]])


@pytest.mark.parametrize("kind", ["gzip", "BGZF"])
def test_a_flipped_bit_in_a_gzip_file_gives_the_truth_or_an_error(toy: Toy, kind: str) -> None:
    lines = [f"chrA\t{at}\t{at + 50 + at % 9}\tAC\t1" for at in range(100, 3800, 7)]
    cuts = "\n".join(lines) + "\n"
    path, rng = toy.folder / "x.gz", np.random.default_rng(0)

    def fasta() -> dict[str, str]:
        genome = sources.read_genome(path, toy.folder / "spool", lambda _: None)
        return {chrom: letters(genome.codes(chrom)) for chrom in genome.lengths}

    for text, read in ((cuts, lambda: counted(path)), ((toy.folder / "toy.fa").read_text(), fasta)):
        packed = b"".join(bgzf(text)) if kind == "BGZF" else gzip.compress(text.encode())
        path.write_bytes(packed)
        wanted, refusals = read(), 0
        for _ in range(60):
            bad = bytearray(packed)
            bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            try:
                assert read() == wanted
            except DataError:
                refusals += 1
        assert refusals > 40
