"""Models and the state from which a run continues, on disk."""

import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cherimoya.config.diff import differences
from cherimoya.config.saved import current
from cherimoya.config.schema import to_dict
from cherimoya.config.train import FREE_ON_RESUME, WHERE_DATA_IS, TrainConfig
from cherimoya.data.dataset import Dataset
from cherimoya.data.groups import group_labels
from cherimoya.errors import CherimoyaError, DataError, OwnError
from cherimoya.inference.checkpoints import GROUPS, TRAINED_ON, WINDOW
from cherimoya.network import Cherimoya
from cherimoya.records.run import LAST, PREVIOUS
from cherimoya.registry import own_classes
from cherimoya.util.console import warning
from cherimoya.util.files import sync
from cherimoya.util.own_code import said
from cherimoya.util.torch_file import read_torch_file, write_torch_file

STATE_FORMAT = 2  # of last.pt


class Checkpoints:
    """The checkpoints of a run folder: best and final models, and the last training state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read_back = False  # whether a saved state has been, see save_last
        folder.mkdir(parents=True, exist_ok=True)

    def save_model(self, model: Cherimoya, name: str, told: Mapping[str, Any]) -> Path:
        """Save the model's current parameters as `name`, readable by Cherimoya.load.

        told: what the file tells of the training wherever it is, see `of_training`
        """
        content = {"config": model.config, "state_dict": model.state_dict(), **told}
        return _written(self.folder / name, content)

    def save_last(self, state: dict[str, Any]) -> None:
        """Save the training state; the one before stays as previous.pt.

        Raises OwnError if code of the user's own put into it what cannot be read back.
        """
        path = _written(self.folder / f"{LAST}.new", state)
        if own_classes and not self._read_back:
            _check_read_back(path)
            self._read_back = True
        self._put_in_place()

    def _put_in_place(self) -> None:
        last = self.folder / LAST
        if last.exists():
            os.replace(last, self.folder / PREVIOUS)
        os.replace(self.folder / f"{LAST}.new", last)
        sync(self.folder)

    def load_last(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest training state that can be read; None where nothing was saved yet.

        Raises CherimoyaError where none of what was saved can be read.
        """
        reasons: list[str] = []
        for name in (f"{LAST}.new", LAST, PREVIOUS):
            path = self.folder / name
            if not path.exists():
                continue
            if name == PREVIOUS and not reasons:
                reasons.append(f"{self.folder / LAST} is missing.")
            try:
                state = read_torch_file(path)
            except DataError as error:
                reasons.append(str(error))
                continue
            if "state_dict" in state:
                reasons.append(f"{path} is a model, not the state of a run.")
                continue
            if path.name == f"{LAST}.new":  # the process was killed before it came to that
                self._put_in_place()
            if reasons:
                say(warning(f"{reasons[-1]} Continuing from {name}, the one before"))
            return state
        if reasons:
            raise CherimoyaError(f"cannot resume: {' '.join(reasons)} Or start a new run.")
        say(warning(f"{self.folder} holds no {LAST} yet, so the run starts over"))
        return None


def of_training(dataset: Dataset, began_with: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's file tells of its training.

    Bases in and out, what its signal groups are called, if several or named, and of each
    chromosome whether it was trained on, also by the model that this one started from and by its
    bias model.
    """
    loci, groups = dataset.loci, group_labels(dataset.loci)
    trained = set(loci.chrom[dataset.rows["train"]].tolist())
    seen = {name: name in trained for name in dict.fromkeys(loci.chrom.tolist())}
    for other in ("init", "bias"):
        earlier = began_with.get(other, {}).get("trained_on") or {}
        seen |= {name: True for name, before in earlier.items() if before}
    told = {WINDOW: (loci.in_window, loci.out_window), TRAINED_ON: seen}
    return told | ({GROUPS: groups} if len(groups) > 1 or loci.group_names else {})


def _check_read_back(path: Path) -> None:
    """Remove a state that cannot be read, and raise OwnError."""
    try:
        read_torch_file(path)
    except DataError as error:
        path.unlink()
        reason = " ".join(str(error.__cause__ or error).split())
        found = re.search(r"GLOBAL (\S+)", reason)
        held = found[1] if found else f"what PyTorch does not read ({reason[:200]})"
        raise _wrong_state(held) from error


def _written(path: Path, content: Mapping[str, Any]) -> Path:
    """As write_torch_file. Raises OwnError for what code of the user's own put into `content`."""
    try:
        return write_torch_file(path, content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if not own_classes:
            raise
        raise _wrong_state(f"what cannot be saved ({said(error)})") from error


def _wrong_state(held: str) -> OwnError:
    return OwnError(
        f"{' or '.join(own_classes.values())}: state_dict returned {held}. A run goes on from "
        "tensors, numbers and text, and lists and dicts of them."
    )


def check_state(
    saved: Mapping[str, Any], config: TrainConfig, dataset: Dataset, checkpoints: Path
) -> None:
    """Raise CherimoyaError if the data or the configuration changed since a state was `saved`."""
    if saved.get("format") != STATE_FORMAT:
        raise CherimoyaError(
            f"cannot resume: the state in {checkpoints} was written by another "
            "version of cherimoya-train. Continue with that version, or start a new run."
        )
    free = (*FREE_ON_RESUME, *WHERE_DATA_IS)
    changed = differences(current(saved.get("config", {})), to_dict(config), free)
    if changed:
        folder = checkpoints.parent
        raise CherimoyaError(
            f"cannot resume: {folder / 'config.yaml'} is not what the run in {folder} saved "
            f"its state under: {'; '.join(changed)}. Put it back, or start a new run."
        )
    if saved["fingerprint"] != dataset.fingerprint:
        raise CherimoyaError(
            f"cannot resume: {dataset.path} has changed since the run began (fingerprint "
            f"{saved['fingerprint']}, now {dataset.fingerprint}). Restore it, or start a "
            "new run."
        )
