"""What cherimoya-variants says of variants and files that it cannot use."""

import gzip

import pytest
from toy import Toy
from toy_variants import HEADER, LENGTH, changed, snvs, table, vcf

from cherimoya.errors import DataError
from cherimoya.interpret import variants as app


def test_positions_past_an_end_are_called_so(toy: Toy, asked, capsys):
    bases = toy.bases["chrA"]
    vcf(
        toy,
        *snvs(toy, *range(500, 1700, 50)),
        ("chrA", 4001, "past", "A", "C"),
        ("chrA", 4000, "across", bases[3999] + "A", bases[3999]),
        ("chrA", 3999, "near", bases[3998], changed(bases[3998])),
    )
    app.variants(asked())
    rows = {row["id"]: row["status"] for row in table(asked().output)}
    assert rows["past"] == rows["across"] == "beyond the end of the chromosome"
    assert rows["near"] == "too near an end of the chromosome"
    said = capsys.readouterr().out
    assert (
        "2 variants not scored, beyond the end of the chromosome: such as chrA:4,001 A>C in line "
        "27, where chrA has 4,000 bases\n"
    ) in said


def test_one_position_past_an_end_is_no_other_assembly(toy: Toy, asked):
    vcf(toy, ("chrA", 99999, ".", "A", "C"))
    with pytest.raises(
        DataError, match=r"beyond the end of the chromosome: chrA:99,999 A>C in line 3, where chrA "
    ):
        app.variants(asked())
    vcf(toy, *(("chrA", 4100 + i, ".", "A", "C") for i in range(20)))
    with pytest.raises(
        DataError, match=r"in line 3, but chrA has 4,000 bases\. Probably .*another"
    ):
        app.variants(asked())


@pytest.mark.parametrize("n", [101, 900])
def test_long_alleles_are_not_printed_whole(toy: Toy, asked, capsys, n):
    """At a limit that the words state: half the window is 100 bases."""
    bases = toy.bases["chrA"]
    vcf(
        toy,
        *snvs(toy, 1000),
        ("chrA", 1501, "long", bases[1500 : 1500 + n], bases[1500]),
        ("chrA", 1501, "fits", bases[1500:1600], bases[1500]),
    )
    app.variants(asked())
    said = capsys.readouterr().out
    shown = f"chrA:1,501 {bases[1500:1504]}...({n})>{bases[1500]} in line 4\n"
    assert f"longer than half the input window ({LENGTH // 2} bases): {shown}" in said
    rows = {row["id"]: row for row in table(asked().output)}
    assert rows["long"]["ref"] == bases[1500 : 1500 + n]
    assert rows["fits"]["status"] == "ok"


def test_a_long_allele_that_differs_is_not_printed_whole(toy: Toy, asked):
    bases = toy.bases["chrA"]
    wrong = "".join(map(changed, bases[1500:1590]))
    vcf(toy, ("chrA", 1501, "long", wrong, wrong[0]))
    with pytest.raises(
        DataError, match=r"in line 3, where the genome has [ACGT]{4}\.\.\.\(90\)"
    ) as e:
        app.variants(asked())
    assert wrong[:30] not in str(e.value)


@pytest.mark.parametrize("packed", [False, True])
def test_what_only_begins_as_a_bcf_file_is_named(toy: Toy, asked, packed):
    content = b"BCF\x02\x02" + bytes(range(256))
    path = toy.folder / "calls.bcf"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=r"variants=.*calls\.bcf: truncated or damaged"):
        app.variants(asked(variants=str(path)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + f"chrA\t{2**63}\t.\tA\tC\n",
            r"line 3: pos '9223372036854775808' must be a whole",
        ),
        (HEADER + "chrA\t" + "9" * 5000 + "\t.\tA\tC\n", r"pos '9{57}\.\.\.' must be a whole"),
        ("a\x00\x1b[31mb\tc\n", r"line 1: no column .* among a\?\?\[31mb, c\. Give a VCF file"),
    ],
)
def test_numbers_and_bytes_that_cannot_be(toy: Toy, asked, text, message):
    toy.write("v.vcf", text)
    with pytest.raises(DataError, match=message) as caught:
        app.variants(asked())
    assert str(caught.value).isprintable()
