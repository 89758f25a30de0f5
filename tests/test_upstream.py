"""Models go to upstream's package and come back, in another process: both are `cherimoya`.

pip install --no-deps --target up cherimoya==0.3.1
CHERIMOYA_UPSTREAM=up pytest tests/test_upstream.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import sequences

import cherimoya
from cherimoya import Cherimoya, ControlWrapper, ExpectedCountsWrapper, ProfileWrapper

THERE = """
import sys, torch
import cherimoya
from cherimoya import Cherimoya, ControlWrapper, ExpectedCountsWrapper, ProfileWrapper
ours, X, theirs, answer = sys.argv[1:]
found = {"version": cherimoya.__version__}
X = torch.load(X)
for name, model in (
    ("ours", Cherimoya.load(ours, compile=False)),
    ("theirs", Cherimoya(16, 3, [1, 2], 2, trimming=60, verbose=False, compile=False)),
):
    if name == "theirs":
        torch.manual_seed(1)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.2)
        model.save(theirs)
    model.eval()
    with torch.no_grad():
        ones = torch.ones(len(X), 2, X.shape[2])
        found[name] = [*ControlWrapper(model)(X), ExpectedCountsWrapper(model)(X, ones)]
single = Cherimoya.load(ours + ".single", compile=False).eval()
X.requires_grad_()
profile = ProfileWrapper(single)(X)
(gradient,) = torch.autograd.grad(profile.sum(), X)
found["profile"] = [profile.detach(), gradient]
torch.save(found, answer)
"""


@pytest.fixture
def upstream() -> Path:
    folder = os.environ.get("CHERIMOYA_UPSTREAM")
    if not folder:
        pytest.skip("no folder with upstream's package is named by CHERIMOYA_UPSTREAM")
    return Path(folder).resolve()


def randomised(**values) -> Cherimoya:
    torch.manual_seed(2)
    made = Cherimoya(16, 3, trimming=60, profile_kernel_size=75, **values)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return made.eval()


def test_predictions_are_the_same_on_both_sides(upstream, tmp_path):
    net, single = randomised(signal_groups=[1, 2], n_control_tracks=2), randomised()
    net.export_upstream(tmp_path / "ours")
    single.export_upstream(tmp_path / "ours.single")
    X = sequences(3, 300)
    torch.save(X, tmp_path / "X")
    arguments = [str(tmp_path / name) for name in ("ours", "X", "theirs", "answer")]
    done = subprocess.run(
        [sys.executable, "-c", THERE, *arguments], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(upstream)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "answer")
    assert found["version"] == "0.3.1"
    for name, model in (("ours", net), ("theirs", cherimoya.load(tmp_path / "theirs"))):
        with torch.no_grad():
            mine = [
                *ControlWrapper(model)(X),
                ExpectedCountsWrapper(model)(X, torch.ones(3, 2, 300)),
            ]
        for a, b in zip(mine, found[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    X.requires_grad_()
    profile = ProfileWrapper(single)(X)
    (gradient,) = torch.autograd.grad(profile.sum(), X)
    for a, b in zip((profile, gradient), found["profile"], strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()
