"""Examples reach the device in the same order, resident or streamed, shared or in pieces."""

import numpy as np
import pytest
import torch
from loci_files import loci

from cherimoya.data import feed as feeds
from cherimoya.data.batches import plan_epoch
from cherimoya.data.feed import Feed, Resident, Streamed, place

CPU = torch.device("cpu")
BATCH, STEPS = 4, 7


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(feeds, "CHUNK_EXAMPLES", 2 * BATCH)


def batches(source, epochs=(0, 1), first=0, parts=1, rank=0, world=1):
    """Every piece of every batch: X, signal and control, as one list."""
    data = loci(40)
    feed, found = Feed(source, BATCH, STEPS, parts, rank, world), []
    for epoch in epochs:
        plan = plan_epoch(3, epoch, data.label, 0.0, data.max_jitter, True)
        start = first if epoch == epochs[0] else 0
        feed.begin_epoch(plan, plan.locus, start)
        for batch in range(start, STEPS):
            source.prepare(batch)
            step = torch.tensor([epoch * STEPS + batch])
            found += [(b.X, b.signal, b.control) for b in feed.batch(step)]
    source.close()
    return found


def assert_equal(a, b):
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_streamed_batches_are_the_resident_ones():
    expected = batches(Resident(loci(40), CPU))
    assert len(expected) == 2 * STEPS
    assert_equal(batches(Streamed(loci(40), CPU)), expected)


@pytest.mark.parametrize("source", [Resident, Streamed])
@pytest.mark.parametrize("first", [1, 4, 5])
def test_an_epoch_goes_on_from_any_batch(source, first):
    expected = batches(Resident(loci(40), CPU))[first:]
    assert_equal(batches(source(loci(40), CPU), first=first), expected)


@pytest.mark.parametrize("source", [Resident, Streamed])
def test_processes_and_pieces_split_each_batch(source):
    whole = batches(Resident(loci(40), CPU), epochs=(0,))
    shares = [
        batches(source(loci(40), CPU), (0,), parts=2, rank=rank, world=2) for rank in range(2)
    ]
    for step, expected in enumerate(whole):
        pieces = [share[2 * step + i] for share in shares for i in range(2)]
        joined = [torch.cat(values) for values in zip(*pieces, strict=True)]
        assert_equal([joined], [expected])


def test_centred_windows_do_not_need_the_ring():
    resident, streamed = Resident(loci(40), CPU), Streamed(loci(40), CPU)
    rows = np.array([5, 31, 2])
    a, b = resident.centred(rows), streamed.centred(rows)
    assert_equal([(a.X, a.signal, a.control)], [(b.X, b.signal, b.control)])


def test_an_error_of_the_reader_reaches_the_loop(monkeypatch):
    def broken(*_, **__):
        raise OSError("the disk is gone")

    monkeypatch.setattr(np, "take", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        batches(Streamed(loci(40), CPU))


def test_where_the_loci_are_is_said():
    source, words = place(loci(40), CPU, "auto")
    assert isinstance(source, Resident)
    assert words.startswith("held on the device")
    source, words = place(loci(40), CPU, "stream")
    assert isinstance(source, Streamed)
    assert words.startswith("streamed to the device")
