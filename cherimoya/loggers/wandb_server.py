"""Where W&B's copy of a run can go: to the server, to disk, or nowhere."""

import netrc
import os
import threading
import urllib.error
import urllib.request
from urllib.parse import urlparse

from cherimoya.config.options import Wandb
from cherimoya.errors import CherimoyaError

REACH_SECONDS = 4.0  # for the server to answer at the start
MODES = ("online", "offline", "disabled", "shared")  # that WANDB_MODE may name
OTHER_NAMES = {"dryrun": "offline", "run": "online"}


def wandb_mode(config: Wandb) -> tuple[str, str]:
    """ "online", "offline" or "none", and why. Only asks; nothing is started.

    W&B's own switches count: the variable WANDB_MODE always, and with logger.wandb.mode=auto what
    `wandb disabled` and `wandb offline` leave in the working folder.

    Raises CherimoyaError within seconds when online is wanted and cannot be.
    """
    switch = switched(config.mode == "auto")
    if switch == "disabled":
        return "none", "W&B is disabled"
    if config.mode == "offline" or switch == "offline":
        return "offline", "as asked"
    url, has_key = server()
    if not has_key:
        if config.mode == "auto":
            return "offline", "no API key"
        raise CherimoyaError(
            f"logger.wandb.mode=online, but there is no API key for {url}. Run `wandb login`, set "
            "WANDB_API_KEY, or use logger.wandb.mode=offline."
        )
    problem = unreachable(url)
    if problem:
        raise CherimoyaError(
            f"a W&B API key is set, but {url} cannot be reached ({problem}). Use "
            "logger.wandb.mode=offline to sync later, or logger=none."
        )
    return "online", url


def switched(also_here: bool) -> str | None:
    """What WANDB_MODE says, or `also_here` W&B's settings: one of MODES, or None.

    Raises CherimoyaError for a WANDB_MODE that W&B refuses.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode.strip().lower() == "disabled":  # W&B is not asked then
        return "disabled"
    if mode and mode not in (*MODES, *OTHER_NAMES):
        raise CherimoyaError(f"WANDB_MODE={mode}: must be one of {', '.join(MODES)}.")
    if mode:
        return OTHER_NAMES.get(mode, mode)
    if not also_here:
        return None
    import wandb

    return str(wandb.setup().settings.mode or "") or None


def server() -> tuple[str, bool]:
    """The address of the W&B server, and whether there is an API key for it."""
    import wandb

    settings = wandb.setup().settings
    return settings.base_url, bool(settings.api_key) or _has_netrc_entry(settings.base_url)


def _has_netrc_entry(url: str) -> bool:
    try:
        file = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return file.authenticators(urlparse(url).hostname or "") is not None


def unreachable(url: str) -> str | None:
    """Why `url` does not answer within seconds, or None: any HTTP answer will do."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
            outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)
        except OSError as error:
            outcome.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, daemon=True)  # a name server may never answer
    thread.start()
    thread.join(REACH_SECONDS + 1)
    return outcome[0] if outcome else f"no answer in {REACH_SECONDS:.0f} s"
