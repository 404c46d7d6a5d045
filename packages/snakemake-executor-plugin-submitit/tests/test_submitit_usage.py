"""The table of what jobs used says what SLURM's accounting says, and suggests only what would matter."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit import usage as usage_module
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import ACTIVE, NoAnswerError
from snakemake_executor_plugin_submitit.usage import (
    Usage,
    megabytes_of,
    parse_usage,
    report_of,
    report_usage,
    seconds_of,
    suggestions,
    summarize,
    table_of,
)

# JobID|State|ElapsedRaw|TotalCPU|AllocCPUS|MaxRSS|TRESUsageInMax, as SLURM 22.05 prints them with --noconvert
SACCT = """\
1|COMPLETED|900|01:07:39.500|8||
1.batch|COMPLETED|900|00:00.013|4|10960896|cpu=00:00:00,energy=0,fs/disk=30623,mem=10960896,pages=2,vmem=292896768
1.extern|COMPLETED|900|00:00.001|8|131072|cpu=00:00:00,energy=0,fs/disk=5329,mem=131072,pages=0,vmem=139264
1.0|COMPLETED|900|01:07:39.486|8|2147483648|cpu=00:33:49,gres/gpumem=21794M,gres/gpuutil=150,mem=2147483648,pages=0
1.1|COMPLETED|10|00:00.100|8|1073741824|cpu=00:00:00,gres/gpumem=1M,gres/gpuutil=3,mem=1073741824,pages=0
2|FAILED|0|00:00.001|1||
2.batch|FAILED|0|00:00.001|1||energy=0
3|CANCELLED by 1000|4|00:00.002|1||
3.batch|CANCELLED|4|00:00.002|1|3293184|cpu=00:00:00,energy=0,fs/disk=11087,mem=3293184,pages=0,vmem=5644288
4|PENDING|0|00:00:00|1||
6|REQUEUED|500|00:00.005|1||
6.batch|CANCELLED|500|00:00.005|1|9999999999|cpu=00:00:00,energy=0,mem=9999999999,pages=0
5_0|RUNNING|25|00:00:00|1||
5_0.batch|RUNNING|25|00:00:00|1||
5_1|TIMEOUT|1210|1-00:00:01|128||
5_1.batch|CANCELLED|1212|1-00:00:01|128|1.5G|
5_[4-9%2]|PENDING|0|00:00:00|1||
6|COMPLETED|7|00:00.003|1||
6.batch|COMPLETED|7|00:00.003|1|3133440|cpu=00:00:00,energy=0,mem=3133440,pages=0,vmem=5644288
"""
BIG = Request(runtime=100, mem_mb=10000, cpus=8)
USED = Usage("COMPLETED", elapsed_s=3000, cpu_s=3000 * 6, cpus=8, memory_mb=7000)  # as it should be
WITH_GPUS = replace(BIG, gpus=2)


def advice(*jobs: tuple[Request, Usage], label: str = "train") -> list[str]:
    allocations = {str(number): (label, request) for number, (request, _) in enumerate(jobs)}
    return suggestions(summarize(allocations, {str(number): usage for number, (_, usage) in enumerate(jobs)}))


def used(**differences: Any) -> Usage:
    """Return a usage that keeps as many CPUs busy, however long, unless told otherwise."""
    elapsed_s = differences.get("elapsed_s", USED.elapsed_s)
    return replace(USED, **{"cpu_s": elapsed_s * 6, **differences})


def test_accounting_is_read_as_slurm_prints_it():
    usages = parse_usage(SACCT)
    # the largest memory and GPU use of any step, the CPU time of the job, which has that of its steps in it
    assert usages["1"] == Usage("COMPLETED", 900, 4059.5, 8, 2048, 150)
    assert usages["2"] == Usage("FAILED", 0, 0.001, 1)
    assert usages["3"] == Usage("CANCELLED", 4, 0.002, 1, 3293184 / 2**20)
    assert usages["5_1"] == Usage("TIMEOUT", 1210, 86401, 128, 1536)
    assert [usages[job_id].state for job_id in ("4", "5_0", "5_[4-9%2]")] == [ACTIVE] * 3


def test_the_last_run_of_a_requeued_job_counts_and_no_other():
    assert parse_usage(SACCT)["6"] == Usage("COMPLETED", 7, 0.003, 1, 3133440 / 2**20, requeued=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:07.657", 7.657),
        ("12:34", 754),
        ("01:02:03", 3723),
        ("2-01:02:03", 176523),
        ("1-02:03.5", 86523.5),
        ("", 0),
        ("Partition_Limit", 0),
        ("-1:00", 0),
        ("1:2:3:4", 0),
    ],
)
def test_durations(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("123456K", 120.5625),
        ("1.5G", 1536),
        ("10.45M", 10.45),
        ("8192", 1 / 128),
        ("1T", 2**20),
        ("0", 0),
        ("", 0),
        ("-5K", 0),
        ("12X", 0),
        ("nan", 0),
        ("K", 0),
    ],
)
def test_sizes(text, megabytes):
    assert megabytes_of(text) == pytest.approx(megabytes)


def test_lines_of_other_forms_break_nothing():
    garbage = [
        "",
        "|",
        "sacct: error: slurmdbd is slow|",
        "7.batch|COMPLETED|1|00:01|1|5K|",  # a step of no job
        "8|||||||||",
        "9|COMPLETED|many|long|nan|-3K|gres/gpuutil=much",
        "9.batch|COMPLETED|1|00:01|1|" + "9" * 400 + "K|gres/gpuutil=" + "9" * 400,
        "10||||||",
    ]
    usages = parse_usage("\n".join(garbage) + "\n" + SACCT)
    assert usages.keys() == parse_usage(SACCT).keys() | {"9", "10"}
    assert usages["9"] == Usage("COMPLETED", 0, 0, 0)
    row, missing = report_of(dict.fromkeys(["7", "9", "10"], ("odd", WITH_GPUS)), usages).splitlines()[-2:]
    assert row.split()[:2] == ["odd", "1"] and "2 of 3 jobs" in missing


def test_jobs_of_a_rule_are_one_line():
    jobs = {
        "1": ("train", Request(runtime=60, mem_mb=4000, cpus=4, gpus=2, nodes=2)),
        "2": ("train", Request(runtime=240, mem_mb=2000, cpus=8, gpus=2)),
        "3": ("score", Request(runtime=5, mem_mb=500, cpus=1)),
    }
    usages = {
        "1": Usage("COMPLETED", 600, 2400, 8, 3000, 100),
        "2": Usage("COMPLETED", 1800, 1200, 8, 1000, 40),
        "3": Usage("FAILED", 30, 0, 1),
    }
    train, score = summarize(jobs, usages)
    assert (train.label, train.jobs, train.request) == ("train", 2, Request(240, 4000, 8, 2, 2))
    assert (train.longest_min, train.time_share) == (30, pytest.approx(1 / 6))
    assert (train.memory_mb, train.memory_share) == (3000, 0.75)
    assert train.cpu_share == pytest.approx(3600 / (600 * 8 + 1800 * 8))
    assert train.busy_cpus == pytest.approx(3600 / (600 * 2 + 1800))
    assert train.gpu_percent == pytest.approx((50 * 600 + 20 * 1800) / 2400)
    assert (score.cpu_share, score.busy_cpus, score.memory_mb, score.gpu_percent) == (None, None, 0, None)


def test_gpus_of_a_type_are_counted_and_named():
    typed = replace(BIG, gpus=3, gpu_types="a100:2,v100:1")
    jobs = {"1": ("train", replace(BIG, gpus=1)), "2": ("train", typed)}
    (summary,) = summarize(jobs, {"1": used(gpu_percent=60.0), "2": used(gpu_percent=60.0)})
    assert (summary.request.gpus, summary.gpu_percent) == (3, 40)
    assert table_of([summary]).split()[-2:] == ["a100:2,v100:1", "40%"]


def test_tasks_keep_an_equal_number_of_cpus():
    (line,) = advice((replace(BIG, cpus=20, tasks=5), used(cpus=20, cpu_s=3000 * 4)))[1:]
    assert line.endswith("set-resources: train: cpus: 10")


def test_cpu_time_that_was_not_recorded_does_not_count_as_none():
    jobs = dict.fromkeys("12", ("train", BIG))
    (summary,) = summarize(jobs, {"1": used(cpu_s=12000), "2": used(cpu_s=0)})
    assert summary.cpu_share == 0.5


def test_the_table_is_aligned_and_says_what_is_not_recorded():
    usages = {"1": used(gpu_percent=160.0), "2": used(memory_mb=0, cpu_s=0), "3": USED}
    jobs = {"1": ("train", WITH_GPUS), "2": ("long_name+b", WITH_GPUS), "3": ("score", BIG)}
    lines = table_of(summarize(jobs, usages)).splitlines()
    assert len({len(line.rstrip()) for line in lines}) == 1  # numbers end where their headings do
    unknown = "not recorded"
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells == [
        ["rule", "jobs", "time limit", "longest", "CPUs", "CPU use", "memory", "largest", "GPUs", "GPU peak"],
        ["train", "1", "100 min", "50.0 min", "8", "75%", "10000 MB", "7000 MB", "2", "80%"],
        ["long_name+b", "1", "100 min", "50.0 min", "8", unknown, "10000 MB", unknown, "2", unknown],
        ["score", "1", "100 min", "50.0 min", "8", "75%", "10000 MB", "7000 MB", "0", "-"],
    ]


@pytest.mark.parametrize(
    ("request_", "usage", "hint"),
    [
        (BIG, used(memory_mb=4990), "at most 4990 of 10000 MB used; mem_mb: 6500"),
        (BIG, used(memory_mb=9100), "up to 91% of the memory used; mem_mb: 11900"),
        (BIG, used(state="OUT_OF_MEMORY", memory_mb=90), "up to 100% of the memory used; mem_mb: 13000"),
        (BIG, used(elapsed_s=1440), "at most 24.0 of 100 min used; runtime: 40"),
        (BIG, used(elapsed_s=4860), "up to 81% of the time limit used; runtime: 125"),
        (BIG, used(state="TIMEOUT", elapsed_s=6030), "up to 100% of the time limit used; runtime: 155"),
        (BIG, used(cpu_s=3000 * 3.9), "3.9 of 8 CPUs busy on average; cpus: 6"),
        (WITH_GPUS, used(gpu_percent=38.0), "GPUs hardly used, 19% at their highest, by what was sampled"),
        (WITH_GPUS, used(gpu_percent=0.0), "GPUs hardly used, 0% at their highest, by what was sampled"),
    ],
)
def test_what_would_matter_is_suggested(request_, usage, hint):
    (heading, line) = advice((request_, usage))
    assert heading == "Suggestions:"
    assert line.replace("set-resources: train: ", "") == f"  train: {hint}"
    assert ("set-resources: train: " in line) == (";" in hint)


@pytest.mark.parametrize(
    ("request_", "usage"),
    [
        (BIG, USED),
        (BIG, used(memory_mb=0)),
        (BIG, used(memory_mb=5000)),
        (BIG, used(memory_mb=9000)),
        (replace(BIG, mem_mb=1000), used(memory_mb=5)),
        (BIG, used(elapsed_s=1500)),
        (BIG, used(elapsed_s=4800)),
        (replace(BIG, runtime=10), used(elapsed_s=30)),
        (BIG, used(elapsed_s=60, requeued=True)),
        (BIG, used(cpu_s=3000 * 4)),
        (BIG, used(cpu_s=0)),
        (replace(BIG, cpus=1), used(cpu_s=300, cpus=1)),
        (replace(BIG, cpus=2), used(cpu_s=3000 * 0.9, cpus=2)),
        (replace(BIG, cpus=4), used(cpu_s=3000 * 3.9, cpus=128)),  # a whole node was given
        (WITH_GPUS, USED),
        (WITH_GPUS, used(gpu_percent=40.0)),
        (replace(WITH_GPUS, runtime=1), used(elapsed_s=40, gpu_percent=0.0)),  # too short to be sampled
        (BIG, used(gpu_percent=0.0)),
        (WITH_GPUS, Usage("FAILED", 60, 60, 8, 100, 0.0)),  # it failed at once, which says nothing of its needs
    ],
)
def test_what_would_not_matter_is_not_suggested(request_, usage):
    assert advice((request_, usage)) == []


def test_a_rule_is_judged_by_its_largest_job():
    assert advice((BIG, used(memory_mb=100)), (BIG, USED)) == []
    assert advice((BIG, used(elapsed_s=60)), (BIG, used(elapsed_s=60, requeued=True))) == []
    small = replace(BIG, mem_mb=2000)
    (_, hint) = advice((small, used(memory_mb=1900)), (BIG, used(memory_mb=4000)))
    assert hint == "  train: up to 95% of the memory used; set-resources: train: mem_mb: 5200"


def test_rules_packed_together_get_one_sentence():
    little = used(memory_mb=4000, cpu_s=3000, gpu_percent=20.0)
    assert advice((WITH_GPUS, little), label="a+b") == [
        "Suggestions:",
        "  a+b, in one allocation: at most 4000 of 10000 MB used (mem_mb: 5200), 1.0 of 8 CPUs busy on average"
        " (cpus: 2), GPUs hardly used, 10% at their highest, by what was sampled",
    ]


def report(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answers: list[str], *job_ids: str) -> str:
    """Return what is logged, and check that SLURM is asked once per answer, about each job's number once."""
    asked: list[tuple[str, ...]] = []
    slept: list[float] = []
    left = iter(answers)
    monkeypatch.setattr(usage_module, "ask", lambda command: asked.append(tuple(command)) or next(left))
    monkeypatch.setattr(usage_module, "sleep", slept.append)
    with caplog.at_level(logging.INFO):
        report_usage(dict.fromkeys(job_ids, ("train", BIG)), logging.getLogger("run"))
    assert len(asked) == len(answers)
    assert sum(slept) <= 5
    (command,) = set(asked)
    assert command[0] == "sacct" and {"--parsable2", "--noheader", "--noconvert", "--duplicates"} < set(command)
    numbers = sorted({job_id.split("_")[0] for job_id in job_ids})
    assert [word for word in command if word.startswith("--jobs")] == [f"--jobs={','.join(numbers)}"]
    return "\n".join(record.getMessage() for record in caplog.records)


def test_the_report_has_a_title_a_table_suggestions_and_what_is_missing(monkeypatch, caplog):
    text = report(monkeypatch, caplog, [SACCT] * 5, "1", "5_0", "5_1", "5_4", "77")
    title, rest = text.split("\nrule ")
    assert "SLURM's figures" in title
    _, row, heading, hint, *others, missing = rest.splitlines()
    assert row.split()[:2] == ["train", "2"]
    assert heading == "Suggestions:"
    assert hint == "  train: at most 2048 of 10000 MB used; set-resources: train: mem_mb: 2700"
    assert len(others) == 1 and "runtime: 35" in others[0]
    assert missing == "SLURM's accounting does not yet show the end of 3 of 5 jobs."


def test_no_table_where_no_job_has_ended(monkeypatch, caplog):
    text = report(monkeypatch, caplog, [""] * 5, "1", "2")
    assert text == "SLURM's accounting does not yet show the end of 2 of 2 jobs."


def test_accounting_that_knows_all_ends_is_asked_once(monkeypatch, caplog):
    text = report(monkeypatch, caplog, [SACCT], "1", "5_1")
    assert "SLURM's figures" in text
    assert "does not yet show" not in text


@pytest.mark.parametrize("before", ["", "2|RUNNING|5|00:00:00|1||\n"], ids=["missing", "active"])
def test_accounting_that_lags_is_asked_again(monkeypatch, caplog, before):
    ended = "2|COMPLETED|300|00:10.000|8||\n"
    text = report(monkeypatch, caplog, [before, before, ended], "2")
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("train ")] == [["train", "1"]]
    assert "does not yet show" not in text


def test_one_sentence_where_there_is_no_accounting(monkeypatch, caplog):
    def refuse(_command: list[str]) -> str:
        raise NoAnswerError("sacct: Slurm accounting storage is disabled\nsacct: fatal")

    monkeypatch.setattr(usage_module, "ask", refuse)
    with caplog.at_level(logging.INFO):
        report_usage({"1": ("train", BIG)}, logging.getLogger("run"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "No table of what jobs used, for SLURM's accounting does not answer"
        " (sacct: Slurm accounting storage is disabled sacct: fatal)."
    )
