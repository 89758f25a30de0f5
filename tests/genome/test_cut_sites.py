"""The motifs of enzymes that are shipped, and how clearly they are seen."""

import numpy as np
import pytest

from cherimoya.genome.cut_sites import FIRST, LENGTH, TABLE, Surroundings, known_frequencies, match


@pytest.mark.parametrize("enzyme", ["Tn5", "DNase I"])
def test_the_table(enzyme: str) -> None:
    both = known_frequencies(enzyme)
    assert both.shape == (2, LENGTH, 4)
    np.testing.assert_allclose(both.sum(axis=2), 1, atol=2e-4)
    plus, minus = np.log(both / both.mean(axis=1, keepdims=True))
    turned = minus[::-1, ::-1]  # as the other strand has it
    if enzyme == "Tn5":  # its middle is a base: position 0 faces position 0
        turned, plus = turned[:-1], plus[1:]
    assert np.corrcoef(plus.ravel(), turned.ravel())[0, 1] > 0.95
    if enzyme == "Tn5":  # the same from both sides, unlike DNase I's
        assert np.corrcoef(*(one.ravel() for one in np.log(both)))[0, 1] > 0.9


def test_the_table_says_where_its_numbers_are_from() -> None:
    head = TABLE.read_text().partition("motif\t")[0]
    assert "kundajelab/chrombpnet" in head.replace("\n# ", "")
    assert "doi:10.1101/2024.12.25.630221" in head


def test_bases_are_counted_where_they_lie() -> None:
    codes = np.random.default_rng(0).integers(0, 4, 300).astype(np.uint8)
    around = Surroundings(2)
    around.add(
        0, codes, np.array([100, 20, 150]), np.array([1.0, 1.0, 2.0])
    )  # 20: too near the end
    around.add(1, codes, np.array([200]), np.array([1.0]))
    middle = around.counts.shape[1] // 2
    for offset in (-30, -1, 0, 7):
        wanted = np.zeros(4)
        wanted[codes[100 + offset]] += 1
        wanted[codes[150 + offset]] += 2
        np.testing.assert_array_equal(around.counts[0, middle + offset], wanted)
    assert around.cuts == 1  # of the strand with fewer


def test_cuts_that_count_for_little_are_few() -> None:
    codes, around = np.zeros(500, np.uint8), Surroundings(1)
    around.add(0, codes, np.arange(100, 200), np.full(100, 0.01))
    assert around.cuts == 100
    around.add(0, codes, np.array([250]), np.array([1e6]))  # one base with nearly all
    assert around.cuts == 1


@pytest.mark.parametrize("strands", [1, 2])
def test_chance_is_not_taken_for_a_motif(strands: int) -> None:
    rng, highest = np.random.default_rng(1), 0.0
    for _ in range(60):
        shares = rng.dirichlet(np.full(4, 5))
        codes, around = rng.choice(4, 40_000, p=shares).astype(np.uint8), Surroundings(strands)
        for strand in range(strands):
            at = rng.integers(100, 39_900, 500)
            around.add(strand, codes, at, np.ones(len(at)))
        seen = match(around)
        assert not seen.is_clear
        highest = max(highest, seen.score(seen.shift))
    assert highest < 0.5


def test_nothing_is_like_nothing() -> None:
    seen = match(Surroundings(2))
    assert not seen.is_clear
    assert seen.score((0, 0)) == 0


@pytest.mark.parametrize("shift", [(0, 0), (4, -4), (-9, 2), (12, -12)])
def test_a_motif_is_found_where_it_lies(shift: tuple[int, int]) -> None:
    around = Surroundings(2)
    middle = around.counts.shape[1] // 2
    for strand, frequencies in enumerate(known_frequencies("DNase I")):
        around.counts[strand] += 10_000 * frequencies.mean(axis=0)
        first = middle + FIRST + shift[strand]
        around.counts[strand, first : first + LENGTH] = 10_000 * frequencies
    seen = match(around)
    assert seen.is_clear
    assert (seen.enzyme, seen.shift) == ("DNase I", shift)
    assert seen.score(shift) > 0.9
    assert seen.score((40, 40)) < 0.9  # out of reach
