"""What torch.save writes, whole or not at all; read only where every checksum holds."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from cherimoya.errors import DataError
from cherimoya.util.files import atomic_write

ZIP_START = b"PK\x03\x04"
FOLDER = 0x10  # among the attributes of a record


def write_torch_file(path: Path, content: Any) -> Path:
    """Write `content` to `path`, synced to the disk. Raises OSError, which names the file."""
    made = io.BytesIO()  # torch turns an error of the disk into one of its own, without a reason
    torch.save(content, made)
    with atomic_write(path) as file:
        file.write(made.getbuffer())
    return path


def read_torch_file(path: Path) -> Any:
    """The content of `path`, on the CPU: tensors, numbers and their containers alone.

    torch.load compares no checksum, so that a flipped bit changes a weight without a word. A file
    is a zip archive with the CRC-32 of every record, which are compared first; one of PyTorch
    before 1.6 has none.

    Raises
    ------
    DataError
        If it is no file or may not be read, is damaged, or PyTorch reads nothing from it.
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise DataError(f"{path}: something else than a file has its name. Move it away.")
    try:
        damage = _damage(path)
    except PermissionError:
        raise DataError(f"{path} may not be read: ask its owner (chmod)") from None
    if damage:
        raise DataError(f"{path} is damaged: {damage}. Copy it again from where it came from.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types
        raise DataError(
            f"{path} is not a checkpoint, or is damaged: PyTorch reads no weights from it. Copy it "
            "again, or name a file that a run, model.save or upstream has written."
        ) from error


def _damage(path: Path) -> str | None:
    """What is wrong with the records of a zip archive; None for another file."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                record, records = archive.testzip(), archive.infolist()
        except Exception as error:  # the zipfile module raises many types for a damaged file
            return str(error) or type(error).__name__
    for known in records:  # PyTorch would leave the memory of such a tensor as it was before
        folder = known.external_attr & FOLDER and not known.is_dir()
        if folder or (known.file_size and not known.compress_size):
            return f"{known.filename} is said to be a folder or empty"
    return f"the checksum of {record} is another" if record else None
