"""Folders in which commands are broken off, and what must be in them when all went well."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from interpreted import save_model
from placed_motifs import plant, write_motifs
from toy import Toy
from toy_variants import snvs, vcf

from cherimoya.config.data import SyntheticConfig
from cherimoya.data import hdf5
from cherimoya.data.synthetic import simulate

TRAIN = (
    "cherimoya-train", "data=hdf5", "data.path=small.h5", "data.validation_chroms=[sim3]",
    "data.test_chroms=[sim4]", "model=tiny", "logger=csv", "trainer.batch_size=16",
    "trainer.max_epochs=2", "trainer.threads=1", "optim.warmup_epochs=1", "trainer.device=cpu",
)  # fmt: skip
QUICK = "trainer.plots=false"
CLOCK = ("_ms", "seconds", "per_second", "wait", "gpu_gb", "memory", "time")  # in names of columns
MODEL = ("checkpoint=model.pt", "device=cpu")
LOCI = ("loci=loci.bed", "fasta=toy.fa")


@dataclass(frozen=True)
class Scene:
    """A command, and the one that goes on where it was broken off."""

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()  # if it is another one
    output: str = "out"  # below which all files must be as without the fault

    @property
    def second(self) -> tuple[str, ...]:
        return self.again or self.words


SCENES = {
    scene.name: scene
    for scene in (
        Scene("train", (*TRAIN, QUICK, "hydra.run.dir=out"), (*TRAIN, QUICK, "trainer.resume=out")),
        Scene("train with plots", (*TRAIN, "hydra.run.dir=out"), (*TRAIN, "trainer.resume=out")),
        Scene("sweep", (*TRAIN, QUICK, "-m", "seed=0,1", "hydra.sweep.dir=out")),
        Scene("search", (
            *TRAIN, QUICK, "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2",
            "optim.adamw.lr=interval(0.001,0.01)", "hydra.sweep.dir=out",
        )),
        Scene("prepare", (
            "cherimoya-prepare", *LOCI, "signal=[[plus.bw,minus.bw]]", "output=out/p.h5",
            "in_window=40", "out_window=20", "max_jitter=5", "background_ratio=1",
        )),
        Scene("predict bigWig", (
            "cherimoya-predict", *MODEL, "fasta=toy.fa", "in_window=300", "output=out",
        )),
        Scene("predict HDF5", (
            "cherimoya-predict", *MODEL, *LOCI, "in_window=300", "output=out", "format=hdf5",
        )),
        Scene("attribute", (
            "cherimoya-attribute", *MODEL, *LOCI, "data.in_window=300", "window=20", "logos=1",
            "bigwig=true", "output=out/a.h5",
        )),
        Scene("variants", (
            "cherimoya-variants", *MODEL, "fasta=toy.fa", "variants=v.vcf", "in_window=300",
            "random_variants=4", "output=out/v.tsv",
        )),
        Scene("marginalize", (
            "cherimoya-marginalize", *MODEL, "motifs=[GATTACA]", *LOCI, "data.in_window=300",
            "profiles=1", "output=out/m.tsv",
        )),
        Scene("design", (
            "cherimoya-design", *MODEL, *LOCI, "data.in_window=300", "max_loci=3", "change=1.0",
            "max_iter=3", "attempts=1", "examples=1", "output=out/d.tsv",
        )),
        Scene("hits", (
            "cherimoya-hits", "attributions=placed.h5", "motifs=five.meme", "device=cpu",
            "output=out/h.tsv",
        )),
        Scene("export", (
            "cherimoya-export", "checkpoint=model.pt", "output=out/m.safetensors",
        )),
        Scene("evaluate", (
            "cherimoya-evaluate", "checkpoint=small.pt", "data.path=small.h5", "device=cpu",
            "chroms=[sim4]", "bootstrap=20", "output=out",
        )),
    )
}  # fmt: skip


def make_inputs(folder: Path) -> Path:
    """The files that all scenes read."""
    folder.mkdir(parents=True)
    toy = Toy(folder)
    toy.bed(*(f"chr{c}\t{at}\t{at + 1}" for c in "ABC" for at in range(400, 1700, 300)))
    vcf(toy, *snvs(toy, 700, 1500, 2500))
    save_model(folder / "model.pt", signal_groups=[2])
    config = SyntheticConfig(seed=1, n_chromosomes=4, n_peaks=64, n_background=26, mean_count=200.0)
    hdf5.write(folder / "small.h5", simulate(config, in_window=200, out_window=100, max_jitter=8))
    save_model(folder / "small.pt", signal_groups=[2])
    plant(folder / "placed.h5", n=2)
    write_motifs(folder / "five.meme")
    return folder


def fresh(inputs: Path, folder: Path) -> Path:
    """An empty scene with the inputs, and a folder for temporary files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
    (folder / "tmp").mkdir()
    return folder


def contents(folder: Path, scene: Scene) -> dict[str, str]:
    """A digest of each file that the scene left, less what depends on the clock; inputs left out.

    Names alone for what differs from run to run, such as a status.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and (name.split("/")[0] == scene.output or name.startswith("tmp/")):
            found[name] = digest_of(path)
    return found


def digest_of(path: Path) -> str:
    kind = next((k for k in READERS if path.name.endswith(k)), None)
    if kind is None:
        return ""
    return hashlib.sha256(READERS[kind](path)).hexdigest()[:16]


def _rows(path: Path) -> bytes:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not any(c in k for c in CLOCK)} for row in rows]
    return json.dumps(kept, sort_keys=True).encode()


def _weights(path: Path) -> bytes:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return b"".join(_tensors(saved))


def _tensors(value: object):
    if isinstance(value, torch.Tensor):
        yield value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _tensors(value[key])
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _hdf5(path: Path) -> bytes:
    digest = hashlib.sha256()
    with h5py.File(path) as file:

        def add(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                digest.update(name.encode() + np.ascontiguousarray(item[()]).tobytes())

        file.visititems(add)
    return digest.digest()


def _table(path: Path) -> bytes:
    """Without its first line, which says when it was made."""
    return path.read_bytes().partition(b"\n")[2]


READERS: dict[str, Callable[[Path], bytes]] = {
    "metrics.jsonl": _rows, ".pt": _weights, ".h5": _hdf5, ".tsv": _table, ".bw": Path.read_bytes,
    ".fa": Path.read_bytes,
}  # fmt: skip
