"""What is made last, of each way of giving inputs: one that fails or is lost is made again of the
finished work, by the same command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from interpreted import configured, save_model
from placed_motifs import plant, write_motifs
from toy import Toy
from toy_variants import snvs, vcf

from cherimoya.config.design import DesignConfig
from cherimoya.config.interpret import (
    AttributeConfig,
    HitsConfig,
    MarginalizeConfig,
    VariantsConfig,
)
from cherimoya.errors import DataError
from cherimoya.interpret import attribute, design, hits, marginalize, variants, variants_effects
from cherimoya.report.plots import interpret as plots
from cherimoya.util.marks import OF_FOLDER

LOCI = {"loci": "peaks.bed", "fasta": "toy.fa", "data__in_window": 200}
PREPARED = {"data__path": "small.h5", "max_loci": 3}
ATTRIBUTE = {"checkpoint": ["a.pt"], "window": 20, "logos": 1, "bigwig": True, "output": "out.h5"}
MARGINALIZE = {"checkpoint": ["a.pt"], "motifs": ["GATTACA"], "profiles": 1, "output": "m.tsv"}
VARIANTS = {
    "checkpoint": ["a.pt"], "fasta": "toy.fa", "in_window": 200, "random_variants": 4,
    "output": "effects.tsv",
}  # fmt: skip
DESIGN = {
    "checkpoint": ["a.pt"], "target": "counts:1", "change": 1.0, "max_iter": 3, "attempts": 1,
    "examples": 1, "output": "d.tsv",
}  # fmt: skip
HITS = {"motifs": "five.meme", "output": "h.tsv", "device": "cpu"}
WAYS: dict[str, tuple[Callable, str, type, dict]] = {
    "attribute, prepared": (
        attribute.attribute, "attribute", AttributeConfig,
        {**ATTRIBUTE, **PREPARED, "fasta": "sizes.fa"},
    ),
    "attribute, loci": (
        attribute.attribute, "attribute", AttributeConfig, {**ATTRIBUTE, **LOCI},
    ),
    "attribute, dependency": (
        attribute.attribute, "attribute", AttributeConfig,
        {**ATTRIBUTE, **LOCI, "method": "dependency"},
    ),
    "marginalize, prepared": (
        marginalize.marginalize, "marginalize", MarginalizeConfig, {**MARGINALIZE, **PREPARED},
    ),
    "marginalize, loci": (
        marginalize.marginalize, "marginalize", MarginalizeConfig, {**MARGINALIZE, **LOCI},
    ),
    "variants, VCF": (
        variants.variants, "variants", VariantsConfig, {**VARIANTS, "variants": "v.vcf"},
    ),
    "variants, table": (
        variants.variants, "variants", VariantsConfig, {**VARIANTS, "variants": "v.txt"},
    ),
    "variants, compressed": (
        variants.variants, "variants", VariantsConfig, {**VARIANTS, "variants": "v.vcf.gz"},
    ),
    "design, prepared": (
        design.design, "design", DesignConfig, {**DESIGN, **PREPARED},
    ),
    "design, loci": (design.design, "design", DesignConfig, {**DESIGN, **LOCI}),
    "hits, placed": (hits.hits, "hits", HitsConfig, {**HITS, "attributions": "placed.h5"}),
    "hits, nowhere": (hits.hits, "hits", HitsConfig, {**HITS, "attributions": "nowhere.h5"}),
}  # fmt: skip


@pytest.fixture(params=WAYS)
def run(request, toy: Toy, small_data: Path, monkeypatch):
    """The command in a folder with all inputs, and the name of its output."""
    monkeypatch.chdir(toy.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(toy.folder / "cache"))
    save_model(toy.folder / "a.pt", signal_groups=[1, 2])
    Path("small.h5").symlink_to(small_data)
    toy.write("sizes.fa", "".join(f">sim{c}\n{'A' * 100_000}\n" for c in range(1, 5)))
    toy.bed(*(f"chr{c}\t{at}\t{at + 1}" for c in "AB" for at in (400, 700)), name="peaks.bed")
    rows = snvs(toy, 700, 1500, 2500)
    vcf(toy, *rows)
    if "compressed" in request.param:
        pysam = pytest.importorskip("pysam")
        pysam.tabix_compress("v.vcf", "v.vcf.gz")
    lines = Path("v.vcf").read_text().splitlines()
    cells = [line.split("\t") for line in lines if not line.startswith("#")]
    head = "chrom\tpos\tref\talt\n"
    toy.write("v.txt", head + "".join(f"{c[0]}\t{c[1]}\t{c[3]}\t{c[4]}\n" for c in cells))
    write_motifs(Path("five.meme"))
    plant(Path("placed.h5"), n=2)
    plant(Path("nowhere.h5"), n=2, known=False)
    command, name, kind, given = WAYS[request.param]
    return (lambda **more: command(configured(name, kind, **given, **more))), given["output"]


def beside(output: str) -> dict[str, bytes]:
    """What is beside the output, without its mark; nothing of pages, which hold the time."""
    stem = Path(output).stem
    found = [p for p in Path().glob(f"{stem}.*") if p.is_file() and p.name != output]
    return {
        p.name: p.read_bytes() if p.suffix != ".html" else b""
        for p in found
        if not p.name.endswith(OF_FOLDER)
    }


@pytest.mark.slow
def test_what_is_lost_is_made_again_of_the_finished_work(run, monkeypatch, capsys):
    command, output = run
    command()
    table, made = Path(output).read_bytes(), beside(output)
    assert made
    monkeypatch.setattr(variants, "_score", lambda *_: pytest.fail("scored again"))
    monkeypatch.setattr(design, "_design_loci", lambda *_: pytest.fail("designed again"))
    monkeypatch.setattr(hits, "_find", lambda *_: pytest.fail("fitted again"))
    monkeypatch.setattr(marginalize, "_measure", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(attribute, "_attribute_all", lambda *_: pytest.fail("attributed again"))
    for name in made:
        if name.endswith(".tbi"):  # not every VCF file can have one
            continue
        Path(name).unlink()
        command()
        assert beside(output) == made, name
    assert Path(output).read_bytes() == table
    capsys.readouterr()
    command()
    said = capsys.readouterr().out
    assert f"done already: {output}\n" in said or f"{output}: attributed before" in said


@pytest.mark.slow
def test_a_step_that_fails_keeps_the_finished_work(run, monkeypatch, capsys):
    command, output = run
    with monkeypatch.context() as broken:
        broken.setattr(variants_effects.Questions, "tracks", lambda *_: 1 / 0)
        broken.setattr(plots, "effects_page", lambda *_: 1 / 0)
        broken.setattr(plots, "logo_pages", lambda *_: 1 / 0)
        from cherimoya.report import design as designs_page
        from cherimoya.report import hits as page

        broken.setattr(page, "write_page", lambda *_: 1 / 0)
        broken.setattr(designs_page, "write_page", lambda *_: 1 / 0)
        command()
    said = capsys.readouterr().out
    assert "ZeroDivisionError('division by zero'). The same command tries again" in said
    table, before = Path(output).read_bytes(), set(beside(output))
    command()
    assert Path(output).read_bytes() == table
    new = set(beside(output)) - before
    assert any(name.endswith((".png", ".html")) for name in new)


@pytest.mark.slow
def test_what_was_changed_beside_a_table_is_neither_kept_in_silence_nor_written_over(run):
    command, output = run
    command()
    name = next(name for name in beside(output) if not name.endswith((".tbi", ".html")))
    Path(name).write_text("my own notes")
    with pytest.raises(DataError, match=rf"{name}: changed since it was written\. Choose another"):
        command()
    assert Path(name).read_text() == "my own notes"
    command(overwrite=True)
    assert Path(name).read_bytes() != b"my own notes"


@pytest.mark.parametrize("run", ["variants, VCF"], indirect=True)
def test_what_lies_beside_from_an_older_table_is_not_taken_for_this_ones(run):
    command, _ = run
    command()
    old = Path("effects.vcf").read_bytes()
    command(overwrite=True, vcf=False, page=False, seed=3)
    with pytest.raises(DataError, match=r"effects\.vcf: exists already\. .* set vcf=false"):
        command(seed=3)
    assert Path("effects.vcf").read_bytes() == old
    Path("effects.vcf").unlink()
    Path("effects.html").unlink()
    command(seed=3)
    assert Path("effects.vcf").read_bytes() != old
