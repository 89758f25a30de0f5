"""Motif instances that together explain contributions: a sparse, non-negative, competitive fit.

The method of Fi-NeMo 0.41 (Kundaje lab, github.com/kundajelab/finemo_gpu): contributions are a sum
of motifs, each at some positions with a coefficient of at least zero, under an L1 penalty. This
non-negative lasso is solved by proximal gradient steps with Nesterov's momentum, until the duality
gap is small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cherimoya.genome.sequence import one_hot

STEP, LEAST_STEP, SHORTER = 3.0, 0.08, 0.7  # of the descent: first, last, and after it diverged
MOST_STEPS = 10_000
GAP = 5e-4  # duality gap, a base, of a locus whose contributions are 1 on average (RMS)
LARGEST_SCALE = 10.0  # of a position's coefficients


@dataclass(frozen=True, eq=False)
class Placed:
    """h placed motifs, ordered by locus, position and motif; every array (h,).

    locus: row; motif: row of the matrices; position: of the first base in the window;
    coefficient: of the fit, above 0; similarity: cosine of the contributions there with the motif
    """

    locus: np.ndarray
    motif: np.ndarray
    position: np.ndarray
    coefficient: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found in n loci. converged: (n,) whether its gap came to be small."""

    placed: Placed
    converged: np.ndarray


class SparseFit:
    """Fits of `motifs`, matrices (4, width) whose sum of squares is 1, on a device.

    penalty: of a coefficient, the lambda of Fi-NeMo, 0 to 1; also the least similarity of what is
    kept
    """

    def __init__(
        self, motifs: Sequence[np.ndarray], penalty: float, device: torch.device | str = "cpu"
    ) -> None:
        self.widths = np.array([motif.shape[1] for motif in motifs])
        self.penalty, self.device = penalty, torch.device(device)
        width = int(self.widths.max())
        padded = [np.pad(motif, ((0, 0), (0, width - motif.shape[1]))) for motif in motifs]
        self._motifs = torch.as_tensor(np.stack(padded), dtype=torch.float32, device=device)
        inside = torch.arange(width) < torch.from_numpy(self.widths)[:, None]
        self._inside = inside[:, None].float().to(device)  # (M, 1, W)

    @torch.no_grad()
    def __call__(self, contributions: np.ndarray, codes: np.ndarray) -> Fit:
        """The fit of contributions (n, L) of the bases `codes` (n, L), each locus by itself."""
        hot = one_hot(torch.from_numpy(codes).to(self.device))
        X = torch.as_tensor(contributions, dtype=torch.float32, device=self.device)[:, None] * hot
        root = (X.square().sum((1, 2), keepdim=True) / X.shape[2]).sqrt()
        X = torch.nan_to_num(X / root)  # without any contributions: zeros
        more = self._motifs.shape[2] - 1  # so that a motif may end with the window
        X, hot = F.pad(X, (0, more)), F.pad(hot, (0, more))
        squares = F.conv1d(X.square().sum(1, keepdim=True), self._inside)  # (n, M, L)
        scale = (squares + 1).rsqrt().clamp(max=LARGEST_SCALE)
        last = codes.shape[1] - torch.from_numpy(self.widths).to(self.device)
        at = torch.arange(codes.shape[1], device=self.device)
        scale = scale * (at <= last[:, None])  # motifs that would reach past the end have none
        coefficients, converged = self._solve(X, hot, scale, codes.shape[1])
        return Fit(self._placed(coefficients, X, squares), converged.cpu().numpy())

    def _signal(self, coefficients: Tensor) -> Tensor:
        """What motifs (n, M, L) add up to, (n, 4, L + W - 1)."""
        return F.conv_transpose1d(coefficients, self._motifs)

    def _solve(self, X: Tensor, hot: Tensor, scale: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Coefficients (n, M, L), and whether each locus's gap came below GAP."""
        n = len(X)
        found, converged = torch.zeros_like(scale), torch.zeros(n, dtype=torch.bool)
        todo = torch.arange(n, device=X.device)
        step = torch.full((n, 1, 1), STEP, device=X.device)
        now = ahead = torch.zeros_like(scale)
        count = torch.zeros(n, 1, 1, device=X.device)
        for _ in range(MOST_STEPS):
            left = X - self._signal(ahead * scale) * hot
            slope = F.conv1d(left, self._motifs) * scale
            gap = self._gap(X, left, slope, ahead) / length
            before, now = now, (ahead + step * (slope - self.penalty)).relu()
            diverged = ~gap.isfinite()
            step[diverged] *= SHORTER
            now[diverged], before[diverged], count[diverged] = 0, 0, 0
            done = (gap <= GAP) | (step[:, 0, 0] < LEAST_STEP)
            if done.any():
                found[todo[done]] = now[done]
                converged[todo[done].cpu()] = (gap[done] <= GAP).cpu()
                kept = ~done
                if not kept.any():
                    break
                todo, X, hot, scale = todo[kept], X[kept], hot[kept], scale[kept]
                step, count, now, before = step[kept], count[kept], now[kept], before[kept]
            momentum = count / (count + 3)
            ahead = now + momentum * (now - before)
            count = count + 1
        else:
            found[todo] = now
        return found, converged

    def _gap(self, X: Tensor, left: Tensor, slope: Tensor, coefficients: Tensor) -> Tensor:
        """Duality gap (n,), after Kim and others (IEEE J. Sel. Top. Signal Process. 1, 2007)."""
        largest = (slope / self.penalty).amax((1, 2))
        feasible = ((1 / largest).clamp(max=1) ** 2 + 1) / 2
        norm = self.penalty * coefficients.abs().sum((1, 2))
        return (left.square().sum((1, 2)) * feasible - (left * X).sum((1, 2)) + norm).abs()

    def _placed(self, coefficients: Tensor, X: Tensor, squares: Tensor) -> Placed:
        cosine = F.conv1d(X, self._motifs) / squares.clamp_min(1e-12).sqrt()
        chosen = (coefficients > 0) & (cosine >= self.penalty)
        locus, motif, position = chosen.nonzero(as_tuple=True)
        where = (locus, motif, position)
        columns = (locus, motif, position, coefficients[where], cosine[where])
        arrays = [column.cpu().numpy() for column in columns]
        order = np.lexsort((arrays[1], arrays[2], arrays[0]))
        return Placed(*(array[order] for array in arrays))
