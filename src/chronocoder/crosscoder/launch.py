"""Starting training on several processes, of one machine or many, through `accelerate launch`."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import psutil
import torch

from chronocoder.errors import ConfigError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
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

    The user's own Accelerate configuration is left out of account. SIGTERM and SIGUSR2 go to the processes themselves,
    which save their state and end; the status is then 128 and the signal's number.

    Args:
        script: path and arguments.
        processes: over all machines.
        machines: where they run.

    Raises:
        ConfigError: the processes cannot be shared out evenly, the machine has GPUs, but fewer than its processes, or
            several machines have no port to meet at.
    """
    if processes % machines.count:
        raise ConfigError(f"{processes} processes cannot be shared evenly by {machines.count} machines; change one")
    if machines.count > 1 and not machines.port:
        raise ConfigError(f"{machines.count} machines need --main-port, a free port of machine 0; give the same to all")
    gpus, here = torch.cuda.device_count(), processes // machines.count
    if 0 < gpus < here:
        raise ConfigError(f"--processes asks for {here} a machine, but there are {gpus} GPUs; lower it")
    options = ["--num_processes", str(processes), "--num_machines", str(machines.count), "--mixed_precision", "no"]
    options += ["--machine_rank", str(machines.rank), "--main_process_ip", machines.address]
    # --multi_gpu makes it start processes at all; without GPUs they find out themselves that they are CPU processes.
    options += ["--dynamo_backend", "no", "--main_process_port", str(machines.port), "--multi_gpu"]
    options += ["--rdzv_backend", "static"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *script]
    # The launcher would kill its processes half a minute after SIGTERM, saving or not: it does not get to know.
    environment = {**os.environ, _MARK: "1", "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGINT"}
    received: list[int] = []
    with subprocess.Popen(command, env=environment, preexec_fn=_ignore_signals) as process:

        def pass_on(number: int, _frame: FrameType | None) -> None:
            received.append(number)
            workers = psutil.Process(process.pid).children(recursive=True)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):  # it may have ended by itself
                    worker.terminate()
            if not workers:
                process.kill()

        for number in STOP_SIGNALS:
            signal.signal(number, pass_on)
        status = process.wait()
    return 128 + received[0] if received and status else status


def run_on_processes(processes: int, machines: Machines) -> None:
    """Run this script on several processes, in place of this one, unless it is one of them or no others are asked for.

    Args:
        processes: over all machines.
        machines: where they run.

    Raises:
        ConfigError: there is to be no process, or as `launch`.
    """
    if processes < 1:
        raise ConfigError(f"--processes {processes} is below 1; give 1 or more")
    if processes == machines.count == 1:
        return
    if not is_launched():
        sys.exit(launch(sys.argv, processes, machines))
    for number in STOP_SIGNALS:  # undo what keeps the launcher from ending by a signal
        signal.signal(number, signal.SIG_DFL)


def _ignore_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
