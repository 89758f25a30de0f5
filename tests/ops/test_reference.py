"""The pure PyTorch operations: against torch's own, against each other, and at their edges."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.reference import (
    EPS,
    cheri_block,
    cheri_block_composed,
    dilated_conv_norm,
    profile_head,
    stem,
)

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

# N, L, C, dilation: L < d, d <= L < 2d, L = 1, prime L, one example, an ordinary one
SHAPES = [
    (2, 13, 24, 16),
    (3, 101, 40, 64),
    (2, 1, 24, 1),
    (3, 97, 24, 7),
    (1, 211, 40, 32),
    (4, 300, 32, 4),
]


def rms_error(actual: Tensor, expected: Tensor) -> float:
    """Relative RMS error, in float64."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def block_inputs(n: int, length: int, c: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x and the three weights, all with gradients, far from their near-identity start."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(n, length, c), (3, c), (2 * c, c), (c, 2 * c)]
    scales = [1.0, 1.0, c**-0.5, 2 * c**-0.5]
    values = [
        s * torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape, s in zip(shapes, scales, strict=True)
    ]
    return [v.to(dtype).requires_grad_() for v in values]


def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    dout = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return torch.autograd.grad(out, inputs, dout)


def conv_norm_by_torch(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The same through conv1d and layer_norm."""
    y = F.conv1d(
        x.transpose(1, 2), weight.t()[:, None], padding=dilation, dilation=dilation,
        groups=x.shape[2],
    ).transpose(1, 2)  # fmt: skip
    return F.layer_norm(y, y.shape[1:], eps=EPS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n", "length", "c", "dilation"), SHAPES)
def test_conv_norm_agrees_with_torch(n, length, c, dilation, dtype):
    inputs = block_inputs(n, length, c, dtype)[:2]
    ours, theirs = (f(*inputs, dilation) for f in (dilated_conv_norm, conv_norm_by_torch))
    assert rms_error(ours, theirs) < TOLERANCE[dtype]
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        assert rms_error(a, b) < 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_take_statistics_in_float32(dtype):
    x, weight = (v.detach() for v in block_inputs(3, 101, 24, dtype)[:2])
    x = x * 8 + 100  # the plane's sum of squares is far beyond float16
    out = dilated_conv_norm(x, weight, 4)
    assert out.dtype == dtype
    assert rms_error(out, dilated_conv_norm(x.double(), weight.double(), 4)) < TOLERANCE[dtype]


def test_conv_norm_with_a_mean_a_thousand_times_the_std():
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(2, 500, 24, generator=generator)
    weight = torch.tensor([[0.0], [1.0], [0.0]]).repeat(1, 24)  # no padding in the statistics
    exact = dilated_conv_norm(x.double(), weight.double(), 8)
    assert rms_error(dilated_conv_norm(x, weight, 8), exact) < 1e-4


@pytest.mark.parametrize("trim", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n", "length", "c", "dilation"), SHAPES)
def test_block_agrees_with_its_formula(n, length, c, dilation, dtype, trim):
    trim = min(trim, (length - 1) // 2)
    inputs = block_inputs(n, length, c, dtype)
    ours, oracle = (
        f(*inputs, dilation, 0.15, trim=trim) for f in (cheri_block, cheri_block_composed)
    )
    assert ours.shape == (n, length - 2 * trim, c)
    assert rms_error(ours, oracle) < TOLERANCE[dtype]
    for a, b in zip(gradients(ours, inputs), gradients(oracle, inputs), strict=True):
        assert rms_error(a, b) < 10 * TOLERANCE[dtype]


def test_block_in_chunks(monkeypatch):
    inputs = block_inputs(3, 97, 24, torch.float64)
    oracle = cheri_block_composed(*inputs, 4, 0.15)
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 48 * 50)  # 50 rows: the last chunk is short
    ours = cheri_block(*inputs, 4, 0.15)
    assert rms_error(ours, oracle) < TOLERANCE[torch.float64]
    for a, b in zip(gradients(ours, inputs), gradients(oracle, inputs), strict=True):
        assert rms_error(a, b) < 10 * TOLERANCE[torch.float64]


@pytest.mark.parametrize("trim", [0, 2])
def test_block_gradcheck(trim):
    inputs = block_inputs(2, 7, 2, torch.float64)
    assert torch.autograd.gradcheck(lambda *a: cheri_block(*a, 3, 0.5, trim=trim), inputs)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_block_with_tiny_and_saturated_activations(scale):
    inputs = block_inputs(2, 50, 24)
    inputs[2] = (inputs[2].detach() * scale).requires_grad_()
    ours, oracle = (f(*inputs, 4, 0.15) for f in (cheri_block, cheri_block_composed))
    assert rms_error(ours, oracle) < 1e-5
    for a, b in zip(gradients(ours, inputs), gradients(oracle, inputs), strict=True):
        assert rms_error(a, b) < 1e-5


def test_block_needs_only_the_asked_gradients():
    x, *weights = block_inputs(2, 50, 24)
    frozen = [w.detach() for w in weights]
    (dx,) = gradients(cheri_block(x, *frozen, 4, 0.15), [x])
    expected = gradients(cheri_block(x, *weights, 4, 0.15), [x, *weights])
    assert torch.equal(dx, expected[0])
    dweights = gradients(cheri_block(x.detach(), *weights, 4, 0.15), weights)
    assert all(torch.equal(a, b) for a, b in zip(dweights, expected[1:], strict=True))


def test_inference_equals_training_and_leaves_the_input_alone():
    inputs = block_inputs(3, 97, 24)
    before = inputs[0].detach().clone()
    trained = cheri_block(*inputs, 4, 0.15)
    with torch.no_grad():
        inferred = cheri_block(*inputs, 4, 0.15)
    assert torch.equal(trained, inferred)
    assert not inferred.requires_grad
    assert torch.equal(inputs[0], before)


def test_block_of_half_inputs_keeps_its_dtype():
    inputs = block_inputs(2, 50, 24, torch.bfloat16)
    out = cheri_block(*inputs, 4, 0.15)
    exact = cheri_block(*(v.double() for v in inputs), 4, 0.15)
    assert out.dtype == torch.bfloat16
    assert rms_error(out, exact) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize(("n", "length"), [(0, 20), (2, 1)])
def test_empty_batch_and_single_position(n, length):
    inputs = block_inputs(n, length, 24)
    out = cheri_block(*inputs, 8, 0.15)
    assert out.shape == (n, length, 24)
    grads = gradients(out, inputs)
    assert [g.shape for g in grads] == [v.shape for v in inputs]
    assert all(torch.isfinite(g).all() for g in grads)


def test_nan_stays_in_its_example():
    inputs = block_inputs(3, 50, 24)
    poisoned = inputs[0].detach().clone()
    poisoned[1, 17, 3] = torch.nan
    poisoned.requires_grad_()
    clean, dirty = (cheri_block(x, *inputs[1:], 4, 0.15) for x in (inputs[0], poisoned))
    (dclean,), (ddirty,) = gradients(clean, inputs[:1]), gradients(dirty, [poisoned])
    for kept in (0, 2):
        assert torch.equal(clean[kept], dirty[kept])
        assert torch.equal(dclean[kept], ddirty[kept])
    assert dirty[1].isnan().all()


def test_inputs_need_not_be_contiguous():
    x, *weights = block_inputs(3, 97, 24)
    strided = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    columns = [w.detach().t().contiguous().t().requires_grad_() for w in weights]
    expected = cheri_block(x, *weights, 4, 0.15)
    out = cheri_block(strided, *columns, 4, 0.15)
    assert rms_error(out, expected) < TOLERANCE[torch.float32]
    assert rms_error(dilated_conv_norm(strided, columns[0], 4),
                     dilated_conv_norm(x, weights[0], 4)) < TOLERANCE[torch.float32]  # fmt: skip
    dout = torch.ones(3, 97, 1).expand_as(out)  # an expanded gradient, as from sum()
    ours = torch.autograd.grad(out, [strided, *columns], dout)
    theirs = torch.autograd.grad(expected, [x, *weights], dout.contiguous())
    for a, b in zip(ours, theirs, strict=True):
        assert rms_error(a, b) < 10 * TOLERANCE[torch.float32]


def test_an_example_does_not_depend_on_its_batch():
    x, *weights = (v.detach() for v in block_inputs(6, 301, 32))
    together = cheri_block(x, *weights, 8, 0.15)
    for i in range(6):
        alone = cheri_block(x[i : i + 1], *weights, 8, 0.15)
        assert rms_error(alone[0], together[i]) < 1e-6


def test_calls_repeat_to_the_bit():
    inputs = block_inputs(4, 300, 32)
    first, second = (cheri_block(*inputs, 8, 0.15) for _ in range(2))
    assert torch.equal(first, second)
    pairs = zip(gradients(first, inputs), gradients(second, inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def stem_by_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h = F.conv1d(x, weight, bias, padding=weight.shape[-1] // 2)
    return F.gelu(h, approximate="tanh").transpose(1, 2)


@pytest.mark.parametrize(("n", "length", "c"), [(3, 97, 24), (1, 1, 8), (2, 15, 40), (0, 50, 8)])
def test_stem_agrees_with_torch(n, length, c):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (n, length), generator=generator)
    x = F.one_hot(codes, 4).double().transpose(1, 2).requires_grad_()
    shapes = [(c, 4, 21), (c,)]
    parameters = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    inputs = [x, *(p.requires_grad_() for p in parameters)]
    ours, theirs = stem(*inputs), stem_by_torch(*inputs)
    assert ours.shape == (n, length, c)
    assert ours.is_contiguous()
    assert rms_error(ours, theirs) < TOLERANCE[torch.float64]
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        assert rms_error(a, b) < TOLERANCE[torch.float64]


def test_stem_gradcheck():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 5), (2, 4, 3), (2,)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    assert torch.autograd.gradcheck(stem, [v.requires_grad_() for v in inputs])


@pytest.mark.parametrize("kernel", [1, 3, 75])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("n", "length"), [(3, 97), (2, 20), (0, 30)])
def test_profile_head_agrees_with_conv1d(kernel, groups, n, length):
    generator = torch.Generator().manual_seed(0)
    shapes = [(n, length + 4, 25), (groups, 25, kernel), (groups,)]
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    inputs = [v.requires_grad_() for v in values]
    y = inputs[0][:, 2 : length + 2]  # as the model passes it: a window of a longer tensor
    ours = profile_head(y, *inputs[1:])
    theirs = F.conv1d(y.transpose(1, 2), *inputs[1:], padding=kernel // 2)
    assert ours.shape == (n, groups, length)
    assert rms_error(ours, theirs) < TOLERANCE[torch.float64]
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        assert rms_error(a, b) < TOLERANCE[torch.float64]
