"""Starting training on several processes, of one machine or many, through `accelerate launch`."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

import torch

from chronocoder.errors import ConfigError

_MARK = "CHRONOCODER_LAUNCHED"


@dataclass(frozen=True)
class Machines:
    """The machines that train together; `launch` is called on each of them.

    Attributes:
        count: number of machines.
        rank: this one, from 0.
        address: where the first one is reached.
        port: a free port of the first one; 0, to have one chosen, is for a single machine only.
    """

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def is_launched() -> bool:
    """Say whether this process is one of those that `launch` started."""
    return _MARK in os.environ


def launch(script: Sequence[str], processes: int, machines: Machines) -> int:
    """Run a script and its arguments on several processes, one a GPU where there are GPUs, and return its status.

    The user's own Accelerate configuration is left out of account. SIGTERM and SIGUSR2 are passed on.

    Args:
        script: path and arguments.
        processes: over all machines.
        machines: where they run.

    Raises:
        ConfigError: the processes cannot be shared out evenly, or the machine has GPUs, but fewer than its processes.
    """
    if processes % machines.count:
        raise ConfigError(f"{processes} processes cannot be shared evenly by {machines.count} machines; change one")
    gpus, here = torch.cuda.device_count(), processes // machines.count
    if 0 < gpus < here:
        raise ConfigError(f"training.processes asks for {here} a machine, but there are {gpus} GPUs; lower it")
    options = ["--num_processes", str(processes), "--num_machines", str(machines.count), "--mixed_precision", "no"]
    options += ["--machine_rank", str(machines.rank), "--main_process_ip", machines.address]
    # --multi_gpu makes it start processes at all; without GPUs they find out themselves that they are CPU processes.
    options += ["--dynamo_backend", "no", "--main_process_port", str(machines.port), "--multi_gpu"]
    options += ["--rdzv_backend", "static"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *script]
    with subprocess.Popen(command, env={**os.environ, _MARK: "1"}) as process:

        def pass_on(_number: int, _frame: FrameType | None) -> None:
            process.terminate()  # the launcher passes SIGTERM on to its processes, and no other signal

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, pass_on)
        return process.wait()
