"""The Python API: loading, predicting from arrays and letters, and what is left as it was."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_lines import REPOSITORY
from models import GROUPS, model, sequences

import cherimoya
from cherimoya import Cherimoya, Ensemble, predict
from cherimoya.errors import CherimoyaError, ConfigError, DataError
from cherimoya.inference.wrappers import ExpectedCountsWrapper
from cherimoya.interpret.mutagenesis import saturation_mutagenesis


def letters(X: torch.Tensor) -> list[str]:
    return ["".join("ACGT"[i] for i in row) for row in X.argmax(1).tolist()]


def test_predictions_are_the_models_own_whatever_the_batch():
    net, X = model(), sequences(7)
    with torch.no_grad():
        logits, log_counts = net(X)
    for size in (1, 3, 64):
        found = predict(net, X, batch_size=size)
        torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.log_counts, log_counts, rtol=1e-5, atol=1e-5)
    mine, own = found
    assert mine is found.logits
    assert own is found.log_counts
    torch.testing.assert_close(found.counts, torch.expm1(log_counts))
    with torch.no_grad():
        torch.testing.assert_close(found.expected_counts, ExpectedCountsWrapper(net)(X))
    sums = [p.sum((1, 2)) for p in found.probabilities.split(GROUPS, dim=1)]
    torch.testing.assert_close(torch.stack(sums), torch.ones(2, 7))
    assert not found.logits.requires_grad


def test_letters_arrays_and_tensors_are_alike():
    net, X = model(), sequences(3)
    wanted = predict(net, X)
    text = letters(X)
    for given in (
        text,
        [t.lower() for t in text],
        X.numpy().astype(np.int8),
        tuple(text),
        np.array(text),
    ):
        assert torch.equal(predict(net, given).logits, wanted.logits)
    assert torch.equal(predict(net, text[1]).logits, predict(net, X[1:2]).logits)


def test_unknown_bases_are_zeros():
    X = cherimoya.one_hot("AnRt")
    assert X[0].T.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 0, 1]]


def test_a_run_is_loaded_by_its_folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CherimoyaError, match=r"no checkpoint at .*best\.pt"):
        cherimoya.load(tmp_path)
    net, X = model(), sequences(2)
    net.save(tmp_path / "checkpoints" / "best.pt")
    assert torch.equal(predict(cherimoya.load(tmp_path), X).logits, predict(net, X).logits)


def test_the_documentation_names_every_public_name():
    part = (REPOSITORY / "docs" / "python.md").read_text()
    for name in cherimoya.__all__:
        assert re.search(rf"\b{name}\b", part), name
        assert getattr(cherimoya, name).__doc__, name


def test_a_gpu_that_is_not_there_and_a_batch_of_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device=cuda, but torch sees no GPU\. Use device='cpu'"):
        predict(model(), "ACGT" * 25, device="cuda")
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        predict(model(), "ACGT" * 25, batch_size=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["ACGT", "ACG"], r"lengths \[3, 4\]"),
        (["ACGT", "AC-T"], "sequence 1 has '-' at position 2"),
        ("ACGTé", "has 'é' at position 4"),
        ("", "over 0"),
        ([], "lengths"),
        (torch.zeros(0, 4, 100), "X is empty"),
        (torch.zeros(2, 100, 4), r"expected \(N, 4, L\)"),
        (None, "X is of type NoneType: expected one-hot sequences"),
        (["ACGT" * 25, None], "X is of type list"),
        (torch.zeros(1, 4, 100, dtype=torch.complex64), "X is of type Tensor"),
        (torch.full((1, 4, 100), torch.nan), "X has numbers that are not finite"),
    ],
)
def test_sequences_that_are_none(given, words):
    with pytest.raises(ValueError, match=words):
        predict(model(), given)


def test_controls_go_along():
    net, X, control = model(controls=2), sequences(5), torch.rand(5, 2, 100)
    with torch.no_grad():
        logits, _ = net(X, control)
    found = predict(net, X, control, batch_size=2)
    torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="X_ctl has 4 rows, but X has 5"):
        predict(net, X, control[:4])
    with pytest.raises(ValueError, match="needs controls"):
        predict(net, X)


def test_the_model_is_left_as_it_was():
    net = model().train()
    predict(net, sequences(), device="cpu")
    assert net.training
    with pytest.raises(ValueError, match="expected"):
        predict(net, torch.zeros(1, 4, 3))
    assert net.training
    with pytest.raises(ConfigError, match=r"^precision=bf16"):
        predict(net, sequences(), precision="bf16")
    for wrong in ("auto", "bfloat16"):
        with pytest.raises(ConfigError, match=rf"^precision={wrong}: must be one of fp32, tf32"):
            predict(net, sequences(), precision=wrong)


def test_answers_that_are_not_finite_are_refused():
    net = model()
    with torch.no_grad():
        net.blocks[0].linear1.weight[0, 0] = torch.inf
    with pytest.raises(DataError, match="answers are not finite: it diverged"):
        predict(net, sequences())
    with pytest.raises(DataError, match="answers are not finite"):
        saturation_mutagenesis(net, sequences(1), window=slice(40, 42))


def test_an_ensemble_predicts_too():
    models, X = [model(0), model(1)], sequences()
    found = predict(Ensemble(models), X)
    p = torch.stack([predict(m, X).probabilities for m in models]).mean(0)
    torch.testing.assert_close(found.probabilities, p, rtol=1e-5, atol=1e-8)


def test_files_of_both_kinds_load(tmp_path, shared):
    net = model()
    net.save(tmp_path / "own.pt")
    X = sequences()
    own = cherimoya.load(tmp_path / "own.pt")
    assert torch.equal(predict(own, X).logits, predict(net, X).logits)
    assert not own.training
    upstream = Cherimoya.from_upstream(shared / "parity/v031_groups_controls.torch")
    upstream.export_upstream(tmp_path / "again.torch")
    again = cherimoya.load(tmp_path / "again.torch")
    assert again.config == upstream.config
    for mine, own in zip(again.parameters(), upstream.parameters(), strict=True):
        assert torch.equal(mine, own)
    with pytest.raises(CherimoyaError, match="no checkpoint"):
        cherimoya.load(tmp_path / "absent.pt")


def test_the_names_are_there_and_the_package_imports_nothing():
    code = (
        "import sys, cherimoya\n"
        "assert not {'torch', 'numpy', 'h5py'} & set(sys.modules)\n"
        "assert set(cherimoya.__all__) <= set(dir(cherimoya))\n"
        "for name in cherimoya.__all__: getattr(cherimoya, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cherimoya.nothing
