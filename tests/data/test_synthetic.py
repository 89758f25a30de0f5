"""The simulated experiment: its truth is in its sequence, and its counts follow its truth."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from cherimoya import metrics
from cherimoya.cli.train import conf_dir
from cherimoya.config.data import SyntheticConfig
from cherimoya.data import cache, hdf5, motif_grammar, synthetic
from cherimoya.data.loci import Loci
from cherimoya.errors import ConfigError, DiskError
from cherimoya.genome.sequence import reverse_complement
from cherimoya.util import files
from cherimoya.util.files import lock_output
from cherimoya.util.marks import mark_of, write_mark

WINDOWS = (320, 160, 16)  # in, out, jitter: those of conf/data/synthetic.yaml
SMALL = SyntheticConfig(seed=3, n_chromosomes=3, n_peaks=30, n_background=12, mean_count=150.0)
SMALL_WINDOWS = (300, 160, 10)


@pytest.fixture(scope="module")
def loci() -> Loci:
    """The default data set, but for a seed of its own."""
    config = SyntheticConfig(
        seed=7, n_chromosomes=10, n_peaks=1200, n_background=300, mean_count=150.0
    )
    return synthetic.simulate(config, *WINDOWS)


def inside(values: np.ndarray) -> np.ndarray:
    """The output window of (n, 2, out_window + 2 jitter), as float64."""
    return values[:, :, 16:-16].astype(np.float64)


def test_a_seed_stands_for_its_data():
    one, same = (synthetic.simulate(SMALL, *SMALL_WINDOWS) for _ in range(2))
    for name, values in one.arrays().items():
        assert np.array_equal(values, same.arrays()[name]), name
    config = SyntheticConfig(seed=4, n_chromosomes=3, n_peaks=30, n_background=12, mean_count=150.0)
    other = synthetic.simulate(config, *SMALL_WINDOWS)
    assert (one.sequence != other.sequence).mean() > 0.5


def test_the_windows_of_these_tests_are_the_defaults():
    text = (conf_dir() / "data" / "synthetic.yaml").read_text()
    for key, value in zip(("in_window", "out_window", "max_jitter"), WINDOWS, strict=True):
        assert f"\n  {key}: {value} " in text


def test_loci_lie_apart_on_every_chromosome(loci):
    names = [f"sim{i + 1}" for i in range(10)]
    assert list(dict.fromkeys(loci.chrom.tolist())) == names
    for name in names:
        here = loci.chrom == name
        assert loci.label[here].sum() == 120
        assert (~loci.label[here].astype(bool)).sum() == 30
        assert (loci.start[here][1:] - loci.end[here][:-1]).min() > 0
    assert loci.sequence.max() == 3
    gc = np.isin(loci.sequence, (1, 2)).mean(1)
    assert np.ptp([gc[loci.chrom == name].mean() for name in names]) > 0.05


def test_stated_motifs_are_in_the_sequence(loci):
    truth = loci.truth
    row, slot = np.nonzero(truth["motif"] >= 0)
    assert len(row) > 2000
    for r, s in zip(row, slot, strict=True):
        motif = motif_grammar.MOTIFS[truth["motif"][r, s]]
        first = truth["motif_start"][r, s] - loci.start[r]
        codes = loci.sequence[r, first : first + len(motif.consensus)]
        if truth["motif_strand"][r, s] == 0:
            codes = 3 - codes[::-1]
        found = "".join("ACGT"[code] for code in codes)
        conserved = [base.isupper() for base in motif.consensus]
        wrong = [a != b for a, b in zip(found, motif.consensus.upper(), strict=True)]
        assert not any(w and c for w, c in zip(wrong, conserved, strict=True))
        strength = (0.1 / 0.7) ** (sum(wrong) / 6)
        assert truth["motif_strength"][r, s] == pytest.approx(strength, rel=1e-5)


def test_peaks_have_a_core_promoter_and_background_no_motif(loci):
    peak = loci.label == 1
    assert (loci.truth["motif"][peak] == motif_grammar.CORE).any(1).all()
    assert (loci.truth["motif"][~peak] == -1).all()
    for kind in range(len(motif_grammar.MOTIFS)):
        chosen = loci.truth["motif"] == kind
        assert 0.4 < loci.truth["motif_strand"][chosen].mean() < 0.6
        assert chosen.any(1)[peak].mean() > 0.3


def test_the_reverse_complement_has_the_mirrored_signal(loci):
    codes = loci.sequence[:100].copy()
    codes[:, 150] = 4  # an N breaks a motif on both strands
    forward = motif_grammar.expected_signal(codes, 150.0)
    reverse = motif_grammar.expected_signal(reverse_complement(codes), 150.0)
    np.testing.assert_allclose(reverse[:, ::-1, ::-1], forward, rtol=1e-9)


def test_expected_counts_are_a_function_of_the_sequence(loci):
    signal = motif_grammar.expected_signal(loci.sequence, 150.0)[:, :, 80:-80]
    assert np.array_equal(signal.astype(np.float32), loci.truth["expected"])
    totals = inside(loci.truth["expected"]).sum((1, 2))
    np.testing.assert_allclose(loci.truth["log_count"][:, 0], np.log1p(totals), rtol=1e-6)


def test_observed_counts_follow_the_truth(loci):
    expected, observed = inside(loci.truth["expected"]), inside(loci.signal)
    assert observed.sum() == pytest.approx(expected.sum(), rel=0.01)
    totals, seen = expected.sum((1, 2)), observed.sum((1, 2))
    variance = totals + (np.exp(synthetic.NOISE**2) - 1) * totals**2  # Poisson, log-normal factor
    assert ((seen - totals) ** 2 / variance).mean() == pytest.approx(1, abs=0.15)
    bases = expected > 1
    assert ((observed - expected)[bases] ** 2 / expected[bases]).mean() == pytest.approx(
        1.05, abs=0.1
    )
    assert totals[loci.label == 1].mean() == pytest.approx(150, rel=0.1)


def test_the_ceilings_leave_something_to_learn(loci):
    peak = loci.label == 1
    p, counts = (torch.from_numpy(inside(v)[peak]) for v in (loci.truth["expected"], loci.signal))
    assert 0.8 < metrics.profile_pearson(p, counts, [2]).mean() < 0.95
    average = counts.mean(0, keepdim=True).expand_as(counts)
    assert metrics.profile_pearson(average, counts, [2]).mean() < 0.2
    predicted, seen = torch.from_numpy(loci.truth["log_count"][peak, 0]), counts.sum((1, 2)).log1p()
    assert 0.95 < metrics.pearson(predicted, seen) < 0.99


def amounts_of(*placed: tuple[int, int, int]) -> np.ndarray:
    """Amounts of consensus motifs at (motif, centre, strand) in one locus."""
    motif, centre, strand = np.array(sorted(placed, key=lambda p: p[1])).T
    widths = np.array([len(m.consensus) for m in motif_grammar.MOTIFS])[motif]
    first = centre - widths // 2
    return motif_grammar.amounts(
        motif_grammar.Instances(np.zeros_like(motif), motif, first, strand, np.ones(len(motif)))
    )


def test_the_grammar_says_what_its_motifs_do():
    core = (motif_grammar.CORE, 300, 1)
    enhancer, repressor = (motif_grammar.ENHANCER, 210, 1), (motif_grammar.REPRESSOR, 380, 1)
    assert amounts_of(core)[0] == pytest.approx(1)
    for strand in (1, -1):  # the activator's own strand does not matter, its side does
        spaced = amounts_of((motif_grammar.ACTIVATOR, 250, strand), core)[1]
        assert spaced == pytest.approx(np.exp(0.9), rel=1e-4)
    assert 1.3 < amounts_of(core, (motif_grammar.ACTIVATOR, 350, 1))[0] < 1.6
    assert amounts_of((motif_grammar.ACTIVATOR, 100, 1), core)[1] == pytest.approx(1)
    assert amounts_of(enhancer, core)[1] == pytest.approx(np.exp(0.9), rel=0.01)
    assert amounts_of(core, repressor)[0] == pytest.approx(np.exp(-1.4), rel=0.01)
    both = amounts_of(enhancer, (motif_grammar.ACTIVATOR, 250, 1), core)[2]
    assert both == pytest.approx(np.exp(0.9 + 0.9 + 0.5), rel=0.01)
    mirrored = amounts_of((motif_grammar.CORE, 300, -1), (motif_grammar.ACTIVATOR, 350, 1))[0]
    assert mirrored == pytest.approx(np.exp(0.9), rel=1e-4)


def test_too_short_windows_are_refused():
    with pytest.raises(ConfigError, match=r"data\.in_window=64: simulated promoters need 128"):
        synthetic.simulate(SMALL, 64, 32, 0)


def test_short_windows_still_hold_their_motifs():
    loci = synthetic.simulate(SMALL, 128, 64, 0)
    assert (loci.truth["motif"][loci.label == 1] == motif_grammar.CORE).any(1).all()


def test_the_cache_is_made_once_and_keyed_on_everything(tmp_path):
    path = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path)
    made = path.stat().st_mtime_ns
    assert synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path) == path
    assert path.stat().st_mtime_ns == made
    assert synthetic.cached(SMALL, 300, 160, 8, tmp_path) != path
    stored, fresh = hdf5.read(path), synthetic.simulate(SMALL, *SMALL_WINDOWS)
    for name, values in fresh.arrays().items():
        assert np.array_equal(stored.arrays()[name], values), name
    assert stored.provenance["seed"] == 3
    assert [m["name"] for m in stored.provenance["motifs"]] == [
        m.name for m in motif_grammar.MOTIFS
    ]


def test_a_file_cut_short_is_made_again(tmp_path):
    path = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path).read_bytes() == whole


def test_a_file_with_a_changed_bit_is_made_again(tmp_path):
    path = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path)
    whole, said = path.read_bytes(), []
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.write_bytes(changed)
    again = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path, said.append)
    assert again.read_bytes() == whole
    assert len(said) == 1
    assert said[0].endswith("h5 cut short or changed since it was written, so it is made again")


def test_the_cache_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert synthetic.cached(SMALL, *SMALL_WINDOWS).parent == tmp_path / "cherimoya"


def test_an_unwritable_cache_falls_back_to_a_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    said: list[str] = []
    path = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path / "file" / "cache", said.append)
    assert len(hdf5.read(path)) == 42
    assert len(said) == 1
    assert str(tmp_path / "file" / "cache") in said[0]
    assert said[0].endswith(str(path.parent))
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("whose", ["anybody's", "another's", "a link", "a file"])
def test_a_temporary_folder_that_others_may_write_is_not_used(whose, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"cherimoya-{os.getuid()}"
    if whose == "a link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to("elsewhere")
    elif whose == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777 if whose == "anybody's" else 0o755)
        if whose == "another's":
            uid = folder.stat().st_uid + 1
            monkeypatch.setattr(files.os, "getuid", lambda: uid)
            folder.rename(tmp_path / f"cherimoya-{uid}")
    with pytest.raises(DiskError, match=r"cherimoya-\d+ is not a folder that you alone may write"):
        synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path / "file" / "cache")
    assert not list(tmp_path.glob("*/*.h5"))


def test_a_cache_that_another_process_writes_is_waited_for(tmp_path):
    path = synthetic.cached(SMALL, *SMALL_WINDOWS, tmp_path)
    whole = path.read_bytes()
    mark_of(path).unlink()
    with ThreadPoolExecutor(1) as pool:
        with lock_output(path):
            path.write_bytes(b"half")
            second = pool.submit(synthetic.cached, SMALL, *SMALL_WINDOWS, tmp_path)
            with pytest.raises(TimeoutError):  # without the lock, both write, and one may fail
                second.result(timeout=2)
            path.write_bytes(whole)
            write_mark(mark_of(path), {}, [path])
            written = path.stat().st_mtime_ns
        assert second.result(timeout=60) == path
    assert path.stat().st_mtime_ns == written


def test_two_processes_may_make_the_cache_at_once(tmp_path):
    code = (
        "import sys; from cherimoya.config.data import SyntheticConfig\n"
        "from cherimoya.data.synthetic import cached\n"
        "config = SyntheticConfig(3, 3, 30, 12, 150.0)\n"
        "print(cached(config, 300, 160, 10, sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {maker.communicate(timeout=60)[0].strip() for maker in makers}
    assert len(paths) == 1
    assert len(hdf5.read(Path(paths.pop()))) == 42
    assert len(list(tmp_path.iterdir())) == 2  # the file and its mark: nothing temporary is left


@pytest.fixture(scope="module")
def biased() -> Loci:
    config = SyntheticConfig(
        seed=7, n_chromosomes=4, n_peaks=200, n_background=800, mean_count=150.0, bias=True
    )
    return synthetic.simulate(config, *WINDOWS)


def test_an_enzyme_cuts_as_it_prefers_on_both_strands(biased):
    codes = biased.sequence
    liked = motif_grammar.preference(codes)
    assert liked.mean() == pytest.approx(1, abs=0.01)
    assert np.log(liked).std() > 0.8
    turned = motif_grammar.preference(reverse_complement(codes))
    assert np.array_equal(turned, liked[:, ::-1, ::-1])
    margin = (codes.shape[1] - biased.signal.shape[2]) // 2
    liked = liked[:, :, margin:-margin]
    expected, unbiased = (biased.truth[name] for name in ("expected", "unbiased"))
    assert np.allclose(expected, unbiased * liked, rtol=1e-5)
    # what is observed in background follows the preference, four times and a quarter as often
    background = biased.label == 0
    often = biased.signal[background][liked[background] > 4].mean()
    seldom = biased.signal[background][liked[background] < 0.25].mean()
    assert often > 16 * seldom


def test_without_a_bias_the_data_are_what_they_were():
    parameters = synthetic._parameters(SMALL, *SMALL_WINDOWS)
    assert "bias" not in parameters
    assert "unbiased" not in synthetic.simulate(SMALL, *SMALL_WINDOWS).truth
