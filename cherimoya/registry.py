"""What a group's names stand for: classes of ours, of installed packages, or `module:Class`.

A package adds names by an entry point of the group `cherimoya.plugins`, which names a module with
`NAMES`, such as {"loss": {"mine": "mylab.losses:MyLoss"}}, and `CONF`, a folder of YAML files.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cherimoya.errors import ConfigError

ENTRY_POINTS = "cherimoya.plugins"
OPTIONS = "cherimoya.config.options"
FOLDERS = "CHERIMOYA_FOLDERS"  # in the environment: the user's own, which --config-dir names


@dataclass(frozen=True)
class Group:
    """One kind of thing that may be chosen by name.

    arguments: what its class is called with before its settings, which are keywords; methods: what
    the class needs; ours: the class of each name, as module:Class, and its settings in OPTIONS
    """

    what: str
    arguments: tuple[str, ...]
    methods: tuple[str, ...]
    ours: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()  # settings that the class is not given


GROUPS = {
    "model.blocks": Group(
        "a block", ("n_filters", "dilation"), ("forward",),
        {
            "cheri": ("cherimoya.cheri:CheriBlock", "Cheri"),
            "bpnet": ("cherimoya.blocks:BPNetBlock", "Empty"),
            "convnext": ("cherimoya.blocks:ConvNeXtBlock", "Cheri"),
        },
    ),
    "loss": Group(
        "a loss", (), ("forward", "end_epoch"),
        {
            "kendall": ("cherimoya.losses:KendallLoss", "Kendall"),
            "fixed": ("cherimoya.losses:FixedLoss", "Fixed"),
            "poisson": ("cherimoya.losses:PoissonLoss", "Empty"),
        },
    ),
    "optim": Group(
        "an optimizer", ("params",), ("step", "state_dict"),
        {
            "muon": ("cherimoya.optim.optimizers:Muon", "Muon"),
            "adamw": ("cherimoya.optim.optimizers:AdamW", "AdamW"),
            "sgd": ("cherimoya.optim.optimizers:SGD", "SGD"),
        },
        kept=("schedule",),
    ),
    "data.source": Group(
        "a data source", (), ("loci",),
        {
            "synthetic": ("cherimoya.data.synthetic:simulate", "Empty"),
            "hdf5": ("cherimoya.data.hdf5:read", "Empty"),
        },
    ),
    "metrics": Group("a metric", (), ("__call__",)),
    "logger": Group(
        "a logger", ("folder",),
        ("check", "start", "row", "summary", "image", "table", "model", "finish"),
        {
            "wandb": ("cherimoya.loggers.wandb:WandbLogger", "Wandb"),
            "csv": ("cherimoya.loggers.csv:CSVLogger", "Empty"),
            "tensorboard": ("cherimoya.loggers.tensorboard:TensorBoardLogger", "Empty"),
        },
    ),
}  # fmt: skip


# The classes of the user's own that were found, each with the words that chose it first.
own_classes: dict[type, str] = {}


class NotFound(ConfigError):  # noqa: N818 - as MissingValue
    """A name that stands for nothing here."""


def add_folder(folder: str | os.PathLike[str]) -> None:
    """Take group files and modules from `folder` too, here and in processes that begin here."""
    known = own_folders()
    path = str(Path(folder).absolute())
    if path not in known:
        os.environ[FOLDERS] = os.pathsep.join([*known, path])


def own_folders() -> list[str]:
    """The folders that `add_folder` was told of."""
    return [path for path in os.environ.get(FOLDERS, "").split(os.pathsep) if path]


def conf_folders() -> list[str]:
    """The folders of group files beside ours. Raises ConfigError as `plugins` does."""
    found = own_folders()
    for module in plugins():
        if conf := getattr(module, "CONF", None):
            found.append(str(Path(module.__file__).parent / str(conf)))
    return found


@functools.cache
def plugins() -> tuple[Any, ...]:
    """The modules that installed packages name as their plug-ins. Raises ConfigError."""
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found.append(point.load())
            _check_plugin(found[-1])
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"the plug-in {point.name} ({point.value}) does not load "
                f"({type(error).__name__}: {error}). Mend or uninstall its package."
            ) from error
    return tuple(found)


def _check_plugin(module: Any) -> None:
    """Raise ValueError for NAMES or CONF that are not what they have to be."""
    given = getattr(module, "NAMES", {})
    if not isinstance(given, dict) or not all(isinstance(v, dict) for v in given.values()):
        raise ValueError('NAMES has to be such as {"loss": {"mine": "mylab.losses:MyLoss"}}')
    if unknown := set(given) - set(GROUPS):
        raise ValueError(f"NAMES has {min(unknown)!r}: the groups are {', '.join(GROUPS)}")
    conf = getattr(module, "CONF", None)
    if conf is not None and not (Path(module.__file__).parent / str(conf)).is_dir():
        raise ValueError(f"CONF={conf!r} is no folder beside {module.__file__}")


def plugin_names(group: str) -> dict[str, str]:
    """The names of a group that installed packages add, each with its module:Class."""
    names: dict[str, str] = {}
    for module in plugins():
        names |= getattr(module, "NAMES", {}).get(group, {})
    return names


def names(group: str) -> list[str]:
    """The names of a group that are known, ours first."""
    return [*GROUPS[group].ours, *plugin_names(group)]


def settings_of(group: str, name: str, key: str = "") -> type:
    """The dataclass of the settings that `name` takes. Raises ConfigError as `find` does."""
    if name in GROUPS[group].ours:
        settings: type = getattr(importlib.import_module(OPTIONS), GROUPS[group].ours[name][1])
        return settings
    return _settings(find(group, name, key))


def find(group: str, name: str, key: str = "") -> Any:
    """The class that `name` stands for.

    Parameters
    ----------
    key : str
        The configuration's key, for messages; that of the group by default.

    Raises
    ------
    ConfigError
        If there is no such name, module or class, or the class does not fit the group.
    """
    key, known = key or f"{group}.name", GROUPS[group]
    target = known.ours[name][0] if name in known.ours else plugin_names(group).get(name, name)
    module, colon, attribute = target.partition(":")
    parts = [*module.split("."), attribute]
    if not (colon and all(part.isidentifier() for part in parts)):
        near = difflib.get_close_matches(name, names(group), n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{key}={name}: no such name. {guess}Known here: {', '.join(names(group)) or 'none'}; "
            "or write module:Class for one of your own."
        )
    if name not in known.ours:  # modules may lie here, or in a folder of the user's own
        sys.path += [f for f in [*own_folders(), os.getcwd()] if f not in sys.path]
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotFound(
            f"{key}={name}: there is no module {error.name}. Install its package, run where "
            f"{str(error.name).partition('.')[0]}.py lies, or name its folder by --config-dir or "
            "PYTHONPATH."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{key}={name}: the module {module} does not load ({type(error).__name__}: {error})."
        ) from error
    if target == name:  # a name of ours or of a package stands for the module of that package
        _check_file(module, f"{key}={name}")
    if not hasattr(loaded, attribute):
        raise ConfigError(f"{key}={name}: the module {module} has no {attribute}.")
    found = getattr(loaded, attribute)
    if name not in known.ours:
        _check(known, found, f"{key}={name}")
        own_classes.setdefault(found, f"{key}={name}")
    return found


def _check_file(module: str, named: str) -> None:
    """Raise ConfigError where another file of the module's name was read than the user's own."""
    top = module.partition(".")[0]
    read = getattr(sys.modules[top], "__file__", None)
    for folder in map(Path, [*own_folders(), os.getcwd()]):
        for own in (folder / f"{top}.py", folder / top / "__init__.py"):
            if own.is_file() and not (read and own.samefile(read)):
                raise ConfigError(
                    f"{named}: the module {top} is {read or 'one of Python'}, so {own} was not "
                    "read. Give your file another name, or remove the other one."
                )
            if own.is_file():
                return


def _check(group: Group, found: Any, named: str) -> None:
    """Raise ConfigError for a class that cannot be used as one of its group."""
    if not inspect.isclass(found):
        raise ConfigError(f"{named}: this is no class, as {group.what} has to be.")
    has = {name for base in found.__mro__ for name in vars(base)}
    absent = [name for name in group.methods if name not in has]
    if absent:
        raise ConfigError(f"{named}: {group.what} needs a method {absent[0]}.")
    settings = _settings(found)
    if not dataclasses.is_dataclass(settings):
        raise ConfigError(f"{named}: its Settings are no dataclass. Write @dataclass above them.")
    keywords = {f.name: None for f in dataclasses.fields(settings) if f.name not in group.kept}
    try:
        inspect.signature(found).bind(*group.arguments, **keywords)
    except TypeError as error:
        wanted = ", ".join([*group.arguments, *keywords]) or "nothing"
        raise ConfigError(
            f"{named}: its __init__ has to take {wanted} ({error}). Settings are keyword arguments."
        ) from error


def _settings(found: Any) -> type:
    """The dataclass of a class's settings: its Settings, or one without any."""
    settings: type = getattr(found, "Settings", None) or importlib.import_module(OPTIONS).Empty
    return settings
