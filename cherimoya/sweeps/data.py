"""The data of a sweep's runs, looked at before the first of them begins."""

from collections.abc import Collection

from cherimoya.config.data import DataConfig
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.util.console import counted

HERE = ("basic", "joblib", "packed", "processes")  # launchers whose runs see this machine's files


def check_data(asked: Collection[tuple[DataConfig, list[str]]], members: int) -> None:
    """Raise ConfigError for data that some of the `members` cannot use, as far as headers tell.

    asked: what is read, each once, and the words of the runs that read it
    """
    from cherimoya.data.dataset import check_file

    problems: dict[str, list[str]] = {}
    for data, runs in asked:
        try:
            check_file(data)
        except CherimoyaError as error:
            problems.setdefault(str(error), []).extend(runs)
    if problems:
        bad = sum(map(len, problems.values()))
        listed = "".join(f"\n  {_named(runs)}: {problem}" for problem, runs in problems.items())
        raise ConfigError(
            f"{bad} of {counted(members, 'run')} cannot read the data, so none has begun:{listed}"
        )


def _named(runs: list[str]) -> str:
    return runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more"
