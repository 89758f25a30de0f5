"""cherimoya-doctor: what is installed here, what it runs on, and what is missing."""

import argparse
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from cherimoya import __version__
from cherimoya.cli.level import add_level, without_level
from cherimoya.cli.pipe import quiet_when_closed
from cherimoya.cli.version import version_text
from cherimoya.errors import CherimoyaError, ConfigError, DiskError
from cherimoya.util import console

PACKAGE = "cherimoya-train"
WORDS = """\
Say which versions are installed, on which device and by which kernels a training would run, what
becomes of a run at Weights & Biases, and which extras can be used or how to get them. The exit code
is 1 where something that every command needs is missing or fails."""
EXTRA = re.compile(r"extra *== *['\"]([\w-]+)['\"]")
NAME = re.compile(r"[\w.-]+")
LEFT_OUT = ("dev", "docs")  # extras that are for work on the package itself
MODULES = {"hydra-core": "hydra", "modisco-lite": "modiscolite"}  # that have another name
CORE = ("torch", "numpy", "h5py", "hydra-core", "omegaconf", "wandb", "tqdm")
NEAR = 1e-3  # largest difference of a network's outputs, of their size, by kernels and by PyTorch

Line = tuple[str, str, bool]  # what it is about, what is said, and whether that is well


@quiet_when_closed()
def doctor() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="cherimoya-doctor", description=WORDS)
    add_level(parser)
    parser.add_argument("--version", action="version", version=version_text("cherimoya-doctor"))
    try:
        parser.parse_args(without_level(sys.argv[1:]))
    except ConfigError as error:
        parser.error(str(error))
    well = True
    for about, said, good in _lines():
        line = f"{about:<13} {said}"
        console.say(line if good else console.warning(line))
        well &= good
    said = "all that every command needs is there" if well else "see above"
    console.say(console.result(f"{'result':<13} {said}"))
    if not well:
        raise SystemExit(1)


def _lines() -> Iterator[Line]:
    """All that is to be said, one after another, as some take a second."""
    yield "cherimoya", f"{__version__}, {Path(__file__).parents[1]}", True
    system = f"{platform.system()} {platform.machine()}"
    yield "python", f"{platform.python_version()}, {system}, {sys.executable}", True
    yield from _scripts()
    broken = [name for name in CORE if _problem(name)]
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in CORE), not broken
    for name in broken:
        yield name, f"cannot be used: {_problem(name)}", False
    if not {"torch", "numpy"} & set(broken):
        yield from _device()
    if "wandb" not in broken:
        yield _wandb()
    yield from _extras()
    yield from _places()


def _scripts() -> Iterator[Line]:
    """Whether a shell finds the commands of this very Python."""
    found, own = shutil.which("cherimoya-train"), Path(sys.executable).parent
    if found is None:
        activate = own / "activate"
        fix = f"activate its environment: source {activate}" if activate.exists() else f"add {own}"
        yield "commands", f"a shell does not find cherimoya-train (PATH): {fix}", True
    elif Path(found).parent != own:
        yield "commands", f"cherimoya-train is {found}, of another Python than this", True
    else:
        yield "commands", f"in {own}", True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _problem(package: str) -> str:
    """Why a package cannot be imported; nothing if it can."""
    try:
        importlib.import_module(MODULES.get(package, package.replace("-", "_")))
    except Exception as error:  # of any kind: it is somebody else's code
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _device() -> Iterator[Line]:
    """Device, precision and kernels of trainer.device=auto; on a GPU the kernels are tried."""
    import torch

    from cherimoya.inference.precision import HALF, choose_precision
    from cherimoya.ops.dispatch import route
    from cherimoya.records.provenance import choose_device, cpu_name

    device = choose_device("auto")
    yield "processor", f"{cpu_name()}, {os.cpu_count()} cores", True
    for i in range(torch.cuda.device_count()):
        held = torch.cuda.get_device_properties(i)
        yield f"GPU {i}", f"{held.name}, {held.total_memory / 2**30:.0f} GiB", True
    if device.type == "cpu":
        built = torch.version.cuda or torch.version.hip
        why = f"torch is built for CUDA {built}" if built else "this torch is built for CPUs alone"
        yield "GPU", f"none that torch sees; {why}", True
    precision = choose_precision("auto", device)
    yield "precision", f"{precision} (trainer.precision=auto)", True
    try:
        kernels = route(device, HALF.get(precision, torch.float32))
    except CherimoyaError as error:
        yield "kernels", str(error), False
        return
    yield "kernels", f"{kernels.why}; triton {_version('triton')}", True
    if kernels.conv_norm:
        yield _tried(device)


def _tried(device: Any) -> Line:
    """Whether a small network answers the same by kernels and by PyTorch, in fp32."""
    import torch

    from cherimoya.network import Cherimoya
    from cherimoya.ops.dispatch import plain_pytorch

    codes = torch.randint(4, (2, 512), generator=torch.Generator().manual_seed(0))
    X = torch.nn.functional.one_hot(codes, 4).mT.float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Cherimoya(n_filters=64, n_layers=3).eval()
    try:
        with torch.no_grad():
            own = [y.cpu() for y in model.to(device)(X.to(device))]
            with plain_pytorch():
                others = model.cpu()(X)
        pairs = zip(own, others, strict=True)
        apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    except Exception as error:  # of a compiler or a driver
        said = " ".join(str(error).split())[:200]
        return "", f"a kernel fails ({type(error).__name__}: {said})", False
    return "", f"a small network by kernels is PyTorch's within {apart:.1g}", apart < NEAR


def _wandb() -> Line:
    """Where logger=wandb would send a run to."""
    from cherimoya.config.options import Wandb
    from cherimoya.loggers.wandb_server import wandb_mode

    settings = Wandb(
        project="cherimoya", mode="auto", run_name=None, group=None, tags=[], log_model="none"
    )
    try:
        mode, why = wandb_mode(settings)
    except CherimoyaError as error:
        return "W&B", str(error), True
    words = {"none": "off", "offline": "offline, in the run folder"}.get(mode, mode)
    return "W&B", f"{words} ({why})", True


def _extras() -> Iterator[Line]:
    """Each extra: usable, or what is missing and how to get it."""
    needed: dict[str, list[str]] = {}
    with suppress(PackageNotFoundError):
        for words in requires(PACKAGE) or ():
            for extra in EXTRA.findall(words):
                match = NAME.match(words)
                if extra not in LEFT_OUT and match is not None:
                    needed.setdefault(extra, []).append(match[0])
    for extra, packages in needed.items():
        problems = {name: _problem(name) for name in packages}
        if any(problems.values()):
            bad = [f"{name} ({p})" if _version(name) != "missing" else f"{name} is missing"
                   for name, p in problems.items() if p]  # fmt: skip
            yield f"[{extra}]", f"{', '.join(bad)}: pip install '{PACKAGE}[{extra}]'", True
        else:
            yield f"[{extra}]", ", ".join(f"{name} {_version(name)}" for name in packages), True


def _places() -> Iterator[Line]:
    """Where things are kept, and whether they can be."""
    from cherimoya.util.files import private_folder, user_cache

    try:
        cache = private_folder(user_cache())
        yield "cache", f"{cache}, {_free(cache)}", True
    except (DiskError, OSError) as error:
        yield "cache", f"{error}", False
    yield "this folder", f"{Path.cwd()}, {_free(Path.cwd())}", True


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 2**30:,.0f} GiB free"


if __name__ == "__main__":
    doctor()
