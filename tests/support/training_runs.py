"""What runs and sweeps left behind, for comparing them."""

from pathlib import Path

import torch

from cherimoya.records.status import read_json
from cherimoya.training.step import TrainingStep


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / name, weights_only=True)
    if name != "last.pt":
        return content["state_dict"]
    step = content["step"]
    return {**step["model"], **{f"ema.{k}": v for k, v in step["ema"].items()}}


def assert_same_run(a: Path, b: Path) -> None:
    """Equal to the bit: training state, best and final model, every row but its times."""
    for name in ("last.pt", "best.pt", "final.pt"):
        first, second = weights(a, name), weights(b, name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    assert (a / "metrics.jsonl").read_text() == (b / "metrics.jsonl").read_text()


def state_of(step: TrainingStep) -> dict[str, torch.Tensor]:
    """Every tensor of the step's state, by its place in it."""
    found = {}

    def visit(value, place):
        if isinstance(value, torch.Tensor):
            found[place] = value.clone()
        elif isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, f"{place}.{key}")

    visit(step.state_dict(), "")
    return found


def last_table(printed: str) -> str:
    return printed[printed.rindex("=== sweep") :]


def without_times(table: str) -> list[list[str]]:
    """Cells of the rows but the last column, which is minutes."""
    return [line.split("  ")[:-1] for line in table.splitlines()[3:]]


def states(sweep: Path) -> dict[str, dict]:
    """status.json of each member, as it was written."""
    found = {path.parent.name: read_json(path) for path in sweep.glob("*/status.json")}
    return {name: status for name, status in found.items() if status}
