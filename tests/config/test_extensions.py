"""What a user adds from a folder outside: one Python file and one YAML file for each group."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from command_lines import TRAIN, clean_environment, command, wait_until
from training_runs import assert_same_run

import cherimoya
from cherimoya import registry
from cherimoya.config.train import TAKEN
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records import metrics
from cherimoya.records.run import read_run

CODE = {
    "blocks": '''
from dataclasses import dataclass
import torch
from torch import nn
from cherimoya.config.schema import checked

@dataclass(frozen=True)
class Settings:
    """Of the gate."""
    strength: float = checked(above=0, at_most=2)

class Gated(nn.Module):
    """x + strength * sigmoid(gate(x)) * value(shifted x), channels last."""
    Settings = Settings
    matrices = ("gate.weight", "value.weight")

    def __init__(self, n_filters, dilation, strength):
        super().__init__()
        self.dilation, self.strength = dilation, strength
        self.gate, self.value = nn.Linear(n_filters, n_filters), nn.Linear(n_filters, n_filters)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x, trim=0):
        d = self.dilation
        shifted = nn.functional.pad(x, (0, 0, d, 0))[:, : x.shape[1]]
        out = x + self.strength * self.sigmoid(self.gate(x)) * self.value(shifted)
        return out[:, trim : x.shape[1] - trim]
''',
    "loss": '''
from dataclasses import dataclass
import torch
from torch import nn
from cherimoya.config.schema import checked
from cherimoya.losses import Loss, LossTerms, profile_and_count_losses

@dataclass(frozen=True)
class Settings:
    strength: float = checked(above=0, at_most=2)

class Scaled(Loss):
    """The profile loss by a learned scale, and the count loss by a fixed one."""
    Settings = Settings

    def __init__(self, strength):
        super().__init__()
        self.strength = strength
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, model, logits, log_counts, signal):
        profile, count = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        total = (profile / self.log_scale.exp()).sum() + self.log_scale
        return LossTerms(total + self.strength * count.sum(), profile.detach(), count.detach())
''',
    "optim": '''
from dataclasses import dataclass
import torch
from cherimoya.config.options import Optimizer
from cherimoya.config.schema import checked

@dataclass(frozen=True, kw_only=True)
class Settings(Optimizer):
    strength: float = checked(above=0, at_most=2)

class Signs(torch.optim.Optimizer):
    """The sign of a running mean of the gradients, which is its state."""
    Settings = Settings

    def __init__(self, params, lr, strength):
        super().__init__(params, {"lr": lr, "strength": strength})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert isinstance(group["lr"], float)
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 0.1)
                p.add_(mean.sign(), alpha=-group["lr"] * group["strength"])
''',
    "data": '''
from dataclasses import dataclass
from cherimoya.config.data import SyntheticConfig
from cherimoya.config.schema import checked
from cherimoya.data.synthetic import simulate

@dataclass(frozen=True)
class Settings:
    strength: float = checked(above=0, at_most=2)

class Scaled:
    """A simulation whose counts are scaled."""
    Settings = Settings

    def __init__(self, strength):
        self.strength = strength

    def loci(self):
        config = SyntheticConfig(seed=1, n_chromosomes=4, n_peaks=64, n_background=26,
                                 mean_count=200.0 * self.strength)
        return simulate(config, in_window=200, out_window=100, max_jitter=8)
''',
    "metrics": '''
from dataclasses import dataclass
import torch
from cherimoya.config.schema import checked

@dataclass(frozen=True)
class Settings:
    strength: float = checked(above=0, at_most=2)

class Share:
    """The share of the counts in the most likely tenth of the positions."""
    Settings = Settings
    label, unit, higher_is_better = "share in the top tenth", "0 to 1", True

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, p, counts, signal_groups):
        values = []
        for q, k in zip(p.split(signal_groups, 1), counts.split(signal_groups, 1)):
            q, k = q.flatten(1), k.flatten(1).double()
            top = q.topk(max(q.shape[1] // 10, 1), dim=1).indices
            values.append(self.strength * k.gather(1, top).sum(1) / k.sum(1))
        return torch.stack(values, 1)
''',
    "logger": '''
from dataclasses import dataclass
from cherimoya.config.schema import checked
from cherimoya.loggers.base import Logger

@dataclass(frozen=True)
class Settings:
    strength: float = checked(above=0, at_most=2)

class Lines(Logger):
    """A line a row, of all that the run has had so far."""
    Settings = Settings

    def __init__(self, folder, strength):
        super().__init__(folder)
        self.path = folder / "lines.txt"

    def start(self, settings, earlier_id, rows):
        self.path.write_text("".join(f"{row['step']}\\n" for row in rows))

    def row(self, values):
        with open(self.path, "a") as file:
            file.write(f"{values['step']}\\n")
''',
}  # fmt: skip
FILES = {  # the YAML file of each, in the folder of --config-dir
    "blocks": ("model/blocks/mine.yaml", "name: mine:Gated\nstrength: 0.5\n"),
    "loss": ("loss/mine.yaml", "name: mine:Scaled\nstrength: 0.5\n"),
    "optim": (
        "optim/mine.yaml",
        "defaults: [muon_adamw, _self_]\n"
        "routing:\n"
        "  - {pattern: matrices, optimizer: muon}\n"
        "  - {pattern: '*', optimizer: signs}\n"
        "adamw: null\n"
        "signs: {name: 'mine:Signs', lr: 0.001, schedule: linear, strength: 0.5}\n",
    ),
    "data": (
        "data/mine.yaml",
        "defaults: [hdf5, _self_]\nsource: mine:Scaled\npath: null\noptions: {strength: 0.5}\n",
    ),
    "metrics": ("metrics/mine.yaml", "# @package metrics.top\nname: mine:Share\nstrength: 0.5\n"),
    "logger": ("logger/mine.yaml", "# @package logger.lines\nname: mine:Lines\nstrength: 0.5\n"),
}
CHOSEN = {"blocks": "model.blocks"}  # where it is chosen by a key of another name
SETTING = {
    "blocks": "model.blocks.strength", "loss": "loss.strength", "optim": "optim.signs.strength",
    "data": "data.options.strength", "metrics": "metrics.top.strength",
    "logger": "logger.lines.strength",
}  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    """A folder with one Python file and one YAML file, of the kind it is called with."""

    def make(kind: str):
        name, text = FILES[kind]
        folder = tmp_path / "lab"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
        (folder / "mine.py").write_text(CODE[kind])
        return f"--config-dir={folder}"

    return make


def chosen(kind: str, arguments: list[str], option: str = "mine") -> list[str]:
    """The command line with that option of the kind's group; another path is read no more."""
    if kind == "data":
        arguments = [a for a in arguments if not a.startswith(("data=", "data.path="))]
    group = CHOSEN.get(kind, kind)
    return [*(a for a in arguments if not a.startswith(f"{group}=")), f"{group}={option}"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_an_extension_trains_resumes_sweeps_reports_loads_and_predicts(
    kind, lab, cherimoya_train, train_arguments, tmp_path, monkeypatch
):
    where, arguments = lab(kind), chosen(kind, train_arguments)
    done = cherimoya_train(where, *arguments, "trainer.plots=true", "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "mine" in page
    if kind == "metrics":
        assert re.search(r'title="a metric of your own"><td>top</td>\n<td data-sort="0\.\d+', page)
        assert "top by epoch: a metric of your own" in page
    _, *again = shlex.split(read_run(tmp_path / "whole").new_command)
    assert where in again
    shown = cherimoya_train(*again, "--cfg", "job")
    assert "mine:" in shown.stdout, shown.stderr
    # ------------------------------------------------------------------ to the bit after a kill
    command = [*TRAIN, where, *arguments, "hydra.run.dir=killed", "trainer.checkpoint_minutes=1e-4"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    rows = tmp_path / "killed" / "metrics.jsonl"
    wait_until(lambda: rows.exists() and rows.stat().st_size > 0)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "Continue with: cherimoya-train" in output
    assert where in output
    resumed = cherimoya_train(where, "trainer.resume=killed", "trainer.checkpoint_minutes=5")
    assert "resumed after" in resumed.stdout, resumed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    if kind == "logger":
        lines = (tmp_path / "killed" / "lines.txt").read_text()
        assert lines == (tmp_path / "whole" / "lines.txt").read_text()
        assert len(lines.splitlines()) == 3
    # ------------------------------------------------------------------------ beside one of ours
    if kind != "data":
        ours = {"blocks": "cheri", "loss": "kendall", "optim": "adamw", "logger": "none",
                "metrics": "none"}[kind]  # fmt: skip
        both = chosen(kind, train_arguments, f"{ours},mine")
        swept = cherimoya_train(where, "-m", *both, "hydra.sweep.dir=swept")
        assert swept.returncode == 0, swept.stderr
        assert len(list((tmp_path / "swept").glob("*/summary.json"))) == 2
    if kind == "metrics":
        searched = cherimoya_train(
            where, "-m", *arguments, "hydra/sweeper=optuna", "hydra.sweeper.metric=valid/top",
            "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2", "seed=1,2",
            "hydra.sweep.dir=searched",
        )  # fmt: skip
        assert searched.returncode == 0, searched.stderr
        assert "valid/top 0." in searched.stdout
    # ------------------------------------------------------------------------ loads and predicts
    if kind == "blocks":
        with pytest.raises(CherimoyaError, match="no module mine"):
            cherimoya.load(tmp_path / "whole")
    monkeypatch.syspath_prepend(tmp_path / "lab")
    model = cherimoya.load(tmp_path / "whole")
    answer = cherimoya.predict(model, ["ACGT" * 50])
    assert answer.logits.shape[-1] == 100
    assert answer.logits.isfinite().all()
    assert torch.load(tmp_path / "whole/checkpoints/best.pt", weights_only=True)["config"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_settings_of_ones_own_are_checked_as_ours_are(kind, lab, cherimoya_train, train_arguments):
    where, arguments, key = lab(kind), chosen(kind, train_arguments), SETTING[kind]
    for word, said in {
        f"{key}=3": f"{key}=3.0: must be at most 2",
        f"{key}=much": f"{key}=much: expected a number",
        f"+{key.replace('strength', 'strenght')}=1": f"Did you mean {key}?",
    }.items():
        done = cherimoya_train(where, *arguments, word, "--cfg", "job")
        assert done.returncode == 1
        assert said in done.stderr, word
        assert len(done.stderr.splitlines()) == 1


WRONG = """
import torch
from torch import nn
from cherimoya.loggers.base import Logger
from cherimoya.losses import Loss, LossTerms

class Short(nn.Module):
    def __init__(self, n_filters):
        super().__init__()
    def forward(self, x, trim=0):
        return x

class Untrimmed(nn.Module):
    def __init__(self, n_filters, dilation):
        super().__init__()
    def forward(self, x, trim=0):
        return x

class Shortens(Untrimmed):
    def __init__(self, n_filters, dilation):
        super().__init__(n_filters, dilation)
        self.less = dilation // 2
    def forward(self, x, trim=0):
        return x[:, trim : x.shape[1] - trim - self.less]

class TooFar(Shortens):
    def forward(self, x, trim=0):
        return x[:, trim : x.shape[1] - trim] + 1 // (2 - self.less)

class Lazy(Untrimmed):
    def __init__(self, n_filters, dilation):
        super().__init__(n_filters, dilation)
        self.linear = nn.LazyLinear(n_filters)
    def forward(self, x, trim=0):
        return self.linear(x[:, trim : x.shape[1] - trim])

class Nothing:
    pass

class Raises:
    def __call__(self, p, counts, signal_groups):
        return 1 / 0

class Exits:
    def __call__(self, p, counts, signal_groups):
        raise SystemExit(0)

class Flat:
    def __call__(self, p, counts, signal_groups):
        return counts.sum(dim=(1, 2))

class Fine:
    def __call__(self, p, counts, signal_groups):
        return counts.sum(dim=(1, 2))[:, None]

class Refuses(Logger):
    def start(self, settings, earlier_id, rows):
        1 / 0

class Infinite(Loss):
    def forward(self, model, logits, log_counts, signal):
        return logits.sum() / 0

class Many(Loss):
    def forward(self, model, logits, log_counts, signal):
        return log_counts

class Constant(Loss):
    def forward(self, model, logits, log_counts, signal):
        return logits.detach().sum()

class LogitsAlone(Loss):
    def forward(self, logits):
        return logits.sum()

class Says(Loss):
    def forward(self, model, logits, log_counts, signal):
        return logits.sum()
    def logged(self, model):
        return {"state": "well"}

class Leaves(Loss):
    def forward(self, model, logits, log_counts, signal):
        raise SystemExit(0)

class LeavesLater(Says):
    calls = 0
    def logged(self, model):
        LeavesLater.calls += 1
        if LeavesLater.calls > 1:
            raise SystemExit(0)
        return {}

class Partial(Loss):
    def forward(self, model, logits, log_counts, signal):
        return LossTerms(logits.sum(), None, None)

class Unmade(Loss):
    def __init__(self):
        super().__init__()
        self.scale = 1 / 0
"""


def slow(*case: str):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("loss.name=absent:Loss", "there is no module absent"),
        ("loss.name=mine:Absent", "the module mine has no Absent"),
        ("loss.name=kendal", "Did you mean kendall?"),
        ("loss.name=mine:Nothing", "a loss needs a method forward"),
        ("loss.name=broken:Loss", "the module broken does not load (SyntaxError"),
        ("loss.name=mine:Infinite", "the loss is not finite at step 0"),
        ("loss.name=mine:Many", "returned shape (4, 1): expected LossTerms"),
        (
            "loss.name=mine:Constant",
            "loss.name=mine:Constant: Constant.forward returned an objective",
        ),
        slow(
            "loss.name=mine:LogitsAlone",
            "loss.name=mine:LogitsAlone: LogitsAlone.forward(model, log",
        ),
        ("loss.name=mine:Says", "loss.name=mine:Says: Says.logged(model) returned str"),
        slow(
            "loss.name=mine:Leaves",
            "mine:Leaves: Leaves.forward(model, logits, log_counts, signal) f",
        ),
        slow("loss.name=mine:LeavesLater", "logged ended the program (SystemExit: 0), in line"),
        slow("loss.name=mine:Partial", "'NoneType' object has no attribute 'sum'"),
        slow("loss.name=mine:Unmade", "the __init__ of mine:Unmade fails: ZeroDivisionError"),
        ("model.blocks.name=mine:Short", "its __init__ has to take n_filters, dilation"),
        slow("model.blocks.name=mine:Untrimmed", "expected (2, 34, 8), channels last"),
        (
            "model.blocks.name=mine:Shortens",
            "mine:Shortens: of 200 bases the blocks returned 193. With every dilation",
        ),
        slow(
            "model.blocks.name=mine:TooFar",
            "mine:TooFar: the network on 200 bases fails: ZeroDivisionError: integer division",
        ),
        ("model.blocks.name=mine:Lazy", "mine:Lazy has linear.weight without a shape"),
        ("data.source=hdf", "Did you mean hdf5?"),
        ("loss.name=.mine:Loss", "or write module:Class"),
        slow("loss.name=leaves:Loss", "the module leaves does not load (SystemExit"),
        ("+metrics.x.name=mine:Raises", "metrics.x fails: ZeroDivisionError"),
        slow("+metrics.x.name=mine:Exits", "metrics.x fails: SystemExit: 0"),
        slow(
            "+metrics.x.name=mine:Flat",
            "metrics.x returned (2,): expected a tensor of shape (2, 1)",
        ),
        ("+metrics.profile_mnll.name=mine:Fine", "metrics.profile_mnll: cherimoya has something"),
        slow(
            "+metrics.count_mse.name=mine:Fine",
            "metrics.count_mse: cherimoya has something of that",
        ),
        ("+metrics.loss.name=mine:Fine", "such as metrics.my_loss (in its file: # @package"),
        ("+logger.x.name=mine:Refuses", "logger x did not begin (ZeroDivisionError"),
        ("data.source=mine:Nothing", "a data source needs a method loci"),
        slow("+metrics.x.name=mine:Nothing", "a metric needs a method __call__"),
        slow("+logger.x.name=mine:Nothing", "a logger needs a method check"),
        slow("optim.adamw.name=mine:Nothing", "an optimizer needs a method step"),
    ],
)
def test_a_bad_extension_ends_in_one_message(
    word, said, cherimoya_train, train_arguments, tmp_path
):
    (tmp_path / "mine.py").write_text(WRONG)
    (tmp_path / "broken.py").write_text("class Loss(\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    done = cherimoya_train(*train_arguments, word)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    if word.startswith("+metrics"):  # tried before the first step
        assert "receptive field" not in done.stdout


def test_a_sweep_refuses_the_names_of_our_metrics_before_its_first_member(
    cherimoya_train, train_arguments, tmp_path
):
    (tmp_path / "mine.py").write_text(WRONG)
    words = ("-m", "seed=1,2", "+metrics.auroc.name=mine:Fine", "hydra.sweep.dir=swept")
    done = cherimoya_train(*train_arguments, *words)
    assert done.returncode == 1
    assert "2 of 2 runs cannot be, so none has begun" in done.stderr
    assert done.stderr.count("metrics.auroc: cherimoya has something of that name") == 2
    assert not (tmp_path / "swept").exists()
    assert {*TAKEN} == {*metrics.VALIDATED, "log_counts", "observed"}


@pytest.mark.slow
def test_the_examples_of_contributing_train_and_are_evaluated(
    cherimoya_train, train_arguments, tmp_path
):
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "mine.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    where = f"--config-dir={folder}"
    done = cherimoya_train(
        where, *train_arguments, "model.blocks.name=mine:Gated", "+model.blocks.strength=0.5",
        "loss.name=mine:Scaled", "+loss.strength=0.5", "+metrics.top.name=mine:Share",
        "trainer.max_epochs=1", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < read_run(tmp_path / "run").rows[-1]["valid/top"] < 1
    arguments = (train_arguments[1], "checkpoint=run", "output=scores", "bootstrap=0")
    absent = command("evaluate", *arguments, folder=tmp_path)
    assert "there is no module mine" in absent.stderr
    done = command("evaluate", where, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_installed_package_adds_names_and_group_files(
    cherimoya_train, train_arguments, tmp_path
):
    package, info = tmp_path / "site" / "mylab", tmp_path / "site" / "mylab-1.dist-info"
    (package / "conf" / "loss").mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cherimoya.plugins]\nmylab = mylab\n")
    names = {"loss": {"scaled": "mylab.losses:Scaled"}}
    (package / "__init__.py").write_text(f"NAMES = {names}\nCONF = 'conf'\n")
    (package / "losses.py").write_text(CODE["loss"])
    (package / "conf" / "loss" / "scaled.yaml").write_text("name: scaled\nstrength: 0.5\n")
    site = os.pathsep.join([str(Path(cherimoya.__file__).parents[1]), str(tmp_path / "site")])
    done = cherimoya_train(
        *train_arguments, "loss=scaled", "loss.strength=0.7", "trainer.max_epochs=1",
        PYTHONPATH=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loss.log_scale" in done.stdout
    done = cherimoya_train("loss.name=scald", "--cfg", "job", PYTHONPATH=site)
    assert "Did you mean scaled?" in done.stderr


@pytest.mark.parametrize("name", ["random:Random", "random:Mine"])
def test_a_module_that_hides_the_users_own_file_is_named(name, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("class Mine: pass\n")
    monkeypatch.chdir(tmp_path)
    said = rf"loss\.name={name}: the module random is .*random.py, so {tmp_path}/random.py was not"
    with pytest.raises(ConfigError, match=said):
        registry.find("loss", name)


@pytest.mark.slow
def test_code_that_changed_since_a_run_began_is_said(
    lab, cherimoya_train, train_arguments, tmp_path
):
    where, arguments = lab("loss"), chosen("loss", train_arguments)
    done = cherimoya_train(where, *arguments, "hydra.run.dir=run", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    again = (where, "trainer.resume=run")
    assert "has changed since" not in cherimoya_train(*again).stdout
    with (tmp_path / "lab" / "mine.py").open("a") as file:
        file.write("# another line\n")
    said = "loss.name=mine:"
    [line] = [x for x in cherimoya_train(*again).stdout.splitlines() if "has changed since" in x]
    assert said in line
