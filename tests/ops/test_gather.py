"""The kernels that cut windows out of tables give what indexing gives."""

import os

import pytest
import torch
from kernels import printed_by_the_interpreter

from cherimoya.ops.windows import op as gather

SHAPES = [(31, 20), (1, 1), (600, 530)]  # lengths of sequence and signal
DTYPES = [torch.uint8, torch.int16, torch.float32]


def differences(device: str) -> list[str]:
    """Cases in which the kernels and CHERIMOYA_KERNELS=reference differ."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for length, out in SHAPES:
        for dtype in DTYPES:
            sequence = torch.randint(0, 5, (6, length + 9), dtype=torch.uint8, generator=generator)
            values = torch.randint(0, 99, (6, 3, out + 9), generator=generator).to(dtype)
            channels = torch.tensor([[0, 1, 2], [0, 2, 1]])
            plan = torch.tensor([[5, 2, 0, 2], [3, 0, 9, 1], [1, 0, 1, 1]]).to(device)
            tables = [t.to(device) for t in (sequence, values, channels)]
            results = []
            for kernels in ("triton", "reference"):
                os.environ["CHERIMOYA_KERNELS"] = kernels
                X = gather.one_hot(tables[0], *plan, length)
                results.append((X, gather.counts(*tables[1:], *plan, out)))
            same = [torch.equal(a, b) for a, b in zip(*results, strict=True)]
            if not all(same) or results[0][0].sum() == 0:
                found.append(f"{length} {out} {dtype}: {same}")
    return found


def test_the_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    assert printed_by_the_interpreter(__file__) == "[]\n"


@pytest.mark.gpu
def test_the_kernels_on_a_gpu(monkeypatch):
    monkeypatch.setenv("CHERIMOYA_KERNELS", "")  # put back afterwards
    assert differences("cuda") == []


if __name__ == "__main__":
    print(differences("cpu"))
