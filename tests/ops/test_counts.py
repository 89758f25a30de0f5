"""The count head's kernels give what a product in float64 gives, and its gradients."""

import os

import pytest
import torch
from kernels import opchecks, printed_by_the_interpreter
from torch import Tensor

from cherimoya.ops.counts.op import counts, fused_counts

SHAPES = [(64, 96, 1), (1, 5, 3), (150, 97, 2), (3, 512, 1), (0, 32, 2)]  # N, F, G
TOLERANCE = 1e-6  # relative RMS error


def results(inputs: list[Tensor], dout: Tensor) -> list[Tensor]:
    """The output, and the gradients of all inputs."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = counts(*leaves, torch.bfloat16)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def wrong(device: str) -> list[str]:
    """What the kernels do that they should not."""
    os.environ["CHERIMOYA_KERNELS"] = "triton"
    generator = torch.Generator().manual_seed(0)
    found = []
    for n, f, g in SHAPES:
        shapes = (n, f), (g, f), (g,), (n, g)
        values = [torch.randn(shape, generator=generator) for shape in shapes]
        *inputs, dout = (v.to(device) for v in values)
        inputs[0] = torch.stack([inputs[0], inputs[0]], 2)[:, :, 0]  # with gaps in memory
        got = results(inputs, dout)
        truth = results([v.double() for v in values[:3]], values[3].double())
        for name, a, b in zip(("out", "features", "weight", "bias"), got, truth, strict=True):
            error = (a.cpu().double() - b).norm() / b.norm().clamp(min=1e-30)
            if a.shape != b.shape or not error <= TOLERANCE:
                found.append(f"{n, f, g}: {name} is wrong by {error:.2g}")
        if not all(map(torch.equal, got, results(inputs, dout))):
            found.append(f"{n, f, g}: two calls differ")
        if n and not torch.equal(
            counts(inputs[0][-1:], *inputs[1:], torch.bfloat16)[0], got[0][-1]
        ):
            found.append(f"{n, f, g}: an example depends on the others")
    shapes = (4, 7), (2, 7), (2,)
    leaves = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    ran = opchecks(lambda: results(leaves, torch.ones(4, 2, device=device)), leaves)
    if [op.split("::")[-1] for op in ran] != ["counts", "counts_backward"]:
        found.append(f"the kernels do not serve: {[*ran]}")
    for op, checks in ran.items():
        found += [f"{op} {test}: {said}" for test, said in checks.items() if said != "SUCCESS"]
    return found


def test_the_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    assert printed_by_the_interpreter(__file__) == "[]\n"


@pytest.mark.gpu
def test_the_kernels_on_a_gpu(monkeypatch):
    monkeypatch.setenv("CHERIMOYA_KERNELS", "")  # put back afterwards
    assert wrong("cuda") == []


def test_one_code_of_torch_compile_serves_every_number_of_examples():
    import torch._dynamo.testing as dynamo

    counter = dynamo.CompileCounter()
    made = torch.compile(fused_counts, backend=counter, fullgraph=True)
    weight, bias = torch.randn(2, 7, device="meta"), torch.randn(2, device="meta")
    for n in (3, 4, 5, 9):
        assert made(torch.randn(n, 7, device="meta"), weight, bias).shape == (n, 2)
    assert counter.frame_count <= 2


def test_without_kernels_it_is_torchs_linear():
    torch.manual_seed(0)
    features, weight, bias = torch.randn(4, 7), torch.randn(2, 7), torch.randn(2)
    expected = torch.nn.functional.linear(features, weight, bias)
    assert torch.equal(counts(features, weight, bias, torch.float32), expected)


if __name__ == "__main__":
    print(wrong("cpu"))
