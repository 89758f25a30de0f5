"""Edits that bring a prediction to a goal: Ledidi proposes, the model's predictions decide."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.config.design import DesignConfig
from cherimoya.genome.sequence import N_CODE, as_codes, one_hot
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.precision import computing_in
from cherimoya.inference.predictor import predict_batch, to_cpu
from cherimoya.inference.wrappers import expected_counts
from cherimoya.interpret.mutagenesis import default_batch
from cherimoya.interpret.target import Target
from cherimoya.util import console
from cherimoya.util.optional import import_optional

EASIER = 0.1  # how much less an edit weighs in each further attempt
AGREEMENT = 1e-4  # log counts, to which two ways of computing one prediction agree
SEED_BYTES = 7  # a seed below 2^56, which torch takes


class Oracle(nn.Module):
    """The target of one locus as Ledidi asks for it: (N, 1) of X (N, 4, L), with gradients.

    known: (L,) which bases of the locus are known, as others stay columns of zeros; controls
    (1, tracks, L), or None; step: called at each prediction, as Ledidi says nothing on its way.
    """

    known: Tensor
    controls: Tensor | None

    def __init__(
        self,
        model: Ensemble,
        target: Target,
        known: Tensor,
        controls: Tensor | None,
        step: Callable[[], object],
    ) -> None:
        super().__init__()
        self.model, self.target, self.step = model, target, step
        self.register_buffer("known", known.float())
        self.register_buffer("controls", controls)

    def forward(self, X: Tensor) -> Tensor:
        """(N, 1)."""
        self.step()
        own = None if self.controls is None else self.controls.expand(len(X), -1, -1)
        logits, log_counts = self.model(X * self.known, own)
        return self.target.of(logits, log_counts, self.model.signal_groups)[:, None]


@dataclass(frozen=True, eq=False)
class Told:
    """What the model says of m sequences: the target (m,), and expected counts (m, tracks, out)."""

    value: np.ndarray
    counts: np.ndarray


class Designer:
    """Designs by Ledidi (Schreiber et al. 2025, doi 10.1101/2025.04.22.650035) with an ensemble.

    Ledidi draws sequences from a distribution over edits, and moves it by the gradient of (target -
    goal)^2 + edit_weight x edits. Of the sequences of its best step, and the locus as it is, those
    whose prediction is within config.tolerance of the goal count; the one with fewest edits is
    taken, of equal ones the nearest, and where none counts, the nearest of all. Then edits go whose
    undoing moves the prediction least (ledidi.pruning), while all together they move it by less
    than config.prune and none takes it out of the tolerance.

    What is made depends on the sequence, its controls and config, neither on other loci nor on
    torch's state.
    """

    def __init__(
        self, config: DesignConfig, model: Ensemble, target: Target, editable: slice
    ) -> None:
        self.config, self.model, self.target, self.editable = config, model, target, editable
        self._ledidi = import_optional("ledidi")
        self._prune = import_optional("ledidi.pruning").greedy_pruning
        self._device = next(model.parameters()).device
        self._run = CUDAGraphModel(model)
        self._size = config.batch_size or default_batch(self._device)

    def goal(self, before: float) -> float:
        """What is to be reached from a target of `before`, in its units."""
        config = self.config
        return before + config.change if config.change is not None else float(config.goal or 0)

    def is_reached(self, value: float, goal: float) -> bool:
        """Whether a predicted target is as near the goal as config.tolerance says."""
        return abs(value - goal) <= self.config.tolerance

    def design(
        self, codes: np.ndarray, controls: Tensor | None = None, label: str = "locus"
    ) -> np.ndarray:
        """The designed sequence of a locus, codes (L,) uint8 of codes (L,); controls (tracks, L).

        An unknown base stays so, and what lies outside of `editable` as it is. It is the locus
        itself where the goal is reached already, or nothing comes nearer to it. The steps are shown
        under `label` as they are made.
        """
        before = float(self.ask(codes[None], controls).value[0])
        goal, best, value = self.goal(before), codes, before
        for attempt in range(self.config.attempts):
            if self.is_reached(value, goal):
                break
            proposed = self._proposed(codes, controls, goal, attempt, label)
            best, value = self._chosen(np.stack([codes, best, *proposed]), controls, goal)
        return self._pruned(codes, best, controls, goal, label)

    def ask(self, codes: np.ndarray, controls: Tensor | None = None) -> Told:
        """What the model says of sequences, codes (m, L), of one locus with its controls."""
        values, counts = [], []
        for start in range(0, len(codes), self._size):
            X = one_hot(torch.from_numpy(codes[start : start + self._size]).to(self._device))
            own = None if controls is None else controls.to(self._device).expand(len(X), -1, -1)
            logits, log_counts = to_cpu(
                predict_batch(self._run, X, own, self.config.precision, self._size)
            )
            groups = self.model.signal_groups
            values.append(self.target.of_counts(log_counts.double()).numpy())
            counts.append(expected_counts(logits, log_counts, groups).numpy())
        return Told(np.concatenate(values), np.concatenate(counts))

    def _oracle(self, codes: np.ndarray, controls: Tensor | None, steps: Iterator[int]) -> Oracle:
        """The target of the locus, each prediction of which is one of `steps`."""
        own = None if controls is None else controls[None]
        known = torch.from_numpy(codes != N_CODE)
        return Oracle(self.model, self.target, known, own, lambda: next(steps, None))

    def _proposed(
        self, codes: np.ndarray, controls: Tensor | None, goal: float, attempt: int, label: str
    ) -> np.ndarray:
        """Sequences (config.designs, L) of an attempt of Ledidi's."""
        config = self.config
        kept = torch.from_numpy(codes != N_CODE)  # no edits; Ledidi cannot bind what is no base
        kept[self.editable] = False
        total = config.max_iter + 1  # Ledidi first looks at the locus itself
        said = f"{label}, attempt {attempt + 1} of at most {config.attempts}"
        steps = console.track(range(total), said, total, "step")
        with closing(steps), computing_in(config.precision, self._device):
            made = self._ledidi.ledidi(
                self._oracle(codes, controls, steps), one_hot(codes[None]),
                torch.tensor([[goal]], dtype=torch.float32), device=self._device,
                random_state=seed_of(config.seed, codes, attempt), verbose=False,
                l=config.edit_weight * EASIER**attempt, batch_size=config.designs,
                max_iter=config.max_iter, early_stopping_iter=config.early_stopping, lr=config.lr,
                tau=config.tau, input_mask=kept.to(self._device),
            )  # fmt: skip
        found = as_codes(made.detach().round().cpu()).numpy()
        return np.where(codes == N_CODE, N_CODE, found).astype(np.uint8)

    def _chosen(
        self, sequences: np.ndarray, controls: Tensor | None, goal: float
    ) -> tuple[np.ndarray, float]:
        """The best of sequences (m, L), of which the first is the locus, and its target."""
        values = self.ask(sequences, controls).value
        edits = (sequences != sequences[0]).sum(axis=1)
        distance = np.abs(values - goal)
        reached = distance <= self.config.tolerance
        first, second = (edits, distance) if reached.any() else (distance, edits)
        row = np.lexsort((second, first, ~reached))[0]
        return sequences[row], float(values[row])

    def _pruned(
        self, codes: np.ndarray, best: np.ndarray, controls: Tensor | None, goal: float, label: str
    ) -> np.ndarray:
        """The design without the edits that hardly matter."""
        config, value = self.config, float(self.ask(best[None], controls).value[0])
        most = config.prune
        if self.is_reached(value, goal):
            most = min(most, config.tolerance - abs(value - goal) - AGREEMENT)
        if most <= 0 or not (codes != best).any():
            return best
        edits = console.counted(int((codes != best).sum()), "edit")
        steps = console.track(count(), f"{label}, pruning of {edits}", None, "prediction")
        X, X_hat = (one_hot(one[None]).to(self._device) for one in (codes, best))
        with closing(steps), computing_in(config.precision, self._device):
            oracle = self._oracle(codes, controls, steps).to(self._device)
            kept = self._prune(oracle, X, X_hat, threshold=most)
        return as_codes(kept.cpu()).numpy()[0]


def seed_of(seed: int, codes: np.ndarray, attempt: int) -> int:
    """The seed of an attempt for a locus of codes (L,): of the bases, so that it is the same in
    whichever company and order loci are designed."""
    text = f"{seed} {attempt} ".encode() + np.ascontiguousarray(codes, np.uint8).tobytes()
    return int.from_bytes(hashlib.sha256(text).digest()[:SEED_BYTES], "little")
