"""Input gradients, and DeepLIFT/SHAP with a rule for the convolution with normalisation."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.cheri import CheriBlock, fused_dilated_conv_norm
from cherimoya.genome.sequence import as_codes, one_hot
from cherimoya.inference.precision import computing_in
from cherimoya.inference.predictor import evaluating
from cherimoya.interpret.target import Target
from cherimoya.network import Cherimoya
from cherimoya.ops import reference
from cherimoya.util import console
from cherimoya.util.optional import import_optional

PAIRS_AT_ONCE = 32  # of a sequence and a reference
BATCHES_AT_ONCE = 4  # batches of pairs between two looks at the progress


def input_gradients(
    model: Cherimoya,
    sequences: np.ndarray | Tensor,
    target: Target,
    controls: Tensor | None = None,
    batch_size: int = 16,
    bar: bool = True,
) -> np.ndarray:
    """The gradient of `target` at each base, (N, 4, L) float32, in full fp32.

    sequences: codes (N, L) or one-hot (N, 4, L). Times the sequence it is gradient x input; less
    its mean over the four bases, it is what a base contributes beside the others.
    """
    device = next(model.parameters()).device
    codes = as_codes(sequences).to(device)
    parts = [torch.zeros(0, 4, codes.shape[1])]
    with evaluating(model):
        starts = range(0, len(codes), batch_size)
        for start in console.track(starts, "gradients", len(starts), "batch", bar=bar):
            rows = slice(start, start + batch_size)
            X = one_hot(codes[rows]).requires_grad_()
            own = None if controls is None else controls[rows].to(device)
            with computing_in("fp32", device):
                logits, log_counts = model(X, own)
                score = target.of(logits, log_counts, model.signal_groups).sum()
                parts.append(torch.autograd.grad(score, X)[0].cpu())
    return torch.cat(parts).numpy()


def deep_lift_shap(
    model: Cherimoya,
    sequences: np.ndarray | Tensor,
    target: Target,
    controls: Tensor | None = None,
    n_shuffles: int = 20,
    references: Tensor | None = None,
    seed: int = 0,
    batch_size: int = PAIRS_AT_ONCE,
    bar: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """DeepLIFT/SHAP by tangermeme, in full fp32.

    Parameters
    ----------
    sequences : codes (N, L) or one-hot (N, 4, L), without N
    n_shuffles : int
        Dinucleotide shuffles of each sequence to compare it with.
    references : Tensor (N, n, 4, L), optional
        Instead of shuffles.
    batch_size : int
        Pairs of a sequence and a reference at once.

    Returns
    -------
    tuple of ndarray
        Hypothetical contributions (N, 4, L) float32: at the base that is there, what it
        contributes; at another, what that one would. And convergence deltas (N,): the mean over
        the references of |sum of contributions - difference of predictions|, 0 if exact.

    Raises
    ------
    PackageError
        If tangermeme is not installed.
    """
    engine, ersatz = (
        import_optional("tangermeme.deep_lift_shap"),
        import_optional("tangermeme.ersatz"),
    )
    device = next(model.parameters()).device
    explained = Explained(model, target).eval()
    X = one_hot(as_codes(sequences).cpu())
    n = n_shuffles if references is None else references.shape[1]
    loci = max(1, BATCHES_AT_ONCE * batch_size // n)
    parts, deltas = [torch.zeros(0, 4, X.shape[2])], [torch.zeros(0)]
    starts = range(0, len(X), loci)
    for start in console.track(starts, "DeepLIFT/SHAP", len(starts), "batch", bar=bar):
        rows = slice(start, start + loci)
        against = (
            ersatz.dinucleotide_shuffle(X[rows], n=n_shuffles, random_state=[seed] * len(X[rows]))
            if references is None
            else references[rows]
        ).to(X.dtype)
        args = None if controls is None else (controls[rows].to(X.dtype),)
        # deltas are returned, not warned of
        with computing_in("fp32", device), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            multipliers = engine.deep_lift_shap(
                explained, X[rows], args, references=against, raw_outputs=True,
                batch_size=batch_size, device=device,
                additional_nonlinear_ops={ConvNorm: conv_norm_rule, nn.LayerNorm: layer_norm_rule},
            )  # fmt: skip
            deltas.append(_deltas(explained, X[rows], args, multipliers, against, device))
        parts.append(_hypothetical(multipliers, against))
    return torch.cat(parts).numpy(), torch.cat(deltas).numpy()


def _hypothetical(multipliers: Tensor, references: Tensor) -> Tensor:
    """sum_b m_b (x_b - r_b) for x each of the four bases, the mean over references: (n, 4, L)."""
    against = (multipliers * references).sum(dim=2, keepdim=True)  # (n, references, 1, L)
    return (multipliers - against).mean(dim=1)


@torch.no_grad()
def _deltas(
    explained: nn.Module,
    X: Tensor,
    args: tuple[Tensor, ...] | None,
    multipliers: Tensor,
    references: Tensor,
    device: torch.device,
) -> Tensor:
    """Mean over references of |sum of contributions - difference of predictions|: (n,)."""
    explained_sum = (multipliers * (X[:, None] - references)).sum(dim=(2, 3))  # (n, references)
    deltas = []
    for i in range(len(X)):
        both = torch.cat([X[i : i + 1], references[i]]).to(device)
        own = () if args is None else (args[0][i : i + 1].to(device).expand(len(both), -1, -1),)
        score = explained(both, *own)[:, 0].cpu()
        deltas.append((explained_sum[i] - (score[0] - score[1:])).abs().mean())
    return torch.stack(deltas)


class Explained(nn.Module):
    """A Cherimoya and its target, (N, 1), of pieces that rules can be attached to."""

    def __init__(self, model: Cherimoya, target: Target) -> None:
        super().__init__()
        self.model, self.target = model, target
        self.stem_activation = nn.GELU(approximate="tanh")
        self.blocks = nn.ModuleList(
            CheriPieces(block) if isinstance(block, CheriBlock) else block for block in model.blocks
        )
        self.softmax = nn.Softmax(dim=1)
        self.product = import_optional("tangermeme.deep_lift_shap").BilinearOp("...,...->...")

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> Tensor:
        """The target of X (N, 4, L): (N, 1)."""
        x = self.stem_activation(self.model.iconv(X)).transpose(1, 2)  # (N, L, C)
        for block in self.blocks:
            x = block(x)
        logits, log_counts = self.model.apply_heads(x, X_ctl, 0)
        if self.target.output == "counts":
            return self.target.of_counts(log_counts)[:, None]
        centred = self.target.centred_logits(logits, self.model.signal_groups)
        return self.product(centred, self.softmax(centred)).sum(dim=1, keepdim=True)


class CheriPieces(nn.Module):
    """A Cheri Block of pieces that have rules."""

    def __init__(self, block: CheriBlock) -> None:
        super().__init__()
        self.conv_norm, self.block = ConvNorm(block), block

    def forward(self, x: Tensor) -> Tensor:
        """x (N, L, C) -> (N, L, C)."""
        block = self.block
        hidden = block.activation(block.linear1(self.conv_norm(x)))
        return x + block.residual_scale * block.linear2(hidden)


class ConvNorm(nn.Module):
    """The convolution with normalisation of a block, of x alone."""

    def __init__(self, block: CheriBlock) -> None:
        super().__init__()
        self.weight, self.dilation = block.conv_weight, block.dilation

    def forward(self, x: Tensor) -> Tensor:
        """x (N, L, C) -> (N, L, C)."""
        return fused_dilated_conv_norm(x, self.weight, self.dilation)


def _normalised(c: Tensor, g: Tensor, dims: tuple[int, ...], eps: float) -> Iterator[Tensor]:
    """Multipliers of a centred c over its root mean square over `dims`, halves apart.

    With v the mean square of c and r = (v + eps)^-1/2, the output is c r. A change of a product
    is split evenly, d(c r) = mean(r) dc + mean(c) dr; dr = (dr / dv) dv with dr / dv =
    -1 / (s s' (s + s')), s = 1 / r; and dv = mean over `dims` of 2 mean(c) dc.
    """
    s, s_ref = (c.square().mean(dim=dims, keepdim=True) + eps).sqrt().chunk(2)
    mean_c, mean_r = torch.stack(c.chunk(2)).mean(0), (1 / s + 1 / s_ref) / 2
    slope = -1 / (s * s_ref * (s + s_ref))
    numbers = mean_c.numel() // slope.numel()
    for half in g.chunk(2):
        dr = (half * mean_c).sum(dim=dims, keepdim=True)
        m = mean_r * half + dr * slope * 2 * mean_c / numbers
        yield m - m.mean(dim=dims, keepdim=True)


def conv_norm_rule(module: Any, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
    """DeepLIFT multipliers of ConvNorm, exact: contributions add up to the change of the output."""
    taps, dilation = module.weight.detach(), module.dilation
    c = reference.dilated_conv(module.input, taps, dilation)
    c = c - c.mean(dim=(1, 2), keepdim=True)
    multipliers = [
        reference.dilated_conv(m, taps.flip(0), dilation)
        for m in _normalised(c, grad_output[0], (1, 2), reference.EPS)
    ]
    return (torch.cat(multipliers),)


def layer_norm_rule(module: Any, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
    """DeepLIFT multipliers of a LayerNorm over the last axis, exact as those of ConvNorm."""
    c = module.input - module.input.mean(dim=-1, keepdim=True)
    g = grad_output[0] if module.weight is None else grad_output[0] * module.weight.detach()
    return (torch.cat(list(_normalised(c, g, (-1,), module.eps))),)
