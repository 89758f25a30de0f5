"""The files that W&B writes into a run's folder, as far as a run that goes on must know them."""

import glob
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 32768  # bytes, of a .wandb file


def numbers_on_disk(folder: Path, wandb_id: str) -> set[int]:
    """The numbers of the rows that W&B's files in a run's folder hold.

    A row may be missing that is in metrics.jsonl: W&B's process writes a little later. What is
    damaged holds none.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    found = set()
    for path in folder.glob(f"wandb/*run-*/run-{glob.escape(wandb_id)}.wandb"):
        for data in records(path.read_bytes()):
            with suppress(DecodeError, ValueError):
                record = wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
                for item in record.history.item:
                    if "_step" in (item.key, *item.nested_key):
                        found.add(int(item.value_json))
    return found


def records(content: bytes) -> Iterator[bytes]:
    """The whole records of a .wandb file: after a header, a log in LevelDB's format."""
    at, parts = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(content):
        rest = BLOCK - at % BLOCK
        if rest < RECORD_HEADER:  # too short for a record
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += RECORD_HEADER + length
        parts += content[at - length : at]
        if kind in (1, 4) and at <= len(content):  # a whole record, or the last part of one
            yield parts
            parts = b""


def remove_empty(folder: Path, wandb_id: str) -> None:
    """Remove what a run killed in its first second left: without a record, no sync gets past it."""
    for file in folder.glob(f"wandb/offline-run-*/run-{glob.escape(wandb_id)}.wandb"):
        if file.stat().st_size <= FILE_HEADER:
            shutil.rmtree(file.parent, ignore_errors=True)
