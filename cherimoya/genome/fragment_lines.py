"""Lines of a fragment file read many at a time, where nothing about them is out of the ordinary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

TAB, NEWLINE, ZERO = b"\t\n0"
UNUSUAL = np.frombuffer(b"#tb", np.uint8)  # how a comment, track and browser begin
DIGITS = 10  # of a number at most
MOST_NAME = 64  # letters of a chromosome
MOST_RUNS = 1000  # of lines on one chromosome


@dataclass(frozen=True, eq=False)
class Lines:
    """n lines of equally many columns: text, and where each field begins and ends, (n, columns)."""

    text: bytes
    letters: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @property
    def columns(self) -> int:
        """How many there are in each line."""
        return self.begin.shape[1]

    def field(self, row: int, column: int) -> bytes:
        """One field."""
        return self.text[self.begin[row, column] : self.end[row, column]]

    def numbers(self, column: int) -> np.ndarray | None:
        """(n,) int64 of a column; None where one is no number of digits alone."""
        begin, width = self.begin[:, column], self.end[:, column] - self.begin[:, column]
        if width.min() < 1 or width.max() > DIGITS:
            return None
        found = np.zeros(len(begin), np.int64)
        for place in range(int(width.max())):
            there = place < width
            digit = self.letters[np.where(there, begin + place, begin)] - np.uint8(ZERO)
            if (digit > 9).any():
                return None
            found = np.where(there, found * 10 + digit, found)
        return found

    def looked_up(self, column: int, table: Mapping[bytes, int]) -> np.ndarray:
        """(n,) of what `table` has for the fields of a column, -1 for those that it lacks."""
        begin, end = self.begin[:, column], self.end[:, column]
        width = int(end[0] - begin[0])
        if width and (end - begin == width).all():
            held = self.letters[begin[:, None] + np.arange(width)]
            fields = held.view(f"V{width}").ravel().tolist()
        else:
            fields = [self.text[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        get = table.get
        return np.array([get(field, -1) for field in fields], np.int64)

    def runs(self) -> Iterator[tuple[bytes, slice]] | None:
        """The first column of lines that follow each other and have it in common, and these; None
        where it changes often, as in a file that is not sorted."""
        begin, width = self.begin[:, 0], self.end[:, 0] - self.begin[:, 0]
        longest = int(width.max())
        if width.min() < 1 or longest > MOST_NAME:
            return None
        place = np.arange(longest)
        last = len(self.letters) - 1
        held = self.letters[np.minimum(begin[:, None] + place, last)]
        held[place >= width[:, None]] = 0
        changes = np.flatnonzero((held[1:] != held[:-1]).any(axis=1)) + 1
        if len(changes) > MOST_RUNS:
            return None
        edges = [0, *changes.tolist(), len(begin)]
        return ((self.field(first, 0), slice(first, stop)) for first, stop in pairwise(edges))


def usual_lines(text: bytes) -> Lines | None:
    """The lines of `text`, which end in a newline each; None where some are blank, comments, of
    another number of columns, or end in a carriage return too."""
    if not text.endswith(b"\n") or b"\r" in text:
        return None
    letters = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(letters == NEWLINE)
    tabs = np.flatnonzero(letters == TAB)
    starts = np.concatenate([[0], stops[:-1] + 1])
    if len(tabs) % len(stops) or not len(tabs) or np.isin(letters[starts], UNUSUAL).any():
        return None
    between = tabs.reshape(len(stops), -1)
    if (between[:, 0] < starts).any() or (between[:, -1] > stops).any():
        return None
    begin = np.column_stack([starts, between + 1])
    return Lines(text, letters, begin, np.column_stack([between, stops]))
