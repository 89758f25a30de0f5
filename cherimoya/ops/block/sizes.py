"""Which sizes some of the block's kernels serve.

A compiler takes these for constants. So they go by the device alone: it may know the sizes of
tensors as symbols only.
"""

import torch

from cherimoya.ops.device import constant_when_compiled, shared_memory


def is_joint(device: torch.device, channels: int, hidden: int) -> bool:
    """Whether one kernel does all products of the backward."""
    return any(
        channels == c and fewest <= hidden <= most for c, fewest, most in _joint_sizes(device)
    )


@constant_when_compiled
def _joint_sizes(device: torch.device) -> tuple[tuple[int, int, int], ...]:
    from cherimoya.ops.block import launch

    return launch.joint_sizes(device)


@constant_when_compiled
def widest_full_fp32(device: torch.device, backward: bool) -> int:
    """The most channels of the kernels in full fp32."""
    from cherimoya.ops.block import fp32_launch

    return fp32_launch.widest(shared_memory(device), backward)
