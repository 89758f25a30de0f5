"""The block as a module: in one piece, piece by piece, and captured."""

import pytest
import torch
from torch import nn

from cherimoya import CheriBlock, Cherimoya
from cherimoya import cheri as public
from cherimoya.inference.cuda_graph import CUDAGraphModel


def block_and_input(**changes: object) -> tuple[CheriBlock, torch.Tensor]:
    torch.manual_seed(0)
    block = CheriBlock(8, dilation=2, **changes)
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.5)
    return block, torch.randn(2, 30, 8)


def gradients(block: CheriBlock, x: torch.Tensor, trim: int) -> list[torch.Tensor]:
    out = block(x, trim)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), list(block.parameters()))]


def test_the_promised_names_are_there():
    for name in ("CheriBlock", "fused_dilated_conv_norm", "FusedDilatedConvNormFunc",
                 "_cheri_conv_norm_cpu"):  # fmt: skip
        assert hasattr(public, name)


def test_the_function_computes_on_the_cpu_too():
    torch.manual_seed(0)
    x = torch.randn(2, 30, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(2, 30, 8, dtype=torch.float64)
    found, expected = (
        [y.detach(), *torch.autograd.grad(y, (x, weight), dy)]
        for y in (
            public.FusedDilatedConvNormFunc.apply(x, weight, 4),
            public.fused_dilated_conv_norm(x, weight, 4),
        )
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("trim", [0, 5])
def test_piece_by_piece_it_computes_the_same(trim):
    block, x = block_and_input()
    whole = gradients(block, x, trim)
    block.fused = False
    for a, b in zip(gradients(block, x, trim), whole, strict=True):
        assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize("piece", ["conv_norm", "linear1", "activation", "linear2"])
def test_a_hook_on_a_piece_sees_it_run(piece):
    block, x = block_and_input()
    expected, seen = block(x), []
    handle = block.get_submodule(piece).register_forward_hook(lambda *args: seen.append(args[-1]))
    found = block(x)
    handle.remove()
    block(x)
    assert len(seen) == 1
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_piece_that_was_replaced_is_used():
    class Doubled(nn.Linear):
        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(h)

    block, x = block_and_input()
    mlp = block(x) - x
    doubled = Doubled(16, 8, bias=False)
    doubled.weight = block.linear2.weight
    block.linear2 = doubled
    assert (block(x) - x - 2 * mlp).norm() < 1e-5 * mlp.norm()


def test_the_pieces_add_nothing_to_a_checkpoint():
    block, _ = block_and_input()
    assert list(block.state_dict()) == ["conv_weight", "linear1.weight", "linear2.weight"]


def test_without_a_gpu_a_captured_model_is_the_model():
    model = Cherimoya(n_filters=8, n_layers=2, trimming=4)
    X = torch.nn.functional.one_hot(torch.randint(0, 4, (2, 40)), 4).mT.float()
    for a, b in zip(CUDAGraphModel(model)(X), model(X), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


@pytest.mark.gpu
def test_a_captured_model_predicts_the_same_bits_and_sees_new_weights():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=32, n_layers=3, trimming=10, n_control_tracks=1).cuda()
    captured = CUDAGraphModel(model)
    for n in (2, 3, 2):
        X = torch.nn.functional.one_hot(torch.randint(0, 4, (n, 100)), 4).mT.float().cuda()
        X_ctl = torch.rand(n, 1, 100, device="cuda")
        with torch.no_grad():
            model.blocks[0].linear1.weight.mul_(1.5)
            expected = model(X, X_ctl)
        for a, b in zip(captured(X, X_ctl), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.gpu
def test_a_captured_model_reads_weights_changed_between_two_autocasts(monkeypatch):
    monkeypatch.setenv("CHERIMOYA_KERNELS", "reference")  # whose weights autocast casts and keeps
    torch.manual_seed(0)
    model = Cherimoya(n_filters=32, n_layers=3, trimming=10, profile_kernel_size=9).cuda()
    captured = CUDAGraphModel(model)
    X = torch.nn.functional.one_hot(torch.randint(0, 4, (2, 100)), 4).mT.float().cuda()
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        with torch.autocast("cuda", torch.bfloat16):
            found = captured(X)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            expected = model(X)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
