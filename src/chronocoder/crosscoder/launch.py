"""Starting training on several processes of one machine through `accelerate launch`."""

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from chronocoder.errors import ConfigError

_MARK = "CHRONOCODER_LAUNCHED"


def is_launched() -> bool:
    """Say whether this process is one of those that `launch` started."""
    return _MARK in os.environ


def launch(script: Sequence[str], processes: int) -> int:
    """Run a script and its arguments on several processes, one a GPU where there are GPUs, and return its status.

    The user's own Accelerate configuration is left out of account; a free port is chosen.

    Raises:
        ConfigError: the machine has GPUs, but fewer than processes.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"training_processes is {processes}, but there are {gpus} GPUs; lower it or ask for more")
    options = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    # --multi_gpu makes it start processes at all; without GPUs they find out themselves that they are CPU processes.
    options += ["--dynamo_backend", "no", "--main_process_port", "0", "--multi_gpu"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *script]
    return subprocess.run(command, env={**os.environ, _MARK: "1"}, check=False).returncode
