"""Preparations of the toy that are stopped, and what they end with."""

import numpy as np
import pytest
from toy import Toy

from cherimoya.data import hdf5
from cherimoya.prepare import parts


def stopped(toy: Toy, monkeypatch, after: int, **values) -> None:
    """Stop toy's preparation as Ctrl-C does, when `after` parts are done."""
    own, calls = parts.keep, []

    def keep(*arguments) -> None:
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        own(*arguments)

    monkeypatch.setattr(parts, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        toy.run(**values)
    monkeypatch.setattr(parts, "keep", own)


def same(one: hdf5.Loci, two: hdf5.Loci) -> bool:
    return all(np.array_equal(v, two.arrays()[name]) for name, v in one.arrays().items())
