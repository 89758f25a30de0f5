"""method=dependency: which base's effect depends on which, beside every pair of changes by hand."""

from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from interpreted import configured, save_model

from cherimoya import Cherimoya
from cherimoya.config.interpret import AttributeConfig
from cherimoya.errors import ConfigError
from cherimoya.genome.sequence import one_hot
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.dependency import dependency_maps
from cherimoya.interpret.mutagenesis import Mutagenesis, centred
from cherimoya.interpret.target import Target
from cherimoya.records.attributions import read_attributions

WINDOW = 6


def counts(model: Cherimoya, codes: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(one_hot(torch.from_numpy(codes)))[1][:, 0].double().numpy()


def by_hand(model: Cherimoya, codes: np.ndarray, first: int) -> np.ndarray:
    """The largest |f(i, j) - f(i) - f(j) + f| over changes at both, one pair after the other."""
    found = np.zeros((WINDOW, WINDOW))
    f = counts(model, codes[None])[0]

    def changed(*changes: tuple[int, int]) -> float:
        other = codes.copy()
        for at, base in changes:
            other[first + at] = base
        return counts(model, other[None])[0]

    single = {(i, a): changed((i, a)) for i, a in product(range(WINDOW), range(4))}
    for i, j in product(range(WINDOW), range(WINDOW)):
        for a, b in product(range(4), range(4)):
            if i != j and a != codes[first + i] and b != codes[first + j]:
                both = changed((i, a), (j, b)) - single[i, a] - single[j, b] + f
                found[i, j] = max(found[i, j], abs(both))
    return found


def test_every_pair_of_changes(tmp_path: Path):
    model = Cherimoya.load(save_model(tmp_path / "a.pt"))
    codes = np.random.default_rng(0).integers(0, 4, (2, 160)).astype(np.uint8)
    engine = Mutagenesis(model, [Target("counts")], 16, "fp32")
    at = range(77, 77 + WINDOW)
    found = dependency_maps(engine, torch.from_numpy(codes), at, None)
    assert found.shape == (1, 2, 4 + WINDOW, WINDOW)
    single = engine(torch.from_numpy(codes), at, None).numpy()
    np.testing.assert_array_equal(found[:, :, :4], centred(single))
    for row in range(2):
        expected = by_hand(model, codes[row], 77)
        assert expected.max() > 1e-4
        np.testing.assert_allclose(found[0, row, 4:], expected, atol=2e-6)
        np.testing.assert_allclose(expected, expected.T, atol=1e-12)  # each pair has one number


def test_a_model_without_interactions_has_none(tmp_path: Path):
    """Counts that are a sum over positions: every pair is 0, to rounding."""

    class Additive(torch.nn.Module):
        signal_groups = (1,)

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 40))

        def forward(self, X, X_ctl=None):
            return X[:, :1, :10], (X * self.weight).sum(dim=(1, 2))[:, None]

    engine = Mutagenesis(Additive(), [Target("counts")], 16, "fp32")
    codes = torch.randint(0, 4, (1, 40), dtype=torch.uint8)
    found = dependency_maps(engine, codes, range(10, 20), None)
    assert np.abs(found[0, 0, :4]).max() > 0.1
    assert found[0, 0, 4:].max() < 1e-5


@pytest.fixture
def asked(small_data: Path, tmp_path: Path):
    def make(**values) -> AttributeConfig:
        given = {
            "checkpoint": [str(save_model(tmp_path / "m.pt", signal_groups=[2]))],
            "data__path": str(small_data), "data__in_window": 160, "window": WINDOW,
            "max_loci": 2, "output": str(tmp_path / "a.h5"), "method": "dependency",
        }  # fmt: skip
        return configured("attribute", AttributeConfig, **(given | values))

    return make


def test_the_command_averages_both_strands_and_draws_maps(asked, tmp_path: Path, capsys):
    attribute(asked(reverse_complement=True, logos=1))
    found = read_attributions(tmp_path / "a.h5")
    maps = found.dependency["counts_0"]
    assert maps.shape == (2, WINDOW, WINDOW)
    assert (tmp_path / "a.counts_0.dependency.png").is_file()
    assert "which base's effect depends on which" in capsys.readouterr().out
    both = {"reverse_complement": True, "logos": 0}
    attribute(asked(method="mutagenesis", **both, output=str(tmp_path / "b.h5")))
    plain = read_attributions(tmp_path / "b.h5")
    np.testing.assert_allclose(
        found.hypothetical["counts_0"], plain.hypothetical["counts_0"], atol=1e-6
    )
    attribute(asked(reverse_complement=False, logos=0, output=str(tmp_path / "c.h5")))
    one = read_attributions(tmp_path / "c.h5").dependency["counts_0"]
    model = Cherimoya.load(tmp_path / "m.pt")
    with h5py.File(asked().data.path) as file:
        stored, chrom, starts = (file[name][:] for name in ("sequence", "chrom", "start"))
    first = stored.shape[1] // 2 - 80
    here = (chrom == found.chrom[0].encode()) & (starts == found.start[0] - 77 - first)
    window = stored[here][0, first : first + 160]
    np.testing.assert_allclose(one[0], by_hand(model, window, 77), atol=2e-6)
    turned = by_hand(model, 3 - window[::-1], 77)[::-1, ::-1]
    np.testing.assert_allclose(maps[0], (by_hand(model, window, 77) + turned) / 2, atol=2e-6)


def test_a_contrast_of_several_models_has_maps_and_intervals(asked, tmp_path: Path):
    paths = [save_model(tmp_path / f"{s}.pt", seed=s, signal_groups=[1, 1]) for s in (0, 1)]
    attribute(asked(checkpoint=[str(p) for p in paths], target="counts:1-0", logos=0))
    found = read_attributions(tmp_path / "a.h5")
    assert found.dependency["counts_1-0"].shape == (2, WINDOW, WINDOW)
    low, high = found.intervals["counts_1-0"].swapaxes(0, 1)
    own = found.contributions["counts_1-0"]
    assert ((low <= own + 1e-6) & (own <= high + 1e-6)).all()


def test_a_picture_of_the_users_own_stays(asked, tmp_path: Path):
    (tmp_path / "a.counts_0.dependency.png").write_text("mine")
    with pytest.raises(Exception, match=r"a\.counts_0\.dependency\.png: exists already"):
        attribute(asked(logos=1))
    with pytest.raises(ConfigError, match="method=pairs"):
        asked(method="pairs")
