"""A drawing of the default network, with the shapes that its modules really have."""

from html import escape
from pathlib import Path

import torch

from cherimoya.config import groups
from cherimoya.network import Cherimoya

N, L = "N", 2114  # examples and bases of the drawing
WIDTH, TALL, STEP = 720, 50, 68


def shapes() -> list[tuple[str, str, str]]:
    """Name, what it does, and the shape of its output, of each part of the default network."""
    with groups.initialized():
        values, _ = groups.compose("train", ["model=cherimoya"])
    filters, layers = values.model.n_filters, values.model.n_layers
    model = Cherimoya(n_filters=filters, n_layers=layers, trimming=(L - 1000) // 2)
    with torch.no_grad():
        logits, counts = model(torch.zeros(1, 4, L))
    _, tracks, bases = logits.shape
    stem, block = tuple(model.iconv.weight.shape), model.blocks[0]
    hidden = block.linear1.weight.shape[0]
    size = sum(p.numel() for p in model.parameters())
    return [
        ("sequence", "one-hot A, C, G, T", f"{N} x 4 x {L:,}"),
        ("stem", f"convolution of {stem[-1]} bases", f"{N} x {L:,} x {filters}"),
        (
            f"block 0 ... {layers - 1}",
            f"x + s * MLP(norm(conv(x))); dilation 1 ... {2 ** (layers - 1)}; MLP {filters} - "
            f"{hidden} - {filters}",
            f"{N} x {L:,} x {filters}",
        ),
        ("profile head", "logits of each track and base", f"{N} x {tracks} x {bases:,}"),
        ("count head", "log(1 + counts), from the mean over bases", f"{N} x {counts.shape[1]}"),
        ("all", f"{size:,} parameters, receptive field {model.receptive_field:,} bases", ""),
    ]  # fmt: skip


def box(x: int, y: int, width: int, name: str, what: str, shape: str) -> str:
    """A part of the network: its name, what it does below, and its output's shape on the right."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{TALL}" rx="6" fill="#7f9cc0" '
        'fill-opacity="0.18" stroke="#5b7aa3"/>'
        f'<text x="{x + 14}" y="{y + 20}" font-weight="600">{escape(name)}</text>'
        f'<text x="{x + 14}" y="{y + 38}">{escape(what)}</text>'
        f'<text x="{x + width - 14}" y="{y + 20}" text-anchor="end">{escape(shape)}</text>'
    )


def drawing() -> str:
    """The SVG: what follows one another from top to bottom, the two heads side by side."""
    *line, profile, count, (_, every, _) = shapes()
    gap, half = STEP - TALL, WIDTH // 2 - 16
    made = []
    for i, part in enumerate(line):
        y = 8 + i * STEP
        made.append(box(8, y, WIDTH - 16, *part))
        ends = (WIDTH // 2,) if i < len(line) - 1 else (8 + half // 2, WIDTH - 8 - half // 2)
        made += [
            f'<path d="M{x} {y + TALL} v{gap}" stroke="#5b7aa3" stroke-width="2"/>' for x in ends
        ]
    y = 8 + len(line) * STEP
    made += [box(8, y, half, *profile), box(WIDTH - 8 - half, y, half, *count)]
    made.append(f'<text x="22" y="{y + TALL + 26}">{escape(every)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + TALL + 40}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#4a6288">{"".join(made)}</svg>\n'
    )


def write(folder: Path) -> Path:
    """Draw it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "architecture.svg"
    path.write_text(drawing())
    return path
