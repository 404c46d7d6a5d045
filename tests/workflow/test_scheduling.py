"""How Snakemake goes through the DAG."""

from pathlib import Path

from experiments import NURSERY, Workflow


def test_the_scheduler_looks_for_jobs_when_some_may_be_ready_and_no_more_often(tmp_path: Path) -> None:
    tasks = {f"task_{place}": {"kind": "nursery", "task": "agreement_simple", "pairs": 10} for place in range(6)}
    workflow = Workflow(tmp_path, NURSERY)
    config = workflow.changed("suites.small.tasks", tasks)
    del config["suites"]["small"]["contrasts"]
    stores = [f"results/small/tasks/{task}.zarr" for task in tasks]
    result = workflow.snakemake("--cores", "1", "--verbose", *stores, config=config)
    assert result.returncode == 0, result.stdout
    jobs = result.stdout.count("Finished jobid:")
    looks = result.stdout.count("Ready jobs:")
    assert jobs == len(tasks) + 1 and looks <= jobs + 1
