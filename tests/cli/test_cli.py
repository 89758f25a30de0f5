"""The command line: help at once, every mistake one message, every job of a sweep its turn."""

import errno
import json
import re
import signal
import socket
import time

import h5py
import pytest
from command_lines import command, fails

from cherimoya.cli import commands
from cherimoya.errors import CherimoyaError

SECONDS = 10  # within which a mistake must be reported


def timed(run, *arguments, **environment):
    start = time.monotonic()
    done = run(*arguments, **environment)
    assert time.monotonic() - start < SECONDS
    return done


@pytest.mark.parametrize(
    ("arguments", "equals"), [(["--help"], "="), (["-h"], "="), (["--cfg", "job"], ": ")]
)
def test_help_and_configuration_are_printed(cherimoya_train, arguments, equals, tmp_path):
    done = cherimoya_train(*arguments, "model.n_layers=3")
    assert done.returncode == 0
    assert f"n_filters{equals}96" in done.stdout
    assert f"n_layers{equals}3" in done.stdout
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []


def slow(*cases: tuple[str, str]) -> list:
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("model.n_filter=3", "unknown key model.n_filter. Did you mean model.n_filters?"),
        ("+model.n_filter=3", "Did you mean model.n_filters?"),
        ("~trainer.batchsize", "Did you mean trainer.batch_size?"),
        ("model.n_layers=-4", "model.n_layers=-4: must be at least 1"),
        ("model.n_filters=abc", "model.n_filters=abc: expected a whole number"),
        ("seed=true", "seed=True: expected a whole number"),
        ("optim.muon=null", "sends 'matrices' to muon, but optim.muon is null"),
        ("trainer.device=gpu", "must be one of auto, cpu, cuda"),
        ("trainer.device=cuda", "torch sees no GPU"),
        ("trainer.precision=bf16", "but the CPU does not have it"),
        ("data.test_chroms=[chr7]", "data.test_chroms names chr7, which"),
        ("data.path=absent.h5", "absent.h5"),
        ("trainer.batch_size=4000", "only full batches are used"),
        ("model.signal_groups=[1]", "model.signal_groups=[1], but"),
        ("trainer.resume=absent", "trainer.resume=absent: no run there"),
        ("model.n_filters", ""),
        *slow(
            ("++trainer.max_epoch=3", "Did you mean trainer.max_epochs?"),
            ("n_layers=4", "Did you mean model.n_layers?"),
            ("modle=tiny", "Did you mean model?"),
            ("model.n_filters=9.5", "model.n_filters=9.5: expected a whole number"),
            ("model.n_filters=null", "model.n_filters=null: expected a whole number"),
            ("model.profile_kernel_size=4", "must be odd, such as 5"),
            ("model.blocks.residual_scale=0", "must be above 0"),
            ("optim.warmup_epochs=500", "longer than trainer.max_epochs"),
            ("optim.muon.lr=1e-9", "is below optim.min_lr"),
            ("trainer.devices=3", "Set trainer.batch_size=3"),
            ("data.out_window=99", "exceed it by an even number"),
            ("model.trimming=3", "Leave model.trimming=null"),
            ("data.test_chroms=[sim3]", "is in data.validation_chroms and data.test_chroms"),
            ("data.train_chroms=[sim1]", "sim2, which no split names"),
            ("data.max_jitter=900", "data.max_jitter=900 needs"),
        ),
    ],
)
def test_a_mistake_is_one_message(cherimoya_train, train_arguments, argument, words):
    windows = ["data.in_window=200", "data.out_window=100"]
    done = timed(cherimoya_train, *train_arguments, *windows, argument)
    if argument == "model.n_filters":  # not an override at all: argparse or Hydra says so
        assert done.returncode != 0
        assert "model.n_filters" in done.stderr
    else:
        fails(done, words)


def test_a_mistake_leaves_no_folder(cherimoya_train, tmp_path):
    fails(cherimoya_train("model.n_layers=-4"))
    assert not list(tmp_path.glob("outputs/*/*"))


def test_a_typo_in_an_experiment_file(cherimoya_train, train_arguments, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nmodel:\n  n_filter: 8\n"
    (folder / "typo.yaml").write_text(text)
    done = timed(
        cherimoya_train,
        f"hydra.searchpath=[{tmp_path / 'mine'}]",
        "experiment=typo",
        *train_arguments,
    )
    fails(done, "unknown key model.n_filter. Did you mean model.n_filters?")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated"),
        (lambda path: path.write_text("not HDF5"), "HDF5"),
        (lambda path: attribute(path, "version", 2), "version"),
        (lambda path: attribute(path, "format", "other"), "format"),
    ],
)
def test_a_damaged_file(cherimoya_train, train_arguments, small_data, tmp_path, damage, words):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(small_data.read_bytes())
    damage(copy)
    done = timed(cherimoya_train, *train_arguments, f"data.path={copy}")
    fails(done, "copy.h5", words)


def test_a_run_whose_configuration_is_damaged_is_not_told_to_remove_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("[1]")
    done = command("train", "trainer.resume=run", folder=tmp_path)
    fails(done, "run/config.yaml is damaged (", "Put back what the run wrote there, or start a new")
    assert "remove it" not in done.stderr


def attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


def test_a_wandb_key_without_a_network(cherimoya_train, train_arguments):
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = timed(
            cherimoya_train, *train_arguments, "logger=wandb",
            WANDB_API_KEY="x" * 40, WANDB_BASE_URL=url,
        )  # fmt: skip
    fails(done, "a W&B API key is set", "cannot be reached", "logger.wandb.mode=offline")


@pytest.mark.slow
def test_a_sweep_runs_every_job_in_its_own_folder_and_tells_the_truth(
    cherimoya_train, train_arguments, tmp_path
):
    arguments = [a for a in train_arguments if a != "logger=none"]
    done = cherimoya_train(
        "-m", *arguments, "model.n_layers=2,3", "model.n_filters=8,16",
        "trainer.max_epochs=1", "hydra.sweep.dir=sweep",
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = sorted(p for p in (tmp_path / "sweep").iterdir() if p.is_dir())
    assert [p.name for p in folders] == [
        f"n_filters={width},n_layers={depth}" for width in (16, 8) for depth in (2, 3)
    ]
    assert all(json.loads((p / "status.json").read_text())["state"] == "done" for p in folders)
    runs = {p.name for p in (tmp_path / "sweep").glob("*/wandb/offline-run-*")}
    assert len({name.rsplit("-", 1)[1] for name in runs}) == 4
    sizes = [json.loads((p / "summary.json").read_text())["parameters"] for p in folders]
    assert len(set(sizes)) == 4
    table = done.stdout[done.stdout.rindex("=== sweep") :]
    assert len(re.findall("  done  ", table)) == 4


@pytest.mark.slow
def test_one_failing_job_neither_stops_the_others_nor_counts_as_done(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(
        "-m", *train_arguments, "trainer.batch_size=4,4000,8",
        "trainer.max_epochs=1", "hydra.sweep.dir=sweep",
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    states = [
        json.loads((tmp_path / "sweep" / f"batch_size={n}" / "status.json").read_text())["state"]
        for n in (4, 4000, 8)
    ]
    assert states == ["done", "failed", "done"]
    assert re.search("FAILED  .*batch_size=4000.*only full batches", done.stdout)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Free space"),
        (PermissionError(errno.EACCES, "Permission denied", "there"), "there: Permission denied."),
    ],
)
def test_errors_of_the_disk_are_messages(monkeypatch, error, words):
    def fails_with(values):
        raise error

    monkeypatch.setattr(commands, "main", lambda name, schema, work: work({}))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(CherimoyaError, match=re.escape(words)):
            commands._main("variants", object, fails_with)
        with pytest.raises(SystemExit) as end:  # so that `finally` has its turn
            signal.raise_signal(signal.SIGTERM)
        assert end.value.code == 128 + signal.SIGTERM
        monkeypatch.setattr(error, "errno", errno.EPIPE)
        monkeypatch.setattr(error, "filename", None)
        with pytest.raises(OSError):  # noqa: PT011 - not the disk's: somebody's mistake
            commands._main("variants", object, fails_with)
    finally:
        signal.signal(signal.SIGTERM, before)
