"""hydra/launcher=processes. Hydra accepts plug-ins from the namespace hydra_plugins alone."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Processes(Launcher):
    """Several processes of this machine, see cherimoya.cli_launchers.Pool."""

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the task, which is that of cherimoya.cli, and the configuration."""
        self.task, self.config = task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; what came of them is in their folders."""
        from cherimoya.cli_launchers import Pool

        Pool(self.task, self.config, self.processes).run(job_overrides)
        return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]
