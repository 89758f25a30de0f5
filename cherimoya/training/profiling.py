"""Where a training step spends its time: a trace of some steps, and a table."""

from collections.abc import Callable
from pathlib import Path

import torch

FIRST_LOOK, LAST_LOOK = 3, 4  # the steps between them are recorded, after those that warm up
ROWS = 30


class Profile:
    """Records the steps between two looks of the training loop into `folder`/profile."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "profile", say
        self._looks = 0
        self._profiler: torch.profiler.profile | None = None

    def look(self) -> None:
        """Begin or end the record; the loop calls it at each of its looks."""
        self._looks += 1
        if self._looks == FIRST_LOOK:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
        elif self._looks == LAST_LOOK and self._profiler is not None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._profiler.stop()
            self._write(self._profiler)

    def _write(self, profiler: torch.profiler.profile) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._folder / "trace.json"))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=ROWS)
        (self._folder / "table.txt").write_text(table)
        self._say(f"profile of some steps: {self._folder}/table.txt, trace.json (chrome://tracing)")
