"""Keys that do nothing, of every command but cherimoya-train, are refused with what would help."""

import os

import pytest
from command_lines import command

from cherimoya.config.design import DesignConfig
from cherimoya.config.export import ExportConfig
from cherimoya.config.groups import compose, initialized, plain_values, without_effect
from cherimoya.config.groups import typed as typed_in
from cherimoya.config.interpret import (
    AttributeConfig,
    HitsConfig,
    MarginalizeConfig,
    VariantsConfig,
)
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import build
from cherimoya.errors import ConfigError

SCHEMAS = {
    "evaluate": EvaluateConfig, "predict": PredictConfig, "attribute": AttributeConfig,
    "variants": VariantsConfig, "marginalize": MarginalizeConfig, "prepare": PrepareConfig,
    "hits": HitsConfig, "design": DesignConfig, "export": ExportConfig,
}  # fmt: skip
NEEDED = {
    "evaluate": ["checkpoint=a.pt"],
    "predict": ["checkpoint=a.pt", "fasta=g.fa", "output=out"],
    "attribute": ["checkpoint=a.pt", "output=a.h5"],
    "variants": ["checkpoint=a.pt", "variants=a.vcf", "fasta=g.fa", "output=a.tsv"],
    "marginalize": ["checkpoint=a.pt", "motifs=[a:ACGT]", "output=a.tsv"],
    "hits": ["attributions=a.h5", "output=a.tsv"],
    "design": ["checkpoint=a.pt", "change=1.0", "output=a.tsv"],
    "export": ["checkpoint=a.pt", "output=a.safetensors"],
    "prepare": ["fasta=g.fa", "loci=a.bed", "signal=[[a.bw]]", "output=a.h5"],
}
BED = ["loci=a.bed", "fasta=g.fa"]
PLACED = "loci=<BED file> fasta=<genome> in place of data.path, and"


def unused(name: str, words: list[str]) -> dict[str, str]:
    """The keys among `words` of a command that do nothing, with their messages."""
    words = [*NEEDED[name], *words]
    with initialized():
        values, _ = compose(name, words)
        return without_effect(build(SCHEMAS[name], plain_values(values)), typed_in(words))


def refused(name, words, fix, mended):
    """Check that the last of `words` is refused with `fix`, and that `mended` goes instead."""
    key = words[-1].split("=")[0]
    found = unused(name, words)
    assert list(found) == [key]
    assert found[key].startswith(f"{words[-1]} does nothing: ")
    assert f"Set {fix} {words[-1]}, or leave {key} out." in found[key]
    assert "\n" not in found[key]
    assert unused(name, [*mended, words[-1]]) == {}
    assert unused(name, words[:-1]) == {}


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["chroms=[chr1]", "split=test"], "chroms=null", ["chroms=null"]),
    (["bootstrap=0", "confidence=0.9"], "bootstrap=1000", ["bootstrap=1000"]),
    (["bootstrap=0", "seed=3"], "bootstrap=1000", ["bootstrap=1000"]),
], ids=str)  # fmt: skip
def test_evaluate(words, fix, mended):
    refused("evaluate", words, fix, mended)


def test_evaluate_reads_the_file_of_the_run_by_its_own_names():
    keys = "data.keys={sequence: X, signal: y, control: null, label: null, chrom: null}"
    with pytest.raises(ConfigError, match=r"data.keys does nothing: .* Set data.path=<file> too"):
        unused("evaluate", [keys])
    assert unused("evaluate", [keys, "data.path=a.h5"]) == {}
    assert unused("evaluate", [keys, "replicate=a.h5"]) == {}


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["chroms=[chr1]", "center=summit"], "loci=<BED file> in place of chroms, and", ["loci=a.bed"]),
    (["chrom_alias=auto"], "loci=<BED file> in place of chroms, and", ["loci=a.bed"]),
    (["loci=a.bed", "values=apart"], "format=bigwig", ["loci=a.bed", "format=bigwig"]),
    (["format=hdf5", "values=expected"], "format=bigwig", ["format=bigwig"]),
], ids=str)  # fmt: skip
def test_predict(words, fix, mended):
    refused("predict", words, fix, mended)


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["n_shuffles=5"], "method=deep_lift_shap", ["method=deep_lift_shap"]),
    (["method=gradient", "seed=3"], "method=deep_lift_shap", ["method=deep_lift_shap"]),
    (["method=gradient", "precision=tf32"], "method=mutagenesis", ["method=mutagenesis"]),
    (["method=deep_lift_shap", "precision=bf16"], "method=mutagenesis", ["method=mutagenesis"]),
    (["max_seqlets=500"], "modisco=true", ["modisco=true"]),
    (["data.path=a.h5", "center=summit"], PLACED, BED),
    ([*BED, "peaks_only=false"], "data.path=<prepared file> in place of loci and fasta, and",
     ["data.path=a.h5"]),
], ids=str)  # fmt: skip
def test_attribute(words, fix, mended):
    refused("attribute", words, fix, mended)


def test_variants():
    words, mended = ["random_variants=0", "seed=3"], ["random_variants=1000"]
    refused("variants", words, "random_variants=1000", mended)


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["shuffle=false", "seed=3"], "shuffle=true", ["shuffle=true"]),
    (["center=summit"], PLACED, BED),
    ([*BED, "peaks_only=true"], "data.path=<prepared file> in place of loci and fasta, and",
     ["data.path=a.h5"]),
], ids=str)  # fmt: skip
def test_marginalize(words, fix, mended):
    refused("marginalize", words, fix, mended)


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["seqlet_p=0.1"], "seqlets=true", ["seqlets=true"]),
    (["page=false", "examples=2"], "page=true", ["page=true"]),
], ids=str)  # fmt: skip
def test_hits(words, fix, mended):
    refused("hits", words, fix, mended)


@pytest.mark.parametrize(("words", "fix", "mended"), [
    (["page=false", "examples=2"], "page=true", ["page=true"]),
    (["center=summit"], PLACED, BED),
], ids=str)  # fmt: skip
def test_design(words, fix, mended):
    refused("design", words, fix, mended)


@pytest.mark.parametrize("word", ["in_window=300", "bias=true"])
def test_export(word):
    refused("export", [word], "export=onnx output=<name>.onnx", ["output=a.onnx"])


@pytest.mark.parametrize("key", ["min_distance=9", "gc_bin=0.1", "seed=3", "plots=true"])
def test_prepare(key):
    refused("prepare", ["background_ratio=0", key], "background_ratio=1", ["background_ratio=1"])


@pytest.mark.parametrize(("name", "words"), [
    ("evaluate", ["split=all", "confidence=0.9", "seed=1", "data.in_window=400"]),
    ("evaluate", ["chroms=[chr1]", "data.path=a.h5"]),
    ("predict", ["control=[[a.bw]]", "chrom_alias=auto", "values=apart"]),
    ("predict", ["chrom_alias=none", "format=hdf5", "track_names=[a]"]),
    ("predict", ["loci=a.bed", "center=summit", "chrom_alias=auto", "format=bigwig"]),
    ("attribute", ["method=gradient", "precision=fp32", "batch_size=4"]),
    ("attribute", ["method=deep_lift_shap", "seed=1", "n_shuffles=5", "modisco=true",
                   "max_seqlets=200", "motif_file=a.meme", "bigwig=true", "fasta=g.fa"]),
    ("variants", ["seed=1", "chrom_alias=auto", "vcf=false"]),
    ("marginalize", ["shuffle=false", "motifs=[a:ACRT]", "seed=1"]),
    ("marginalize", ["shuffle=false", "motif_file=a.meme", "seed=1", "profiles=0"]),
    ("prepare", ["background_ratio=0", "plots=false", "check=true"]),
    ("prepare", ["seed=1", "min_distance=9", "gc_bin=0.1", "plots=true", "center=summit"]),
], ids=str)  # fmt: skip
def test_keys_that_do_something_are_accepted(name, words):
    assert unused(name, words) == {}


@pytest.mark.parametrize("shown", [[], ["--cfg", "job"]], ids=str)
def test_the_command_says_so_before_any_work(shown, tmp_path):
    for name, words in [
        ("attribute", ["n_shuffles=5"]),
        ("prepare", ["background_ratio=0", "gc_bin=0.1"]),
    ]:
        done = command(name, *NEEDED[name], *words, *shown, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {words[-1]} does nothing: ")
        assert done.stderr.count("\n") == 1
        assert os.listdir(tmp_path) == []
