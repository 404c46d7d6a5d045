"""Training on several processes equals training on one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import torch
import xarray as xr
from tiny import tiny_config
from training_processes import server, train_in_team

from chronocoder.command_line import to_flags
from chronocoder.crosscoder import launch
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig, load_crosscoder
from chronocoder.crosscoder.state import StopRequest
from chronocoder.crosscoder.team import Team
from chronocoder.crosscoder.training import Trainer
from chronocoder.errors import ConfigError
from chronocoder.variants import VARIANTS

ROOT = Path(__file__).parents[2]
SETTINGS = {"steps": 25, "batch_tokens": 130, "dead_after_tokens": 500, "learning_rate": 0.01, "shuffle_tokens": 2100}
DYING = {"auxiliary_coefficient": 0.5, "auxiliary_k": 2, "dictionary_size": 96, "dead_after_tokens": 130}
SPARSE = {
    "l1": {"l1_coefficient": 9.0},
    "topk": {"k": 1},
    "batchtopk": {"k": 1},
    "jumprelu": {"initial_threshold": 4.0},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(
    processes: int,
    shards: int,
    config: CrosscoderConfig,
    paths: list[Path],
    output: Path,
    parts: int = 0,
) -> Crosscoder:
    """Train on processes that a server forks once it has imported what they need."""
    context, port = server(), free_port()
    rest = (processes, shards, parts, port, config, paths, output)
    started = [context.Process(target=train_in_team, args=(rank, *rest)) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes
    return load_crosscoder(output / "crosscoder")


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_processes_and_shards_give_the_same_crosscoder(
    activation_store: Callable[..., Path], tmp_path: Path, variant: str
) -> None:
    """Not dealt to parts: 3 parts of the data, which are never even, 2 shards of the dictionary, and 2 of each."""
    paths = [activation_store("step0", rows=5000), activation_store("step1", rows=5000)]
    config = tiny_config(variant, **{**SETTINGS, **DYING, **SPARSE[variant]})
    one = train(1, 1, config, paths, tmp_path / "one")
    history = xr.open_zarr(tmp_path / "one" / "history.zarr", consolidated=False)
    assert history["auxiliary_loss"].max() > 0, "no latent was dead: the auxiliary loss is not tested"
    for processes, shards in ((3, 1), (2, 2), (4, 2)):
        output = tmp_path / f"{processes}-{shards}"
        several = train(processes, shards, config, paths, output)
        for name, weight in one.state_dict().items():
            torch.testing.assert_close(several.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=f"{output} {name}")
        assert not torch.equal(several.encoder_rows, one.encoder_rows), (
            "rounding is the same, though nothing sees to it"
        )
        found = xr.open_zarr(output / "history.zarr", consolidated=False)
        xr.testing.assert_allclose(found, history, rtol=1e-3, atol=1e-4)


def test_parts_make_processes_and_shards_identical(activation_store: Callable[..., Path], tmp_path: Path) -> None:
    """`test_parts.py` shows it over many steps, in threads."""
    paths = [activation_store("step0", rows=5000), activation_store("step1", rows=5000)]
    config = tiny_config("batchtopk", **{**SETTINGS, **DYING, "k": 1})
    two, four = (train(processes, 2, config, paths, tmp_path / str(processes), 4) for processes in (2, 4))
    assert_equal(four, two)


def assert_equal(found: Crosscoder, expected: Crosscoder) -> None:
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name


def flags(stores: list[Path], output: Path, variant: str, **settings: float) -> list[str]:
    config = tiny_config(variant, **{**SETTINGS, **settings})
    names = ["--comparison", "pair", "--variant", variant, "--seed", "0", "--activations", *map(str, stores)]
    paths = ["--crosscoder", str(output / "crosscoder"), "--history", str(output / "history.zarr")]
    return [*names, *paths, *to_flags(config.settings)]


def script(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    own = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, str(ROOT / "scripts/train_crosscoder.py"), *arguments]
    return subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True)


def await_state(process: subprocess.Popen[str], output: Path) -> None:
    """Wait until a training has saved a state, or ended."""
    while not list(output.glob("training_state/step*")) and process.poll() is None:
        time.sleep(0.02)


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a step that runs on the first node of a SLURM allocation, with an `srun` to call."""
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_srun.py")} "$@"\n')
    program.chmod(0o755)
    of_step = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "1",
        "SLURM_CPU_BIND": "mask_cpu:0x1",
        "SRUN_CPUS_PER_TASK": "1",
    }
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "FAKE_SRUN_CALL": str(tmp_path / "srun.json"), "SLURM_PROCID": "0", **of_step}


def test_nodes_of_an_allocation_that_are_stopped_and_go_on_give_the_same_crosscoder(
    activation_store: Callable[..., Path], tmp_path: Path, allocation: dict[str, str]
) -> None:
    """Two nodes, started by one call; every process is signalled more than once."""
    stores = [activation_store("step0"), activation_store("step1")]
    whole = script(*flags(stores, tmp_path / "one", "l1", steps=200), "--save-every", "100")
    nodes = [*flags(stores, tmp_path / "two", "l1", steps=200), "--processes", "2", "--machines", "2"]
    stopped = script(*nodes, "--save-every", "10", **allocation)
    await_state(stopped, tmp_path / "two")
    stopped.terminate()
    for process in psutil.Process(stopped.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGUSR2)
    stopped.send_signal(signal.SIGUSR2)
    errors = stopped.communicate()[1]
    # signals that arrive together are handled in the order of their numbers
    assert stopped.returncode in {128 + signal.SIGTERM, 128 + signal.SIGUSR2}, errors
    assert "training_state has the state" in errors
    again = script(*nodes, **allocation)
    errors = again.communicate()[1]
    assert again.returncode == 0 and "going on after step" in errors, errors
    assert whole.wait() == 0
    assert xr.open_zarr(tmp_path / "two" / "history.zarr").attrs["processes"] == 2
    assert_equal(*(load_crosscoder(tmp_path / name / "crosscoder") for name in ("one", "two")))
    call = json.loads((tmp_path / "srun.json").read_text())
    count = ["--ntasks-per-node=1", "--nodes=2", "--ntasks=2"]
    assert call["options"] == [
        "--overlap",
        *count,
        "--kill-on-bad-exit=1",
        "--cpu-bind=none",
        "--wait=0",
        "--unbuffered",
    ]
    assert call["environment"] == {"SLURM_JOB_ID": "7"}, "srun would take what is left for its options"


def test_nodes_are_started_by_what_the_executor_names(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(launch, "_run", lambda command, *_: commands.append(command) or 0)
    monkeypatch.setattr(launch.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert launch.launch_on_nodes(["train.py"], launch.Machines(2)) == 0
    monkeypatch.setenv("SUBMITIT_SRUN", '["python", "relay.py"]')
    assert launch.launch_on_nodes(["train.py"], launch.Machines(2)) == 0
    assert [command[: command.index("--overlap")] for command in commands] == [["srun"], ["python", "relay.py"]]


def test_signal_that_comes_while_processes_ask_each_other_is_acted_on_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would not know of it, and go on to the next step without the process that stops."""
    stop, team = StopRequest(), Team()

    def add_all(value: torch.Tensor) -> torch.Tensor:
        stop.received = signal.SIGUSR2
        return value

    monkeypatch.setattr(team, "processes", 2)
    monkeypatch.setattr(team, "add_all", add_all)
    trainer = Trainer.__new__(Trainer)
    trainer._team, trainer._accelerator = team, SimpleNamespace(device="cpu")
    assert [trainer._received(stop), trainer._received(stop)] == [0, signal.SIGUSR2]


def test_signal_that_comes_before_training_ends_the_processes(
    activation_store: Callable[..., Path], tmp_path: Path
) -> None:
    """They are signalled as soon as they are there, while they still import."""
    stores = [activation_store("step0"), activation_store("step1")]
    process = script(*flags(stores, tmp_path / "run", "topk", steps=10**6), "--processes", "2")
    workers: list[psutil.Process] = []
    while not workers:
        children = psutil.Process(process.pid).children()
        workers = [worker for launcher in children for worker in launcher.children()]
    process.send_signal(signal.SIGUSR2)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGUSR2, errors
    assert not any(worker.is_running() for worker in workers) and not (tmp_path / "run").exists()


def test_process_that_starts_after_the_signal_is_signalled_too() -> None:
    """Where only a short-lived helper of the launcher's is there when the signal comes, the workers have to follow."""
    helper, worker, launcher = Mock(), Mock(), Mock()
    launcher.children.side_effect = [[helper], [worker], [worker]]
    stopped: set[psutil.Process] = set()
    for _ in range(3):
        launch._stop_workers(launcher, stopped)
    helper.terminate.assert_called_once()
    worker.terminate.assert_called_once()
    launcher.kill.assert_not_called()


def test_machines_that_cannot_be_started_are_refused(activation_store: Callable[..., Path], tmp_path: Path) -> None:
    own = flags([activation_store("step0"), activation_store("step1")], tmp_path, "topk")
    two = (*own, "--processes", "2", "--machines", "2")
    calls: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (
            two,
            {},
            "--machines 2, and this is no SLURM allocation to start them in; start each, with --machine-rank 0 to 1",
        ),
        (
            two,
            {"SLURM_JOB_ID": "7", "PATH": "/none"},
            "--machines 2: no srun on PATH (/none) to start them in SLURM job 7",
        ),
        (two, {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}, "--machines 2: SLURM job 7 has 1; ask for more nodes"),
        ((*two, "--machine-rank", "0"), {}, "2 machines need --main-port, a free port of machine 0"),
        (
            (*own, "--processes", "3", "--machines", "2", "--parts", "0"),
            {},
            "3 processes cannot be shared evenly by 2 machines",
        ),
        (
            (*own, "--processes", "3"),
            {},
            "--processes 3 does not divide --parts 8; change one of them, or give --parts 0",
        ),
    ]
    started = [(script(*arguments, **environment), message) for arguments, environment, message in calls]
    for process, message in started:
        errors = process.communicate()[1]
        assert process.returncode == 1 and message in errors and "Traceback" not in errors


def test_last_good_crosscoder_is_saved_before_the_processes_end(
    activation_store: Callable[..., Path], tmp_path: Path
) -> None:
    """The process that saves takes its time; the others must not end it."""
    stores = [activation_store("step0"), activation_store("step1")]
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from chronocoder.crosscoder import model\n"
        "save = model.Crosscoder.save\n"
        "model.Crosscoder.save = lambda self, path: (time.sleep(4), save(self, path))\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    own = flags(stores, tmp_path / "run", "l1", learning_rate=1e30)
    process = script(*own, "--processes", "2", PYTHONPATH=path)
    errors = process.communicate()[1]
    assert process.returncode != 0 and "loss or gradient is not finite" in errors
    rescued = load_crosscoder(tmp_path / "run" / "last_good_crosscoder")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())


def test_uneven_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 processes cannot hold 2 dictionary shards evenly"):
        Team(0, 3, 2)
    with pytest.raises(ConfigError, match="3 processes cannot hold 8 parts of a batch evenly; make training.parts"):
        Team(0, 3, parts=8)
    team = Team()
    team.shards = 5
    with pytest.raises(ConfigError, match="dictionary_size 24 is no multiple of 5 dictionary shards; change one"):
        team.features(24)
