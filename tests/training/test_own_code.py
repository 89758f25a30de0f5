"""Code of the user's own that fails on real data, when the run has begun."""

import builtins
import json
import re
import sys
from pathlib import Path
from types import FunctionType

import pytest
import torch
from command_lines import command
from configs import composed
from training_runs import assert_same_run

from cherimoya import registry
from cherimoya.cli.hydra_errors import in_words
from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.errors import LocalError, OwnError
from cherimoya.training.run import train

CODE = '''
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from cherimoya.blocks import BPNetBlock
from cherimoya.config.options import Optimizer
from cherimoya.loggers.base import Logger
from cherimoya.losses import Loss, LossTerms, profile_and_count_losses
import mine_helper

calls = Counter()

def later(name, n=4):
    """Whether this is the n-th call: the first one or two are a trial."""
    calls[name] += 1
    return calls[name] == n

class Usual(Loss):
    def forward(self, model, logits, log_counts, signal):
        profile, count = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        return LossTerms(profile.sum() + count.sum(), profile.detach(), count.detach())

class Raises(Usual):
    def forward(self, model, *batch):
        if later("Raises"):
            raise ZeroDivisionError("of nothing")  # here
        return super().forward(model, *batch)

class RaisesWithin(Usual):
    def forward(self, model, *batch):
        if later("RaisesWithin"):
            mine_helper.divide()
        return super().forward(model, *batch)

class Misuses(Usual):
    def forward(self, model, logits, log_counts, signal):
        if later("Misuses"):
            signal = signal[:, :, 1:]  # no error yet
        return super().forward(model, logits, log_counts, signal)

class Changes(Usual):
    def forward(self, model, logits, log_counts, signal):
        found = logits.exp()
        total = found.sum()
        if later("Changes"):
            found.add_(1)
        return total

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sum()
    @staticmethod
    def backward(ctx, gradient):
        if later("Backward"):
            raise ValueError("no gradient")
        return torch.zeros_like(*ctx.saved_tensors) + gradient

class Differs(Usual):
    def forward(self, model, logits, log_counts, signal):
        return Backward.apply(logits)

class Constant(Usual):
    def forward(self, model, *batch):
        found = super().forward(model, *batch)
        return found.total.detach() if later("Constant") else found

class Nothing(Usual):
    def forward(self, model, *batch):
        return None if later("Nothing") else super().forward(model, *batch)

class Half(Usual):
    def forward(self, model, *batch):
        found = super().forward(model, *batch)
        return LossTerms(found.total, None, None) if later("Half") else found

class Ends(Usual):
    def end_epoch(self, model):
        if later("Ends", 2):
            raise KeyError("missing")

class Tells(Usual):
    def logged(self, model):
        return {"scale": torch.ones(()) if later("Tells", 2) else 1.0}

class TellsNothing(Usual):
    def logged(self, model):
        return None if later("TellsNothing", 2) else {}

class TellsANumber(Usual):
    def logged(self, model):
        return 0.5 if later("TellsANumber", 2) else {}

class Stops(Usual):
    def forward(self, model, *batch):
        if later("Stops"):
            raise StopIteration
        return super().forward(model, *batch)

class Full(Usual):
    def forward(self, model, *batch):
        if later("Full"):
            raise torch.OutOfMemoryError("of memory")
        return super().forward(model, *batch)

class Device(Usual):
    def forward(self, model, *batch):
        if later("Device"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().forward(model, *batch)

class Block(BPNetBlock):
    def forward(self, x, trim=0):
        if later("Block", 12):
            raise IndexError("too far")
        return super().forward(x, trim=trim)

class BlockChanges(nn.Module):
    def __init__(self, n_filters, dilation):
        super().__init__()
        self.linear = nn.Linear(n_filters, n_filters)
    def forward(self, x, trim=0):
        out = self.linear(x).exp()
        if later("BlockChanges", 12):
            x = out.sum() + out.mul_(2)
        return out[:, trim : x.shape[1] - trim] if x.ndim == 3 else out

class BlockShortens(BPNetBlock):
    def forward(self, x, trim=0):
        return super().forward(x, trim=trim + later("BlockShortens", 12))

@dataclass(frozen=True, kw_only=True)
class OfSteps(Optimizer):
    pass

class Steps(torch.optim.Optimizer):
    Settings = OfSteps
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
    def step(self, closure=None):
        if later("Steps"):
            raise ArithmeticError("no step")

class TorchsOwn(torch.optim.NAdam):
    Settings = OfSteps
    def __init__(self, params, lr):
        super().__init__(params, lr)
    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)
        if later("TorchsOwn"):
            self.param_groups[0]["betas"] = None

class Saves(TorchsOwn):
    def step(self, closure=None):
        pass
    def state_dict(self):
        raise LookupError("no state")

class Keeps(torch.optim.NAdam):
    Settings = OfSteps
    def __init__(self, params, lr):
        super().__init__(params, lr)
    def state_dict(self):
        return super().state_dict() | {"calls": Own()}

class Hides(Keeps):
    def state_dict(self):
        return super().state_dict() | {"calls": lambda: 3}

class Own:
    pass

class Source:
    def loci(self):
        raise EOFError("no loci")

class Score:
    def __call__(self, p, counts, signal_groups):
        if later("Score", 3):
            raise TypeError("no score")
        return counts.sum(dim=(1, 2))[:, None]

class Checks(Logger):
    def check(self):
        raise OverflowError("no check")

class Rows(Logger):
    def row(self, values):
        raise SystemExit(0)

class Mended(Usual):
    def forward(self, model, *batch):
        if Path("broken").exists() and later("Mended", 20):
            raise RuntimeError("not mended")
        return super().forward(model, *batch)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with a module `mine`, which is the working directory."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "mine_helper.py").write_text("def divide():\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine", "mine_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def ended(arguments: list[str], *words: str, folder: str = "run") -> BaseException:
    """What a run raises."""
    config = build(TrainConfig, composed("train", [*arguments, *words]))
    try:
        train(config, Path(folder))
    except Exception as error:
        return error
    raise AssertionError("it came to its end")


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(CODE.splitlines(), 1) if text in line)


SIGNS = "+optim.signs={name: 'mine:%s', lr: 0.01}"
ROUTED = "optim.routing=[{pattern: '*', optimizer: signs}]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("loss.name=mine:Raises", "Raises.forward fails: ZeroDivisionError: of nothing, in line"),
        ("loss.name=mine:RaisesWithin", "RaisesWithin.forward fails: ZeroDivisionError: division"),
        ("loss.name=mine:Misuses", "Misuses.forward fails: RuntimeError"),
        ("loss.name=mine:Differs", "Backward.backward fails: ValueError: no gradient, in line"),
        ("loss.name=mine:Changes", "what forward returned, or its gradient, fails: RuntimeError"),
        ("loss.name=mine:Constant", "what forward returned, or its gradient, fails: RuntimeError"),
        ("loss.name=mine:Half", "its gradient, fails: AttributeError: 'NoneType' object has no"),
        ("loss.name=mine:Nothing", "Nothing returned NoneType: expected LossTerms, or the obj"),
        ("loss.name=mine:Ends", "Ends.end_epoch fails: KeyError: 'missing', in line"),
        ("loss.name=mine:Tells", "Tells.logged(model) returned Tensor among its values: expected"),
        ("loss.name=mine:TellsNothing", "TellsNothing.logged(model) returned NoneType: expected"),
        ("loss.name=mine:TellsANumber", "TellsANumber.logged(model) returned float: expected"),
        ("loss.name=mine:Stops", "Stops.forward fails: StopIteration, in line"),
        ("model.blocks.name=mine:Block", "Block.forward fails: IndexError: too far, in line"),
        ("model.blocks.name=mine:BlockChanges", "what forward returned, or its gradient, fails"),
        ("model.blocks.name=mine:BlockShortens", "of 200 bases the blocks returned 198. With"),
        (f"optim.signs.name=mine:Keeps {SIGNS % 'Keeps'} {ROUTED}", "returned mine.Own"),
        (f"optim.signs.name=mine:Hides {SIGNS % 'Hides'} {ROUTED}", "returned what cannot be save"),
        (f"optim.signs.name=mine:Steps {SIGNS % 'Steps'} {ROUTED}", "Steps.step fails: Arithm"),
        (f"optim.signs.name=mine:Saves {SIGNS % 'Saves'} {ROUTED}", "Saves.state_dict fails: Look"),
        (f"optim.signs.name=mine:TorchsOwn {SIGNS % 'TorchsOwn'} {ROUTED}", "NAdam.step fails: Ty"),
        ("+metrics.x.name=mine:Score", "metrics.x fails: TypeError: no score, in line"),
    ],
)  # fmt: skip
def test_it_ends_in_one_message_that_says_where_and_how_to_go_on(
    words, said, mine, train_arguments
):
    named, *more = re.split(r" (?=\+|optim.routing)", words)
    error = ended(train_arguments, *(more or [named]))
    message = str(error)
    assert isinstance(error, OwnError)
    assert isinstance(error, LocalError)  # one of several processes may be the only one to meet it
    assert said in message
    assert named.partition(".name")[0].lstrip("+") in message
    assert re.search(
        r"It was at step \d+ \(epoch [012]\), and (what run/checkpoints holds|nothing)", message
    )
    assert "Correct it, and continue with: cherimoya-train trainer.resume=run" in message
    assert "\n" not in message
    if "torch" not in message and "returned" not in message:
        assert f"of {mine}/mine" in message
    status = json.loads(Path("run/status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", message)
    assert "Traceback (most recent call last)" in status["traceback"]


def test_the_line_is_that_of_ones_own_code_and_that_of_ours_beside_it(mine, train_arguments):
    where = line_of("# here")
    assert f"in line {where} of {mine}/mine.py. It was at step 2" in str(
        ended(train_arguments, "loss.name=mine:Raises")
    )
    said = str(ended(train_arguments, "loss.name=mine:Misuses", folder="two"))
    ours = re.search(r"in line \d+ of \S+/mine.py \(raised in line (\d+) of (\S+)\)", said)
    lines = Path(ours[2]).read_text().splitlines()
    assert "multinomial_nll" in lines[int(ours[1]) - 1] or "log" in lines[int(ours[1]) - 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.source=mine:Source", "data.source=mine:Source: loci() fails: EO"),
        ("+logger.x.name=mine:Checks", "logger.x.name=mine:Checks: Checks.check fails: Overflow"),
    ],
)
def test_what_fails_before_the_run_has_begun_says_nothing_of_going_on(
    words, said, mine, train_arguments
):
    if words.startswith("data"):
        train_arguments = [*train_arguments[2:], "data.path=null", "data.cache_dir=cache"]
    error = ended(train_arguments, words)
    assert said in str(error)
    assert "continue" not in str(error)
    assert not Path("run/config.yaml").exists()


def test_a_logger_that_exits_is_left_out(mine, train_arguments, capsys):
    config = build(TrainConfig, composed("train", [*train_arguments, "+logger.x.name=mine:Rows"]))
    train(config, Path("run"))
    assert "logger x failed (SystemExit: 0). The run goes on" in capsys.readouterr().out


def test_full_memory_and_a_device_that_fails_are_nobodys_fault(mine, train_arguments):
    assert "out of memory on the device" in str(ended(train_arguments, "loss.name=mine:Full"))
    Path("run").rename("first")
    error = ended(train_arguments, "loss.name=mine:Device")
    assert type(error) is RuntimeError
    assert str(error).startswith("CUDA error")


def fails_like_ours(*_, **__):
    raise AssertionError("of ours")


@pytest.mark.parametrize(
    "place",
    [
        "cherimoya.ops.reference._CheriBlock.backward",
        "cherimoya.network.heads",
        "cherimoya.training.trainer.Trainer._row",
        "cherimoya.training.step.training_loss",
        "cherimoya.evaluation.scores._profile_metrics",
    ],
)
def test_an_error_of_our_own_code_is_left_as_it_is(place, mine, train_arguments, monkeypatch):
    """Also where a loss and a metric of the user's own are chosen."""
    ours = FunctionType(fails_like_ours.__code__, vars(builtins) | {"__name__": "cherimoya.ops"})
    monkeypatch.setattr(place, staticmethod(ours) if "_CheriBlock" in place else ours)
    error = ended(train_arguments, "loss.name=mine:Usual", "+metrics.x.name=mine:Score")
    assert type(error) is AssertionError
    assert json.loads(Path("run/status.json").read_text())["state"] == "failed"


def test_the_commands_on_models_say_it_in_one_message_too(mine, monkeypatch):
    metric = registry.find("metrics", "mine:Score")()
    metric(torch.ones(1, 1, 1), torch.ones(1, 1, 1), [1])
    metric(torch.ones(1, 1, 1), torch.ones(1, 1, 1), [1])
    with pytest.raises(TypeError) as raised:
        metric(torch.ones(1, 1, 1), torch.ones(1, 1, 1), [1])
    found = in_words(raised.value, "evaluate", [], EvaluateConfig)
    assert str(found).startswith("metrics.name=mine:Score: Score.__call__ fails: TypeError: no sc")
    with pytest.raises(TypeError) as raised:
        [*map(len, [1])]
    assert in_words(raised.value, "evaluate", [], EvaluateConfig) is None


@pytest.mark.slow
def test_a_run_goes_on_when_its_loss_is_mended(mine, train_arguments):
    """And ends as one that nothing was wrong with; the command line says one line."""
    arguments = [*train_arguments, "loss.name=mine:Mended"]
    whole = command("train", *arguments, "hydra.run.dir=whole", folder=mine)
    assert whole.returncode == 0, whole.stderr
    (mine / "broken").touch()
    done = command("train", *arguments, "hydra.run.dir=run", folder=mine)
    assert done.returncode == 1
    assert done.stderr.startswith("error: loss.name=mine:Mended: Mended.forward fails: RuntimeErr")
    assert len(done.stderr.splitlines()) == 1
    (mine / "broken").unlink()
    again = done.stderr.rpartition("cherimoya-train ")[2].split()
    resumed = command("train", *again, folder=mine)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(mine / "whole", mine / "run")
