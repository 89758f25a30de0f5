"""The commands that the pages of the documentation show, and how each is run on small data."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from page_scene import TINY

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INLINE = r"`((?:cherimoya-[a-z]+|torchrun|srun)(?: [^`]*)?)`"
NO_CONFIGURATION = ("--help", "--version", "-sc", "--cfg")  # words that end a command at once

NAME = "no more than the name of a command"
NOT_RUN = {  # commands, and why no test can run them
    r"cherimoya-[a-z]+( \.\.\.| control=\.\.\.)?": NAME,
    r"cherimoya-(report FOLDER \.\.\.|sweep status \[FOLDER\]|sweep slurm ARGUMENTS)": "how a command is called: other pages give it what it needs",
    r"make (install|train|test).*": "an installation: .ci/run makes its own by the same steps",
    r"pip install .*|python3 -m venv .*": "an installation",
    r"source \.venv/bin/activate": "a shell's own command",
    r"podman .*": "needs an engine of containers: tests/test_container.py runs its steps",
    r"torchrun .*|.*trainer\.devices=4.*": "needs GPUs: tests/distributed run it on a CPU",
    r"srun .*|.*hydra/launcher=slurm .*": "needs SLURM: tests/sweeps have one of their own",
    r"cherimoya-dashboard .*": "needs a server of W&B: tests/report have one of their own",
    r".*--config-dir=my_lab loss=mine": "tests/config/test_extensions.py trains with it",
    r"python experiments/.*": "draws a picture of this site, from a longer run",
    r'eval "\$\(.*': "tests/cli run it in each shell",
}
ADDED = {  # what a command that is shown in part is run with
    r"cherimoya-hits attributions=motifs.h5 .*": "motifs=JASPAR.meme",  # TF-MoDISco needs more loci
    r"cherimoya-hits seqlets=true":
        "attributions=bases.h5 motifs=JASPAR.meme output=seqlets.tsv overwrite=true",
    r"cherimoya-attribute method=deep_lift_shap bigwig=true.*":
        "checkpoint=base output=shap.h5",
    r"cherimoya-attribute \.\.\. modisco=true.*": "checkpoint=base method=deep_lift_shap",
    r"cherimoya-variants \.\.\. peaks=peaks.bed":
        "checkpoint=base variants=snps.vcf.gz fasta=genome.fa output=effects.tsv",
    r"cherimoya-evaluate \.\.\. replicate=other.h5": "checkpoint=base",
    r"cherimoya-train .*model.bias=train \.\.\.": "data.path=my.h5 data.fold=0",
    r"cherimoya-sweep status": "--once",
    r"cherimoya-sweep slurm": "-m seed=0,1",
}  # fmt: skip
SHORTER = {  # settings of a page, and what they are in a test
    "trainer.min_steps=10000": "trainer.min_steps=3", "trainer.max_steps=10500": "trainer.max_steps=5",
    "trainer.max_epochs=10": "trainer.max_epochs=1", "trainer.max_epochs=3": "trainer.max_epochs=1",
    "trainer.batch_size=4096": "trainer.batch_size=16", "max_loci=100": "max_loci=2", "max_loci=10": "max_loci=1",
    "model.n_layers=5,7,9": "model.n_layers=1,2,3", "model.n_filters=64,96,128": "model.n_filters=4,8",
}  # fmt: skip
SMALL = {  # settings that make a command short, where it does not set them itself
    "attribute": ("max_loci=4", "logos=1"),
    "design": ("max_loci=1", "max_iter=5", "designs=4", "attempts=1"),
    "variants": ("random_variants=50",), "marginalize": ("max_loci=4",),
}  # fmt: skip
SWEPT = {  # fewer values than a sweep has
    "depth_width": ("model.n_layers=1,2", "model.n_filters=4", "seed=0"),
    "depth_width_small": ("model.n_layers=1,2", "model.n_filters=4,8"),
    "ablation": ("model.blocks=cheri,convnext", "loss=kendall", "model.blocks.residual_scale=1",
                 "model.blocks.expansion=1", "seed=0"),
    "ablation_bpnet": ("loss=kendall,poisson", "seed=0"),
}  # fmt: skip


def shown(page: Path) -> list[tuple[str, bool]]:
    """Every command of a page, in its order; whether it is whole, as those in blocks are."""
    found: dict[str, bool] = {}
    fence: str | None = None  # the language of the block
    for line in page.read_text().splitlines():
        if (start := line.strip()).startswith("```"):
            fence = start[3:] if fence is None else None
        elif fence in ("", "console") or (fence is None and line.startswith("    cherimoya-")):
            if command := start.removeprefix("$ ").partition(" #")[0].strip():
                found[command] = True
        elif fence is None:
            for command in re.findall(INLINE, line):
                found.setdefault(command, False)
    return list(found.items())


def run_of(page: Path) -> list[str]:
    """The commands that the test of a page runs: no training that a page before it shows."""
    before = {
        line for other in PAGES[: PAGES.index(page)] for line, _ in shown(other)
        if not line.startswith("cherimoya-prepare")
    }  # fmt: skip
    return [line for line, whole in shown(page) if line not in before and not why_not(line, whole)]


def why_not(line: str, whole: bool) -> str | None:
    """Why a command is not run."""
    known = (why for words, why in NOT_RUN.items() if re.fullmatch(words, line))
    return next((why for why in known if not (whole and why == NAME)), None)


def to_run(line: str, run: str) -> tuple[str, list[str], str | None]:
    """The command, its words and the file that takes its output, with a run in place of <run>."""
    more = next((w for known, w in ADDED.items() if re.fullmatch(known, line)), "")
    line = line.replace("model.init=outputs/<date>/<run>", "model.init=base")  # of the same data
    for written, meant in {"outputs/<date>/<run>": run, "checkpoint=...": f"checkpoint={run}",
                           "GROUP": "model"}.items():  # fmt: skip
        line = line.replace(written, meant)
    name, *words = shlex.split(f"{line} {more}")
    name = name.removeprefix("cherimoya-")
    target = words.pop() if ">" in words else None
    words = [SHORTER.get(w, w) for w in words if w not in ("...", ">")]
    if name in SMALL or name == "train":
        words += [w for w in small(name, words) if w.partition("=")[0] not in keys(words)]
    return name, words, target


def keys(words: Iterable[str]) -> set[str]:
    """What is set by words."""
    return {word.partition("=")[0] for word in words}


def small(name: str, words: list[str]) -> tuple[str, ...]:
    """The settings that make a command short."""
    if any(w.startswith((*NO_CONFIGURATION, "trainer.resume=")) for w in words):
        return ()
    if name != "train":
        shuffled = ("n_shuffles=2",) if "method=deep_lift_shap" in words else ()
        many = ("max_loci=36", "window=null") if "modisco=true" in words else ()
        return (*many, *SMALL[name], *shuffled)
    sweep = next((w.removeprefix("sweep=") for w in words if w.startswith("sweep=")), "")
    swept = SWEPT.get(sweep, ())
    found = [*swept, *(word for word in TINY if word.partition("=")[0] not in keys(swept))]
    if not keys(words) & {"data.path", "data", "experiment"}:
        found += ["data.synthetic.n_peaks=80", "data.synthetic.n_background=40"]
    if "model.bias=train" in words:
        found += ["bias_model.max_epochs=1", "bias_model.n_filters=8"]
    if "hydra/sweeper=optuna" in words:
        found += ["hydra.sweeper.n_trials=2"]
    return tuple(found)
