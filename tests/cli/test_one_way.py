"""From the command to the first step: few calls, no generator, and few compositions."""

import inspect
import json

from command_lines import python

from cherimoya.training.run import ready, train

DEPTH = """
import inspect, json, sys
from pathlib import Path
import torch, cherimoya
from cherimoya.cli.train import train
home, chains = str(Path(cherimoya.__file__).parent), []
plain = torch.optim.AdamW.step
def step(self, *arguments, **named):
    frames, frame = [], sys._getframe(1)
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(home):
            generator = bool(code.co_flags & inspect.CO_GENERATOR)
            frames.append((code.co_qualname, generator))
        frame = frame.f_back
    chains.append(frames[::-1])
    return plain(self, *arguments, **named)
torch.optim.AdamW.step = step
train()
print("CHAIN", json.dumps(chains[0]))
"""
COMPOSED = """
import json
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from cherimoya.cli.train import train
asked, plain = [], ConfigLoaderImpl.load_configuration
def load(self, config_name, overrides, *arguments, **named):
    asked.append([str(word) for word in overrides])
    return plain(self, config_name, overrides, *arguments, **named)
ConfigLoaderImpl.load_configuration = load
train()
print("ASKED", json.dumps(asked))
"""


def told(code, word, arguments, folder):
    """What a program that trains with `arguments` says behind `word`."""
    done = python(code, *arguments, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(word)]
    return json.loads(line.removeprefix(word))


def test_the_first_step_lies_seven_calls_below_the_command(train_arguments, tmp_path):
    chain = told(DEPTH, "CHAIN", [*train_arguments, "trainer.max_epochs=1"], tmp_path)
    listed = " > ".join(name for name, _ in chain)
    assert chain[0][0] == "train", listed
    assert chain[-1][0] == "TrainingStep.__call__", listed
    assert len(chain) <= 7, listed
    assert not any(is_generator for _, is_generator in chain), listed


def test_training_reads_from_top_to_bottom_on_a_page():
    lines = [len(inspect.getsource(function).splitlines()) for function in (train, ready)]
    assert sum(lines) < 80


def test_a_run_is_composed_once(train_arguments, tmp_path):
    arguments = [*train_arguments, "trainer.max_epochs=1"]
    asked = told(COMPOSED, "ASKED", arguments, tmp_path)
    # Two more are of the default and of the chosen options alone, to tell what was changed.
    own = [words for words in asked if any(word.startswith("model=tiny") for word in words)]
    assert len(asked) <= 3
    assert len([words for words in own if "trainer.max_epochs=1" in words]) == 1


def test_a_member_is_composed_before_the_first_begins_and_by_the_launcher(
    train_arguments, tmp_path
):
    arguments = ["-m", *train_arguments, "trainer.max_epochs=1", "seed=0,1,2"]
    asked = told(COMPOSED, "ASKED", arguments, tmp_path)
    # All are checked before the first begins; a launcher of Hydra's is given words, not values.
    for seed in range(3):
        assert sum(f"seed={seed}" in words for words in asked) == 2
    # The sweep's own part of the configuration, Hydra's for the launcher, and two of defaults.
    assert len(asked) <= 2 * 3 + 4
