"""Where a training step spends its time: a trace of some steps, and a table."""

from collections.abc import Callable
from pathlib import Path

import torch

from cherimoya.util.console import counted, result, warning

WARMUP_LOOKS = 3  # of the training loop, before the record begins
STEPS = 16  # recorded at least
ROWS = 30


class Profile:
    """Records some steps between looks of the training loop into `folder`/profile."""

    def __init__(self, folder: Path, device: torch.device, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "profile", say
        self._cuda = device.type == "cuda"
        self._looks, self._steps = 0, 0
        self._profiler: torch.profiler.profile | None = None

    def look(self, steps: int) -> None:
        """Begin or end the record; the loop calls it at each look, `steps` after the one before."""
        self._looks += 1
        if self._looks == WARMUP_LOOKS:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._cuda:
                torch.cuda.synchronize()
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
        elif self._profiler is not None:
            self._steps += steps
            if self._steps >= STEPS:
                self._write(self._profiler)

    def close(self) -> None:
        """Write what there is, at the end of the training."""
        if self._profiler is not None:
            self._write(self._profiler)
        elif not self._steps:
            self._say(warning(f"no profile: it begins after {WARMUP_LOOKS} looks at the steps"))

    def _write(self, profiler: torch.profiler.profile) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        profiler.stop()
        self._profiler = None
        self._folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._folder / "trace.json"))
        by = "self_cuda_time_total" if self._cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=ROWS)
        steps = counted(self._steps, "step")
        (self._folder / "table.txt").write_text(f"{steps}\n{table}")
        self._say(result(f"profile of {steps}: {self._folder}/table.txt and trace.json"))
