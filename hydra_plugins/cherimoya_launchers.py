"""hydra/launcher=processes, packed and slurm: Hydra takes plug-ins from hydra_plugins alone."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from omegaconf import OmegaConf, open_dict


class Processes(BasicLauncher):
    """Several processes of this machine, see cherimoya.sweeps.launchers.Pool."""

    def __init__(self, processes: int | None = None) -> None:
        super().__init__()
        self.processes = processes

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; what came of them is in their folders."""
        from cherimoya.cli.train import TrainJob
        from cherimoya.sweeps.launchers import Pool

        job = self.task_function
        assert isinstance(job, TrainJob)
        assert job.sweep is not None
        assert self.config is not None
        Pool(job.sweep, job.problems, self.config, self.processes).run(job_overrides)
        return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]


class Packed(BasicLauncher):
    """Several members at once in this process, see cherimoya.training.packed."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; what came of them is in their folders."""
        from cherimoya.cli.train import TrainJob

        assert isinstance(self.task_function, TrainJob)
        with self.task_function.packing(self.members):
            return super().launch(job_overrides, initial_job_idx)


# What submitit calls the same on every kind of cluster.
COMMON = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name", "stderr_to_stdout")


class Slurm(BasicLauncher):
    """Jobs of submitit, for what is not done yet, and waiting for all to end."""

    def __init__(self, cluster: str, **settings: Any) -> None:
        super().__init__()
        self.cluster = cluster
        self.settings: dict[str, Any] = {  # pickled with the job, so no values of OmegaConf's
            k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v
            for k, v in settings.items()
        }

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; what came of them is in their folders."""
        from cherimoya.cli.train import TrainJob
        from cherimoya.sweeps.launchers import not_done, wait_for

        assert isinstance(self.task_function, TrainJob)
        assert self.task_function.sweep is not None
        assert self.config is not None
        left = not_done(self.task_function.sweep, job_overrides)
        if left:
            wait_for(self._submitted(left, initial_job_idx), self.config.hydra.sweep.dir)
        return [JobReturn(overrides=o, status=JobStatus.COMPLETED) for o in job_overrides]

    def _submitted(self, jobs: Sequence[Sequence[str]], first: int) -> list[Any]:
        import submitit
        from submitit.core.utils import JobPaths

        from cherimoya.util.files import private_folder

        settings = {k: v for k, v in self.settings.items() if v is not None}
        timeouts = settings.pop("max_num_timeout")
        folder = settings.pop("submitit_folder")
        private_folder(JobPaths.get_first_id_independent_folder(folder))  # of pickles
        executor = submitit.AutoExecutor(
            folder, self.cluster,
            slurm_max_num_timeout=timeouts, local_max_num_timeout=timeouts,
        )  # fmt: skip
        executor.update_parameters(
            **{k if k in COMMON else f"slurm_{k}": v for k, v in settings.items()}
        )
        state = Singleton.get_state()
        each = [(list(words), i, state) for i, words in enumerate(jobs, start=first)]
        submitted: list[Any] = executor.map_array(self, *zip(*each, strict=True))
        return submitted

    def __call__(self, words: list[str], number: int, state: Any) -> JobReturn:
        """One job, where it runs: as Hydra's own launcher runs it, with Hydra's state of before."""
        import submitit

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.task_function is not None
        Singleton.set_state(state)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = submitit.JobEnvironment().job_id, number
        return run_job(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues when a job's time is up: the same, which goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)
