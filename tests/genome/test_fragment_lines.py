"""Fragments read many lines at a time are those that are read one by one."""

from pathlib import Path

import numpy as np
import pytest

from cherimoya.config.prepare import FragmentsConfig
from cherimoya.errors import DataError
from cherimoya.genome import fragments
from cherimoya.genome.fragment_lines import usual_lines

USUAL = ["chr1\t5\t90\tAC-1\t2", "chr1\t0\t7\tGT-1\t1", "chr10\t12\t12\tAC-1\t1"]
USUAL += ["chr1\t2147483646\t2147483647\tAC\t1", "chr2\t0007\t19\t\t3", "c\t1\t2\tACGTACGTAC-1\t1"]
ODD = ["", "# note", "track x", "track\t5\t9\tAC-1\t1", "browser y", "chrom\tstart\tend\tx\ty"]
ODD += ["chr1\t-5\t9\tAC-1\t1", "chr1\t5\t9\tAC-1\t1\r", "t1\t5\t9\tAC-1\t1", "chr1\t5\t9\tGT-1"]
WRONG = [
    "chr1\t9\t5\tAC-1\t1",
    "chr1\tx\t5\tAC-1\t1",
    "chr1\t5\t9\tAC-1\t0",
    "chr1\t5",
    "\t5\t9\t\t1",
]
WRONG += ["chr1\t5\t9\tAC-1\t1\tmore", "chr1\t5\t2147483648\tAC-1\t1", "chr1\t\t9\tAC-1\t1"]
WRONG += ["chr1\t5\t9 \tAC-1\t1", "chr1\t5\t99999999999\tAC-1\t1", "chr\xff\t5\t9\tAC-1\t1"]


def found(path: Path, spool: Path, **values) -> object:
    """What is kept of a file: names, depths, facts and bytes of each file, or the message."""
    spool.mkdir()
    given = {"kind": "auto", "shift_plus": 4, "shift_minus": -5, "counts": False} | values
    said: list[str] = []
    try:
        tracks = fragments.read_fragments(
            path, "signal", FragmentsConfig(**given), spool, said.append
        )
    except DataError as error:
        return str(error)
    held = tracks[0].spooled
    return held.chroms, held.depths, said, [file.read_bytes() for file in held.files()]


@pytest.mark.parametrize("files", [40, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_both_ways_of_reading_agree(
    tmp_path: Path, monkeypatch, counts: bool, grouped: bool, files: int
) -> None:
    rng, path, table = np.random.default_rng(0), tmp_path / "cuts.tsv", tmp_path / "cells.tsv"
    table.write_text("AC-1\tone\nGT-1\ttwo\n")
    values = {"counts": counts, "groups": str(table) if grouped else None}
    monkeypatch.setattr(fragments, "BLOCK", 150)
    many, quick = [], fragments.usual_lines
    for case in range(files):
        chosen = rng.choice(USUAL, 30).tolist()
        for kinds, often in ((ODD, 0.5), (WRONG, 0.3)):
            if rng.random() < often:
                chosen[rng.integers(0, 30)] = str(rng.choice(kinds))
        end = "\n" if rng.random() < 0.7 else ""
        path.write_bytes(("\n".join(chosen) + end).encode("latin-1"))
        monkeypatch.setattr(
            fragments,
            "usual_lines",
            lambda text: many.append(quick(text) is not None) or quick(text),
        )
        first = found(path, tmp_path / f"{case}a", **values)
        monkeypatch.setattr(fragments, "usual_lines", lambda text: None)
        assert first == found(path, tmp_path / f"{case}b", **values), chosen
    assert 0.2 < np.mean(many) < 0.98


def test_an_unsorted_file_is_read_line_by_line(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "cuts.tsv"
    path.write_text("".join(f"chr{i % 2}\t{i}\t{i + 50 + i % 3}\n" for i in range(3000)))
    (chroms, depths, _, files) = found(path, tmp_path / "a")
    assert (chroms, depths, len(files)) == (["chr0", "chr1"], [6000], 2)
    lines = usual_lines(path.read_bytes())
    assert lines is not None
    assert lines.runs() is None


def test_numbers_are_those_of_python() -> None:
    numbers = [0, 7, 10, 99, 100, 123456789, 2147483647, 9999999999]
    text = "".join(f"c\t{n}\t{n:010}\n" for n in numbers).encode()
    lines = usual_lines(text)
    assert lines is not None
    assert lines.numbers(1).tolist() == lines.numbers(2).tolist() == numbers
    assert lines.numbers(0) is None
