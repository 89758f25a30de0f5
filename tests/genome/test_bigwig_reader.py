"""bigWig files that we read: every value of every kind, of damaged ones the truth or an error."""

from pathlib import Path

import bigwig_files
import numpy as np
import pytest
from bigwig_files import sections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import LENGTHS, Toy, configure, refused

from cherimoya.errors import DataError
from cherimoya.genome import bigwig
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import read_genome
from cherimoya.genome.open_tracks import matched, open_tracks

pybigtools = pytest.importorskip("pybigtools")

KINDS = {"bedGraph": 1, "variable step": 2, "fixed step": 3}


def whole(path: Path, lengths: dict[str, int] = LENGTHS) -> dict[str, np.ndarray]:
    """Every value of the file."""
    (track,) = bigwig.read_bigwig(path, "signal")
    return {chrom: track.values(chrom, 0, n) for chrom, n in lengths.items()}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_kind_of_block(tmp_path: Path, kind: int, order: str, packed: bool) -> None:
    made, wanted = sections(kind)
    for summary in (True, False):
        path = bigwig_files.write(tmp_path / "x.bw", LENGTHS, made, order, packed, summary)
        for chrom, values in whole(path).items():
            np.testing.assert_array_equal(values, wanted[chrom])
    (track,) = bigwig.read_bigwig(path, "signal")
    assert ("not compressed" in track.note) is not packed
    for start, end in ((3, 4), (100, 300), (499, 501), (3990, 4000)):
        np.testing.assert_array_equal(track.values("chrA", start, end), wanted["chrA"][start:end])
    if order == "<" and packed:
        other = pybigtools.open(str(path)).values("chrB", 0, 3000, fillna=0.0)
        np.testing.assert_array_equal(other, wanted["chrB"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    gaps=st.lists(st.integers(0, 40), max_size=200),
    seed=st.integers(0, 2**32 - 1),
    chroms=st.integers(1, 4),
)
def test_what_another_program_writes(gaps, seed, chroms, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    lengths = {f"c{i}": 12_000 for i in range(chroms)}
    entries, wanted = [], {chrom: np.zeros(n) for chrom, n in lengths.items()}
    for chrom in lengths:
        at = 0
        for gap in gaps:
            start, end = at + gap, at + gap + int(rng.integers(1, 20))
            value = float(np.float32(rng.normal()))
            entries.append((chrom, start, end, value))
            wanted[chrom][start:end] = value
            at = end
    if not entries:
        return
    path = tmp_path / "x.bw"
    pybigtools.open(str(path), "w").write(lengths, iter(entries))
    for chrom, values in whole(path, lengths).items():
        np.testing.assert_array_equal(values, wanted[chrom])


def test_the_values_of_real_tracks(shared: Path) -> None:
    for path in sorted((shared / "data").rglob("*.bw")):
        other = pybigtools.open(str(path))
        lengths = dict(other.chroms())
        for chrom, values in whole(path, lengths).items():
            expected = other.values(chrom, 0, lengths[chrom], fillna=0.0)
            np.testing.assert_array_equal(values, expected)


def test_a_track_without_values_is_zeros_and_said(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    for lengths in (LENGTHS, {}):
        path = bigwig_files.write(toy.folder / "void.bw", lengths, [])
        loci = toy.run(control=[[str(path)]])
        assert not loci.control.any()
        assert "void.bw holds no values: zeros everywhere" in toy.said
        refused(toy, "void.bw is zero at the only locus", signal=[[str(path)]])


def through(path: Path, toy: Toy) -> dict[str, np.ndarray]:
    """Every value of the file, checked against the toy's genome as all commands do."""
    config = configure(fasta="-", loci="-", signal=[[str(path)]], output="-")
    genome = read_genome(toy.folder / "toy.fa", None, lambda _: None)
    with open_tracks(config.signal, "signal", config) as ((track,),):
        matched(track, list(LENGTHS), Aliases("none", genome), genome)
        return {chrom: track.values(chrom, 0, n) for chrom, n in LENGTHS.items()}


@pytest.mark.parametrize("flips", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["pybigtools", *KINDS, "not packed"])
def test_a_flipped_bit_gives_the_truth_or_an_error(toy: Toy, kind: str, flips: int) -> None:
    path = toy.folder / "plus.bw"
    wanted = toy.plus
    if kind != "pybigtools":
        made, wanted = sections(KINDS.get(kind, 1))
        path = bigwig_files.write(toy.folder / "x.bw", LENGTHS, made, packed=kind != "not packed")
    good, rng, refusals = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(flips):
        bad = bytearray(good)
        at = int(rng.integers(len(good) if rng.random() < 0.5 else min(len(good), 300)))
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            values = through(path, toy)
        except DataError as error:
            refusals += str(path) in str(error)
            continue
        for chrom, found in values.items():  # without checksums the last digits may differ
            close = 1e-4 if kind == "not packed" else 0
            np.testing.assert_allclose(
                found, wanted[chrom], rtol=close, atol=close / 100, err_msg=f"byte {at}"
            )
    assert refusals > flips / 5


@pytest.mark.parametrize("size", range(0, 12000, 1500))
def test_a_cut_file_is_refused(toy: Toy, size: int) -> None:
    path = toy.folder / "plus.bw"
    path.write_bytes(path.read_bytes()[: size or 3])
    with pytest.raises(DataError, match=r"plus.bw: "):
        through(path, toy)


def test_a_chromosome_under_a_name_that_nobody_has(toy: Toy) -> None:
    toy.bed("chrA\t100\t200", "chrB\t100\t200")
    values = {"chrA": toy.plus["chrA"], "chsB": toy.plus["chrB"]}
    path = toy.bigwig("x.bw", values)
    message = refused(toy, "x.bw has no chrB, but 'chsB' of the same 3,000", signal=[[str(path)]])
    assert "chrom_alias=names.tsv" in message
    table = toy.write("names.tsv", "chrB\tchsB\n")
    assert toy.run(signal=[[str(path)]], chrom_alias=str(table)).signal[1].any()
