"""Files on the Hugging Face Hub, named hf://owner/name/path/to/file[@revision].

They are kept in the Hub's own cache (HF_HOME), and its own variables say where it is (HF_ENDPOINT),
who asks (HF_TOKEN, `hf auth login`) and whether it may be asked (HF_HUB_OFFLINE).
"""

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cherimoya.errors import FULL, ConfigError, PackageError
from cherimoya.util import console
from cherimoya.util.optional import import_optional

START = re.compile(r"hf:|https?://", re.IGNORECASE)  # what begins so is an address
FORM = "hf://owner/name/path/to/file"
OTHER_KINDS = ("buckets", "datasets", "spaces")
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
WEB = re.compile(r"https?://[^/]+/([^/]+/[^/]+)/(?:resolve|blob|raw)/([^/]+)/([^?#]+)")
IN_PART = re.compile(r"hf://([^/]+/[^/]+)/(?:resolve|blob)/(main|[0-9a-f]{40})/([^?#]+)")
DOWNLOAD = "?download=true"  # how the Hub's links end
MODELS = (".pt", ".torch", ".safetensors")  # how names of models' files end
MOST_NAMED = 10  # files in a message
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Address:
    """A file of a repository of models. revision: a branch, a tag or a commit."""

    repository: str
    file: str
    revision: str


@dataclass(frozen=True)
class HubFile:
    """A file of the Hub, on this machine. commit: 40 hex digits, what its revision stood for."""

    address: str
    commit: str
    path: Path


def is_address(named: str | os.PathLike[str]) -> bool:
    """Whether something that names a checkpoint names a file of the Hub, if not as it should."""
    return START.match(str(named)) is not None


def _meant(named: str) -> str:
    """The address that is meant by one of the web, by a part of it, or with other letters."""
    if match := WEB.match(named) or IN_PART.match(named):
        repository, revision, file = map(unquote, match.groups())
        return f"hf://{repository}/{file}" + ("" if revision == "main" else f"@{revision}")
    own = named.removesuffix(DOWNLOAD)
    return f"hf{own[2:]}" if own.lower().startswith("hf:") else own


def parse_address(named: str, key: str = "") -> Address:
    """The parts of an address. Raises ConfigError, which names the `key`, for one that is none."""
    if (meant := _meant(named)) != named:
        raise ConfigError(f"{_named(named, key)}: write {_named(meant, key)}.")
    rest, at, revision = named.removeprefix("hf://").partition("@")
    parts = rest.split("/")
    what = ""
    if not named.startswith("hf:"):
        what = "it is no file of the Hugging Face Hub, and others are not downloaded"
    elif not named.startswith("hf://"):
        what = "hf: is followed by two slashes"
    elif parts[0] in OTHER_KINDS:
        what = f"{parts[0]} of the Hub hold no models, so only repositories of models are read"
    elif "" in parts[:2] or len(parts) < 2:
        what = "it names no repository, which is owner/name"
    elif len(parts) == 2 and "/" in revision:
        what = "the revision comes last, behind the file"
    elif len(parts) == 2 or not all(parts[2:]) or {".", ".."} & set(parts):
        what = "it names no file of the repository"
    elif at and not revision:
        what = "it names no revision behind @"
    if what:
        raise ConfigError(
            f"{_named(named, key)}: {what}. Write {FORM}, and behind it @ with a branch, tag or "
            "commit for another than main."
        )
    return Address("/".join(parts[:2]), "/".join(parts[2:]), revision or "main")


def fetch(named: str, key: str = "", say: Callable[[str], None] = console.say) -> HubFile:
    """The file of an address, downloaded unless the Hub's cache has it; `say` gets which commit.

    Raises ConfigError, which names the `key`, where it cannot be had, and PackageError where
    huggingface_hub is not installed.
    """
    address = parse_address(named, key)
    hub = import_optional("huggingface_hub")
    if "dry_run" not in signature(hub.hf_hub_download).parameters:
        raise PackageError(
            f"huggingface_hub {hub.__version__} is too old for {named}: "
            "pip install --upgrade 'cherimoya-train[hub]'"
        )
    try:
        return _downloaded(named, address, say)
    except Exception as error:  # of the library, of what it rests on, and of the disk
        raise ConfigError(f"{_named(named, key)}: {_in_words(address, error)}") from error


def _named(named: str, key: str) -> str:
    return f"{key}={named}" if key else named


def _downloaded(named: str, address: Address, say: Callable[[str], None]) -> HubFile:
    hub: Any = import_optional("huggingface_hub")
    of = {"repo_id": address.repository, "filename": address.file}
    held = hub.try_to_load_from_cache(**of, revision=address.revision)
    try:  # once: of itself hf_hub_download tries for half a minute
        known = hub.get_hf_file_metadata(hub.hf_hub_url(**of, revision=address.revision))
    except Exception as error:
        if not isinstance(held, str) or (_status(error) or 500) < 500:
            raise
        found = HubFile(named, _commit_of(address, held), Path(held))
        say(f"{'hub':<12} {named}: in the cache, commit {found.commit}")
        return found
    is_held = isinstance(hub.try_to_load_from_cache(**of, revision=known.commit_hash), str)
    size = "" if known.size is None else f" {console.counted(known.size, 'byte')}"
    how = "in the cache" if is_held else f"downloading{size}"
    say(f"{'hub':<12} {named}: {how}, commit {known.commit_hash}")
    with console.report_duration(f"download of {named}"):
        path = hub.hf_hub_download(**of, revision=address.revision)
    return HubFile(named, _commit_of(address, path), Path(path))


def _commit_of(address: Address, path: str) -> str:
    """Of a file of the cache: <cache>/.../snapshots/<commit>/<file>."""
    return Path(path).parents[address.file.count("/")].name


def _status(error: BaseException) -> int | None:
    """That of the Hub's answer; None where there was none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _in_words(address: Address, error: Exception) -> str:
    """Why a file could not be had, and what to do."""
    errors: Any = import_optional("huggingface_hub.errors")
    where = f"{_endpoint()}/{address.repository}"
    if isinstance(error, errors.HFValidationError):
        return f"{_first_line(error)}. Write {FORM}."
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated. Ask for access at {where}, then {LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {where}, or it is private. Check its name, or {LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{where} has no branch, tag or commit {address.revision}. Name another behind @, or "
            "none for main."
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{where} has no file {address.file} at {address.revision}. {_held(address)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _unreached(address, error.__cause__ or error)
    if isinstance(error, OSError) and error.errno in (*FULL, *REFUSED) and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Mend that, or set HF_HOME to another folder for "
            "the cache."
        )
    return _unreached(address, error)


def _unreached(address: Address, error: BaseException) -> str:
    """What to say where the Hub gave no answer, or none that is about the repository."""
    errors: Any = import_optional("huggingface_hub.errors")
    cache = import_optional("huggingface_hub.constants").HF_HUB_CACHE
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"it is not in the cache, {cache}, and HF_HUB_OFFLINE is set. Unset it, or where there "
            f"is a network: hf download {address.repository} {address.file}"
        )
    status = _status(error)
    if status in (401, 403):
        return f"{_endpoint()} refuses it (status {status}). With access to it, {LOG_IN}."
    said = f"status {status}" if status else _first_line(error)
    return (
        f"{_endpoint()} cannot be asked for it ({said}), and it is not in the cache, {cache}. "
        "Check the network, proxies and HF_ENDPOINT; the same command goes on with what it has."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _endpoint() -> str:
    return str(import_optional("huggingface_hub.constants").ENDPOINT)


def _held(address: Address) -> str:
    """Which files of the repository may be meant, if it can be asked."""
    api: Any = import_optional("huggingface_hub").HfApi()
    with suppress(Exception):
        held = api.list_repo_files(address.repository, revision=address.revision)
        models = sorted(name for name in held if name.lower().endswith(MODELS))
        more = f", and {len(models) - MOST_NAMED:,} more" if len(models) > MOST_NAMED else ""
        if models:
            return f"It has {', '.join(models[:MOST_NAMED])}{more}."
        return f"It has no {', '.join(MODELS[:-1])} or {MODELS[-1]} file: name another repository."
    return "Look there for what it has."
