"""target=counts:B-A: the effect on a difference between two signal groups, with its interval."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import command, fails
from interpreted import configured, save_model
from toy import Toy
from toy_variants import LENGTH, snvs, table, vcf

from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.contrast import T, contrast_of, interval
from cherimoya.interpret.marginalize import marginalize
from cherimoya.interpret.target import Target
from cherimoya.interpret.variants import variants
from cherimoya.records.attributions import read_attributions
from cherimoya.report.plots.interpret import group_title, logo_pages
from cherimoya.util.torch_file import read_torch_file, write_torch_file

NAMES = ["A", "T-cell", "B"]


def named(path: Path, seed: int, names: list[str] | None = NAMES) -> Path:
    """A model of three groups, whose file says what they are called."""
    save_model(path, seed=seed, signal_groups=[1, 2, 1])
    content = read_torch_file(path)
    return write_torch_file(path, content | ({"groups": names} if names else {}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(named(folder / f"{seed}.pt", seed)) for seed in range(3)]


@pytest.mark.parametrize(
    ("text", "group", "against"),
    [
        ("counts:B-A", 2, 0),
        ("counts:T-cell-B", 1, 2),
        ("counts:B-T-cell", 2, 1),
        ("counts: B - 0", 2, 0),
        ("counts:1-0", 1, 0),
    ],
)
def test_groups_are_named_or_numbered(models, text: str, group: int, against: int) -> None:
    assert contrast_of(text, models, [1, 2, 1]) == Target("counts", group, against)


BAD = {
    "counts:B": "write counts:B-A, the log counts of signal group B less those of A",
    "profile:B-A": "target=profile:B-A: write counts:B-A",
    "counts:": "write counts:B-A",
    "B-A": "write counts:B-A",
    "counts:B-B": "a group less itself is nothing",
    "counts:B-C": "there is no signal group C. .*There are A, T-cell, B .or their numbers",
    "counts:tcell-B": "no signal group tcell. Did you mean T-cell",
    "counts:3-0": "there is no signal group 3",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_contrast(models, text: str) -> None:
    with pytest.raises(ConfigError, match=BAD[text]):
        contrast_of(text, models, [1, 2, 1])


def test_models_must_call_groups_alike(models, tmp_path: Path) -> None:
    other = named(tmp_path / "other.pt", 4, ["B", "T-cell", "A"])
    with pytest.raises(ConfigError, match=r"has signal groups A, T-cell, B, and .*other.pt has B"):
        contrast_of("counts:1-0", [*models, str(other)], [1, 2, 1])
    with pytest.raises(CherimoyaError, match=r"has them as B, T-cell, A: they cannot predict"):
        load_ensemble([find_checkpoint(p) for p in (models[0], str(other))], torch.device("cpu"))
    unnamed = named(tmp_path / "unnamed.pt", 5, None)
    assert contrast_of("counts:B-A", [str(unnamed), models[0]], [1, 2, 1]) == Target("counts", 2, 0)
    with pytest.raises(ConfigError, match=r"no signal group B. There are 3 signal groups, 0 to 2"):
        contrast_of("counts:B-A", [str(unnamed)], [1, 2, 1])
    odd = named(tmp_path / "odd.pt", 6, ["A", "A-A", "B"])
    with pytest.raises(ConfigError, match=r"may mean several pairs of groups. Use numbers"):
        contrast_of("counts:A-A-A", [str(odd)], [1, 2, 1])


def test_intervals_are_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert pytest.approx(stats.t.ppf(0.975, np.arange(1, 31)), abs=6e-4) == T
    values = np.random.default_rng(0).random((4, 5))
    low, high = interval(values)
    expected = stats.t.interval(0.95, 3, values.mean(0), stats.sem(values))
    np.testing.assert_allclose([low, high], expected, rtol=1e-2)


def asked_variants(toy: Toy, checkpoints: list[str], **values) -> VariantsConfig:
    given = {
        "checkpoint": checkpoints, "variants": str(toy.folder / "v.vcf"), "in_window": LENGTH,
        "fasta": str(toy.folder / "toy.fa"), "output": str(toy.folder / "out.tsv"),
        "random_variants": 50, "overwrite": True,
    }  # fmt: skip
    return configured("variants", VariantsConfig, **(given | values))


@pytest.mark.slow
def test_variants_have_the_contrast_beside_the_rest(toy: Toy, models) -> None:
    vcf(toy, *snvs(toy, 1000, 1500, 2000), ("chrA", 2, "v", "A", "C", ".", ".", "."))
    plain = table(variants(asked_variants(toy, models)))
    found = table(variants(asked_variants(toy, models, target="counts:B-A")))
    each = [
        table(variants(asked_variants(toy, [m], target="counts:2-0", random_variants=0)))
        for m in models
    ]
    assert list(found[0])[len(plain[0]) :] == [
        "contrast", "contrast_low", "contrast_high", "contrast_percentile", "contrast_p",
        "contrast_q",
    ]  # fmt: skip
    for i, (row, before) in enumerate(zip(found, plain, strict=True)):
        if row["status"] != "ok":
            assert row["contrast"] == row["contrast_low"] == ""
            continue
        for name, value in before.items():
            if "log" in name and not re.search("_(percentile|p|q)_", name):
                assert float(row[name]) == pytest.approx(float(value), abs=2e-5)
        difference = float(row["log2_fold_change_2"]) - float(row["log2_fold_change_0"])
        assert float(row["contrast"]) == pytest.approx(difference, abs=2e-5)
        own = np.array([float(one[i]["contrast"]) for one in each])
        assert "contrast_low" not in each[0][i]
        assert own.mean() == pytest.approx(difference, abs=2e-5)
        ends = [float(row[name]) for name in ("contrast_low", "contrast_high")]
        np.testing.assert_allclose(ends, np.array(interval(own)), atol=5e-5)
        assert 0 <= float(row["contrast_percentile"]) <= 100
    assert sum(row["status"] == "ok" for row in found) == 3


def test_a_vcf_has_the_contrast_once(toy: Toy, models) -> None:
    vcf(toy, *snvs(toy, 1000, 1500))
    first = variants(asked_variants(toy, models, target="counts:B-A")).with_suffix(".vcf")
    text = first.read_text()
    assert text.count("##INFO=<ID=CM_CON") == 6
    assert 'predicted counts, ALT against REF, signal group 1 (T-cell)">' in text
    assert "CM_CON_LOW=" in text.splitlines()[-1]
    again = toy.write("v2.vcf", text)
    values = {"variants": str(again), "output": str(toy.folder / "b.tsv")}
    both = variants(asked_variants(toy, models, target="counts:A-B", **values)).with_suffix(".vcf")
    assert both.read_text().count("##INFO=<ID=CM_CON") == 6
    value = {path: path.read_text().split("CM_CON=")[1].split(";")[0] for path in (first, both)}
    assert float(value[first]) == pytest.approx(-float(value[both]), abs=1e-5)
    plain = variants(asked_variants(toy, models, **values)).with_suffix(".vcf")
    assert "CM_CON" not in plain.read_text().split("#CHROM")[1]


def test_motifs_have_the_contrast_beside_the_rest(models, small_data, tmp_path: Path) -> None:
    def rows(name: str, checkpoints: list[str], **values) -> list[dict[str, str]]:
        given = {
            "checkpoint": checkpoints, "data__path": str(small_data), "max_loci": 6,
            "motifs": ["GATTACA", "CGGGTAA"], "output": str(tmp_path / name), "profiles": 0,
        }  # fmt: skip
        path = marginalize(configured("marginalize", MarginalizeConfig, **(given | values)))
        with open(path) as file:
            return list(csv.DictReader((s for s in file if s[0] != "#"), delimiter="\t"))

    found = rows("all.tsv", models, target="counts:B-A", profiles=1)
    each = [rows(f"{i}.tsv", [m], target="counts:B-A") for i, m in enumerate(models)]
    assert list(found[0])[-4:] == ["contrast", "contrast_low", "contrast_high", "contrast_sd"]
    assert list(each[0][0])[-2:] == ["contrast", "contrast_sd"]
    for i, row in enumerate(found):
        difference = float(row["log2_fold_change_2"]) - float(row["log2_fold_change_0"])
        assert float(row["contrast"]) == pytest.approx(difference, abs=2e-5)
        own = np.array([float(one[i]["contrast"]) for one in each])
        ends = [float(row[name]) for name in ("contrast_low", "contrast_high")]
        np.testing.assert_allclose(ends, np.array(interval(own)), atol=5e-5)
        assert float(row["contrast_sd"]) > 0
    assert (tmp_path / "all.png").is_file()


@pytest.mark.parametrize("method", ["mutagenesis", "gradient", "deep_lift_shap"])
def test_bases_are_attributed_their_part_of_the_contrast(
    models, small_data, tmp_path: Path, method: str, capsys
) -> None:
    if method == "deep_lift_shap":
        pytest.importorskip("tangermeme")

    def scored(name: str, checkpoints: list[str], **values):
        given = {
            "checkpoint": checkpoints, "data__path": str(small_data), "window": 20,
            "max_loci": 3, "logos": 0, "output": str(tmp_path / name), "method": method,
            "reverse_complement": True,
        }  # fmt: skip
        return read_attributions(
            attribute(configured("attribute", AttributeConfig, **given | values))
        )

    found = scored("all.h5", models, target="counts:B-A")
    groups = scored("groups.h5", models, targets=["counts"], groups=["A", "2"])
    (name,) = found.contributions
    assert name == "counts_2-0"
    expected = groups.hypothetical["counts_2"] - groups.hypothetical["counts_0"]
    scale = max(np.abs(values).max() for values in groups.hypothetical.values())
    np.testing.assert_allclose(found.hypothetical[name], expected, atol=2e-4 * scale)
    each = [scored(f"{i}.h5", [m], target="counts:B-A") for i, m in enumerate(models)]
    assert each[0].intervals == groups.intervals == {}
    own = np.stack([one.contributions[name] for one in each])
    low, high = interval(own.astype(np.float64))
    np.testing.assert_allclose(found.intervals[name][:, 0], low, atol=1e-5 * scale)
    np.testing.assert_allclose(found.intervals[name][:, 1], high, atol=1e-5 * scale)
    assert (
        "log counts of B (signal group 2) less those of A (signal group 0), in natural logarithms"
        in capsys.readouterr().out
    )
    assert found.settings["target"] == "counts:B-A"
    (page,) = logo_pages(found, 1, tmp_path / "all.h5", NAMES)
    assert page.name == "all.counts_2-0.png"


def test_plots_call_groups_by_their_names() -> None:
    assert group_title(1, NAMES) == "T-cell"
    assert group_title(1, []) == group_title(1, ["plus, minus"]) == "signal group 1"


def test_a_target_takes_the_place_of_targets_and_groups(models, tmp_path: Path) -> None:
    words = [f"checkpoint={models[0]}", "data.path=x.h5", f"output={tmp_path}/a.h5"]
    done = command("attribute", *words, "target=counts:B-A", "groups=[1]", folder=tmp_path)
    fails(done, "'groups=[\"1\"]' does nothing", "target says what is attributed", "target=null")
