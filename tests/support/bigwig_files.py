"""bigWig files written from their description, of kinds that no library at hand writes."""

import struct
import zlib
from pathlib import Path

import numpy as np
from toy import LENGTHS

Section = tuple[int, int, np.ndarray, np.ndarray, np.ndarray]  # kind, chromosome, start, end, value


def write(
    path: Path,
    lengths: dict[str, int],
    sections: list[Section],
    order: str = "<",
    packed: bool = True,
    summary: bool = True,
) -> Path:
    """Write `sections` of kind 1 (bedGraph), 2 (variable step) or 3 (fixed step) to `path`."""
    size = max(map(len, lengths), default=1)
    tree = struct.pack(f"{order}IIIIQQ", 0x78CA8C91, 9, size, 8, len(lengths), 0)
    tree += struct.pack(f"{order}BBH", 1, 0, len(lengths))
    for i, (name, length) in enumerate(lengths.items()):
        tree += name.encode().ljust(size, b"\0") + struct.pack(f"{order}II", i, length)
    data_at = 64 + 40 + len(tree)
    data, leaves = struct.pack(f"{order}Q", len(sections)), b""
    for section in sections:
        block = _block(order, *section)
        block = zlib.compress(block) if packed else block
        place = struct.pack(f"{order}QQ", data_at + len(data), len(block))
        chrom, start, end = section[1], int(section[2][0]), int(section[3][-1])
        leaves += struct.pack(f"{order}IIII", chrom, start, chrom, end) + place
        data += block
    index = struct.pack(
        f"{order}IIQIIIIQII", 0x2468ACE0, 256, len(sections), 0, 0, 9, 9, data_at + len(data), 1, 0
    )
    index += struct.pack(f"{order}BBH", 1, 0, len(sections)) + leaves
    header = struct.pack(
        f"{order}IHHQQQHHQQIQ", 0x888FFC26, 4, 0, 104, data_at, data_at + len(data), 0, 0, 0,
        64 * summary, 32768 * packed, 0,
    )  # fmt: skip
    path.write_bytes(header + _summary(order, sections) + tree + data + index)
    return path


def _block(
    order: str, kind: int, chrom: int, start: np.ndarray, end: np.ndarray, value: np.ndarray
) -> bytes:
    step = int(start[1] - start[0]) if kind == 3 and len(start) > 1 else 0
    span = int(end[0] - start[0]) if kind > 1 else 0
    limits = int(start[0]), int(end[-1])
    head = struct.pack(f"{order}IIIIIBBH", chrom, *limits, step, span, kind, 0, len(start))
    columns = [start.astype(f"{order}u4"), end.astype(f"{order}u4"), value.astype(f"{order}f4")]
    kept = {1: columns, 2: columns[::2], 3: columns[2:]}[kind]
    return head + b"".join(
        b"".join(column[i : i + 1].tobytes() for column in kept) for i in range(len(start))
    )


def _summary(order: str, sections: list[Section]) -> bytes:
    span = [section[3] - section[2] for section in sections]
    values = [section[4].astype(np.float32).astype(np.float64) for section in sections]
    every = np.concatenate([[0.0], *values])
    return struct.pack(
        f"{order}Qdddd", sum(int(s.sum()) for s in span), every.min(), every.max(),
        sum(float(np.dot(v, s)) for v, s in zip(values, span, strict=True)),
        sum(float(np.dot(v * v, s)) for v, s in zip(values, span, strict=True)),
    )  # fmt: skip


def sections(kind: int, seed: int = 0) -> tuple[list[Section], dict[str, np.ndarray]]:
    """Blocks of a kind on the toy's chromosomes, and the values that they stand for."""
    rng, made = np.random.default_rng(seed), []
    wanted = {chrom: np.zeros(n) for chrom, n in LENGTHS.items()}
    for number, (chrom, n) in enumerate(LENGTHS.items()):
        for at in range(0, n - 500, 500):
            step, span = (7, 5) if kind == 3 else (9, 3)
            start = at + step * np.arange(rng.integers(1, 50))
            lengths = rng.integers(1, 9, len(start)) if kind == 1 else np.full(len(start), span)
            value = rng.integers(0, 99, len(start)) / 4
            made.append((kind, number, start, start + lengths, value))
            for one, (first, length) in zip(value, zip(start, lengths, strict=True), strict=True):
                wanted[chrom][first : first + length] = one
    return made, wanted
