"""One fragment file of many cells: a signal group for each group of its barcodes."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from toy import LENGTHS, Toy, refused
from toy_parts import same, stopped
from toy_tracks import ENDS

from cherimoya.data import hdf5
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome import fragments as reader
from cherimoya.genome.cells import read_cells
from cherimoya.prepare.prepare import prepare

GROUPS = ["B", "T cell", "c2", "c10"]
EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "prepare"
NAMES = {f"CELL{i}-1": GROUPS[i % len(GROUPS)] for i in range(10)}


@pytest.fixture
def cells(toy: Toy) -> Toy:
    """The toy with 3,000 fragments of 12 barcodes, of which a table names 10, in 4 groups."""
    rng, lines = np.random.default_rng(3), []
    for chrom, length in LENGTHS.items():
        start = np.sort(rng.integers(0, length - 80, 1000))
        end = start + rng.integers(1, 80, 1000)
        cell, count = rng.integers(0, 12, 1000), rng.integers(1, 4, 1000)
        lines += [
            f"{chrom}\t{s}\t{e}\tCELL{c}-1\t{n}"
            for s, e, c, n in zip(start, end, cell, count, strict=True)
        ]
    toy.write("cuts.tsv", "\n".join(lines) + "\n")
    toy.write("cells.tsv", "".join(f"{cell}\t{name}\n" for cell, name in NAMES.items()))
    toy.bed(*(f"chr{c}\t{at}\t{at + 20}" for c in "ABC" for at in range(60, 1900, 70)))
    return toy


def asked(toy: Toy, **values) -> dict:
    """What is configured for the cells of `toy`."""
    ends = ENDS | {"groups": str(toy.folder / "cells.tsv")} | values.pop("fragments", {})
    return {"signal": [[str(toy.folder / "cuts.tsv")]], "fragments": ends, **values}


@pytest.mark.parametrize("values", [{}, {"shift_plus": 4, "shift_minus": -5}, {"counts": True}])
def test_groups_are_as_files_of_their_own(cells: Toy, values: dict) -> None:
    together = cells.run(**asked(cells, fragments=values))
    assert together.group_names == GROUPS  # 10 after 2
    assert together.track_names == GROUPS
    assert together.signal_groups == [1, 1, 1, 1]
    lines = (cells.folder / "cuts.tsv").read_text().splitlines(keepends=True)
    for g, name in enumerate(GROUPS):
        own = [line for line in lines if NAMES.get(line.split("\t")[3]) == name]
        path = cells.write("own.tsv", "".join(own))
        alone = cells.run(signal=[[str(path)]], fragments=ENDS | values)
        np.testing.assert_array_equal(together.signal[:, g], alone.signal[:, 0])
        many = sum(int(line.split("\t")[4]) for line in own) if "counts" in values else len(own)
        assert together.group_depths[g] == 2 * many
    assert alone.group_names == alone.group_depths == []


def test_what_is_said_of_groups(cells: Toy) -> None:
    cells.run(**asked(cells))
    said = "\n".join(cells.said)
    lines = (cells.folder / "cuts.tsv").read_text().splitlines()
    listed = [line for line in lines if line.split("\t")[3] in NAMES]
    assert (
        f"cuts.tsv: {len(listed):,} of 3,000 fragments are of the 10 barcodes in cells.tsv, and "
        "the others are left out" in said
    )
    many = sum(NAMES[line.split("\t")[3]] == "c10" for line in listed)
    assert re.search(rf"\nc10 +2 +2 +{2 * many:,}\n", said + "\n")
    assert "warning" not in said
    assert re.search(r"\nsignal 2: T cell +both +T cell +cuts.tsv", said)


@pytest.mark.parametrize("header", ["", "#\n"])  # read many lines at once, and one by one
def test_barcodes_that_the_file_has_not_are_said(cells: Toy, header: str) -> None:
    other = {"CELL0-1": "other_CELL0-1", "CELL7-1": "CELL77-1"}
    table = "".join(f"{other.get(cell, cell)}\t{name}\n" for cell, name in NAMES.items())
    cells.write("cells.tsv", table)
    lines = (cells.folder / "cuts.tsv").read_text()
    cells.write("cuts.tsv", lines.replace("\n", f"\n{header}"))
    cells.run(**asked(cells))
    said = "\n".join(cells.said)
    for name, all_of, found in (("B", 3, 2), ("c10", 2, 1), ("c2", 2, 2)):
        assert re.search(rf"\n{name} +{all_of} +{found} +[0-9,]+\n", said), name
    assert "warning: 2 barcodes of cells.tsv are not in cuts.tsv, such as other_CELL0-1." in said


def test_several_processes_and_blocks_give_the_same(cells: Toy, monkeypatch) -> None:
    one = cells.run(**asked(cells))
    monkeypatch.setattr("cherimoya.prepare.inputs.WORTH_WINDOWS", 0)
    monkeypatch.setattr("cherimoya.prepare.parts.PART", (1, 20))
    monkeypatch.setattr("cherimoya.genome.fragments.BLOCK", 100)
    assert same(one, cells.run(**asked(cells, processes=2)))


def test_an_interrupted_preparation_reads_the_cells_once(cells: Toy, monkeypatch) -> None:
    values = asked(cells, overwrite=False)
    monkeypatch.setattr("cherimoya.prepare.parts.PART", (1, 20))
    stopped(cells, monkeypatch, 1, **values)
    monkeypatch.setattr(reader._Reader, "read", None)
    found = cells.run(**values)
    assert any("the genome, 1 fragment file, 1 part of the peaks" in line for line in cells.said)
    assert any(line.startswith("cuts.tsv: ") for line in cells.said)
    monkeypatch.undo()
    assert same(found, cells.run(**asked(cells, overwrite=True)))
    assert found.group_depths == hdf5.read_header(cells.folder / "out.h5").group_depths


def test_another_table_is_another_preparation(cells: Toy, monkeypatch) -> None:
    values = asked(cells, overwrite=False)
    cells.run(**values)
    assert cells.run(**values).group_names == GROUPS
    assert any("up to date" in line for line in cells.said)
    before = (cells.folder / "cells.tsv").read_text()
    cells.write("other/cells.tsv", before)
    moved = asked(cells, overwrite=False)
    moved["fragments"]["groups"] = str(cells.folder / "other/cells.tsv")
    cells.run(**moved)
    assert any("up to date" in line for line in cells.said)
    cells.write("cells.tsv", before.replace("T cell", "B"))
    with pytest.raises(DataError, match=r"made otherwise: fragments.groups 3 was cells.tsv \("):
        cells.run(**values)
    (cells.folder / "out.h5").unlink()
    monkeypatch.setattr("cherimoya.prepare.parts.PART", (1, 20))
    stopped(cells, monkeypatch, 1, **values)
    cells.write("cells.tsv", before)
    assert cells.run(**values).group_names == GROUPS
    assert any("an interrupted run had other inputs" in line for line in cells.said)


def test_tables_as_others_write_them(toy: Toy) -> None:
    for text in (
        "AC\tx\nGT\ty\n",
        "barcode\tcell_type\nAC\tx\nGT\ty\n",
        "# made by us\n\nAC\tx\tmore\r\nGT\ty\tmore\r\n",
        "\tleiden\nAC\tx\nGT\ty\nAC\tx\n",
    ):
        path = toy.write("cells.tsv", text)
        table = read_cells(path)
        assert (table.names, table.group_of) == (["x", "y"], {b"AC": 0, b"GT": 1})
        path.write_bytes(gzip.compress(text.encode()))
        assert read_cells(path) == table


BAD = {
    "nothing": ("# none\n", "cells.tsv: no barcodes in it"),
    "one column": ("CELL1-1\n", "line 1: 'CELL1-1' is not a barcode and its group"),
    "no group": ("CELL1-1\tA\nCELL2-1\t\n", "line 2: .* is not a barcode and its group"),
    "two groups": ("CELL1-1\tA\nCELL1-1\tB\n", "line 2: barcode CELL1-1 is of group B, and in"),
    "a slash": ("CELL1-1\tNK/T\n", "line 1: group 'NK/T': files are called by it: no slash"),
    "no match": (
        "CELL1\tA\nCELL2\tB\n",
        "cuts.tsv: none of its fragments is of the 2 barcodes of .* such as CELL1; they are such "
        "as CELL.*-1",
    ),
    "a group without": ("CELL1-1\tA\nX-1\tB\n", "cuts.tsv has no fragments of group B. Leave"),
    "exchanged": (
        "".join(f"B\tcell{i}\n" for i in range(2)),
        "barcode B is of group cell1, and in a line before of cell0",
    ),
    "many": ("".join(f"b{i}\tg{i}\n" for i in range(1001)), "1,001 groups, such as g0 and g1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused(cells: Toy, case: str) -> None:
    text, message = BAD[case]
    cells.write("cells.tsv", text)
    refused(cells, message, **asked(cells))


def test_a_table_that_matches_nothing_is_seen_early(cells: Toy, monkeypatch) -> None:
    monkeypatch.setattr("cherimoya.genome.fragments.BLOCK", 1000)
    monkeypatch.setattr("cherimoya.genome.fragments.EARLY", 100)
    cells.write("cells.tsv", "X\tA\n")
    lines = (cells.folder / "cuts.tsv").read_text().splitlines()
    cells.write("cuts.tsv", "\n".join([*lines, "what is never read"]) + "\n")
    refused(cells, "none of its fragments is of the 1 barcode", **asked(cells))


def test_files_that_have_no_cells(cells: Toy) -> None:
    three = [line.rsplit("\t", 2)[0] for line in (cells.folder / "cuts.tsv").open()]
    cells.write("cuts.tsv", "\n".join(three) + "\n")
    refused(cells, "line 1: .* has no barcode, the fourth column, by which", **asked(cells))
    with pytest.raises(DataError, match=r"fragments.groups=.*none.tsv: no such file"):
        cells.run(**asked(cells, fragments={"groups": f"{cells.folder}/none.tsv"}))
    with pytest.raises(ConfigError, match="reads have no column of barcodes"):
        cells.config(**asked(cells, fragments={"kind": "reads"}))
    other = str(cells.write("other.tsv", (cells.folder / "cuts.tsv").read_text()))
    for signal in ([[str(cells.folder / "cuts.tsv")], [other]], [[f"{cells.folder}/plus.bw"]]):
        with pytest.raises(ConfigError, match="tells the cells of one fragment file apart"):
            cells.run(**asked(cells) | {"signal": signal})


def test_cells_beside_another_sample(cells: Toy) -> None:
    plus, minus = (str(cells.folder / f"{strand}.bw") for strand in ("plus", "minus"))
    values = asked(cells) | {
        "control": [[str(cells.write("in.tsv", "chrA\t5\t90\nchrA\t7\t80\n"))]]
    }
    cuts = values["signal"][0]
    mixed = cells.run(**values | {"signal": {"chip": [plus, minus], "atac": cuts}})
    assert mixed.group_names == ["chip", *GROUPS]
    assert (mixed.signal_groups, mixed.control_groups) == ([2, 1, 1, 1, 1], [1])
    assert mixed.group_depths == []  # a bigWig does not say
    with pytest.raises(ConfigError, match="signal: two groups are called c2"):
        cells.run(**values | {"signal": {"c2": [plus, minus], "atac": cuts}})


def test_groups_of_files_have_names(cells: Toy) -> None:
    plus, minus = (str(cells.folder / f"{strand}.bw") for strand in ("plus", "minus"))
    named = cells.run(signal={"K562": [plus], "B cell": [minus]}, overwrite=False)
    assert (named.group_names, named.track_names) == (["K562", "B cell"], ["plus", "minus"])
    unnamed = {"signal": [[plus], [minus]]}
    with pytest.raises(DataError, match=r"signal_names was \['K562', 'B cell'\], now None"):
        cells.run(**unnamed, overwrite=False)
    plain = cells.run(**unnamed)
    assert same(named, plain)
    assert plain.group_names == []
    with pytest.raises(
        ConfigError, match=r"signal={a/b: \.\.\.}: files are called by it: no slash"
    ):
        cells.config(signal={"a/b": [plus]})
    with pytest.raises(ConfigError, match=r"signal.A='plus.bw': expected a list"):
        cells.config(signal={"A": "plus.bw"})


@pytest.mark.slow
def test_eight_groups_of_yeast_are_as_eight_preparations(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/yeast"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    from toy import configure

    rng, whole, own = np.random.default_rng(0), [], {g: [] for g in range(8)}
    packed = (folder / "atac/yeast_500k_SRR1822137.frag.gz").read_bytes()
    for line in gzip.decompress(packed).decode().splitlines():
        chrom, start, end, _, count = line.split("\t")
        cell = int(rng.integers(0, 200))
        whole.append(f"{chrom}\t{start}\t{end}\tCELL{cell:04}-1\t{count}\n")
        own[cell % 8].append(whole[-1])
    with gzip.open(tmp_path / "whole.tsv.gz", "wt", compresslevel=1) as file:
        file.writelines(whole)
    table = [f"CELL{cell:04}-1\ttype {cell % 8}\n" for cell in range(200)]
    (tmp_path / "cells.tsv").write_text("".join(table))
    values = {
        "fasta": str(folder / "genome/sacCer3.fa.gz"), "outlier_factor": None, "min_counts": 0,
        "loci": str(folder / "atac/cut_peaks.narrowPeak"), "in_window": 1114, "processes": 1,
        "out_window": 1000, "max_jitter": 100, "background_ratio": 0, "center": "summit",
    }  # fmt: skip
    tn5 = {"kind": "auto", "shift_plus": 4, "shift_minus": -5, "counts": False}

    def prepared(name: str, **given: object) -> hdf5.Loci:
        config = configure(**values, **given, output=str(tmp_path / f"{name}.h5"))
        return hdf5.read(prepare(config, lambda line: None))

    groups = {"groups": str(tmp_path / "cells.tsv")}
    together = prepared("all", signal=[[str(tmp_path / "whole.tsv.gz")]], fragments=tn5 | groups)
    assert together.group_names == [f"type {g}" for g in range(8)]
    for g in range(8):
        path = tmp_path / f"own{g}.tsv"
        path.write_text("".join(own[g]))
        alone = prepared(f"own{g}", signal=[[str(path)]], fragments=tn5)
        np.testing.assert_array_equal(together.sequence, alone.sequence)
        np.testing.assert_array_equal(together.signal[:, g], alone.signal[:, 0])
        assert together.group_depths[g] == 2 * len(own[g])
        assert alone.signal.sum() > 50_000
    auto = {"kind": "auto", "shift_plus": 0, "shift_minus": 0, "counts": False}
    cells = [[str(tmp_path / "whole.tsv.gz")]]
    found = prepared("auto", signal=cells, fragments=auto | groups, shift="auto")
    np.testing.assert_array_equal(together.signal, found.signal)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pybigtools")
    pytest.importorskip("pysam")
    monkeypatch.syspath_prepend(EXPERIMENT)
    monkeypatch.syspath_prepend(EXPERIMENT.parent)
    import cells

    few, many = (
        cells.prepared(tmp_path, count, 8, 0.05, 2000, [2])[0]["peak_own_GB"]
        for count in (4_000_000, 12_000_000)  # with fewer, what it holds at once is not yet full
    )
    assert many < few + 0.05  # 8 bytes for each of 8 million more would show
    assert many < 0.5
