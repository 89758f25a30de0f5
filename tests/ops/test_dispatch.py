"""Which implementation serves an operation in full fp32 on a GPU: told without one."""

from collections.abc import Callable

import pytest
import torch
from torch.autograd import forward_ad

from cherimoya.network import Cherimoya
from cherimoya.ops.block import op as block
from cherimoya.ops.dispatch import Route, route
from cherimoya.ops.heads import op as heads
from cherimoya.ops.stem import op as stem

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own

FULL_FP32 = Route(conv_norm=True, block=False, inference=True, why="")


class Taken(Exception):  # noqa: N818 - no error
    """An implementation was chosen."""


def chosen(call: Callable[[], object]) -> str:
    with pytest.raises(Taken) as taken:
        call()
    return str(taken.value)


@pytest.fixture
def taken(monkeypatch):
    """Every implementation raises its name; `route` answers as on a GPU without TF32."""

    def take(place, name: str) -> None:
        def implementation(*_: object, **__: object) -> None:
            raise Taken(name)

        monkeypatch.setattr(place, name, implementation)

    for place in (block, heads, stem):
        monkeypatch.setattr(place, "route", lambda *_: FULL_FP32)
    for name in ("fused_block", "fused_block_full_fp32"):
        take(block, name)
    take(block.reference, "cheri_block_composed")
    take(heads, "fused_heads")
    take(heads, "heads_composed")
    take(stem, "fused_stem")
    take(stem.reference, "stem")
    monkeypatch.setattr(block, "widest_full_fp32", lambda *_: 4)
    return monkeypatch


BLOCK = (2, 9, 4), (3, 4), (8, 4), (4, 8)
HEADS = (2, 9, 4), (1, 4, 3), (1,)
STEM = (2, 4, 9), (4, 4, 3), (4,)
CALLS = {
    "block": (BLOCK, lambda v: block.cheri_block(*v, 1, 0.15)),
    "heads": (HEADS, lambda v: heads.heads(*v, 1)),
    "stem": (STEM, lambda v: stem.stem(*v)),
}
FUSED = {"block": "fused_block_full_fp32", "heads": "fused_heads", "stem": "fused_stem"}
COMPOSED = {"block": "cheri_block_composed", "heads": "heads_composed", "stem": "stem"}


@pytest.mark.parametrize("name", CALLS)
def test_full_fp32_is_fused_stem_and_heads_unless_something_wants_a_gradient(name, taken):
    shapes, call = CALLS[name]
    values = [torch.randn(shape) for shape in shapes]
    assert chosen(lambda: call(values)) == FUSED[name]
    for value in values:
        value.requires_grad_()
        expected = FUSED if name == "block" else COMPOSED
        assert chosen(lambda: call(values)) == expected[name]
        with torch.no_grad():
            assert chosen(lambda: call(values)) == FUSED[name]
        value.requires_grad_(False)


def test_a_block_that_no_gpu_has_room_for_is_composed(taken):
    shapes, call = CALLS["block"]
    taken.setattr(block, "widest_full_fp32", lambda *_: 3)
    with torch.no_grad():
        assert chosen(lambda: call([torch.randn(s) for s in shapes])) == "cheri_block_composed"


@pytest.mark.parametrize(
    ("kilobytes", "asked", "trained"), [(99, 192, 80), (163, 320, 144), (227, 384, 192)]
)
def test_the_widest_blocks_are_left_to_cublas(kilobytes, asked, trained):
    launch = pytest.importorskip("cherimoya.ops.block.fp32_launch")
    assert launch.widest(kilobytes * 1024, backward=False) == asked
    assert launch.widest(kilobytes * 1024, backward=True) == trained


def test_derivatives_in_forward_mode_are_pytorchs(monkeypatch):
    monkeypatch.setattr("cherimoya.ops.dispatch._decide", lambda *_: ("whole", ""))
    device = torch.device("cpu")
    assert route(device, torch.float32).block
    with forward_ad.dual_level():
        assert not route(device, torch.float32).conv_norm
    tangents = []

    def seen(x: torch.Tensor) -> torch.Tensor:
        tangents.append(route(device, x.dtype).conv_norm)
        return x

    torch.func.jvp(seen, (torch.ones(2),), (torch.ones(2),))
    assert tangents == [False]


def test_derivatives_in_forward_mode_are_those_of_differences():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=8, n_layers=3, trimming=20).double().eval()
    X, direction = torch.rand(2, 4, 100).double(), torch.randn(2, 4, 100).double()
    _, tangents = torch.func.jvp(model, (X,), (direction,))
    step = 1e-6
    for tangent, after, before in zip(
        tangents, model(X + step * direction), model(X - step * direction), strict=True
    ):
        torch.testing.assert_close(tangent, (after - before) / (2 * step), rtol=1e-5, atol=1e-8)


JOINT = [
    (96, 192, True),
    (64, 128, True),
    (96, 100, True),  # padded to 128
    (64, 192, True),
    (64, 64, False),
    (96, 193, False),
    (128, 256, False),
]


@pytest.mark.parametrize(("channels", "hidden", "joint"), JOINT)
def test_one_kernel_does_a_backwards_products_where_their_sums_fit(
    channels, hidden, joint, monkeypatch
):
    launch = pytest.importorskip("cherimoya.ops.block.launch")
    given = []
    monkeypatch.setattr(block, "route", lambda *_: Route(True, True, True, ""))
    monkeypatch.setattr(block, "fused_block", lambda *args: given.append(args[-1]) or [None])
    shapes = (1, 9, channels), (3, channels), (hidden, channels), (channels, hidden)
    values = [torch.randn(shape) for shape in shapes]
    for capability, expected in (((9, 0), joint), ((8, 0), False), ((10, 0), False)):
        monkeypatch.setattr(launch, "capability", lambda _, c=capability: c)
        block.cheri_block(*values, 1, 0.15)
        assert given[-1] is expected
    monkeypatch.setattr(launch, "capability", lambda _: (9, 0))
    monkeypatch.setenv("CHERIMOYA_KERNELS", "portable")
    block.cheri_block(*values, 1, 0.15)
    assert given[-1] is False


@pytest.mark.parametrize("joint", [True, False])
def test_the_forward_is_told_how_the_backward_will_be(joint, monkeypatch):
    # What the backward returns has other shapes then. torch.compile keeps code on disk by the
    # forward's arguments: without this one, code for one of them was taken for the other.
    given = []
    monkeypatch.setattr(block, "route", lambda *_: Route(True, True, True, ""))
    monkeypatch.setattr(block, "is_joint", lambda *_: joint)
    monkeypatch.setattr(block, "fused_block", lambda *args: given.append(args) or [None])
    block.cheri_block(*(torch.randn(shape) for shape in BLOCK), 1, 0.15)
    (arguments,) = given
    names = [a.name for a in torch.ops.cherimoya.cheri_block.default._schema.arguments]
    assert dict(zip(names, arguments, strict=True))["joint"] is joint


@pytest.mark.parametrize(("window", "sums"), [(1, 4), (2114, 136), (8192, 512), (8193, 129)])
def test_long_examples_have_no_more_sums_than_one_program_reads(window, sums):
    launch = pytest.importorskip("cherimoya.ops.block.hopper_launch")
    assert launch.joint_sums(torch.empty(1, window, 1)) == sums
    assert launch.few_tiles(sums) == sums  # else torch adds them up, in an order of its own
