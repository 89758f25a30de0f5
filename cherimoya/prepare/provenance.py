"""What a prepared file was made from, and whether that is still the same."""

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cherimoya import __version__
from cherimoya.config.group_names import files_of, names_of
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import to_dict
from cherimoya.data import hdf5
from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import table_of
from cherimoya.genome.fasta import check_exists
from cherimoya.records.overwrite import check_inputs_kept
from cherimoya.util.files import check_name
from cherimoya.util.marks import checked_digest, mark_of, marked_path, not_as_written, read_mark
from cherimoya.util.resume import changed_keys

FILES = ("fasta", "loci", "exclude", "signal", "control")  # named in full by `sources`
FREE = (
    "are_strands",
    "output",
    "overwrite",
    "check",
    "plots",
    "processes",
)  # that do not change the loci


def provenance(config: PrepareConfig) -> dict[str, Any]:
    """What the prepared file of `config` is made from, see `made_from`, and the configuration."""
    described = to_dict(config) | {"signal": config.signal_files}
    if names := names_of(config.signal):  # apart, as JSON keeps no order of keys
        described["signal_names"] = names
    return made_from(_files(config)) | {"config": described}


def made_from(files: Iterable[tuple[str, str | Path]]) -> dict[str, Any]:
    """The key, name, size and SHA-256 of each (key, path), the command and the tool's version."""
    return {
        "sources": [_described(key, Path(path)) for key, path in files],
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": __version__,
    }


def check_output(output: Path) -> Path:
    """The folder that `output` goes to, or the nearest one that exists above it.

    Raises DataError when nothing can be written there.
    """
    check_name(output)
    if output.is_dir():
        raise DataError(f"output={output}: a folder. Name the file to write.")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise DataError(f"output={output}: {folder} is a file. Choose another folder.")
    if not os.access(folder, os.W_OK):
        raise DataError(f"output={output}: {folder} cannot be written to. Choose another folder.")
    return folder


def check_kept(output: Path, config: PrepareConfig) -> None:
    """Raise ConfigError where what is written would take the place of an input."""
    check_inputs_kept(config, {output: "", **plots_of(output, config)})


def plots_of(output: Path, config: PrepareConfig) -> dict[Path, str]:
    """The plots that are drawn beside `output`, and how to do without."""
    drawn = {".gc.png": config.background_ratio > 0, ".cuts.png": config.shift == "auto"}
    return {
        output.with_suffix(suffix): ", or set plots=false"
        for suffix, is_drawn in drawn.items()
        if is_drawn and config.plots
    }


def begun_with(config: PrepareConfig) -> dict[str, Any]:
    """What the parts of a preparation depend on: keys, and files by path, size and time."""
    facts = {k: v for k, v in to_dict(config).items() if k not in (*FILES, *FREE)}
    for i, (key, path) in enumerate(_files(config)):
        check_exists(Path(path), key)
        stat = Path(path).stat()
        facts[f"{key} {i + 1}"] = [str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns]
    for key in ("signal", "control"):
        facts[f"files in {key}"] = [len(group) for group in files_of(getattr(config, key))]
    if names := names_of(config.signal):
        facts["signal_names"] = names
    return facts | {"version": __version__}


def check_unchanged(output: Path, config: PrepareConfig) -> str | None:
    """None where the file `output` is what `config` makes, and else what has damaged it since.

    Raises DataError, saying what differs, where it was made of other things.
    """
    fix = "Choose another name, or set overwrite=true to prepare it again."
    now, mark = _facts(provenance(config)), read_mark(mark_of(output))
    if mark is not None and mark.facts["made"] == now and mark.damaged():
        return not_as_written(mark)  # before it is opened: HDF5 may hang over a damaged file
    try:
        before = _facts(hdf5.read_header(output).provenance)
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(f"output={output}: exists already, made by something else. {fix}") from None
    if said := changed_keys(before, now):
        raise DataError(f"output={output}: exists already, made otherwise: {said}. {fix}")
    return None


def marked(output: Path, made: Mapping[str, Any]) -> AbstractContextManager[Path]:
    """Where the prepared file `output` of provenance `made` is written, with a mark by which later
    damage is seen."""
    return marked_path(output, {"made": _facts(made)})


def _facts(made: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which loci come out, from `provenance`."""
    config = made["config"]
    facts = {key: value for key, value in config.items() if key not in (*FILES, *FREE)}
    facts["fragments"] = {k: v for k, v in config["fragments"].items() if k != "groups"}
    for key in ("signal", "control"):
        facts[f"files in {key}"] = [len(group) for group in config[key]]
    for i, source in enumerate(made["sources"]):
        facts[f"{source['key']} {i + 1}"] = f"{source['name']} ({source['sha256'][:12]})"
    plain: dict[str, Any] = json.loads(json.dumps(facts | {"version": made["version"]}))
    return plain


def _files(config: PrepareConfig) -> list[tuple[str, str | Path]]:
    """(key, path) of every source file."""
    files: list[tuple[str, str | Path]] = [("fasta", config.fasta)]
    files += [("loci", path) for path in config.loci_files]
    files += [("exclude", path) for path in config.exclude_files]
    files += [("chrom_alias", path) for path in table_of(config.chrom_alias)]
    if config.fragments.groups is not None:
        files.append(("fragments.groups", config.fragments.groups))
    for key in ("signal", "control"):
        files += [(key, path) for group in files_of(getattr(config, key)) for path in group]
    return files


def _described(key: str, path: Path) -> dict[str, Any]:
    check_exists(path, key)
    size = path.stat().st_size
    return {"key": key, "name": path.name, "size": size, "sha256": checked_digest(path)}
