"""What pages share: charts with their captions, and how numbers and times are written."""

import datetime
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cherimoya import __version__
from cherimoya.util import console

UNKNOWN = "-"


@dataclass(frozen=True)
class Chart:
    """A chart of a page, an SVG element, and what it shows in words."""

    svg: str
    caption: str

    def __html__(self) -> str:
        """The figure for the template, which escapes everything else."""
        caption = html.escape(self.caption)
        svg = self.svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
        return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def score(value: float | None) -> str:
    """A score with four decimals, or fewer for a large one."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def with_spread(mean: float, spread: float, digits: int | None = None) -> str:
    """A mean over seeds, with their standard deviation if there is one."""
    if math.isnan(mean):
        return UNKNOWN
    if digits is None:
        digits = 2 if abs(mean) >= 10 else 4
    text = f"{mean:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {spread:.{digits}f}"


def whole(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    return UNKNOWN if seconds is None else console.duration(seconds)


def moment(text: str | None) -> str:
    """A point in time as people write it, with its offset from UTC."""
    if not text:
        return UNKNOWN
    try:
        return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %z}"
    except ValueError:
        return text


def frame(title: str) -> Mapping[str, Any]:
    """What every page says of itself."""
    made = datetime.datetime.now().astimezone()
    return {"title": title, "made": f"{made:%Y-%m-%d %H:%M:%S %z}", "version": __version__}
