"""The `python` of small workflows does what the real one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm_python import warm_path

from experiments import ROOT

PLAN = str(ROOT / "scripts/plan.py")


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{warm_path()}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "arguments",
    [[PLAN, "--help"], [PLAN], [PLAN, "nowhere.yaml"], ["-c", "exit('the end')"], ["-m", "snakemake", "--version"]],
)
def test_output_and_status_are_those_of_the_real_one(arguments: list[str], tmp_path: Path) -> None:
    real, warm = (
        subprocess.run([python, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        for python in (sys.executable, "python")
    )
    assert (warm.returncode, warm.stdout) == (real.returncode, real.stdout)
    assert warm.stderr.split("ERROR")[-1] == real.stderr.split("ERROR")[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_script(number: signal.Signals, tmp_path: Path) -> None:
    """Also one that its caller cannot pass on."""
    config = tmp_path / "config.yaml"
    os.mkfifo(config)
    process = subprocess.Popen(["python", PLAN, str(config)], env=environment())
    writer = os.open(config, os.O_WRONLY)  # waits until the script reads it
    process.send_signal(number)
    assert process.wait() == -number
    with pytest.raises(BrokenPipeError):
        for _ in range(6000):
            os.write(writer, b" ")
            time.sleep(0.01)
