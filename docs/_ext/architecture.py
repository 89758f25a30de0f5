"""A drawing of the default network, with the shapes that its modules really have."""

from html import escape
from pathlib import Path

import torch

from cherimoya.config import groups
from cherimoya.network import Cherimoya

N, L = "N", 2114  # examples and bases of the drawing
WIDTH, STEP = 720, 62


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
        ("count head", "log(1 + counts) from the mean over positions", f"{N} x {counts.shape[1]}"),
        ("all", f"{size:,} parameters, receptive field {model.receptive_field:,} bases", ""),
    ]  # fmt: skip


def drawing() -> str:
    """The SVG."""
    parts = shapes()
    rows = []
    for i, (name, what, shape) in enumerate(parts):
        y = 12 + i * STEP
        last = i == len(parts) - 1
        if not last:
            rows.append(
                f'<rect x="8" y="{y}" width="{WIDTH - 16}" height="44" rx="6" fill="#7f9cc0" '
                'fill-opacity="0.18" stroke="#5b7aa3"/>'
            )
        if i < 3:
            rows.append(f'<path d="M360 {y + 44} v{STEP - 44}" stroke="#5b7aa3" stroke-width="2"/>')
        rows.append(
            f'<text x="24" y="{y + 27}" font-weight="600">{escape(name)}</text>'
            f'<text x="150" y="{y + 27}">{escape(what)}</text>'
            f'<text x="{WIDTH - 24}" y="{y + 27}" text-anchor="end">{escape(shape)}</text>'
        )
    height = 12 + len(parts) * STEP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#4a6288">{"".join(rows)}</svg>\n'
    )


def write(folder: Path) -> Path:
    """Draw it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "architecture.svg"
    path.write_text(drawing())
    return path
