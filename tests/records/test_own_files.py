"""No command writes over a file that it did not write itself, unless overwrite=true."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_lines import command, fails
from interpreted import configured, save_model
from run_files import make_run
from toy import Toy

from cherimoya.config.design import DesignConfig
from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.config.predict import PredictConfig
from cherimoya.errors import CherimoyaError, DataError
from cherimoya.inference import genome
from cherimoya.inference.genome import predict_genome
from cherimoya.interpret import attribute as attributing
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.design import design
from cherimoya.interpret.marginalize import marginalize
from cherimoya.interpret.variants import variants
from cherimoya.prepare.dry_run import inspect
from cherimoya.records.overwrite import own_files
from cherimoya.records.sweep import MEMBER
from cherimoya.report.pages import offer_report, write_report
from cherimoya.util.marks import mark_of, measured, read_mark, set_aside, write_sizes
from cherimoya.util.resume import Journal, resumable_output

USUAL = {"checkpoint": ["m.pt"], "fasta": "toy.fa", "device": "cpu"}
WINDOW = {"in_window": 200}
ATTRIBUTED = {"loci": "loci.bed", "data__in_window": 200, "window": 20, "logos": 1, "bigwig": True}
COMMANDS = {
    "attribute": (AttributeConfig, attribute, {**ATTRIBUTED, "output": "x.h5"}),
    "design": (DesignConfig, design,
               {"loci": "loci.bed", "data__in_window": 200, "change": 1.0, "max_iter": 2,
                "attempts": 1, "examples": 1, "output": "x.tsv"}),
    "marginalize": (MarginalizeConfig, marginalize,
                    {"loci": "loci.bed", "data__in_window": 200, "motifs": ["GAT"],
                     "profiles": 1, "output": "x.tsv"}),
    "predict": (PredictConfig, predict_genome, {"loci": "loci.bed", "output": "out", **WINDOW}),
    "variants": (VariantsConfig, variants,
                 {"variants": "v.tsv", "random_variants": 0, "output": "x.tsv", **WINDOW}),
}  # fmt: skip
TRAINED = ("model=tiny", "logger=none", "trainer.device=cpu", "trainer.max_epochs=1",
           "optim.warmup_epochs=0", "data.synthetic.n_peaks=60",
           "data.synthetic.n_background=20")  # fmt: skip

MINE = "trainer: {max_epochs: 3}\nmodel: {}\ndata: {}\n"


@pytest.fixture
def here(toy: Toy, monkeypatch) -> Path:
    monkeypatch.chdir(toy.folder)
    save_model(Path("m.pt"))
    toy.bed("chrA\t1000\t1100", "chrB\t800\t900")
    base = toy.bases["chrA"][899]
    toy.write("v.tsv", f"chrom\tpos\tref\talt\nchrA\t900\t{base}\t{'A' if base != 'A' else 'C'}\n")
    return toy.folder


def work(name: str, **values):
    schema, work, usual = COMMANDS[name]
    return work(configured(name, schema, **(USUAL | usual | values)))


@pytest.mark.parametrize(
    ("name", "file", "fix"),
    [
        ("attribute", "x.counts_0.png", "logos=0"),
        ("attribute", "x.counts_0.bw", "bigwig=false"),
        ("attribute", "x.h5.done.json", "overwrite=true"),
        ("design", "x.edits.tsv", "overwrite=true"),
        ("design", "x.fa", "overwrite=true"),
        ("design", "x.html", "page=false"),
        ("marginalize", "x.png", "profiles=0"),
        ("marginalize", "x.tsv.done.json", "overwrite=true"),
        ("variants", "x.vcf", "vcf=false"),
        ("variants", "x.html", "page=false"),
        ("predict", "out/predictions.h5", "overwrite=true"),
        ("predict", "out/parts/mine.txt", "overwrite=true"),
        ("predict", "out/predictions.json", "overwrite=true"),
    ],
)
def test_files_of_the_users_own_stay(here: Path, name, file, fix, capsys) -> None:
    values = {"format": "hdf5"} if name == "predict" else {}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("mine")
    shown = {p for p in here.rglob("*")}
    with pytest.raises(CherimoyaError, match=fix) as refused:
        work(name, **values)
    assert file.split("/mine")[0] in str(refused.value)
    assert Path(file).read_text() == "mine"
    assert set(here.rglob("*")) == shown
    assert "scored" not in capsys.readouterr().out
    work(name, **values, overwrite=True)
    assert not Path(file).exists() or Path(file).read_bytes() != b"mine"
    work(name, **values)  # its own


def test_a_file_put_in_the_place_of_ours_stays(here: Path) -> None:
    work("attribute")
    work("attribute", logos=2)  # drawn again over our own
    Path("x.counts_0.png").write_text("mine")
    with pytest.raises(DataError, match=r"x\.counts_0\.png: (exists already|changed since)"):
        work("attribute")
    work("attribute", logos=0)
    assert Path("x.counts_0.png").read_text() == "mine"
    work("predict", format="hdf5")
    Path("out/predictions.h5").write_text("mine")
    work("predict", format="hdf5")
    assert Path("out/predictions.h5.damaged").read_text() == "mine"
    assert not list(here.glob(".*"))


def test_after_a_kill_the_files_are_still_ours(here: Path, monkeypatch) -> None:
    real, real_outputs = attributing.write_tracks, genome.write_outputs

    def killed(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(attributing, "write_tracks", killed)
    with pytest.raises(KeyboardInterrupt):
        work("attribute")
    monkeypatch.setattr(attributing, "write_tracks", real)
    work("attribute")
    real = real_outputs
    monkeypatch.setattr(genome, "write_outputs", killed)
    with pytest.raises(KeyboardInterrupt):
        work("predict", format="hdf5")
    monkeypatch.setattr(genome, "write_outputs", real_outputs)
    work("predict", format="hdf5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("attribute", "x.counts_0.png"),
        ("design", "x.fa"),
        ("marginalize", "x.png"),
        ("predict", "out/predictions.h5"),
        ("variants", "x.vcf"),
    ],
)
def test_after_a_kill_a_file_of_the_users_own_stays(here: Path, monkeypatch, name, file) -> None:
    """The folder as it is when the file gets its name, a moment before and after."""
    real, values = os.replace, {"format": "hdf5"} if name == "predict" else {}
    states = [here.with_name(f"{here.name}_{when}") for when in ("before", "after")]

    def replace(source, target):
        is_it = str(target) == file and not states[0].exists()
        if is_it:
            shutil.copytree(here, states[0])
        real(source, target)
        if is_it:
            shutil.copytree(here, states[1])

    with monkeypatch.context() as context:
        context.setattr(os, "replace", replace)
        work(name, **values)
    whole = Path(file).read_bytes()
    for state in states:
        shutil.rmtree(here)
        shutil.copytree(state, here)
        monkeypatch.chdir(here)
        ours = Path(file).read_bytes() if Path(file).exists() else None
        Path(file).write_text("mine")
        with pytest.raises(CherimoyaError, match=f"{Path(file).name}: (exists already|changed)"):
            work(name, **values)
        assert Path(file).read_text() == "mine"
        Path(file).unlink()
        if ours is not None:
            Path(file).write_bytes(ours)
        work(name, **values)
        assert Path(file).read_bytes()[:4] == whole[:4]
        work(name, **values)
        assert not list(Path().glob(".*"))


def test_beside_a_new_table_nothing_of_the_old_one_is_believed(here, monkeypatch, capsys) -> None:
    """Also where the command is stopped between the table and what lies beside it."""
    work("design")
    with monkeypatch.context() as context:
        context.setattr("cherimoya.interpret.design.write_edits", stopped)
        with pytest.raises(KeyboardInterrupt):
            work("design", seed=1, overwrite=True)
    capsys.readouterr()
    work("design", seed=1)
    said = capsys.readouterr().out
    assert "x.edits.tsv: edits" in said
    assert "x.fa: the sequences" in said
    assert "x.html: before and after" in said


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_note_is_kept_until_the_output_is_whole(tmp_path: Path) -> None:
    output, beside = tmp_path / "x.h5", tmp_path / "x.png"
    with own_files(output, {beside: ""}, False):
        beside.write_text("half")
    with own_files(output, {beside: ""}, False):
        pass
    with own_files(output, {beside: ""}, False):
        beside.unlink()  # so that what comes next is not ours
    beside.write_text("mine")
    with pytest.raises(DataError, match="exists already"), own_files(output, {beside: ""}, False):
        pass
    with own_files(output, {beside: ""}, True):
        pass  # it may be written over, and was not
    with pytest.raises(DataError, match="exists already"), own_files(output, {beside: ""}, False):
        pass
    assert not mark_of(output).exists()


def test_a_file_written_over_with_the_bytes_that_it_had_is_ours(here: Path) -> None:
    work("attribute")
    Path("x.h5").unlink()
    Path("x.h5.done.json").unlink()
    with pytest.raises(DataError, match=r"x\.counts_0\.png: exists already"):
        work("attribute")
    drawn = Path("x.counts_0.png").read_bytes()
    work("attribute", overwrite=True)
    assert Path("x.counts_0.png").read_bytes() == drawn
    work("attribute")


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        (tmp_path / "x.h5").write_text(text)
        set_aside(tmp_path / "x.h5", lambda _: None)
    names = ["x.h5.damaged", "x.h5.damaged1", "x.h5.damaged2"]
    assert [(tmp_path / name).read_text() for name in names] == ["first", "second", "third"]


def test_a_folder_that_holds_no_parts_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "x.h5.partial").mkdir()
    (tmp_path / "x.h5.partial" / "mine.txt").write_text("mine")
    made = resumable_output(tmp_path / "x.h5", {}, lambda _: "", print)
    with pytest.raises(DataError, match=r"x\.h5\.partial: exists already"), made:
        pass
    assert (tmp_path / "x.h5.partial" / "mine.txt").read_text() == "mine"


def test_a_kill_while_parts_are_removed_leaves_none_that_stand_in_the_way(tmp_path, monkeypatch):
    output = tmp_path / "x.h5"

    def killed(path, **more):
        (path / "made_from.json").unlink(missing_ok=True)  # the files are removed in any order
        os._exit(9)

    def begin(inputs, end=None):
        with resumable_output(output, inputs, lambda _: "", print) as folder:
            (folder / "peaks-0").mkdir(exist_ok=True)
            (folder / "peaks-0" / "rows").write_text("rows")
            if end:
                raise end

    with pytest.raises(KeyboardInterrupt):
        begin({"fasta": 1}, KeyboardInterrupt())
    for inputs in ({"fasta": 2}, {"fasta": 1}):  # "starts over", and then at its end
        pid = os.fork()
        if not pid:
            monkeypatch.setattr(shutil, "rmtree", killed)
            begin(inputs)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    begin({"fasta": 3})
    assert not list(tmp_path.iterdir())


def test_rows_are_discarded_before_what_says_that_they_are_ours(tmp_path, monkeypatch):
    order, real = [], Path.unlink
    journal = Journal(tmp_path / "x.tsv", {}, (2,))
    monkeypatch.setattr(Path, "unlink", lambda p, **more: (order.append(p), real(p, **more)))
    with journal:
        pass
    assert order[0] == tmp_path / "x.tsv.partial"
    assert len(order) == 2


def test_preparing_leaves_a_plot_that_it_did_not_draw(toy: Toy) -> None:
    toy.bed("chrA\t1000\t1100", "chrA\t500\t510")
    plot = toy.folder / "out.gc.png"
    plot.write_text("mine")
    values = {"background_ratio": 1, "gc_bin": 1.0, "overwrite": False, "plots": True}
    with pytest.raises(DataError, match=r"out\.gc\.png: exists already.*plots=false"):
        toy.run(**values)
    said: list[str] = []
    inspect(toy.config(**values), said.append)
    assert any("would be refused" in line and "out.gc.png: exists" in line for line in said)
    toy.run(**values | {"plots": False})
    toy.run(**values)  # up to date
    assert plot.read_text() == "mine"
    (toy.folder / "out.h5").unlink()
    (toy.folder / "out.h5.done.json").write_text("mine")
    with pytest.raises(DataError, match=r"out\.h5\.done\.json: exists already"):
        toy.run(**values | {"plots": False})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.yaml", MINE),
        ("report.html", "<h1>mine</h1>"),
        ("status.json", "{}"),
        ("test_loci.tsv", "mine"),
        ("plots/counts.png", "mine"),
        ("checkpoints/best.pt", "mine"),
        (".lock", "mine"),
    ],
)
def test_a_run_leaves_what_no_run_wrote(tmp_path: Path, file, text) -> None:
    path = tmp_path / "r" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    fails(command("train", *TRAINED, "hydra.run.dir=r", folder=tmp_path), f"r/{file}:")
    assert path.read_text() == text
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_the_runs_of_a_sweep_do_too(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"seed={seed}").mkdir()
    (tmp_path / "seed=1" / "config.yaml").write_text(MINE)
    (tmp_path / "seed=2" / "test_loci.tsv").write_text("mine")
    done = command("train", *TRAINED, "-m", "seed=0,1,2", "hydra.sweep.dir=.", folder=tmp_path)
    fails(done, "2 of 3 runs cannot be, so none has begun", "seed=2/test_loci.tsv: exists already")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


@pytest.mark.slow
def test_a_member_whose_configuration_was_removed_goes_on(tmp_path: Path) -> None:
    """As the message on a damaged one says."""
    words = [*TRAINED, "trainer.plots=false", "-m", "seed=0,1", "hydra.sweep.dir=."]
    assert command("train", *words, folder=tmp_path).returncode == 0
    member = tmp_path / "seed=1"
    before = (member / "config.yaml").read_text()
    rows = (member / "metrics.jsonl").read_text()
    for name in ("summary.json", "test_loci.tsv", "checkpoints/final.pt"):  # as if interrupted
        (member / name).unlink(missing_ok=True)
    state = json.loads((member / "status.json").read_text())
    (member / "status.json").write_text(json.dumps(state | {"state": "interrupted"}))
    (member / "config.yaml").unlink()
    done = command("train", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (member / "config.yaml").read_text() == before
    assert (member / "metrics.jsonl").read_text() == rows
    assert (member / "summary.json").is_file()


def test_a_full_disk_is_named_where_hydra_writes(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "seed=0").mkdir(parents=True)  # one of its runs
    (tmp_path / "sweep" / "seed=0" / MEMBER).write_text("{}")
    (tmp_path / "sweep" / "multirun.yaml").symlink_to("/dev/full")
    words = ("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    done = command("train", *TRAINED, *words, folder=tmp_path)
    fails(done, "sweep: No space left on device. Free space there, or choose another folder")


@pytest.mark.parametrize("file", ["sweep.json", "multirun.yaml", "report.html"])
def test_a_sweep_leaves_what_no_sweep_wrote(tmp_path: Path, file) -> None:
    words = ("-m", "seed=0,1", "hydra.sweep.dir=.")
    (tmp_path / file).write_text(json.dumps({"mine": 1}))
    fails(command("train", *TRAINED, *words, folder=tmp_path), f"{file}: exists already")
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_page_is_made_over_a_page_of_ours_alone(tmp_path: Path, capsys) -> None:
    page = write_report(make_run(tmp_path))
    write_report(tmp_path)
    page.write_text("<footer>Made 2025-11-25 by cherimoya-train 0.1 from the files of this folder.")
    offer_report(tmp_path)
    assert "<html" in page.read_text()
    page.write_text("mine")
    with pytest.raises(DataError, match=r"report\.html: exists already.* Move it away"):
        write_report(tmp_path)
    offer_report(tmp_path)
    assert "report.html: exists already" in capsys.readouterr().out
    assert page.read_text() == "mine"
    write_report(tmp_path, overwrite=True)
    assert "<html" in page.read_text()


@pytest.mark.parametrize("name", ["design", "marginalize", "variants"])
def test_a_note_that_a_kill_left_goes(here: Path, name) -> None:
    """As if killed when the output was whole, and its mark did not say what is beside it."""
    work(name)
    output = Path("x.tsv")
    beside = {
        "variants": ("x.vcf", "x.html"),
        "marginalize": ("x.png",),
        "design": ("x.edits.tsv", "x.fa", "x.html"),
    }[name]
    mark = read_mark(mark_of(output))
    write_sizes(mark_of(output), {"settings": mark.facts["settings"]}, mark.files)
    write_sizes(Path(".x.tsv.written.json"), {}, {name: measured(Path(name)) for name in beside})
    work(name)
    again = read_mark(mark_of(output))
    assert again.files == mark.files
    assert again.facts["beside"].keys() == mark.facts["beside"].keys()
    assert not list(here.glob(".*"))
