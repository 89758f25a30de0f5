"""The study of the recommended recipe asks for what it says."""

import csv
import importlib.util
import json

import pytest
from command_lines import REPOSITORY

from cherimoya.config import groups
from cherimoya.config.diff import at
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import TrainConfig

spec = importlib.util.spec_from_file_location("study", REPOSITORY / "experiments/recipe/run.py")
study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)


def composed(folder, recipe, changes):
    """The configuration of each change, in which what the recipe and the change say was found."""
    for name, keys in changes.items():
        study.write_option(folder, name, recipe, keys)
    made = {}
    with groups.initialized(str(folder)):
        for name in changes:
            words = [f"experiment={name}", *(["data.path=x.h5"] if recipe != "embedded" else [])]
            values, choices = groups.compose("train", words)
            plain = groups.plain_values(values)
            config = build(TrainConfig, plain)
            groups.composition(config, plain, words, choices).check_files()
            made[name] = to_dict(config)
    for name, keys in changes.items():
        for key, value in (dict(study.RECIPES[recipe]) | dict(keys)).items():
            if "." in key:
                assert at(made[name], key) == value, (name, key)
    return made


def test_changes_are_the_recipe_but_for_what_they_say(tmp_path):
    few = {name: study.CHANGES[name] for name in ("base", "no_sgd", "chosen", "width_96")}
    made = composed(tmp_path, "recommended", few)
    assert [name for name in few if made[name] == made["base"]] == ["base", "width_96"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", study.RECIPES)
def test_every_change_is_the_recipe_but_for_what_it_says(tmp_path, recipe):
    changes = dict(study.CHANGES)
    if recipe == "embedded":  # whose optimizers have no SGD to change
        changes = {k: v for k, v in changes.items() if not any("sgd." in key for key in v)}
    made = composed(tmp_path, recipe, changes)
    if recipe != "recommended":
        return
    same = {name for name in study.CHANGES if made[name] == made["base"]}
    of_other_recipes = {
        "negatives_0.25", "muon_decay_0.01", "width_96", "bias_mean", "start_right", "jitter_128",
    }  # fmt: skip
    assert same == {"base", *of_other_recipes}
    assert made["base"]["model"]["count_bias"] == "mean"
    assert "sgd" in made["base"]["optim"]
    assert "sgd" not in made["no_sgd"]["optim"]


def test_what_is_done_is_collected_by_its_validation_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "row_of", lambda run, name: {"run": name, "train_seconds": 10})
    for change, seed, loss in (("base", 0, 3.0), ("base", 1, 5.0), ("wide", 0, 3.5)):
        run = tmp_path / "sweep" / f"experiment={change},seed={seed}"
        run.mkdir(parents=True)
        (run / "summary.json").write_text(json.dumps({"best_epoch": 4}))
        row = {"epoch": 4, "step": 40} | dict.fromkeys(study.SCORES, loss)
        lines = [json.dumps(row | {"epoch": 3, "step": 30}), json.dumps(row)]
        (run / "metrics.jsonl").write_text("\n".join(lines))
    study.collect(tmp_path)
    rows = list(csv.DictReader((tmp_path / "changes.csv").open()))
    assert [(row["run"], row["best_step"], float(row["valid/loss"])) for row in rows] == [
        ("base", "40", 3.0), ("base", "40", 5.0), ("wide", "40", 3.5)
    ]  # fmt: skip
    table = (tmp_path / "ranking.md").read_text().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in table] == ["wide", "base"]
    assert float(table[1].split("|")[7]) == pytest.approx(4.0)
    assert "| wide |" in capsys.readouterr().out
