"""Starting training on several processes, of one machine or many, through `accelerate launch`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

import psutil
import torch

from chronocoder.errors import ConfigError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
_SRUN = "SUBMITIT_SRUN"  # what the executor has for srun, as a JSON list, which survives the SIGTERM of preemption
_MARK, _NODE_MARK = "CHRONOCODER_LAUNCHED", "CHRONOCODER_ON_NODES"
# By these srun finds the allocation. It takes most others of SLURM's for options, and they are those of another step.
_OF_ALLOCATION = ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_WORKING_CLUSTER", "SLURM_JWT")


@dataclass(frozen=True)
class Machines:
    """The machines that train together; `launch` is called on each of them.

    Attributes:
        count: number of machines.
        rank: this one, from 0; None to find out.
        address: where the first one is reached.
        port: a free port of the first one; 0, to have one chosen, is for a single machine only.
    """

    count: int = 1
    rank: int | None = None
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
        processes: over all machines, a multiple of their number.
        machines: where they run; the rank is known.

    Raises:
        ConfigError: the machine has GPUs, but fewer than its processes, or several machines have no port to meet at.
    """
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
    stop = partial(_stop_workers, stopped=set())
    return _run(command, environment, stop, _block_signals, follow=stop)


def launch_on_nodes(script: Sequence[str], machines: Machines) -> int:
    """Run a script and its arguments once on each node of a SLURM allocation, from its first one; return the status.

    Each finds its own rank, and is told where to meet. SIGTERM and SIGUSR2 go to all of them as SIGUSR2, since srun
    ends them at once by SIGTERM; the status is then 128 and the number of the signal that came.

    Args:
        script: path and arguments; `--main-address` and `--main-port` are added.
        machines: how many; without a port, a free one is chosen.

    Raises:
        ConfigError: there is no srun, or the allocation has fewer nodes.
    """
    job, nodes = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_JOB_NUM_NODES", machines.count))
    if machines.count > nodes:
        raise ConfigError(f"--machines {machines.count}: SLURM job {job} has {nodes}; ask for more nodes, or lower it")
    if shutil.which("srun") is None:
        raise ConfigError(
            f"--machines {machines.count}: no srun on PATH ({os.environ.get('PATH')}) to start them in SLURM job"
            f" {job}; add its directory, or start each with --machine-rank"
        )
    command = [*json.loads(os.environ.get(_SRUN, '["srun"]')), "--overlap", "--ntasks-per-node=1"]
    command += [f"--nodes={machines.count}", f"--ntasks={machines.count}"]
    # A step has all CPUs of its nodes, but would bind each task to one; a site may limit how long the tasks end apart;
    # and progress, which ends no line, would not be seen.
    command += ["--kill-on-bad-exit=1", "--cpu-bind=none", "--wait=0", "--unbuffered"]
    meeting = ["--main-address", socket.gethostname(), "--main-port", str(machines.port or _free_port())]
    of_slurm = {name for name in os.environ if name.startswith(("SLURM_", "SRUN_"))}.difference(_OF_ALLOCATION)
    environment = {name: value for name, value in os.environ.items() if name not in of_slurm}
    command += [sys.executable, *script, *meeting]
    return _run(command, {**environment, _NODE_MARK: "1"}, lambda srun: srun.send_signal(signal.SIGUSR2))


def run_on_processes(processes: int, machines: Machines) -> None:
    """Run this script on several processes, in place of this one, unless it is one of them or no others are asked for.

    Args:
        processes: over all machines.
        machines: where they run.

    Raises:
        ConfigError: there is to be no process, the processes cannot be shared out evenly, the machine's rank cannot be
            found out, or as `launch` and `launch_on_nodes`.
    """
    if processes < 1:
        raise ConfigError(f"--processes {processes} is below 1; give 1 or more")
    if processes % machines.count:
        raise ConfigError(f"{processes} processes cannot be shared evenly by {machines.count} machines; change one")
    if processes == machines.count == 1:
        return
    if not is_launched():
        rank = _find_rank(machines)
        if rank is None:
            sys.exit(launch_on_nodes(sys.argv, machines))
        sys.exit(launch(sys.argv, processes, replace(machines, rank=rank)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # undo what keeps the launcher from ending by a signal


def _find_rank(machines: Machines) -> int | None:
    """Return the rank of this machine; None in a SLURM allocation whose nodes have still to be started."""
    if machines.rank is not None or machines.count == 1:
        return machines.rank or 0
    if _NODE_MARK in os.environ:
        return int(os.environ["SLURM_PROCID"])
    if "SLURM_JOB_ID" in os.environ:
        return None
    raise ConfigError(
        f"--machines {machines.count}, and this is no SLURM allocation to start them in; start each, with"
        f" --machine-rank 0 to {machines.count - 1}, --main-address and --main-port"
    )


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    pass_on: Callable[[psutil.Process], None],
    prepare: Callable[[], None] | None = None,
    follow: Callable[[psutil.Process], None] | None = None,
) -> int:
    """Run a command, and return its status, or 128 and a stop signal's number if it failed after one.

    Args:
        command: program and arguments.
        environment: all its variables.
        pass_on: called with its process at each stop signal.
        prepare: called in the new process before the program.
        follow: called with its process each second after a stop signal.
    """
    received, started = list[int](), list[psutil.Process]()

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for process in started:
            with suppress(psutil.NoSuchProcess):  # it may have ended by itself
                pass_on(process)

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=prepare) as process:
        started.append(psutil.Process(process.pid))
        if received:
            pass_on(started[0])
        while (status := _status_within(process, seconds=1)) is None:
            if received and follow:
                with suppress(psutil.NoSuchProcess):  # it may have ended by itself
                    follow(started[0])
    return 128 + received[0] if received and status else status


def _status_within(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the status of a process that ends within a time, else None."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _stop_workers(launcher: psutil.Process, stopped: set[psutil.Process]) -> None:
    """Signal each process of a launcher once, also those that it starts after the signal came."""
    for worker in launcher.children(recursive=True):
        if worker not in stopped:
            stopped.add(worker)
            with suppress(psutil.NoSuchProcess):  # it may have ended by itself
                worker.terminate()
    if not stopped:
        launcher.kill()


def _block_signals() -> None:
    """Keep stop signals waiting, here and in all processes started from here, until they are unblocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
