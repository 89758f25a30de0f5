"""cherimoya-export: a trained model as safetensors, ONNX or an exported program of PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cherimoya.config.export import SAFETENSORS, ExportConfig
from cherimoya.config.schema import to_dict
from cherimoya.errors import CherimoyaError
from cherimoya.export.formats import FORMATS, Format, Run
from cherimoya.inference.checkpoints import (
    GROUPS,
    TRAINED_ON,
    USUAL_OUTPUT,
    WINDOW,
    Checkpoint,
    find_checkpoint,
    input_window,
    named_sources,
)
from cherimoya.inference.predictor import predict
from cherimoya.network import Cherimoya
from cherimoya.prepare.provenance import check_output, made_from
from cherimoya.records.overwrite import check_inputs_kept
from cherimoya.records.provenance import git_commit, versions
from cherimoya.util import console
from cherimoya.util.console import result
from cherimoya.util.files import lock_output
from cherimoya.util.marks import marked_path
from cherimoya.util.model_file import CONFIG
from cherimoya.util.resume import is_done

BATCHES = (1, 2, 5)  # sequences at once, of which a file is asked
UNKNOWN = 20  # of so many bases one is unknown
MEAN_COUNTS = 5.0  # at a base of the control tracks
FREE = ("checkpoint", "output", "overwrite", "in_window")  # keys that `settings` name otherwise


def export(config: ExportConfig) -> Path:
    """Write what `config` says, and compare its answers with the model's; returns the file.

    Raises CherimoyaError for anything the user can mend, PackageError for a package that the
    format needs, and CherimoyaError where the answers differ: then no file is kept.
    """
    output, to = Path(config.output), FORMATS[config.kind]
    check_output(output)
    check_inputs_kept(config, {output: ""})
    to.check()
    with lock_output(output):
        _export(config, output, to)
    return output


def _export(config: ExportConfig, output: Path, to: Format) -> None:
    checkpoint = find_checkpoint(config.checkpoint[0])
    model = checkpoint.load(bias=None if config.kind == SAFETENSORS else config.bias).eval()
    usual = 2 * model.trimming + USUAL_OUTPUT, f"for {USUAL_OUTPUT:,} predicted"
    length = input_window([checkpoint], model.trimming, "in_window", config.in_window, usual)
    made = made_from([("checkpoint", checkpoint.path)])
    settings = {key: value for key, value in to_dict(config).items() if key not in FREE}
    settings |= {"export": config.kind, "sources": made["sources"]}
    settings |= {} if config.kind == SAFETENSORS else {"input": length}
    if is_done(output, settings, config.overwrite, console.say):
        console.say(result(f"done already: {output}"))
        return
    made["sources"] = named_sources(made["sources"], [checkpoint])
    facts = _facts(checkpoint, model, length if config.kind != SAFETENSORS else None)
    facts["provenance"] = made | {"git_commit": git_commit(), "versions": versions()}
    numbers = sum(value.numel() for value in model.state_dict().values())
    console.say(f"{'export':<12} {to.words}, {numbers:,} numbers")
    with marked_path(output, {"settings": settings}) as temporary:
        to.write(temporary, model, length, facts)
        difference = _difference(model, to.read(temporary), length)
        console.say(
            f"{'check':<12} largest difference {difference:.2g} (at most {to.tolerance:g}), of "
            f"{', '.join(map(str, BATCHES))} random sequences of {length:,} bases at once"
        )
        if not difference <= to.tolerance:
            raise CherimoyaError(
                f"output={output}: its answers differ from the model's by {difference:.2g} of the "
                f"largest, more than {to.tolerance:g}, so it is not kept. Choose another export."
            )
        size = temporary.stat().st_size
    console.say(result(f"{output}: written, {size:,} bytes"))


def _facts(checkpoint: Checkpoint, model: Cherimoya, length: int | None) -> dict[str, Any]:
    """What a file tells of its model, JSON-ready; of the window that is built in, if one is."""
    window: Sequence[int | None] = checkpoint.window
    if length is not None:
        window = length, length - 2 * model.trimming
    facts = {
        CONFIG: model.config,
        WINDOW: list(window) if window[0] is not None else None,
        GROUPS: checkpoint.groups or None,
        TRAINED_ON: checkpoint.trained_on(),
        "with_bias": model.with_bias if model.bias_model is not None and length else None,
    }
    return {key: value for key, value in facts.items() if value is not None}


@torch.no_grad()
def _difference(model: Cherimoya, run: Run, length: int) -> float:
    """The largest difference between answers, as a share of the largest answer if that is over 1.

    Raises DataError where the model's own are not finite.
    """
    made = torch.Generator().manual_seed(0)
    worst = 0.0
    for n in BATCHES:
        sequence, control = _random(n, model.n_control_tracks, length, made)
        expected = predict(model, sequence, control)
        for own, its in zip(expected, run(sequence, control), strict=True):
            scale = max(1.0, float(own.abs().max()))
            found = float((own - its).abs().max()) / scale if own.shape == its.shape else torch.inf
            worst = max(worst, found if found == found else torch.inf)
    return worst


def _random(
    n: int, tracks: int, length: int, made: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """One-hot sequences (n, 4, length), some bases unknown, and controls (n, tracks, length)."""
    codes = torch.randint(4, (n, length), generator=made)
    known = torch.randint(UNKNOWN, (n, 1, length), generator=made) > 0
    sequence = torch.nn.functional.one_hot(codes, 4).transpose(1, 2) * known
    if not tracks:
        return sequence.float(), None
    means = torch.full((n, tracks, length), MEAN_COUNTS)
    return sequence.float(), torch.poisson(means, generator=made)
