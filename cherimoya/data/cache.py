"""Loci that are made rather than read: written once, as a file of the cache, then read again."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cherimoya.data import hdf5
from cherimoya.data.loci import Loci
from cherimoya.errors import DataError
from cherimoya.util.console import warning
from cherimoya.util.files import lock_output, private_folder, user_cache
from cherimoya.util.marks import mark_of, not_as_written, read_mark, write_mark

PATIENCE = 600  # seconds that another process may take to write the same data


def made_once(
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], Loci],
    cache_dir: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """The HDF5 file of what `make` makes, which is called if the cache has no such file.

    Parameters
    ----------
    parameters : mapping
        All that decides what is made, ready for JSON: other ones are another file.
    cache_dir : path, optional
        By default $XDG_CACHE_HOME/cherimoya, or ~/.cache/cherimoya. When it cannot be written,
        one line to `say` names the temporary folder that takes its place.

    Any number of processes may call this at once.
    """
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
    folder = user_cache() if cache_dir is None else Path(cache_dir).expanduser()
    path = folder / f"{name}-{key}.h5"
    if _is_whole(path, say):
        return path
    loci = make()
    try:
        return _written(path, loci)
    except (DataError, OSError) as error:
        fallback = Path(tempfile.gettempdir()) / f"cherimoya-{os.getuid()}"
        what = "simulated data" if name == "synthetic" else f"data of {name}"
        say(warning(f"{error} Until then the {what} go to {fallback}"))
    return _written(private_folder(fallback) / path.name, loci)


def _written(path: Path, loci: Loci) -> Path:
    """Write the file and its mark, unless another process did while this one made the loci."""
    with lock_output(path, PATIENCE):
        if not _is_whole(path):
            hdf5.write(path, loci)
            write_mark(mark_of(path), {}, [path])
    return path


def _is_whole(path: Path, say: Callable[[str], None] = lambda _: None) -> bool:
    """Whether `path` is as it was written; one that is not, or has no mark, is made again."""
    mark = read_mark(mark_of(path))
    if mark is not None and not mark.damaged():
        return True
    if path.exists() and mark_of(path).exists():
        say(warning(f"{path}: {not_as_written(mark)}, so it is made again"))
    return False
