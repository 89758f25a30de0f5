"""By how much ends are shifted is found out from the motif of the enzyme: files in every state."""

import re
from pathlib import Path

import numpy as np
import pytest
from command_lines import command
from toy import Toy
from toy_cuts import CutGenome
from toy_tracks import BAM
from toy_tracks import ENDS as KEYS

from cherimoya.errors import ConfigError, DataError
from cherimoya.genome.open_tracks import check_used
from cherimoya.prepare import parts
from cherimoya.prepare.dry_run import inspect
from cherimoya.prepare.prepare import prepare

pytest.importorskip("pybigtools")


@pytest.fixture
def tn5(tmp_path: Path) -> CutGenome:
    return CutGenome(tmp_path, "Tn5")


@pytest.fixture
def dnase(tmp_path: Path) -> CutGenome:
    return CutGenome(tmp_path, "DNase I")


def about(cut: CutGenome, name: str) -> str:
    """The line on the motif in a file."""
    lines = [line for line in cut.said if "motif" in line]
    (line,) = (line for line in lines if line.removeprefix("warning: ").startswith(f"{name}: "))
    return line


def said_of(cut: CutGenome, path: Path, **values) -> str:
    """What a dry run says of the shift of a file."""
    cut.said = []
    inspect(cut.config(path, check=True, **values), cut.said.append)
    return about(cut, path.name)


def refusal(cut: CutGenome, *files: Path, **values) -> str:
    """The error that shift=auto gives; nothing is left behind."""
    output = cut.folder / "refused.h5"
    with pytest.raises(DataError) as raised:
        cut.run(*files, **values, output=str(output))
    assert not list(cut.folder.glob("refused*"))
    return str(raised.value)


@pytest.mark.parametrize(
    ("before", "added"),
    [((0, 0), "+4/-5"), ((4, -5), "0/0"), ((4, -4), "0/-1"), ((5, -5), "-1/0"), ((4, -6), "0/+1")],
)
def test_fragments_in_every_state(tn5: CutGenome, before: tuple, added: str) -> None:
    path = tn5.fragments("cuts.tsv", *before)
    loci = tn5.run(path)
    np.testing.assert_array_equal(loci.signal[:, 0], tn5.counted(loci))
    said = about(tn5, "cuts.tsv")
    assert "Tn5" in said
    if added == "0/0":
        assert said.endswith("no shift")
    else:
        assert said.endswith(f"shift=auto adds {added}")
    assert float(re.search(rf"correlation ([\d.]+) at {re.escape(added)}", said)[1]) > 0.9
    (found,) = loci.provenance["cut_sites"]
    assert (found["enzyme"], found["file"]) == ("Tn5", "cuts.tsv")
    assert found["found"] == [int(bases) for bases in added.split("/")]


def test_reads_in_bam_and_bed(tn5: CutGenome) -> None:
    pytest.importorskip("pysam")
    for path, values in (
        (tn5.bam(), {}),
        (tn5.bam(), {"bam": BAM | {"stranded": True}}),
        (tn5.reads(), {"fragments": KEYS | {"kind": "reads"}}),
    ):
        loci = tn5.run(path, **values)
        np.testing.assert_array_equal(loci.signal.sum(axis=1), tn5.counted(loci))
        assert about(tn5, path.name).endswith("shift=auto adds +4/-4")


def test_dnase(dnase: CutGenome) -> None:
    pytest.importorskip("pysam")
    for path, added in ((dnase.bam(), "shift=auto adds 0/+1"), (dnase.fragments(), "no shift")):
        loci = dnase.run(path)
        np.testing.assert_array_equal(loci.signal[:, 0], dnase.counted(loci))
        assert about(dnase, path.name).endswith(added)
        assert "DNase I" in about(dnase, path.name)
    atac = refusal(dnase, dnase.fragments("as_tn5.tsv", 4, -5))
    assert "-4/+5 from where ends are counted" in atac
    assert "as cuts of Tn5 are and these are not" in atac
    right = dnase.run(dnase.bigwig("dnase.bw"))
    assert about(dnase, "dnase.bw").endswith("no shift")
    np.testing.assert_array_equal(right.signal[:, 0], dnase.counted(right))


def test_a_file_that_is_shifted_twice_is_refused(tn5: CutGenome) -> None:
    twice = tn5.fragments("twice.tsv", 8, -10)
    message = refusal(tn5, twice)
    assert message.startswith(f"signal={twice}: the motif of Tn5 lies -4/+5 from where")
    assert "shifted twice. Give the file as it was before" in message
    assert "leave shift=auto out and set fragments.shift_plus=-4 fragments.shift_minus=5" in message
    taken_back = {"shift_plus": -4, "shift_minus": 5}
    loci = tn5.run(twice, shift="given", fragments=KEYS | taken_back)
    np.testing.assert_array_equal(loci.signal[:, 0], tn5.counted(loci))
    odd = refusal(tn5, tn5.fragments("odd.tsv", 0, -5))
    assert "lies +4/0 from where" in odd
    assert "no known way of shifting" in odd


def test_without_auto_it_warns_and_changes_nothing(tn5: CutGenome) -> None:
    raw, given = tn5.fragments(), {"shift": "given"}
    tn5_keys = KEYS | {"shift_plus": 4, "shift_minus": -5}
    wanted = "Set fragments.shift_plus=4 fragments.shift_minus=-5"
    leave = "Leave fragments.shift_plus and fragments.shift_minus out."
    for before, values, lies, what, fix in (
        ((0, 0), KEYS, "+4/-5", "they are not shifted yet", f"{wanted}, or shift=auto."),
        ((4, -5), tn5_keys, "-4/+5", "they are shifted twice", leave),
        (
            (8, -10),
            tn5_keys,
            "-8/+10",
            "which no known way",
            "shift_plus=-4 fragments.shift_minus=5",
        ),
        ((4, -5), KEYS | {"shift_minus": 1}, "0/-1", "one strand is a base off", leave),
    ):
        said = said_of(tn5, tn5.fragments("x.tsv", *before), fragments=values, **given)
        assert said.startswith(f"warning: x.tsv: the motif of Tn5 lies {lies} from where ends are")
        assert what in said
        assert fix in said
    right = said_of(tn5, raw, fragments=tn5_keys, **given)
    assert right.startswith("cuts.tsv: cuts of Tn5, at the middle of its motif")
    unshifted = tn5.run(raw, **given)
    assert "not shifted yet" in about(tn5, "cuts.tsv")
    at_starts = np.bincount(tn5.ends("chrA")[:, 0], minlength=200_000)
    at_ends = np.bincount(tn5.ends("chrA")[:, 1] + 1, minlength=200_000)
    first = int(unshifted.start[0]) + 50
    np.testing.assert_array_equal(
        unshifted.signal[0, 0], (at_starts + at_ends)[first : first + 300]
    )


def test_a_bigwig_is_looked_at_and_not_shifted(tn5: CutGenome) -> None:
    right, raw = tn5.bigwig("right.bw"), tn5.bigwig("raw.bw", shift=-4)
    loci = tn5.run(right)
    np.testing.assert_array_equal(loci.signal[:, 0], tn5.counted(loci))
    assert about(tn5, "right.bw").endswith("no shift")
    for path in (raw, tn5.bigwig("twice.bw", shift=4)):
        message = refusal(tn5, path)
        assert "not shifted, or twice, which a track of both strands cannot tell" in message
        warned = said_of(tn5, path, shift="given")
        assert warned.startswith(f"warning: {path.name}: the motif of Tn5 lies ")
        assert "A bigWig cannot be shifted here: give its reads or fragments" in warned


def test_a_pair_of_bigwigs_is_plus_and_minus(tn5: CutGenome) -> None:
    for shift, what in ((0, "no shift$"), (-4, r"lies \+4/-4 .* not shifted yet. A bigWig")):
        pair = [
            str(tn5.bigwig(f"{name}.bw", (s,), shift)) for s, name in enumerate(("plus", "minus"))
        ]
        tn5.said = []
        inspect(tn5.config(shift="given", signal=[pair], check=True), tn5.said.append)
        assert re.search(what, about(tn5, "plus.bw and minus.bw"))
        tn5.said = []
        inspect(tn5.config(shift="given", signal=[pair[::-1]], check=True), tn5.said.append)
        assert re.search(what, about(tn5, "plus.bw and minus.bw"))


def test_cuts_of_nothing_known(tmp_path: Path) -> None:
    none = CutGenome(tmp_path, None)
    path = none.fragments()
    message = refusal(none, path)
    assert "shift=auto: its ends show neither the motif of Tn5 nor that of DNase I" in message
    assert "Without shift=auto" in message
    assert "its ends show neither" in said_of(none, path, shift="given")
    none.run(path, shift="given")
    assert not any("motif" in line for line in none.said)
    tn5 = CutGenome(tmp_path, "Tn5")
    loci = tn5.run(tn5.fragments("signal.tsv"), control=[[str(path)]])  # a control may be anything
    assert about(tn5, "cuts.tsv").endswith("ends count as they are")
    np.testing.assert_array_equal(loci.signal[:, 0], tn5.counted(loci))


def test_too_few_cuts(tmp_path: Path) -> None:
    few = CutGenome(tmp_path, "Tn5", each=0.001)
    message = refusal(few, few.fragments())
    assert re.search(
        r"shift=auto: 1\d\d cuts near the loci are too few .* .500 are needed", message
    )
    few.run(few.fragments(), shift="given")


def test_each_file_has_its_own_shift(tn5: CutGenome) -> None:
    pytest.importorskip("pysam")
    files = [
        tn5.fragments("raw.tsv"),
        tn5.fragments("10x.tsv", 4, -5),
        tn5.bam(),
        tn5.bigwig("x.bw"),
    ]
    loci = tn5.run(*files)
    for group in range(4):
        np.testing.assert_array_equal(loci.signal[:, group], tn5.counted(loci))
    found = {one["file"]: one["found"] for one in loci.provenance["cut_sites"]}
    assert found == {"raw.tsv": [4, -5], "10x.tsv": [0, 0], "reads.bam": [4, -4], "x.bw": [0, 0]}


def test_cell_groups_have_the_shift_of_their_file(tn5: CutGenome) -> None:
    raw = tn5.fragments().read_text().splitlines()
    tn5.write("cuts.tsv", "".join(
        line.replace("\tAC\t", f"\tAC{i % 3}\t") + "\n" for i, line in enumerate(raw)
    ))  # fmt: skip
    cells = tn5.write("cells.tsv", "AC0\tone\nAC1\ttwo\nAC2\ttwo\n")
    loci = tn5.run(tn5.folder / "cuts.tsv", fragments=KEYS | {"groups": str(cells)})
    assert loci.signal.shape[1] == 2
    np.testing.assert_array_equal(loci.signal.sum(axis=1), tn5.counted(loci))
    assert about(tn5, "cuts.tsv").endswith("shift=auto adds +4/-5")


def test_a_resumed_preparation_has_the_same_shift(tn5: CutGenome, monkeypatch) -> None:
    path, own, calls = tn5.fragments(), parts.keep, []
    monkeypatch.setattr(parts, "PART", (1, 60))
    whole = tn5.run(path)

    def keep(*arguments) -> None:
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        own(*arguments)

    again = {"output": str(tn5.folder / "again.h5")}
    monkeypatch.setattr(parts, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        tn5.run(path, **again)
    monkeypatch.setattr(parts, "keep", own)
    resumed = tn5.run(path, **again)
    assert any("resuming" in line for line in tn5.said)
    for name, values in whole.arrays().items():
        np.testing.assert_array_equal(values, resumed.arrays()[name])
    assert whole.provenance["cut_sites"] == resumed.provenance["cut_sites"]
    keys = tn5.run(path, shift="given", fragments=KEYS | {"shift_plus": 4, "shift_minus": -5})
    np.testing.assert_array_equal(whole.signal, keys.signal)


def test_an_output_is_up_to_date_with_the_same_key_alone(tn5: CutGenome) -> None:
    path, said = tn5.fragments(), []
    tn5.run(path)
    prepare(tn5.config(path, overwrite=False), said.append)
    assert "up to date" in said[0]
    with pytest.raises(DataError, match="shift was auto, now given"):
        prepare(tn5.config(path, overwrite=False, shift="given"), said.append)


def test_a_shift_is_found_or_given_and_not_both(tn5: CutGenome) -> None:
    path = tn5.fragments()
    for group, usual in (("bam", BAM), ("fragments", KEYS)):
        with pytest.raises(ConfigError, match=rf"shift=auto with {group}\.shift_minus=-4: .*out"):
            tn5.config(path, **{group: usual | {"shift_minus": -4}})
    with pytest.raises(ConfigError, match=r"shift=auto with fragments\.shift_plus=0"):
        check_used(tn5.config(path), {"fragments.shift_plus": 0})  # as it was typed
    with pytest.raises(ConfigError, match="shift=yes"):
        tn5.config(path, shift="yes")


def test_reverse_strands_are_exchanged(toy: Toy) -> None:
    pytest.importorskip("pysam")
    from toy_tracks import bam, counted

    path = bam(toy, ("chrA", 100, 0, 9), ("chrA", 100, 0, 9), ("chrA", 200, 16, 9))
    keys = BAM | {"stranded": True, "shift_plus": 3, "shift_minus": -2}
    assert counted(path, bam=keys) == [{103: 2}, {212: 1}]
    assert counted(path, bam=keys | {"exchange_strands": True}) == [{212: 1}, {103: 2}]
    toy.bed("chrA\t95\t106", "chrA\t205\t216")
    plain = toy.run(signal=[[str(path)]], bam=keys)
    other = toy.run(signal=[[str(path)]], bam=keys | {"exchange_strands": True})
    np.testing.assert_array_equal(plain.signal[:, ::-1], other.signal)
    assert other.track_names == ["reads.plus", "reads.minus"]


def test_many_files(tn5: CutGenome) -> None:
    text = tn5.fragments().read_text()
    files = [tn5.write(f"a_rather_long_name_of_a_sample_{i}.tsv", text) for i in range(60)]
    loci = tn5.run(*files)
    assert [one["found"] for one in loci.provenance["cut_sites"]] == [[4, -5]] * 60
    for group in (0, 59):
        np.testing.assert_array_equal(loci.signal[:, group], tn5.counted(loci))


@pytest.mark.slow
def test_the_command_says_it_and_draws_it(tn5: CutGenome) -> None:
    tn5.fragments()
    given = ["fasta=cut.fa", "loci=cut.bed", "signal=[[cuts.tsv]]", "output=o.h5", "in_window=400"]
    given += ["out_window=300", "background_ratio=0"]
    said = "cuts.tsv: the motif of Tn5 lies +4/-5 from where ends are counted (correlation 1.00 at"
    checked = command("prepare", *given, "shift=auto", "check=true", folder=tn5.folder)
    assert said in checked.stdout, checked.stdout + checked.stderr
    assert not list(tn5.folder.glob("o.*"))
    done = command("prepare", *given, "shift=auto", folder=tn5.folder)
    assert said in done.stdout
    assert "bases at the cuts: o.cuts.png" in done.stdout
    assert sorted(p.name for p in tn5.folder.glob("o.*")) == [
        "o.cuts.png",
        "o.h5",
        "o.h5.done.json",
    ]
    typed = command("prepare", *given, "shift=auto", "fragments.shift_plus=0", folder=tn5.folder)
    assert typed.returncode == 1
    assert "error: shift=auto with fragments.shift_plus=0: " in typed.stdout + typed.stderr


def test_the_cuts_are_drawn(tn5: CutGenome) -> None:
    pytest.importorskip("matplotlib")
    from cherimoya.report.plots.cut_sites import plot_cut_sites

    path = tn5.fragments()
    tn5.run(path, tn5.bigwig("x.bw"))
    plot = plot_cut_sites(tn5.folder / "out.h5")
    assert plot == tn5.folder / "out.cuts.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    mine = tn5.folder / "new.cuts.png"
    mine.write_text("mine")
    with pytest.raises(DataError, match=r"new\.cuts\.png: exists already.*plots=false"):
        tn5.run(path, output=str(tn5.folder / "new.h5"), overwrite=False)
    assert mine.read_text() == "mine"
