"""The quality control of a bias model, by models that know the simulated enzyme, or nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cherimoya.config.data import SyntheticConfig
from cherimoya.data.dataset import Dataset
from cherimoya.data.feed import Resident
from cherimoya.data.loci import Loci
from cherimoya.data.motif_grammar import ENZYME, preference
from cherimoya.data.synthetic import simulate
from cherimoya.genome.cut_sites import FIRST, LENGTH, known_frequencies
from cherimoya.genome.sequence import as_codes, encode
from cherimoya.interpret.bias_quality import bias_quality, enzyme_of
from cherimoya.interpret.enzyme_motif import seen_around
from cherimoya.interpret.footprints import MOTIFS, footprints, limits
from cherimoya.interpret.motifs import insert
from cherimoya.network import Cherimoya

MOTIF = MOTIFS["simulated"][0]
Counts = Callable[[np.ndarray], np.ndarray]


class Planted(Cherimoya):
    """Its profile is the preference of the simulated enzyme to a power, 0 for a flat one."""

    def __init__(self, power: float, counts: Counts | None = None, **other) -> None:
        super().__init__(8, 1, signal_groups=[2], trimming=50, **other)
        self.power, self.counts = power, counts

    def _own(self, X, X_ctl):
        codes = as_codes(X).numpy()
        logits = self.power * np.log(preference(codes)[:, :, 50:-50])
        said = np.full(len(codes), 4.0) if self.counts is None else self.counts(codes)
        return torch.from_numpy(logits).float(), torch.from_numpy(said).float()[:, None]


def corrected(own: float, its: float, counts: Counts | None = None) -> Planted:
    return Planted(own, bias_model=Planted(its, counts))


@pytest.fixture(scope="module")
def data() -> Dataset:
    config = SyntheticConfig(1, 3, n_peaks=60, n_background=90, mean_count=200.0, bias=True)
    loci = simulate(config, in_window=200, out_window=100, max_jitter=8)
    rows = {
        split: np.flatnonzero(loci.chrom == chrom)
        for split, chrom in {"train": "sim1", "validation": "sim2", "test": "sim3"}.items()
    }
    return Dataset(loci, rows, "simulated", "f00d")  # type: ignore[arg-type]


def quality(model: Cherimoya, data: Dataset, **options) -> dict:
    return bias_quality(model, data, Resident(data.loci, torch.device("cpu")), **options)


def checks(values: dict) -> dict[str, bool]:
    return {check["name"]: check["good"] for check in values["checks"]}


def test_what_the_bias_model_explains_leaves_no_residual():
    rng = np.random.default_rng(0)
    backgrounds = rng.integers(0, 4, (20, 200), dtype=np.uint8)
    planted, plain = footprints(corrected(0, 1), backgrounds, [MOTIF, ""])
    codes = insert(backgrounds, np.broadcast_to(encode(MOTIF), (20, 8)))
    known = preference(codes)[:, :, 50:-50]
    truth = (known / known.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    for kind in ("with_bias", "bias_model"):
        np.testing.assert_allclose(planted.profiles[kind], truth, rtol=1e-4)
        assert planted.largest(kind) == pytest.approx([truth.max()], rel=1e-4)
    np.testing.assert_allclose(planted.profiles["corrected"], 1 / 200, rtol=1e-5)
    assert planted.largest("with_bias")[0] > 2 * plain.largest("with_bias")[0]
    assert limits([2], 100) == [3 / 200]
    assert limits([1, 2], 1000) == [0.003, 0.0015]  # the first as ChromBPNet has it


def test_without_correction_the_planted_effect_stays():
    backgrounds = np.random.default_rng(0).integers(0, 4, (20, 200), dtype=np.uint8)
    model = corrected(1, 0)
    (own,) = footprints(model, backgrounds, [MOTIF])
    (other,) = footprints(corrected(0, 1), backgrounds, [MOTIF])
    np.testing.assert_allclose(own.profiles["corrected"], other.profiles["with_bias"], rtol=1e-4)
    assert own.largest("corrected")[0] > limits([2], 100)[0]
    assert model.with_bias


def test_profiles_are_those_of_chrombpnet_for_any_network():
    torch.manual_seed(0)
    bias = Cherimoya(8, 1, trimming=20, signal_groups=[2, 1])
    model = Cherimoya(8, 2, trimming=30, signal_groups=[2, 1], bias_model=bias)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    rng = np.random.default_rng(1)
    backgrounds = rng.integers(0, 4, (3, 120), dtype=np.uint8)
    (found,) = footprints(model, backgrounds, ["ACGT"], batch_size=2)
    codes = torch.from_numpy(insert(backgrounds, np.broadcast_to(encode("ACGT"), (3, 4)))).long()
    X = torch.nn.functional.one_hot(codes, 4).permute(0, 2, 1).float()
    (logits, counts), (back, back_counts) = model.eval()(X), model(X.flip(1, 2))
    for tracks, g in ((slice(0, 2), 0), (slice(2, 3), 1)):
        p = logits[:, tracks].flatten(1).softmax(1).view(3, -1, 60)
        q = back[:, tracks].flatten(1).softmax(1).view(3, -1, 60).flip(1, 2)
        total = (
            p * counts[:, g].expm1()[:, None, None] + q * back_counts[:, g].expm1()[:, None, None]
        )
        mean = (total / total.sum((1, 2), keepdim=True)).mean(0).detach()
        np.testing.assert_allclose(found.profiles["with_bias"][tracks], mean, rtol=1e-3)
        assert found.largest("with_bias")[g] == pytest.approx(mean.max().item(), rel=1e-3)


def test_a_bias_model_that_knows_the_enzyme_is_green(data):
    values = quality(corrected(0, 1), data)
    assert values["enzyme"] == "simulated"
    assert checks(values) == dict.fromkeys(("footprints", "profiles", "counts", "motif"), True)
    residual = values["residuals"]["simulated"]
    assert residual["corrected"] == pytest.approx([1 / 200])
    assert residual["with_bias"][0] > values["limits"][0] == 3 / 200
    assert values["scores"]["background"][0]["profile_pearson"] > 0.3
    assert values["motifs"][0]["correlation"] > 0.95
    assert [one["motif"] for one in values["footprints"]] == [MOTIF, ""]


def test_one_that_knows_nothing_is_red_and_says_what_to_do(data):
    values = quality(corrected(1, 0), data)
    good = {"footprints": False, "profiles": False, "counts": True, "motif": False}
    assert checks(values) == good
    why = {check["name"]: check["why"] for check in values["checks"]}
    residual = values["residuals"]["simulated"]["corrected"][0]
    assert f"reaches {residual:.2g} when corrected" in why["footprints"]
    assert "the limit is 0.015" in why["footprints"]
    assert "more background (background_ratio of cherimoya-prepare, or data." in why["profiles"]
    assert "no motif of the simulated enzyme" in why["motif"]
    assert "shift=auto" in why["motif"]
    values = quality(corrected(1, 0), data, next_best="run/bias/other")
    assert "take the next one by the rule, model.bias=run/bias/other" in values["checks"][0]["why"]


@pytest.mark.parametrize(
    ("sign", "said"),
    [(1, "above 0.3: it has learned what opens"), (-1, "below -0.3: it takes AT content")],
)
def test_counts_that_follow_peaks_are_red(data, sign, said):
    loci, j = data.loci, data.loci.max_jitter
    windows = loci.sequence[:, j : j + 200]
    totals = {own.tobytes(): t for own, (t,) in zip(windows, loci.totals(), strict=True)}

    def counts(codes):
        known = [totals.get(own.astype(np.uint8).tobytes(), 10.0) for own in codes]
        return sign * np.log1p(known)

    values = quality(corrected(0, 1, counts), data)
    assert not checks(values)["counts"]
    assert said in next(c["why"] for c in values["checks"] if c["name"] == "counts")
    assert values["scores"]["peaks"][0]["count_pearson"] == pytest.approx(sign, abs=1e-4)


@pytest.mark.parametrize("enzyme", ["Tn5", "DNase I"])
@pytest.mark.parametrize("strands", [1, 2])
def test_the_motif_of_an_enzyme_is_seen_where_it_cuts(enzyme, strands):
    codes = np.random.default_rng(0).integers(0, 4, (60, 500), dtype=np.uint8)
    both = []
    for known in known_frequencies(enzyme):
        ratios = np.log(known)
        around = np.lib.stride_tricks.sliding_window_view(codes, LENGTH, axis=1)
        logits = ratios[np.arange(LENGTH), around].sum(axis=2)  # of cuts at -FIRST and after
        both.append(np.exp(logits[:, 100 + FIRST : 400 + FIRST]))
    profile = np.stack(both, axis=1)
    if strands == 1:
        profile = profile.sum(axis=1, keepdims=True)
    seen = seen_around(profile, codes)
    assert (seen.enzyme, seen.shift, seen.is_like) == (enzyme, (0, 0), True)
    moved = seen_around(np.roll(profile, 6, axis=2), codes)
    assert not moved.is_like
    flat = seen_around(np.ones_like(profile), codes)
    assert not flat.is_like


def test_the_enzyme_is_that_of_the_file(data):
    def of(**made) -> str | None:
        return enzyme_of(Loci(**{**vars(data.loci), "provenance": made}))

    assert enzyme_of(data.loci) == "simulated"
    assert of(cut_sites=[{"enzyme": "Tn5"}, {"enzyme": "Tn5"}]) == "Tn5"
    assert of(cut_sites=[{"enzyme": "Tn5"}, {"enzyme": "DNase I"}]) is None
    assert of() is None
    assert len(ENZYME) == len(MOTIF) == 8


def test_of_an_unknown_enzyme_all_known_motifs_are_tried(data):
    unknown = Dataset(
        Loci(**{**vars(data.loci), "provenance": {}}), data.rows, data.path, data.fingerprint
    )
    values = quality(corrected(0, 0), unknown)
    assert values["enzyme"] is None
    assert list(values["residuals"]) == ["Tn5", "DNase I"]
    assert len(values["footprints"]) == 5 + 1 + 1
    assert checks(values)["footprints"]
    assert not checks(values)["motif"]


def test_each_signal_group_is_judged_and_the_worst_is_named(data):
    """Two unstranded groups, of which the model corrects the first alone."""

    class Two(Planted):
        def _own(self, X, X_ctl):
            logits, counts = super()._own(X, X_ctl)
            logits[:, 1 - self.which] = 0
            return logits, counts.expand(-1, 2)

        def __init__(self, which: int, **other) -> None:
            super().__init__(1, **other)
            self.which, self.signal_groups = which, [1, 1]

    bias = Two(0)
    model = Two(1, bias_model=None)
    model.bias_model = bias
    loci = replace(data.loci, signal_groups=[1, 1], group_names=["A", "B"])
    values = quality(model, replace(data, loci=loci))
    assert values["limits"] == [0.03, 0.03]
    residual = values["residuals"]["simulated"]["corrected"]
    assert residual[0] == pytest.approx(0.01)
    assert residual[1] > 0.03
    why = {check["name"]: check["why"] for check in values["checks"]}
    assert "in signal group B, the worst of 2 groups" in why["footprints"]
    assert "in signal group B" in why["profiles"]
    assert len(values["footprints"][0]["profiles"]["corrected"]) == 2
    assert not checks(values)["footprints"]
