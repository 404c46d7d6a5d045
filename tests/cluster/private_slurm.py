"""A private SLURM for tests: real daemons of its own on one machine, with everything in one directory.

It has a controller, accounting in a database of its own, and virtual nodes whose CPUs, memory and GPUs are only
claimed: a GPU is a dummy device. There are three partitions over the same nodes: jobs in `urgent` preempt those in
`main`, and `hidden` is shown to those who ask for all. Every user of the machine can submit jobs. It neither uses nor
disturbs a SLURM that the machine may have, and needs no systemd and no control groups, but root, because SLURM's
daemons start jobs as their users.
"""

import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sacct",
    "sacctmgr",
    "sbatch",
    "scancel",
    "scontrol",
    "sinfo",
    "squeue",
    "srun",
)
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # where daemons are, which a user's PATH may lack
START_SECONDS = 60.0
STOP_SECONDS = 20.0
LONGEST_SOCKET = 107  # bytes that the path of a Unix socket may have
LOG_TAIL = 2000  # characters
WORKING = ("idle", "mixed", "allocated")
CGROUPS_CAN_BE_OFF = (24, 5)  # the version since which cgroup.conf can turn control groups off

GPUS = ("a100", "1g.5gb")  # a GPU and a slice of one

# cred_expire is how long a requeued job waits before it may start again: 120 s unless told, and 5 s is the least that
# SLURM takes. MessageTimeout and SlurmdTimeout make a dead node known within about 15 s.
SLURM_CONF = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={directory}/munge.socket
AccountingStorageTRES=gres/gpu
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
CompleteWait=0
InactiveLimit=0
WaitTime=5
OverTimeLimit=0
MinJobAge=600
MessageTimeout=5
SlurmctldTimeout=10
SlurmdTimeout=10
ReturnToService=2
{node_lines}
PartitionName=main Nodes={nodes} Default=YES State=UP MaxTime=UNLIMITED PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes={nodes} State=UP MaxTime=UNLIMITED PriorityTier=2 PreemptMode=OFF
PartitionName=hidden Nodes={nodes} Hidden=YES State=UP MaxTime=UNLIMITED PriorityTier=1 PreemptMode=OFF
"""
NODE_LINE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}"
    " Gres={gres} State=UNKNOWN"
)
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
PidFile={directory}/slurmdbd.pid
LogFile={directory}/slurmdbd.log
"""


class PrivateSlurm:
    """A SLURM that exists while this context is open."""

    def __init__(
        self, directory: Path, nodes: int = 2, gpus: tuple[str, ...] = GPUS, cpus: int = 8, memory_mb: int = 64000
    ) -> None:
        """Describe a SLURM with everything in this directory, whose path must be short because sockets lie in it.

        Args:
            directory: for all files.
            nodes: how many.
            gpus: the type of each GPU of a node.
            cpus: of each node.
            memory_mb: memory of each node in MB.
        """
        self.directory = directory.resolve()
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.gpus, self.cpus, self.memory_mb = gpus, cpus, memory_mb
        self.environment: dict[str, str] = {"SLURM_CONF": str(self.directory / "slurm.conf")}
        self._complaint = ""  # what the last command said that had no answer
        self._ports: dict[str, int] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Start everything, and return when all nodes are idle and accounting answers."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the daemons, the jobs and every other process that was started to talk to this SLURM."""
        self._stop()

    @staticmethod
    def missing() -> list[str]:
        """Return what this machine lacks: programs by their names, and "root" where the user is another."""
        programs = [program for program in PROGRAMS if not shutil.which(program, path=_path())]
        return programs + ([] if os.geteuid() == 0 else ["root"])

    def run(self, *command: str) -> str:
        """Return what a command prints that talks to this SLURM."""
        done = self._try(*command)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}: {done.stderr[-LOG_TAIL:]}")
        return done.stdout

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until a condition holds, no longer than this, and no longer than all daemons live."""
        deadline = time.monotonic() + seconds
        while not condition():
            for name, daemon in self._daemons.items():
                if (code := daemon.poll()) is not None:
                    raise RuntimeError(f"{what}: not yet when {name} ended with {code}:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                tails = [f"{name}:\n{self._tail(name)}" for name in self._daemons if name.startswith(("slurm", "node"))]
                raise RuntimeError("\n".join([f"{what}: not within {seconds:g} seconds", self._complaint, *tails]))
            time.sleep(0.1)

    def wait_idle(self, seconds: float = START_SECONDS) -> None:
        """Wait until all nodes are up and run nothing."""
        self.wait_until(lambda: all(self.node_state(node) == "idle" for node in self.nodes), "nodes are idle", seconds)

    def node_state(self, name: str) -> str:
        """Return a node's state: "idle", "mixed", "down", with "*" behind if it does not respond, or "idle+drain"."""
        # not as sinfo has it, which may take a node for busy that became idle while the controller was restarted
        return self._fact_of_node(name, "State").lower()

    def job_state(self, job: str) -> str:
        """Return a job's state as the controller has it now, such as "RUNNING"."""
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()

    def stop_node(self, name: str) -> None:
        """Kill a node's daemon and all processes of its jobs at once, as when a node dies."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        self._kill_all(lambda: self._job_processes(name))

    def start_node(self, name: str) -> None:
        """Bring a node back, and wait until it has registered and takes jobs."""
        before = self._registered(name)
        self._start_slurmd(name)
        self.wait_until(lambda: self._registered(name) != before and self._works(name), f"{name} is back")

    def stop_controller(self) -> None:
        """End the controller, as for a restart; the jobs that run go on."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait()

    def start_controller(self) -> None:
        """Start the controller, again from the state in which it was, and wait until it answers."""
        self._start_daemon("slurmctld", "slurmctld", "-D")
        self.wait_until(lambda: self._answers("slurmctld", "sinfo"), "slurmctld answers")

    def _start(self) -> None:
        if missing := self.missing():
            raise RuntimeError(f"SLURM cannot be started, for want of: {', '.join(missing)}")
        longest = self.directory / "spool" / self.nodes[-1] / f"{self.nodes[-1]}_4294967295.4294967295"
        if len(os.fsencode(longest)) > LONGEST_SOCKET:
            raise RuntimeError(f"the path is too long for sockets in it: {self.directory}")
        self._configure()
        self._start_munged()
        self._start_database()
        self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self._start_slurmd(node)
        self.wait_idle()
        self.wait_until(lambda: self._answers("slurmdbd", "sacct"), "sacct answers")

    def _configure(self) -> None:
        self.directory.chmod(0o711)  # users other than root read slurm.conf in it
        names = ["slurmctld", "slurmdbd", *self.nodes]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        host = socket.gethostname().split(".")[0]
        shape = {"host": host, "cpus": self.cpus, "memory": self.memory_mb}
        shape["gres"] = ",".join(f"gpu:{kind}:{self.gpus.count(kind)}" for kind in dict.fromkeys(self.gpus)) or "gpu:0"
        lines = [NODE_LINE.format(name=name, port=self._ports[name], **shape) for name in self.nodes]
        values = {
            "directory": self.directory,
            "host": host,
            "controller_port": self._ports["slurmctld"],
            "accounting_port": self._ports["slurmdbd"],
            "nodes": ",".join(self.nodes),
            "node_lines": "\n".join(lines),
        }
        self._write("slurm.conf", SLURM_CONF.format(**values))
        self._write("slurmdbd.conf", SLURMDBD_CONF.format(**values))
        plugin = "disabled" if self._version() >= CGROUPS_CAN_BE_OFF else "cgroup/v1"
        self._write("cgroup.conf", f"CgroupPlugin={plugin}\n")
        gpus = (f"Name=gpu Type={kind} File={self._dummy_gpu(number)}\n" for number, kind in enumerate(self.gpus))
        self._write("gres.conf", "".join(gpus))

    def _version(self) -> tuple[int, int]:
        text = self.run("slurmd", "-V")
        if not (found := re.search(r"(\d+)\.(\d+)", text)):
            raise RuntimeError(f"slurmd tells no version: {text}")
        return int(found[1]), int(found[2])

    def _dummy_gpu(self, number: int) -> Path:
        device = self.directory / f"gpu{number}"
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # the null device
        return device

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.touch(mode=0o600 if name == "slurmdbd.conf" else 0o644)  # which slurmdbd insists on
        path.write_text(text)

    def _start_munged(self) -> None:
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = [f"--{name}-file={self.directory}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        place = self.directory / "munge.socket"
        self._start_daemon("munged", "munged", "--foreground", "--force", *files, f"--socket={place}")
        self.wait_until(place.exists, "munged listens")

    def _start_database(self) -> None:
        common = ["--no-defaults", "--user=root", f"--datadir={self.directory}/database", f"--tmpdir={self.directory}"]
        self.run("mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db")
        place = self.directory / "mariadb.socket"
        files = [f"--socket={place}", f"--pid-file={self.directory}/mariadb.pid"]
        self._start_daemon("mariadbd", "mariadbd", *common, "--skip-networking", *files)
        self.wait_until(place.exists, "mariadbd listens")

    def _start_accounting(self) -> None:
        self._start_daemon("slurmdbd", "slurmdbd", "-D")
        self.wait_until(lambda: self._answers("slurmdbd", "sacctmgr", "list", "cluster"), "slurmdbd answers")
        self.run("sacctmgr", "--immediate", "add", "cluster", "private")

    def _start_slurmd(self, name: str) -> None:
        (self.directory / "spool" / name).mkdir(parents=True, exist_ok=True)
        self._start_daemon(name, "slurmd", "-D", "-N", name)

    def _start_daemon(self, name: str, *command: str) -> None:
        with (self.directory / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
                env=self._full_environment(),
                start_new_session=True,
            )

    def _full_environment(self) -> dict[str, str]:
        database = {"MYSQL_UNIX_PORT": f"{self.directory}/mariadb.socket"}  # slurmdbd.conf has no name for it
        return os.environ | {"PATH": _path()} | database | self.environment

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=self._full_environment(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def _answers(self, daemon: str, *command: str) -> bool:
        if not self._listens(daemon):
            return False
        done = self._try(*command)
        self._complaint = done.stderr[-LOG_TAIL:]
        return done.returncode == 0

    def _listens(self, daemon: str) -> bool:
        with socket.socket() as probe:  # because SLURM's commands would try for long
            return probe.connect_ex(("127.0.0.1", self._ports[daemon])) == 0

    def _registered(self, name: str) -> str:
        return self._fact_of_node(name, "SlurmdStartTime")

    def _fact_of_node(self, name: str, fact: str) -> str:
        found = re.search(rf"\b{fact}=(\S+)", self.run("scontrol", "show", "node", name))
        return found[1] if found else ""

    def _works(self, name: str) -> bool:
        state = self.node_state(name)
        if "drain" in state:
            self.run("scontrol", "update", f"nodename={name}", "state=resume")
        return state in WORKING

    def _tail(self, daemon: str) -> str:
        return (self.directory / f"{daemon}.out").read_text(errors="replace")[-LOG_TAIL:].strip()

    def _stop(self) -> None:
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        self._kill_all(lambda: [*(each for node in self.nodes for each in self._job_processes(node)), *self._told()])

    def _job_processes(self, node: str) -> list[psutil.Process]:
        """Return the processes of the jobs on a node, those first that would report the others' end."""
        stepds = self._stepds(node)
        told = [each for each in self._told() if _environment(each).get("SLURMD_NODENAME") == node]
        return [*stepds, *(child for stepd in stepds for child in _children(stepd)), *told]

    def _told(self) -> list[psutil.Process]:
        """Return the processes that know this SLURM from their environment."""
        return [each for each in _others() if _environment(each).get("SLURM_CONF") == self.environment["SLURM_CONF"]]

    def _stepds(self, node: str) -> list[psutil.Process]:
        """Return the processes that follow jobs on a node: they overwrite their environment, but keep its log open."""
        log = str(self.directory / f"{node}.log")
        return [each for each in _others() if "slurmstepd" in _name(each) and log in _open_files(each)]

    def _kill_all(self, find: Callable[[], list[psutil.Process]]) -> None:
        """Kill the processes that are found until there are none, because they may start others meanwhile."""
        deadline = time.monotonic() + STOP_SECONDS
        while found := find():
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that cannot be killed: {found}")
            psutil.wait_procs(found, timeout=0.2)


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"


def _free_ports(count: int) -> list[int]:
    """Return that many TCP ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _others() -> list[psutil.Process]:
    """Return the living processes other than this one."""
    return [each for each in psutil.process_iter() if each.pid != os.getpid() and _name(each)]


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    return ""


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error):
        return process.environ()
    return {}


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _open_files(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return [each.path for each in process.open_files()]
    return []
