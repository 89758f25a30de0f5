"""Marginal footprints of a model with a bias model: what it predicts at the enzyme's motifs, with
the bias model, of that alone, and corrected."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.data.motif_grammar import ENZYME
from cherimoya.genome.sequence import decode, encode, one_hot, reverse_complement_tracks
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import check_finite, evaluating, predict_batch
from cherimoya.inference.wrappers import expected_counts
from cherimoya.interpret.motifs import insert
from cherimoya.network import Cherimoya
from cherimoya.records.bias_quality import KINDS

# The motifs that ChromBPNet's quality control inserts (kundajelab/chrombpnet, MIT, bias_motifs in
# chrombpnet/pipelines.py; Pampari et al. 2024, doi:10.1101/2024.12.25.630221). That of DNase I is
# there twice.
MOTIFS = {
    "Tn5": (
        "GCACAGTACAGAGCTG", "GTGCACAGTTCTAGAGTGTGCAG", "CCTCTACACTGTGCAGAA",
        "GCACAGTTCTAGACTGTGCAG", "CTGCACAGTGTAGAGTTGTGC",
    ),
    "DNase I": ("TTTACAAGTCCA",),
    "simulated": (decode(ENZYME.argmax(axis=1)),),
}  # fmt: skip
LIMIT = 3  # times a flat profile: ChromBPNet's 0.003 where 1,000 bases are predicted
NEAR = 100  # bases on each side of the middle, which ChromBPNet draws


@dataclass(frozen=True, eq=False)
class Footprint:
    """The mean predicted profile at a motif, by kind of prediction: (tracks, L) each."""

    motif: str
    profiles: dict[str, np.ndarray]
    signal_groups: list[int]

    def largest(self, kind: str) -> list[float]:
        """The largest of the mean profile near the motif, of each signal group."""
        near = self.profiles[kind][:, middle(self.profiles[kind].shape[1])]
        ends = np.cumsum(self.signal_groups)[:-1]
        return [float(group.max()) for group in np.split(near, ends)]


class BiasAlone(nn.Module):
    """The bias model of `model`, of the whole windows that this reads; it has no controls."""

    def __init__(self, model: Cherimoya) -> None:
        super().__init__()
        assert model.bias_model is not None
        self.bias_model, self.signal_groups = model.bias_model, model.signal_groups
        self._cut = model.trimming - model.bias_model.trimming
        self.eval()

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Profile logits and log counts of X (N, 4, L)."""
        return self.bias_model(X[:, :, self._cut : X.shape[2] - self._cut].contiguous())


def middle(length: int) -> slice:
    """The positions of a profile that are near its middle."""
    return slice(max(length // 2 - NEAR, 0), length // 2 + NEAR)


def limits(signal_groups: Sequence[int], length: int) -> list[float]:
    """What the largest of a corrected profile is to stay below, of each signal group: LIMIT times
    a flat profile, whose probabilities add up to 1 over the strands of the group."""
    return [LIMIT / (size * length) for size in signal_groups]


@torch.no_grad()
def footprints(
    model: Cherimoya,
    backgrounds: np.ndarray,
    motifs: Sequence[str],
    batch_size: int = 64,
    precision: str = "fp32",
) -> list[Footprint]:
    """The mean profiles of `model` where each motif is in the middle of background sequences.

    As in ChromBPNet's quality control: the expected counts of both strands of a sequence are
    added, divided by their sum over a signal group, and averaged over the sequences.

    Parameters
    ----------
    model : Cherimoya
        With a bias model. It is left as it is; controls are zeros.
    backgrounds : ndarray (n, L)
        Codes.
    motifs : sequence of str
        Letters; none ("") leaves the backgrounds as they are.
    """
    own, bias = CUDAGraphModel(model), CUDAGraphModel(BiasAlone(model))
    device, groups = model.lw0.device, model.signal_groups
    found = []
    with evaluating(model), corrected(model):
        for motif in motifs:
            letters = np.broadcast_to(encode(motif), (len(backgrounds), len(motif)))
            codes = torch.from_numpy(insert(backgrounds, letters))
            sums: dict[str, Tensor] = {}
            for part in codes.split(batch_size):
                X = one_hot(part.to(device))
                strands = [_counts(own, bias, x, precision, batch_size) for x in (X, X.flip(1, 2))]
                for kind in KINDS:
                    both = strands[0][kind] + reverse_complement_tracks(strands[1][kind], groups)
                    profile = _normalised(both, groups).sum(dim=0)
                    sums[kind] = sums.get(kind, 0) + profile
            profiles = {k: (v / len(codes)).cpu().numpy() for k, v in sums.items()}
            found.append(Footprint(motif, profiles, groups))
    return found


@contextmanager
def corrected(model: Cherimoya) -> Iterator[None]:
    """The model answers without its bias model; afterwards as before."""
    before, model.with_bias = model.with_bias, False
    try:
        yield
    finally:
        model.with_bias = before


def _counts(
    own: CUDAGraphModel, bias: CUDAGraphModel, X: Tensor, precision: str, size: int
) -> dict[str, Tensor]:
    """Expected counts (n, tracks, L) by kind of prediction."""
    model: Cherimoya = own.model  # type: ignore[assignment]
    controls = model.n_control_tracks
    X_ctl = X.new_zeros(len(X), controls, X.shape[2]) if controls else None
    logits, log_counts = (v.float() for v in predict_batch(own, X, X_ctl, precision, size))
    its_logits, its_counts = (v.float() for v in predict_batch(bias, X, None, precision, size))
    check_finite(log_counts + its_counts)
    both = logits + its_logits, torch.logaddexp(log_counts, its_counts)
    answers = zip(KINDS, (both, (its_logits, its_counts), (logits, log_counts)), strict=True)
    # Of counts below zero, which cannot be, the profile is all the same what it is.
    return {
        kind: expected_counts(z, n.clamp_min(1e-6), model.signal_groups).double()
        for kind, (z, n) in answers
    }


def _normalised(counts: Tensor, groups: Sequence[int]) -> Tensor:
    """Counts (n, tracks, L) that add up to 1 over each signal group."""
    parts = counts.split(list(groups), dim=1)
    return torch.cat([part / part.sum(dim=(1, 2), keepdim=True) for part in parts], dim=1)
