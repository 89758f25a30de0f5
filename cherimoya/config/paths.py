"""What people leave to a shell in the names of files: the home folder, and variables."""

import os
import re

VARIABLE = re.compile(
    r"\$(?:(\w+)|\{([A-Z_][A-Z0-9_]*)\})", re.ASCII
)  # a key has lower-case letters
LEFT = ("~", "$")  # what a name begins with that a configuration file leaves open


def expanded(text: str) -> str:
    """`text` with ~ as the home folder, and $NAME or ${NAME} as the environment variable.

    What is not set stays as it is, and so does the name of a file that is there as it is.
    """
    if not ({"~", "$"} & set(text)) or os.path.exists(text):
        return text
    return os.path.expanduser(VARIABLE.sub(_value, text))


def _value(match: re.Match[str]) -> str:
    return os.environ.get(match[1] or match[2], match[0])
