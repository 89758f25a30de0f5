"""Rules of the house: who imports whom, every configuration composes, the wheel works alone."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from statistics import median

import house_facts
import pytest
from configs import composed
from house_facts import MODULES, PACKAGE, imports

from cherimoya import Cherimoya
from cherimoya.cli.train import conf_dir
from cherimoya.config.design import DesignConfig
from cherimoya.config.export import ExportConfig
from cherimoya.config.interpret import (
    AttributeConfig,
    HitsConfig,
    MarginalizeConfig,
    VariantsConfig,
)
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import build
from cherimoya.config.tools import DashboardConfig
from cherimoya.config.train import TrainConfig

ROOT = Path(__file__).resolve().parents[1]

COMPOSES = {
    "cli", "config.bounds", "config.command_line", "config.groups", "config.targets", "sweeps"
}  # fmt: skip
ONLY_IN = {  # third-party package: the only places that may import it
    "hydra": COMPOSES,
    "omegaconf": COMPOSES,
    "wandb": {"loggers.wandb"},
    "wandb_workspaces": {"report.dashboard"},
    "h5py": {"data", "genome.open_tracks", "records"},
    "triton": {"ops"},
    "matplotlib": {"report.plots"},
    "jinja2": {"report"},
    "optuna": {"records.study"},
    "pysam": {"genome.bam"},
}


@pytest.mark.parametrize("module", MODULES)
def test_some_packages_are_imported_in_one_place_alone(module):
    for name in imports(MODULES[module]):
        places = ONLY_IN.get(name.partition(".")[0], {""})
        assert any(module.startswith(place) for place in places), f"{module} imports {name}"


def test_imports_go_one_way():
    assert house_facts.upward() == []
    assert house_facts.circle() == []


def test_no_module_takes_private_names_of_another():
    assert house_facts.private() == []


def test_files_and_functions_are_short():
    assert house_facts.long_files(350) == []
    assert house_facts.long_functions(50) == []
    assert median(map(house_facts.lines, PACKAGE.rglob("*.py"))) <= 130


def test_rooms_are_few():
    assert len({path.parent for path in MODULES.values() if path.parent.parent == PACKAGE}) <= 20


def test_the_command_line_answers_without_torch_or_wandb():
    code = (
        "import sys, cherimoya.cli.train, cherimoya\n"
        "unwanted = {'torch', 'wandb', 'h5py', 'numpy', 'optuna'}\n"
        "assert not unwanted & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_network_imports_neither_triton_nor_the_compiler():
    code = (
        "import sys, cherimoya.network\n"
        "assert not {'triton', 'torch._dynamo', 'torch._inductor'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def options() -> list[str]:
    """Every option of every config group, as an override of cherimoya-train."""
    found = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        *groups, name = path.relative_to(conf_dir()).with_suffix("").parts
        if groups:
            found.append(f"{'/'.join(groups)}={name}")
    return found


NEEDED = ["data.path=x.h5", "data.validation_chroms=[a]", "data.test_chroms=[b]"]


@pytest.mark.parametrize("option", options())
def test_every_option_of_every_group_composes_and_resolves(option):
    needed = NEEDED if option.startswith(("data=hdf5", "data=background", "experiment=")) else []
    build(TrainConfig, composed("train", [option, *needed]))


def test_prepare_composes_and_resolves():
    needed = ["fasta=a.fa", "loci=b.bed", "signal=[[c.bw]]", "output=d.h5"]
    build(PrepareConfig, composed("prepare", needed))


def test_evaluate_composes_and_resolves():
    build(EvaluateConfig, composed("evaluate", ["checkpoint=[a.pt]", "output=b"]))


def test_predict_composes_and_resolves():
    needed = ["checkpoint=[a.pt]", "fasta=a.fa", "output=b"]
    build(PredictConfig, composed("predict", needed))


def test_attribute_composes_and_resolves():
    build(AttributeConfig, composed("attribute", ["checkpoint=[a.pt]", "output=b.h5"]))


def test_variants_composes_and_resolves():
    needed = ["checkpoint=[a.pt]", "output=b.tsv", "variants=c.vcf", "fasta=d.fa"]
    build(VariantsConfig, composed("variants", needed))


def test_marginalize_composes_and_resolves():
    build(MarginalizeConfig, composed("marginalize", ["checkpoint=[a.pt]", "output=b.tsv"]))


def test_hits_composes_and_resolves():
    build(HitsConfig, composed("hits", ["attributions=a.h5", "output=b.tsv"]))


def test_design_composes_and_resolves():
    build(DesignConfig, composed("design", ["checkpoint=[a.pt]", "change=1.0", "output=b.tsv"]))


def test_export_composes_and_resolves():
    build(ExportConfig, composed("export", ["checkpoint=[a.pt]", "output=b.onnx"]))


def test_dashboard_composes_and_resolves():
    build(DashboardConfig, composed("dashboard", []))


def test_the_default_model_is_the_published_one():
    config = build(TrainConfig, composed("train", [])).model
    model = Cherimoya(
        config.n_filters,
        config.n_layers,
        config.blocks.settings.expansion,
        config.blocks.settings.residual_scale,
        profile_kernel_size=config.profile_kernel_size,
    )
    assert sum(p.numel() for p in model.parameters()) == 342_724
    assert model.config == Cherimoya().config  # the class's defaults are those of the YAML


@pytest.mark.slow
def test_the_wheel_works_in_another_environment_and_folder(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert packed >= {str(p.relative_to(ROOT)) for p in PACKAGE.glob("report/templates/*")}
    assert "cherimoya/genome/cut_motifs.tsv" in packed
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # The wheel itself is installed new; its dependencies are those of this environment.
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    site = Path(pytest.__file__).parents[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PYTHONPATH"] = str(dependencies(site, tmp_path / "site"))
    train = environment / "bin" / "cherimoya-train"
    listed = subprocess.run(
        [train, "--cfg", "job"], env=env, cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert "n_filters: 96" in listed.stdout
    assert not listed.stderr
    assert list(elsewhere.iterdir()) == []
    search = subprocess.run(  # the plug-in is found
        [train, "-m", "hydra/sweeper=optuna", "model.n_layers=1,1", "model=tiny", "logger=none",
         "data.synthetic.n_peaks=32", "data.synthetic.n_background=8", "trainer.max_epochs=1",
         "hydra.sweeper.n_trials=1", "trainer.plots=false"],
        env={**env, "XDG_CACHE_HOME": str(tmp_path)}, cwd=elsewhere, capture_output=True, text=True,
    )  # fmt: skip
    assert "trials       1 done" in search.stdout, search.stdout + search.stderr


def dependencies(site: Path, folder: Path) -> Path:
    """A folder with everything installed at `site` but this package, editable or not."""
    folder.mkdir()
    for entry in site.iterdir():
        if "cherimoya" not in entry.name:
            (folder / entry.name).symlink_to(entry)
    return folder
