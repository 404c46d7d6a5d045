"""What training needs of `srun`, with all nodes on this machine; `srun.json` beside it has what it was called with."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from types import FrameType

options = list(takewhile(lambda argument: argument.startswith("--"), sys.argv[1:]))
nodes = next(int(option.partition("=")[2]) for option in options if option.startswith("--nodes="))
seen = {name: value for name, value in os.environ.items() if name.startswith(("SLURM_", "SRUN_"))}
Path(os.environ["FAKE_SRUN_CALL"]).write_text(json.dumps({"options": options, "environment": seen}))
tasks: list[subprocess.Popen[bytes]] = []


def forward(number: int, _frame: FrameType | None) -> None:
    for task in tasks:
        task.send_signal(signal.SIGKILL if number == signal.SIGTERM else number)


for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, forward)
for rank in range(nodes):
    tasks.append(subprocess.Popen(sys.argv[1 + len(options) :], env={**os.environ, "SLURM_PROCID": str(rank)}))
while any(task.poll() is None for task in tasks) and not any(task.poll() for task in tasks):
    time.sleep(0.05)
for task in tasks:  # one has failed, or all have ended
    task.terminate()
sys.exit(max(abs(task.wait()) for task in tasks))
