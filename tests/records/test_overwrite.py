"""No command writes over what it reads."""

import os
from pathlib import Path

import pytest
from interpreted import configured, save_model
from toy import Toy

from cherimoya.config.design import DesignConfig
from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.errors import CherimoyaError, ConfigError, DataError
from cherimoya.evaluation.evaluate import evaluate_checkpoints
from cherimoya.inference.genome import predict_genome
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.design import design
from cherimoya.interpret.marginalize import marginalize
from cherimoya.interpret.variants import variants
from cherimoya.prepare.dry_run import inspect
from cherimoya.prepare.prepare import prepare

COMMANDS = {
    "attribute": (AttributeConfig, attribute),
    "design": (DesignConfig, design),
    "evaluate": (EvaluateConfig, evaluate_checkpoints),
    "marginalize": (MarginalizeConfig, marginalize),
    "predict": (PredictConfig, predict_genome),
    "variants": (VariantsConfig, variants),
}


@pytest.fixture
def here(toy: Toy, monkeypatch) -> Path:
    """A folder with one file of each kind, which is the present one."""
    monkeypatch.chdir(toy.folder)
    save_model(Path("m.pt"))
    toy.bed("chrA\t1000\t1100")
    toy.write("v.tsv", "chrom\tpos\tref\talt\nchrA\t5\tA\tC\n")
    for name in ("m.pt.done.json", "x.counts_0.png", "out/loci.tsv", "out/predictions.h5"):
        toy.write(name, "mine")
    toy.write("run/config.yaml", "model: {}\n")
    Path("run/checkpoints").mkdir()
    save_model(Path("run/checkpoints/best.pt"))
    Path("link.h5").symlink_to("m.pt")
    return toy.folder


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("attribute", {"output": "m.pt"}, "checkpoint=m.pt would be overwritten by m.pt"),
        ("attribute", {"output": "link.h5"}, "checkpoint=m.pt would be overwritten by link.h5"),
        ("attribute", {"output": "toy.fa"}, "fasta=toy.fa would be overwritten by toy.fa"),
        ("attribute", {"output": "loci.bed"}, "loci=loci.bed would be overwritten"),
        ("attribute", {"output": "x.h5", "chrom_alias": "x.counts_0.png", "logos": 1},
         "chrom_alias=x.counts_0.png would be .* Choose another output, or set logos=0"),
        ("attribute", {"output": "run/checkpoints/best.pt", "checkpoint": ["run"]},
         "checkpoint=run/checkpoints/best.pt would be overwritten"),
        ("attribute", {"output": "m.pt.done.json"}, "checkpoint=m.pt.done.json would be"),
        ("design", {"output": "v.tsv", "chrom_alias": "v.tsv", "change": 1.0},
         "chrom_alias=v.tsv would be"),
        ("marginalize", {"output": "loci.bed", "motifs": ["GATTACA"]}, "loci=loci.bed would be"),
        ("variants", {"output": "toy.fa", "variants": "v.tsv"}, "fasta=toy.fa would be"),
        ("predict", {"output": "out", "chrom_alias": "out/predictions.h5", "in_window": 200},
         "chrom_alias=out/predictions.h5 would be overwritten"),
        ("evaluate", {"output": "out", "replicate": "out/loci.tsv"}, "replicate=out/loci.tsv"),
    ],
)  # fmt: skip
def test_a_command_leaves_its_inputs(name, values, said, here: Path) -> None:
    schema, work = COMMANDS[name]
    given = {"checkpoint": ["m.pt"], "overwrite": True, "device": "cpu"}
    if name in ("attribute", "design", "marginalize", "predict"):
        given["loci"] = "loci.bed"
    if name != "evaluate":
        given["fasta"] = "toy.fa"
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said):
        work(configured(name, schema, **(given | values)))
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("work", [prepare, inspect])
@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("loci.bed", "loci=.*loci.bed would be overwritten by .*loci.bed. Choose another output"),
        ("hard.h5", "signal=.*plus.bw would be overwritten by .*hard.h5"),
        ("toy.fa.fai", "fasta=.*toy.fa.fai would be overwritten"),
    ],
)
def test_preparing_leaves_its_inputs(work, output, said, toy: Toy) -> None:
    toy.bed("chrA\t1000\t1100")
    toy.write("toy.fa.fai", "")
    os.link(toy.folder / "plus.bw", toy.folder / "hard.h5")
    with pytest.raises(ConfigError, match=said):
        work(toy.config(output=str(toy.folder / output), overwrite=True), say=lambda _: None)


MORE = {
    "attribute": {"loci": "loci.bed"},
    "design": {"loci": "loci.bed", "change": 1.0, "max_iter": 1, "attempts": 1, "page": False},
    "marginalize": {"loci": "loci.bed", "motifs": ["GATTACA"]},
    "variants": {"variants": "v.tsv"},
}


@pytest.mark.parametrize("name", MORE)
def test_a_name_that_is_too_long_is_refused_before_a_model_is_read(name, here: Path) -> None:
    schema, work = COMMANDS[name]
    ending = ".h5" if name == "attribute" else ".tsv"
    given = {"checkpoint": ["absent.pt"], "fasta": "toy.fa", **MORE[name]}
    output = "x" * (235 - len(ending)) + ending
    with pytest.raises(DataError, match=r"x\.\w+: its name is too long.*by \d+\.") as refused:
        work(configured(name, schema, **given, output=output))
    too_many = int(str(refused.value).rpartition(" ")[2].rstrip("."))
    beside = 6  # or fewer, by which names of files beside it are longer
    for fewer, said in ((-1, "shorter by 1"), (beside, r"absent\.pt does not exist")):
        with pytest.raises(CherimoyaError, match=said):
            work(configured(name, schema, **given, output=output[too_many + fewer :]))


def test_the_longest_name_is_one_that_can_be_written(here: Path) -> None:
    schema, work = COMMANDS["design"]
    given = {"checkpoint": ["m.pt"], "fasta": "toy.fa", "device": "cpu", **MORE["design"]}
    given |= {"data__in_window": 200, "target": "counts"}
    with pytest.raises(DataError, match="shorter by") as refused:
        work(configured("design", schema, **given, output=f"{'x' * 231}.tsv"))
    too_many = int(str(refused.value).rpartition(" ")[2].rstrip("."))
    longest = f"{'x' * 231}.tsv"[too_many:]
    # its edits' name, longer by 6, is the one that counts
    work(configured("design", schema, **given, output=longest[len(".edits") :]))
    assert Path(longest[len(".edits") :]).is_file()
