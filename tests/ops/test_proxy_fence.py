"""The fences that older versions of Triton leave out."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

from cherimoya.ops import proxy_fence
from cherimoya.ops.proxy_fence import FENCE, add_fences

LOOP = "\tcp.async.wait_group \t0;\n\tbar.sync \t0;\n\twgmma.mma_async.sync;\n"


@pytest.fixture
def triton(monkeypatch):
    """A Triton that leaves them out, with no hook of anybody."""
    import triton

    runtime = SimpleNamespace(add_stages_inspection_hook=None)
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    monkeypatch.setattr(triton, "knobs", SimpleNamespace(runtime=runtime))
    return triton


def compiled(triton, ptx):
    """What the stage that makes PTX returns once the hook has seen it."""
    stages = {"ptx": lambda source, metadata: source}
    triton.knobs.runtime.add_stages_inspection_hook("backend", stages, "options", "language", 90)
    return stages["ptx"](ptx, {})


def test_a_fence_follows_each_wait_of_a_kernel_with_wgmma():
    fenced = f"\tcp.async.wait_group \t0;\n{FENCE}\n\tbar.sync \t0;\n\twgmma.mma_async.sync;\n"
    assert add_fences(LOOP + LOOP) == fenced + fenced
    other = LOOP.replace("wgmma.mma_async", "mma")
    assert add_fences(other) == other


def test_an_older_triton_is_given_the_fences_once(triton):
    for _ in range(2):
        proxy_fence.install()
    assert compiled(triton, LOOP).count(FENCE) == 1


def test_a_newer_triton_is_left_alone(triton, monkeypatch):
    monkeypatch.setattr(triton, "__version__", "3.7.1")
    proxy_fence.install()
    assert triton.knobs.runtime.add_stages_inspection_hook is None


def test_another_hook_keeps_running(triton):
    seen = []

    def other(*arguments):
        seen.append(arguments)
        return ("key", "hash") if not arguments else None

    triton.knobs.runtime.add_stages_inspection_hook = other
    proxy_fence.install()
    assert FENCE in compiled(triton, LOOP)
    assert len(seen) == 1
    key, _ = triton.knobs.runtime.add_stages_inspection_hook()
    assert key.startswith("key")
