"""Names of files as people type them, in lists and sweeps too, as words that Hydra reads."""

import os
import re
from collections.abc import Iterator, Sequence

from cherimoya.config.diff import hydra_value
from cherimoya.config.paths import expanded

QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""")
MOST_COMMAS = 20  # in the name of a file in a list
OPEN, CLOSED = "([{", ")]}"
NO_KEY = re.compile(r"[\\()\[\]{}=]")  # in a name, as Hydra reads keys
INSERTED = re.compile(r"\$\{[^{}]+\}")  # what Hydra puts in the place of ${key}


def quoted(text: str, depth: int, several: bool) -> str:
    """`text` with each name in quotes: in lists as deep as `depth`, and apart in a sweep."""
    if several:
        return ",".join(quoted(part, depth, False) for part in _parts(text))
    if not depth or not (text.startswith("[") and text.endswith("]")):
        return _name(text)
    inner = text[1:-1].strip()
    parts = _joined(list(_parts(inner))) if inner else []
    return "[" + ",".join(quoted(part.strip(), depth - 1, False) for part in parts) + "]"


def named(text: str, depth: int) -> str:
    """`text` of names and what they are of, {name:[file],...}, as Hydra reads it."""
    pairs = [part.partition(":") for part in _parts(text[1:-1]) if part.strip()]
    named = (
        f"{re.sub(NO_KEY, _escaped, name.strip())}{colon}{quoted(value.strip(), depth, False)}"
        for name, colon, value in pairs
    )
    return "{" + ",".join(named) + "}"


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def is_file(text: str) -> bool:
    """Whether there is a file of this very name, which has a comma."""
    return "," in text and os.path.exists(expanded(text))


def is_open(text: str, depth: int) -> bool:
    """Whether text that Hydra can read has a name in it that it would read otherwise.

    That is one with ~ or a variable, see `expanded`, or of a file that has a comma or ${.
    """
    if expanded(text) != text:
        return True
    is_list = bool(depth) and text.startswith("[")
    parts = text.replace("[", "").replace("]", "").split(",") if is_list else [text]
    literal = any("${" in part and os.path.exists(part.strip()) for part in parts)
    return literal or (is_list and _joined(parts) != parts)


def _joined(parts: Sequence[str]) -> list[str]:
    """The parts of a list with those together that are one file's name, of those as many as can.

    Where each of the parts is a file itself, they stay apart.
    """
    found, rest = list[str](), list(parts)
    while rest:
        most = min(len(rest), MOST_COMMAS + 1)
        n = next((n for n in range(most, 1, -1) if _is_one(rest[:n])), 1)
        found.append(",".join(rest[:n]))
        rest = rest[n:]
    return found


def _is_one(parts: Sequence[str]) -> bool:
    there = (os.path.exists(expanded(part.strip())) for part in parts)
    return is_file(",".join(parts).strip()) and not all(there)


def _name(text: str) -> str:
    """One name in quotes, unless it has them, and as `expanded` has it."""
    if QUOTED.fullmatch(text):
        return text
    if os.path.exists(text):
        return hydra_value(text.replace("${", r"\${"))
    return hydra_value(re.sub(r"\$\{", _kept, expanded(text)))


def _kept(match: re.Match[str]) -> str:
    """${ as it is where Hydra puts something in its place, else as letters."""
    return "${" if INSERTED.match(match.string, match.start()) else r"\${"


def _parts(text: str) -> Iterator[str]:
    """`text` cut at its commas, but not inside of brackets or quotes."""
    begin, depth, quote = 0, 0, ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and not text[begin:at].strip():
            quote = sign
        elif sign in OPEN:
            depth += 1
        elif sign in CLOSED:
            depth -= 1
        elif sign == "," and depth <= 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]
