"""A flag that is none, or has a value that it cannot have, is refused in a line of ours."""

import pytest
from command_lines import command, fails

from cherimoya.cli import flags
from cherimoya.config.command_line import one_word_each
from cherimoya.errors import ConfigError

WRONG = [
    (["--cfg", "foo"], "--cfg foo: must be one of job (the configuration), hydra (Hydra's own), "),
    (["--cfg"], "--cfg: must be one of job (the configuration), "),
    (["-c", "jobs"], "--cfg jobs: must be one of job"),
    (["--info", "foo"], "--info foo: must be one of all, config, defaults, defaults-tree, plugins"),
    (["--config-dir"], "--config-dir needs a value"),
    (["--config-dir=a", "x=1", "--config-dir", "b"], "--config-dir is given twice"),
    (["-sc", "foo"], "-sc foo: must be install or uninstall, and for which shell, such as -sc in"),
    (["-sc"], "-sc: must be install or uninstall"),
    (["--quite"], "unknown flag --quite. Did you mean --quiet?"),
    (["--bogus"], "unknown flag --bogus. --help lists the flags."),
    (["-x"], "unknown flag -x."),
]
RIGHT = [
    ["--cfg", "job"], ["-c", "all", "--resolve"], ["--cfg", "hydra", "-p", "hydra.run"],
    ["--cfg", "schema"], ["-sc", "install=bash"], ["-sc", "uninstall=fish"], ["--info"],
    ["--info", "searchpath"], ["-m", "seed=0,1"], ["model=tiny", "-m", "seed=0,1", "x=1"],
    ["--help"], ["-h", "seed"], ["--version"],
    ["--config-dir", "a b", "--config-name=mine"], ["--hydra-help"], ["~logger"],
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(ConfigError) as error:
        flags.check(one_word_each(words))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("words", RIGHT, ids=" ".join)
def test_what_is_right_is_let_through(words, capsys):
    flags.check(one_word_each(words))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["train", "export"])
def test_no_usage_of_hydras_is_printed(name, tmp_path):
    done = command(name, "--cfg", "foo", folder=tmp_path)
    fails(done, "--cfg foo: must be one of job")
    assert "usage:" not in done.stderr
    shown = command(name, "--help")
    for row in flags.HELP:
        assert f"\n  {row} " in shown.stdout


@pytest.mark.parametrize("what", flags.CFG)
def test_each_configuration_that_is_named_is_shown(what):
    done = command("hits", "--cfg", what)
    assert done.returncode == 0, done.stderr
    assert ("attributions" in done.stdout) == (what != "hydra")


def test_settings_may_follow_a_flag_with_a_value(tmp_path):
    done = command(
        "train", "model=tiny", f"--config-dir={tmp_path}", "seed=7", "--cfg=job", folder=tmp_path
    )
    assert "seed: 7" in done.stdout, done.stderr
