"""YAML files of a few lines that would take all of a machine's memory."""

import time

import pytest
import yaml
from command_lines import command, fails

from cherimoya.records.run import read_run
from cherimoya.util.yaml_file import TooLarge, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)
FILES = {
    "lists": BOMB,
    "merged": MERGED,
    "itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 100_000,
    "deep beside an alias": "b: &b 1\na: *b\nc: " + "[" * 100_000,
    "long": "a: 1\n" * 300_000,
}


@pytest.mark.parametrize("name", FILES)
def test_too_large(name, tmp_path):
    (tmp_path / "config.yaml").write_text(FILES[name])
    start = time.monotonic()
    with pytest.raises(TooLarge, match=r"config\.yaml: "):
        read_yaml(tmp_path / "config.yaml")
    (problem,) = read_run(tmp_path).problems
    assert "config.yaml is damaged (" in problem
    assert time.monotonic() - start < 10


def test_a_few_aliases_stay_what_they_are(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a [1, '*']\nb: {<<: {c: *a}, d: *a}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, "*"], "b": {"c": [1, "*"], "d": [1, "*"]}}
    (tmp_path / "a.yaml").write_text("a: [1\nb: *")
    with pytest.raises(yaml.YAMLError):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.slow
def test_commands_refuse_them_at_once(tmp_path):
    (tmp_path / "lab" / "experiment").mkdir(parents=True)
    (tmp_path / "lab" / "experiment" / "bomb.yaml").write_text(BOMB)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(BOMB)
    usual = {"folder": tmp_path, "timeout": 20}
    own = command("train", "--config-dir=lab", "experiment=bomb", **usual)
    fails(own, "bomb.yaml: its aliases (*name) stand for more than 100,000 values")
    fails(command("train", "trainer.resume=run", **usual), "config.yaml", "aliases")
    deep = {name: f"seed: {'[' * n}{']' * n}\n" for name, n in (("deep", 3000), ("less", 150))}
    for name, text in deep.items():
        (tmp_path / "lab" / "experiment" / f"{name}.yaml").write_text(
            f"# @package _global_\n{text}"
        )
        fails(command("train", "--config-dir=lab", f"experiment={name}", **usual))
        (tmp_path / "run" / "config.yaml").write_text(text)
        fails(command("train", "trainer.resume=run", **usual), "config.yaml")
    words = ("-m", "seed=1,2", "model=tiny", "hydra.sweep.dir=sweep")
    for seed in (1, 2):
        (tmp_path / "sweep" / f"seed={seed}").mkdir(parents=True)
        (tmp_path / "sweep" / f"seed={seed}" / "config.yaml").write_text(BOMB)
    fails(command("train", *words, **usual), "config.yaml: its aliases")
