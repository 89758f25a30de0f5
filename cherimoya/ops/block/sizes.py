"""Which sizes some of the block's kernels serve.

A compiler takes these for constants. So they go by the device alone: it may know the sizes of
tensors as symbols only.
"""

import torch

from cherimoya.ops.device import constant_when_compiled, shared_memory


@constant_when_compiled
def joint_sizes(device: torch.device) -> tuple[tuple[int, int], ...]:
    """Channels and hidden units, padded, for which one kernel does the backward's products."""
    from cherimoya.ops.block import launch

    return launch.joint_sizes(device)


@constant_when_compiled
def widest_full_fp32(device: torch.device, backward: bool) -> int:
    """The most channels of the kernels in full fp32."""
    from cherimoya.ops.block import fp32_launch

    return fp32_launch.widest(shared_memory(device), backward)
