"""What is done of a preparation, beside its output, so that it goes on after any end."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cherimoya.errors import DataError, DiskError, PackageError
from cherimoya.genome.fasta import Genome, Say, read_genome
from cherimoya.util.files import lock_folder
from cherimoya.util.marks import not_as_written, read_mark, write_mark

MADE_FROM, GENOME = "made_from.json", "genome.json"
LOCK = ".lock"


def folder_for(output: Path) -> Path:
    """Where the parts of `output` are kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


@contextmanager
def resumable_output(output: Path, made_from: Mapping[str, Any], say: Say) -> Iterator[Path]:
    """The folder of what is done of `output`, owned by this process alone.

    What is in it stays only if it was begun with the same `made_from`. It is removed when the
    block ends well or finds fault with an input, and kept for the same command otherwise.

    Raises InUse where another process prepares the same output.
    """
    folder = folder_for(output)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        _begin(folder, json.loads(json.dumps(dict(made_from))), say)
        try:
            yield folder
        except BaseException as error:
            if isinstance(error, (DataError, PackageError)) and not isinstance(error, DiskError):
                shutil.rmtree(folder)
            else:
                say(f"stopped. The same command goes on after what is done, kept in {folder}")
            raise
        shutil.rmtree(folder)


def spooled_genome(path: str | Path, folder: Path, say: Say) -> Genome:
    """The FASTA file at `path`; its codes are kept in `folder`, and not read twice."""
    spool, noted = folder / "genome", folder / GENOME
    mark = read_mark(noted)
    if mark is None or mark.damaged():
        if noted.exists():
            say(f"{folder}: {not_as_written(mark)}, so the genome is read again")
        genome = read_genome(path, spool, say)
        write_mark(noted, {"lengths": genome.lengths, "letters": genome.letters}, [spool])
        return genome
    letters = {name: Counter(counts) for name, counts in mark.facts["letters"].items()}
    return Genome(Path(path), mark.facts["lengths"], letters, spool)


def _begin(folder: Path, made_from: Mapping[str, Any], say: Say) -> None:
    """Leave in `folder` what was made from the same, and note what that is."""
    noted = folder / MADE_FROM
    before = _noted(noted)
    if before == made_from:
        say(f"{folder}: going on with what an interrupted run has done: {_done(folder)}")
        return
    if before is not None:
        changed = [key for key in {**before, **made_from} if before.get(key) != made_from.get(key)]
        said = "; ".join(f"{k} was {before.get(k)}, now {made_from.get(k)}" for k in changed)
        say(f"{folder}: an interrupted run was of something else, so all begins anew: {said}")
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    write_mark(noted, {"made_from": made_from}, [])


def _noted(path: Path) -> Any:
    """What is noted, None if nothing is; something else than before if it cannot be believed."""
    mark = read_mark(path)
    if mark is None:
        return {} if path.is_file() else None
    return mark.facts["made_from"]


def _done(folder: Path) -> str:
    """What there is, in words."""
    counts = {
        "the genome": (folder / GENOME).is_file(),
        "{} fragment files": len(list(folder.glob("*/fragments.json"))),
        "{} parts of the peaks": len(list(folder.glob("peaks-*"))),
        "{} parts of the background": len(list(folder.glob("background-*"))),
    }
    return ", ".join(what.format(int(n)) for what, n in counts.items() if n) or "nothing yet"
