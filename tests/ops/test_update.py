"""What a step does after its gradients, by kernels and by PyTorch: interpreted, and on a GPU."""

import os
from collections.abc import Iterator

import pytest
import torch
from kernels import printed_by_the_interpreter
from torch import Tensor

from cherimoya.ops.update import op
from cherimoya.ops.update.op import Average, settle
from cherimoya.optim.muon import Muon, orthogonalize

SHAPES = {"square": (16, 16), "the default": (96, 192), "narrow": (24, 40), "widest": (128, 256)}
# Relative RMS error of Muon's updates in bf16 against float64: torch's own path has the same.
BF16 = 0.03
SETTINGS = {"weight_decay": 0.1, "momentum": 0.9, "ns_steps": 5}


def by(kernels: str) -> None:
    os.environ["CHERIMOYA_KERNELS"] = kernels


def settled(device: str, losses: list[float], failed: float) -> list[Tensor]:
    """All that `settle` writes, on the CPU."""
    rates = torch.arange(15.0).reshape(5, 3).to(device)
    sums = torch.tensor([1.0, 2.0, 1e9], dtype=torch.float64, device=device)
    count = torch.tensor([3], device=device)
    now, found = torch.zeros(1, 3, device=device), torch.zeros((), device=device)
    flag = torch.tensor(failed, device=device)
    settle(torch.tensor(losses, device=device), rates, now, count, flag, found, sums)
    return [t.cpu() for t in (now, count, flag, found, sums)]


def moved(device: str, found_inf: float, like: str = "plain") -> list[Tensor]:
    """Averages of sizes below, at and above a piece, moved three times."""
    generator = torch.Generator().manual_seed(0)
    source, average = (
        [torch.randn(n, generator=generator).to(device) for n in (1, 1024, 2500)] for _ in range(2)
    )
    if like == "of strangers' blocks":  # another dtype, and gaps in memory
        source[1], average[1] = source[1].double(), average[1].double()
        source[2], average[2] = (torch.stack([t, t], dim=1)[:, 0] for t in (source[2], average[2]))
    average[0].fill_(0.0)
    mover = Average(average, source)
    for decay in (0.1, 0.9, 0.999):
        mover.move(torch.tensor(decay, device=device), torch.tensor(found_inf, device=device))
    return [t.cpu() for t in average]


def trained(device: str, shape: tuple[int, int], found_inf: float = 0.0) -> list[Tensor]:
    """Three wide and two tall matrices after two steps of Muon, and their momentum."""
    generator = torch.Generator().manual_seed(1)
    shapes = [shape, shape[::-1], shape, shape[::-1], shape]
    params = [torch.randn(s, generator=generator).to(device).requires_grad_() for s in shapes]
    optimizer = Muon(params, lr=torch.tensor(0.02, device=device), **SETTINGS)
    optimizer.found_inf = torch.tensor(found_inf, device=device)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(device)
            if found_inf:
                p.grad.fill_(torch.nan)
        optimizer.step()
    states = [optimizer.state[p]["momentum_buffer"] for p in params]
    return [t.detach().cpu().contiguous() for t in (*params, *states)]


def exact(shape: tuple[int, int]) -> list[Tensor]:
    """`trained` in float64."""
    generator = torch.Generator().manual_seed(1)
    shapes = [shape, shape[::-1], shape, shape[::-1], shape]
    params = [torch.randn(s, generator=generator).double() for s in shapes]
    states = [torch.zeros_like(p) for p in params]
    for _ in range(2):
        for p, m in zip(params, states, strict=True):
            g = torch.randn(p.shape, generator=generator).double()
            m.lerp_(g, 0.1)
            update = g.lerp(m, 0.9)
            tall = p.shape[0] > p.shape[1]
            turned = orthogonalize((update.mT if tall else update)[None].cpu(), 5)[0]
            update = turned.mT if tall else turned
            p.mul_(1 - 0.02 * 0.1).sub_(0.02 * max(1, p.shape[0] / p.shape[1]) ** 0.5 * update)
    return [*params, *states]


def change(after: list[Tensor], shape: tuple[int, int]) -> Tensor:
    """What the steps did to the matrices, all together, in float64."""
    generator = torch.Generator().manual_seed(1)
    shapes = [shape, shape[::-1], shape, shape[::-1], shape]
    before = [torch.randn(s, generator=generator).double() for s in shapes]
    pairs = zip(after[:5], before, strict=True)
    return torch.cat([(a.double() - b).flatten() for a, b in pairs])


def wrong(device: str) -> Iterator[str]:
    """Cases in which the kernels do something else."""
    for losses in ([1.0, 2.0, 3.0], [torch.nan, 1.0, 1.0], [1.0, torch.inf, -torch.inf]):
        for failed in (0.0, 1.0):
            results = []
            for kernels in ("triton", "reference"):
                by(kernels)
                results.append(settled(device, losses, failed))
            if not all(map(torch.equal, *results)):
                yield f"settle {losses} {failed}: {results}"
    for found_inf, like in ((0.0, "plain"), (1.0, "plain"), (0.0, "of strangers' blocks")):
        results = []
        for kernels in ("triton", "reference"):
            by(kernels)
            results.append(moved(device, found_inf, like))
        if not all(map(torch.equal, *results)):
            yield f"average {found_inf} {like}"
    by("triton")
    for name, shape in SHAPES.items():
        got, truth = trained(device, shape), exact(shape)
        error = (change(got, shape) - change(truth, shape)).norm() / change(truth, shape).norm()
        if not error < BF16:
            yield f"muon, {name}: relative error {error:.4f}"
        for m, expected in zip(got[5:], truth[5:], strict=True):
            if not torch.allclose(m.double(), expected, rtol=1e-5, atol=1e-6):
                yield f"muon, {name}: momentum"
        if not all(map(torch.equal, got, trained(device, shape))):
            yield f"muon, {name}: two runs differ"
    still = trained(device, SHAPES["the default"], found_inf=1.0)
    if change(still, SHAPES["the default"]).any() or any(m.any() for m in still[5:]):
        yield "muon changes something in a step that does not count"


def test_the_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    assert printed_by_the_interpreter(__file__) == "[]\n"


@pytest.mark.gpu
def test_the_kernels_on_a_gpu(monkeypatch):
    monkeypatch.setenv("CHERIMOYA_KERNELS", "")  # put back afterwards
    assert [*wrong("cuda")] == []


def test_muons_kernel_takes_what_a_gpu_has_room_for(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(op, "by_kernels", lambda device: True)
    for kilobytes, served in ((99, 96), (163, 128), (227, 128)):
        monkeypatch.setattr(op, "shared_memory", lambda device, kb=kilobytes: kb * 1024)
        fitting = [c for c in (8, 32, 96, 128, 192) if op.fits_muon([torch.zeros(c, 2 * c)])]
        assert fitting == [c for c in (8, 32, 96, 128) if c <= served]
    assert not op.fits_muon([torch.zeros(8, 4), torch.zeros(4, 8).double()])
    assert not op.fits_muon([torch.zeros(8, 4).t()])


def test_muon_on_the_cpu_is_within_the_same_limit():
    for shape in SHAPES.values():
        truth = change(exact(shape), shape)
        assert (change(trained("cpu", shape), shape) - truth).norm() / truth.norm() < BF16


if __name__ == "__main__":
    print([*wrong("cpu")])
