"""The same engine on a GPU: trains, repeats itself and agrees with the CPU."""

import json

import pytest
import torch

from cherimoya import Cherimoya

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


def test_two_runs_on_the_gpu_are_equal_to_the_bit(cherimoya_train, train_arguments, tmp_path):
    for name in ("a", "b"):
        done = cherimoya_train(*train_arguments, "trainer=gpu", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "final.pt", weights_only=True)["state_dict"]
        for name in ("a", "b")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_on_the_gpu_learns_what_the_cpu_learns(cherimoya_train, train_arguments, tmp_path):
    for device in ("gpu", "cpu"):
        done = cherimoya_train(*train_arguments, f"trainer={device}", f"hydra.run.dir={device}")
        assert done.returncode == 0, done.stderr
    first, second = (
        json.loads((tmp_path / device / "metrics.jsonl").read_text().splitlines()[0])
        for device in ("gpu", "cpu")
    )
    assert first["train/loss"] == pytest.approx(second["train/loss"], rel=1e-3)


def test_predictions_agree_with_the_cpu():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=32, n_layers=5, signal_groups=[2], profile_kernel_size=9)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    codes = torch.randint(0, 4, (3, 400))
    X = torch.nn.functional.one_hot(codes, 4).mT.float()
    with torch.no_grad():
        expected = model(X)
        found = model.cuda()(X.cuda())
    for a, b in zip(found, expected, strict=True):
        assert (a.cpu() - b).norm() < 1e-4 * b.norm()
