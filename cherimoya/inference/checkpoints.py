"""Checkpoints that a user names, of any origin or of runs, and the window to ask them with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from cherimoya.config.data import DataConfig
from cherimoya.config.schema import build
from cherimoya.data import hdf5
from cherimoya.data.dataset import data_file
from cherimoya.data.groups import group_labels, with_groups
from cherimoya.data.splits import split_rows
from cherimoya.distributed import launch
from cherimoya.errors import CherimoyaError, ConfigError, DataError
from cherimoya.inference.ensemble import Ensemble
from cherimoya.network import Cherimoya
from cherimoya.records.run import BEST, RunFolder, is_run, read_run
from cherimoya.util.console import say, warning
from cherimoya.util.hub import HubFile, fetch, is_address
from cherimoya.util.model_file import read_content

WINDOW, GROUPS, TRAINED_ON = "window", "groups", "trained_on"  # where a model's file has them
USUAL_OUTPUT = 1000  # bases predicted, where nothing tells what the model was trained on


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model's file, and the run that it is of, if it lies in a run's folder.

    hub: which file of the Hub it is, if it is one
    """

    path: Path
    run: RunFolder | None
    hub: HubFile | None = None

    @property
    def name(self) -> str:
        """What it is called in messages: its address on the Hub, or its path."""
        return self.hub.address if self.hub else str(self.path)

    def load(self, device: torch.device | str = "cpu", bias: bool | None = False) -> Cherimoya:
        """The model, see `Cherimoya.load`. Raises CherimoyaError."""
        try:
            return Cherimoya.load(self.path, device, bias)
        except CherimoyaError as error:
            if self.hub is None:
                raise
            raise CherimoyaError(
                f"{self.name}: {error} It lies in the Hub's cache: where it is damaged there, "
                f"remove {self.path} and give the command again."
            ) from error

    @property
    def data(self) -> DataConfig | None:
        """What the run read; None for a checkpoint without a run."""
        if self.run is None or "data" not in self.run.config:
            return None
        return build(DataConfig, self.run.config["data"], "data")

    def trained_on(self) -> dict[str, bool] | None:
        """Whether it was trained on each chromosome of its data; None where that is not known.

        Also by the model that its training started from. Its file tells, and so does its run.
        """
        told, of_run = self._told.get(TRAINED_ON), self._trained_on_by_run()
        if not isinstance(told, dict):
            return of_run
        found = {str(name): bool(seen) for name, seen in told.items()}
        for name, seen in (of_run or {}).items():
            found[name] = seen or found.get(name, False)
        return found

    def _trained_on_by_run(self) -> dict[str, bool] | None:
        """As `trained_on`, by the configuration of the run alone."""
        data = self.data
        if data is None:
            return None
        try:
            path = data_file(data)
            header = hdf5.read_header(path, data.keys)
            rows = split_rows(data, header.chrom, header.label, str(path))["train"]
        except DataError:
            return None
        trained = set(header.chrom[rows].tolist())
        return {name: name in trained for name in header.chromosomes()}

    @cached_property  # the file is read, and its checksums compared, once
    def _told(self) -> dict[str, Any]:
        """What the file tells of the training. Raises DataError for one that cannot be read."""
        held = read_content(self.path)
        return {name: held[name] for name in (WINDOW, GROUPS, TRAINED_ON) if name in held}

    @property
    def groups(self) -> list[str]:
        """What the signal groups are called; none where neither file nor run say."""
        told = self._told.get(GROUPS)
        if isinstance(told, list):
            return [str(name) for name in told]
        stored = self.stored()
        return [] if stored is None else group_labels(stored)

    @property
    def window(self) -> tuple[int | None, int | None]:
        """Bases in and out that the model was trained with; None where neither file nor run say.

        Raises DataError for a file that cannot be read.
        """
        saved = self._told.get(WINDOW) or (None, None)
        if saved[0] is not None or self.run is None:
            return saved[0], saved[1]
        noted, data = self.run.summary.get("window", {}), self.run.config.get("data", {})
        known = [noted.get(k, data.get(f"{k}_window")) for k in ("in", "out")]
        if known[0] is None and (stored := self.stored()):  # what a run takes that sets none
            known = [stored.in_window, known[1] or stored.out_window]
        return known[0], known[1]

    def stored(self) -> hdf5.Header | None:
        """What the file says that the run read, if it is there."""
        try:
            data = self.data
            if data is None:
                return None
            path = data_file(data)
            return with_groups(hdf5.read_header(path, data.keys), data.groups, str(path))
        except CherimoyaError:
            return None

    def described(self) -> dict[str, Any]:
        """Where it is and what is in it, as JSON-ready values; of the Hub also which commit."""
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described = {"path": self.name, "sha256": digest}
        return described if self.hub is None else described | {"commit": self.hub.commit}


@cache  # several parts of a command ask, and all get the same commit
def _of_hub(named: str, key: str) -> HubFile:
    return fetch(named, key, say if launch.rank() == 0 else lambda _: None)


def find_checkpoint(named: str, key: str = "checkpoint") -> Checkpoint:
    """The checkpoint at `named`: a file, a run folder, of which the best one is taken, or an
    address of the Hub.

    Raises ConfigError, which names the `key`, if there is none.
    """
    if is_address(named):
        on_hub = _of_hub(named, key)
        return Checkpoint(on_hub.path, None, on_hub)
    path = Path(named)
    if path.is_dir():
        if not is_run(path):
            raise ConfigError(
                f"{key}={named}: a folder without a run (config.yaml is missing). Name a "
                "run folder or a checkpoint file."
            )
        path = path / "checkpoints" / BEST
    if not path.is_file():
        raise ConfigError(
            f"{key}={named}: {path} does not exist. A run keeps its own in "
            "checkpoints/best.pt once an epoch is over."
        )
    folder = path.absolute().parent.parent
    own = path.absolute().parent.name == "checkpoints" and is_run(folder)
    run = read_run(folder) if own else None
    if run is not None and run.problems:
        raise ConfigError(
            f"{key}={named}: a file of the run in {folder} is damaged: {run.problems[0]} Or "
            f"copy {path.name} elsewhere to use it without the run."
        )
    return Checkpoint(path, run)


def named_sources(
    sources: Sequence[dict[str, Any]], checkpoints: Sequence[Checkpoint]
) -> list[dict[str, Any]]:
    """`sources` of which the first are the checkpoints: those of the Hub get address and commit."""
    named = [dict(source) for source in sources]
    for source, one in zip(named, checkpoints, strict=False):
        if one.hub is not None:
            source |= {"name": one.hub.address, "commit": one.hub.commit}
    return named


def load_ensemble(
    checkpoints: Sequence[Checkpoint],
    device: torch.device,
    reverse_complement: bool = False,
    bias: bool | None = False,
) -> Ensemble:
    """The models on `device`, ready to predict, with their bias models if `bias` says so.

    Says which, where they have some. Raises CherimoyaError if they do not fit.
    """
    models = [one.load(device, bias) for one in checkpoints]
    corrected = [one.name for one, m in zip(checkpoints, models, strict=True) if m.bias_model]
    if corrected and len(corrected) < len(models):
        plain = next(one.name for one in checkpoints if one.name not in corrected)
        raise CherimoyaError(
            f"checkpoint: {corrected[0]} has a bias model and {plain} has none, so that they do "
            "not predict the same. Name models of one kind."
        )
    _check_same_order(checkpoints)
    try:
        ensemble = Ensemble(models, reverse_complement).eval()
    except ValueError as error:
        listed = ", ".join(one.name for one in checkpoints)
        raise CherimoyaError(
            f"checkpoint: {listed} cannot predict together: {error}. Name models of one shape."
        ) from None
    if ensemble.with_bias is not None:
        used = "with" if ensemble.with_bias else "corrected, without"
        say(f"{'bias':<12} {used} the bias model")
    return ensemble


def _check_same_order(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise CherimoyaError for models of the same signal groups in another order."""
    if len(checkpoints) < 2:
        return
    first, *others = checkpoints
    for one in others:
        if first.groups != one.groups and sorted(first.groups) == sorted(one.groups):
            raise CherimoyaError(
                f"checkpoint: {first.name} has signal groups {', '.join(first.groups)}, and "
                f"{one.name} has them as {', '.join(one.groups)}: they cannot predict together. "
                "Train them with data.groups in one order."
            )


def known_window(checkpoints: Sequence[Checkpoint], key: str, requested: int | None) -> int | None:
    """Bases of input: `requested`, else those that the models were trained on; says so
    where that is not set, or set otherwise than in training.

    None where neither is known. Raises ConfigError where the runs say several, of which the
    configuration's `key` must choose.
    """
    said = {one.window[0]: one.name for one in checkpoints if one.window[0] is not None}
    if requested is not None:
        others = " or ".join(f"{length:,}" for length in said if length != requested)
        if others:
            say(
                warning(f"{key:<12} {requested:,} bases, as set; the model was trained on {others}")
            )
        return requested
    if len(said) > 1:
        listed = ", ".join(f"{path} with {length:,}" for length, path in said.items())
        raise ConfigError(
            f"the models were trained with windows of several lengths: {listed}. Choose one with "
            f"{key}; their normalisation spans the whole window."
        )
    trained = next(iter(said), None)
    if trained is not None:
        say(f"{key:<12} {trained:,} bases, as in training")
    return trained


def input_window(
    checkpoints: Sequence[Checkpoint],
    trimming: int,
    key: str,
    requested: int | None,
    otherwise: tuple[int, str] | None = None,
) -> int:
    """As `known_window`; where nothing tells, `otherwise`: bases, and what they are.

    Raises ConfigError where that is None, or the model would trim the whole window.
    """
    length = known_window(checkpoints, key, requested)
    if length is None and otherwise is None:
        raise ConfigError(
            f"{key} has no value, and {checkpoints[0].name} lies in no run folder that tells. Set "
            f"it to the length that the model was trained on, such as {key}=2114: its "
            "normalisation spans the whole window."
        )
    if length is None:
        assert otherwise is not None
        length, why = otherwise
        say(f"{key:<12} {length:,} bases, {why}: no run says what the model was trained on")
    if length <= 2 * trimming:
        raise ConfigError(
            f"{key}={length}: the model trims {trimming} bases from each side. Set {key} to more "
            f"than {2 * trimming}: what it was trained on."
        )
    return length
