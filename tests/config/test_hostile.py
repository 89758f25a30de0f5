"""A shared folder of configurations, or a pasted command line, runs no code but what it names."""

import hydra
import pytest
from command_lines import command, fails
from omegaconf import OmegaConf

from cherimoya.config import targets
from cherimoya.config.groups import initialized
from cherimoya.errors import ConfigError

CODE = "{_target_: builtins.open, file: owned, mode: w}"
CALLBACK = f"+hydra.callbacks.mine={CODE.replace(': ', ':')}"
LOG = f"job_logging: {{version: 1, formatters: {{a: {CODE.replace('_target_', '()')}}}}}"
SHARED = ("--config-dir=lab", "experiment=evil")
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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evil.yaml").write_text(f"# @package _global_\n{text}\n")
    (folder / "plain.yaml").write_text("# @package _global_\nseed: 1\n")
    usual = ("model=tiny", "trainer.device=cpu", "trainer.batch_size=-1")
    done = command("train", *words, *usual, folder=tmp_path, **environment)
    assert "Traceback" not in done.stderr
    return done.stderr, (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "words",
    [
        SHARED,
        (*SHARED, "-m", "seed=0,1"),
        ("hydra.searchpath=[lab]", "experiment=plain,evil", "-m"),
        (CALLBACK,),
    ],
    ids=["run", "sweep", "member", "words"],
)
def test_nothing_is_called_that_is_not_known(words, tmp_path):
    said, ran = asked(tmp_path, f"hydra: {{{LOG}}}", *words)
    assert not ran
    assert "CHERIMOYA_ALLOW_TARGETS=1" in said


def test_neither_with_configurations_in_place_of_ours(tmp_path):
    (tmp_path / "train.yaml").write_text("seed: 0\n")
    words = [f"--config-path={tmp_path}", "--config-name=train", CALLBACK]
    done = command("train", *words, folder=tmp_path)
    assert "CHERIMOYA_ALLOW_TARGETS=1" in done.stderr
    assert not (tmp_path / "owned").exists()


def test_who_trusts_a_configuration_says_so(tmp_path):
    assert asked(tmp_path, f"hydra: {{{LOG}}}", CALLBACK, CHERIMOYA_ALLOW_TARGETS="1")[1]


def chain(pattern, last, length=40):
    """Options of which each stands for the next one as `pattern` has it."""
    parts = [pattern.replace("NEXT", f"${{data.options.b{i + 1}}}") for i in range(length)]
    listed = ", ".join(f"b{i}: {part}" for i, part in enumerate([*parts, last]))
    return f"data: {{options: {{{listed}}}}}"


BOMBS = {
    "text": chain("'NEXTNEXT'", "x"),
    "empty text": chain("'NEXTNEXT'", "''"),
    "lists": chain("['NEXT', 'NEXT']", "x", 18),
    "a long text": f"data: {{options: {{b0: '{'${.b1}' * 2000}', b1: '{'x' * 500_000}'}}}}",
    "read again": f"data: {{options: {{b0: '${{oc.decode:${{.b1}}}}', b1: '[{'1,' * 500_000}]'}}}}",
    "deep": chain("'NEXT'", "x", 100),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "lists")) for n in BOMBS]
)
def test_insertions_that_multiply_are_refused(name, tmp_path):
    words = (*SHARED, "logger.wandb.run_name=${data.options.b0}")
    said, _ = asked(tmp_path, BOMBS[name], *words, timeout=30)
    assert "${...} come to more than 1,000,000 letters" in said
    assert "logger.wandb.run_name" in said or "data.options.b" in said


def test_defaults_that_multiply_and_too_many_insertions_are_refused(tmp_path):
    said, _ = asked(tmp_path, f"seed: '{'${loss}' * 20_000}'", *SHARED, timeout=30)
    assert "evil.yaml: more than 10,000 ${...}" in said
    folder = tmp_path / "lab" / "experiment"
    for i in range(40):
        (folder / f"d{i}.yaml").write_text(f"defaults: [d{i + 1}@x, d{i + 1}@y]\n")
    (folder / "d40.yaml").write_text("seed: 1\n")
    said, _ = asked(tmp_path, "defaults: [d0]", *SHARED, timeout=30)
    assert "the defaults of the configuration name more than 1,000 files" in said


@pytest.mark.parametrize("defaults", ["[/experiment: evil]", "[other]"])
def test_defaults_that_lead_back_to_themselves_are_refused(defaults, tmp_path):
    (tmp_path / "lab" / "experiment").mkdir(parents=True)
    (tmp_path / "lab" / "experiment" / "other.yaml").write_text("defaults: [evil]\n")
    said, _ = asked(tmp_path, f"defaults: {defaults}", *SHARED, timeout=30)
    assert "the defaults of the configuration lead back to themselves without end" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("text", ["# f\xfcr mich\n", "a: [*x] # f\xfcr mich\n"])
def test_a_file_that_is_no_utf_8_is_named(text, tmp_path):
    (tmp_path / "lab" / "loss").mkdir(parents=True)
    (tmp_path / "lab" / "loss" / "k.yaml").write_bytes(text.encode("latin-1"))
    done = command("train", "--config-dir=lab", "loss=k", folder=tmp_path)
    fails(done, "lab/loss/k.yaml: no UTF-8. Save it as UTF-8")


def test_an_experiment_sets_any_key_but_where_runs_lie(tmp_path):
    (tmp_path / "experiment").mkdir()
    content = "# @package _global_\nseed: 7\nhydra: {run: {dir: /elsewhere}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    with initialized(str(tmp_path)):
        values = hydra.compose("train", ["experiment=mine"], return_hydra_config=True)
    assert values.seed == 7
    assert "elsewhere" not in OmegaConf.to_container(values, resolve=False)["hydra"]["run"]["dir"]


def test_insertions_on_the_command_line_that_multiply_are_refused(tmp_path):
    many = "${loci}" * 12
    done = command("predict", f"fasta={many}", f"loci={'x' * 100_000}", folder=tmp_path)
    fails(done, "fasta=", "${...} come to more than 1,000,000 letters")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "logger: {wandb: {run_name: '${oc.env:MY_TOKEN}'}}",
        "logger: {wandb: {run_name: \"${oc.decode:'${oc.env:MY_TOKEN,x}'}\"}}",
        "logger: {wandb: {run_name: '${${.group}:MY_TOKEN}', group: oc.env}}",
    ],
)
def test_a_file_gets_no_variable_that_the_command_line_does_not_name(text, tmp_path):
    secret = {"MY_TOKEN": "geheim"}
    said, _ = asked(tmp_path, text, *SHARED, **secret)
    assert "logger.wandb.run_name: a file asks for the environment variable MY_TOKEN" in said
    assert "geheim" not in said
    for words, more in (
        (["logger.wandb.project=${oc.env:MY_TOKEN}"], {}),
        ([], {"CHERIMOYA_ALLOW_TARGETS": "1"}),
    ):
        assert (
            "trainer.batch_size=-1" in asked(tmp_path, text, *SHARED, *words, **secret, **more)[0]
        )


def test_a_file_may_name_the_home_folder(tmp_path):
    said, _ = asked(tmp_path, "logger: {wandb: {run_name: '${oc.env:HOME}'}}", *SHARED)
    assert "trainer.batch_size=-1" in said


LAUNCHER = "defaults: [{override /hydra/launcher: slurm}]\nhydra: {launcher: {cluster: local, "
FILE = "{class: logging.FileHandler, filename: owned}"
SETTINGS = {
    "job.env_set.LD_PRELOAD": "hydra: {job: {env_set: {LD_PRELOAD: a.so}}}",
    "job.env_set.PYTHONPATH": "hydra: {job: {env_set: \"${oc.decode:'{PYTHONPATH: lab}'}\"}}",
    "job.env_set.WANDB_BASE_URL": "hydra: {sweeper: {params: "
    "{+hydra.job.env_set.WANDB_BASE_URL: x}}}",
    "launcher.setup.0": LAUNCHER + "setup: [touch owned]}}",
    "launcher.python": LAUNCHER + "python: ./evil}}",
    "launcher.partition": LAUNCHER + 'partition: "gpu\\ntouch owned"}}',
    "launcher.additional_parameters.export": LAUNCHER + "additional_parameters: {export: A=b}}}",
    "job_logging.handlers.a.filename": f"hydra: {{job_logging: {{handlers: {{a: {FILE}}}}}}}",
    "sweeper.storage": "defaults: [{override /hydra/sweeper: optuna}]\n"
    "hydra: {sweeper: {storage: 'mysql://evil/study'}}",
}


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_that_run_commands_or_reach_elsewhere_are_the_command_line_s(key, tmp_path):
    words = (*SHARED, "-m", "seed=0,1")
    said, ran = asked(tmp_path, SETTINGS[key], *words)
    assert f"hydra.{key}=" in said, said
    assert "Set it on the command line" in said
    assert not ran


def test_what_is_typed_is_the_user_s_own(tmp_path):
    words = (*SHARED, "-m", "seed=0,1", "+hydra.job.env_set.A=b")
    file = LAUNCHER + "partition: gpu, timeout_min: 3}}"
    said, _ = asked(tmp_path, file, *words, "hydra.launcher.setup=[a]")
    assert "trainer.batch_size=-1" in said
    said, _ = asked(tmp_path, SETTINGS["job.env_set.LD_PRELOAD"], *words)
    assert "hydra.job.env_set.LD_PRELOAD=a.so" in said


@pytest.mark.parametrize(
    ("sweeper", "values"),
    [
        ("basic", "seed: 'range(0,1e12)'"),
        ("basic", "seed: 'shuffle(range(0,1e12))'"),
        ("basic", "seed: 'range(0,9000)', model.n_layers: 'range(0,9000)'"),
        ("optuna", "seed: 'range(0,1e12)'"),
    ],
)
def test_more_runs_than_can_be_listed_are_refused(sweeper, values, tmp_path):
    file = f"defaults: [{{override /hydra/sweeper: {sweeper}}}]\n"
    file += f"hydra: {{sweeper: {{params: {{{values}}}}}}}"
    said, _ = asked(tmp_path, file, *SHARED, "-m", timeout=30)
    assert "more than 100,000 runs. Name fewer values." in said
