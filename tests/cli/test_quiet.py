"""--quiet leaves results, warnings and errors; --log-level and its variable say how much else."""

import pickle

import pytest
from command_lines import command
from models import model
from toy import Toy

from cherimoya.cli.level import without_level
from cherimoya.errors import ConfigError
from cherimoya.util import console

PROGRESS = ("\nepoch 0", "device ", "of training, at most", "=== seed=")
SCORES = ("best epoch", "profile_pearson", "run  ", "report  ")


def said(done) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_a_training(cherimoya_train, train_arguments):
    """Its scores and where they are; of a longer network also the warning, and nothing else."""
    once = [*train_arguments, "trainer.max_epochs=1", "trainer.plots=true"]
    loud = said(cherimoya_train(*once, "hydra.run.dir=loud"))
    assert all(word in loud for word in (*PROGRESS[:2], *SCORES))
    quiet = said(cherimoya_train("--quiet", *once, "hydra.run.dir=quiet"))
    assert not any(word in quiet for word in PROGRESS)
    assert all(word in quiet for word in SCORES)
    deep = [*once, "model.n_layers=12"]
    warned = said(cherimoya_train("--log-level=warning", *deep, "hydra.run.dir=warned"))
    assert warned.startswith("  warning   dilation 256, 512, 1024, 2048")
    assert warned.count("\n") == 1
    by_variable = cherimoya_train(*deep, "hydra.run.dir=error", CHERIMOYA_LOG_LEVEL="error")
    assert said(by_variable) == ""
    refused = cherimoya_train("--quiet", "--log-level", "error", "model.n_layer=3")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Did you mean model.n_layers?" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "packed", "processes"])
def test_a_sweep(cherimoya_train, train_arguments, tmp_path, launcher):
    """Its table alone; the processes of its members say all of it to their own files."""
    arguments = [*train_arguments, "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    words = ["-m", "--quiet", f"hydra/launcher={launcher}", *arguments, "seed=0,1"]
    quiet = said(cherimoya_train(*words))
    assert quiet.startswith("\n=== sweep sweep: 2 runs\nrun  ")
    assert quiet.count("=== ") == 1
    assert not any(word in quiet for word in (*PROGRESS, "best epoch", "start  "))
    if launcher == "processes":
        log = (tmp_path / "sweep" / "seed=1" / "output.log").read_text()
        assert all(word in log for word in (*PROGRESS[:2], "best epoch"))


def test_a_prediction_and_a_preparation(toy: Toy):
    """The files that were written, and what became of loci that were left out."""
    toy.fasta()
    model().save(toy.folder / "model.pt")
    words = ["checkpoint=model.pt", "fasta=toy.fa", "in_window=100"]
    loud = said(command("predict", *words, "output=loud", folder=toy.folder))
    quiet = said(command("predict", "--quiet", *words, "output=quiet", folder=toy.folder))
    assert "writing ..." in loud
    lines = quiet.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("written      quiet/track_") for line in lines)
    again = command("predict", "--quiet", *words, "output=quiet", folder=toy.folder)
    assert said(again) == "done already: quiet\n"
    toy.bed("chrA\t5\t6", "chrA\t1000\t1001")
    words = [
        "fasta=toy.fa", "loci=loci.bed", "signal=[[plus.bw,minus.bw]]", "output=o.h5",
        "in_window=100", "out_window=60", "max_jitter=8", "background_ratio=0", "plots=false",
    ]  # fmt: skip
    lines = said(command("prepare", *words, "--quiet", folder=toy.folder)).splitlines()
    assert "1 locus is left out because its window" in lines[0]
    assert lines[-1].startswith("o.h5: 1 ")


@pytest.mark.slow
def test_commands_without_a_configuration(cherimoya_train, train_arguments, tmp_path):
    done = command("doctor", "--quiet", folder=tmp_path)
    assert said(done) == "result        all that every command needs is there\n"
    for name in ("report", "doctor"):
        assert "--log-level LEVEL" in said(command(name, "--help"))
    cherimoya_train(*train_arguments, "trainer.max_epochs=1", "hydra.run.dir=run")
    report = command("report", "run", "--quiet", folder=tmp_path)
    assert said(report) == "run/report.html\n"


@pytest.mark.parametrize("name", ["train", "predict", "sweep", "doctor"])
def test_a_level_that_is_none(name):
    refused = command(name, "--log-level", "loud")
    assert refused.returncode
    assert "--log-level=loud: must be one of info, result, warning, error" in refused.stderr
    refused = command(name, CHERIMOYA_LOG_LEVEL="7")
    assert "CHERIMOYA_LOG_LEVEL=7: must be one of info, result" in refused.stderr


def test_the_last_flag_counts_and_other_words_stay(monkeypatch):
    monkeypatch.setenv(console.LEVEL, "error")
    words = ["--log-level", "info", "a=--quiet", "-m", "--log-level=warning"]
    before = console.LOGGER.level
    try:
        assert without_level(words) == ["a=--quiet", "-m"]
        assert console.LOGGER.level == console.LEVELS["warning"]
        with pytest.raises(ConfigError, match="--log-level=: must be one of"):
            without_level(["--log-level"])
    finally:
        console.LOGGER.setLevel(before)


def test_a_message_keeps_its_level_on_its_way_through_processes():
    for message in (console.result("a"), console.warning("b"), console.like("c", "d")):
        copy = pickle.loads(pickle.dumps(message))
        assert (copy, copy.level) == (message, message.level)
