"""Every block against its formula, and in all that a network of it is used for."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import sequences
from torch import nn

from cherimoya import CheriBlock, Cherimoya
from cherimoya.blocks import BPNetBlock, ConvNeXtBlock
from cherimoya.errors import ConfigError
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.precision import computing_in
from cherimoya.interpret.gradients import deep_lift_shap
from cherimoya.interpret.target import Target
from cherimoya.ops import reference
from cherimoya.training.ema import EMA

C, L = 6, 40
MAKE = {"cheri": CheriBlock, "bpnet": BPNetBlock, "convnext": ConvNeXtBlock}
SETTINGS = {"cheri": {"expansion": 3, "residual_scale": 0.5}, "bpnet": {}}
SETTINGS["convnext"] = SETTINGS["cheri"]
every_block = pytest.mark.parametrize("name", MAKE)


def a_block(name: str, dilation: int) -> nn.Module:
    """In float64, with weights, scales and shifts far from their beginning."""
    torch.manual_seed(dilation)
    block = MAKE[name](C, dilation, **SETTINGS[name]).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    return block


def an_input() -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(3, L, C, dtype=torch.float64, generator=generator)


def a_model(name: str, std: float = 0.3, **arguments) -> Cherimoya:
    torch.manual_seed(0)
    block = {"name": name, **SETTINGS[name]}
    made = Cherimoya(8, 3, block=block, **{"trimming": 20, "signal_groups": [1, 2]} | arguments)
    for p in made.parameters():
        nn.init.normal_(p, std=std)
    return made.eval()


def taps_of(x: torch.Tensor, dilation: int) -> list[torch.Tensor]:
    """x (N, L, C) as each of the three taps reads it, with zeros beyond the ends."""
    padded = F.pad(x, (0, 0, dilation, dilation))
    return [padded[:, t * dilation : t * dilation + x.shape[1]] for t in range(3)]


@pytest.mark.parametrize("dilation", [1, 5])
def test_the_bpnet_block_is_its_formula(dilation):
    block, x = a_block("bpnet", dilation), an_input()
    weight = block.weight.view(C, C, 3)  # out, in, tap
    conv = sum(tap @ weight[:, :, t].T for t, tap in enumerate(taps_of(x, dilation)))
    expected = x + (conv + block.bias).clamp(min=0)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(block(x), x)


@pytest.mark.parametrize("dilation", [1, 5])
def test_the_convnext_block_is_its_formula(dilation):
    block, x = a_block("convnext", dilation), an_input()
    weight = block.conv.weight[:, 0]  # channel, tap
    conv = sum(tap * weight[:, t] for t, tap in enumerate(taps_of(x, dilation)))
    h = F.layer_norm(conv, (C,), block.norm.weight, block.norm.bias, block.norm.eps)
    h = F.gelu(h @ block.linear1.weight.T, approximate="tanh") @ block.linear2.weight.T
    torch.testing.assert_close(block(x), x + 0.5 * h, rtol=1e-12, atol=1e-12)


@every_block
def test_trim_leaves_out_positions_of_the_whole_output(name):
    block, x = a_block(name, 4), an_input()
    whole = block(x)
    assert whole.shape == x.shape
    for trim in (0, 1, 7):
        torch.testing.assert_close(
            block(x, trim=trim), whole[:, trim : L - trim], rtol=1e-12, atol=1e-12
        )


@every_block
def test_what_a_block_calls_its_matrices_is_what_muon_takes(name):
    block = MAKE[name](C, 2, **SETTINGS[name])
    shapes = {n: p.shape for n, p in block.named_parameters()}
    assert {n for n in block.matrices if len(shapes[n]) == 2} == set(block.matrices)
    assert all(min(shapes[n]) >= C for n in block.matrices)


class Reaching(BPNetBlock):
    reach: object


@pytest.mark.parametrize("reach", [-50, 10**12, 1.5, True, None])
def test_a_reach_that_no_block_has_is_refused(reach, monkeypatch):
    monkeypatch.setattr(Reaching, "reach", reach, raising=False)
    with pytest.raises(ConfigError, match=f"has reach={reach}: expected the bases to each side"):
        Cherimoya(8, 3, block={"name": f"{__name__}:Reaching"})
    monkeypatch.setattr(Reaching, "reach", 0)
    assert Cherimoya(8, 3, block={"name": f"{__name__}:Reaching"}).receptive_field == 21


class OnlyConv(nn.Module):
    """A Cheri Block's convolution without its normalisation, which reads the whole window."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x, weight):
        return reference.dilated_conv(x, weight, self.dilation)


@every_block
@pytest.mark.parametrize("profile_kernel_size", [1, 7])
def test_the_receptive_field_is_what_an_output_reads(name, profile_kernel_size):
    model = a_model(name, trimming=0, profile_kernel_size=profile_kernel_size).double()
    for block in model.blocks:
        if name == "cheri":
            block.conv_norm = OnlyConv(block.dilation)
        if name == "bpnet":  # positive, so that no path is dead
            block.weight.data.abs_()
    X = sequences(4, 101).double().requires_grad_()
    logits, _ = model(X)
    (gradient,) = torch.autograd.grad(logits[:, :, 50].square().sum(), X)
    (read,) = gradient.abs().sum((0, 1)).nonzero(as_tuple=True)
    reach = model.receptive_field // 2
    assert (read.min(), read.max()) == (50 - reach, 50 + reach)
    assert model.receptive_field == 2 * (10 + 1 + 2 + 4 + profile_kernel_size // 2) + 1


@every_block
def test_a_checkpoint_keeps_the_block(name, tmp_path):
    model = a_model(name)
    model.save(tmp_path / "model.pt")
    loaded = Cherimoya.load(tmp_path / "model.pt")
    assert {type(block) for block in loaded.blocks} == {MAKE[name]}
    assert loaded.config == model.config
    for a, b in zip(model(sequences()), loaded(sequences()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["bpnet", "convnext"])
def test_upstream_is_given_no_other_block(name, tmp_path):
    model = a_model(name, profile_kernel_size=75)
    with pytest.raises(ValueError, match=f"block={name}: upstream has the Cheri Block"):
        model.export_upstream(tmp_path / "model.torch")
    assert not list(tmp_path.iterdir())


@every_block
@pytest.mark.parametrize("output", ["counts", "profile"])
def test_deep_lift_adds_up(name, output):
    pytest.importorskip("tangermeme")
    model = a_model(name, std=0.6)
    target = Target(output, 1)
    X = sequences(2, 60)
    references = sequences(6, 60, seed=1).view(2, 3, 4, 60)
    found, deltas = deep_lift_shap(model, X, target, references=references)
    with torch.no_grad():
        score = target.of(*model(X), model.signal_groups)
        others = target.of(*model(references.flatten(0, 1)), model.signal_groups).view(2, 3)
    change = (score - others.mean(1)).numpy()
    scale = (score[:, None] - others).abs().mean(1).numpy()
    assert scale.min() > 0.1
    assert (deltas < 1e-4 * scale).all()
    np.testing.assert_allclose((found * X.numpy()).sum((1, 2)), change, atol=1e-4 * scale.max())


def test_without_the_rule_of_a_layer_norm_deep_lift_would_not_add_up(monkeypatch):
    pytest.importorskip("tangermeme")
    rule = "cherimoya.interpret.gradients.layer_norm_rule"
    monkeypatch.setattr(rule, lambda module, grad_input, grad_output: grad_input)
    references = sequences(6, 60, seed=1).view(2, 3, 4, 60)
    model = a_model("convnext", std=0.6)
    deltas = deep_lift_shap(model, sequences(2, 60), Target("counts"), references=references)[1]
    assert deltas.min() > 1e-2


@every_block
def test_bf16_is_close_to_fp32(name):
    model, X = a_model(name), sequences(4, 100)
    with torch.no_grad():
        full = model(X)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(X)
    for a, b in zip(half, full, strict=True):
        assert 0 < (a - b).norm() < 0.02 * b.norm()


@every_block
def test_the_moving_average_follows_the_blocks_weights(name):
    model, X = a_model(name), sequences()
    averaged = copy.deepcopy(model)
    ema = EMA(model.named_parameters())
    for decay in (0.9, 0.5):
        with torch.no_grad():
            for p, average in zip(model.parameters(), averaged.parameters(), strict=True):
                p.add_(0.1 * torch.randn_like(p))
                average.copy_(decay * average + (1 - decay) * p)
        ema.update(torch.tensor(decay), torch.tensor(0.0))
    with torch.no_grad():
        before = model(X)
        with ema.swapped_in():
            inside = model(X)
        for found, expected in zip(inside, averaged(X), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        for found, own, other in zip(model(X), before, inside, strict=True):
            assert torch.equal(found, own)
            assert not torch.allclose(found, other, rtol=1e-2)


@pytest.mark.gpu
@every_block
def test_a_captured_model_predicts_the_same_bits(name):
    model = a_model(name).cuda()
    captured = CUDAGraphModel(model)
    for n in (2, 3, 2):
        X = sequences(n, 100, seed=n).cuda()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
            expected = model(X)
        for found, wanted in zip(captured(X), expected, strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.gpu
@every_block
def test_a_gpu_answers_as_the_cpu(name):
    model, X = a_model(name), sequences(2, 100)
    with torch.no_grad():
        expected = model(X)
        with computing_in("fp32", torch.device("cuda")):
            found = model.cuda()(X.cuda())
    for a, b in zip(found, expected, strict=True):
        assert (a.cpu() - b).norm() < 1e-3 * b.norm()
