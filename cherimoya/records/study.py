"""A search on disk: the study that asks for trials, hears how they went, and stops bad ones.

Only this module imports Optuna. A run knows of its trial by a note in its folder, so that it can
report from another process, and of the study by the file beside it.
"""

import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cherimoya.config.schema import build
from cherimoya.config.tools import SearchConfig
from cherimoya.errors import (
    HIDDEN,
    CherimoyaError,
    ConfigError,
    DataError,
    printable,
    without_password,
)
from cherimoya.records import layout
from cherimoya.records import sweep as sweeps
from cherimoya.records.space import Numbers, Space, suggest
from cherimoya.records.status import ROWS, read_rows
from cherimoya.util.files import cut_torn_line, write_json
from cherimoya.util.shapes import DAMAGE, FIX, Table, misfit, read_json, read_json_lines

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"  # in the sweep's folder
STORAGE = "CHERIMOYA_STORAGE"  # in the environment of runs: the URL with its password
NOTE = "trial.json"  # in a run's folder: which trial it is
TERMS = "terms"  # of a study: what was searched, and how
AGAIN = "again"  # of a trial: the number of the failed one that it repeats
STOPPED = "stopped"  # of a trial: after which epoch, and why
ANEW = "Put it back, or remove it: the search begins anew then, and finds its finished runs done."
FEWEST_FOR_IMPORTANCE = 10  # trials


def optuna() -> Any:
    """The package. Raises CherimoyaError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise CherimoyaError(
            "hydra/sweeper=optuna needs Optuna. Install it with: pip install "
            "'cherimoya-train[optuna]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Search:
    """The study of a sweep's folder: made there if it is not, gone on with if it is."""

    def __init__(self, folder: Path, config: SearchConfig, space: Space) -> None:
        self.folder, self.config, self.space = folder, config, space
        folder.mkdir(parents=True, exist_ok=True)
        with _journal_errors(folder, config):
            self._storage = open_storage(folder, config.storage)
            self._study: Study = optuna().create_study(
                study_name=folder.name, storage=self._storage, load_if_exists=True,
                sampler=_repeatable(config, space), pruner=_pruner(config),
                direction=config.direction,
            )  # fmt: skip
            _check_study(self._study)

    def begin(self) -> None:
        """Refuse to resume a study of something else; failed trials get another turn."""
        terms = _terms(self.config, self.space)
        before = self._study.user_attrs.get(TERMS, terms)
        changed = sorted(k for k in {*before, *terms} if before.get(k) != terms.get(k))
        if changed:
            listed = "; ".join(f"{k} was {before.get(k)}, now {terms.get(k)}" for k in changed)
            raise ConfigError(
                f"{self.folder} holds another search: {listed}. Move it away, or name another "
                "hydra.sweep.dir."
            )
        with _journal_errors(self.folder, self.config):
            _check_study(self._study, self.space)
        self._study.set_user_attr(TERMS, terms)
        for trial in self._trials():
            if trial.state.name == "FAIL":
                self._study.enqueue_trial(trial.params, {AGAIN: trial.number})

    def _trials(self) -> list[Any]:
        """Every trial, less the failed ones that had another turn."""
        trials = self._study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
        return [trial for trial in trials if trial.number not in repeated]

    def batch(self) -> "list[Trial]":
        """The trials to run next, side by side: first those that were begun; none at the end."""
        trials = self._trials()
        begun = [t.number for t in trials if t.state.name == "RUNNING"]
        waiting = sum(t.state.name == "WAITING" for t in trials)
        new = waiting + max(self.config.n_trials - len(trials), 0)
        again = [self._id(number) for number in begun[: self.config.n_jobs]]
        batch: list[Trial] = [optuna().Trial(self._study, trial_id) for trial_id in again]
        batch += [self._study.ask() for _ in range(min(new, self.config.n_jobs - len(batch)))]
        for trial in batch:
            for key, part in self.space.items():
                suggest(trial, key, part)  # one that it has already stays
        return batch

    def _id(self, number: int) -> int:
        return _id(self._storage, self._study.study_name, number)

    def overrides(self, params: Mapping[str, Any]) -> dict[str, str]:
        """What a trial with these values sets, as words of the command line."""
        return {key: part.word(params[key]) for key, part in self.space.items()}

    def note(self, trial: "Trial", run: Path) -> None:
        """Have the run in this folder report to the study."""
        run.mkdir(parents=True, exist_ok=True)
        note = {"study": self._study.study_name, "trial": trial.number}
        if url := _with_password(self.config.storage):
            os.environ[STORAGE] = url
        read_json(run / NOTE, layout.TRIAL_NOTE)  # raises what is wrong with another file
        write_json(run / NOTE, {**note, "search": _written(self.config)})

    def tell(self, number: int, run: Path) -> None:
        """Tell the study how the trial went, as its run's folder says."""
        reached, trial_id = _by_epoch(run, self.config.metric), self._id(number)
        reported = self._storage.get_trial(trial_id).intermediate_values
        for epoch in sorted(set(reached) - set(reported)):
            self._storage.set_trial_intermediate_value(trial_id, epoch, reached[epoch])
        member, states = sweeps.read_member(run), optuna().trial.TrialState
        value = reached.get(member.summary.get("best_epoch", -1), math.nan)
        if member.state == "done" and math.isfinite(value):
            self._study.tell(number, value)
        else:
            pruned = member.state == sweeps.PRUNED
            self._study.tell(number, state=states.PRUNED if pruned else states.FAIL)

    def best(self) -> tuple[dict[str, str], float] | None:
        """The overrides of the best trial and its value, if one came to its end."""
        if not any(t.state.name == "COMPLETE" for t in self._trials()):
            return None
        trial = self._study.best_trial
        assert trial.value is not None
        return self.overrides(trial.params), trial.value

    def importances(self) -> dict[str, float]:
        """The share of each key in what sets the best trials apart; {} where too few ended."""
        ended = sum(t.state.name == "COMPLETE" for t in self._trials())
        if ended < FEWEST_FOR_IMPORTANCE or len(self.space) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna().importance.get_param_importances(self._study)
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    def counts(self) -> dict[str, int]:
        """How many trials ended how, by word."""
        names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        ended = [names.get(t.state.name, "unfinished") for t in self._trials()]
        return {word: ended.count(word) for word in dict.fromkeys(ended)}


def watch(run: Path) -> Callable[[Mapping[str, Any]], str | None] | None:
    """What is told each epoch's row of the run in this folder, and may say why it is to stop.

    None for a run that is no trial, or whose trial has ended.
    """
    if not (run / NOTE).is_file():
        return None
    note = read_json(run / NOTE, layout.TRIAL_NOTE)
    try:
        config = build(SearchConfig, note["search"])
    except ConfigError as error:
        raise DataError(f"{run / NOTE} is damaged ({error}). {FIX}") from None
    if config.storage is None and not (run.parent / JOURNAL).is_file():  # a copy, elsewhere
        return None
    with _journal_errors(run.parent, config):
        storage = open_storage(run.parent, config.storage)
        trial_id = _id(storage, note["study"], note["trial"])
        if storage.get_trial(trial_id).state.is_finished():
            return None
        study = optuna().load_study(
            study_name=note["study"], storage=storage, pruner=_pruner(config)
        )
        _check_study(study)

    def seen(row: Mapping[str, Any]) -> str | None:
        if config.metric not in row:
            raise DataError(f"{run / NOTE} names the metric {config.metric}, which is none. {FIX}")
        trial, epoch, value = optuna().Trial(study, trial_id), row["epoch"], row[config.metric]
        stopped = trial.user_attrs.get(STOPPED)
        if stopped and stopped["epoch"] == epoch:  # the run was killed before it saved that
            return str(stopped["why"])
        if epoch not in storage.get_trial(trial_id).intermediate_values:
            trial.report(value, epoch)
        if not trial.should_prune():
            return None
        why = f"{config.metric} {value:.4g} after epoch {epoch}, by the {config.pruner} pruner"
        trial.set_user_attr(STOPPED, {"epoch": epoch, "why": why})
        return why

    return seen


def _by_epoch(run: Path, metric: str) -> dict[int, float]:
    """A column of the run's metrics.jsonl."""
    rows = read_rows(run / ROWS)
    return {row["epoch"]: row[metric] for row in rows if row.get(metric) is not None}


def _terms(config: SearchConfig, space: Space) -> dict[str, Any]:
    """What may not change in the midst of a search."""
    free = ("n_trials", "n_jobs", "storage")
    settings = {f"hydra.sweeper.{k}": v for k, v in asdict(config).items() if k not in free}
    return settings | {key: json.loads(json.dumps(asdict(part))) for key, part in space.items()}


def _written(config: SearchConfig) -> dict[str, Any]:
    """The settings for a file, which gets no password."""
    url = config.storage
    return asdict(config) | {"storage": None if url is None else without_password(url)}


def _with_password(written: str | None) -> str | None:
    """The URL of which a file has this much. Raises ConfigError for a password nobody knows."""
    url = os.environ.get(STORAGE)
    if url and without_password(url) == written:
        return url
    if written and HIDDEN in written:
        raise ConfigError(
            f"the storage {written} has a password, which no file has. Give all of it before this "
            f"goes on: export {STORAGE}=..."
        )
    return written


def open_storage(folder: Path, url: str | None) -> "BaseStorage":
    """The storage of a sweep's folder. Raises ConfigError for a URL that cannot be opened."""
    url = _with_password(url)
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if url is None:
        path = str((folder / JOURNAL).resolve())
        lock = JournalFileOpenLock(path)
        journal = JournalFileBackend(path, lock)
        lock.acquire()
        try:
            cut_torn_line(Path(path))
        finally:
            lock.release()
        read_json_lines(Path(path), layout.JOURNAL_LINE, ANEW)
        return JournalStorage(journal)
    try:
        return get_storage(url)
    except Exception as error:  # of SQLAlchemy, of a driver, of Optuna
        said = f"hydra.sweeper.storage={url}: {str(error).splitlines()[0].rstrip('.')}"
        raise ConfigError(
            f"{without_password(said)}. Use null for a file in the sweep's folder, or a URL such "
            "as sqlite:///study.db."
        ) from error


@contextmanager
def _journal_errors(folder: Path, config: SearchConfig) -> Iterator[None]:
    """Where what Optuna raises of a damaged study becomes a DataError."""
    try:
        yield
    except (*DAMAGE, AssertionError, optuna().exceptions.OptunaError) as error:
        where = without_password(config.storage) if config.storage else folder / JOURNAL
        said = printable(" ".join(str(error).split()) or type(error).__name__, 200)
        raise DataError(f"{where} is damaged ({said}). {ANEW}") from None


def _check_study(study: "Study", space: Space | None = None) -> None:
    """Raise ValueError where a study does not hold what a search writes there."""
    if not isinstance(study.user_attrs.get(TERMS, {}), dict):
        raise ValueError(f"{TERMS} are no table")
    shape = Table(known={AGAIN: int, STOPPED: Table({"epoch": int, "why": str})})
    for trial in study.get_trials(deepcopy=False):
        values = [*trial.intermediate_values.values(), *(trial.values or ())]
        if any(type(value) not in (int, float) for value in values):
            raise ValueError(f"trial {trial.number} has a value that is no number")
        if misfit(trial.user_attrs, shape):
            raise ValueError(f"trial {trial.number} has other notes than it can")
        if space is None:
            continue
        done = trial.state.name == "COMPLETE"
        if trial.params.keys() - space.keys() or (done and len(trial.params) < len(space)):
            raise ValueError(f"trial {trial.number} has not the keys of the search")


def _id(storage: "BaseStorage", study: str, number: int) -> int:
    return storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name(study), number
    )


def _pruner(config: SearchConfig) -> "BasePruner":
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if config.pruner == "median":
        return MedianPruner(config.prune_after_trials, config.prune_after_epochs)
    if config.pruner == "hyperband":
        return HyperbandPruner(min_resource=max(config.prune_after_epochs, 1))
    return NopPruner()


def _repeatable(config: SearchConfig, space: Space) -> "BaseSampler":
    """A sampler whose draws depend on the trials so far, the trial's number and the key alone.

    A search that was killed so asks for the same trials as one left alone.
    """
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler

    def fresh(number: int, key: str = "") -> BaseSampler:
        seed = zlib.crc32(f"{config.seed} {number} {key}".encode())
        if config.sampler == "random":
            return RandomSampler(seed)
        side_by_side = config.n_jobs > 1
        return TPESampler(
            n_startup_trials=config.startup_trials, seed=seed, constant_liar=side_by_side
        )

    def rounded(key: str, value: Any) -> Any:
        part = space[key]
        return part.rounded(value) if isinstance(part, Numbers) else value

    class Repeatable(BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return fresh(trial.number).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, wanted: Any) -> dict[str, Any]:
            values = fresh(trial.number).sample_relative(study, trial, wanted)
            return {key: rounded(key, value) for key, value in values.items()}

        def sample_independent(self, study: Any, trial: Any, key: str, distribution: Any) -> Any:
            sampler = fresh(trial.number, key)
            return rounded(key, sampler.sample_independent(study, trial, key, distribution))

    return Repeatable()
