"""Several processes for one run: who started them, and starting them.

A launcher tells each process its RANK and how many there are, WORLD_SIZE. torchrun does, and so
does `start`, by the same elastic launcher; srun says it in words of its own.
"""

import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cherimoya.config.diff import Changes
from cherimoya.config.schema import to_dict
from cherimoya.config.train import TrainConfig
from cherimoya.errors import STOP_SIGNALS, ConfigError, Interrupted, ProcessError
from cherimoya.util.console import resume_command

WORKER = "from cherimoya.cli.train import worker; worker()"
FIRST_PORT, PORTS = 20000, 10000
STOP_SECONDS = 600  # that processes have to save after a signal


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world() -> int:
    """How many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def read_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Say in torchrun's words what srun says of its tasks, if srun started several of them."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1" or "WORLD_SIZE" in environment or "SLURM_PROCID" not in environment:
        return
    number = int(environment["SLURM_JOB_ID"]) + 1009 * int(environment.get("SLURM_STEP_ID", 0))
    port = FIRST_PORT + number % PORTS
    environment.update({
        "WORLD_SIZE": tasks,
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": environment["SLURM_STEP_TASKS_PER_NODE"].split("(")[0].split(",")[0],
        "MASTER_PORT": str(port),
    })  # fmt: skip
    environment.setdefault("MASTER_ADDR", _first_host(environment["SLURM_STEP_NODELIST"]))


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts: node[07-09,12],other -> node07."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.split(",")[0]
    return head + rest.split("]")[0].split(",")[0].split("-")[0]


def count_devices(trainer: dict[str, Any]) -> None:
    """trainer.devices is what a launcher started; raises ConfigError if another was asked for."""
    if world() > 1 and trainer["devices"] not in (1, world()):
        raise ConfigError(
            f"trainer.devices={trainer['devices']}, but a launcher started {world()} processes. "
            "Leave trainer.devices out."
        )
    if world() > 1:
        trainer["devices"] = world()


def start(config: TrainConfig, folder: Path, changes: Changes) -> None:
    """Run `config` in `config.trainer.devices` processes, and wait for them.

    Raises Interrupted after Ctrl-C or SIGTERM, and ProcessError if a process failed.
    """
    _check_gpus(config)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    newer: dict[str, Any] = {
        "signals_to_handle": ",".join(s.name for s in STOP_SIGNALS),
        "shutdown_timeout": STOP_SECONDS,
    }
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=config.trainer.devices, max_restarts=0,
        run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        **{k: v for k, v in newer.items() if k in LaunchConfig.__dataclass_fields__},
    )  # fmt: skip
    values = json.dumps([to_dict(config), str(folder), asdict(changes)])
    before = {s: signal.getsignal(s) or signal.SIG_DFL for s in STOP_SIGNALS}
    try:
        elastic_launch(settings, sys.executable)("-P", "-c", WORKER, values)
    except ChildFailedError as error:
        raise ProcessError(_what_happened(error.failures, folder)) from None
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    finally:  # which the elastic launcher does not do
        for s, handler in before.items():
            signal.signal(s, handler)


def _what_happened(failures: Mapping[int, Any], folder: Path) -> str:
    """Of processes that a signal ended; what others met they have said themselves."""
    killed = [
        f"{rank} (by signal {-f.exitcode})"
        for rank, f in failures.items()
        if f.exitcode < 0 and f.exitcode != -signal.SIGTERM  # the launcher's own, after a failure
    ]
    if not killed:
        return ""
    return (
        f"process {', '.join(killed)} of the run was killed, probably out of memory. Continue "
        f"with: {resume_command(folder)}"
    )


def _check_gpus(config: TrainConfig) -> None:
    if config.trainer.device == "cpu":
        return
    import torch

    gpus = torch.cuda.device_count()
    if config.trainer.devices <= gpus:
        return
    if not gpus and config.trainer.device == "auto":
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}, but torch sees no GPU. Leave it out, or "
            "use trainer.device=cpu to train in several processes on the CPU."
        )
    raise ConfigError(
        f"trainer.devices={config.trainer.devices}, but torch sees {gpus} GPUs. Set "
        f"trainer.devices={max(gpus, 1)}."
    )
