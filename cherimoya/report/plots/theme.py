"""How charts look: colours by role, sizes, and an SVG that takes its colours from the page."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cherimoya.report.format import Chart
from cherimoya.util.files import atomic_write

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart. Each value
# occurs once: in an SVG it becomes the CSS variable of that name, which a dark page sets anew.
ROLES = {
    "ink": "#22262b",
    "muted": "#5c646d",
    "grid": "#e3e6e9",
    "observed": "#a9b0b8",
    "s1": "#0072b2",
    "s2": "#d55e00",
    "s3": "#009e73",
    "s4": "#cc79a7",
    "s5": "#e69f00",
    "s6": "#56b4e9",
}
INK, MUTED, GRID, OBSERVED = (ROLES[name] for name in ("ink", "muted", "grid", "observed"))
SERIES = tuple(ROLES[f"s{i}"] for i in range(1, 7))
PREDICTED, PEAK, BACKGROUND, CHOSEN = SERIES[0], SERIES[0], SERIES[4], SERIES[1]
DASHES = ("-", "--", ":", "-.")
HEAT = "cividis"

WIDTH, HEIGHT = 4.3, 3.1  # inches of a chart, 310 x 223 units of its SVG: a phone's width
LEGEND_LINE = 13  # points
LEGEND_LETTERS = 42  # that fit beside each other above a chart
DPI = 130
STYLE: Any = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,  # a name may hold any sign
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
}
_number = count()


@contextmanager
def figure(
    rows: int = 1, columns: int = 1, width: float = WIDTH, height: float = HEIGHT
) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house style with its (rows, columns) of axes, each that many inches."""
    with rc_context(STYLE):
        made = Figure(figsize=(width * columns, height * rows), layout="constrained")
        yield made, made.subplots(rows, columns, squeeze=False)


def save_png(made: Figure, path: Path) -> Path:
    """Write a figure as an image on white; to be called while its `figure` is open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        made.savefig(file, format="png", dpi=DPI)
    return path


def legend(axis: Axes) -> None:
    """Name what is drawn above the axes, where it hides nothing, and below their title."""
    _, names = axis.get_legend_handles_labels()
    fits = sum(map(len, names)) + 4 * len(names) <= LEGEND_LETTERS
    columns = len(names) if fits else 2
    axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1, columnspacing=1.2,
        ncols=columns,
    )  # fmt: skip
    if title := axis.get_title(loc="left"):
        axis.set_title(title, pad=LEGEND_LINE * -(-len(names) // columns) + 6)


def chart(
    caption: str,
    draw: Callable[..., None],
    *args: Any,
    width: float = WIDTH,
    height: float = HEIGHT,
    rows: int | None = None,
) -> Chart:
    """`draw(axis, *args)` as a chart of a page, with what it shows in words.

    With `rows` it is given so many axes below each other, each of the height.
    """
    with figure(rows or 1, width=width, height=height) as (made, axes):
        draw(axes[0, 0] if rows is None else axes[:, 0], *args)
        return Chart(svg(made), caption)


def svg(made: Figure) -> str:
    """A figure as an inline SVG element: sized and coloured by the page, its ids used once."""
    file = io.StringIO()
    made.savefig(file, format="svg", transparent=True, dpi=1.5 * DPI)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for unwanted in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>"):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box
    body = _own_ids(body, f"c{next(_number)}-")
    for name, colour in ROLES.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"\n\s*", "\n", body.replace("xlink:href", "href"))
    return f'<svg class="chart" viewBox="{box[1]}">{body}'


def _own_ids(body: str, prefix: str) -> str:
    """The SVG with ids that nothing refers to left out, and the others made its own."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]+)"', renamed, body)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", body)
