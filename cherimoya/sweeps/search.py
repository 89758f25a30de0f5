"""The search part of the command line: its space, what is checked first, its trials, its end."""

import itertools
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import OmegaConf

from cherimoya import registry
from cherimoya.config.command_line import conf_dir, flag
from cherimoya.config.command_line import overrides as overrides_in
from cherimoya.config.keys import known_keys, type_of
from cherimoya.config.schema import build, unknown_key
from cherimoya.config.tools import SearchConfig
from cherimoya.config.train import TrainConfig
from cherimoya.errors import HIDDEN, CherimoyaError, ConfigError, without_password
from cherimoya.records import metrics
from cherimoya.records import sweep as sweeps
from cherimoya.records.space import Choices, Numbers, Space
from cherimoya.records.study import STORAGE, Search, open_storage, optuna
from cherimoya.sweeps import plan as grid
from cherimoya.sweeps.members import check
from cherimoya.sweeps.plan import GROUP, Sweep, hydra_of
from cherimoya.util.console import counted, say
from cherimoya.util.files import lock_folder

SWEEPER = "hydra/sweeper"
SETTINGS = "hydra.sweeper"
TARGET = "hydra_plugins.cherimoya_search.OptunaSweeper"
PICKLING = ("slurm", "submitit_local", "submitit_slurm")  # launchers, into files
MOST_CORNERS = 16  # of a space that are checked in every combination
SCORES = f"one of {', '.join(f'valid/{m}' for m in metrics.VALIDATED)}"
ONCE = "hydra.mode=RUN"  # one run, with what a sweep's file sets besides


@dataclass(frozen=True, kw_only=True)
class SearchSweep(Sweep):
    """What a command line searches over. Its members are known as they are asked for."""

    config: SearchConfig
    space: Space
    fixed: list[str]  # words that every trial shares

    def check_member(self, config: TrainConfig) -> None:
        """Raise ConfigError where the trials are not scored by the metric."""
        metric = self.config.metric
        if metric.removeprefix("valid/") not in (*metrics.VALIDATED, *config.metrics):
            raise ConfigError(
                f"{SETTINGS}.metric={metric}: must be {SCORES}, or one of your own, chosen by "
                f"metrics=..."
            )

    def ending(self) -> str:
        """How the trials went, the best one, how to train it again, and which keys mattered."""
        search = Search(self.folder, self.config, self.space)
        counts = ", ".join(f"{n} {word}" for word, n in search.counts().items())
        best, lines = search.best(), [f"\n\ntrials       {counts}"]
        if best:
            overrides, value = best
            run = self.folder / sweeps.member_name(overrides)
            lines += [
                f"best         {self.config.metric} {value:.4g}, in {run}",
                f"train again  {self._alone(overrides)}",
            ]
        shares = [f"{key} {share:.0%}" for key, share in search.importances().items()]
        if shares:
            lines.append(f"mattered     {', '.join(shares)} (of what sets the best tenth apart)")
        return "\n".join(lines)

    def _alone(self, overrides: Mapping[str, str]) -> str:
        """The command that trains one member in a run of its own."""
        once = [ONCE] if any(word.startswith(f"{GROUP}=") for word in self.fixed) else []
        values = [f"{key}={value}" for key, value in overrides.items()]
        own = [f"--config-dir={folder}" for folder in registry.own_folders()]
        return shlex.join(["cherimoya-train", *own, *self.fixed, *once, *values])


def plan(arguments: Sequence[str]) -> SearchSweep | None:
    """The search that the command line asks for, its corners checked; None for anything else.

    Raises ConfigError for a key, a range or a setting that cannot be, and CherimoyaError without
    Optuna.
    """
    given = OverridesParser.create().parse_overrides(overrides_in(arguments))
    single = [o.input_line or "" for o in given if not o.is_sweep_override()]
    may_be_one = any(o.key_or_group in (GROUP, SWEEPER) for o in given)
    whole = hydra_of(single) if may_be_one else None
    if whole is None or whole.sweeper._target_ != TARGET:
        for o in given:
            if isinstance(o.value(), IntervalSweep):
                raise ConfigError(
                    f"{o.input_line} is an interval. Add {SWEEPER}=optuna to search it."
                )
        return None
    if flag(arguments, "--multirun") is None and whole.mode != RunMode.MULTIRUN:
        raise ConfigError(f"{SWEEPER}=optuna runs several trials. Add -m.")
    optuna()
    own = [o for o in given if not o.key_or_group.startswith("hydra")]
    _check_keys(whole.sweeper.params or {})
    space, fixed = space_of(whole.sweeper.params or {}, [o.input_line or "" for o in own])
    config = settings_of(OmegaConf.to_container(whole.sweeper, resolve=True))
    config = _hidden(config, arguments, whole.runtime.choices["hydra/launcher"])
    planned = grid.plan(arguments)
    assert planned is not None
    search = SearchSweep(
        planned.name, list(space), [], planned.folder, settings=planned.settings, here=planned.here,
        config=config, space=space, fixed=fixed,
    )  # fmt: skip
    for members in corners(space, fixed):
        check(replace(search, members=members))
    if search.config.storage:
        open_storage(planned.folder, config.storage)
    return search


def _hidden(config: SearchConfig, arguments: Sequence[str], launcher: str) -> SearchConfig:
    """The settings without the storage's password, which the environment of the runs has.

    Raises ConfigError where a launcher would write it into files, as it is typed.
    """
    url = config.storage or ""
    shown = without_password(url)
    if url == shown:
        return config
    if launcher in PICKLING and any(without_password(word) != word for word in arguments):
        raise ConfigError(
            f"{SETTINGS}.storage={shown}: hydra/launcher={launcher} writes what is typed into "
            f"files, which are to have no password. Type it as here, with {HIDDEN}, and give all "
            f"of it by: export {STORAGE}=..."
        )
    os.environ[STORAGE] = url
    return replace(config, storage=shown)


def settings_of(values: Any) -> SearchConfig:
    """The checked settings of hydra/sweeper=optuna, with a direction. Raises ConfigError."""
    own = {k: v for k, v in values.items() if k not in ("_target_", "params")}
    config = build(SearchConfig, own, SETTINGS)
    group, _, metric = config.metric.partition("/")
    if group != "valid":
        raise ConfigError(f"{SETTINGS}.metric={config.metric}: must be {SCORES}.")
    if metric not in metrics.VALIDATED and config.direction is None:
        raise ConfigError(
            f"{SETTINGS}.metric={config.metric}: must be {SCORES}; or one of your own, with "
            f"{SETTINGS}.direction=minimize or maximize."
        )
    higher = metrics.metric_info(metric).higher_is_better
    natural = "maximize" if higher else "minimize"
    return replace(config, direction=config.direction or natural)


def _check_keys(params: Mapping[Any, Any]) -> None:
    keys = sorted(known_keys(TrainConfig))
    groups = {str(p.relative_to(conf_dir())) for p in conf_dir().rglob("*") if p.is_dir()}
    for key in params:
        if key not in groups and key not in keys:
            raise ConfigError(unknown_key(str(key), keys))


def space_of(params: Mapping[Any, Any], words: Sequence[str]) -> tuple[Space, list[str]]:
    """What params and the words of a command line leave open, and the words that are fixed.

    Raises ConfigError for values that cannot be searched.
    """
    lines = [f"{key}={value}" for key, value in params.items()]
    overrides = OverridesParser.create().parse_overrides([*lines, *words])
    last = {o.key_or_group: o for o in overrides}
    space = {key: _part(key, o) for key, o in last.items() if o.is_sweep_override()}
    if not space:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search. Name several values, such as "
            "'optim.muon.lr=tag(log,interval(0.005,0.1))' or model.n_layers=5,7,9."
        )
    return space, [o.input_line or "" for o in last.values() if not o.is_sweep_override()]


def _part(key: str, override: Override) -> Numbers | Choices:
    """The values that the word of one key leaves open."""
    sweep, line = override.value(), override.input_line
    if isinstance(sweep, ChoiceSweep) and not sweep.tags:
        return Choices(tuple(override.sweep_string_iterator()))
    if not isinstance(sweep, (RangeSweep, IntervalSweep)) or sweep.tags - {"log"}:
        raise ConfigError(f"{line}: cannot be searched. Use interval, range or a list of values.")
    log, whole = "log" in sweep.tags, type_of(TrainConfig, key) is int
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        low, high, step = sweep.start, sweep.end, None
    else:
        grid.check_number([override])
        values = sorted(float(word) for word in override.sweep_string_iterator()) or [1.0, 0.0]
        low, high, step = values[0], values[-1], abs(sweep.step)
        if len(values) == 1 or (whole and step == 1):
            step = None
    if low > high:
        raise ConfigError(f"{line}: holds no value.")
    if log and (low <= 0 or step):
        raise ConfigError(f"{line}: a log scale begins above 0, and has no steps but those of 1.")
    if whole and not (low == int(low) and high == int(high)):
        raise ConfigError(f"{line}: {key} takes whole numbers.")
    return Numbers(low, high, step, log, whole)


def corners(space: Space, fixed: Sequence[str]) -> Iterator[list[list[str]]]:
    """Command lines at the ends of the space: of each key alone, then every combination if few."""
    ends = {key: [f"{key}={word}" for word in part.corners()] for key, part in space.items()}
    first = {key: words[0] for key, words in ends.items()}
    alone = [tuple((first | {k: w}).values()) for k, words in ends.items() for w in words]
    yield [[*fixed, *words] for words in dict.fromkeys(alone)]
    if math.prod(len(words) for words in ends.values()) <= MOST_CORNERS:
        rest = set(itertools.product(*ends.values())) - set(alone)
        yield [[*fixed, *words] for words in sorted(rest)]


def sweep(
    settings: Mapping[str, Any],
    arguments: Sequence[str],
    launcher: Launcher,
    folder: Path,
) -> None:
    """Run the trials that are left, as the members of the sweep in `folder`.

    Raises CherimoyaError when a run did not come to an end, and may go on.
    """
    space, fixed = space_of(settings["params"] or {}, arguments)
    search = Search(folder, settings_of(settings), space)
    jobs = 0
    with lock_folder(folder):
        search.begin()
        while trials := search.batch():
            overrides = [search.overrides(trial.params) for trial in trials]
            runs = [folder / sweeps.member_name(each) for each in overrides]
            open_ones = {}  # equal trials are one run
            for run, trial, each in zip(runs, trials, overrides, strict=True):
                if run not in open_ones and not sweeps.read_member(run).finished:
                    search.note(trial, run)
                    open_ones[run] = [*fixed, *(f"{k}={v}" for k, v in each.items())]
            if open_ones:
                say(_progress(search))
                launcher.launch(list(open_ones.values()), initial_job_idx=jobs)
                jobs += len(open_ones)
            _tell(search, dict(zip([t.number for t in trials], runs, strict=True)))


def _tell(search: Search, runs: Mapping[int, Path]) -> None:
    """Tell the study how each trial's run went; raises CherimoyaError for those that may go on."""
    stopped = []
    for number, run in runs.items():
        if sweeps.read_member(run).state in ("running", "interrupted"):
            stopped.append(str(run))
        else:
            search.tell(number, run)
    if stopped:
        raise CherimoyaError(
            f"the search stops, since {', '.join(stopped)} did not come to an end. The same "
            "command goes on with it."
        )


def _progress(search: Search) -> str:
    best, counts = search.best(), search.counts()
    ended = sum(counts.values()) - counts.get("unfinished", 0)
    words = f"\n{ended} of {counted(search.config.n_trials, 'trial')} ended"
    return words + (f", best {search.config.metric} so far {best[1]:.4g}" if best else "")
