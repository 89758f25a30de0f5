"""What is timed: works, shapes, their least bytes and operations, and the times to meet."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
STACK_BLOCKS = 9
EXPANSION = 2
RESIDUAL_SCALE = 0.15


@dataclass(frozen=True)
class Case:
    """One work at one shape; `d` is the dilation, and of a stack the largest one."""

    work: str  # conv_norm, block or stack
    direction: str  # fwd (no gradients) or fwd_bwd
    dtype: str  # of the activations; weights are fp32
    N: int
    L: int
    C: int
    d: int = 16

    @property
    def hidden(self) -> int:
        return EXPANSION * self.C

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each block in turn."""
        stack = tuple(2**i for i in range(STACK_BLOCKS))
        return stack if self.work == "stack" else (self.d,)

    @property
    def tf32(self) -> bool:
        """Whether its matrix products may use TF32."""
        return self.dtype == "fp32" and self.work != "conv_norm"

    @property
    def weight_shapes(self) -> list[tuple[int, int]]:
        block = [(3, self.C), (self.hidden, self.C), (self.C, self.hidden)]
        return block[:1] if self.work == "conv_norm" else block * len(self.dilations)

    @property
    def least_bytes(self) -> int:
        """Each input read once and each output written once, block by block.

        Forward: x, weights, out. Backward: x, dout, weights, dx, gradients of the weights.
        """
        activations, weights = (2, 1) if self.direction == "fwd" else (5, 3)
        plane = self.N * self.L * self.C * BYTES[self.dtype]
        held = 4 * sum(rows * columns for rows, columns in self.weight_shapes)
        return activations * plane * len(self.dilations) + weights * held

    @property
    def flops(self) -> int:
        """Of the matrix products, without recomputation; a conv_norm has none."""
        if self.work == "conv_norm":
            return 0
        block = 2 * 2 * self.N * self.L * self.C * self.hidden
        return block * len(self.dilations) * (1 if self.direction == "fwd" else 3)

    def __str__(self) -> str:
        shape = f"N={self.N} L={self.L} C={self.C}"
        return f"{self.work} {self.direction} {self.dtype}{' tf32' if self.tf32 else ''} {shape}"

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


def _conv(direction: str) -> Case:
    return Case("conv_norm", direction, "bf16", 64, 2114, 96)


def _block(direction: str, dtype: str) -> Case:
    return Case("block", direction, dtype, 512, 1024, 128)


STACK = Case("stack", "fwd_bwd", "bf16", 64, 2114, 96, 2 ** (STACK_BLOCKS - 1))

# Milliseconds on one H200, from the project's design; the order is that of --quick.
MUST: dict[Case, float] = {
    _conv("fwd"): 0.035,
    _conv("fwd_bwd"): 0.12,
    STACK: 1.55,
    _block("fwd", "bf16"): 0.20,
    _block("fwd", "fp32"): 0.33,
    _block("fwd_bwd", "bf16"): 0.92,
    _block("fwd_bwd", "fp32"): 2.4,
}
MUST_MEMORY = {STACK: 1 / 3}  # of upstream's peak


def quick() -> list[Case]:
    """The must-table, and the stack's inference."""
    return [*MUST, replace(STACK, direction="fwd")]


def grid() -> list[Case]:
    """Widths, precisions, lengths and batches around N=64, L=2114, C=96, the telling ones first."""
    shapes = [(64, 2114, C) for C in (96, 32, 64, 128, 192, 256)]
    shapes += [(round(64 * 2114 / L), L, 96) for L in (500, 1024, 4096, 8192)]
    shapes += [(N, 2114, 96) for N in (1, 8, 512)]
    cases = []
    for i, shape in enumerate(shapes):
        for dtype in ("bf16", "fp32", "fp16")[: 2 if i else 3]:
            cases += [Case(work, "fwd_bwd", dtype, *shape) for work in ("block", "conv_norm")]
    return cases


def to_compile(cases: Iterable[Case]) -> list[Case]:
    """In the order of their worth: stacks take longest to compile, small batches lose soonest."""
    return sorted(cases, key=lambda case: (len(case.dilations), case.work, case.N))


def smoke(case: Case) -> Case:
    """The same work at a size that a CPU does at once."""
    return replace(case, N=min(case.N, 2), L=min(case.L, 90), C=min(case.C, 32))


def parity_case(work: str, dtype: str) -> Case:
    """A moderate, odd shape for the comparison with float64."""
    d = STACK.d if work == "stack" else 16
    return Case(work, "fwd_bwd", dtype, 3, 1031, 96, d)
