"""Words of a command line: names as people type them, keys that do nothing, and dead ends."""

import shlex
import stat
import subprocess
import time

import pytest
from command_lines import TRAIN, clean_environment, fails, unprivileged
from configs import composed, made_of

from cherimoya.config.command_line import (
    checked_arguments,
    flag,
    one_word_each,
    parse,
    quotable,
    readable,
)
from cherimoya.config.predict import PredictConfig
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records import sweep as sweeps
from cherimoya.sweeps import status

NAMES = [
    "hg38(p14).fa", "a=b.fa", "x&y.fa", "x~1.fa", "run#2.fa", "a!b.fa", "a;b.fa", "it's.fa",
    "[x].fa", "x[1].fa", "{x}.fa", "{x}", "a{1,2}.fa", "génome.fa", "基因.fa", "a,b.fa", 'a"b.fa',
    "a b.fa", "a  b.fa", "1e5", "1_000", "007", "true", "nan", "x^y`z<w>.fa", "a\\b(1).fa", "(a",
    "range(1,3)", "a$b.fa", "a%b@c+d?e|f*g.fa", "-a(1)", "a'b'.fa", "x(,y.fa", "end(1)\\",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_as_it_is_typed(name):
    for word in (f"fasta={name}", f"+fasta={name}"):
        assert parse(readable(word, PrepareConfig, several=False)).value() == name


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("a,b.fa", "(a", "x(,y.fa")])
def test_names_in_lists_are_read_as_they_are_typed(name):
    word = readable(f"signal=[[{name},plus.bw],[b(2).bw, {name}]]", PrepareConfig, several=False)
    assert parse(word).value() == [[name, "plus.bw"], ["b(2).bw", name]]


@pytest.mark.parametrize("name", ["A", "T cell", "CD4+ (naive)", "a=b", "1", "x.y-2|3", "T  c"])
def test_groups_with_names_are_read_as_they_are_typed(name):
    text = f"signal={{{name}: [a(1).bw,b c.bw],B:[[x].bw]}}"
    word = readable(text, PrepareConfig, several=False)
    found = {str(key): value for key, value in parse(word).value().items()}
    assert found == {name: ["a(1).bw", "b c.bw"], "B": ["[x].bw"]}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("range(1,3)", "a,b.fa")])
def test_one_name_where_a_list_may_be(name):
    assert parse(readable(f"loci={name}", PrepareConfig, several=False)).value() == name


@pytest.mark.parametrize("name", [*NAMES, "${x}.fa", "a(${b}", "~/a", '"a"', "\\${x}"])
def test_the_form_that_a_message_proposes_gives_the_name(name):
    (word,) = shlex.split(quotable("fasta", name))
    given = parse(word).value().replace(r"\${", "${")
    assert given == name or "\\$" in name
    assert parse(readable(word, PrepareConfig, several=False)).value() == parse(word).value()


def test_home_is_expanded_where_bash_does_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    word = readable("fasta=~/g.fa", PrepareConfig, several=False)
    assert parse(word).value() == "/home/me/g.fa"
    word = readable("signal=[[~/a.bw,~/b(1).bw]]", PrepareConfig, several=False)
    assert parse(word).value() == [["/home/me/a.bw", "/home/me/b(1).bw"]]


@pytest.mark.parametrize("word", [
    "fasta=${oc.env:HOME}/g.fa", "fasta=null", 'fasta="x(1)"', "fasta='x, y'", "in_window=2114",
    "signal=[]", "exclude=[a.bed,b.bed]", "bam.stranded=true", "hydra.run.dir=out/${now:%Y-%m-%d}",
    "in_window=3)", "bam={stranded: true}",
])  # fmt: skip
def test_what_hydra_reads_right_stays(word):
    assert readable(word, PrepareConfig, several=False) == word


def test_a_comma_is_two_values_where_there_can_be_two():
    with pytest.raises(ConfigError, match=r"Write a list: 'loci=\[a.bed,b.bed\]'") as error:
        readable("loci=a.bed,b.bed", PrepareConfig, several=False)
    (form,) = shlex.split(str(error.value).rpartition("comma: ")[2])
    assert parse(form).value() == "a.bed,b.bed"
    with pytest.raises(ConfigError, match=r"Write a list: 'checkpoint=\[a,b\]'"):
        readable("checkpoint=a,b", PredictConfig, several=False)
    word = readable("data.path=a.h5,b(1).h5", TrainConfig, several=True)
    assert [parse(f"x={v}").value() for v in parse(word).sweep_string_iterator()] == [
        "a.h5", "b(1).h5",
    ]  # fmt: skip


def test_a_name_with_a_comma_that_is_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.h5", "c(1),d.h5"):
        (tmp_path / name).write_text("")
        for schema, key, wanted in [
            (PrepareConfig, "loci", name), (PredictConfig, "checkpoint", name),
            (TrainConfig, "data.path", name),
        ]:  # fmt: skip
            assert parse(readable(f"{key}={name}", schema, several=True)).value() == wanted
        word = readable(f"loci=[{name},x.bed]", PrepareConfig, several=False)
        assert parse(word).value() == [name, "x.bed"]
    (tmp_path / "a").write_text("")
    (tmp_path / "b.h5").write_text("")  # now each is a file, and so are both together
    word = readable("loci=[a,b.h5]", PrepareConfig, several=False)
    assert parse(word).value() == ["a", "b.h5"]


@pytest.mark.parametrize("key", ["bias_model.blocks", "bias_model/blocks"])
def test_bias_models_have_their_own_blocks(key):
    (word,) = checked_arguments([f"{key}=bpnet"], TrainConfig, False)
    values = composed("train", [word])
    assert values["bias_model"]["blocks"] == {"name": "bpnet"}
    assert values["model"]["blocks"]["name"] == "cheri"


def test_flags_keep_their_values():
    words = one_word_each(["-cd", "a=b", "-m", "--config-name", "x=y", "-c=job", "seed=1", "-cn"])
    assert words == ["-cd=a=b", "-m", "--config-name=x=y", "-c=job", "seed=1", "-cn"]
    assert flag(words, "--config-dir") == "a=b"
    assert flag(words, "--cfg") == "job"
    assert flag(words, "--multirun") == ""
    assert flag(words, "--info") is None


HDF5 = ["data=hdf5", "data.path=x.h5", "data.validation_chroms=[a]", "data.test_chroms=[b]"]
IDLE = [
    (["data.path=my.h5"], "data=hdf5 data.path=my.h5"),
    (["data.source=synthetic", "data.path=my.h5"], "data=hdf5 data.path=my.h5"),
    (["data.keys={sequence: X, signal: y, control: null, label: null, chrom: null}"], "data=hdf5"),
    ([*HDF5, "data.cache_dir=/x"], "data=synthetic data.cache_dir=/x"),
    ([*HDF5, "+data.synthetic.seed=1", "+data.synthetic.n_chromosomes=3",
      "+data.synthetic.n_peaks=8", "+data.synthetic.n_background=8",
      "+data.synthetic.mean_count=8"], "data=synthetic data.synthetic.seed=1"),
    (["loss.count_weight=1000"], "loss=fixed loss.count_weight=1000"),
    (["loss.profile_weight=2"], "loss=fixed loss.profile_weight=2"),
    (["loss=fixed", "loss.freeze_below=0.1"], "loss=kendall loss.freeze_below=0.1"),
    (["optim.sgd={lr: 0.1, momentum: 0.9}"], "optim=muon_adamw_sgd"),
    (["optim.warmup_epochs=0", "optim.warmup_start=0.1"], "optim.warmup_epochs=1"),
    (["optim.ema_decay=0", "optim.ema_warmup=false"], "optim.ema_decay=0.999"),
    (["optim.muon.schedule=constant", "optim.adamw.schedule=constant", "optim.min_lr=0.1"],
     "optim.adamw.schedule=cosine"),
    (["optim.adamw.weight_decay=0", "optim.adamw.decay_1d=false"], "optim.adamw.weight_decay=0.2"),
    (["optim=muon_adamw_sgd", "loss=fixed", "optim.sgd.lr=0.1"], "loss=kendall optim.sgd.lr=0.1"),
    (["optim=recommended", "loss=poisson", "optim.sgd.momentum=0"], "loss=kendall"),
    (["trainer.min_improvement=0.01"], "trainer.early_stopping=5"),
    *[(["logger=none", f"logger.{key}"], "logger=wandb") for key in (
        "project=x", "mode=offline", "run_name=x", "group=x", "tags=[x]", "log_model=best")],
]  # fmt: skip


@pytest.mark.parametrize(("words", "fix"), IDLE, ids=lambda value: str(value)[:40])
def test_a_key_that_does_nothing_is_refused_with_what_would(words, fix):
    (message, *_) = made_of(words).without_effect().values()
    assert words[-1].split("=")[0].lstrip("+").split(".")[0] in message
    assert " does nothing: " in message
    assert fix in message


@pytest.mark.parametrize("words", [
    HDF5, ["data.synthetic.seed=3"], ["loss=fixed", "loss.count_weight=9"], ["data.path=null"],
    ["optim=muon_adamw_sgd", "optim.sgd.lr=0.1"], ["logger=none"], ["optim.sgd=null"],
    ["experiment=recommended", *HDF5, "loss=fixed"],
    ["experiment=recommended", *HDF5, "optim.adamw.weight_decay=0"],
    ["optim.muon.schedule=constant", "optim.min_lr=0"],
    ["experiment=yeast_atac", "logger=none"], ["experiment=yeast_atac", "data=synthetic"],
    ["experiment=yeast_atac", "data=synthetic", "data.keys=null"], ["sweep=depth_width"],
    ["data=hdf5", *HDF5, "experiment=upstream_0_3"], ["data.source=hdf5", *HDF5[1:]],
], ids=str)  # fmt: skip
def test_keys_that_do_something_are_accepted(words):
    made = made_of(words)
    assert made.without_effect() == {}
    made.check_files()


@pytest.fixture
def train_here(cherimoya_train, tmp_path):
    """Runs cherimoya-train with experiment files of the folder `mine`."""

    def write(name, text):
        folder = tmp_path / "mine" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}")

    def run(*arguments, **environment):
        return cherimoya_train("--config-dir", "mine", *arguments, **environment)

    run.write = write
    return run


@pytest.mark.slow
def test_a_file_that_sets_a_key_without_effect_is_refused(train_here, tmp_path):
    train_here.write("heavy", "loss:\n  count_weight: 1000\n")
    done = train_here("experiment=heavy")
    fails(done, "experiment=heavy sets loss.count_weight=1000, which does nothing", "loss=fixed")
    assert not (tmp_path / "outputs").exists()
    shown = train_here("experiment=heavy", "loss=fixed", "--cfg", "job")
    assert "count_weight: 1000" in shown.stdout
    train_here.write("named", "logger:\n  wandb:\n    project: ours\n")
    assert train_here("experiment=named", "logger=none", "--cfg", "job").returncode == 0
    train_here.write("older", "logger:\n  project: ours\n")
    fails(train_here("experiment=older"), "logger.project is logger.wandb.project now")


@pytest.mark.slow
def test_a_sweep_may_have_members_in_which_a_key_does_nothing(cherimoya_train):
    fails(cherimoya_train("-m", "seed=0,1", "data.path=x.h5"), "Set data=hdf5 data.path=x.h5")
    both = cherimoya_train("-m", "loss=kendall,fixed", "loss.count_weight=3", "seed=-1")
    assert "seed=-1" in both.stderr
    assert "does nothing" not in both.stderr
    swept = cherimoya_train("-m", "loss=kendall,fixed", "loss.count_weight=3,4")
    fails(swept, "2 of 4 runs cannot be", "loss=kendall has no such setting")


@pytest.mark.parametrize(("words", "notes"), [
    (["experiment=yeast_atac", "model=tiny"], [
        "model=tiny has 8. To have that, add model.n_filters=8", "add model.n_layers=4"]),
    (["experiment=yeast_atac", "model=tiny", "model.n_filters=4"], ["add model.n_layers=4"]),
    (["experiment=yeast_atac", "model=tiny", "model.n_filters=4", "model.n_layers=4"], []),
    (["experiment=yeast_atac"], []),
    (["model=tiny"], []),
    (["experiment=yeast_atac", "trainer=cpu"], [
        "add trainer.max_epochs=20", "add trainer.batch_size=64"]),
    (["experiment=yeast_atac", "optim=adamw"], ["add optim.warmup_epochs=5"]),
    (["experiment=yeast_atac", "data=hdf5"], [
        "validation_chroms=[chrXVI], where data=hdf5 has null", "data.test_chroms=null",
        "add data.negative_ratio=0.1"]),
    (["sweep=depth_width_small", "trainer=auto"], [
        "sweep=depth_width_small sets trainer.max_epochs=4"]),
    (["experiment=upstream_0_3", "loss=fixed"], []),
], ids=str)  # fmt: skip
def test_what_a_recipe_changes_of_what_was_typed_is_said(words, notes):
    said = list(made_of([*words, *needed(words)]).overruled())
    assert len(said) == len(notes)
    assert all(any(note in each for each in said) for note in notes)


def needed(words):
    """What the recipes that read a file need besides."""
    return HDF5[1:] if "experiment=upstream_0_3" in words else []


def test_the_note_is_said_once_and_its_word_works(cherimoya_train):
    words = ["--cfg", "job", "experiment=yeast_atac", "model=tiny", "model.n_filters=4"]
    done = cherimoya_train(*words)
    assert "n_layers: 9" in done.stdout
    assert done.stderr.count("note:") == 1
    done = cherimoya_train(*words, done.stderr.split()[-1])
    assert "n_layers: 4" in done.stdout
    assert not done.stderr


DEAD_ENDS = [
    (["optim.sgd.lr=0.1"], [
        "optim.routing sends no parameter to sgd", "Set optim=muon_adamw_sgd optim.sgd.lr=0.1"]),
    ([*HDF5, "data.synthetic.seed=1"], ["data=hdf5 reads a file"]),
    ([*HDF5, "data.keys.sequence=X"], ["'data.keys={sequence: ..., signal: ..., "]),
    (["hydra.launcher.processes=3"], ["Set hydra/launcher=processes too"]),
    (["model=tinny"], ["there is no such option. Did you mean tiny?", "of your own needs --con"]),
    (["--config-name", "absent"], ["there is no absent.yaml", "--config-dir=<folder>"]),
    (["--config-dir", ".", "--config-name", "part"], ["part.yaml lacks", "[train, _self_]"]),
    (["--config-dir", ".", "--config-name", "part", "-m", "seed=0,1"], ["experiment/part.yaml"]),
    (["data=hdf5", "data.path=${oc.env:ABSENT}/x.h5"], ["variable ABSENT is not set"]),
    (["data=hdf5", "data.path=${x}.h5"], ["'data.path=\"\\${x}.h5\"'"]),
    (["-m", "seed=0,1", "--cfg", "job"], ["--cfg shows the configuration of one run"]),
    (["model.n_filters=-1", "--cfg", "job"], ["model.n_filters=-1: must be at least 1"]),
    (["loss.count_weight=9", "--cfg", "job"], ["loss=fixed loss.count_weight=9"]),
    (["data=hdf5", "data.path=a,b.h5"], ["Add -m", "'data.path=\"a,b.h5\"'"]),
]  # fmt: skip
MORE_DEAD_ENDS = [
    (["optim=adamw", "optim.muon.lr=0.1"], ["Set optim=muon_adamw optim.muon.lr=0.1"]),
    (["data.keys.sequence=X"], ["data=synthetic simulates its data"]),
    (["data=hdf5", "data.synthetic.seed=1"], ["Set data=synthetic too"]),
    (["data=hdf5", "data.keys.sequence=X"], ["'data.keys={sequence: ..., signal: ..., "]),
    (["--config-dir", ".", "--config-name", "part", "--cfg", "job"], ["[train, _self_]"]),
    (["hydra.run.dir=${oc.env:ABSENT}"], ["variable ABSENT is not set"]),
    (["-m", "seed=0,1", "hydra.sweep.dir=${oc.env:ABSENT}"], ["variable ABSENT is not set"]),
    (["data=hdf5", "trainer.batch_size=0", "--cfg", "job"], ["trainer.batch_size=0"]),
    (["data=hdf5", "data.path=a(1),b.h5"], ["Add -m", "'data.path=\"a(1),b.h5\"'"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [*DEAD_ENDS, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_DEAD_ENDS)],
    ids=lambda value: " ".join(value)[:50],
)
def test_a_dead_end_says_the_way_out(cherimoya_train, tmp_path, words, said):
    (tmp_path / "part.yaml").write_text("model:\n  n_filters: 16\n")
    done = cherimoya_train(*words)
    fails(done, *said)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("**/status.json"))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_the_ways_out_work(cherimoya_train, tmp_path):
    (tmp_path / "part.yaml").write_text("defaults: [train, _self_]\nmodel:\n  n_filters: 16\n")
    done = cherimoya_train("--config-dir", ".", "--config-name", "part", "--cfg", "job")
    assert "n_filters: 16" in done.stdout
    assert not done.stderr
    for words, way in [
        (["optim.sgd.lr=0.1"], "optim=muon_adamw_sgd"),
        (["hydra.launcher.processes=3"], "hydra/launcher=processes"),
    ]:
        assert cherimoya_train(*words, way, "--cfg", "job").returncode == 0
    done = cherimoya_train("data=hdf5", r'data.path="\${x}.h5"', "--cfg", "job", "--resolve")
    assert "path: ${x}.h5" in done.stdout
    done = cherimoya_train("data=hdf5", "--cfg", "job")  # what has no value yet may be missing
    assert "path: ???" in done.stdout
    assert done.returncode == 0


def test_shell_completion_can_be_installed(cherimoya_train, tmp_path):
    done = cherimoya_train("-sc", "install=bash")
    assert "complete" in done.stdout
    assert not done.stderr
    line = "cherimoya-train model="
    done = cherimoya_train("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert "model=tiny" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_slurm_is_asked_for_where_there_is_none(cherimoya_train, tmp_path):
    pytest.importorskip("submitit")
    words = ["-m", "seed=0,1", "hydra/launcher=slurm", "hydra.sweep.dir=s"]
    done = cherimoya_train(*words, PATH=str(tmp_path))
    fails(done, "there is no sbatch here", "hydra/launcher=processes", "cherimoya-sweep slurm")
    assert not (tmp_path / "s").exists()
    assert not done.stdout


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_a_folder_that_may_not_be_written(tmp_path, train_arguments, words):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        done = subprocess.run(
            [*unprivileged(), *TRAIN, *words, *train_arguments], cwd=tmp_path,
            env=clean_environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    fails(done, "Permission denied. Ask its owner", "hydra.run.dir=<folder>")


@pytest.mark.parametrize("word", [
    "data.path=absent.h5", "data.test_chroms=[sim7]", "loss.count_weight=2", "data.in_window=900",
    *(pytest.param(word, marks=pytest.mark.slow) for word in (
        "trainer.batch_size=4000", "model.signal_groups=[1]", "trainer.device=cuda",
        "model.trimming=3")),
])  # fmt: skip
def test_a_typo_leaves_no_folder(cherimoya_train, train_arguments, tmp_path, word):
    done = cherimoya_train(*train_arguments, word)
    fails(done)
    assert not done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_else_is_in_the_folder_of_a_run_that_cannot_be_stays(
    cherimoya_train, train_arguments, tmp_path
):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "notes.txt").write_text("mine")
    done = cherimoya_train(*train_arguments, "trainer.batch_size=4000", "hydra.run.dir=r")
    fails(done, "only full batches")
    assert "report" not in done.stdout
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_sweep_is_known_to_be_at_work_from_its_first_run_to_its_last(tmp_path, train_arguments):
    words = ["-m", *train_arguments, "seed=0,1", "trainer.max_epochs=1", "hydra.sweep.dir=s"]
    sweep = subprocess.Popen(
        [*TRAIN, *words], cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL
    )
    between = 0
    while not list(tmp_path.glob("s/*/status.json")) and sweep.poll() is None:
        time.sleep(0.01)
    while (tmp_path / "s" / "seed=1" / "summary.json").exists() is False and sweep.poll() is None:
        states = [member.state for member in sweeps.read_sweep(tmp_path / "s")]
        between += "running" not in states
        assert status.anything_runs(tmp_path / "s"), states
        time.sleep(0.01)
    assert between
    assert sweep.wait(60) == 0
    assert sweeps.processes(tmp_path / "s") == []


def test_errors_of_the_program_itself_are_not_hidden():
    from cherimoya.cli.hydra_errors import in_words

    assert in_words(ValueError("x"), "train", [], TrainConfig) is None
    assert in_words(FileNotFoundError(2, "gone", "x"), "train", [], TrainConfig) is None
    assert isinstance(
        in_words(PermissionError(13, "denied", "/x"), "train", [], TrainConfig),
        CherimoyaError,
    )


def test_a_file_that_is_no_yaml_is_named(cherimoya_train, tmp_path):
    (tmp_path / "c" / "experiment").mkdir(parents=True)
    (tmp_path / "c" / "experiment" / "mine.yaml").write_text("model:\n  n_layers: [\n")
    (tmp_path / "c" / "bad.yaml").write_text("a: [1\n")
    for words, name in ((["experiment=mine"], "mine.yaml"), (["--config-name", "bad"], "bad.yaml")):
        done = cherimoya_train("--config-dir", "c", *words)
        assert done.returncode == 1
        assert "error: a configuration file is no YAML" in done.stderr
        assert f'{name}", line' in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "lists"),
    [
        (["data.fold=0"], None),
        (["experiment=yeast_atac", "data.path=a.h5", "data.fold=2"], None),
        (["data=hdf5", "data.path=a.h5", "data.leave_out=chr1"], None),
        (["+data.fold=1"], None),
        (["data.fold=null"], ["sim9", "sim10"]),
    ],
)
def test_a_typed_fold_takes_the_place_of_a_recipes_lists(words, lists):
    data = made_of(words).values["data"]
    assert data["test_chroms"] == lists
    assert (data["validation_chroms"] is None) == (lists is None)


def test_a_fold_and_lists_that_are_both_typed_are_refused():
    with pytest.raises(ConfigError, match="two ways to split"):
        made_of(["data.fold=0", "data.test_chroms=[sim1]"])
