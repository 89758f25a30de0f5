"""Files of models: what `torch.save` writes, ours or upstream's, and safetensors files of ours."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cherimoya.errors import CherimoyaError, DataError
from cherimoya.util.optional import import_optional
from cherimoya.util.torch_file import read_torch_file

CONFIG, STATE = "config", "state_dict"
DIGEST = "sha256"  # in a safetensors file, which has no checksums: of all that is in it
LENGTH = 8  # bytes at its start, which say how long its header is


def read_model_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration and the weights of a model's file.

    Raises CherimoyaError for another file.
    """
    if not path.is_file():
        raise CherimoyaError(f"no checkpoint at {path}. A run keeps its own in checkpoints/best.pt")
    held = read_content(path)
    config, state = held.get(CONFIG), held.get(STATE)
    if isinstance(config, dict) and isinstance(state, dict):
        return config, dict(state)
    named = ", ".join(sorted(map(str, held))) or "neither"
    what = "a run goes on from it" if {"step", "rng"} <= held.keys() else f"it holds {named}"
    raise CherimoyaError(
        f"{path} is not a model's checkpoint, which holds config and state_dict: {what}. Name one "
        "such as best.pt."
    )


def read_content(path: Path) -> dict[str, Any]:
    """All that is in a model's file, by name; nothing where it holds something else than names.

    Raises DataError for a file that cannot be read, or is damaged.
    """
    if path.is_file() and _is_safetensors(path):
        return _read_safetensors(path)
    content = read_torch_file(path)
    return content if isinstance(content, dict) else {}


def write_safetensors(
    path: Path, state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Write weights and JSON-ready facts, which `read_content` reads back.

    Raises PackageError where safetensors is not installed.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    said = {"format": "pt"} | {key: json.dumps(value) for key, value in facts.items()}
    said[DIGEST] = _digest(said, tensors)
    path.write_bytes(import_optional("safetensors.torch").save(tensors, said))


def _is_safetensors(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(LENGTH + 1)
    except PermissionError:
        return False  # which is said where it is read
    length = int.from_bytes(start[:LENGTH], "little")
    return start[LENGTH:] == b"{" and 2 <= length <= path.stat().st_size - LENGTH


def _read_safetensors(path: Path) -> dict[str, Any]:
    safe_open = import_optional("safetensors").safe_open
    try:
        with safe_open(path, "pt") as file:
            said = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # of types of its own
        raise DataError(
            f"{path} is damaged: {error}. Copy it again from where it came from."
        ) from error
    digest = said.pop(DIGEST, None)
    if digest is None or CONFIG not in said:
        raise DataError(
            f"{path}: a safetensors file that says no model's configuration. Name one that "
            "cherimoya-export has written."
        )
    if digest != _digest(said, tensors):
        raise DataError(
            f"{path} is damaged: its {DIGEST} is another. Copy it again from where it came from."
        )
    said.pop("format", None)
    try:
        return {key: json.loads(value) for key, value in said.items()} | {STATE: tensors}
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: what it says of its model is no JSON ({error}). Export it again."
        ) from None


def _digest(said: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of all that a file holds but this."""
    digest = hashlib.sha256(json.dumps(dict(said), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
