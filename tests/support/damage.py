"""Damage to the files of a folder: of their bytes, and of what they say."""

import copy
import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzzing import TOKENS, changed

VALUES = [
    None, True, 0, 1, -1, 7, 2**63, -(2**70), 10**400, 1.5, 1e308, -1e30, float("nan"),
    float("inf"), "", "x", "\u00b2", "\ud800", "\0", "$\\frac{", "<b>", "a\nb", "1e999", "done",
    "running", "2026-01-02T03:04:05+0000", "2026-13-45T99:00:00+0000", "test", [], [1], [[]],
    {}, {"a": 1}, {"": {}}, [None, "x"], {"tracks": ["a"]},
]  # fmt: skip
KEYS = ["x", "", "in", "test", "epoch", "train/loss", "\ud800", "n_layers"]
CONTENTS = [
    b"", b"\0" * 9, b"[" * 5000, b'{"a":' * 5000, b"\xff\xfe", b"null", b"9" * 5000, b"- " * 3000,
    b'{"a": 1, "a": 2}', b"a: &a {x: 1}\nb: {<<: *a}", b"model: 2026-13-45", b"seed: 2026-01-02",
    b"a: !!binary YQ==", b"a: !!python/object:os.system {}", b"? [1, 2]\n: 3", b"? {}\n: 3",
    b"a: !!int ''", b"a: &a [*a]", b"a: !!bool x", b"a: !!timestamp x", b"1: 2\nnull: 3\n",
    b"a: 1:60:99", b"---\n---", b"a: 0x" + b"f" * 5000, b"!!set {a, b}", b"{a: " * 3000,
    b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b"*%c, " % (c - 1) * 9) for c in range(98, 111)),
]  # fmt: skip


def damage(path: Path, draw: random.Random) -> None:
    """Change what is at `path`, as `draw` decides."""
    content, kind = path.read_bytes(), draw.randrange(20)
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind == 1:
        path.write_bytes(draw.choice(CONTENTS))
    elif kind < 12:
        path.write_bytes(STRUCTURES[path.suffix](content, draw))
    else:
        many = range(draw.randint(1, 4))
        at, kinds, numbers = ([draw.randrange(n) for _ in many] for n in (len(content), 8, 256))
        tokens = [draw.choice(TOKENS) for _ in many]
        path.write_bytes(changed(content, list(zip(at, kinds, numbers, tokens, strict=True))))


def restructured(value: Any, draw: random.Random) -> Any:
    """`value` with some of its parts replaced, gone, renamed, or put in the place of others."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        known = list(_places(value))
        if not known or draw.random() < 0.05:
            return draw.choice(VALUES)
        inside, key = draw.choice(known)
        other, kind = draw.choice(known), draw.randrange(6)
        if kind == 0:
            del inside[key]
        elif kind == 1 and isinstance(inside, dict):
            inside[draw.choice(KEYS)] = inside.pop(key)
        elif kind == 2:
            inside[key] = copy.deepcopy(other[0][other[1]])
        else:
            inside[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def _places(value: Any) -> Any:
    """Each table or list inside `value` with each of its keys."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _json(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(restructured(json.loads(content), draw)).encode()


def _json_lines(content: bytes, draw: random.Random) -> bytes:
    rows = restructured([json.loads(line) for line in content.splitlines()], draw)
    rows = rows if isinstance(rows, list) else [rows]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _yaml(content: bytes, draw: random.Random) -> bytes:
    try:
        return yaml.safe_dump(restructured(yaml.safe_load(content), draw)).encode(errors="replace")
    except ValueError:  # a number of too many digits
        return draw.choice(CONTENTS)


def _table(content: bytes, draw: random.Random) -> bytes:
    rows = [line.split(b"\t") for line in content.split(b"\n")]
    for _ in range(draw.randint(1, 3)):
        row = draw.choice(rows[:4])
        row[draw.randrange(len(row))] = draw.choice([*TOKENS, b"label", b"profile_jsd"])
    return b"\n".join(map(b"\t".join, rows))


def _archive(content: bytes, draw: random.Random) -> bytes:
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    name, kind = draw.choice(list(arrays)), draw.randrange(4)
    array = arrays.pop(name)
    if kind == 1:
        with np.errstate(all="ignore"), suppress(ValueError):
            arrays[name] = array.astype(draw.choice(["f8", "i8", "U5", "S3", "?"]))
    elif kind == 2:
        arrays[name] = draw.choice([array[:1], array[None], np.zeros(0), np.zeros((3, 0, 2), "f4")])
    elif kind == 3:
        arrays[name] = np.full(array.shape, draw.choice([np.nan, np.inf, 1e38, -1e9, 0]), "f4")
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


STRUCTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json, ".jsonl": _json_lines, ".journal": _json_lines, ".yaml": _yaml,
    ".tsv": _table, ".npz": _archive,
}  # fmt: skip
