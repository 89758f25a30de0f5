"""The errors a user can act on. Each message says what was wrong, where, and what to do."""

import errno
import re
import signal

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # a scheduler's, before it takes the machine
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *WARNINGS)  # that a run answers by saving
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAULTY = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT)
FIXES = {
    errno.EACCES: "Ask its owner (chmod)",
    errno.EPERM: "Ask its owner (chmod)",
    errno.EISDIR: "Move it away",
    errno.ENOTDIR: "A part of its path is a file: move that away",
    errno.ENAMETOOLONG: "Give it a shorter name",
}
STDOUT = "standard output"  # as the name of a file
HIDDEN = "***"
PASSWORD = re.compile(  # in a URL: scheme://user:password@host, or ?password=password
    r"(://[^\s:/@]*:)[^@\s]*(?=@)|([?&](?:password|passwd|pwd)=)[^&\s'\"]*", re.IGNORECASE
)


def printable(text: str, most: int = 60) -> str:
    """What a file holds, for a message: on one line, without control characters, not too long."""
    plain = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def without_password(text: str) -> str:
    """`text` with *** for each password that a URL in it holds."""
    return PASSWORD.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)


class OutputClosed(SystemExit):
    """Nobody reads standard output any more: the process ends, without a message."""


class CherimoyaError(Exception):
    """A problem the user can fix: printed as one message, without a traceback."""


class ConfigError(CherimoyaError):
    """A configuration key or value that cannot be used."""


class OtherRun(ConfigError):  # noqa: N818 - what is in the folder
    """A folder that holds a run with another configuration."""


class ProcessError(CherimoyaError):
    """A process of the run failed, and has said why, unless the message does."""


class LocalError(CherimoyaError):
    """A problem that one of several processes met, and the others did not."""


class OwnError(ConfigError, LocalError):
    """What code of the user's own raised, in words."""


class InUse(CherimoyaError):  # noqa: N818 - where another process is at work
    """A folder or an output that another process works on."""


class DataError(CherimoyaError):
    """An input file that is missing, damaged, or does not hold what is needed."""


class DiskError(DataError):
    """The disk refuses what is to be written."""


def disk_words(error: OSError, other: str = "another output") -> DiskError:
    """What the system said of a file or folder, and what to do, such as choosing the `other`."""
    if error.filename == STDOUT:
        advice = "Free space where it goes, or send it elsewhere."
    elif error.errno in FAULTY:
        advice = (
            "Its disk, or the connection to it, is at fault: when that is mended, the same command "
            "goes on."
        )
    else:
        fix = "Free space there" if error.errno in (*FULL, None) else FIXES.get(error.errno)
        advice = f"{fix}, or choose {other}." if fix else f"Choose {other}."
    return DiskError(f"{error.filename or 'a file'}: {error.strerror or error}. {advice}")


class PackageError(CherimoyaError):
    """An optional package that is not installed."""


class Interrupted(BaseException):
    """A signal asked the run to stop, which training answers by saving its state first.

    Like KeyboardInterrupt it may come up anywhere, and is no Exception that one can go on after.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum
