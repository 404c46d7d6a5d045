"""Jobs that share work: who works on what, what waits for whom, and what is left when one fails, dies or is late."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chronocoder import sharing
from chronocoder.errors import TaskError
from chronocoder.sharing import NoLocksError, SharedTasks, Slot
from experiments import ROOT

WAIT_S = 20.0

# Writes a task's text in capitals; says when it loads and what it begins; stops at a task while there is a file `hold`.
SCRIPT = """\
import argparse, os, time
from pathlib import Path
from chronocoder.errors import TaskError
from chronocoder.sharing import Tasks, add_task_flags, run_shared

def note(*words: str) -> None:
    with Path("notes").open("a") as file:
        file.write(" ".join(words) + "\\n")

def main(tasks: Tasks) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one-by-one", default="yes")
    add_task_flags(parser)
    arguments = parser.parse_args()
    stores = dict(zip(arguments.outputs, arguments.tasks))
    note("load")

    def work(outputs):
        texts = [stores[output].read_text() for output in outputs]
        for output in outputs:
            note("begin", output.stem)
            while Path(f"{output.stem}.hold").exists():
                time.sleep(0.02)
        for output, text in zip(outputs, texts):
            if text == "bad":
                raise TaskError("bad pairs")
            if text == "broken":
                raise RuntimeError("broken program")
            def write(path):
                path.mkdir()
                path.joinpath("text").write_text(text.upper())
                while Path("writing.hold").exists():
                    note("writes")
                    time.sleep(0.02)
            tasks.put(output, write)

    if arguments.one_by_one == "no":
        tasks.together(work)
        return
    for output in tasks.turns():
        try:
            work([output])
        except TaskError as error:
            tasks.failed(output, error)

if __name__ == "__main__":
    run_shared(main)
"""


class Stage:
    """Jobs of one stage, in a directory of their own."""

    def __init__(self, directory: Path, names: str) -> None:
        self.directory, self.names = directory, names
        self._started: list[subprocess.Popen[str]] = []
        (directory / "script.py").write_text(SCRIPT)
        for name in names:
            (directory / name).write_text(f"pairs of {name}")

    def start(
        self, own: str, *arguments: str, companions: str | None = None, share: int = 9
    ) -> "subprocess.Popen[str]":
        """Start the job of a task; its companions are by default all others."""
        place = self.names.index(own)
        tasks = own + (self.names[place + 1 :] + self.names[:place] if companions is None else companions)
        command = [sys.executable, "script.py", *arguments, "--tasks", *tasks]
        command += ["--outputs", *(f"results/{name}.zarr" for name in tasks), "--share", str(share)]
        command += ["--log", f"{own}.log"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self._started.append(
            subprocess.Popen(command, cwd=self.directory, env=environment, stderr=subprocess.PIPE, text=True)
        )
        return self._started[-1]

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        """Wait for the end of a job, which is to be this, and return what it said."""
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == status, said
        return said

    def run(self, own: str, *arguments: str, status: int = 0, **differences: object) -> str:
        """Run the job of a task to its end."""
        return self.end(self.start(own, *arguments, **differences), status)

    def by_hand(self, tasks: str, status: int = 0) -> str:
        """Call the script without sharing."""
        command = [sys.executable, "script.py", "--tasks", *tasks]
        command += ["--outputs", *(f"{name}.zarr" for name in tasks)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stderr

    def notes(self) -> list[str]:
        path = self.directory / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait(self, note: str) -> None:
        """Wait until a job has noted something."""
        deadline = time.monotonic() + WAIT_S
        while note not in self.notes():
            assert time.monotonic() < deadline, self.notes()
            time.sleep(0.02)

    def hold(self, *names: str) -> None:
        for name in names:
            (self.directory / f"{name}.hold").touch()

    def let_go(self, *names: str) -> None:
        for name in names:
            (self.directory / f"{name}.hold").unlink()

    def made(self) -> dict[str, str]:
        """Return what is in the results, hidden or not, by name."""
        results = self.directory / "results"
        found = sorted(results.iterdir()) if results.exists() else []
        return {path.name: (path / "text").read_text() if path.suffix else "" for path in found}

    def all_made(self) -> bool:
        """Whether the results, and nothing else, are there, each begun by one job only."""
        begun = sorted(note for note in self.notes() if note.startswith("begin"))
        return begun == [f"begin {name}" for name in self.names] and self.made() == {
            f"{name}.zarr": f"PAIRS OF {name.upper()}" for name in self.names
        }

    def clean(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Return a function that makes a stage of tasks with one letter each; no job of it runs in the end."""
    made: list[Stage] = []

    def make(names: str) -> Stage:
        made.append(Stage(tmp_path, names))
        return made[-1]

    yield make
    for one in made:
        one.clean()


New = Callable[[str], Stage]
ONE_BY_ONE = pytest.mark.parametrize("arguments", [(), ("--one-by-one", "no")], ids=["in turn", "together"])


@ONE_BY_ONE
def test_one_job_works_for_those_that_wait_which_load_nothing(stage: New, arguments: tuple[str, ...]) -> None:
    jobs = stage("abc")
    said = jobs.run("b", *arguments)
    assert "The result of task a waits for its own job" in said
    assert jobs.made() == {".shared": "", "b.zarr": "PAIRS OF B"}  # theirs are not where they belong before their turn
    for name in "ac":
        said = jobs.run(name, *arguments)
        assert said.endswith("The result was made by the job of task b; its log: b.log\n") and said.count("\n") == 1
    assert jobs.all_made() and jobs.notes().count("load") == 1


def test_a_job_works_on_no_more_tasks_than_it_may(stage: New) -> None:
    jobs = stage("abcd")
    jobs.run("a", share=2)
    assert jobs.notes() == ["load", "begin a", "begin b"]
    jobs.run("c", share=1)
    assert jobs.notes() == ["load", "begin a", "begin b", "load", "begin c"]


def test_two_jobs_share_tasks_out(stage: New) -> None:
    jobs = stage("abcdef")
    jobs.hold("a", "b", "d")
    first, second = jobs.start("a"), jobs.start("b")
    for name in "ab":
        jobs.wait(f"begin {name}")
    jobs.let_go("a")
    jobs.wait("begin d")  # c has been done
    jobs.let_go("b")
    jobs.end(second)
    assert sorted(jobs.made()) == [".shared", "b.zarr"] and "begin f" in jobs.notes()
    jobs.let_go("d")
    jobs.end(first)
    for name in "cdef":
        jobs.run(name)
    assert jobs.all_made() and jobs.notes().count("load") == 2


@ONE_BY_ONE
def test_a_job_whose_task_is_being_worked_on_works_on_others_then_waits(stage: New, arguments: tuple[str, ...]) -> None:
    jobs = stage("abc")
    jobs.hold("b")
    first = jobs.start("a", *arguments, companions="b")
    jobs.wait("begin b")
    second = jobs.start("b", *arguments)
    jobs.wait("begin c")
    time.sleep(0.2)
    assert second.poll() is None
    jobs.let_go("b")
    jobs.end(first)
    assert "made by the job of task a" in jobs.end(second)
    assert "made by the job of task b" in jobs.run("c", *arguments)
    assert jobs.all_made()


def test_a_job_stops_working_for_others_once_its_own_result_is_there(stage: New) -> None:
    jobs = stage("abcd")
    jobs.hold("b", "c")
    first = jobs.start("a", companions="b")
    jobs.wait("begin b")
    second = jobs.start("b")
    jobs.wait("begin c")
    jobs.let_go("b")
    jobs.end(first)
    jobs.let_go("c")
    jobs.end(second)
    assert "begin d" not in jobs.notes()


@ONE_BY_ONE
def test_a_task_whose_worker_died_is_its_own_jobs_again(stage: New, arguments: tuple[str, ...]) -> None:
    jobs = stage("ab")
    jobs.hold("b")
    first = jobs.start("a", *arguments)
    jobs.wait("begin b")
    second = jobs.start("b", *arguments, companions="")
    time.sleep(0.3)
    assert jobs.notes().count("load") == 1  # it waits
    first.kill()
    jobs.let_go("b")
    jobs.end(second)
    assert jobs.notes().count("load") == 2 and jobs.made()["b.zarr"] == "PAIRS OF B"
    jobs.run("a", *arguments, companions="")
    assert sorted(jobs.made()) == ["a.zarr", "b.zarr"]


def test_a_task_done_before_its_job_was_killed_is_not_done_again(stage: New) -> None:
    jobs = stage("ab")
    jobs.hold("b")
    first = jobs.start("a")
    jobs.wait("begin b")
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert first.returncode != 0 and jobs.made() == {".shared": ""}
    jobs.let_go("b")
    jobs.run("a")
    jobs.run("b", companions="")
    assert jobs.notes() == ["load", "begin a", "begin b", "load", "begin b"]
    assert sorted(jobs.made()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_half_written_stays(stage: New, number: int) -> None:
    jobs = stage("a")
    jobs.hold("writing")
    job = jobs.start("a")
    jobs.wait("writes")
    job.send_signal(number)
    job.communicate()
    assert job.returncode != 0 and jobs.made() == {".shared": ""}
    jobs.let_go("writing")
    jobs.run("a")
    assert jobs.made() == {"a.zarr": "PAIRS OF A"}


def test_a_result_that_took_other_inputs_or_settings_is_thrown_away(stage: New) -> None:
    jobs = stage("abc")
    jobs.run("a", "--one-by-one", "yes")
    (jobs.directory / "b").write_text("other pairs")
    said = jobs.run("b", "--one-by-one", "yes", companions="")
    assert "made by" not in said and jobs.made()["b.zarr"] == "OTHER PAIRS"
    said = jobs.run("c", companions="")  # without the flag: another setting
    assert "made by" not in said
    assert sorted(jobs.made()) == ["a.zarr", "b.zarr", "c.zarr"]


def test_a_result_made_by_another_version_of_the_script_is_thrown_away(stage: New) -> None:
    jobs = stage("ab")
    jobs.run("a")
    (jobs.directory / "script.py").write_text(SCRIPT.replace("upper", "title"))
    jobs.run("b", companions="")
    assert jobs.made() == {"a.zarr": "PAIRS OF A", "b.zarr": "Pairs Of B"}


def test_a_task_that_its_own_job_has_done_meanwhile_is_not_done_again(stage: New) -> None:
    jobs = stage("ab")
    jobs.hold("a")
    first = jobs.start("a")
    jobs.wait("begin a")
    jobs.run("b", companions="")
    jobs.let_go("a")
    jobs.end(first)
    assert jobs.all_made()


def test_an_old_result_does_not_keep_a_task_from_being_done(stage: New) -> None:
    jobs = stage("ab")
    jobs.by_hand("b")
    (jobs.directory / "results").mkdir()
    (jobs.directory / "b.zarr").rename(jobs.directory / "results" / "b.zarr")
    (jobs.directory / "b").write_text("new pairs")
    jobs.run("a")
    assert jobs.made()["b.zarr"] == "PAIRS OF B"
    jobs.run("b")
    assert jobs.made() == {"a.zarr": "PAIRS OF A", "b.zarr": "NEW PAIRS"}


def test_a_companion_that_fails_is_left_to_its_own_job(stage: New) -> None:
    jobs = stage("abc")
    (jobs.directory / "b").write_text("bad")
    assert "WARNING chronocoder.sharing: Task b is left to its own job, since it failed: bad pairs" in jobs.run("a")
    assert "ERROR chronocoder: bad pairs" in jobs.run("b", status=1, companions="")
    assert "made by the job of task a" in jobs.run("c")
    assert sorted(jobs.made()) == ["a.zarr", "c.zarr"]


def test_of_tasks_that_fail_together_the_jobs_own_is_done_alone(stage: New) -> None:
    jobs = stage("abc")
    (jobs.directory / "b").write_text("bad")
    alone = ("--one-by-one", "no")
    assert "3 tasks failed together, and are left to their own jobs: bad pairs" in jobs.run("a", *alone)
    assert "bad pairs" in jobs.run("b", *alone, status=1, companions="")
    jobs.run("c", *alone, companions="")
    assert sorted(jobs.made()) == ["a.zarr", "c.zarr"]


def test_a_program_that_breaks_on_a_companion_costs_its_job_nothing(stage: New) -> None:
    jobs = stage("abc")
    (jobs.directory / "b").write_text("broken")
    said = jobs.run("a")
    assert "RuntimeError: broken program" in said and "Tasks that failed are left to their own jobs" in said
    assert "begin c" not in jobs.notes()
    assert "RuntimeError: broken program" in jobs.run("b", companions="", status=1)
    jobs.run("c", companions="")
    assert sorted(jobs.made()) == ["a.zarr", "c.zarr"]


def test_a_job_that_fails_works_for_nobody(stage: New) -> None:
    jobs = stage("ab")
    (jobs.directory / "a").write_text("bad")
    assert "ERROR chronocoder: bad pairs" in jobs.run("a", status=1)
    assert jobs.notes() == ["load", "begin a"] and jobs.made() == {}


def test_by_hand_all_tasks_are_done_where_they_belong(stage: New) -> None:
    jobs = stage("ab")
    jobs.by_hand("ab")
    assert [(jobs.directory / f"{name}.zarr" / "text").read_text() for name in "ab"] == ["PAIRS OF A", "PAIRS OF B"]
    (jobs.directory / "a").write_text("bad")
    assert "bad pairs" in jobs.by_hand("ab", status=1)


def test_without_locks_a_job_does_its_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(sharing.fcntl, "flock", no_locks)
    slots = [Slot(tmp_path / f"{name}.zarr", "key") for name in "ab"]
    with pytest.raises(NoLocksError, match=r"\.claim: no lock"):
        slots[0].claim()
    tasks = SharedTasks(slots[0], slots[1:], limit=9, log="")
    assert tasks.begin() == slots[0].output
    assert list(tasks.turns()) == [slots[0].output]
    assert "Operation not supported); tasks are not shared" in caplog.text
    (tmp_path / ".shared" / "a.zarr" / "key.partial" / "half").mkdir(parents=True)  # of a process that was killed
    tasks.put(slots[0].output, lambda path: path.mkdir())
    assert tasks.begin() is None
    tasks.take()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_the_error_of_a_jobs_own_task_is_raised(tmp_path: Path) -> None:
    tasks = SharedTasks(Slot(tmp_path / "a.zarr", "key"), [], limit=9, log="")
    with pytest.raises(TaskError, match="bad pairs"):
        tasks.failed(tmp_path / "a.zarr", TaskError("bad pairs"))


@pytest.mark.parametrize("script", ["score_task", "attribute_task", "ablate_task"])
def test_a_job_whose_result_is_there_imports_nothing_heavy(script: str) -> None:
    code = f"import runpy, sys; runpy.run_path({str(ROOT / 'scripts' / f'{script}.py')!r}); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "xarray", "pydantic"} & set(said.stdout.split())


def test_a_claim_outlives_a_directory_that_goes_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Path.mkdir` raises where the directory was there, and another process has removed it by the time it looks."""
    make, calls = Path.mkdir, []

    def mkdir(path: Path, *mode: int, **options: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise FileExistsError(path)
        make(path, *mode, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    slot = Slot(tmp_path / "a.zarr", "key")
    assert slot.claim() and slot.is_claimed
    slot.release()
    assert not [*tmp_path.iterdir()]


def test_a_claim_goes_after_all_that_it_guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, gone = Slot(tmp_path / "a.zarr", "key"), []
    assert slot.claim()
    slot.put(lambda path: path.mkdir(), {"task": "a", "log": ""})
    remove, unlink = sharing.shutil.rmtree, Path.unlink
    monkeypatch.setattr(sharing.shutil, "rmtree", lambda path, **of: (gone.append(path.name), remove(path, **of)))
    monkeypatch.setattr(Path, "unlink", lambda path: (gone.append(path.name), unlink(path)))
    monkeypatch.setattr(Path, "iterdir", lambda path: [path / name for name in (".claim", "key")])
    slot.take()
    assert gone == ["key", ".claim"]
