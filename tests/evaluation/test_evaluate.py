"""cherimoya-evaluate: the numbers of training, their intervals, and what stands beside them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from command_lines import command
from configs import composed

from cherimoya import Cherimoya
from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data import hdf5
from cherimoya.data.loci import crop
from cherimoya.errors import CherimoyaError
from cherimoya.evaluation import evaluate
from cherimoya.evaluation.bootstrap import intervals
from cherimoya.evaluation.scores import Scores, score_profiles
from cherimoya.metrics import group_softmax
from cherimoya.records import per_locus
from cherimoya.records.metrics import METRICS
from cherimoya.report.pages import write_report
from cherimoya.training.run import train


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory):
    """The folder of a short run on the small data."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("run")
    values = composed("train", [
        "data=hdf5", f"data.path={small_data}", "data.validation_chroms=[sim3]",
        "data.test_chroms=[sim4]", "model=tiny", "logger=none", "trainer.plots=false",
        "trainer.batch_size=4", "trainer.max_epochs=1", "trainer.threads=1",
        "optim.warmup_epochs=1",
    ])  # fmt: skip
    config = build(TrainConfig, values)
    (folder / "config.yaml").write_text(json.dumps(values))  # as the command line does
    train(config, folder)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Evaluates as the command line would, less the page; returns scores.json."""
    monkeypatch.setattr(evaluate, "offer_report", lambda *_: None)

    def evaluated(*arguments: str) -> dict:
        given = [f"output={tmp_path / 'out'}", "bootstrap=0", "overwrite=true", *arguments]
        values = composed("evaluate", given)
        if isinstance(values["checkpoint"], str):
            values["checkpoint"] = [values["checkpoint"]]
        folder = evaluate.evaluate_checkpoints(build(EvaluateConfig, values))
        return json.loads((folder / "scores.json").read_text())

    return evaluated


def centred(loci, rows):
    """One-hot X and counts of the loci at `rows`, without jitter."""
    j = loci.max_jitter
    codes = torch.from_numpy(loci.sequence[rows][:, j : j + loci.in_window].astype(np.int64))
    X = torch.nn.functional.one_hot(codes, 5)[..., :4].transpose(1, 2).float()
    return X, torch.from_numpy(loci.signal[rows][:, :, j : j + loci.out_window]).float()


def test_the_scores_are_those_of_training(trained, score):
    summary = json.loads((trained / "summary.json").read_text())
    found = score(f"checkpoint={trained}")
    assert found["split"] == "test"
    assert found["loci"] == summary["loci"]["test"]
    for ours, theirs in (
        ("model", "test"), ("average_profile", "average_profile"), ("ceiling", "ceiling"),
    ):  # fmt: skip
        assert found[ours] == summary[theirs]
    valid = json.loads((trained / "metrics.jsonl").read_text().splitlines()[0])
    found = score(f"checkpoint={trained}/checkpoints/best.pt", "split=validation")
    assert found["model"] == pytest.approx({m: valid[f"valid/{m}"] for m in METRICS}, rel=1e-6)


OWN = """
class Share:
    def __call__(self, p, counts, signal_groups):
        groups = zip(p.split(signal_groups, 1), counts.split(signal_groups, 1))
        import torch
        return torch.stack([(k * (q > q.mean())).sum((1, 2)) / k.sum((1, 2)) for q, k in groups], 1)

class Other(Share):
    pass
"""


def test_metrics_of_a_runs_own_are_among_the_scores(trained, score, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_scores.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    values = yaml.safe_load((trained / "config.yaml").read_text())
    values["metrics"] = {"top": {"name": "mine_scores:Share"}}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps(values))
    train(build(TrainConfig, values), run)
    theirs = json.loads((run / "summary.json").read_text())["test"]
    found = score(f"checkpoint={run}", "bootstrap=20", "chroms=[sim3,sim4]")
    assert 0 < found["chromosomes"]["sim4"]["model"]["top"] == theirs["top"]
    low, high = found["intervals"]["top"]
    assert low < found["model"]["top"] < high
    assert len(found["average_profile"]) == len(METRICS)
    row = [line.split() for line in capsys.readouterr().out.splitlines() if line[:4] == "top "]
    assert row[-1][:3] == ["top", f"{found['model']['top']:.4f}", f"{low:.4f}"]
    page = write_report(tmp_path / "out").read_text()
    assert '<tr title="a metric of your own"><td>top</td>' in page
    # -------------------------------------------------------- what it is made of, and what is not
    score(f"checkpoint={run}")
    score(f"checkpoint={run}", "overwrite=false")
    assert "done already" in capsys.readouterr().out
    (tmp_path / "mine_scores.py").write_text(OWN + "# changed")
    with pytest.raises(CherimoyaError, match="exists already, made with another metrics"):
        score(f"checkpoint={run}", "overwrite=false")
    own = {"name": "mine_scores:Share"}
    values["metrics"] = {"gone": {"name": "absent_scores:Share"}, "top": own, "auroc": own}
    (run / "config.yaml").write_text(json.dumps(values))
    again = score(f"checkpoint={run}")
    assert again["model"] == theirs
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(said) == 1
    assert said[0].startswith("left out of the run's own metrics: metrics.gone.name=absent_scores:")
    assert "there is no module absent_scores. Install its package" in said[0]


def test_the_table_of_loci_is_the_runs_own(trained, score, tmp_path):
    score(f"checkpoint={trained}")
    assert (tmp_path / "out/loci.tsv").read_bytes() == (trained / "test_loci.tsv").read_bytes()
    for name, values in np.load(trained / "examples.npz").items():
        np.testing.assert_array_equal(np.load(tmp_path / "out/examples.npz")[name], values)


def test_each_chromosome_is_scored_as_if_alone(trained, score, small_data):
    both = score(f"checkpoint={trained}", "chroms=[sim3,sim4]")
    alone = score(f"checkpoint={trained}", "chroms=[sim3]")
    assert set(both["chromosomes"]) == {"sim3", "sim4"}
    assert both["chromosomes"]["sim3"]["model"] == alone["model"]
    assert both["chromosomes"]["sim3"]["loci"] == alone["loci"]
    assert "chromosomes" not in alone
    header = hdf5.read_header(small_data).chromosomes()
    assert tuple(alone["loci"].values()) == header["sim3"]


def test_a_checkpoint_alone_on_a_file_of_other_windows(small_data, score, tmp_path):
    torch.manual_seed(1)
    model = Cherimoya(8, 2, signal_groups=[2], trimming=40, profile_kernel_size=75)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.export_upstream(tmp_path / "upstream.torch")
    found = score(
        f"checkpoint={tmp_path}/upstream.torch", f"data.path={small_data}", "chroms=[sim4]"
    )
    assert found["window"] == {"in": 180, "out": 100}
    loci = crop(hdf5.read(small_data), 180, 100)
    rows = np.flatnonzero(loci.chrom == "sim4")
    X, k = centred(loci, rows)
    with torch.no_grad():
        logits, log_counts = model.eval()(X)
    scores = score_profiles(
        group_softmax(logits, [2]), k, [2], log_counts, torch.from_numpy(loci.label[rows])
    )
    assert found["model"] == pytest.approx(scores.metrics(), rel=1e-4)
    # the average peak of the three chromosomes that are not scored
    others = np.flatnonzero((loci.chrom != "sim4") & (loci.label == 1))
    mean = centred(loci, others)[1].mean(0)
    average = score_profiles(
        mean.expand(k.shape), k, [2], log_counts, torch.from_numpy(loci.label[rows])
    )
    expected = average.metrics()["profile_pearson"]
    assert found["average_profile"]["profile_pearson"] == pytest.approx(expected, rel=1e-6)


def test_without_other_chromosomes_the_average_is_of_the_others_in_turn(trained, score, small_data):
    found = score(f"checkpoint={trained}", "split=all")
    loci = hdf5.read(small_data)
    _, k = centred(loci, np.arange(len(loci)))
    label = torch.from_numpy(loci.label)
    mean = torch.stack(
        [k[torch.from_numpy((loci.chrom != c) & (loci.label == 1))].mean(0) for c in loci.chrom]
    )
    scores = score_profiles(mean, k, [2], torch.zeros(len(k), 1), label)
    for name in ("profile_pearson", "profile_jsd", "profile_mnll"):
        assert found["average_profile"][name] == pytest.approx(scores.metrics()[name], rel=1e-6)
    assert found["average_profile"]["count_pearson"] is None
    assert found["average_profile"]["auroc"] == 0.5


def test_an_ensemble_on_both_strands(trained, score, small_data):
    files = [trained / "checkpoints" / name for name in ("best.pt", "final.pt")]
    changed = Cherimoya.load(files[1])
    with torch.no_grad():
        changed.fconv.weight += 0.1
        changed.linear.bias += 1
    changed.save(trained / "checkpoints" / "other.pt")
    files[1] = trained / "checkpoints" / "other.pt"
    found = score(f"checkpoint=[{files[0]},{files[1]}]", "reverse_complement=true")
    loci = hdf5.read(small_data)
    rows = np.flatnonzero(loci.chrom == "sim4")
    X, k = centred(loci, rows)
    ps, counts = [], []
    for path in files:
        model = Cherimoya.load(path)
        with torch.no_grad():
            for turned in (False, True):
                logits, log_counts = model(X.flip(1, 2) if turned else X)
                p = group_softmax(logits, [2])
                ps.append(p.flip(1, 2) if turned else p)
                counts.append(log_counts)
    p, log_counts = torch.stack(ps).mean(0), torch.stack(counts).mean(0)
    scores = score_profiles(p, k, [2], log_counts, torch.from_numpy(loci.label[rows]))
    assert found["model"] == pytest.approx(scores.metrics(), rel=1e-3)
    assert found["model"] != pytest.approx(score(f"checkpoint={files[0]}")["model"], rel=1e-3)


def test_signal_groups_have_their_own_scores(small_data, score, tmp_path):
    loci = replace(hdf5.read(small_data), signal_groups=[1, 1], truth={})
    path = hdf5.write(tmp_path / "groups.h5", loci)
    torch.manual_seed(0)
    model = Cherimoya(8, 2, signal_groups=[1, 1], trimming=50)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.save(tmp_path / "groups.pt")
    found = score(f"checkpoint={tmp_path}/groups.pt", f"data.path={path}", "split=all")
    assert [g["tracks"] for g in found["groups"]] == [[name] for name in loci.track_names]
    X, k = centred(loci, np.arange(len(loci)))
    with torch.no_grad():
        logits, log_counts = model.eval()(X)
    label = torch.from_numpy(loci.label)
    for g in range(2):
        p = logits[:, g : g + 1].flatten(1).softmax(1)[:, None]
        scores = score_profiles(p, k[:, g : g + 1], [1], log_counts[:, g : g + 1], label)
        assert found["groups"][g]["model"] == pytest.approx(scores.metrics(), rel=1e-4)
    mean = np.mean([g["model"]["profile_pearson"] for g in found["groups"]])
    assert found["model"]["profile_pearson"] == pytest.approx(mean)
    assert "ceiling" not in found


def test_a_replicate_is_matched_by_place(trained, score, small_data, tmp_path):
    loci = hdf5.read(small_data)
    shuffled = loci.take(np.random.default_rng(0).permutation(len(loci)))
    hdf5.write(tmp_path / "same.h5", crop(shuffled, 180, 100))
    found = score(f"checkpoint={trained}", f"replicate={tmp_path}/same.h5")["replicate"]
    assert found["profile_pearson"] == pytest.approx(1)
    assert found["profile_jsd"] == pytest.approx(0, abs=1e-6)
    assert found["count_mse"] == pytest.approx(0, abs=1e-10)
    assert found["profile_mnll"] is None
    hdf5.write(tmp_path / "fewer.h5", loci.take(np.flatnonzero(loci.chrom != "sim4")))
    with pytest.raises(CherimoyaError, match=r"lacks .* of the .* scored loci"):
        score(f"checkpoint={trained}", f"replicate={tmp_path}/fewer.h5")


def noisy(loci, seed=0):
    """The same loci with another draw of counts, as a replicate has."""
    signal = np.random.default_rng(seed).poisson(loci.signal * 0.8)
    return replace(loci, signal=signal.astype(loci.signal.dtype), truth={})


def ranks(values):
    """Ranks from 0, the mean of those that tie."""
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def test_a_replicate_is_scored_as_numpy_would(trained, score, small_data, tmp_path):
    loci = hdf5.read(small_data)
    hdf5.write(tmp_path / "other.h5", noisy(loci))
    found = score(f"checkpoint={trained}", f"replicate={tmp_path}/other.h5")["replicate"]
    rows = np.flatnonzero(loci.chrom == "sim4")
    _, k = centred(loci, rows)
    _, other = centred(noisy(loci), rows)
    k, other = k.double().flatten(1).numpy(), other.double().flatten(1).numpy()
    peaks = np.flatnonzero(loci.label[rows] == 1)
    pearson, jsd = [], []
    for i in peaks:
        if k[i].sum() == 0 or other[i].sum() == 0:
            continue
        pearson.append(np.corrcoef(k[i], other[i])[0, 1])
        p, q = k[i] / k[i].sum(), other[i] / other[i].sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.nansum(x * np.log(x / ((p + q) / 2))) / 2 for x in (p, q)]
        jsd.append(np.sqrt(sum(parts)))
    assert found["profile_pearson"] == pytest.approx(np.mean(pearson), rel=1e-5)
    assert found["profile_jsd"] == pytest.approx(np.mean(jsd), rel=1e-5)
    a, b = np.log1p(other.sum(1)), np.log1p(k.sum(1))
    assert found["count_pearson"] == pytest.approx(np.corrcoef(a[peaks], b[peaks])[0, 1], rel=1e-5)
    ranked = np.corrcoef(ranks(a[peaks]), ranks(b[peaks]))[0, 1]
    assert found["count_spearman"] == pytest.approx(ranked, rel=1e-5)
    assert found["count_mse"] == pytest.approx(np.mean((a[peaks] - b[peaks]) ** 2), rel=1e-5)


def test_intervals_are_those_of_a_bootstrap_in_numpy(trained, score, tmp_path):
    """The file's table of loci, drawn again and scored without this package."""
    arguments = ("bootstrap=40", "confidence=0.8", "seed=5")
    found = score(f"checkpoint={trained}", "split=all", *arguments)
    table = np.genfromtxt(tmp_path / "out/loci.tsv", names=True, dtype=None, encoding="utf-8")
    peaks, others = (np.flatnonzero(table["label"] == value) for value in (1, 0))
    rng = np.random.default_rng(5)
    drawn = {name: [] for name in found["intervals"]}
    for _ in range(40):
        again = [c[rng.integers(0, len(c), len(c))] for c in (peaks, others)]
        of_peaks = table[again[0]]
        seen, said = (of_peaks[f"{w}_log_counts"] for w in ("observed", "predicted"))
        for name in ("profile_mnll", "profile_pearson", "profile_jsd"):
            drawn[name].append(np.nanmean(of_peaks[name]))
        drawn["count_pearson"].append(np.corrcoef(seen, said)[0, 1])
        drawn["count_spearman"].append(np.corrcoef(ranks(seen), ranks(said))[0, 1])
        drawn["count_mse"].append(np.mean((seen - said) ** 2))
        high, low = (table[rows]["predicted_log_counts"] for rows in again)
        above = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
        drawn["auroc"].append(above)
    for name, values in drawn.items():
        if values:
            expected = np.quantile(values, [0.1, 0.9])
            assert found["intervals"][name] == pytest.approx(expected.tolist(), rel=2e-4), name


def test_the_page_names_groups_and_shows_a_replicate(small_data, score, tmp_path):
    pytest.importorskip("matplotlib")
    loci = replace(hdf5.read(small_data), signal_groups=[1, 1], truth={})
    path = hdf5.write(tmp_path / "groups.h5", loci)
    hdf5.write(tmp_path / "again.h5", noisy(loci))
    Cherimoya(8, 2, signal_groups=[1, 1], trimming=50).save(tmp_path / "groups.pt")
    found = score(
        f"checkpoint={tmp_path}/groups.pt", f"data.path={path}", "split=all",
        f"replicate={tmp_path}/again.h5",
    )  # fmt: skip
    text = write_report(tmp_path / "out").read_text()
    for g, name in enumerate(loci.track_names):
        assert f"profile Pearson of each peak, {name}" in text
        assert f"{found['groups'][g]['replicate']['profile_pearson']:.3f}" in text
    assert f"replicate {found['replicate']['profile_jsd']:.4f}</span>" in text
    assert "signal group 0" not in text


def test_intervals_are_percentiles_over_resampled_loci():
    rng = np.random.default_rng(3)
    label = torch.tensor([1] * 40 + [0] * 10)
    values = torch.from_numpy(rng.normal(size=(50, 1)))
    names = ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd")
    scores = Scores(dict.fromkeys(names, values), values + 5, values + 5, label)
    found = intervals(scores, 400, 0.9, seed=7)
    assert found == intervals(scores, 400, 0.9, seed=7)
    assert found != intervals(scores, 400, 0.9, seed=8)
    low, high = found["profile_pearson"]
    peaks = values[:40, 0].numpy()
    half = 1.645 * peaks.std() / np.sqrt(40)  # of a mean, by the central limit theorem
    assert low == pytest.approx(peaks.mean() - half, abs=0.25 * half)
    assert high == pytest.approx(peaks.mean() + half, abs=0.25 * half)
    assert found["count_pearson"] == pytest.approx((1, 1))
    assert found["count_mse"] == (0, 0)
    only_peaks = intervals(scores.take(label == 1), 20, 0.9, seed=7)
    assert np.isnan(only_peaks["auroc"]).all()


def test_the_page_shows_it(trained, score, tmp_path):
    pytest.importorskip("matplotlib")
    found = score(f"checkpoint={trained}", "chroms=[sim3,sim4]", "bootstrap=20")
    page = write_report(tmp_path / "out")
    assert page == tmp_path / "out/report.html"
    text = page.read_text()
    low, high = found["intervals"]["profile_jsd"]
    assert low < found["model"]["profile_jsd"] < high
    for words in (
        f"{found['model']['profile_pearson']:.4f}", f"{low:.4f} to {high:.4f}",
        f"{found['chromosomes']['sim3']['model']['count_pearson']:.4f}", "By chromosome",
        found["checkpoints"][0]["sha256"],
    ):  # fmt: skip
        assert words in text, words


def test_the_loci_of_the_output_window_are_named(trained, score, tmp_path, small_data):
    score(f"checkpoint={trained}", "split=all")
    loci = hdf5.read(small_data)
    first = (tmp_path / "out/loci.tsv").read_text().splitlines()[1].split("\t")
    start, end = per_locus.output_windows(loci, np.arange(1))
    assert first[:3] == [loci.chrom[0], str(start[0]), str(end[0])]


def test_an_evaluation_is_not_replaced_unasked(trained, score, tmp_path):
    score(f"checkpoint={trained}", "overwrite=false")
    before = (tmp_path / "out/scores.json").read_bytes()
    other = r"scores\.json: exists already, made with another split\."
    with pytest.raises(CherimoyaError, match=other):
        score(f"checkpoint={trained}", "split=all", "overwrite=false")
    assert (tmp_path / "out/scores.json").read_bytes() == before
    score(f"checkpoint={trained}", "overwrite=false")  # the same, so it is done already
    assert (tmp_path / "out/scores.json").read_bytes() == before


@pytest.mark.parametrize("name", ["loci.tsv", "examples.npz", "report.html"])
def test_files_that_no_evaluation_wrote_stay(trained, score, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(CherimoyaError, match=f"{name}: exists already.*set overwrite=true"):
        score(f"checkpoint={trained}", "overwrite=false")
    assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [(name, "mine")]
    score(f"checkpoint={trained}")
    score(f"checkpoint={trained}", "split=all")
    score(f"checkpoint={trained}", "split=all", "overwrite=false")


def test_loci_seen_in_training_are_said(trained, score, small_data, tmp_path):
    found = score(f"checkpoint={trained}", "split=all")
    chrom = hdf5.read_header(small_data).chrom
    assert found["seen_in_training"] == int((~np.isin(chrom, ["sim3", "sim4"])).sum()) > 0
    assert score(f"checkpoint={trained}")["seen_in_training"] == 0
    lone = tmp_path / "lone.pt"
    Cherimoya.load(trained / "checkpoints/best.pt").save(lone)
    arguments = (f"checkpoint={lone}", f"data.path={small_data}", "split=all")
    assert score(*arguments)["seen_in_training"] is None
    loci = hdf5.read(small_data)
    renamed = np.array([f"chr{name}" for name in loci.chrom.tolist()])
    path = hdf5.write(tmp_path / "renamed.h5", replace(loci, chrom=renamed))
    found = score(f"checkpoint={trained}", f"data.path={path}", "split=all")
    assert found["seen_in_training"] is None


def test_a_split_without_loci_or_peaks(trained, score, small_data, tmp_path):
    loci = hdf5.read(small_data)
    label = np.where(loci.chrom == "sim2", 0, loci.label).astype(np.uint8)
    path = hdf5.write(tmp_path / "no_peaks.h5", replace(loci, label=label))
    with pytest.raises(CherimoyaError, match=r"no_peaks\.h5 has no peaks on sim2"):
        score(f"checkpoint={trained}", f"data.path={path}", "chroms=[sim2]")
    other = shutil.copytree(trained, tmp_path / "other")
    values = yaml.safe_load((trained / "config.yaml").read_text())
    values["data"]["test_chroms"] = []
    (other / "config.yaml").write_text(json.dumps(values))
    with pytest.raises(CherimoyaError, match=r"split=test: the run has no such loci\. Use spl"):
        score(f"checkpoint={other}")


def test_a_test_split_that_another_model_was_trained_on_is_refused(trained, score, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    values = yaml.safe_load((trained / "config.yaml").read_text())
    values["data"] |= {"validation_chroms": ["sim1"], "test_chroms": ["sim3"]}
    (other / "config.yaml").write_text(json.dumps(values))
    both = f"checkpoint=[{trained},{other}]"
    with pytest.raises(
        CherimoyaError, match=r"lie on sim4, which .*other.* was trained on.*chroms=\[sim3\]"
    ):
        score(both)
    assert score(both, "chroms=[sim3]")["seen_in_training"] == 0
    assert score(both, "chroms=[sim4]")["seen_in_training"] > 0  # as asked, and said


def test_a_damaged_run_is_one_message(trained, score, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    (other / "config.yaml").write_text("data: {path: [")
    with pytest.raises(CherimoyaError, match=r"a file of the run in .*other is damaged"):
        score(f"checkpoint={other}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["checkpoint={run}/nothing.pt"], "does not exist"),
        (["checkpoint={tmp}"], "a folder without a run"),
        (["checkpoint=[]"], "checkpoint=\\[\\] is empty"),
        (["checkpoint=[{run},{run}]"], "names .* twice"),
        (["checkpoint={tmp}/lone.pt"], "lies in no run folder"),
        (["checkpoint={tmp}/lone.pt", "split=all"], "data.path has no value"),
        (["checkpoint={run}", "chroms=[sim9]"], "names sim9, which .* Use names"),
        (["checkpoint={run}", "chroms=[chrsim3]"], "chroms=\\[sim3\\]"),
        (["checkpoint={run}", "split=tests"], "must be one of .* Did you mean test"),
        (["checkpoint={run}", "data.in_window=150"], "Set data.in_window=200"),
        (["checkpoint={run}", "output=scores.json"], r"a folder is made.*: output=scores$"),
        (["checkpoint={run}", "data.path=absent.h5"], "absent.h5"),
        (["checkpoint=[{run},{tmp}/lone.pt]"], "differ in signal_groups"),
        (
            ["checkpoint={tmp}/lone.pt", "split=all", "data.path={data}"],
            "has signal groups \\[1\\]",
        ),
        (["checkpoint={run}", "device=cuda"], "device=cuda, but torch sees no GPU"),
        (["checkpoint={run}", "precision=bf16"], "^precision=bf16"),
        (["checkpoint={run}", "output={run}/config.yaml"], "a file. Name a folder"),
        (["checkpoint={run}", "output={run}"], "a run is there. Choose another folder"),
        (["checkpoint={run}", "replicate=absent.h5"], "replicate=absent.h5: no such file"),
        (["checkpoint={run}", "replicate={run}/config.yaml"], "HDF5 file. Set replicate to a file"),
        (["checkpoint={run}/checkpoints/last.pt"], "last.pt is not a model's.*goes on from it"),
        (["checkpoint={tmp}/damaged.pt", "split=all"], "damaged.pt is damaged: .*Copy it again"),
    ],
)
def test_a_mistake_is_one_message(trained, score, small_data, tmp_path, arguments, words):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    Cherimoya(8, 2, trimming=50).save(tmp_path / "lone.pt")
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "lone.pt").read_bytes()[:2000])
    given = [a.format(run=trained, tmp=tmp_path, data=small_data) for a in arguments]
    with pytest.raises(CherimoyaError, match=words):
        score(*given)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command(trained, tmp_path):
    done = command(
        "evaluate", f"checkpoint={trained}", "bootstrap=5", "output=out", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout
    summary = json.loads((trained / "summary.json").read_text())
    assert f"{summary['test']['profile_pearson']:.4f}" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/report.html").is_file()
