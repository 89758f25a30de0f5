"""The examples of an epoch: a pure function of (seed, epoch, index), gathered exactly."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from loci_files import loci

from cherimoya.data.batches import Batch, Tables, examples_per_epoch, plan_epoch
from cherimoya.data.loci import Loci

# Recorded once: another value means that seeds no longer mean what they meant.
EXPECTED_LOCI = [27, 18, 45, 39, 9, 50, 17, 34]
EXPECTED_SHIFTS = [15, 69, 100, 50, 58, 100, 192, 53]
EXPECTED_FLIPS = [False, True, True, False, True, True, False, False]
LABEL = np.array([1] * 40 + [0] * 25, dtype=np.uint8)


def plan(seed=0, epoch=0, negative_ratio=0.3, max_jitter=8, reverse_complement=True):
    return plan_epoch(seed, epoch, LABEL, negative_ratio, max_jitter, reverse_complement)


def test_every_peak_once_and_the_asked_share_of_background():
    p = plan()
    peaks = p.locus[LABEL[p.locus] == 1]
    background = p.locus[LABEL[p.locus] == 0]
    assert sorted(peaks) == list(range(40))
    assert len(background) == len(set(background)) == int(40 * 0.3)
    assert len(p) == examples_per_epoch(LABEL, 0.3) == 52


def test_background_is_drawn_in_rounds_when_there_is_too_little():
    p = plan(negative_ratio=1.5)  # 60 draws of 25
    drawn = np.bincount(p.locus, minlength=len(LABEL))[40:]
    assert drawn.sum() == 60
    assert set(drawn) == {2, 3}


def test_no_background_at_all_is_no_error():
    p = plan_epoch(0, 0, np.ones(5, dtype=np.uint8), 0.5, 2, True)
    assert sorted(p.locus) == list(range(5))
    assert examples_per_epoch(np.ones(5, dtype=np.uint8), 0.5) == 5


def test_only_peaks_are_jittered_and_all_shifts_occur():
    shifts = [plan(epoch=e) for e in range(30)]
    peak = np.concatenate([p.shift[LABEL[p.locus] == 1] for p in shifts])
    background = np.concatenate([p.shift[LABEL[p.locus] == 0] for p in shifts])
    assert set(peak) == set(range(17))
    assert set(background) == {8}
    assert abs(np.concatenate([p.flip for p in shifts]).mean() - 0.5) < 0.05
    assert not plan(reverse_complement=False).flip.any()


def test_seed_and_epoch_decide_everything():
    for other in (plan(seed=1), plan(epoch=1)):
        assert not np.array_equal(other.locus, plan().locus)
        assert not np.array_equal(other.flip, plan().flip)
    assert np.array_equal(plan(seed=3, epoch=7).shift, plan(seed=3, epoch=7).shift)


def test_the_examples_never_change_with_a_version():
    p = plan_epoch(7, 3, LABEL, 0.3, 100, True)
    assert p.locus[:8].tolist() == EXPECTED_LOCI
    assert p.shift[:8].tolist() == EXPECTED_SHIFTS
    assert p.flip[:8].tolist() == EXPECTED_FLIPS


def gathered(data: Loci, *plan: Sequence[int]) -> Batch:
    """The examples (rows, shift, flip) from tables on the CPU."""
    tables = Tables(data, torch.device("cpu"))
    return tables.gather(*(torch.as_tensor(np.asarray(values)) for values in plan))


def test_forward_batch_is_the_stored_window():
    data = loci()
    b = gathered(data, [4, 1], [0, 5], [0, 0])
    for i, (row, shift) in enumerate([(4, 0), (1, 5)]):
        codes = data.sequence[row, shift : shift + 12]
        one_hot = np.stack([codes == base for base in range(4)])
        np.testing.assert_array_equal(b.X[i].numpy(), one_hot)
        np.testing.assert_array_equal(b.signal[i], data.signal[row, :, shift : shift + 8])
        np.testing.assert_array_equal(b.control[i], data.control[row, :, shift : shift + 12])


def test_flipped_batch_is_the_reverse_complement():
    data = loci()
    forward = gathered(data, [2], [1], [0])
    flipped = gathered(data, [2], [1], [1])
    # A <-> T and C <-> G reverse the base axis; an N stays a column of zeros.
    assert torch.equal(flipped.X, forward.X.flip(1, 2))
    assert torch.equal(flipped.signal, forward.signal[:, [0, 2, 1]].flip(2))
    assert torch.equal(flipped.control, forward.control[:, [1, 0]].flip(2))


def test_centred_is_the_middle_of_the_stored_window():
    data = loci()
    b = Tables(data, torch.device("cpu")).centred(torch.arange(6))
    np.testing.assert_array_equal(b.signal, data.signal[:, :, 3:11])


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_example_does_not_depend_on_the_batch_it_is_in(epoch):
    data = loci()
    p = plan_epoch(0, epoch, data.label, 0.0, 3, True)
    together = gathered(data, p.locus, p.shift, p.flip)
    for i in range(len(p)):
        alone = gathered(data, p.locus[i : i + 1], p.shift[i : i + 1], p.flip[i : i + 1])
        assert torch.equal(alone.X[0], together.X[i])
        assert torch.equal(alone.signal[0], together.signal[i])
