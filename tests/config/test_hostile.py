"""A shared folder of configurations, or a pasted command line, runs no code but what it names."""

import pytest
from command_lines import command
from omegaconf import OmegaConf

from cherimoya.config import targets
from cherimoya.errors import ConfigError

CODE = "{_target_: builtins.open, file: owned, mode: w}"
CALLBACK = f"+hydra.callbacks.mine={CODE.replace(': ', ':')}"
LOG = f"job_logging: {{version: 1, formatters: {{a: {CODE.replace('_target_', '()')}}}}}"
PARTS = {
    "a callback": f"callbacks: {{mine: {CODE}}}",
    "a launcher": f"launcher: {CODE}",
    "a launcher's argument": "launcher: {_target_: hydra_plugins.cherimoya_launchers.Packed, "
    f"members: [{CODE}]}}",
    "a log's formatter": LOG,
    "a log's class": "hydra_logging: {handlers: {a: {class: mylab.Handler}}}",
    "a log's stream": "hydra_logging: {handlers: {a: {stream: ext://antigravity}}}",
    "made from text": f"callbacks: \"${{oc.decode:'{{a: {CODE}}}'}}\"",
    "made from text later": "job_logging: "
    f"\"${{oc.decode:'{{a: {CODE}, b: ${{hydra.job.num}}}}'}}\"",
    "from elsewhere": f"callbacks: ${{hydra.mine}}\n  mine: {{a: {CODE}}}",
    "a list for a name": "callbacks: {mine: {_target_: [os.system]}}",
    "itself": "callbacks: {mine: '${hydra.callbacks}'}",
    "from elsewhere later": "callbacks: ${absent}",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_hydra_that_calls_something_else_is_refused(name, monkeypatch):
    parts = "callbacks: {}\n  launcher: {}\n  sweeper: {}\n  job_logging: {}\n  hydra_logging: {}"
    usual = OmegaConf.create(f"hydra:\n  {parts}\n")
    config = OmegaConf.merge(usual, OmegaConf.create(f"hydra:\n  {PARTS[name]}\n"))
    with pytest.raises(ConfigError, match="CHERIMOYA_ALLOW_TARGETS=1"):
        targets.check(config)
    monkeypatch.setenv(targets.ALLOW, "1")
    targets.check(config)


def asked(tmp_path, text, *words, **environment):
    """What cherimoya-train says of an experiment file; whether its code ran."""
    folder = tmp_path / "lab" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(f"# @package _global_\nhydra:\n  {text}\n")
    (folder / "plain.yaml").write_text("# @package _global_\nseed: 1\n")
    usual = ("model=tiny", "trainer.device=cpu", "trainer.batch_size=-1")
    done = command("train", *words, *usual, folder=tmp_path, **environment)
    assert "Traceback" not in done.stderr
    return done.stderr, (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--config-dir=lab", "experiment=evil"),
        ("--config-dir=lab", "experiment=evil", "-m", "seed=0,1"),
        ("hydra.searchpath=[lab]", "experiment=plain,evil", "-m"),
        (CALLBACK,),
    ],
    ids=["run", "sweep", "member", "words"],
)
def test_nothing_is_called_that_is_not_known(words, tmp_path):
    said, ran = asked(tmp_path, LOG, *words)
    assert not ran
    assert "CHERIMOYA_ALLOW_TARGETS=1" in said


def test_neither_with_configurations_in_place_of_ours(tmp_path):
    (tmp_path / "train.yaml").write_text("seed: 0\n")
    words = [f"--config-path={tmp_path}", "--config-name=train", CALLBACK]
    done = command("train", *words, folder=tmp_path)
    assert "CHERIMOYA_ALLOW_TARGETS=1" in done.stderr
    assert not (tmp_path / "owned").exists()


def test_who_trusts_a_configuration_says_so(tmp_path):
    assert asked(tmp_path, LOG, CALLBACK, CHERIMOYA_ALLOW_TARGETS="1")[1]
