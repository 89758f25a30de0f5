"""Whatever the files of a run, sweep or evaluation hold: they are shown, or refused in words.

An input counts as refused where a file is said to be damaged, though a page is made of the others.
"""

import itertools
import json
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from damage import STRUCTURES, damage
from fuzzing import GUIDED, Outcomes, fuzz
from hypothesis import given
from hypothesis import strategies as st
from run_files import BASELINE, CEILING, CONFIG, SCORES, add_loci, add_member, make_run

from cherimoya.cli.hydra_errors import refused
from cherimoya.cli.train import _saved_configuration
from cherimoya.config.tools import SearchConfig
from cherimoya.errors import CherimoyaError
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.inference.genome import _stale
from cherimoya.loggers.run_log import RunLog
from cherimoya.records import study
from cherimoya.records import sweep as sweeps
from cherimoya.records.evaluation import read_evaluation
from cherimoya.records.run import read_run
from cherimoya.records.space import Choices, Numbers
from cherimoya.records.status import DAMAGED
from cherimoya.report import bias_quality, evaluation, run, scores, sweep
from cherimoya.report.pages import write_report
from cherimoya.sweeps import members, plan, status
from cherimoya.util.marks import checked_digest, mark_of, write_mark

pytest.importorskip("matplotlib")
WINDOW = {"in": 320, "out": 160, "receptive_field": 51}
SEARCH = SearchConfig(
    sampler="tpe", startup_trials=10, seed=0, pruner="median", prune_after_trials=5,
    prune_after_epochs=1, metric="valid/loss", direction="minimize", n_trials=5, n_jobs=1,
    storage=None,
)  # fmt: skip
SPACE = {"optim.adamw.lr": Numbers(0.001, 0.01), "model.n_layers": Choices(("3", "5"))}
THREE = {kind: [0.01, 0.02] for kind in ("with_bias", "bias_model", "corrected")}
CHOICE = {"chosen": "b", "rule": "the best", "candidates": [
    {"name": name, "background/profile_mnll": 9.0, "peaks/count_pearson": None} for name in "ab"
]}  # fmt: skip
QUALITY = {
    "enzyme": "Tn5", "groups": ["a", "b"], "signal_groups": [1, 2], "backgrounds": 9,
    "limits": [0.003, 0.0015], "residuals": {"Tn5": THREE},
    "footprints": [{"motif": "ACGT", "enzyme": "Tn5", "largest": THREE,
                    "profiles": {kind: [[1.0, 2.0]] * 3 for kind in THREE}}],
    "scores": {k: [{"profile_mnll": 9.0, "count_pearson": None}] * 2
               for k in ("peaks", "background", "flat")},
    "motifs": [{"enzyme": "Tn5", "correlation": 0.9,
                "frequencies": [[[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]]}] * 2,
    "checks": [{"name": "counts", "good": False, "why": "So."}],
}  # fmt: skip
PREDICTED = {"n": 3, "plan": {"values": "profile"}}


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart that was drawn before, of the same values, is not drawn again."""
    drawn: dict[bytes, Any] = {}

    def remembered(chart: Callable[..., Any]) -> Callable[..., Any]:
        def once(*arguments: Any, **options: Any) -> Any:
            key = pickle.dumps((arguments, options))
            if key not in drawn:
                drawn[key] = chart(*arguments, **options)
            return drawn[key]

        return once

    for module in (bias_quality, evaluation, run, scores, sweep):
        monkeypatch.setattr(module, "chart", remembered(module.chart))


def make_whole_run(folder: Path) -> None:
    config = CONFIG | {"data": {"path": None, "source": "synthetic", "in_window": 320}}
    changed = {"groups": {"model": ["tiny", "cherimoya"]}, "keys": {"seed": 1}, "folders": ["lab"]}
    add_loci(make_run(folder, config=config, changed=changed, window=WINDOW,
                      loci={"test": {"peaks": 3, "background": 1}},
                      provenance={"bias": {"choice": CHOICE}}))  # fmt: skip
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.pt").touch()
    (folder / "bias_quality.json").write_text(json.dumps(QUALITY))


def use_run(folder: Path) -> bool:
    write_report(folder)
    problems = read_run(folder).problems
    with suppress(CherimoyaError):
        find_checkpoint(str(folder))
    with suppress(CherimoyaError):
        _saved_configuration(folder / "config.yaml")
    go_on(folder)
    return bool(problems)


def go_on(folder: Path) -> None:
    """What a run does first that goes on in its folder."""
    with RunLog(folder, {}) as log:
        log.rewind("")


def make_failed_run(folder: Path) -> None:
    make_run(folder, "failed")


def make_sweep(folder: Path) -> None:
    members = []
    for layers, seed in itertools.product((3, 5), (0, 1)):
        add_member(folder, loss=300.0 + layers + seed, n_layers=layers, seed=seed, window=WINDOW,
                   parameters=100 * layers, train_seconds=60.0 * layers)  # fmt: skip
        members.append({"model.n_layers": str(layers), "seed": str(seed)})
    add_member(folder, "running", n_layers=7, seed=0)
    sweeps.write_plan(folder, sweeps.Plan("s", ["cherimoya-train", "-m"], ["seed"], members))


def use_sweep(folder: Path) -> bool:
    write_report(folder)
    damaged = [m for m in sweeps.read_sweep(folder) if m.state == DAMAGED]
    said = bool(damaged or sweeps.plan_problem(folder))
    status.describe(folder)
    status.anything_runs(folder)
    status.anything_left(folder)
    members.finished(plan.Sweep("s", [], [], folder), [])
    with suppress(CherimoyaError):
        plan.member(["seed=1"], folder)
    for member in sorted(folder.glob("*/")):
        with suppress(CherimoyaError):
            members.begin(member, {"seed": "1"}, {"seed": 0})
    return said


def make_evaluation(folder: Path) -> None:
    add_loci(folder)
    (folder / "test_loci.tsv").rename(folder / "loci.tsv")
    part = {"model": SCORES, "average_profile": BASELINE, "loci": {"peaks": 3, "background": 1},
            "intervals": {name: [0.1, 0.2] for name in SCORES}}  # fmt: skip
    summary = part | {
        "ceiling": CEILING, "split": "test", "checkpoints": [{"path": "x.pt", "sha256": "f00d"}],
        "seen_in_training": 0, "reverse_complement": True, "data": "x.h5", "replicate_file": None,
        "window": {"in": 320, "out": 160}, "bootstrap": {"n": 9, "confidence": 0.95, "seed": 0},
        "groups": [part | {"tracks": ["plus", "minus"]}, part | {"tracks": ["other"]}],
        "chromosomes": {"chr1": part, "chr2": part},
        "provenance": {"data_fingerprint": "f00d", "git_commit": None, "command": "c", "gpu": None,
                       "cpu": "a processor", "precision": "fp32", "versions": {"torch": "2"}},
    }  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(summary))


def use_evaluation(folder: Path) -> bool:
    write_report(folder)
    return bool(read_evaluation(folder).problems)


def make_predictions(folder: Path) -> None:
    (folder / "x.h5").write_bytes(b"x" * 9)
    write_mark(folder / "predictions.json", PREDICTED, [folder / "x.h5"])
    (folder / "parts").mkdir()
    old = PREDICTED | {"files": ["x.h5"]}
    (folder / "parts" / "plan.json").write_text(json.dumps(old))
    write_mark(mark_of(folder / "x.h5"), {"settings": {}}, [folder / "x.h5"])


def make_search(folder: Path) -> None:
    search = study.Search(folder, SEARCH, SPACE)
    search.begin()
    for _ in range(3):
        (trial,) = search.batch()
        overrides = search.overrides(trial.params)
        done = make_run(folder / sweeps.member_name(overrides), epochs=2)
        search.note(trial, done)
        search.tell(trial.number, done)
    (trial,) = search.batch()
    search.note(trial, make_run(folder / "begun", "running"))
    for path in (*folder.glob("*/*.yaml"), *folder.glob("*/su*"), folder / "begun/metrics.jsonl"):
        path.unlink()


def use_search(folder: Path) -> bool:
    row = {"epoch": 0, "valid/loss": 3.0}
    for trial in sorted(folder.glob("*/")):
        with suppress(CherimoyaError):
            seen = study.watch(trial)
            if seen:
                seen(row)
    search = study.Search(folder, SEARCH, SPACE)
    search.begin()
    search.counts()
    search.best()
    for trial in search.batch():
        search.overrides(trial.params)
        search.tell(trial.number, folder / "begun")
    return False


def use_predictions(folder: Path) -> bool:
    checked_digest(folder / "x.h5")
    _stale(folder, PREDICTED["plan"], overwrite=True, written={})
    _stale(folder, PREDICTED["plan"], overwrite=False, written={})
    return False


KINDS = {  # what makes and reads each, and how many inputs it gets, at first and among slow tests
    "run folder": (make_whole_run, use_run, (8, 25)),
    "failed run folder": (make_failed_run, use_run, (15, 30)),
    "sweep folder": (make_sweep, use_sweep, (8, 20)),
    "evaluation folder": (make_evaluation, use_evaluation, (15, 50)),
    "search folder": (make_search, use_search, (40, 80)),
    "prediction folder": (make_predictions, use_predictions, (60, 200)),
}


def used(use: Callable[[Path], bool], folder: Path) -> bool:
    """As a command would: what the disk refuses is put into words."""
    try:
        return use(folder)
    except OSError as error:
        raise refused(error) or error from None


def files(folder: Path) -> list[Path]:
    """Those that can be damaged."""
    return [p.relative_to(folder) for p in sorted(folder.rglob("*.*")) if p.suffix in STRUCTURES]


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize(
    "most", [*[False] * (not GUIDED), pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_folders_are_shown_or_refused(kind: str, most: bool, tmp_path: Path) -> None:
    (make, use, inputs), whole, work = KINDS[kind], tmp_path / "whole", tmp_path / "work"
    whole.mkdir()
    make(whole)
    use(shutil.copytree(whole, work))
    known = files(whole)
    outcomes = Outcomes(kind)

    @given(st.randoms(use_true_random=not GUIDED))
    def one(draw: random.Random) -> None:
        shutil.rmtree(work)
        shutil.copytree(whole, work)
        for path in draw.sample(known, draw.choice((1, 1, 1, 2))):
            damage(work / path, draw)
        if outcomes.of(used, use, work):
            outcomes.read, outcomes.refused = outcomes.read - 1, outcomes.refused + 1

    fuzz(one, outcomes, inputs[most], cost=10)
